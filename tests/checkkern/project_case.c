/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/project_case.h"

#include "common/bf16.h"
#include "common/math.h"
#include "tests/checkkern/compare.h"
#include "tests/checkkern/parallel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One bf16 to either side of a tie in x' is right: how near is a tie, relatively. */
#define TIE 3e-6

static uint32_t all_rows(const struct ck_project *c)
{
    return c->rows[0] + c->rows[1];
}

void ck_project_describe(const struct ck_project *c, char *text, size_t bytes)
{
    static const char *const troubles[CK_PROJECT_TROUBLES] = {"", ", huge", ", NaN", ", infinity",
                                                              ", zeros"};
    (void)snprintf(text, bytes, "%u x [%u, %u] by %u + %u rows%s%s%s%s%s%s%s", c->batch, c->m, c->k,
                   c->rows[0], c->rows[1], c->transposed ? ", transposed" : "",
                   c->bias ? ", bias" : "", c->norm ? ", norm" : "", c->inside ? ", inside" : "",
                   c->gaps ? ", gaps" : "", c->y_f32 ? ", to f32" : "", troubles[c->trouble]);
}

/* Where the vectors of x or y of so many numbers are. */
static struct rt_matrix_view matrix(const struct ck_project *c, uint32_t width)
{
    const int64_t each = rt_ceil_div_u32(width, 8) * 8 + (c->gaps ? 24 : 0);
    if (c->inside)
        return (struct rt_matrix_view){.batch_stride = each,
                                       .row_stride = c->batch * each + (c->gaps ? 8 : 0)};
    return (struct rt_matrix_view){.batch_stride = c->m * each + (c->gaps ? 40 : 0),
                                   .row_stride = each};
}

static uint64_t matrix_numbers(const struct ck_project *c, uint32_t width)
{
    const struct rt_matrix_view v = matrix(c, width);
    return (c->batch - 1) * (uint64_t)v.batch_stride + (c->m - 1) * (uint64_t)v.row_stride + width;
}

static uint32_t y_bytes(const struct ck_project *c)
{
    return c->y_f32 ? sizeof(float) : sizeof(uint16_t);
}

static struct rt_weight_view weight(const struct ck_project *c, int i)
{
    const uint32_t inner = c->transposed ? c->rows[i] : c->k;
    const uint32_t outer = c->transposed ? c->k : c->rows[i];
    const int64_t stride = rt_ceil_div_u32(inner, 8) * 8 + (c->gaps ? 16 : 0);
    return (struct rt_weight_view){.batch_stride = outer * stride + (c->gaps ? 64 : 0),
                                   .row_stride = c->transposed ? 1 : stride,
                                   .column_stride = c->transposed ? stride : 1,
                                   .rows = c->rows[i]};
}

static uint64_t weight_numbers(const struct ck_project *c, int i)
{
    const struct rt_weight_view w = weight(c, i);
    return c->batch * (uint64_t)w.batch_stride + 8;
}

struct rt_project_params ck_project_params(const struct ck_project *c,
                                           const struct ck_project_rig *rig, enum ck_side side)
{
    struct rt_project_params p = {.x = matrix(c, c->k),
                                  .y = matrix(c, all_rows(c)),
                                  .batch = c->batch,
                                  .m = c->m,
                                  .k = c->k,
                                  .y_f32 = c->y_f32};
    p.x.base = ck_at(&rig->x, side);
    p.y.base = ck_at(&rig->y, side);
    for (int i = 0; i < 2 && c->rows[i] > 0; i++) {
        p.w[i] = weight(c, i);
        p.w[i].base = ck_at(&rig->w[i], side);
        if (c->bias)
            p.w[i].bias = ck_at(&rig->bias[i], side);
    }
    if (c->norm)
        p.norm = (struct rt_norm_view){.weight = ck_at(&rig->norm, side),
                                       .eps = 1e-5f,
                                       .offset = c->seed % 2 ? 1.0f : 0.0f,
                                       .scale = c->seed % 3 ? 1.0f : 1.25f,
                                       .width = c->k};
    return p;
}

/* ---- inputs ---- */

static void fill_numbers(struct ck_random *random, uint16_t *to, uint64_t count, double size)
{
    for (uint64_t i = 0; i < count; i++)
        to[i] = rt_float_to_bf16((float)(size * (2 * ck_random_unit(random) - 1)));
}

/* Only what is read: what lies between stays NaN. */
static void fill_matrix(struct ck_random *random, const struct ck_project *c, uint16_t *to)
{
    const struct rt_matrix_view v = matrix(c, c->k);
    const double size = c->trouble == CK_PROJECT_HUGE ? 1e15 : 1;
    for (uint32_t z = 0; z < c->batch; z++)
        for (uint32_t i = 0; i < c->m; i++) {
            uint16_t *row = to + z * v.batch_stride + i * v.row_stride;
            fill_numbers(random, row, c->k, size);
            if (c->trouble == CK_PROJECT_NAN && i == c->m / 2)
                row[c->k - 1] = 0x7fc1;
            if (c->trouble == CK_PROJECT_INFINITE && i == c->m / 2)
                row[c->k / 2] = 0xff80;
            if (c->trouble == CK_PROJECT_ZERO && i == c->m - 1)
                memset(row, 0, c->k * sizeof(*row));
        }
}

static void fill_weight(struct ck_random *random, const struct ck_project *c, int i, uint16_t *to)
{
    const struct rt_weight_view w = weight(c, i);
    const uint32_t inner = c->transposed ? c->rows[i] : c->k;
    const uint32_t outer = c->transposed ? c->k : c->rows[i];
    const int64_t stride = c->transposed ? w.column_stride : w.row_stride;
    const double size = c->trouble == CK_PROJECT_HUGE ? 1e15 : 1;
    for (uint32_t z = 0; z < c->batch; z++)
        for (uint32_t o = 0; o < outer; o++)
            fill_numbers(random, to + z * w.batch_stride + o * stride, inner, size);
}

struct ck_project_rig ck_project_make(struct ck *ck, const struct ck_project *c)
{
    struct ck_random random = {.state = c->seed};
    struct ck_project_rig rig = {
        .x = ck_alloc_later(ck, "x", 2 * matrix_numbers(c, c->k), 0xff),
        .y = ck_alloc(ck, "y", y_bytes(c) * matrix_numbers(c, all_rows(c)), CK_PROJECT_FILL),
        .norm = ck_alloc_later(ck, "norm", 2 * (uint64_t)c->k, 0xff)};
    fill_matrix(&random, c, (uint16_t *)rig.x.ref);
    fill_numbers(&random, (uint16_t *)rig.norm.ref, c->k, 1);
    ck_upload(ck, &rig.x);
    ck_upload(ck, &rig.norm);
    for (int i = 0; i < 2 && c->rows[i] > 0; i++) {
        rig.w[i] = ck_alloc_later(ck, i ? "w[1]" : "w[0]", 2 * weight_numbers(c, i), 0xff);
        rig.bias[i] = ck_alloc_later(ck, "bias", 2 * (uint64_t)c->rows[i], 0xff);
        fill_weight(&random, c, i, (uint16_t *)rig.w[i].ref);
        fill_numbers(&random, (uint16_t *)rig.bias[i].ref, c->rows[i], 3);
        ck_upload(ck, &rig.w[i]);
        ck_upload(ck, &rig.bias[i]);
    }
    return rig;
}

void ck_project_free(struct ck *ck, struct ck_project_rig *rig)
{
    struct ck_buffer *all[] = {&rig->x,    &rig->y,       &rig->norm,   &rig->w[0],
                               &rig->w[1], &rig->bias[0], &rig->bias[1]};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

/* ---- the truth ---- */

struct truth_work {
    const struct ck_project *c;
    struct rt_project_params p;
    struct ck_project_truth truth;
    double *factor; /* x', [batch, m, k] */
    float *slack;   /* what x' may be off by: a tie may go either way */
};

static double number(const void *base, int64_t at)
{
    return (double)rt_bf16_to_float(((const uint16_t *)base)[at]);
}

static double rounded(double value)
{
    return (double)rt_bf16_to_float(rt_float_to_bf16((float)value));
}

/* x' of a vector. */
static void make_factors(void *arg, uint32_t vector)
{
    const struct truth_work *work = arg;
    const struct rt_project_params *p = &work->p;
    const int64_t x = vector / p->m * p->x.batch_stride + vector % p->m * p->x.row_stride;
    double sum = 0;
    for (uint32_t l = 0; l < p->k; l++)
        sum += number(p->x.base, x + l) * number(p->x.base, x + l);
    const double inverse = 1 / sqrt(sum / p->k + (double)p->norm.eps);
    for (uint32_t l = 0; l < p->k; l++) {
        const uint64_t at = (uint64_t)vector * p->k + l;
        double value = number(p->x.base, x + l);
        if (p->norm.weight) {
            value *= inverse * (number(p->norm.weight, l) + (double)p->norm.offset) *
                     (double)p->norm.scale;
            const double spread = fabs(rounded(value * (1 + TIE)) - rounded(value * (1 - TIE)));
            work->slack[at] = isfinite(spread) ? (float)spread : 0;
            value = rounded(value);
        }
        work->factor[at] = value;
    }
}

/* All vectors' products with one row of one z. */
static void make_products(void *arg, uint32_t index)
{
    const struct truth_work *work = arg;
    const struct rt_project_params *p = &work->p;
    const uint32_t rows = all_rows(work->c), z = index / rows, row = index % rows;
    const int second = row >= work->c->rows[0];
    const struct rt_weight_view *w = &p->w[second];
    const uint32_t j = second ? row - work->c->rows[0] : row;
    const uint16_t *weight = w->base + z * w->batch_stride + j * w->row_stride;
    for (uint32_t i = 0; i < p->m; i++) {
        const uint64_t x = ((uint64_t)z * p->m + i) * p->k;
        double sum = w->bias ? number(w->bias, j) : 0, sizes = fabs(sum), slack = 0;
        for (uint32_t l = 0; l < p->k; l++) {
            const double b = number(weight, l * w->column_stride);
            sum += work->factor[x + l] * b;
            sizes += fabs(work->factor[x + l] * b);
            slack += (double)work->slack[x + l] * fabs(b);
        }
        const uint64_t at = ((uint64_t)z * p->m + i) * rows + row;
        work->truth.value[at] = sum;
        /* Half a bf16, or a float; float sums, as long as a chain of them gets; ties in x'. */
        work->truth.bound[at] = fabs(sum) * (work->c->y_f32 ? 0x1p-23 : 0x1p-8) +
                                sizes * (p->k / 16.0 + 8) * 0x1p-23 + slack;
    }
}

struct ck_project_truth ck_project_truth(struct ck *ck, const struct ck_project *c,
                                         const struct ck_project_rig *rig)
{
    const uint64_t count = (uint64_t)c->batch * c->m * all_rows(c);
    const uint64_t factors = (uint64_t)c->batch * c->m * c->k;
    struct truth_work work = {.c = c,
                              .p = ck_project_params(c, rig, CK_REF),
                              .truth = {.value = ck_new(ck, count * sizeof(double)),
                                        .bound = ck_new(ck, count * sizeof(double))},
                              .factor = ck_new(ck, factors * sizeof(double)),
                              .slack = ck_new(ck, factors * sizeof(float))};
    ck_parallel(c->batch * c->m, make_factors, &work);
    ck_parallel(c->batch * all_rows(c), make_products, &work);
    free(work.factor);
    free(work.slack);
    return work.truth;
}

void ck_project_forget(struct ck_project_truth *truth)
{
    free(truth->value);
    free(truth->bound);
    *truth = (struct ck_project_truth){0};
}

void ck_project_compare(struct ck *ck, const struct ck_project *c, const struct ck_project_rig *rig,
                        const struct ck_project_truth *truth)
{
    const struct rt_matrix_view v = matrix(c, all_rows(c));
    const uint32_t rows = all_rows(c);
    const uint32_t each = y_bytes(c);
    unsigned char *found = ck_new(ck, rig->y.bytes + CK_GUARD_BYTES);
    struct ck_bounded all = {0};
    ck_download(ck, &rig->y, found);
    for (uint64_t at = 0; at < (uint64_t)c->batch * c->m * rows; at++) {
        const uint64_t vector = at / rows, z = vector / c->m, i = vector % c->m;
        unsigned char *y =
            found + each * (z * (uint64_t)v.batch_stride + i * (uint64_t)v.row_stride + at % rows);
        const double value = c->y_f32 ? (double)*(const float *)(const void *)y : number(y, 0);
        ck_bounded_add(&all, at, value, truth->value[at], truth->bound[at]);
        memset(y, CK_PROJECT_FILL, each);
    }
    if (all.wrong > 0)
        ck_failed(ck,
                  "%llu of %llu numbers of y are wrong; worst [%llu, %llu, %llu]: %.9g, truth "
                  "%.9g, %.3g times the bound",
                  (unsigned long long)all.wrong, (unsigned long long)c->batch * c->m * rows,
                  (unsigned long long)(all.worst_at / rows / c->m),
                  (unsigned long long)(all.worst_at / rows % c->m),
                  (unsigned long long)(all.worst_at % rows), all.found, truth->value[all.worst_at],
                  all.worst);
    ck_note_worst(ck, "y", all.worst, all.difference, 0);
    ck_expect_bytes(ck, "what surrounds y", found, rig->y.ref, rig->y.bytes + CK_GUARD_BYTES);
    free(found);
}
