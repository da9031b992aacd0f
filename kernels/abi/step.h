/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_STEP_H
#define RT_KERNELS_ABI_STEP_H

/*
 * Parameters of the kernels that open and close a step. Read by gcc and by nvcc; passed by value.
 * In every ABI struct the device pointers come first and nothing else is an address.
 */
#include "common/record.h"

#include <stddef.h>
#include <stdint.h>

#define RT_ABI_POINTERS(type, first_scalar) (offsetof(type, first_scalar) / 8u)

/*
 * step_begin: one block. Reads record ring[(ctrl->step + 1) % ring_depth], checks it, applies its
 * ops to the slots, and writes what the rest of the step reads. A record whose header is not the
 * expected one is refused whole: live_rows = 0, ctrl->step unchanged, nothing else written, so a
 * stray replay changes no state.
 *
 * For live row r with slot s (in this order; the first failed check drops the row: row_slot -1,
 * row_length 0, row_position 0, first error of the step kept in ctrl):
 *   slot < slots; new_page, new_block in range, then block_table[s][new_block] = new_page
 *   position = slot_length[s]; position + query_len <= max_length
 *   accept is RT_ACCEPT_BY_DEVICE or 1..query_len
 * row_slot = s, row_position = position, row_length = position + query_len
 * tokens[row_base + r][t] = record token; column 0 that is -1 becomes slot_token[s]
 * accepted[row_base + r] = accept, or query_len for RT_ACCEPT_BY_DEVICE (a stage may overwrite it)
 * sampled[row_base + r] = -1
 * Rows live_rows..bucket: row_slot -1, row_position 0, row_length 0, tokens -1, accepted 0, sampled -1.
 */
struct rt_step_begin_params {
    const unsigned char *ring;  /* mapped host memory: ring_depth records of record_bytes */
    struct rt_ctrl *ctrl;
    int32_t *slot_length;       /* [slots] */
    int32_t *slot_token;        /* [slots] */
    int32_t *block_table;       /* [slots, max_blocks] */
    int32_t *row_slot;          /* [bucket] */
    int32_t *row_position;      /* [bucket] */
    int32_t *row_length;        /* [bucket] */
    int32_t *tokens;            /* [max_rows, query_len] */
    int32_t *accepted;          /* [max_rows] */
    int32_t *sampled;           /* [max_rows] */
    struct rt_page_copy *copies; /* [RT_MAX_PAGE_COPIES] */
    uint32_t ring_depth;
    uint32_t record_bytes;      /* multiple of 64 */
    uint32_t rows_offset;       /* of rows[] in a record, bytes */
    uint32_t tokens_offset;
    uint32_t ops_offset;
    uint32_t bucket;            /* rows of this graph; 0 for the control graph */
    uint32_t query_len;
    uint32_t slots;
    uint32_t max_blocks;
    uint32_t pages;
    uint32_t page_size;
    uint32_t max_length;
    uint32_t max_rows;
    uint32_t reserved;
};
#define RT_STEP_BEGIN_POINTERS RT_ABI_POINTERS(struct rt_step_begin_params, ring_depth)
RT_STATIC_ASSERT(sizeof(struct rt_step_begin_params) == 12 * 8 + 14 * 4, "step_begin ABI");

/*
 * step_end: one block. For rows that ran: n = accepted[row_base + r], 0..query_len else error
 * RT_DEV_ACCEPT and n = query_len; slot_length = row_position + n; slot_token = sampled where >= 0,
 * else the row's last accepted token where that is >= 0. Writes results and the completion of
 * record ctrl->step, whose `step` word is written last behind a system-wide fence; then *completed.
 * A refused record (ctrl->error RT_DEV_STEP/BUCKET/QUERY_LEN/ROWS) gets no completion, except that
 * BUCKET, QUERY_LEN and ROWS carry the right step number and do complete with their error.
 */
struct rt_step_end_params {
    struct rt_ctrl *ctrl;
    int32_t *slot_length;
    int32_t *slot_token;
    const int32_t *row_slot;
    const int32_t *row_position;
    const int32_t *row_length;
    const int32_t *tokens;
    const int32_t *accepted;
    const int32_t *sampled;
    unsigned char *completions;  /* mapped: ring_depth completions of completion_bytes */
    uint64_t *completed;         /* mapped: last completed step */
    uint32_t ring_depth;
    uint32_t completion_bytes;   /* multiple of 64 */
    uint32_t bucket;
    uint32_t query_len;
};
#define RT_STEP_END_POINTERS RT_ABI_POINTERS(struct rt_step_end_params, ring_depth)
RT_STATIC_ASSERT(sizeof(struct rt_step_end_params) == 11 * 8 + 4 * 4, "step_end ABI");

/* page_copy: copies ctrl->copy_count pages' first `rows` tokens in every layer. Grid (layers). */
struct rt_page_copy_params {
    const struct rt_ctrl *ctrl;
    const struct rt_page_copy *copies;
    uint16_t *kv;            /* [layers, pages, page_size, d_qk] bf16 */
    int64_t layer_stride;    /* elements */
    int64_t page_stride;     /* elements */
    int64_t token_stride;    /* elements */
    uint32_t layers;
    uint32_t d_qk;
};
#define RT_PAGE_COPY_POINTERS RT_ABI_POINTERS(struct rt_page_copy_params, layer_stride)
RT_STATIC_ASSERT(sizeof(struct rt_page_copy_params) == 6 * 8 + 2 * 4, "page_copy ABI");

#endif
