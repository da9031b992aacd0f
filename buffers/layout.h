/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BUFFERS_LAYOUT_H
#define RT_BUFFERS_LAYOUT_H

/*
 * Where every byte lives: a pure function of the shape. The same table sizes and carves, so the two
 * can never disagree.
 *
 *   arena  (device)          one allocation, tensors at 256-byte aligned offsets, in table order
 *   mapped (pinned host)     ring of records | ring of completions | completed word
 *   pool   (device)          kv, layer after layer
 */
#include "common/check.h"
#include "replayrt/rt.h"

#include <stdbool.h>

#define RT_BUFFER_ALIGN 256u

/* Everything the sizes depend on. All fields are checked by rt_layout_compute. */
struct rt_shape {
    uint32_t heads, d_qk, d_v, layers;
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
};

/* name, region, dtype; order is address order within a region. */
#define RT_BUFFER_LIST(X)                                                                          \
    X(CTRL, "ctrl", RT_REGION_ARENA, RT_DTYPE_U8)                                                  \
    X(SLOT_LENGTH, "slot_lengths", RT_REGION_ARENA, RT_DTYPE_I32)                                  \
    X(SLOT_TOKEN, "slot_tokens", RT_REGION_ARENA, RT_DTYPE_I32)                                    \
    X(BLOCK_TABLE, "block_table", RT_REGION_ARENA, RT_DTYPE_I32)                                   \
    X(ROW_SLOT, "slots", RT_REGION_ARENA, RT_DTYPE_I32)                                            \
    X(ROW_POSITION, "positions", RT_REGION_ARENA, RT_DTYPE_I32)                                    \
    X(ROW_LENGTH, "lengths", RT_REGION_ARENA, RT_DTYPE_I32)                                        \
    X(TOKENS, "tokens", RT_REGION_ARENA, RT_DTYPE_I32)                                             \
    X(ACCEPTED, "accepted", RT_REGION_ARENA, RT_DTYPE_I32)                                         \
    X(SAMPLED, "sampled", RT_REGION_ARENA, RT_DTYPE_I32)                                           \
    X(PAGE_COPIES, "page_copies", RT_REGION_ARENA, RT_DTYPE_I32)                                   \
    X(TILES, "tile_records", RT_REGION_ARENA, RT_DTYPE_I32)                                        \
    X(NUM_SPLITS, "num_splits", RT_REGION_ARENA, RT_DTYPE_I32)                                     \
    X(Q, "q", RT_REGION_ARENA, RT_DTYPE_BF16)                                                      \
    X(LATENT, "latent", RT_REGION_ARENA, RT_DTYPE_BF16)                                            \
    X(OUT, "out", RT_REGION_ARENA, RT_DTYPE_BF16)                                                  \
    X(LSE, "lse", RT_REGION_ARENA, RT_DTYPE_F32)                                                   \
    X(PARTIAL_LSE, "partial_lse", RT_REGION_ARENA, RT_DTYPE_F32)                                   \
    X(PARTIAL_OUT, "partial_out", RT_REGION_ARENA, RT_DTYPE_F32)                                   \
    X(RECORDS, "records", RT_REGION_MAPPED, RT_DTYPE_U8)                                           \
    X(COMPLETIONS, "completions", RT_REGION_MAPPED, RT_DTYPE_U8)                                   \
    X(COMPLETED, "completed", RT_REGION_MAPPED, RT_DTYPE_U8)                                       \
    X(KV, "kv", RT_REGION_POOL, RT_DTYPE_BF16)

enum rt_buffer_id {
#define RT_BUFFER_ENUM(id, name, region, dtype) RT_BUF_##id,
    RT_BUFFER_LIST(RT_BUFFER_ENUM)
#undef RT_BUFFER_ENUM
        RT_BUF_COUNT
};

/* `shape` is one layer's where layer_stride is set; bytes covers all layers. */
struct rt_buffer {
    const char *name;
    enum rt_plan_region region;
    enum rt_dtype dtype;
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
    uint32_t ops_capacity;     /* bytes: one whole block-table line, and 16 KiB more */
    uint32_t record_bytes;     /* multiple of 64 */
    uint32_t completion_bytes; /* multiple of 64: header, then bucket_max outcomes */
};

struct rt_layout {
    struct rt_shape shape;
    uint32_t max_blocks; /* block-table columns: ceil(max_length / page_size) */
    struct rt_record_format record;
    struct rt_buffer buffers[RT_BUF_COUNT];
    uint64_t arena_bytes, mapped_bytes, pool_bytes;
};

/* RT_ERR_INVALID for a zero or out-of-range field, or a size that overflows: *out is zeroed. */
enum rt_status rt_layout_compute(const struct rt_shape *shape, struct rt_layout *out,
                                 struct rt_error *err);

/* Bytes of one page in all layers: what a memory budget is divided by. 0 on overflow. */
uint64_t rt_layout_page_bytes(const struct rt_shape *shape);

/* Bytes of one element. */
uint32_t rt_dtype_bytes(enum rt_dtype dtype);

/* The buffer of that name, or RT_BUF_COUNT. */
enum rt_buffer_id rt_layout_find(const struct rt_layout *layout, const char *name);

#endif
