/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_ATTEND_CASE_H
#define RT_TESTS_CHECKKERN_ATTEND_CASE_H

/*
 * One problem for attend and reduce. Everything that must not be read is NaN, or a page id that
 * leads nowhere: tokens behind a row's length, pages of nobody, gaps between strides, queries of
 * padded rows, table entries behind the last page. What must be written starts as NaN, too.
 *
 * Where the layout is quantised, kernels are given such a cache, and the truth what it holds, as
 * bf16.
 *
 * Of every third case the kernels, and not the truth, are given q as two tensors, each with strides
 * of its own.
 */
#include "kernels/ops/op_build.h"
#include "tests/checkkern/harness.h"

#define CK_ATTEND_ROWS 160

enum ck_flavour {
    CK_PLAIN,     /* normal / 10, clamped to +-1 */
    CK_HUGE,      /* scores of some +-1e4, exact in float */
    CK_EQUAL,     /* all queries and keys the same */
    CK_MINUS_INF, /* scores of -inf: every third key of even rows, all keys of odd ones */
    CK_PLUS_INF,  /* one score of +inf in even rows */
    CK_NAN_QUERY, /* NaN in one query row of each batch row */
    CK_NAN_KEY,   /* NaN in key 0 of even rows */
    CK_BAD_DRAFT, /* NaN, +inf or -inf in keys that a row's first tokens do not see */
    CK_BAD_PAGES, /* seen keys whose page id leads nowhere */
    CK_FAR,       /* values of 2^40 and 2^-40 times the usual, of some columns or of all */
    CK_SCALES,    /* tokens' scales, where a cache has such: either sign, not all powers of two */
    CK_FLAVOURS
};

struct ck_attend {
    uint32_t d_qk, d_v, heads, q_len, page_size;
    uint32_t rows, padded; /* the last `padded` of rows are padding */
    int32_t lengths[CK_ATTEND_ROWS];
    bool causal;
    bool strided;      /* gaps everywhere, lse as [row, head, token] */
    bool slots;        /* rows find their table line through row_slot */
    bool lse_base2;    /* natural else */
    bool sink;         /* of every head: of the size of scores, or an infinity */
    bool far;          /* pages 64 MiB apart, beyond 32-bit offsets */
    uint32_t row_base; /* not 0: through ctrl */
    enum ck_flavour flavour;
    bool blank;                                  /* a quantised cache stays NaN: for who measures */
    enum rt_kv_layout layout;                    /* of the cache that kernels are given */
    uint32_t tile_rows;                          /* of the generic kernel; 0: the resolver's */
    bool is_many;                                /* by the kernel that would have more rows */
    uint32_t parts, overhead_blocks, min_blocks; /* of the schedule; parts 0: the resolver's */
    float scale;
    uint64_t seed;
};

/* One whose shape is given and everything else turns with `n`. `geometry`: 0..3, 576/512, 320/256,
 * 288/256, 512/512. */
struct ck_attend ck_attend_turn(const struct ck *ck, uint32_t geometry, uint32_t heads,
                                uint32_t q_len, uint32_t n);

/* False where the geometry has no such layout. */
bool ck_attend_format(const struct ck_attend *c, struct rt_kv_format *out);

/* A column's numbers are 2 to this times the usual. */
int ck_attend_exponent(const struct ck_attend *c, uint32_t column);

/* Whether kernels are given q as two tensors. */
bool ck_attend_has_q_rope(const struct ck_attend *c);

struct ck_attend_rig {
    struct rt_variant choice;
    struct ck_buffer q, q_rope, kv, table, slot, length, tiles, num_splits;
    struct ck_buffer out, lse, partial_out, partial_lse, ctrl, sink;
    struct ck_buffer stamps; /* first of attend, last of reduce */
    struct ck_buffer quant;  /* the cache of a quantised layout */
    struct ck_buffer plain;  /* what was quantised, as kv has it */
    struct rt_quant_view quant_view;
    struct rt_attend_params attend; /* of the device side */
    struct rt_reduce_params reduce;
    struct rt_attend_params ref; /* of the reference side: for the truth */
};

/* kv, as it was filled, becomes what the quantised cache holds of it. For ck_attend_inputs. */
void ck_attend_quantise(struct ck *ck, const struct ck_attend *c, struct ck_attend_rig *rig);
/* Whether bf16 rounds products of its scale with e4m3, which sm_90's kernels do not. */
bool ck_attend_is_rounded(const struct ck_attend *c, const struct ck_attend_rig *rig);
/* The view of that cache, of the device side. */
struct rt_kv_view ck_attend_quant_kv(const struct ck_attend *c, const struct ck_attend_rig *rig);

/* False where the backend does not serve the case on this device. invariant: 1: batch-invariant. */
bool ck_attend_resolve(struct ck *ck, const struct ck_attend *c, enum rt_backend backend,
                       uint32_t invariant, struct rt_variant *out);

/* Another tile of a generic kernel, "attend" or "sparse", of d_qk and d_v: what a device with less
 * shared memory would be given. False where this one has no room for it either. */
bool ck_choose_tile(struct ck *ck, const char *kind, const uint32_t d[2], uint32_t query_rows,
                    uint32_t tile_rows, struct rt_variant *choice);

/* Fills every input and uploads it: all that the truth needs. Ended by ck_attend_free. */
void ck_attend_inputs(struct ck *ck, const struct ck_attend *c, struct ck_attend_rig *rig);
void ck_attend_free(struct ck *ck, struct ck_attend_rig *rig);

/* What a kernel needs besides: its plan, partials and outputs. Ended by ck_attend_unplan, after
 * which another kernel may be given the same inputs. */
void ck_attend_plan(struct ck *ck, const struct ck_attend *c, const struct rt_variant *choice,
                    struct ck_attend_rig *rig);
void ck_attend_unplan(struct ck *ck, struct ck_attend_rig *rig);

/* Launches of the two kernels. */
void ck_attend_launches(struct ck *ck, const struct ck_attend_rig *rig, struct rt_launch *attend,
                        struct rt_launch *reduce);

/* Runs the case on every kernel that serves it, or with a tile_rows on that of the generic ones,
 * and compares with the truth. */
void ck_attend_check(struct ck *ck, const struct ck_attend *c);

/* Cases with the shapes of another implementation's tests. */
void ck_attend_peer_run(struct ck *ck);

#endif
