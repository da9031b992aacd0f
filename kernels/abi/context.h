/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_CONTEXT_H
#define RT_KERNELS_ABI_CONTEXT_H

#include "common/context.h"
#include "kernels/abi/views.h"

#define RT_CONTEXT_ROWS_THREADS 256u

/*
 * context_rows: what a step's query tokens are to one rank, each a row of its own, for they see
 * different numbers of its keys. Token t of row r, at x = position[r] + t:
 *
 *   token_slot = slot[r]     token_length = rt_context_length(x + 1), of the keys that it sees
 *   token_position = x       token_place = rt_context_place(x), where its own key goes
 *
 * Rows whose slot or position is negative are padding: slot -1, position 0, length 0, place -1; so
 * are tokens with x >= length[r], where rows have a length.
 */
struct rt_context_rows_params {
    const int32_t *slot, *position; /* [rows] */
    const int32_t *length;          /* [rows], or null: rows have all tokens */
    int32_t *token_slot;     /* [rows, q_len], or null with the next, where they are known: of q_len
                              * 1 they are `slot` and `position` */
    int32_t *token_position; /* [rows, q_len] */
    int32_t *token_length, *token_place; /* [rows, q_len] */
    uint32_t rows, q_len;
    uint32_t page_size, ranks, rank, reserved;
};
#define RT_CONTEXT_ROWS_PARAMS_ADDRESSES(type, at)                                                 \
    (RT_ADDRESS(type, at slot) | RT_ADDRESS(type, at position) | RT_ADDRESS(type, at length) |     \
     RT_ADDRESS(type, at token_slot) | RT_ADDRESS(type, at token_position) |                       \
     RT_ADDRESS(type, at token_length) | RT_ADDRESS(type, at token_place))
RT_STATIC_ASSERT(sizeof(struct rt_context_rows_params) == 80, "context_rows ABI");

#endif
