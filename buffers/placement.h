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
#include "common/context.h"
#include "common/kv_format.h"
#include "common/math.h"
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
    uint32_t context;    /* ranks that have a sequence's tokens between them; 1: this one has all */
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
    uint32_t input_norm_rows;       /* bucket_max where the block normalises its input itself */
    uint32_t a_width;               /* of hidden's first product */
    uint32_t sum_parts, sum_tokens; /* of that product where it is cut along k; tokens 0: nowhere */
    uint32_t q_width; /* of q before absorption, all heads; 0: it is part of the first product */
    uint32_t v_width; /* of the values of all heads that the rank has behind attention */
    uint32_t rope_positions, rope_pairs, query_scales;
    uint64_t workspace_bytes; /* of a library's products */
    uint64_t exchange_bytes;  /* of all graphs whose blocks are one kernel each */
    /* Of chunks, all 0 where there are none. The most of any graph: */
    uint32_t chunk_rows;    /* those that decode included */
    uint32_t prefill_rows;  /* those alone that have tokens of prompts */
    uint32_t chunk_tokens;  /* of all rows */
    uint32_t chunk;         /* of prompts */
    uint32_t absorbed;      /* of prompts, where their attention is as decode has it */
    uint32_t expanded;      /* of prompts, where their keys and values are expanded */
    uint32_t pieces;        /* of cached context that are expanded */
    uint32_t context_piece; /* tokens of one */
    uint32_t kv_width;      /* of a token's keys and values of all heads */
    uint32_t topk;          /* of sparse attention; 0: it is dense */
    bool has_sinks;
};

/* The symbolic dimensions of tensors.inc, and the value of each in a placement p. */
#define RT_DIM_LIST(X)                                                                             \
    X(SLOTS, (p)->dims.slots)                                                                      \
    X(MAX_BLOCKS, (p)->max_blocks)                                                                 \
    X(BUCKET, (p)->dims.bucket_max)                                                                \
    X(SCHEDULED_AND_ONE, rt_scheduled_rows(p) + UINT64_C(1))                                       \
    X(ROWS, (p)->dims.rows)                                                                        \
    X(BLOCK_ROWS, rt_rows_for(p, (p)->dims.bucket_max))                                            \
    X(DATA_ROWS, rt_rows_for(p, (p)->dims.hidden ? (p)->dims.bucket_max : (p)->dims.rows))         \
    X(LATENT_ROWS, (p)->dims.hidden ? 0 : rt_rows_for(p, (p)->dims.rows))                          \
    X(INPUT_NORM_ROWS, (p)->dims.input_norm_rows ? rt_rows_for(p, (p)->dims.bucket_max) : 0)       \
    X(CHUNK_ROWS, (p)->dims.chunk_rows)                                                            \
    X(CHUNK_TOKENS, (p)->dims.chunk_tokens)                                                        \
    X(LONG_BESIDE, (p)->dims.q_max > 1 ? (p)->dims.chunk_rows - (p)->dims.prefill_rows : 0)        \
    X(ROW_TOKENS, rt_row_tokens(p))                                                                \
    X(CONTEXT_TOKENS, (p)->dims.context > 1 ? rt_row_tokens(p) : 0)                                \
    X(EXCHANGED_BYTES, rt_exchanged_bytes(p))                                                      \
    X(ROW_ENDS, (p)->dims.chunk_rows ? (p)->dims.prefill_rows + UINT64_C(1) : 0)                   \
    X(PIECES, (p)->dims.pieces)                                                                    \
    X(OUTPUTS, (p)->dims.expanded ? (p)->dims.pieces + UINT64_C(1) : 0)                            \
    X(MERGED, (p)->dims.pieces ? (p)->dims.pieces + UINT64_C(1) : 0)                               \
    X(EXPANDED, (p)->dims.expanded)                                                                \
    X(EXPANDED_KEYS, rt_max_u32((p)->dims.expanded, (p)->dims.context_piece))                      \
    X(KV_WIDTH, (p)->dims.kv_width)                                                                \
    X(TURNS, (p)->dims.expanded ? 1 : 0)                                                           \
    X(ABSORBED_PARTS, (p)->dims.absorbed ? (p)->dims.parts_max : 0)                                \
    X(ABSORBED_AND_ONE, (p)->dims.absorbed ? (p)->dims.absorbed + UINT64_C(1) : 0)                 \
    X(HIDDEN, (p)->dims.hidden)                                                                    \
    X(A_WIDTH, (p)->dims.a_width)                                                                  \
    X(SUM_PARTS, (p)->dims.sum_parts)                                                              \
    X(SUM_TOKENS, (p)->dims.sum_tokens)                                                            \
    X(Q_WIDTH, (p)->dims.q_width)                                                                  \
    X(V_WIDTH, (p)->dims.v_width)                                                                  \
    X(ROPE_POSITIONS, (p)->dims.rope_positions)                                                    \
    X(ROPE_PAIRS, (p)->dims.rope_pairs)                                                            \
    X(EXCHANGE_BYTES, (p)->dims.exchange_bytes)                                                    \
    X(COS_SIN, 2)                                                                                  \
    X(QUERY_SCALES, (p)->dims.query_scales)                                                        \
    X(WORKSPACES, (p)->dims.expanded ? 2 : 1) /* of products beside each other */                  \
    X(WORKSPACE_BYTES, (p)->dims.workspace_bytes)                                                  \
    X(Q_MAX, (p)->dims.q_max)                                                                      \
    X(DRAFTS, (p)->dims.q_max - UINT64_C(1))                                                       \
    X(REACHES, (p)->dims.q_max > 1 ? (p)->dims.bucket_max : 0)                                     \
    X(HEADS, (p)->dims.heads)                                                                      \
    X(OUT_HEADS, (p)->dims.heads / (p)->dims.context)                                              \
    X(TOPK, (p)->dims.topk)                                                                        \
    X(SPARSE_ROWS, (p)->dims.topk ? rt_rows_for(p, (p)->dims.rows) : 0)                            \
    X(SPARSE_TOKENS, (p)->dims.topk ? rt_listed_tokens(p) : 0)                                     \
    X(SINKS, (p)->dims.has_sinks ? (p)->dims.heads : 0)                                            \
    X(D_QK, (p)->dims.kv.d_qk)                                                                     \
    X(D_V, (p)->dims.kv.d_v)                                                                       \
    X(TOKEN_WIDTH, rt_token_width(p))                                                              \
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
    uint32_t max_blocks; /* block-table columns: ceil(max_length / (page_size * context)) */
    struct rt_record_format record;
    struct rt_placed tensors[RT_TENSOR_COUNT];
    uint64_t arena_bytes, mapped_bytes, pool_bytes;
};

/* RT_ERR_INVALID for a zero or out-of-range field, or a size that overflows: *out is zeroed. */
enum rt_status rt_placement_make(const struct rt_dims *dims, struct rt_placement *out,
                                 struct rt_error *err);

/* Rows of the longest query that hold `rows` of them, and the tokens of every chunk. */
static inline uint64_t rt_rows_for(const struct rt_placement *p, uint32_t rows)
{
    return rt_max_u32(rows, rt_ceil_div_u32(p->dims.chunk_tokens, p->dims.q_max));
}

/* Numbers of a token in the cache, or bytes where its layout is quantised. */
static inline uint64_t rt_token_width(const struct rt_placement *p)
{
    return rt_kv_is_quantised(&p->dims.kv) ? p->dims.kv.token_bytes : p->dims.kv.d_qk;
}

/* Tokens that are rows of their own: of a chunk, and of all steps where ranks share a context. */
static inline uint64_t rt_row_tokens(const struct rt_placement *p)
{
    const uint32_t steps = p->dims.context > 1 ? p->dims.bucket_max * p->dims.q_max : 0;
    return rt_max_u32(p->dims.chunk_tokens, steps);
}

/* What ranks that share a context have for each other, of all heads. */
static inline uint64_t rt_exchanged_bytes(const struct rt_placement *p)
{
    const uint32_t element_bytes = p->dims.is_f32 ? sizeof(float) : sizeof(uint16_t);
    return p->dims.context == 1
               ? 0
               : p->dims.heads * rt_context_head_bytes((uint32_t)rt_row_tokens(p), p->dims.kv.d_v,
                                                       element_bytes);
}

/* Rows that a schedule may have: of sparse attention, and where ranks share a context, they are
 * query tokens. */
static inline uint64_t rt_scheduled_rows(const struct rt_placement *p)
{
    return (uint64_t)p->dims.bucket_max * (p->dims.topk || p->dims.context > 1 ? p->dims.q_max : 1);
}

/* Query tokens that have lists, of a graph at most. */
static inline uint64_t rt_listed_tokens(const struct rt_placement *p)
{
    const uint64_t scheduled = rt_scheduled_rows(p);
    return scheduled > p->dims.chunk_tokens ? scheduled : p->dims.chunk_tokens;
}

/* Bytes of one page in all layers: what a memory budget is divided by. 0 on overflow. */
uint64_t rt_placement_page_bytes(const struct rt_dims *dims);

/* The tensor of that name, or RT_TENSOR_COUNT. */
enum rt_tensor_id rt_tensor_find(const struct rt_placement *placement, const char *name);

#endif
