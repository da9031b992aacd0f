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
 * same for all of them, and what the weights are, for all rows of x; eight sums at once do not wait
 * for each other: this is most of what a step takes on the host device. Where fewer than four rows
 * of the weights are left, or one of x, the last is taken again. */
#define BLOCK 64u
#define COLUMNS 128u
#define LANES 4u
#define ROWS 8u

/* Rows of x. */
struct some_rows {
    int64_t at[ROWS]; /* where each begins */
    double inverse[ROWS];
    uint32_t count;
};

static void add_columns(const double *x, const double *next_x, uint32_t count,
                        const double (*weights)[LANES], double *sums, double *next_sums)
{
    double s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
    double n0 = next_sums[0], n1 = next_sums[1], n2 = next_sums[2], n3 = next_sums[3];
    for (uint32_t l = 0; l < count; l++) {
        const double *w = weights[l], w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
        const double one = x[l], next = next_x[l];
        s0 += one * w0;
        s1 += one * w1;
        s2 += one * w2;
        s3 += one * w3;
        n0 += next * w0;
        n1 += next * w1;
        n2 += next * w2;
        n3 += next * w3;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
    next_sums[0] = n0;
    next_sums[1] = n1;
    next_sums[2] = n2;
    next_sums[3] = n3;
}

/* weights[i][k]: column i of the k-th of up to LANES rows, of which the first is at `from`. */
static void read_weights(const struct rt_weight_view *w, const uint16_t *from, uint32_t rows,
                         uint32_t columns, double (*weights)[LANES])
{
    for (uint32_t k = 0; k < LANES; k++) {
        const uint16_t *row = from + (k < rows ? k : rows - 1) * w->row_stride;
        int64_t at = 0;
        for (uint32_t i = 0; i < columns; i++, at += w->column_stride)
            weights[i][k] = (double)rt_bf16_to_float(row[at]);
    }
}

/* What column l and those behind it add, to sums of `count` rows of weights from `from` on. */
static void add_chunk(const struct rt_project_params *p, const struct rt_weight_view *w,
                      const struct some_rows *rows, const uint16_t *from, uint32_t count,
                      uint32_t l, double (*sums)[BLOCK])
{
    const uint32_t columns = p->k - l < COLUMNS ? p->k - l : COLUMNS;
    double x[ROWS][COLUMNS], weights[COLUMNS][LANES];
    for (uint32_t r = 0; r < rows->count; r++)
        for (uint32_t i = 0; i < columns; i++)
            x[r][i] = factor(p, rows->at[r], rows->inverse[r], l + i);
    for (uint32_t j = 0; j < count; j += LANES) {
        read_weights(w, from + j * w->row_stride + l * w->column_stride, count - j, columns,
                     weights);
        for (uint32_t r = 0; r < rows->count; r += 2) {
            const uint32_t next = r + 1 < rows->count ? r + 1 : r;
            add_columns(x[r], x[next], columns, (const double(*)[LANES])weights, sums[r] + j,
                        sums[next] + j);
        }
    }
}

static void products(const struct rt_project_params *p, const struct rt_weight_view *w, uint32_t z,
                     const struct some_rows *rows, uint32_t first, double (*sums)[BLOCK])
{
    const uint32_t count = w->rows - first < BLOCK ? w->rows - first : BLOCK;
    const uint16_t *from = w->base + z * w->batch_stride + first * w->row_stride;
    for (uint32_t r = 0; r < rows->count; r++)
        for (uint32_t j = 0; j < BLOCK; j++)
            sums[r][j] = w->bias && j < count ? (double)rt_bf16_to_float(w->bias[first + j]) : 0;
    for (uint32_t l = 0; l < p->k; l += COLUMNS)
        add_chunk(p, w, rows, from, count, l, sums);
}

static void store(const struct rt_project_params *p, int64_t at, double value)
{
    if (p->is_f32 || p->y_f32)
        ((float *)p->y.base)[at] = (float)value;
    else
        ((uint16_t *)p->y.base)[at] = rt_float_to_bf16((float)value);
}

/* Of `w`, of which the first row's sum is number `y` of the rows of y. */
static void project_half(const struct rt_project_params *p, const struct rt_weight_view *w,
                         uint32_t z, uint32_t i, const struct some_rows *rows, uint32_t y)
{
    double sums[ROWS][BLOCK];
    for (uint32_t j = 0; j < w->rows; j++) {
        if (j % BLOCK == 0)
            products(p, w, z, rows, j, sums);
        for (uint32_t r = 0; r < rows->count; r++)
            store(p, z * p->y.batch_stride + (i + r) * p->y.row_stride + y + j, sums[r][j % BLOCK]);
    }
}

static void project_rows(const struct rt_project_params *p, uint32_t z, uint32_t i)
{
    struct some_rows rows = {.count = p->m - i < ROWS ? p->m - i : ROWS};
    for (uint32_t r = 0; r < rows.count; r++) {
        rows.at[r] = z * p->x.batch_stride + (i + r) * p->x.row_stride;
        rows.inverse[r] = p->norm.weight ? inverse_norm(p, rows.at[r]) : 1;
    }
    project_half(p, &p->w[0], z, i, &rows, 0);
    project_half(p, &p->w[1], z, i, &rows, p->w[0].rows);
}

/* A number that is not finite reaches what it is multiplied into: a row of x its own row of y, a
 * row of the weight its own column. No rows, or a batch of none: nothing is written. */
void rt_ref_project(const void *params)
{
    const struct rt_project_params *p = params;
    for (uint32_t z = 0; z < p->batch; z++)
        for (uint32_t i = 0; i < p->m; i += ROWS)
            project_rows(p, z, i);
}
