/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/append_place.h"
#include "kernels/ref/keys.h"
#include "kernels/ref/quant.h"
#include "kernels/ref/ref.h"

#include <string.h>

/* A token's elements in one piece. */
static void gather(const struct rt_append_quant_params *p, int64_t row, uint32_t token,
                   uint16_t *to)
{
    const struct rt_append_general_params *g = &p->general;
    const uint32_t latent_bytes = p->d_qk * (uint32_t)sizeof(*to) - g->rope_bytes;
    memcpy(to, rt_ref_token_at(&g->append.latent, row, token), latent_bytes);
    if (g->rope.base)
        memcpy(to + latent_bytes / sizeof(*to), rt_ref_token_at(&g->rope, row, token),
               g->rope_bytes);
}

void rt_ref_append_quant(const void *params)
{
    const struct rt_append_quant_params *p = params;
    const struct rt_append_params *a = &p->general.append;
    const int64_t row_base = a->rows.ctrl ? a->rows.ctrl->row_base : 0;
    uint16_t elements[RT_REF_MAX_D];
    if (p->d_qk > RT_REF_MAX_D)
        return;
    for (uint32_t r = 0; r < a->rows.count; r++)
        for (uint32_t t = 0; t < a->rows.q_len; t++) {
            struct rt_ref_place at;
            if (!rt_ref_append_place(&p->general, r, t, &at))
                continue;
            gather(p, row_base + r, t, elements);
            rt_ref_quantise(&p->quant, elements, p->d_qk,
                            rt_ref_quant_row(&a->kv, &p->quant, at.page, at.row));
        }
}
