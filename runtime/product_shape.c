/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/product.h"

#include "runtime/block_work.h"
#include "runtime/model_work.h"
#include "runtime/ops_check.h"
#include "runtime/ops_handle.h"

#include <inttypes.h>
#include <stdio.h>

static const char op[] = "rt_product_create";

static enum rt_status check_words(const struct rt_product_shape *s, struct rt_error *err)
{
    RT_REQUIRE(s->normed <= 1, err, RT_ERR_INVALID, "%s: normed %u is not 0 or 1", op, s->normed);
    RT_REQUIRE(s->output == 0 || s->output == RT_DTYPE_BF16 || s->output == RT_DTYPE_F32, err,
               RT_ERR_INVALID, "%s: output %d is not RT_DTYPE_BF16, %d, or RT_DTYPE_F32, %d", op,
               (int)s->output, RT_DTYPE_BF16, RT_DTYPE_F32);
    RT_REQUIRE(s->precision != RT_PRECISION_F32 || s->output != RT_DTYPE_BF16, err, RT_ERR_INVALID,
               "%s: output RT_DTYPE_BF16, %d, with precision RT_PRECISION_F32, %d: f32 gives f32",
               op, RT_DTYPE_BF16, RT_PRECISION_F32);
    RT_REQUIRE(s->projections == RT_PROJECTIONS_AUTO || s->projections == RT_PROJECTIONS_CUBLASLT ||
                   s->projections == RT_PROJECTIONS_OWN,
               err, RT_ERR_INVALID, "%s: projections %d is none of enum rt_projections", op,
               (int)s->projections);
    RT_REQUIRE(s->backend == RT_BACKEND_AUTO || s->backend == RT_BACKEND_GENERIC ||
                   s->backend == RT_BACKEND_SM90,
               err, RT_ERR_INVALID, "%s: backend %d is none of enum rt_backend", op,
               (int)s->backend);
    return RT_OK;
}

/* Rows that are read or written at once do not overlap. */
static enum rt_status check_apart(const char *what, uint32_t rows, int64_t stride, uint64_t width,
                                  struct rt_error *err)
{
    RT_REQUIRE(rows == 1 || (uint64_t)stride >= width, err, RT_ERR_INVALID,
               "%s: %s stride %" PRId64 " is less than the %" PRIu64 " numbers of a row", op, what,
               stride, width);
    return RT_OK;
}

/* A batch's stride: given, or that of `rows` rows. One batch has none that anybody looks at. */
static enum rt_status batch_stride(const char *what, const struct rt_product_shape *s,
                                   int64_t given, uint32_t rows, int64_t row, int64_t *out,
                                   struct rt_error *err)
{
    const bool fits = row == 0 || (int64_t)rows < RT_STRIDE_END / row;
    RT_REQUIRE(given || s->batch == 1 || fits, err, RT_ERR_INVALID,
               "%s: %s of %u rows %" PRId64 " apart is not below 2^39 elements", op, what, rows,
               row);
    return rt_ops_stride(op, what, given, fits ? rows * row : 0, 1, out, err);
}

/* `count` rows of `width` numbers, `inner` apart, lie within `stride`. */
static bool fit_within(int64_t stride, uint32_t count, int64_t inner, int64_t width)
{
    return stride >= width && (count == 1 || inner <= (stride - width) / (int64_t)(count - 1));
}

/* What is written does not overlap: batches of rows lie one behind the other, or row by row. */
static enum rt_status check_written(const struct rt_product_shape *s,
                                    const struct rt_matrix_view *y, int64_t width,
                                    struct rt_error *err)
{
    RT_REQUIRE(s->batch == 1 || fit_within(y->batch_stride, s->vectors, y->row_stride, width) ||
                   fit_within(y->row_stride, s->batch, y->batch_stride, width),
               err, RT_ERR_INVALID,
               "%s: y has %u batches %" PRId64 " apart of %u rows %" PRId64
               " apart: its rows of %" PRId64 " numbers overlap",
               op, s->batch, y->batch_stride, s->vectors, y->row_stride, width);
    return RT_OK;
}

static enum rt_status take_weight(const struct rt_product_shape *s, int i,
                                  struct rt_weight_view *out, struct rt_error *err)
{
    const struct rt_product_weight *w = &s->weights[i];
    const bool packed = w->row_stride == 0 && w->column_stride == 0;
    char name[48];
    RT_REQUIRE(w->biased <= 1, err, RT_ERR_INVALID, "%s: weights[%d].biased %u is not 0 or 1", op,
               i, w->biased);
    *out = (struct rt_weight_view){.rows = w->rows,
                                   .row_stride = packed ? (int64_t)s->k : w->row_stride,
                                   .column_stride = packed ? 1 : w->column_stride};
    const bool along = out->column_stride == 1;
    RT_REQUIRE(along || out->row_stride == 1, err, RT_ERR_INVALID,
               "%s: weights[%d] has row stride %" PRId64 ", column stride %" PRId64
               ": one of the two must be 1",
               op, i, out->row_stride, out->column_stride);
    const int64_t outer = along ? out->row_stride : out->column_stride;
    int64_t same;
    (void)snprintf(name, sizeof(name), "weights[%d] %s stride", i, along ? "row" : "column");
    RT_TRY(rt_ops_stride(op, name, outer, outer, 1, &same, err));
    (void)snprintf(name, sizeof(name), "weights[%d] %s", i, along ? "row" : "column");
    RT_TRY(check_apart(name, along ? w->rows : s->k, outer, along ? s->k : w->rows, err));
    (void)snprintf(name, sizeof(name), "weights[%d].batch_stride", i);
    return batch_stride(name, s, w->batch_stride, along ? w->rows : s->k, outer, &out->batch_stride,
                        err);
}

/* x or y, of which a vector has `width` numbers. */
static enum rt_status take_matrix(const struct rt_product_shape *s, const char *what, int64_t batch,
                                  int64_t row, uint64_t width, struct rt_matrix_view *out,
                                  struct rt_error *err)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "%s_row_stride", what);
    RT_TRY(rt_ops_stride(op, name, row, (int64_t)width, 1, &out->row_stride, err));
    (void)snprintf(name, sizeof(name), "%s_batch_stride", what);
    RT_TRY(batch_stride(name, s, batch, s->vectors, out->row_stride, &out->batch_stride, err));
    (void)snprintf(name, sizeof(name), "%s row", what);
    RT_TRY(check_apart(name, s->vectors, out->row_stride, width, err));
    (void)snprintf(name, sizeof(name), "%s batch", what);
    return check_apart(name, s->batch, out->batch_stride, width, err);
}

static enum rt_status take_norm(const struct rt_product_shape *s, struct rt_norm_view *out,
                                struct rt_error *err)
{
    const struct rt_rms_norm norm = {.weight = RT_ALIGN_VECTOR,
                                     .width = s->k,
                                     .eps = s->norm_eps,
                                     .offset = s->norm_offset,
                                     .scale = s->norm_scale};
    return s->normed ? rt_ops_norm_view(op, "norm", &norm, out, err) : RT_OK;
}

enum rt_status rt_product_take_shape(const struct rt_product_shape *s, struct rt_product *out,
                                     struct rt_error *err)
{
    struct rt_project_params *p = &out->params;
    const uint64_t rows = (uint64_t)s->weights[0].rows + s->weights[1].rows;
    const struct {
        const char *name;
        uint64_t value;
    } sizes[] = {{"batch", s->batch},
                 {"vectors", s->vectors},
                 {"k", s->k},
                 {"weights[0].rows", s->weights[0].rows},
                 {"rows of all weights", rows}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        RT_REQUIRE(sizes[i].value >= 1 && sizes[i].value <= INT32_MAX, err, RT_ERR_INVALID,
                   "%s: %s %" PRIu64 " is not 1..%d", op, sizes[i].name, sizes[i].value, INT32_MAX);
    RT_TRY(check_words(s, err));
    *p = (struct rt_project_params){.batch = s->batch, .m = s->vectors, .k = s->k};
    RT_TRY(rt_ops_precision(op, s->precision, &out->ops->driver.caps, &p->is_f32, err));
    p->y_f32 = s->output == RT_DTYPE_F32 || p->is_f32;
    out->projections = s->projections;
    out->backend = s->backend;
    for (int i = 0; i < 2 && s->weights[i].rows > 0; i++) {
        RT_TRY(take_weight(s, i, &p->w[i], err));
        out->biased[i] = s->weights[i].biased;
    }
    RT_REQUIRE(s->batch == 1 || (!out->biased[0] && !out->biased[1]), err, RT_ERR_INVALID,
               "%s: a bias with batch %u: must be without, or batch 1", op, s->batch);
    RT_TRY(take_matrix(s, "x", s->x_batch_stride, s->x_row_stride, s->k, &p->x, err));
    RT_TRY(take_matrix(s, "y", s->y_batch_stride, s->y_row_stride, rows, &p->y, err));
    RT_TRY(check_written(s, &p->y, (int64_t)rows, err));
    return take_norm(s, &p->norm, err);
}

static bool same_matrix(const struct rt_matrix_view *a, const struct rt_matrix_view *b)
{
    return a->batch_stride == b->batch_stride && a->row_stride == b->row_stride;
}

static bool same_weight(const struct rt_weight_view *a, const struct rt_weight_view *b)
{
    return a->rows == b->rows && a->batch_stride == b->batch_stride &&
           a->row_stride == b->row_stride && a->column_stride == b->column_stride;
}

static bool same_norm(const struct rt_norm_view *a, const struct rt_norm_view *b)
{
    return a->width == b->width && a->eps == b->eps && a->offset == b->offset &&
           a->scale == b->scale;
}

/* All but addresses, which a product gets when it runs. */
static bool same_shape(const struct rt_project_params *a, const struct rt_project_params *b)
{
    return a->batch == b->batch && a->m == b->m && a->k == b->k && a->is_f32 == b->is_f32 &&
           a->y_f32 == b->y_f32 && same_matrix(&a->x, &b->x) && same_matrix(&a->y, &b->y) &&
           same_weight(&a->w[0], &b->w[0]) && same_weight(&a->w[1], &b->w[1]) &&
           same_norm(&a->norm, &b->norm);
}

enum rt_status rt_product_check_like(const struct rt_product *p, const struct rt_product *like,
                                     struct rt_error *err)
{
    const struct rt_device_caps *const mine = &p->ops->driver.caps;
    const struct rt_device_caps *const its = &like->ops->driver.caps;
    const struct rt_project_params *const m = &p->params, *const l = &like->params;
    RT_REQUIRE(its->kind == mine->kind && its->ordinal == mine->ordinal, err, RT_ERR_INVALID,
               "%s: like is on %s (%u), this product on %s (%u): must be one device", op, its->name,
               its->ordinal, mine->name, mine->ordinal);
    RT_REQUIRE(
        like->projections == p->projections && like->backend == p->backend, err, RT_ERR_INVALID,
        "%s: like has projections %d and backend %d, this product %d and %d: must be the "
        "same",
        op, (int)like->projections, (int)like->backend, (int)p->projections, (int)p->backend);
    RT_REQUIRE(same_shape(m, l) && p->biased[0] == like->biased[0] &&
                   p->biased[1] == like->biased[1],
               err, RT_ERR_INVALID,
               "%s: like is of %u times %u vectors of %u by %u and %u rows, this product of %u "
               "times %u of %u by %u and %u: must be the same, in strides, biases, norm, output "
               "and precision too",
               op, l->batch, l->m, l->k, l->w[0].rows, l->w[1].rows, m->batch, m->m, m->k,
               m->w[0].rows, m->w[1].rows);
    return RT_OK;
}
