/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <stdbool.h>

void rt_ref_context_rows(const void *params)
{
    const struct rt_context_rows_params *p = params;
    for (uint32_t i = 0; i < p->rows * p->q_len; i++) {
        const int32_t slot = p->slot[i / p->q_len], first = p->position[i / p->q_len];
        const int64_t at = (int64_t)first + i % p->q_len;
        const bool live = slot >= 0 && first >= 0 && (!p->length || at < p->length[i / p->q_len]);
        const int32_t position = live ? first + (int32_t)(i % p->q_len) : 0;
        if (p->token_slot) {
            p->token_slot[i] = live ? slot : -1;
            p->token_position[i] = position;
        }
        p->token_length[i] =
            live ? rt_context_length(position + 1, p->page_size, p->ranks, p->rank) : 0;
        p->token_place[i] = live ? rt_context_place(position, p->page_size, p->ranks, p->rank) : -1;
    }
}
