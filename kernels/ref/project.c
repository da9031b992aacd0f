/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <math.h>

/* A number of x as it lies. */
static double element(const struct rt_project_params *p, int64_t at)
{
    if (p->is_f32)
        return ((const float *)p->x.base)[at];
    return rt_bf16_to_float(((const uint16_t *)p->x.base)[at]);
}

static double inverse_norm(const struct rt_project_params *p, int64_t row)
{
    double sum = 0;
    for (uint32_t l = 0; l < p->k; l++)
        sum += element(p, row + l) * element(p, row + l);
    return 1 / sqrt(sum / p->k + (double)p->norm.eps);
}

/* x'[l] of the row of x that begins at `row`. */
static double factor(const struct rt_project_params *p, int64_t row, double inverse, uint32_t l)
{
    if (!p->norm.weight)
        return element(p, row + l);
    const double weight = (double)rt_bf16_to_float(p->norm.weight[l]) + (double)p->norm.offset;
    const double value = element(p, row + l) * inverse * weight * (double)p->norm.scale;
    return p->is_f32 ? value : (double)rt_bf16_to_float(rt_float_to_bf16((float)value));
}

static double product(const struct rt_project_params *p, const struct rt_weight_view *w, uint32_t z,
                      int64_t row, double inverse, uint32_t j)
{
    const uint16_t *weight = w->base + z * w->batch_stride + j * w->row_stride;
    double sum = w->bias ? (double)rt_bf16_to_float(w->bias[j]) : 0;
    for (uint32_t l = 0; l < p->k; l++)
        sum += factor(p, row, inverse, l) * (double)rt_bf16_to_float(weight[l * w->column_stride]);
    return sum;
}

static void store(const struct rt_project_params *p, int64_t at, double value)
{
    if (p->is_f32 || p->y_f32)
        ((float *)p->y.base)[at] = (float)value;
    else
        ((uint16_t *)p->y.base)[at] = rt_float_to_bf16((float)value);
}

/* A number that is not finite reaches what it is multiplied into: a row of x its own row of y, a
 * row of the weight its own column. No rows, or a batch of none: nothing is written. */
void rt_ref_project(const void *params)
{
    const struct rt_project_params *p = params;
    for (uint32_t z = 0; z < p->batch; z++)
        for (uint32_t i = 0; i < p->m; i++) {
            const int64_t x = z * p->x.batch_stride + i * p->x.row_stride;
            int64_t y = z * p->y.batch_stride + i * p->y.row_stride;
            const double inverse = p->norm.weight ? inverse_norm(p, x) : 1;
            for (int n = 0; n < 2; n++)
                for (uint32_t j = 0; j < p->w[n].rows; j++)
                    store(p, y++, product(p, &p->w[n], z, x, inverse, j));
        }
}
