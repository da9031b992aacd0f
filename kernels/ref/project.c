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

/* Rows of the weights from `first` on, each sum in the order of its columns. What x' is, is the
 * same for all of them, and four sums at once do not wait for each other: this is most of what a
 * step takes on the host device. Where fewer than four rows are left, the last is taken again. */
#define BLOCK 64u
#define COLUMNS 128u
#define LANES 4u

static void add_columns(const double *x, uint32_t count, const uint16_t *const *lanes,
                        int64_t stride, double *sums)
{
    double s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
    const uint16_t *w0 = lanes[0], *w1 = lanes[1], *w2 = lanes[2], *w3 = lanes[3];
    int64_t at = 0;
    for (uint32_t l = 0; l < count; l++, at += stride) {
        const double one = x[l];
        s0 += one * (double)rt_bf16_to_float(w0[at]);
        s1 += one * (double)rt_bf16_to_float(w1[at]);
        s2 += one * (double)rt_bf16_to_float(w2[at]);
        s3 += one * (double)rt_bf16_to_float(w3[at]);
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

static void products(const struct rt_project_params *p, const struct rt_weight_view *w, uint32_t z,
                     int64_t row, double inverse, uint32_t first, double *sums)
{
    const uint32_t count = w->rows - first < BLOCK ? w->rows - first : BLOCK;
    for (uint32_t j = 0; j < BLOCK; j++)
        sums[j] = w->bias && j < count ? (double)rt_bf16_to_float(w->bias[first + j]) : 0;
    for (uint32_t l = 0; l < p->k; l += COLUMNS) {
        const uint32_t columns = p->k - l < COLUMNS ? p->k - l : COLUMNS;
        double x[COLUMNS];
        for (uint32_t i = 0; i < columns; i++)
            x[i] = factor(p, row, inverse, l + i);
        for (uint32_t j = 0; j < count; j += LANES) {
            const uint16_t *lanes[LANES];
            for (uint32_t k = 0; k < LANES; k++) {
                const uint32_t weight = first + (j + k < count ? j + k : count - 1);
                lanes[k] =
                    w->base + z * w->batch_stride + weight * w->row_stride + l * w->column_stride;
            }
            add_columns(x, columns, lanes, w->column_stride, sums + j);
        }
    }
}

static void store(const struct rt_project_params *p, int64_t at, double value)
{
    if (p->is_f32 || p->y_f32)
        ((float *)p->y.base)[at] = (float)value;
    else
        ((uint16_t *)p->y.base)[at] = rt_float_to_bf16((float)value);
}

static void project_row(const struct rt_project_params *p, uint32_t z, uint32_t i)
{
    const int64_t x = z * p->x.batch_stride + i * p->x.row_stride;
    int64_t y = z * p->y.batch_stride + i * p->y.row_stride;
    const double inverse = p->norm.weight ? inverse_norm(p, x) : 1;
    double sums[BLOCK];
    for (int n = 0; n < 2; n++)
        for (uint32_t j = 0; j < p->w[n].rows; j++) {
            if (j % BLOCK == 0)
                products(p, &p->w[n], z, x, inverse, j, sums);
            store(p, y++, sums[j % BLOCK]);
        }
}

/* A number that is not finite reaches what it is multiplied into: a row of x its own row of y, a
 * row of the weight its own column. No rows, or a batch of none: nothing is written. */
void rt_ref_project(const void *params)
{
    const struct rt_project_params *p = params;
    for (uint32_t z = 0; z < p->batch; z++)
        for (uint32_t i = 0; i < p->m; i++)
            project_row(p, z, i);
}
