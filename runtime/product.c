/* SPDX-License-Identifier: Apache-2.0 */
/* Products with weights as operators: who multiplies is decided once for a shape. */
#include "runtime/product.h"

#include "common/struct_size.h"
#include "runtime/multiply.h"
#include "runtime/operands.h"
#include "runtime/ops_check.h"
#include "runtime/ops_handle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- create ---------------------------------------------------------------------------------- */

/* Loads the library where it may be wanted. It is missing by name alone; why_not is why. */
static enum rt_status open_library(struct rt_ops *ops, enum rt_projections projections,
                                   struct rt_error *why_not)
{
    struct rt_driver *d = &ops->driver;
    *why_not = (struct rt_error){.status = RT_OK};
    if (projections == RT_PROJECTIONS_OWN || d->caps.has_blas)
        return RT_OK;
    const enum rt_status status = rt_driver_open_blas(d, why_not);
    d->caps.has_blas = status == RT_OK;
    if (status == RT_OK || (status == RT_ERR_UNSUPPORTED && projections == RT_PROJECTIONS_AUTO))
        return RT_OK;
    return rt_fail(&ops->error, status, "rt_product_create: projections cublaslt: %s",
                   why_not->message);
}

/* What is chosen can be built: with addresses that stand for any. */
static enum rt_status choose_kernel(struct rt_product *p, enum rt_backend backend,
                                    const char *reason, const char *story)
{
    struct rt_ops *ops = p->ops;
    struct rt_work work;
    const struct rt_op_request request = {
        .caps = &ops->driver.caps, .backend = backend, .product = &p->params};
    enum rt_status status = rt_op_resolve(RT_OP_PROJECT, &request, &p->variant, &ops->error);
    if (status == RT_OK)
        status = rt_op_build(&ops->kernels, &p->variant, &p->params, sizeof(p->params), &work,
                             &ops->error);
    RT_TRY(rt_ops_named("rt_product_create", status, &ops->error));
    (void)snprintf(p->reason, sizeof(p->reason), "%.60s%s%.120s; %.130s", reason,
                   story[0] ? ": " : "", story, p->variant.reason);
    return RT_OK;
}

/* Whether a kernel of ours that is tuned for the device takes it. */
static bool streams(const struct rt_product *p, enum rt_backend backend)
{
    const struct rt_op_request request = {
        .caps = &p->ops->driver.caps, .backend = backend, .product = &p->params};
    struct rt_variant own;
    struct rt_error why_not = {0};
    return rt_op_resolve(RT_OP_PROJECT, &request, &own, &why_not) == RT_OK &&
           own.backend == RT_BACKEND_SM90;
}

/* By whom, and if it is the library how, as that one. */
static enum rt_status choose_like(struct rt_product *p, const struct rt_product *like)
{
    static const char reason[] = "as the product that this one is like";
    struct rt_ops *ops = p->ops;
    struct rt_error why_not = {.status = RT_OK};
    if (!like->by_library)
        return choose_kernel(p, p->backend, reason, "");
    RT_TRY(open_library(ops, RT_PROJECTIONS_CUBLASLT, &why_not));
    const enum rt_status status = rt_product_plan_library(p, like, &why_not);
    if (status != RT_OK)
        return rt_fail(&ops->error, status, "rt_product_create: %s", why_not.message);
    (void)snprintf(p->reason, sizeof(p->reason), "%s", reason);
    return RT_OK;
}

static enum rt_status choose(struct rt_product *p)
{
    const enum rt_projections projections = p->projections;
    const enum rt_backend backend = p->backend;
    struct rt_ops *ops = p->ops;
    const struct rt_project_params *params = &p->params;
    const uint64_t rows = (uint64_t)params->w[0].rows + params->w[1].rows;
    const struct rt_multiplication product = {
        .vectors = params->m,
        .heads = params->batch,
        .vector_bytes = params->k * sizeof(uint16_t),
        .weight_bytes = rows * params->k * params->batch * sizeof(uint16_t),
        .rows = rows * params->batch,
        .streams = streams(p, backend),
        .only_own = rt_product_only_own(p),
    };
    struct rt_error why_not;
    const char *reason;
    RT_TRY(open_library(ops, projections, &why_not));
    if (!rt_multiply_by_library(projections, &ops->driver.caps, &product, &reason))
        return choose_kernel(p, backend, reason, why_not.message);
    RT_REQUIRE(!product.only_own, &ops->error, RT_ERR_UNSUPPORTED,
               "rt_product_create: projections cublaslt: %s", product.only_own);
    const enum rt_status status = rt_product_plan_library(p, NULL, &why_not);
    if (status == RT_OK) {
        (void)snprintf(p->reason, sizeof(p->reason), "%s", reason);
        return RT_OK;
    }
    rt_product_release_library(p);
    if (status == RT_ERR_UNSUPPORTED && projections == RT_PROJECTIONS_AUTO)
        return choose_kernel(p, backend, "the library has no way", why_not.message);
    return rt_fail(&ops->error, status, "rt_product_create: %s", why_not.message);
}

enum rt_status rt_product_create(rt_ops *ops, const struct rt_product_shape *shape,
                                 rt_product **out)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_product_create: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_driver *d = &ops->driver;
    struct rt_product_shape mine;
    enum rt_status status;
    RT_REQUIRE(out, err, RT_ERR_INVALID, "rt_product_create: out is null");
    *out = NULL;
    RT_TAKE_STRUCT(shape, mine, err);
    struct rt_product *p = calloc(1, sizeof(*p));
    RT_REQUIRE(p, err, RT_ERR_NOMEM, "out of host memory for a product");
    p->ops = ops;
    RT_TRY_GOTO(rt_product_take_shape(shape, p, err));
    if (shape->like)
        RT_TRY_GOTO(rt_product_check_like(p, shape->like, err));
    RT_TRY_GOTO(RT_DRV(d, err, ctx_enter, (d)));
    status = shape->like ? choose_like(p, shape->like) : choose(p);
    (void)d->ctx_leave(d);
    if (status != RT_OK)
        goto fail;
    *out = p;
    return RT_OK;
fail:
    rt_product_destroy(&p);
    return status;
}

void rt_product_destroy(rt_product **product)
{
    if (!product || !*product)
        return;
    struct rt_product *p = *product;
    rt_product_release_library(p);
    free(p);
    *product = NULL;
}

enum rt_status rt_product_get_info(const rt_product *product, struct rt_product_info *out)
{
    RT_REQUIRE(product, NULL, RT_ERR_INVALID, "rt_product_get_info: product is null");
    RT_CHECK_STRUCT(out, &product->ops->error);
    const struct rt_product_info mine = {
        .by_library = product->by_library && product->ops->driver.caps.kind != RT_DEVICE_KIND_HOST,
        .workspace_bytes = product->workspace_bytes,
        .kernel = product->by_library ? product->plans[0]->text : product->variant.entry,
        .reason = product->reason,
    };
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

/* ---- run ------------------------------------------------------------------------------------- */

static struct rt_strided vectors_of(const char *name, const struct rt_project_params *p,
                                    const struct rt_matrix_view *v, uint64_t address,
                                    uint64_t numbers, uint64_t each)
{
    return (struct rt_strided){
        .name = name,
        .address = address,
        .bytes = numbers * each,
        .count = {p->batch, p->m},
        .stride = {(uint64_t)v->batch_stride * each, (uint64_t)v->row_stride * each},
        .stride_name = {"the batch stride", "the row stride"},
    };
}

/* Row by row, or column by column: as its numbers follow each other. */
static struct rt_strided weight_of(const char *name, const struct rt_project_params *p,
                                   const struct rt_weight_view *w, uint64_t address)
{
    const uint64_t each = sizeof(uint16_t);
    const bool along = w->column_stride == 1;
    return (struct rt_strided){
        .name = name,
        .address = address,
        .bytes = (along ? p->k : w->rows) * each,
        .count = {p->batch, along ? w->rows : p->k},
        .stride = {(uint64_t)w->batch_stride * each,
                   (uint64_t)(along ? w->row_stride : w->column_stride) * each},
    };
}

static const char *const weight_names[] = {"weights[0]", "weights[1]"};
static const char *const bias_names[] = {"biases[0]", "biases[1]"};

static enum rt_status check_memory(const struct rt_product *p, const struct rt_product_args *args,
                                   struct rt_error *err)
{
    const struct rt_project_params *s = &p->params;
    const uint64_t rows = (uint64_t)s->w[0].rows + s->w[1].rows, bf16 = sizeof(uint16_t);
    struct rt_operands o = {.count = 0};
    rt_operands_writes(
        &o, vectors_of("y", s, &s->y, args->y, rows, s->y_f32 ? sizeof(float) : sizeof(uint16_t)));
    rt_operands_writes(&o, rt_strided_flat("workspace", args->workspace, p->workspace_bytes));
    rt_operands_reads(
        &o, vectors_of("x", s, &s->x, args->x, s->k, s->is_f32 ? sizeof(float) : sizeof(uint16_t)));
    for (uint32_t i = 0; i < rt_product_weight_count(p); i++) {
        rt_operands_reads(&o, weight_of(weight_names[i], s, &s->w[i], args->weights[i]));
        if (p->biased[i])
            rt_operands_reads(&o,
                              rt_strided_flat(bias_names[i], args->biases[i], s->w[i].rows * bf16));
    }
    if (s->norm.weight)
        rt_operands_reads(&o, rt_strided_flat("norm_weight", args->norm_weight, s->k * bf16));
    return rt_operands_check_written("rt_product_run", &o, err);
}

static enum rt_status check_args(const struct rt_product *p, const struct rt_product_args *args,
                                 struct rt_error *err)
{
    struct rt_named_pointer pointers[8] = {{"x", args->x, RT_ALIGN_VECTOR},
                                           {"y", args->y, RT_ALIGN_VECTOR}};
    uint32_t count = 2;
    for (uint32_t i = 0; i < rt_product_weight_count(p); i++) {
        pointers[count++] =
            (struct rt_named_pointer){weight_names[i], args->weights[i], RT_ALIGN_VECTOR};
        if (p->biased[i])
            pointers[count++] =
                (struct rt_named_pointer){bias_names[i], args->biases[i], RT_ALIGN_VECTOR};
    }
    if (p->params.norm.weight)
        pointers[count++] =
            (struct rt_named_pointer){"norm_weight", args->norm_weight, RT_ALIGN_VECTOR};
    if (p->workspace_bytes)
        pointers[count++] =
            (struct rt_named_pointer){"workspace", args->workspace, RT_WORKSPACE_ALIGN};
    RT_TRY(rt_ops_check_pointers("rt_product_run", pointers, count, err));
    return check_memory(p, args, err);
}

static enum rt_status put_kernel(const struct rt_product *p, const struct rt_product_args *args,
                                 void *stream)
{
    struct rt_project_params params = p->params;
    struct rt_work work;
    params.x.base = rt_ops_pointer(args->x);
    params.y.base = rt_ops_pointer(args->y);
    for (uint32_t i = 0; i < rt_product_weight_count(p); i++) {
        params.w[i].base = rt_ops_pointer(args->weights[i]);
        params.w[i].bias = p->biased[i] ? rt_ops_pointer(args->biases[i]) : NULL;
    }
    if (params.norm.weight)
        params.norm.weight = rt_ops_pointer(args->norm_weight);
    RT_TRY(
        rt_op_build(&p->ops->kernels, &p->variant, &params, sizeof(params), &work, &p->ops->error));
    return rt_ops_put(p->ops, &work, stream);
}

enum rt_status rt_product_run(rt_product *product, const struct rt_product_args *args, void *stream)
{
    RT_REQUIRE(product, NULL, RT_ERR_INVALID, "rt_product_run: product is null");
    struct rt_ops *ops = product->ops;
    struct rt_error *err = &ops->error;
    struct rt_driver *d = &ops->driver;
    struct rt_product_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    RT_TRY(RT_CHECK_RESERVED("rt_product_run", args, reserved, err));
    RT_TRY(check_args(product, args, err));
    RT_TRY(RT_DRV(d, err, ctx_enter, (d)));
    const enum rt_status status = product->by_library
                                      ? rt_product_put_library(product, args, stream)
                                      : put_kernel(product, args, stream);
    (void)d->ctx_leave(d);
    return status;
}
