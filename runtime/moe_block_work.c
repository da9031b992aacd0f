/* SPDX-License-Identifier: Apache-2.0 */
/* An MLP as one launch. */
#include "kernels/abi/moe_block.h"
#include "runtime/block_work.h"
#include "runtime/model_memory.h"
#include "runtime/ops_check.h"

/* What is said twice is the same. */
static enum rt_status check_shape(const char *op, const struct rt_moe_block_args *args,
                                  struct rt_error *err)
{
    const struct rt_experts_shape *s = &args->shape;
    RT_REQUIRE(args->norm.tokens == s->tokens, err, RT_ERR_INVALID,
               "%s: norm.tokens %u, but shape.tokens %u", op, args->norm.tokens, s->tokens);
    RT_REQUIRE(args->norm.norm.width == s->hidden, err, RT_ERR_INVALID,
               "%s: norm.norm.width %u, but shape.hidden %u", op, args->norm.norm.width, s->hidden);
    RT_REQUIRE(args->norm.precision == s->precision, err, RT_ERR_INVALID,
               "%s: norm.precision %d, but shape.precision %d", op, (int)args->norm.precision,
               (int)s->precision);
    RT_REQUIRE(s->experts == 0 || args->route.experts == s->experts, err, RT_ERR_INVALID,
               "%s: route.experts %u, but shape.experts %u", op, args->route.experts, s->experts);
    RT_REQUIRE(s->experts == 0 || args->route.experts_per_token == s->experts_per_token, err,
               RT_ERR_INVALID, "%s: route.experts_per_token %u, but shape.experts_per_token %u", op,
               args->route.experts_per_token, s->experts_per_token);
    return RT_OK;
}

/* Groups are made where nobody sees them: any address is as good. */
static struct rt_routing routing_of(const struct rt_moe_block_args *args)
{
    struct rt_routing routing = args->route.routing;
    routing.offsets = routing.pairs = routing.active = routing.active_count = RT_ALIGN_VECTOR;
    return routing;
}

/* ---- parameters ------------------------------------------------------------------------------ */

static enum rt_status take_route(const char *op, const struct rt_moe_block_args *args,
                                 struct rt_gate_params *p, struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {{"router", args->router, RT_ALIGN_VECTOR}};
    struct rt_route_args route = args->route;
    route.routing = routing_of(args);
    if (args->shape.experts == 0)
        return rt_ops_token_rows(op, &args->route.rows, &p->route.rows, err);
    RT_TRY(rt_ops_route_params(op, &route, &p->route, err));
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    p->router = rt_ops_pointer(args->router);
    return RT_STRIDE(op, args, router_stride, args->shape.hidden, 8, &p->router_stride, err);
}

static enum rt_status take_products(const char *op, const struct rt_device_caps *caps,
                                    const struct rt_moe_block_args *args,
                                    struct rt_moe_block_params *p, struct rt_error *err)
{
    const struct rt_experts_up_args up_args = {.shape = args->shape,
                                               .routing = routing_of(args),
                                               .x = args->norm.normed,
                                               .h = args->h,
                                               .h_token_stride = args->h_token_stride,
                                               .h_place_stride = args->h_place_stride,
                                               .gate = {args->gate[0], args->gate[1]},
                                               .up = {args->up[0], args->up[1]}};
    const struct rt_experts_down_args down_args = {.shape = args->shape,
                                                   .rows = args->route.rows,
                                                   .routing = routing_of(args),
                                                   .h = args->h,
                                                   .h_token_stride = args->h_token_stride,
                                                   .h_place_stride = args->h_place_stride,
                                                   .out = args->out,
                                                   .out_stride = args->out_stride,
                                                   .down = {args->down[0], args->down[1]}};
    struct rt_experts_up_params up;
    struct rt_experts_down_params down;
    RT_TRY(rt_ops_experts_up_params(op, caps, &up_args, &up, err));
    RT_TRY(rt_ops_experts_down_params(op, caps, &down_args, &down, err));
    for (int i = 0; i < 2; i++) {
        p->expert[i] = up.gate[i];
        p->expert_up[i] = up.up[i];
        p->expert_down[i] = down.down[i];
    }
    p->h = up.h;
    p->out = down.out;
    p->out_stride = down.out_stride;
    return RT_OK;
}

static enum rt_status take_all(const char *op, const struct rt_device_caps *caps,
                               const struct rt_moe_block_args *args, struct rt_moe_block_params *p,
                               struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {{"exchange", args->exchange, RT_ALIGN_VECTOR}};
    *p = (struct rt_moe_block_params){.exchange = rt_ops_pointer(args->exchange),
                                      .shared = args->shape.shared,
                                      .width = args->shape.width};
    RT_TRY(rt_ops_check_inner_sizes(op, &args->norm, &args->route, err));
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_TRY(check_shape(op, args, err));
    RT_TRY(take_products(op, caps, args, p, err)); /* which looks at the shape */
    RT_TRY(rt_ops_input_norm_params(op, caps, &args->norm, &p->gate.norm, err));
    RT_TRY(take_route(op, args, &p->gate, err));
    return RT_CHECK_POINTERS(op, pointers, err);
}

static enum rt_status resolve(const char *op, const struct rt_device_caps *caps,
                              enum rt_backend backend, const struct rt_moe_block_params *p,
                              struct rt_variant *out, struct rt_error *err)
{
    const struct rt_op_request request = {.caps = caps, .backend = backend, .moe_block = p};
    return rt_ops_named(op, rt_op_resolve(RT_OP_MOE_BLOCK, &request, out, err), err);
}

enum rt_status rt_ops_moe_block_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                     const struct rt_moe_block_args *args, struct rt_work *out,
                                     struct rt_error *err)
{
    static const char op[] = "rt_moe_block";
    struct rt_moe_block_params p;
    struct rt_variant variant;
    RT_TRY(take_all(op, caps, args, &p, err));
    RT_TRY(rt_ops_moe_block_memory(args, &p, err));
    RT_TRY(resolve(op, caps, args->shape.backend, &p, &variant, err));
    return rt_ops_named(op, rt_op_build(k, &variant, &p, sizeof(p), out, err), err);
}

/* ---- what serves a shape --------------------------------------------------------------------- */

/* Everything packed, at an address that stands for any. */
static struct rt_moe_block_args any_args(const struct rt_experts_shape *shape)
{
    static const struct rt_expert_weights weights = {.address = RT_ALIGN_VECTOR};
    const uint64_t any = RT_ALIGN_VECTOR;
    const struct rt_token_rows rows = {.rows = shape->tokens, .query_len = 1};
    return (struct rt_moe_block_args){.shape = *shape,
                                      .norm = {.struct_size = sizeof(struct rt_mla_input_norm_args),
                                               .tokens = shape->tokens,
                                               .hidden = any,
                                               .residual = any,
                                               .normed = any,
                                               .norm = {.weight = any, .width = shape->hidden},
                                               .precision = shape->precision},
                                      .route = {.struct_size = sizeof(struct rt_route_args),
                                                .experts = shape->experts,
                                                .experts_per_token = shape->experts_per_token,
                                                .rows = rows,
                                                .logits = any,
                                                .routing = {.choices = any, .weights = any}},
                                      .router = any,
                                      .h = any,
                                      .out = any,
                                      .gate = {weights, weights},
                                      .up = {weights, weights},
                                      .down = {weights, weights},
                                      .exchange = any};
}

enum rt_status rt_ops_choose_moe_block(const struct rt_kernels *k,
                                       const struct rt_device_caps *caps,
                                       const struct rt_experts_shape *shape, struct rt_variant *out,
                                       struct rt_error *err)
{
    static const char op[] = "rt_moe_block_get_info";
    const struct rt_moe_block_args args = any_args(shape);
    struct rt_moe_block_params p;
    struct rt_work work; /* never launched: whether it can be is what is asked */
    RT_TRY(take_all(op, caps, &args, &p, err));
    RT_TRY(resolve(op, caps, shape->backend, &p, out, err));
    return rt_ops_named(op, rt_op_build(k, out, &p, sizeof(p), &work, err), err);
}
