/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BUFFERS_PLACEMENT_H
#define RT_BUFFERS_PLACEMENT_H

/*
 * Where every byte lives: a pure function of the dimensions. The same table sizes and carves, so
 * the two can never disagree.
 *
 *   arena  (device)          one allocation, tensors at 256-byte aligned offsets, in table order
 *   mapped (pinned host)     ring of records | ring of completions | completed word
 *   pool   (device)          kv, layer after layer
 */
#include "common/check.h"
#include "common/kv_format.h"
#include "common/record.h"

#include <stdbool.h>

#define RT_TENSOR_ALIGN 256u

/* Everything the sizes depend on. All fields are checked by rt_placement_make. */
struct rt_dims {
    struct rt_kv_format kv;
    uint32_t heads, layers;
    uint32_t slots;      /* sequences */
    uint32_t max_length; /* tokens */
    uint32_t page_size;  /* tokens */
    uint64_t pages;
    uint32_t bucket_max;   /* largest captured batch */
    uint32_t rows;         /* rows of the data tensors: every row_base + bucket that can occur */
    uint32_t q_max;        /* longest captured query */
    uint32_t parts_max;    /* most parts of any graph's schedule */
    uint64_t partial_rows; /* max over graphs of split slots * heads * q_len */
    uint32_t ring_depth;
    bool per_layer; /* q, latent, out, lse: one per layer */
    bool is_f32;    /* data tensors and cache */
    /* Of blocks, all 0 where there are none: then their tensors are absent. */
    uint32_t hidden;
    uint32_t input_norm_rows; /* bucket_max where the block normalises its input itself */
    uint32_t a_width;         /* of hidden's first product */
    uint32_t q_width; /* of q before absorption, all heads; 0: it is part of the first product */
    uint32_t v_width; /* of all heads' values */
    uint32_t rope_positions, rope_pairs, query_scales;
    uint64_t workspace_bytes; /* of a library's products */
};

/* The symbolic dimensions of tensors.inc, and the value of each in a placement p. */
#define RT_DIM_LIST(X)                                                                             \
    X(SLOTS, (p)->dims.slots)                                                                      \
    X(MAX_BLOCKS, (p)->max_blocks)                                                                 \
    X(BUCKET, (p)->dims.bucket_max)                                                                \
    X(BUCKET_AND_ONE, (p)->dims.bucket_max + UINT64_C(1))                                          \
    X(ROWS, (p)->dims.rows)                                                                        \
    X(DATA_ROWS, (p)->dims.hidden ? (p)->dims.bucket_max : (p)->dims.rows)                         \
    X(LATENT_ROWS, (p)->dims.hidden ? 0 : (p)->dims.rows)                                          \
    X(INPUT_NORM_ROWS, (p)->dims.input_norm_rows)                                                  \
    X(HIDDEN, (p)->dims.hidden)                                                                    \
    X(A_WIDTH, (p)->dims.a_width)                                                                  \
    X(Q_WIDTH, (p)->dims.q_width)                                                                  \
    X(V_WIDTH, (p)->dims.v_width)                                                                  \
    X(ROPE_POSITIONS, (p)->dims.rope_positions)                                                    \
    X(ROPE_PAIRS, (p)->dims.rope_pairs)                                                            \
    X(COS_SIN, 2)                                                                                  \
    X(QUERY_SCALES, (p)->dims.query_scales)                                                        \
    X(WORKSPACE_BYTES, (p)->dims.workspace_bytes)                                                  \
    X(Q_MAX, (p)->dims.q_max)                                                                      \
    X(DRAFTS, (p)->dims.q_max - UINT64_C(1))                                                       \
    X(HEADS, (p)->dims.heads)                                                                      \
    X(D_QK, (p)->dims.kv.d_qk)                                                                     \
    X(D_V, (p)->dims.kv.d_v)                                                                       \
    X(PAGES, (p)->dims.pages)                                                                      \
    X(PAGE_SIZE, (p)->dims.page_size)                                                              \
    X(PARTS, (p)->dims.parts_max)                                                                  \
    X(PARTIAL_ROWS, (p)->dims.partial_rows)                                                        \
    X(RING_DEPTH, (p)->dims.ring_depth)                                                            \
    X(RECORD_BYTES, (p)->record.record_bytes)                                                      \
    X(COMPLETION_BYTES, (p)->record.completion_bytes)                                              \
    X(CTRL_BYTES, sizeof(struct rt_ctrl))                                                          \
    X(COMPLETED_BYTES, 64) /* one word, alone in its cache line */                                 \
    X(PAGE_COPIES, RT_MAX_PAGE_COPIES)                                                             \
    X(PAGE_COPY_WORDS, sizeof(struct rt_page_copy) / sizeof(int32_t))                              \
    X(PART_WORDS, 8) /* struct rt_part */

enum rt_tensor_scope { RT_SCOPE_STEP, RT_SCOPE_SLOT, RT_SCOPE_ROW, RT_SCOPE_DATA, RT_SCOPE_LAYER };

enum rt_tensor_id {
#define RT_TENSOR(id, ...) RT_TENSOR_##id,
#include "buffers/tensors.inc"
    RT_TENSOR_COUNT
};

/* `shape` is one layer's where layer_stride is set; bytes covers all layers, and is 0 where this
 * configuration has no such tensor: a dimension of it is 0. */
struct rt_placed {
    const char *name;
    enum rt_plan_region region;
    enum rt_dtype dtype;
    enum rt_tensor_scope scope;
    bool is_public; /* by rt_tensor, where it is not absent */
    uint32_t rank;
    uint64_t shape[4];
    uint64_t offset; /* within its region */
    uint64_t bytes;
    uint64_t layer_stride; /* bytes from layer to layer; 0: not per layer */
};

/* Offsets within a record and a completion, see common/record.h. */
struct rt_record_format {
    uint32_t rows_offset;
    uint32_t tokens_offset;
    uint32_t ops_offset;
    uint32_t ops_capacity; /* bytes: one whole block-table line, and 16 KiB more */
    uint32_t record_bytes; /* multiple of 64 */
    uint32_t outcome_tokens_offset;
    uint32_t completion_bytes; /* multiple of 64: header, bucket_max outcomes, their tokens */
};

struct rt_placement {
    struct rt_dims dims;
    uint32_t max_blocks; /* block-table columns: ceil(max_length / page_size) */
    struct rt_record_format record;
    struct rt_placed tensors[RT_TENSOR_COUNT];
    uint64_t arena_bytes, mapped_bytes, pool_bytes;
};

/* RT_ERR_INVALID for a zero or out-of-range field, or a size that overflows: *out is zeroed. */
enum rt_status rt_placement_make(const struct rt_dims *dims, struct rt_placement *out,
                                 struct rt_error *err);

/* Bytes of one page in all layers: what a memory budget is divided by. 0 on overflow. */
uint64_t rt_placement_page_bytes(const struct rt_dims *dims);

/* The tensor of that name, or RT_TENSOR_COUNT. */
enum rt_tensor_id rt_tensor_find(const struct rt_placement *placement, const char *name);

#endif
