/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <string.h>

/* Of a pool's page and row in it. */
static unsigned char *place(const struct rt_kv_view *kv, int64_t page, int64_t row)
{
    return kv->base + page * kv->page_stride_bytes + row * kv->token_stride_bytes;
}

static unsigned char *place_by_slot(const struct rt_kv_view *kv, int64_t slot)
{
    if (slot < 0 || slot >= (int64_t)kv->pages * kv->page_size)
        return NULL;
    return place(kv, slot / kv->page_size, slot % kv->page_size);
}

static unsigned char *place_by_table(const struct rt_append_params *p, uint32_t row, uint32_t token)
{
    int64_t line = p->rows.slot ? p->rows.slot[row] : (int64_t)row;
    int64_t first = p->rows.position[row];
    if (line < 0 || first < 0)
        return NULL;
    int64_t position = first + token, column = position / p->kv.page_size;
    if (column >= (int64_t)p->kv.max_blocks)
        return NULL;
    int32_t page = p->kv.table[line * p->kv.max_blocks + column];
    if (page < 0 || (uint32_t)page >= p->kv.pages)
        return NULL;
    return place(&p->kv, page, position % p->kv.page_size);
}

static const uint16_t *piece_of(const struct rt_tokens_view *view, int64_t row, uint32_t token)
{
    return view->base + row * view->row_stride + token * view->token_stride;
}

void rt_ref_append_general(const void *params)
{
    const struct rt_append_general_params *p = params;
    const struct rt_append_params *a = &p->append;
    const int64_t row_base = a->rows.ctrl ? a->rows.ctrl->row_base : 0;
    const uint32_t latent_bytes = a->kv.token_bytes - p->rope_bytes;
    for (uint32_t r = 0; r < a->rows.count; r++)
        for (uint32_t t = 0; t < a->rows.q_len; t++) {
            unsigned char *to = p->slots
                                    ? place_by_slot(&a->kv, p->slots[(size_t)r * a->rows.q_len + t])
                                    : place_by_table(a, r, t);
            if (!to)
                continue;
            memcpy(to, piece_of(&a->latent, row_base + r, t), latent_bytes);
            if (p->rope.base)
                memcpy(to + latent_bytes, piece_of(&p->rope, row_base + r, t), p->rope_bytes);
        }
}
