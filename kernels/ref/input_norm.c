/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/norm.h"
#include "kernels/ref/number.h"
#include "kernels/ref/ref.h"

void rt_ref_input_norm(const void *params)
{
    const struct rt_input_norm_params *p = params;
    const int64_t bytes = p->is_f32 ? 4 : 2;
    for (uint32_t t = 0; t < p->tokens; t++) {
        const int64_t first = t * p->stride;
        const void *sums = p->residual ? p->residual : p->hidden;
        for (int64_t i = first; p->residual && i < first + p->norm.width; i++) {
            const double hidden = rt_ref_load(p->hidden, i, p->is_f32);
            const double sum = p->first ? hidden
                                        : (double)p->hidden_scale * hidden +
                                              rt_ref_load(p->residual, i, p->is_f32);
            rt_ref_store(p->residual, i, p->is_f32, sum);
        }
        rt_ref_norm(&p->norm, (const unsigned char *)sums + first * bytes,
                    (unsigned char *)p->normed + first * bytes, p->is_f32);
    }
}
