/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <string.h>

/* Without columns there is no table to look at. */
static void append_token(const struct rt_append_params *p, int64_t slot, int64_t position,
                         const uint16_t *latent)
{
    int64_t column = position / p->kv.page_size;
    if (column >= (int64_t)p->kv.max_blocks)
        return;
    int32_t page = p->kv.table[slot * p->kv.max_blocks + column];
    if (page < 0 || (uint32_t)page >= p->kv.pages)
        return;
    unsigned char *to = p->kv.base + page * p->kv.page_stride_bytes +
                        position % p->kv.page_size * p->kv.token_stride_bytes;
    memcpy(to, latent, p->kv.token_bytes);
}

void rt_ref_append(const void *params)
{
    const struct rt_append_params *p = params;
    int64_t row_base = p->rows.ctrl ? p->rows.ctrl->row_base : 0;
    for (uint32_t r = 0; r < p->rows.count; r++) {
        int64_t slot = p->rows.slot ? p->rows.slot[r] : (int64_t)r;
        int64_t position = p->rows.position[r];
        if (slot < 0 || position < 0)
            continue;
        const uint16_t *latent = p->latent.base + (row_base + r) * p->latent.row_stride;
        for (uint32_t t = 0; t < p->rows.q_len && rt_row_has(&p->rows, r, t); t++)
            append_token(p, slot, position + t, latent + t * p->latent.token_stride);
    }
}
