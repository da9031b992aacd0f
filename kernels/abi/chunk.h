/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_CHUNK_H
#define RT_KERNELS_ABI_CHUNK_H

#include "kernels/abi/step.h"

/* One block. */
#define RT_CHUNK_ROWS_THREADS 512u

/*
 * chunk_rows: what a chunk has that a step has not. A chunk's rows are those of prompts, then those
 * that decode; step_begin has made of each of the former a row of one token, its last. Here the
 * tokens in front of it get their places, and the row its true end. It stands behind step_begin,
 * and step_end needs nothing new: such a row ends at the position of its last token, one token
 * stays.
 *
 *   tokens of the chunk    0 .. chunk           of prompts, packed: row 0's, row 1's, …; padding
 *                          chunk ..             query_len of each row that decodes: its own, then
 *                                               padding
 *
 * P = record.prompts. Where P > prefill_rows, or the rows behind the first P are more than
 * decode_rows: RT_DEV_TOKENS, row 0, value P, and every row is dropped. Row r < P, n = the
 * record's number of its tokens, tokens_offset + 4 (bucket query_len + r), position =
 * row_position[r] as step_begin left it:
 *   n in 1..chunk and the sum of n up to here <= chunk, else RT_DEV_TOKENS, value n; n counts as 0
 *   position + n <= max_length, else RT_DEV_LENGTH, value that sum
 *   else row_position = position + n - 1, row_length = position + n, row_start = position
 * Row P + i has tokens chunk + i query_len + t, for t < row_length - row_position. A row that is
 * dropped, here (first failed check) or by step_begin (row_slot < 0), has row_slot -1, position,
 * length, accept and start 0; its tokens keep their places and are padding.
 *
 * For token j of row r at position x, t-th of the row: token_slot = row_slot, token_position = x,
 * token_length = x + 1. token_id of a row that decodes = tokens[r][t]; of prompts tokens[r][0] for
 * the last, else the record's, tokens_offset + 4 (bucket query_len + prefill_rows + j), where -1 is
 * slot_token for t = 0 and else stays. Padding: -1, 0, 0, -1. row_last[r][t] = what may be sampled
 * from: of prompts for t = 0 the last token, of a row that decodes its t-th; -1 for other columns,
 * for padding, and where the row was dropped.
 *
 * Where query_len > 1 attention has such a row's tokens together: beside_slot[i] and
 * beside_position[i] are those of row P + i, beside_reach[i] = position + query_len (row_reach in
 * step.h). Padding: -1, 0, 0.
 *
 * chunk_first [prefill_rows + 1]: sums of n. context_first: sums of row_start, of rows r < P; the
 * last is repeated behind them. Where the last is more than pieces * piece and pieces is not 0:
 * RT_DEV_LENGTH, row 0, value that sum; nothing is dropped. piece_first [pieces][prefill_rows + 1]
 * = context_first - i * piece.
 *
 * The first error of the step stays: ctrl is written only where it has none. Where step_begin has
 * refused the record (ctrl->live_rows = 0), all is padding.
 */
struct rt_chunk_rows_params {
    const unsigned char *ring; /* as step_begin has it */
    struct rt_ctrl *ctrl;
    const int32_t *slot_token; /* [slots] */
    const int32_t *tokens;     /* [bucket, query_len] as step_begin left them */
    int32_t *row_slot, *row_position, *row_length, *row_accept; /* [bucket] */
    int32_t *row_start;                                         /* [bucket] */
    int32_t *row_last;                                          /* [bucket, query_len] */
    /* [chunk + decode_rows * query_len] */
    int32_t *token_id, *token_slot, *token_position, *token_length;
    int32_t *beside_slot, *beside_position, *beside_reach; /* [decode_rows]; not of query_len 1 */
    int32_t *chunk_first, *context_first;                  /* [prefill_rows + 1] */
    int32_t *piece_first;                                  /* [pieces, prefill_rows + 1] */
    uint32_t ring_depth, record_bytes, tokens_offset;
    uint32_t prefill_rows; /* 1..RT_CHUNK_ROWS_THREADS - 1 */
    uint32_t decode_rows, chunk;
    uint32_t pieces, piece;
    uint32_t max_length;
    uint32_t query_len; /* columns of a row: 1..RT_MAX_QUERY_LEN */
};
#define RT_CHUNK_ROWS_PARAMS_ADDRESSES(type, at) RT_ADDRESSES_BEFORE(type, at ring_depth)
RT_STATIC_ASSERT(sizeof(struct rt_chunk_rows_params) == 20 * 8 + 10 * 4, "chunk_rows ABI");

#endif
