/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_SPARSE_CASE_H
#define RT_TESTS_CHECKKERN_SPARSE_CASE_H

/*
 * One problem for sparse_schedule, sparse_attend and reduce. Caches are NaN but for the tokens that
 * a list names; what stands behind a count names NaN, or nothing at all. Entries are drawn with
 * duplicates, -1, and numbers that lead nowhere. What must be written starts as NaN.
 */
#include "kernels/ops/op_build.h"
#include "tests/checkkern/harness.h"

/* A cache and a list for every token. */
struct ck_sparse_list {
    uint32_t topk;   /* 0: there is none */
    uint32_t tokens; /* of a row's positions, or of all slots */
    uint32_t page_size;
    bool by_position; /* slots else */
    uint32_t counts;  /* 0: none, all entries hold; 1: of every token; 2: of every row */
};

struct ck_sparse {
    uint32_t d_qk, d_v, heads, q_len;
    uint32_t rows, padded; /* the last `padded` of rows are padding */
    struct ck_sparse_list keys, extra;
    enum rt_kv_layout layout; /* of both caches */
    bool nothing;             /* no entry of an even row is a key */
    bool blank;               /* keys stay NaN: for who measures */
    bool strided, slots, lse_base2, sink, q_rope;
    uint32_t row_base;
    enum rt_backend backend;                     /* AUTO: the fastest here */
    uint32_t tile_rows;                          /* of the generic kernel; 0: the resolver's */
    uint32_t parts, overhead_blocks, min_blocks; /* parts 0: the resolver's */
    float scale;
    uint64_t seed;
};

/* kv is bf16: of a quantised layout what quant holds, which kernels are given. */
struct ck_sparse_list_rig {
    struct ck_buffer kv, quant, table, index, count;
};

struct ck_sparse_rig {
    struct rt_variant choice;
    struct ck_sparse_list_rig keys, extra;
    struct ck_buffer q, q_rope, slot, row_length, ctrl, sink;
    struct ck_buffer length, parts, num_splits, partial_out, partial_lse, out, lse;
    struct rt_sparse_schedule_params schedule[2]; /* by enum ck_side */
    struct rt_sparse_attend_params attend[2];
    struct rt_quant_view quant, extra_quant;
    struct rt_reduce_params reduce; /* of the device */
};

/* The launch of the attention. */
void ck_sparse_attend(struct ck *ck, const struct ck_sparse_rig *rig, struct rt_launch *out);

/* From here on attention and reduce make their plan themselves, and none is in memory. */
void ck_sparse_count(const struct ck_sparse *c, struct ck_sparse_rig *rig);

/* False where no kernel serves the case here. Ended by ck_sparse_free. */
bool ck_sparse_make(struct ck *ck, const struct ck_sparse *c, struct ck_sparse_rig *rig);
void ck_sparse_free(struct ck *ck, struct ck_sparse_rig *rig);

#endif
