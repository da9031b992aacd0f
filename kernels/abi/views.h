/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_VIEWS_H
#define RT_KERNELS_ABI_VIEWS_H

/*
 * What kernels get: views of memory that others own, nested in the parameter structs. Read by gcc
 * and by nvcc; passed by value.
 *
 * Shapes: rows.count = padded batch, rows.q_len = tokens of a row, hq = q_len * heads query rows of
 * a batch row in the order token-major (token t, head h -> t * heads + h).
 *
 * Rows of data are moved 16 bytes at a time: q, latent, kv, out and partials.out are 16-byte
 * aligned, and their strides multiples of 16 bytes. lse, partials.lse and lse's strides are free.
 *
 * Their order is a matter of time: a kernel's parameters begin 16 bytes into a line of 64 of the
 * constant cache, which is cold at its start, and each line costs a short kernel some 50 ns. What
 * schedule reads fits the first line, what append reads the first two.
 *
 * Which words of a struct are device addresses is said by a mask, bit i for its i-th 8 bytes: that
 * is what the graph audit reads. A view brings a macro for its part of the mask.
 */
#include "common/math.h"
#include "common/record.h"

#include <stddef.h>
#include <stdint.h>

#define RT_ADDRESS(type, member) (UINT64_C(1) << (offsetof(type, member) / 8u))

/* The rows of one replay. */
struct rt_rows_view {
    const int32_t *length; /* [count] KV length, new tokens included; 0 and less: padding */
    uint32_t count, q_len;
    const int32_t *slot;        /* [count] line of the block table, negative: padding; or null: row
                                   r uses line r */
    const int32_t *position;    /* [count] of the first new token; negative: it has none */
    const struct rt_ctrl *ctrl; /* or null, as operators may have it: row_base is 0 */
};
#define RT_ROWS_ADDRESSES(type, member)                                                            \
    (RT_ADDRESS(type, member.slot) | RT_ADDRESS(type, member.position) |                           \
     RT_ADDRESS(type, member.length) | RT_ADDRESS(type, member.ctrl))

/* Where the replay's rows begin in the step's own tensors. Operators have no control block: of the
 * address of any int32 they make one whose row_base lies there, so nothing else of it is looked at,
 * and it is aligned no better than that. */
static RT_HD inline uint32_t rt_row_base(const struct rt_rows_view *rows)
{
    if (!rows->ctrl)
        return 0;
    const void *row_base = (const char *)rows->ctrl + offsetof(struct rt_ctrl, row_base);
    return *(const uint32_t *)row_base;
}

/* Whether token `token` of row `row` is one of its own: where rows of several tokens have a length
 * and a position, what is behind their length is padding. */
static RT_HD inline bool rt_row_has(const struct rt_rows_view *rows, uint32_t row, uint32_t token)
{
    return rows->q_len == 1 || !rows->length || !rows->position ||
           (int64_t)rows->position[row] + token < rows->length[row];
}

/* One layer's paged cache; what a token holds is its format's to say (common/kv_format.h). */
struct rt_kv_view {
    unsigned char *base;  /* [pages, page_size] tokens */
    const int32_t *table; /* [lines, max_blocks] page ids */
    int64_t page_stride_bytes, token_stride_bytes;
    uint32_t page_size, max_blocks, pages;
    uint32_t token_bytes; /* of a token's content, a multiple of 16 */
};
#define RT_KV_ADDRESSES(type, member)                                                              \
    (RT_ADDRESS(type, member.base) | RT_ADDRESS(type, member.table))

/* New tokens of every row: [row_base + count, q_len, width] bf16. Strides in elements. */
struct rt_tokens_view {
    const uint16_t *base;
    int64_t row_stride, token_stride;
};

/* A value or a vector for every head: [row_base + count, q_len, heads(, width)]; q and out bf16,
 * lse f32. Strides in elements. */
struct rt_heads_view {
    void *base;
    int64_t row_stride, token_stride, head_stride;
};

/*
 * What one part does: batch rows begin_row..end_row, from block begin_block of the first, up to but
 * not including block end_block of row end_row (end_block 0: row end_row is not touched; end_row
 * may then be the row count). Rows of length 0 in between are skipped. begin_split is the piece
 * index of its first piece within begin_row, 0 where begin_block is 0; every other piece of the
 * part is piece 0 of its row. reserved is 0. A part without work has begin_row = the row count and
 * 0 in every other field.
 */
struct rt_part {
    int32_t begin_row, begin_block;
    int32_t end_row, end_block;
    int32_t begin_split;
    int32_t reserved[3];
};
RT_STATIC_ASSERT(sizeof(struct rt_part) == 32, "a part is 32 bytes");

/* How the keys of all rows are shared out, for all layers of a step. */
struct rt_schedule_view {
    struct rt_part *parts; /* [part_count] */
    int32_t *num_splits;   /* [rows + 1]: the partial slots of row r are [r]..[r + 1] */
    uint32_t part_count;
    uint32_t
        invariant; /* pieces are what kernels/abi/invariant.h makes of a row's length, and how */
};
#define RT_SCHEDULE_ADDRESSES(type, member)                                                        \
    (RT_ADDRESS(type, member.parts) | RT_ADDRESS(type, member.num_splits))

/* What the pieces of split rows leave for reduce: normalised values, base-2 LSE. */
struct rt_partials_view {
    float *out; /* [slots, hq, d_v], or as kernels/abi/piece.h has them in the same room */
    float *lse; /* [slots, hq] */
};
#define RT_PARTIALS_ADDRESSES(type, member)                                                        \
    (RT_ADDRESS(type, member.out) | RT_ADDRESS(type, member.lse))

/* Tokens of a schedule block, whatever the page size. */
#define RT_BLOCK_TOKENS 64

#endif
