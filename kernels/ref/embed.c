/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/number.h"
#include "kernels/ref/ref.h"

void rt_ref_embed(const void *params)
{
    const struct rt_embed_params *p = params;
    const uint64_t row_base = rt_row_base(&p->rows);
    for (uint32_t token = 0; token < p->rows.count * p->rows.q_len; token++) {
        const bool live = !p->rows.length || p->rows.length[token / p->rows.q_len] > 0;
        const int32_t id = p->tokens[row_base * p->rows.q_len + token];
        const bool found = live && id >= 0 && (uint32_t)id < p->vocab;
        for (uint32_t i = 0; i < p->width; i++) {
            const double x = found ? rt_ref_load(p->table, id * p->table_stride + i, false) : 0.0;
            rt_ref_store(p->hidden, token * p->hidden_stride + i, p->is_f32,
                         found ? (double)p->scale * x : 0.0);
        }
    }
}
