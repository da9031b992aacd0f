/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_STEP_H
#define RT_KERNELS_ABI_STEP_H

/*
 * Parameters of the kernels that open and close a step. Read by gcc and by nvcc; passed by value.
 * In those of step_begin and step_end the addresses come first.
 */
#include "kernels/abi/views.h"

#define RT_ADDRESSES_BEFORE(type, first_scalar) (RT_ADDRESS(type, first_scalar) - 1u)

/* Grids: one block, one block, and (layers, RT_MAX_PAGE_COPIES). */
#define RT_STEP_BEGIN_THREADS 512
#define RT_STEP_END_THREADS 512
#define RT_PAGE_COPY_THREADS 256

/*
 * step_begin: one block. Reads record ring[(ctrl->step + 1) % ring_depth], checks it, applies its
 * ops to the slots, and writes what the rest of the step reads.
 *
 * Header, in this order; error_row is 0:
 *   record.step == ctrl->step + 1, else RT_DEV_STEP: a stray replay
 *   record.bucket == bucket, else RT_DEV_BUCKET; record.query_len == query_len, else
 *   RT_DEV_QUERY_LEN; live_rows <= bucket, else RT_DEV_ROWS; row_base + bucket <= max_rows, else
 *   RT_DEV_ROWS with row_base as its value
 * A record that fails is refused whole: no op is applied, ctrl->live_rows, row_base and copy_count
 * are 0, rows 0..bucket get row_slot -1, and position, length, reach and accept 0 (so the stages
 * behind find no work), tokens, accepted, sampled and drafts are left alone. After RT_DEV_STEP
 * step_end does nothing, so a stray replay changes no slot, table or page; the other refusals
 * consume their step.
 * ctrl->step itself is step_end's: a step that never came to its end can be replayed.
 *
 * Ops, in order, each error with the op's number as its row; an op that fails is skipped, except
 * that RT_DEV_OP for an unknown kind, or for an op that reaches past op_bytes or past the record
 * (negative count of SET_PAGES included; value 0 where less than an op is left), ends the ops:
 *   SET_SLOT   slot < slots (RT_DEV_SLOT), 0 <= a <= max_length (RT_DEV_LENGTH, value a); b <= -2:
 *              the slot -2 - b, whose token and drafts it takes, < slots (RT_DEV_SLOT, value that
 *              slot); else its drafts become -1
 *   SET_PAGES  slot < slots (RT_DEV_SLOT), a >= 0 and a + b <= max_blocks (RT_DEV_BLOCK, value a);
 *              an id outside 0..pages-1 (RT_DEV_PAGE, the first such) is left out, not the rest
 *   COPY_PAGE  a, then b, in 0..pages-1 (RT_DEV_PAGE), rows <= page_size (RT_DEV_LENGTH, value
 *              rows), at most RT_MAX_PAGE_COPIES (RT_DEV_OP); goes to copies[ctrl->copy_count++].
 *              The caller keeps the pages written by one record apart from those read.
 *
 * For live row r with slot s (in this order; the first failed check drops the row: what it has
 * written so far stays, then it is treated as padding):
 *   slot < slots; if new_block != -1: new_page in 0..pages-1, new_block in 0..max_blocks-1, then
 *     block_table[s][new_block] = new_page
 *   n, its tokens, <= query_len, else RT_DEV_TOKENS
 *   position = slot_length[s] >= 0; position + n <= max_length (value: that sum)
 *   accept is RT_ACCEPT_BY_DEVICE or 1..n
 * row_slot = s, row_position = position, row_length = position + n, row_reach = position +
 *   query_len, row_accept = accept
 * tokens[row_base + r][t] = record token [r * query_len + t] for t < n; column 0 that is -1 becomes
 *   slot_token[s], another column that is -1 slot_drafts[s][t - 1]; -1 for t >= n
 * accepted[row_base + r] = accept, or n for RT_ACCEPT_BY_DEVICE (a stage may overwrite it)
 * sampled[row_base + r] = -1, drafts[row_base + r][0..draft_columns) = -1
 * Rows live_rows..bucket: row_slot -1, row_position 0, row_length 0, row_reach 0, row_accept 0,
 *   tokens -1, accepted 0, sampled -1, drafts -1
 *
 * Attention lets token t see all but the last query_len - 1 - t keys. Of row_reach keys that is
 * right for a row of any n, whose other columns compute what nobody reads: so it needs no number
 * of each row, and does not do anything else for it than for one of query_len tokens.
 *
 * ctrl: live_rows (dropped rows included, they keep their place), row_base, query_len of the
 * record, copy_count, the first error in the order header, ops, rows; t_begin; t_attend_first and
 * t_attend_last = 0. After RT_DEV_STEP query_len is the graph's. No error: RT_DEV_OK, 0, 0.
 */
struct rt_step_begin_params {
    const unsigned char *ring; /* mapped host memory: ring_depth records of record_bytes */
    struct rt_ctrl *ctrl;
    int32_t *slot_length;        /* [slots] */
    int32_t *slot_token;         /* [slots] */
    int32_t *slot_drafts;        /* [slots, draft_columns] */
    int32_t *block_table;        /* [slots, max_blocks] */
    int32_t *row_slot;           /* [bucket] */
    int32_t *row_position;       /* [bucket] */
    int32_t *row_length;         /* [bucket] */
    int32_t *row_reach;          /* [bucket], or null: it is row_length */
    int32_t *row_accept;         /* [bucket] */
    int32_t *tokens;             /* [max_rows, query_len] */
    int32_t *accepted;           /* [max_rows] */
    int32_t *sampled;            /* [max_rows] */
    int32_t *drafts;             /* [max_rows, draft_columns] */
    struct rt_page_copy *copies; /* [RT_MAX_PAGE_COPIES] */
    uint32_t ring_depth;
    uint32_t record_bytes; /* multiple of 64 */
    uint32_t rows_offset;  /* of rows[] in a record, bytes */
    uint32_t tokens_offset;
    uint32_t ops_offset;
    uint32_t bucket; /* rows of this graph; 0 for the control graph */
    uint32_t query_len;
    uint32_t slots;
    uint32_t max_blocks;
    uint32_t pages;
    uint32_t page_size;
    uint32_t max_length;
    uint32_t max_rows;
    uint32_t draft_columns; /* at least query_len - 1; 0: neither array of drafts is touched */
};
#define RT_STEP_BEGIN_PARAMS_ADDRESSES(type, at) RT_ADDRESSES_BEFORE(type, at ring_depth)
RT_STATIC_ASSERT(sizeof(struct rt_step_begin_params) == 16 * 8 + 14 * 4, "step_begin ABI");

/*
 * step_end: one block. After RT_DEV_STEP it writes nothing at all. Otherwise, for live rows that
 * ran (row_slot >= 0): n = row_accept, or where that is RT_ACCEPT_BY_DEVICE accepted[row_base + r],
 * 0..m, else error RT_DEV_ACCEPT (kept in ctrl if it is the step's first) and n = m, the row's
 * tokens, row_length - row_position; slot_length = row_position + n; slot_token =
 * sampled where >= 0, else the row's last accepted token where n > 0 and that is >= 0, else
 * unchanged; slot_drafts = the row's drafts, -1 for what is less; outcome {n, sampled}, and its
 * tokens, all query_len of them. Live rows that were dropped: outcome {0, -1}, tokens -1. Outcomes
 * and tokens behind live_rows are left alone. Then ctrl->step += 1, and the completion of that
 * step, reserved = 0, whose `step` word is written last behind a system-wide fence; then
 * *completed, behind the same fence: whoever sees *completed sees all of it, but perhaps not yet
 * the step word.
 */
struct rt_step_end_params {
    struct rt_ctrl *ctrl;
    int32_t *slot_length;
    int32_t *slot_token;
    int32_t *slot_drafts;
    const int32_t *row_slot;
    const int32_t *row_position;
    const int32_t *row_length;
    const int32_t *row_accept;
    const int32_t *tokens;
    const int32_t *accepted;
    const int32_t *sampled;
    const int32_t *drafts;
    unsigned char *completions; /* mapped: ring_depth completions of completion_bytes */
    uint64_t *completed;        /* mapped: last completed step */
    uint32_t ring_depth;
    uint32_t completion_bytes; /* multiple of 64 */
    uint32_t bucket;
    uint32_t query_len;
    uint32_t draft_columns; /* as step_begin has it */
    uint32_t tokens_offset; /* of the rows' tokens in a completion, bytes */
};
#define RT_STEP_END_PARAMS_ADDRESSES(type, at) RT_ADDRESSES_BEFORE(type, at ring_depth)
RT_STATIC_ASSERT(sizeof(struct rt_step_end_params) == 14 * 8 + 6 * 4, "step_end ABI");

/*
 * page_copy: block (l, i) copies the first `rows` tokens of page copies[i].from to page
 * copies[i].to in layer l, for i < ctrl->copy_count; and all of tail_bytes behind the page's rows,
 * the scales of some layouts.
 */
struct rt_page_copy_params {
    const struct rt_ctrl *ctrl;
    const struct rt_page_copy *copies;
    struct rt_kv_view kv;       /* of layer 0; its table is not read */
    int64_t layer_stride_bytes; /* from layer to layer */
    uint32_t layers;
    uint32_t tail_bytes; /* from page_size * token_stride_bytes on, a multiple of 16 */
};
#define RT_PAGE_COPY_PARAMS_ADDRESSES(type, at)                                                    \
    (RT_ADDRESS(type, at ctrl) | RT_ADDRESS(type, at copies) | RT_KV_ADDRESSES(type, at kv))
RT_STATIC_ASSERT(sizeof(struct rt_page_copy_params) == 80, "page_copy ABI");

#endif
