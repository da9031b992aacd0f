/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <string.h>

static void append_token(const struct rt_mla_append_params *p, const int32_t *line,
                         int64_t position, const uint16_t *latent)
{
    int64_t column = position / p->page_size;
    if (column >= (int64_t)p->max_blocks)
        return;
    int32_t page = line[column];
    if (page < 0 || (uint32_t)page >= p->pages)
        return;
    uint16_t *to = p->kv + page * p->kv_page_stride + position % p->page_size * p->kv_token_stride;
    memcpy(to, latent, p->d_qk * sizeof(*to));
}

void rt_ref_mla_append(const void *params)
{
    const struct rt_mla_append_params *p = params;
    int64_t row_base = p->ctrl ? p->ctrl->row_base : 0;
    for (uint32_t r = 0; r < p->rows; r++) {
        int64_t slot = p->row_slot ? p->row_slot[r] : (int64_t)r;
        int64_t position = p->row_position[r];
        if (slot < 0 || position < 0)
            continue;
        const int32_t *line = p->block_table + slot * p->max_blocks;
        const uint16_t *latent = p->latent + (row_base + r) * p->latent_row_stride;
        for (uint32_t t = 0; t < p->q_len; t++)
            append_token(p, line, position + t, latent + t * p->latent_token_stride);
    }
}
