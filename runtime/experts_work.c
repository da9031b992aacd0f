/* SPDX-License-Identifier: Apache-2.0 */
/* The two launches of experts, and of a dense MLP. */
#include "runtime/model_work.h"

#include "kernels/abi/experts_many.h"
#include "runtime/model_memory.h"
#include "runtime/ops_check.h"

#include <inttypes.h>
#include <stdio.h>

static enum rt_status check_counts(const char *op, const struct rt_experts_shape *s,
                                   struct rt_error *err)
{
    const uint32_t most = RT_MAX_BATCH * RT_MAX_QUERY_LEN;
    RT_TRY(rt_ops_check_count(op, "shape.tokens", s->tokens, 1, most, err));
    RT_TRY(rt_ops_check_count(op, "shape.hidden", s->hidden, 1, INT32_MAX, err));
    RT_TRY(rt_ops_check_count(op, "shape.width", s->width, 1, INT32_MAX, err));
    RT_TRY(rt_ops_check_count(op, "shape.experts", s->experts, 0, RT_ROUTE_MOST_EXPERTS, err));
    RT_TRY(rt_ops_check_count(op, "shape.shared", s->shared, s->experts > 0 ? 0 : 1,
                              RT_ROUTE_MOST_EXPERTS, err));
    RT_TRY(rt_ops_check_count(op, "shape.experts_per_token", s->experts_per_token,
                              s->experts > 0 ? 1 : 0, rt_min_u32(s->experts, RT_ROUTE_MOST_CHOSEN),
                              err));
    RT_REQUIRE(s->backend == RT_BACKEND_AUTO || s->backend == RT_BACKEND_GENERIC ||
                   s->backend == RT_BACKEND_SM90,
               err, RT_ERR_INVALID, "%s: shape.backend %d is none of enum rt_backend", op,
               (int)s->backend);
    return RT_OK;
}

static enum rt_status check_shape(const char *op, const struct rt_experts_shape *s,
                                  const struct rt_device_caps *caps, uint32_t *is_f32,
                                  struct rt_error *err)
{
    RT_TRY(check_counts(op, s, err));
    return rt_ops_precision(op, s->precision, caps, is_f32, err);
}

/* ---- views ----------------------------------------------------------------------------------- */

static enum rt_status take_work(const char *op, const struct rt_experts_shape *s,
                                const struct rt_routing *routing, struct rt_experts_view *out,
                                struct rt_error *err)
{
    *out = (struct rt_experts_view){.tokens = s->tokens,
                                    .experts = s->experts,
                                    .chosen = s->experts_per_token,
                                    .shared = s->shared};
    return s->experts > 0 ? rt_ops_routing(op, routing, &out->groups, err) : RT_OK;
}

/* `count` steps of `each`: what a stride of 0 stands for. */
static enum rt_status packed(const char *op, const char *name, uint64_t count, int64_t each,
                             int64_t *out, struct rt_error *err)
{
    RT_REQUIRE(count < (uint64_t)(RT_STRIDE_END / each), err, RT_ERR_INVALID,
               "%s: %s, packed, of %" PRIu64 " times %" PRId64 " is not below 2^39 elements", op,
               name, count, each);
    *out = (int64_t)count * each;
    return RT_OK;
}

/* [count, rows, columns] of experts or of shared ones; what there is none of is not looked at. */
static enum rt_status take_weight(const char *op, const char *name, int which, uint32_t count,
                                  const struct rt_expert_weights *w, uint32_t rows,
                                  uint32_t columns, struct rt_expert_weight_view *out,
                                  struct rt_error *err)
{
    char address[32], row[32], expert[32];
    int64_t each = 0;
    if (count == 0)
        return RT_OK;
    (void)snprintf(address, sizeof(address), "%s[%d].address", name, which);
    (void)snprintf(row, sizeof(row), "%s[%d].row_stride", name, which);
    (void)snprintf(expert, sizeof(expert), "%s[%d].expert_stride", name, which);
    const struct rt_named_pointer pointers[] = {{address, w->address, RT_ALIGN_VECTOR}};
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    out->base = rt_ops_pointer(w->address);
    RT_TRY(rt_ops_stride(op, row, w->row_stride, columns, 8, &out->row_stride, err));
    if (w->expert_stride == 0 && count > 1)
        RT_TRY(packed(op, expert, rows, out->row_stride, &each, err));
    return rt_ops_stride(op, expert, w->expert_stride, each, 8, &out->expert_stride, err);
}

/* h, of which up writes places and down reads them. */
static enum rt_status take_pairs(const char *op, const struct rt_experts_shape *s, uint64_t address,
                                 int64_t token_stride, int64_t place_stride,
                                 struct rt_pairs_view *out, struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {{"h", address, RT_ALIGN_VECTOR}};
    const uint32_t places = s->experts_per_token + s->shared;
    int64_t each = 0;
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    out->base = rt_ops_pointer(address);
    RT_TRY(rt_ops_stride(op, "h_place_stride", place_stride, s->width, 8, &out->place_stride, err));
    if (token_stride == 0 && s->tokens > 1)
        RT_TRY(packed(op, "h_token_stride", places, out->place_stride, &each, err));
    return rt_ops_stride(op, "h_token_stride", token_stride, each, 8, &out->token_stride, err);
}

/* ---- up and down ----------------------------------------------------------------------------- */

enum rt_status rt_ops_experts_up_params(const char *op, const struct rt_device_caps *caps,
                                        const struct rt_experts_up_args *args,
                                        struct rt_experts_up_params *p, struct rt_error *err)
{
    const struct rt_experts_shape *s = &args->shape;
    const uint32_t counts[] = {s->experts, s->shared};
    const struct rt_named_pointer pointers[] = {{"x", args->x, RT_ALIGN_VECTOR}};
    *p = (struct rt_experts_up_params){
        .x = rt_ops_pointer(args->x), .hidden = s->hidden, .width = s->width};
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_TRY(check_shape(op, s, caps, &p->is_f32, err));
    RT_TRY(take_work(op, s, &args->routing, &p->work, err));
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    RT_TRY(RT_STRIDE(op, args, x_stride, s->hidden, 8, &p->x_stride, err));
    RT_TRY(take_pairs(op, s, args->h, args->h_token_stride, args->h_place_stride, &p->h, err));
    for (int i = 0; i < 2; i++) {
        RT_TRY(take_weight(op, "gate", i, counts[i], &args->gate[i], s->width, s->hidden,
                           &p->gate[i], err));
        RT_TRY(
            take_weight(op, "up", i, counts[i], &args->up[i], s->width, s->hidden, &p->up[i], err));
    }
    return RT_OK;
}

enum rt_status rt_ops_experts_down_params(const char *op, const struct rt_device_caps *caps,
                                          const struct rt_experts_down_args *args,
                                          struct rt_experts_down_params *p, struct rt_error *err)
{
    const struct rt_experts_shape *s = &args->shape;
    const uint32_t counts[] = {s->experts, s->shared};
    const struct rt_named_pointer pointers[] = {{"out", args->out, RT_ALIGN_VECTOR}};
    *p = (struct rt_experts_down_params){.out = rt_ops_pointer(args->out),
                                         .hidden = s->hidden,
                                         .width = s->width,
                                         .early = args->behind_up};
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved_too, err));
    RT_TRY(check_shape(op, s, caps, &p->is_f32, err));
    RT_TRY(take_work(op, s, &args->routing, &p->work, err));
    RT_TRY(rt_ops_token_rows(op, &args->rows, &p->rows, err));
    RT_REQUIRE(p->rows.count * p->rows.q_len == s->tokens, err, RT_ERR_INVALID,
               "%s: shape.tokens %u is not rows.rows %u times rows.query_len %u", op, s->tokens,
               p->rows.count, p->rows.q_len);
    RT_TRY(rt_ops_check_count(op, "behind_up", args->behind_up, 0, 1, err));
    if (s->experts > 0) {
        p->choices = rt_ops_pointer(args->routing.choices);
        p->weights = rt_ops_pointer(args->routing.weights);
    }
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    RT_TRY(take_pairs(op, s, args->h, args->h_token_stride, args->h_place_stride, &p->h, err));
    RT_TRY(RT_STRIDE(op, args, out_stride, s->hidden, 8, &p->out_stride, err));
    for (int i = 0; i < 2; i++)
        RT_TRY(take_weight(op, "down", i, counts[i], &args->down[i], s->hidden, s->width,
                           &p->down[i], err));
    return RT_OK;
}

static enum rt_status resolve_up(const struct rt_device_caps *caps, enum rt_backend backend,
                                 const struct rt_experts_up_params *p, struct rt_variant *out,
                                 struct rt_error *err)
{
    const struct rt_op_request request = {.caps = caps, .backend = backend, .experts_up = p};
    return rt_op_resolve(RT_OP_EXPERTS_UP, &request, out, err);
}

static enum rt_status resolve_down(const struct rt_device_caps *caps, enum rt_backend backend,
                                   const struct rt_experts_down_params *p, struct rt_variant *out,
                                   struct rt_error *err)
{
    const struct rt_op_request request = {.caps = caps, .backend = backend, .experts_down = p};
    return rt_op_resolve(RT_OP_EXPERTS_DOWN, &request, out, err);
}

enum rt_status rt_ops_experts_up_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                      const struct rt_experts_up_args *args, struct rt_work *out,
                                      struct rt_error *err)
{
    struct rt_experts_up_params p;
    struct rt_variant variant;
    RT_TRY(rt_ops_experts_up_params("rt_experts_up", caps, args, &p, err));
    RT_TRY(rt_ops_experts_up_memory(args, &p, err));
    RT_TRY(resolve_up(caps, args->shape.backend, &p, &variant, err));
    return rt_op_build(k, &variant, &p, sizeof(p), out, err);
}

/* ---- down by way of scratch ------------------------------------------------------------------ */

/* Whether any device would: which one does, its resolver says. */
static bool may_take_scratch(const struct rt_experts_shape *s)
{
    return s->tokens >= RT_EXPERTS_MANY_LEAST_TOKENS && s->backend != RT_BACKEND_SM90 &&
           s->precision == RT_PRECISION_BF16;
}

/* Of a shape that was checked: below 2^54. */
static uint64_t scratch_bytes(const struct rt_experts_shape *s)
{
    const struct rt_experts_view work = {.chosen = s->experts_per_token, .shared = s->shared};
    const uint64_t lines = (uint64_t)s->tokens * rt_experts_products(&work);
    return may_take_scratch(s) ? lines * s->hidden * sizeof(float) : 0;
}

enum rt_status rt_ops_experts_scratch_bytes(const struct rt_experts_shape *shape, uint64_t *bytes,
                                            struct rt_error *err)
{
    static const char op[] = "rt_experts_down_scratch";
    RT_TRY(check_counts(op, shape, err));
    RT_TRY(rt_ops_check_precision(op, shape->precision, err));
    *bytes = scratch_bytes(shape);
    return RT_OK;
}

static enum rt_status resolve_with_scratch(const struct rt_device_caps *caps,
                                           enum rt_backend backend, enum rt_op_id op,
                                           const struct rt_experts_down_params *p,
                                           struct rt_variant *out)
{
    const struct rt_op_request request = {.caps = caps, .backend = backend, .experts_down = p};
    return rt_op_resolve(op, &request, out, NULL);
}

/* What there is no room between the launches for, and what one launch serves better, has one. */
static enum rt_status build_down(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                 const struct rt_experts_down_args *args,
                                 const struct rt_experts_down_params *p,
                                 struct rt_experts_down_work *out, struct rt_error *err)
{
    static const enum rt_op_id ops[] = {RT_OP_EXPERTS_DOWN_PAIRS, RT_OP_EXPERTS_DOWN_SUM};
    const struct rt_experts_down_pairs_params pairs = {.down = *p,
                                                       .products = rt_ops_pointer(args->scratch)};
    struct rt_variant variants[2];
    bool takes = args->scratch != 0;
    for (int i = 0; i < 2 && takes; i++)
        takes = resolve_with_scratch(caps, args->shape.backend, ops[i], p, &variants[i]) == RT_OK;
    out->count = takes ? 2 : 1;
    if (!takes) {
        RT_TRY(resolve_down(caps, args->shape.backend, p, &variants[0], err));
        return rt_op_build(k, &variants[0], p, sizeof(*p), &out->all[0], err);
    }
    for (int i = 0; i < 2; i++)
        RT_TRY(rt_op_build(k, &variants[i], &pairs, sizeof(pairs), &out->all[i], err));
    return RT_OK;
}

enum rt_status rt_ops_experts_down_work(const struct rt_kernels *k,
                                        const struct rt_device_caps *caps,
                                        const struct rt_experts_down_args *args,
                                        struct rt_experts_down_work *out, struct rt_error *err)
{
    static const char op[] = "rt_experts_down";
    const struct rt_named_pointer scratch[] = {{"scratch", args->scratch, RT_ALIGN_VECTOR}};
    struct rt_experts_down_params p;
    RT_TRY(rt_ops_experts_down_params(op, caps, args, &p, err));
    RT_TRY(rt_ops_check_optional(op, scratch, 1, err));
    RT_TRY(rt_ops_experts_down_memory(args, &p, scratch_bytes(&args->shape), err));
    return build_down(k, caps, args, &p, out, err);
}

/* ---- what serves a shape --------------------------------------------------------------------- */

/* Everything packed, at addresses that stand for any: those that are taken are aligned no worse. */
#define ANY RT_ALIGN_VECTOR
static const struct rt_routing any_routing = {ANY, ANY, ANY, ANY, ANY, ANY};
static const struct rt_expert_weights any_weights = {.address = ANY};

enum rt_status rt_ops_choose_experts(const struct rt_device_caps *caps,
                                     const struct rt_experts_shape *shape,
                                     struct rt_experts_choice *out, struct rt_error *err)
{
    static const char op[] = "rt_experts_get_info";
    const struct rt_experts_up_args up_args = {.shape = *shape,
                                               .routing = any_routing,
                                               .x = ANY,
                                               .h = ANY,
                                               .gate = {any_weights, any_weights},
                                               .up = {any_weights, any_weights}};
    struct rt_experts_down_args down_args = {.shape = *shape,
                                             .rows = {.rows = shape->tokens, .query_len = 1},
                                             .routing = any_routing,
                                             .h = ANY,
                                             .out = ANY,
                                             .down = {any_weights, any_weights}};
    struct rt_experts_up_params up;
    struct rt_experts_down_params down;
    RT_TRY(rt_ops_experts_up_params(op, caps, &up_args, &up, err));
    RT_TRY(rt_ops_experts_down_params(op, caps, &down_args, &down, err));
    RT_TRY(resolve_up(caps, shape->backend, &up, &out->up, err));
    out->takes_scratch = resolve_with_scratch(caps, shape->backend, RT_OP_EXPERTS_DOWN_PAIRS, &down,
                                              &out->down_pairs) == RT_OK;
    return resolve_down(caps, shape->backend, &down, &out->down, err);
}
