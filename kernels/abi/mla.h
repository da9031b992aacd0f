/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_MLA_H
#define RT_KERNELS_ABI_MLA_H

/*
 * Parameters of the attention stages. Read by gcc and by nvcc; passed by value; pointers first.
 *
 * Shapes: rows = padded batch, q_len = tokens per row, hq = q_len * heads query rows of a batch row
 * in the order token-major (token t, head h -> t * heads + h). Strides are in elements. `ctrl` may
 * be null (operators called from outside): then row_base = 0 and every row is live. `row_slot` may
 * be null: then batch row r uses line r of the block table.
 *
 * Rows are moved 16 bytes at a time: q, latent, kv, out and partial_out are 16-byte aligned, and
 * their strides multiples of 8 elements. lse, partial_lse and the strides of lse are free.
 */
#include "common/math.h"
#include "common/record.h"
#include "kernels/abi/step.h"

/* Tokens of a schedule block, whatever the page size. */
#define RT_BLOCK_TOKENS 64

/*
 * Grids: schedule one block; append ceil(rows * q_len / RT_APPEND_WARPS) blocks, a warp per token;
 * schedule_append one block that schedules, and blocks of RT_SCHEDULE_THREADS that append;
 * attend and reduce: see the kernel's own header.
 */
#define RT_SCHEDULE_THREADS 1024
#define RT_APPEND_WARPS 8

/*
 * What one part does: batch rows begin_row..end_row, from block begin_block of the first, up to but
 * not including block end_block of row end_row (end_block 0: row end_row is not touched; end_row
 * may then be `rows`). Rows of length 0 in between are skipped. begin_split is the piece index of
 * its first piece within begin_row, 0 where begin_block is 0; every other piece of the part is
 * piece 0 of its row. reserved is 0. A part without work has begin_row = rows and 0 in every other
 * field.
 */
struct rt_tile_record {
    int32_t begin_row, begin_block;
    int32_t end_row, end_block;
    int32_t begin_split;
    int32_t reserved[3];
};
RT_STATIC_ASSERT(sizeof(struct rt_tile_record) == 32, "tile record is 32 bytes");

/*
 * schedule: one block, once per step for all layers.
 *   nb[r] = ceil(row_length[r] / RT_BLOCK_TOKENS); cost c[r] = nb ? nb + overhead : 0
 *   S = exclusive prefix sum of c, T its total
 *   payload = max(ceil(T / parts), min_blocks + overhead)
 *   cut(p): x = p * payload. x >= T: (rows, 0). Else the row with S[r] <= x < S[r] + c[r], and
 *     k = max(x - S[r] - overhead, 0): k < min_blocks -> (r, 0); nb - k < min_blocks -> the next
 *     row with blocks, block 0, or (rows, 0); else (r, k).
 *   part p works from cut(p) to cut(p + 1), its begin and its end; no work where they are equal.
 *   A cut (r, k) with k > 0 is strictly inside r; no two of those are equal (payload > overhead).
 *   pieces of r = 1 + cuts strictly inside r
 *   begin_split of a part that begins strictly inside r = cuts strictly inside r up to its begin,
 *     that one included
 *   num_splits = exclusive prefix sum of (pieces > 1 ? pieces : 0), [rows + 1]: the partial slot of
 *     a piece is num_splits[r] + its index; a row that is not split takes none.
 * At most 2 * (parts - 1) slots are used; a piece of a split row has at least min_blocks blocks.
 * Sums and cuts are 64-bit: any int32 length is served. Padded and empty rows cost nothing.
 */
struct rt_schedule_params {
    const int32_t *row_length;    /* [rows]; negative counts as 0 */
    struct rt_tile_record *tiles; /* [parts] */
    int32_t *num_splits;          /* [rows + 1] */
    uint32_t rows;
    uint32_t parts;
    uint32_t overhead_blocks;
    uint32_t min_blocks; /* >= 1 */
};
#define RT_SCHEDULE_POINTERS RT_ABI_POINTERS(struct rt_schedule_params, rows)
RT_STATIC_ASSERT(sizeof(struct rt_schedule_params) == 3 * 8 + 4 * 4, "schedule ABI");

/*
 * append: token t of row r goes to position row_position[r] + t: page = table[slot][position /
 * page_size], row position % page_size, copied bit for bit. Nothing is written for rows whose slot
 * or position is negative (padding), and none of a token's row where its column is >= max_blocks or
 * its page outside 0..pages-1.
 */
struct rt_mla_append_params {
    const uint16_t *latent;      /* [row_base + rows, q_len, d_qk] bf16 */
    uint16_t *kv;                /* this layer: [pages, page_size, d_qk] bf16 */
    const int32_t *block_table;  /* [lines, max_blocks] */
    const int32_t *row_slot;     /* [rows] or null */
    const int32_t *row_position; /* [rows] */
    const struct rt_ctrl *ctrl;  /* or null */
    int64_t latent_row_stride, latent_token_stride;
    int64_t kv_page_stride, kv_token_stride;
    uint32_t rows, q_len, d_qk, page_size, max_blocks, pages;
};
#define RT_MLA_APPEND_POINTERS RT_ABI_POINTERS(struct rt_mla_append_params, latent_row_stride)
RT_STATIC_ASSERT(sizeof(struct rt_mla_append_params) == 10 * 8 + 6 * 4, "append ABI");

/*
 * schedule_append: schedule and one layer's append as one launch. Both halves as above; pointers
 * first, so the halves are interleaved here and taken apart by the two functions below.
 */
struct rt_schedule_append_params {
    const int32_t *row_length;
    struct rt_tile_record *tiles;
    int32_t *num_splits;
    const uint16_t *latent;
    uint16_t *kv;
    const int32_t *block_table;
    const int32_t *row_slot;
    const int32_t *row_position;
    const struct rt_ctrl *ctrl;
    int64_t latent_row_stride, latent_token_stride;
    int64_t kv_page_stride, kv_token_stride;
    uint32_t rows, parts, overhead_blocks, min_blocks; /* rows: of both halves */
    uint32_t q_len, d_qk, page_size, max_blocks, pages;
    uint32_t reserved;
};
#define RT_SCHEDULE_APPEND_POINTERS                                                                \
    RT_ABI_POINTERS(struct rt_schedule_append_params, latent_row_stride)
RT_STATIC_ASSERT(sizeof(struct rt_schedule_append_params) == 13 * 8 + 10 * 4,
                 "schedule_append ABI");

static RT_HD inline struct rt_schedule_params
rt_schedule_half(const struct rt_schedule_append_params *p)
{
    struct rt_schedule_params half;
    half.row_length = p->row_length;
    half.tiles = p->tiles;
    half.num_splits = p->num_splits;
    half.rows = p->rows;
    half.parts = p->parts;
    half.overhead_blocks = p->overhead_blocks;
    half.min_blocks = p->min_blocks;
    return half;
}

static RT_HD inline struct rt_mla_append_params
rt_append_half(const struct rt_schedule_append_params *p)
{
    struct rt_mla_append_params half;
    half.latent = p->latent;
    half.kv = p->kv;
    half.block_table = p->block_table;
    half.row_slot = p->row_slot;
    half.row_position = p->row_position;
    half.ctrl = p->ctrl;
    half.latent_row_stride = p->latent_row_stride;
    half.latent_token_stride = p->latent_token_stride;
    half.kv_page_stride = p->kv_page_stride;
    half.kv_token_stride = p->kv_token_stride;
    half.rows = p->rows;
    half.q_len = p->q_len;
    half.d_qk = p->d_qk;
    half.page_size = p->page_size;
    half.max_blocks = p->max_blocks;
    half.pages = p->pages;
    return half;
}

/*
 * attend: out = softmax(scale * q k^T, masked) v with v = the first d_v elements of k, over the
 * blocks that the tile records give. Query token t of a row sees keys [0, len - (q_len - 1 - t)) if
 * causal, [0, len) if not.
 * A row that is not split writes out (bf16) and lse (natural log: ln(sum) + max). A piece of a
 * split row writes normalised fp32 partial_out [slot, hq, d_v] and base-2 partial_lse [slot, hq].
 * No key seen: piece -> partial 0 and -inf; whole row -> out 0, lse +inf. Rows of length 0 are not
 * touched here (reduce writes them); negative lengths count as 0.
 * A score of -inf has weight 0; where all are, no key counts as seen. A score of +inf is as NaN.
 * NaN in q stays in its query row; NaN in a key reaches every query row that sees the key, and may
 * reach earlier tokens of the same batch row, which causally do not (their weight 0 times NaN).
 * Keys behind the row's length, unused pages and unused table entries are never read into the
 * result. A seen key whose column is >= max_blocks, whose page is outside 0..pages-1 or whose row
 * has a negative slot is never followed: it reads as zeros.
 */
struct rt_mla_attend_params {
    const uint16_t *q;                  /* [row_base + rows, q_len, heads, d_qk] bf16 */
    const uint16_t *kv;                 /* this layer: [pages, page_size, d_qk] bf16 */
    const int32_t *block_table;         /* [lines, max_blocks] */
    const int32_t *row_slot;            /* [rows] or null */
    const int32_t *row_length;          /* [rows] */
    const struct rt_tile_record *tiles; /* [parts] */
    const int32_t *num_splits;          /* [rows + 1] */
    uint16_t *out;                      /* [row_base + rows, q_len, heads, d_v] bf16 */
    float *lse;                         /* [row_base + rows, q_len, heads] */
    float *partial_out;                 /* [slots, hq, d_v] */
    float *partial_lse;                 /* [slots, hq] */
    const struct rt_ctrl *ctrl;         /* or null */
    uint64_t *stamp_first; /* or null: block (0, 0) writes globaltimer after its wait */
    int64_t q_row_stride, q_token_stride, q_head_stride;
    int64_t out_row_stride, out_token_stride, out_head_stride;
    int64_t lse_row_stride, lse_token_stride, lse_head_stride;
    int64_t kv_page_stride, kv_token_stride;
    float scale; /* softmax scale, > 0 */
    uint32_t rows, q_len, heads, d_qk, d_v, page_size, max_blocks, parts, causal, pages;
    /* 1: the plan, the lengths, the block table, and all keys but a row's last q_len, were complete
     * before the launch in front of this one began, so they may be read before the wait. */
    uint32_t early;
};
#define RT_MLA_ATTEND_POINTERS RT_ABI_POINTERS(struct rt_mla_attend_params, q_row_stride)
RT_STATIC_ASSERT(sizeof(struct rt_mla_attend_params) == 24 * 8 + 12 * 4, "attend ABI");

/*
 * reduce: for split rows, per query row: m = max of the pieces' lse (0 if all are -inf),
 * g = m + log2(sum 2^(lse_i - m)), out = sum 2^(lse_i - g) partial_i, lse = g * ln 2; no key seen:
 * out 0, lse +inf. Rows of length <= 0, padding included: out 0, lse +inf. Rows that are not split
 * and not empty are left alone. The order of the sums follows from the shapes, the grid, the
 * lengths and num_splits, so that two runs agree bitwise.
 * stamp_last becomes at least the time, by globaltimer, at which the last output was written; where
 * there was none to write, a time at which attend was complete.
 */
struct rt_mla_reduce_params {
    const float *partial_out;
    const float *partial_lse;
    const int32_t *num_splits;
    const int32_t *row_length;
    uint16_t *out;
    float *lse;
    const struct rt_ctrl *ctrl; /* or null */
    uint64_t *stamp_last;       /* or null: see above */
    int64_t out_row_stride, out_token_stride, out_head_stride;
    int64_t lse_row_stride, lse_token_stride, lse_head_stride;
    uint32_t rows, q_len, heads, d_v;
};
#define RT_MLA_REDUCE_POINTERS RT_ABI_POINTERS(struct rt_mla_reduce_params, out_row_stride)
RT_STATIC_ASSERT(sizeof(struct rt_mla_reduce_params) == 14 * 8 + 4 * 4, "reduce ABI");

#endif
