/* SPDX-License-Identifier: Apache-2.0 */
/* A product of block_ops.h by the library: plans, for which its ways are tried, and runs. */
#include "common/math.h"
#include "driver/matmul_plan.h"
#include "graphs/program.h"
#include "kernels/abi/input_norm.h"
#include "runtime/fastest.h"
#include "runtime/multiply.h"
#include "runtime/ops_check.h"
#include "runtime/ops_handle.h"
#include "runtime/product.h"

#include <inttypes.h>

/* Weights that a trial walks: more than any cache holds. */
#define TRIAL_BYTES (UINT64_C(256) << 20)

const char *rt_product_only_own(const struct rt_product *p)
{
    const struct rt_project_params *params = &p->params;
    const bool alone = params->batch == 1 && params->m <= RT_MAX_BATCH * RT_MAX_QUERY_LEN &&
                       params->k <= RT_INPUT_NORM_MOST_WIDTH && params->k % 8 == 0 &&
                       params->x.row_stride % 8 == 0;
    if (params->norm.weight && !alone)
        return "a norm that no node in front of a library's product does";
    if (params->y_f32 && (p->biased[0] || p->biased[1]))
        return "a bf16 bias with f32 results, which cuBLASLt has not";
    return NULL;
}

/* Where in a vector of y the i-th weight's numbers begin. */
static uint64_t y_offset(const struct rt_product *p, uint32_t i)
{
    const uint64_t each = p->params.y_f32 ? sizeof(float) : sizeof(uint16_t);
    return i ? p->params.w[0].rows * each : 0;
}

static uint64_t x_bytes(const struct rt_product *p)
{
    return p->params.is_f32 ? sizeof(float) : sizeof(uint16_t);
}

/* Of the i-th weight; for addresses the worst alignment that they may have. */
static struct rt_matmul matmul_of(const struct rt_product *p, uint32_t i)
{
    const struct rt_project_params *params = &p->params;
    const struct rt_weight_view *w = &params->w[i];
    return (struct rt_matmul){
        .a = RT_ALIGN_VECTOR,
        .b = RT_ALIGN_VECTOR,
        .bias = p->biased[i] ? RT_ALIGN_VECTOR : 0,
        .d = RT_ALIGN_VECTOR | y_offset(p, i),
        .input_dtype = params->is_f32 ? RT_DTYPE_F32 : RT_DTYPE_BF16,
        .weight_dtype = RT_DTYPE_BF16,
        .output_dtype = params->y_f32 ? RT_DTYPE_F32 : RT_DTYPE_BF16,
        .batch = params->batch,
        .m = params->m,
        .n = w->rows,
        .k = params->k,
        .a_batch_stride = params->x.batch_stride,
        .a_row_stride = params->x.row_stride,
        .b_batch_stride = w->batch_stride,
        .b_row_stride = w->row_stride,
        .b_column_stride = w->column_stride,
        .d_batch_stride = params->y.batch_stride,
        .d_row_stride = params->y.row_stride,
        .workspace_bytes = RT_WORKSPACE_BYTES,
    };
}

/* ---- trial ----------------------------------------------------------------------------------- */

struct trial {
    struct rt_matmul sets[RT_FASTEST_LAYERS];
    const struct rt_matmul *pointers[RT_FASTEST_LAYERS];
    uint32_t count;
    uint64_t bytes;
};

/* The next operand of the trial's memory; its place is relative until there is an address. */
static enum rt_status reserve(struct trial *t, uint64_t bytes, rt_addr *at, struct rt_error *err)
{
    uint64_t end;
    RT_REQUIRE(bytes < UINT64_MAX - RT_WORKSPACE_ALIGN && rt_add_u64(t->bytes, bytes, &end) &&
                   end < INT64_MAX,
               err, RT_ERR_INVALID, "rt_product_create: operands of more than 2^63 bytes");
    *at = t->bytes;
    t->bytes = rt_align_up_u64(end, RT_WORKSPACE_ALIGN);
    return RT_OK;
}

/* One x, y and workspace, and as many sets of weights as are worth walking. The host device has one
 * way, whose workspace is known; of a library's the next may want all that it was offered. */
static enum rt_status lay_out(struct trial *t, const struct rt_matmul *m,
                              const struct rt_matmul_plan *plan, bool host, struct rt_error *err)
{
    struct rt_span spans[RT_MAX_SPANS];
    struct rt_matmul one = *m;
    (void)rt_matmul_spans(m, spans);
    const uint64_t weights = spans[1].bytes;
    const uint64_t sets = host ? 1 : TRIAL_BYTES / (weights < TRIAL_BYTES ? weights : TRIAL_BYTES);
    if (host)
        one.workspace_bytes = plan->workspace_bytes;
    t->count = sets < RT_FASTEST_LAYERS ? (uint32_t)sets : RT_FASTEST_LAYERS;
    RT_TRY(reserve(t, spans[0].bytes, &one.a, err));
    RT_TRY(reserve(t, spans[2].bytes, &one.d, err));
    RT_TRY(reserve(t, one.workspace_bytes, &one.workspace, err));
    if (m->bias)
        RT_TRY(reserve(t, (uint64_t)m->n * sizeof(uint16_t), &one.bias, err));
    for (uint32_t i = 0; i < t->count; i++) {
        RT_TRY(reserve(t, weights, &one.b, err));
        t->sets[i] = one;
        t->pointers[i] = &t->sets[i];
    }
    return RT_OK;
}

static void move_to(struct trial *t, rt_addr base)
{
    for (uint32_t i = 0; i < t->count; i++) {
        struct rt_matmul *m = &t->sets[i];
        m->a += base;
        m->b += base;
        m->d += base;
        m->workspace += base;
        m->bias += m->bias ? base : 0;
    }
}

static enum rt_status try_on(struct trial *t, struct rt_driver *d,
                             const struct rt_matmul_plan *liked, struct rt_matmul_plan *plan,
                             struct rt_error *err)
{
    rt_dstream stream;
    RT_TRY(RT_DRV(d, err, stream_create, (d, &stream)));
    const enum rt_status status =
        rt_fastest_select(d, stream, t->pointers, t->count, liked, plan, err);
    (void)d->stream_sync(d, stream); /* what was put last may not have been waited for */
    (void)d->stream_destroy(d, stream);
    return status;
}

static enum rt_status try_ways(struct rt_driver *d, const struct rt_matmul *m,
                               const struct rt_matmul_plan *liked, struct rt_matmul_plan *plan,
                               struct rt_error *err)
{
    struct trial t = {.count = 0};
    rt_addr base;
    RT_TRY(lay_out(&t, m, plan, d->caps.kind == RT_DEVICE_KIND_HOST, err));
    RT_TRY(rt_driver_wanted(RT_DRV(d, err, mem_alloc, (d, t.bytes, &base)),
                            "memory to try a library's products in", t.bytes, err));
    move_to(&t, base);
    const enum rt_status status = try_on(&t, d, liked, plan, err);
    (void)d->mem_free(d, base);
    return status;
}

/* ---- plans ----------------------------------------------------------------------------------- */

static enum rt_status prepare(struct rt_product *p, uint32_t i, const struct rt_matmul_plan *liked,
                              struct rt_error *err)
{
    struct rt_driver *d = &p->ops->driver;
    p->matmuls[i] = matmul_of(p, i);
    RT_TRY(rt_fastest_prepare(d, &p->matmuls[i], &p->plans[i], err));
    return try_ways(d, &p->matmuls[i], liked, p->plans[i], err);
}

static enum rt_status choose_norm(struct rt_product *p, struct rt_error *err)
{
    const struct rt_op_request request = {.caps = &p->ops->driver.caps};
    const uint64_t normed =
        (p->params.m - UINT64_C(1)) * (uint64_t)p->params.x.row_stride + p->params.k;
    if (!p->params.norm.weight)
        return RT_OK;
    p->workspace_bytes = p->product_bytes + normed * x_bytes(p);
    return rt_op_resolve(RT_OP_INPUT_NORM, &request, &p->variant, err);
}

enum rt_status rt_product_plan_library(struct rt_product *p, const struct rt_product *like,
                                       struct rt_error *err)
{
    for (uint32_t i = 0; i < rt_product_weight_count(p); i++) {
        RT_TRY(prepare(p, i, like ? like->plans[i] : NULL, err));
        const uint64_t bytes = rt_align_up_u64(p->plans[i]->workspace_bytes, RT_WORKSPACE_ALIGN);
        p->product_bytes = p->product_bytes > bytes ? p->product_bytes : bytes;
        p->matmuls[i].plan = p->plans[i];
    }
    p->workspace_bytes = p->product_bytes;
    p->by_library = true;
    return choose_norm(p, err);
}

void rt_product_release_library(struct rt_product *p)
{
    struct rt_driver *d = &p->ops->driver;
    for (int i = 0; i < 2; i++) {
        if (p->plans[i])
            (void)d->matmul_release(d, p->plans[i]);
        p->plans[i] = NULL;
    }
    p->product_bytes = p->workspace_bytes = 0;
    p->by_library = false;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static enum rt_status put_norm(const struct rt_product *p, const struct rt_product_args *args,
                               uint64_t normed, void *stream)
{
    struct rt_error *err = &p->ops->error;
    struct rt_work work;
    struct rt_input_norm_params params = {
        .hidden = rt_ops_pointer(args->x),
        .normed = rt_ops_pointer(normed),
        .stride = p->params.x.row_stride,
        .norm = p->params.norm,
        .tokens = p->params.m,
        .first = 1,
        .is_f32 = p->params.is_f32,
        .hidden_scale = 1,
    };
    params.norm.weight = rt_ops_pointer(args->norm_weight);
    RT_TRY(rt_op_build(&p->ops->kernels, &p->variant, &params, sizeof(params), &work, err));
    return rt_ops_put(p->ops, &work, stream);
}

enum rt_status rt_product_put_library(const struct rt_product *p,
                                      const struct rt_product_args *args, void *stream)
{
    const bool normed = p->params.norm.weight;
    const uint64_t behind = args->workspace + p->product_bytes;
    if (normed)
        RT_TRY(put_norm(p, args, behind, stream));
    for (uint32_t i = 0; i < rt_product_weight_count(p); i++) {
        struct rt_work work = {.kind = RT_WORK_MATMUL, .matmul = p->matmuls[i]};
        struct rt_matmul *m = &work.matmul;
        m->a = normed ? behind : args->x;
        m->b = args->weights[i];
        m->bias = p->biased[i] ? args->biases[i] : 0;
        m->d = args->y + y_offset(p, i);
        m->workspace_bytes = p->product_bytes;
        m->workspace = p->product_bytes ? args->workspace : 0;
        RT_TRY(rt_ops_put(p->ops, &work, stream));
    }
    return RT_OK;
}
