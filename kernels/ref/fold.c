/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/fold.h"

#include <math.h>
#include <stdbool.h>

void rt_ref_fold_begin(struct rt_ref_fold *sum)
{
    *sum = (struct rt_ref_fold){.top = -INFINITY};
}

void rt_ref_fold_add(struct rt_ref_fold *sum, float lse, const float *x, uint32_t d_v)
{
    const double top = fmax(sum->top, (double)lse);
    const double base = top == -INFINITY ? 0 : top;
    const double factor = exp2(sum->top - base), weight = exp2((double)lse - base);
    sum->top = top;
    sum->total = sum->total * factor + weight;
    for (uint32_t d = 0; d < d_v; d++)
        sum->out[d] = sum->out[d] * factor + weight * (double)x[d];
}

float rt_ref_fold_end(const struct rt_ref_fold *sum, float *x, uint32_t d_v)
{
    const bool empty = sum->total == 0;
    for (uint32_t d = 0; d < d_v; d++)
        x[d] = empty ? 0.0f : (float)(sum->out[d] / sum->total);
    return empty ? -INFINITY : (float)(sum->top + log2(sum->total));
}
