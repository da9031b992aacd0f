/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt/prefill_ops.h: arguments -> one checked launch. */
#include "replayrt/prefill_ops.h"

#include "common/struct_size.h"
#include "kernels/abi/prefill.h"
#include "kernels/op.h"
#include "runtime/operands.h"
#include "runtime/ops_check.h"
#include "runtime/ops_handle.h"

#include <math.h>
#include <stdio.h>

RT_STATIC_ASSERT(RT_PREFILL_MAX_ROWS == RT_PREFILL_MOST_ROWS, "rows as the kernels have them");
RT_STATIC_ASSERT(RT_PREFILL_MAX_TOKENS == RT_PREFILL_MOST_TOKENS, "likewise tokens");

static const char op[] = "rt_mla_prefill";

static enum rt_status choose(const struct rt_device_caps *caps, const struct rt_prefill_shape *s,
                             struct rt_variant *out, struct rt_error *err)
{
    const struct rt_op_request request = {.caps = caps,
                                          .heads = s->heads,
                                          .backend = s->backend,
                                          .nope_dim = s->nope_dim,
                                          .rope_dim = s->rope_dim,
                                          .v_dim = s->v_dim};
    RT_TRY(rt_ops_check_reserved(op, "shape.reserved", s->reserved, err));
    RT_REQUIRE(s->causal <= 1, err, RT_ERR_INVALID, "%s: causal %u is not 0 or 1", op, s->causal);
    /* The resolver knows no head of 0 numbers: it would mean that nothing is known of them. */
    RT_REQUIRE(s->v_dim >= 8 && s->v_dim % 8 == 0, err, RT_ERR_INVALID,
               "%s: v_dim = %u is not a multiple of 8 from 8 to %u", op, s->v_dim,
               RT_PREFILL_MOST_DIM);
    return rt_op_resolve(RT_OP_PREFILL_ATTEND, &request, out, err);
}

static enum rt_status check_args(const struct rt_mla_prefill_args *args, struct rt_error *err)
{
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_REQUIRE(isfinite(args->softmax_scale) && args->softmax_scale > 0, err, RT_ERR_INVALID,
               "%s: softmax_scale %g is not a positive number; it is (nope_dim + rope_dim)^-0.5, "
               "times the model's YaRN factor",
               op, (double)args->softmax_scale);
    RT_REQUIRE(args->lse_base == RT_LSE_NATURAL || args->lse_base == RT_LSE_BASE2, err,
               RT_ERR_INVALID, "%s: lse_base %d is not RT_LSE_NATURAL, %d, or RT_LSE_BASE2, %d", op,
               (int)args->lse_base, RT_LSE_NATURAL, RT_LSE_BASE2);
    const struct rt_named_pointer pointers[] = {
        {"q_first", args->q_first, RT_ALIGN_INT32},
        {"k_first", args->k_first ? args->k_first : args->q_first, RT_ALIGN_INT32},
        {"q", args->q, RT_ALIGN_VECTOR},
        {"q_rope", args->q_rope ? args->q_rope : args->q, RT_ALIGN_VECTOR},
        {"k", args->k, RT_ALIGN_VECTOR},
        {"k_rope", args->k_rope ? args->k_rope : args->k, RT_ALIGN_VECTOR},
        {"v", args->v, RT_ALIGN_VECTOR},
        {"out", args->out, RT_ALIGN_VECTOR},
        {"lse", args->lse, RT_ALIGN_FLOAT32},
        {"turn", args->turn, sizeof(uint32_t)},
        {"sink", args->sink ? args->sink : args->lse, RT_ALIGN_FLOAT32}};
    return RT_CHECK_POINTERS(op, pointers, err);
}

/* What is given of one tensor with heads. */
struct given {
    const char *name;
    uint64_t address;
    int64_t token_stride, head_stride;
};

/* Strides of 0 become those of packed vectors of `width`. */
static enum rt_status view(const struct given *g, uint32_t heads, uint32_t width, int64_t multiple,
                           struct rt_prefill_view *out, struct rt_error *err)
{
    char token[48], head[48];
    (void)snprintf(token, sizeof(token), "%s_token_stride", g->name);
    (void)snprintf(head, sizeof(head), "%s_head_stride", g->name);
    out->base = rt_ops_pointer(g->address);
    RT_TRY(rt_ops_stride(op, token, g->token_stride, (int64_t)heads * width, multiple,
                         &out->token_stride, err));
    return rt_ops_stride(op, head, g->head_stride, width, multiple, &out->head_stride, err);
}

static struct rt_prefill_view further(struct rt_prefill_view view, uint32_t elements)
{
    view.base = (uint16_t *)view.base + elements;
    return view;
}

/* The parts that are turned: of tensors of their own, or behind the others. */
static enum rt_status rope_views(const struct rt_mla_prefill_args *args,
                                 struct rt_prefill_attend_params *p, struct rt_error *err)
{
    const struct rt_prefill_shape *s = &args->shape;
    const struct given q_rope = {"q_rope", args->q_rope, args->q_rope_token_stride,
                                 args->q_rope_head_stride};
    RT_REQUIRE(s->rope_dim > 0 || (!args->q_rope && !args->k_rope), err, RT_ERR_INVALID,
               "%s: rope_dim is 0, but q_rope is %p and k_rope %p", op,
               rt_ops_pointer(args->q_rope), rt_ops_pointer(args->k_rope));
    RT_REQUIRE(args->q_rope || (!args->q_rope_token_stride && !args->q_rope_head_stride), err,
               RT_ERR_INVALID, "%s: q_rope is null, its strides are %lld and %lld", op,
               (long long)args->q_rope_token_stride, (long long)args->q_rope_head_stride);
    RT_REQUIRE(args->k_rope || !args->k_rope_token_stride, err, RT_ERR_INVALID,
               "%s: k_rope is null, its stride is %lld", op, (long long)args->k_rope_token_stride);
    p->q_rope = further(p->q, s->nope_dim);
    p->k_rope = further(p->k, s->nope_dim);
    if (args->q_rope)
        RT_TRY(view(&q_rope, s->heads, s->rope_dim, 8, &p->q_rope, err));
    if (!args->k_rope)
        return RT_OK;
    p->k_rope = (struct rt_prefill_view){.base = rt_ops_pointer(args->k_rope)};
    return RT_STRIDE(op, args, k_rope_token_stride, s->rope_dim, 8, &p->k_rope.token_stride, err);
}

/* `count` tokens, each of `heads` vectors of `bytes`; of numbers as large as `number`. */
static struct rt_strided strided(const char *const names[3], const struct rt_prefill_view *view,
                                 uint32_t count, uint32_t heads, uint64_t number, uint64_t bytes)
{
    return (struct rt_strided){
        .name = names[0],
        .address = (uintptr_t)view->base,
        .bytes = bytes,
        .count = {count, heads},
        .stride = {(uint64_t)view->token_stride * number, (uint64_t)view->head_stride * number},
        .stride_name = {names[1], names[2]}};
}

/* What is written lies apart, in itself and from all that is read. */
static enum rt_status check_memory(const struct rt_mla_prefill_args *args,
                                   const struct rt_prefill_attend_params *p, struct rt_error *err)
{
    static const char *const out[3] = {"out", "out_token_stride", "out_head_stride"};
    static const char *const lse[3] = {"lse", "lse_token_stride", "lse_head_stride"};
    static const char *const q[3] = {"q"}, *const q_rope[3] = {"q_rope"};
    static const char *const k[3] = {"k"}, *const k_rope[3] = {"k_rope"}, *const v[3] = {"v"};
    const uint64_t nope = 2 * p->nope_dim, rope = 2 * p->rope_dim, value = 2 * p->v_dim;
    const uint64_t offsets = (p->rows + UINT64_C(1)) * sizeof(int32_t);
    struct rt_operands o = {.count = 0};
    rt_operands_writes(&o, strided(out, &p->out, p->tokens, p->heads, 2, value));
    rt_operands_writes(&o, strided(lse, &p->lse, p->tokens, p->heads, 4, 4));
    rt_operands_writes(&o, rt_strided_flat("turn", args->turn, sizeof(uint32_t)));
    rt_operands_reads(&o,
                      strided(q, &p->q, p->tokens, p->heads, 2, nope + (args->q_rope ? 0 : rope)));
    rt_operands_reads(&o,
                      strided(k, &p->k, p->keys, p->heads, 2, nope + (args->k_rope ? 0 : rope)));
    rt_operands_reads(&o, strided(v, &p->v, p->keys, p->heads, 2, value));
    rt_operands_reads(&o, rt_strided_flat("q_first", args->q_first, offsets));
    rt_operands_reads(&o, rt_strided_flat("k_first", args->k_first, offsets));
    rt_operands_reads(&o, rt_strided_flat("sink", args->sink, p->heads * sizeof(float)));
    if (args->q_rope)
        rt_operands_reads(&o, strided(q_rope, &p->q_rope, p->tokens, p->heads, 2, rope));
    if (args->k_rope)
        rt_operands_reads(&o, strided(k_rope, &p->k_rope, p->keys, 1, 2, rope));
    return rt_operands_check_written(op, &o, err);
}

static enum rt_status make_params(const struct rt_mla_prefill_args *args,
                                  struct rt_prefill_attend_params *p, struct rt_error *err)
{
    const struct rt_prefill_shape *s = &args->shape;
    const uint32_t d_q = s->nope_dim + (args->q_rope ? 0 : s->rope_dim);
    const uint32_t d_k = s->nope_dim + (args->k_rope ? 0 : s->rope_dim);
    const struct given q = {"q", args->q, args->q_token_stride, args->q_head_stride};
    const struct given k = {"k", args->k, args->k_token_stride, args->k_head_stride};
    const struct given v = {"v", args->v, args->v_token_stride, args->v_head_stride};
    const struct given out = {"out", args->out, args->out_token_stride, args->out_head_stride};
    const struct given lse = {"lse", args->lse, args->lse_token_stride, args->lse_head_stride};
    RT_TRY(check_args(args, err));
    *p = (struct rt_prefill_attend_params){
        .q_first = rt_ops_pointer(args->q_first),
        .k_first = rt_ops_pointer(args->k_first ? args->k_first : args->q_first),
        .turn = rt_ops_pointer(args->turn),
        .sink = rt_ops_pointer(args->sink),
        .scale = args->softmax_scale,
        .rows = s->rows,
        .tokens = s->tokens,
        .keys = s->keys,
        .heads = s->heads,
        .nope_dim = s->nope_dim,
        .rope_dim = s->rope_dim,
        .v_dim = s->v_dim,
        .causal = s->causal,
        .lse_base2 = args->lse_base == RT_LSE_BASE2,
    };
    RT_TRY(view(&q, s->heads, d_q, 8, &p->q, err));
    RT_TRY(view(&k, s->heads, d_k, 8, &p->k, err));
    RT_TRY(view(&v, s->heads, s->v_dim, 8, &p->v, err));
    RT_TRY(view(&out, s->heads, s->v_dim, 8, &p->out, err));
    RT_TRY(view(&lse, s->heads, 1, 1, &p->lse, err));
    return rope_views(args, p, err);
}

/* Tensor maps are made where the context is: the launch is built inside of it. That checks the
 * shape, without which nobody knows where tensors end. */
static enum rt_status attend(struct rt_ops *ops, const struct rt_variant *variant,
                             const struct rt_mla_prefill_args *args,
                             const struct rt_prefill_attend_params *p, void *stream)
{
    struct rt_work work;
    RT_TRY(rt_op_build(&ops->kernels, variant, p, sizeof(*p), &work, &ops->error));
    RT_TRY(check_memory(args, p, &ops->error));
    return rt_ops_put(ops, &work, stream);
}

enum rt_status rt_mla_prefill(rt_ops *ops, const struct rt_mla_prefill_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "%s: ops is null", op);
    struct rt_error *err = &ops->error;
    struct rt_driver *d = &ops->driver;
    struct rt_mla_prefill_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_variant variant;
    struct rt_prefill_attend_params p;
    RT_TRY(choose(&d->caps, &args->shape, &variant, err));
    RT_TRY(make_params(args, &p, err));
    RT_TRY(RT_DRV(d, err, ctx_enter, (d)));
    enum rt_status status = attend(ops, &variant, args, &p, stream);
    (void)d->ctx_leave(d);
    return status;
}

enum rt_status rt_mla_prefill_get_info(rt_ops *ops, const struct rt_prefill_shape *shape,
                                       struct rt_prefill_info *out)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_mla_prefill_get_info: ops is null");
    RT_REQUIRE(shape, &ops->error, RT_ERR_INVALID, "rt_mla_prefill_get_info: shape is null");
    RT_CHECK_STRUCT(out, &ops->error);
    struct rt_variant variant;
    RT_TRY(choose(&ops->driver.caps, shape, &variant, &ops->error));
    struct rt_prefill_info mine = {.kernel = variant.entry};
    (void)snprintf(mine.reason, sizeof(mine.reason), "%.159s", variant.reason);
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}
