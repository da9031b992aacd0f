/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/append_place.h"
#include "kernels/ref/ref.h"

#include <string.h>

static bool place_by_slot(const struct rt_kv_view *kv, int64_t slot, struct rt_ref_place *out)
{
    if (slot < 0 || slot >= (int64_t)kv->pages * kv->page_size)
        return false;
    *out = (struct rt_ref_place){slot / kv->page_size, slot % kv->page_size};
    return true;
}

static bool place_by_table(const struct rt_append_params *p, uint32_t row, uint32_t token,
                           struct rt_ref_place *out)
{
    int64_t line = p->rows.slot ? p->rows.slot[row] : (int64_t)row;
    int64_t first = p->rows.position[row];
    if (line < 0 || first < 0 || !rt_row_has(&p->rows, row, token))
        return false;
    int64_t position = first + token, column = position / p->kv.page_size;
    if (column >= (int64_t)p->kv.max_blocks)
        return false;
    int32_t page = p->kv.table[line * p->kv.max_blocks + column];
    if (page < 0 || (uint32_t)page >= p->kv.pages)
        return false;
    *out = (struct rt_ref_place){page, position % p->kv.page_size};
    return true;
}

bool rt_ref_append_place(const struct rt_append_general_params *p, uint32_t row, uint32_t token,
                         struct rt_ref_place *out)
{
    const struct rt_append_params *a = &p->append;
    if (p->slots)
        return place_by_slot(&a->kv, p->slots[(size_t)row * a->rows.q_len + token], out);
    return place_by_table(a, row, token, out);
}

void rt_ref_append_general(const void *params)
{
    const struct rt_append_general_params *p = params;
    const struct rt_append_params *a = &p->append;
    const int64_t row_base = a->rows.ctrl ? a->rows.ctrl->row_base : 0;
    const uint32_t latent_bytes = a->kv.token_bytes - p->rope_bytes;
    for (uint32_t r = 0; r < a->rows.count; r++)
        for (uint32_t t = 0; t < a->rows.q_len; t++) {
            struct rt_ref_place at;
            if (!rt_ref_append_place(p, r, t, &at))
                continue;
            unsigned char *to =
                a->kv.base + at.page * a->kv.page_stride_bytes + at.row * a->kv.token_stride_bytes;
            memcpy(to, rt_ref_token_at(&a->latent, row_base + r, t), latent_bytes);
            if (p->rope.base)
                memcpy(to + latent_bytes, rt_ref_token_at(&p->rope, row_base + r, t),
                       p->rope_bytes);
        }
}
