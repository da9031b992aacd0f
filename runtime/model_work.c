/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/model_work.h"

#include "runtime/model_memory.h"
#include "runtime/ops_check.h"

#include <inttypes.h>
#include <math.h>

/* ---- what several of them have --------------------------------------------------------------- */

enum rt_status rt_ops_check_count(const char *op, const char *name, uint64_t value, uint64_t least,
                                  uint64_t most, struct rt_error *err)
{
    RT_REQUIRE(value >= least && value <= most, err, RT_ERR_INVALID,
               "%s: %s %" PRIu64 " is not %" PRIu64 "..%" PRIu64, op, name, value, least, most);
    return RT_OK;
}

enum rt_status rt_ops_factor(const char *op, const char *name, float given, float *out,
                             struct rt_error *err)
{
    RT_REQUIRE(isfinite(given), err, RT_ERR_INVALID, "%s: %s %g is not a finite number", op, name,
               (double)given);
    *out = given == 0.0f ? 1.0f : given;
    return RT_OK;
}

enum rt_status rt_ops_check_precision(const char *op, enum rt_precision precision,
                                      struct rt_error *err)
{
    RT_REQUIRE(precision == RT_PRECISION_BF16 || precision == RT_PRECISION_F32, err, RT_ERR_INVALID,
               "%s: precision %d is not RT_PRECISION_BF16, %d, or RT_PRECISION_F32, %d", op,
               (int)precision, RT_PRECISION_BF16, RT_PRECISION_F32);
    return RT_OK;
}

enum rt_status rt_ops_precision(const char *op, enum rt_precision precision,
                                const struct rt_device_caps *caps, uint32_t *is_f32,
                                struct rt_error *err)
{
    RT_TRY(rt_ops_check_precision(op, precision, err));
    RT_REQUIRE(precision == RT_PRECISION_BF16 || caps->kind == RT_DEVICE_KIND_HOST, err,
               RT_ERR_UNSUPPORTED,
               "%s: precision RT_PRECISION_F32 is served on the host device alone, not on %s", op,
               caps->name);
    *is_f32 = precision == RT_PRECISION_F32;
    return RT_OK;
}

enum rt_status rt_ops_check_optional(const char *op, const struct rt_named_pointer *pointers,
                                     uint32_t count, struct rt_error *err)
{
    for (uint32_t i = 0; i < count; i++)
        if (pointers[i].address)
            RT_TRY(rt_ops_check_pointers(op, &pointers[i], 1, err));
    return RT_OK;
}

/* Of a row that is moved 16 bytes at a time. */
static enum rt_status check_width(const char *op, uint32_t width, struct rt_error *err)
{
    RT_REQUIRE(width >= 8 && width <= INT32_MAX && width % 8 == 0, err, RT_ERR_INVALID,
               "%s: width %u is not a multiple of 8 from 8 to %d", op, width, INT32_MAX);
    return RT_OK;
}

enum rt_status rt_ops_token_rows(const char *op, const struct rt_token_rows *rows,
                                 struct rt_rows_view *out, struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {{"rows.lengths", rows->lengths, RT_ALIGN_INT32},
                                                {"rows.slots", rows->slots, RT_ALIGN_INT32},
                                                {"rows.positions", rows->positions, RT_ALIGN_INT32},
                                                {"rows.row_base", rows->row_base, RT_ALIGN_INT32}};
    RT_TRY(rt_ops_check_count(op, "rows.query_len", rows->query_len, 1, RT_MAX_QUERY_LEN, err));
    RT_TRY(
        rt_ops_check_count(op, "rows.rows", rows->rows, 1, RT_MAX_TOKENS / rows->query_len, err));
    RT_TRY(rt_ops_check_optional(op, pointers, 4, err));
    *out = (struct rt_rows_view){.count = rows->rows,
                                 .q_len = rows->query_len,
                                 .length = rt_ops_pointer(rows->lengths),
                                 .slot = rt_ops_pointer(rows->slots),
                                 .position = rt_ops_pointer(rows->positions)};
    /* Kernels know it as a field of the step's control block, of which they read nothing else. */
    if (rows->row_base)
        out->ctrl = rt_ops_pointer(rows->row_base - offsetof(struct rt_ctrl, row_base));
    return RT_OK;
}

/* ---- embed ----------------------------------------------------------------------------------- */

enum rt_status rt_ops_embed_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                 const struct rt_embed_args *args, struct rt_work *out,
                                 struct rt_error *err)
{
    static const char op[] = "rt_embed";
    const struct rt_op_request request = {.caps = caps};
    struct rt_variant variant;
    const struct rt_named_pointer pointers[] = {{"table", args->table, RT_ALIGN_VECTOR},
                                                {"tokens", args->tokens, RT_ALIGN_INT32},
                                                {"hidden", args->hidden, RT_ALIGN_VECTOR}};
    struct rt_embed_params p = {.table = rt_ops_pointer(args->table),
                                .tokens = rt_ops_pointer(args->tokens),
                                .hidden = rt_ops_pointer(args->hidden),
                                .vocab = args->vocab,
                                .width = args->width};
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_TRY(rt_ops_token_rows(op, &args->rows, &p.rows, err));
    RT_TRY(rt_ops_check_count(op, "vocab", args->vocab, 1, INT32_MAX, err));
    RT_TRY(check_width(op, args->width, err));
    RT_TRY(rt_ops_precision(op, args->precision, caps, &p.is_f32, err));
    RT_TRY(rt_ops_factor(op, "scale", args->scale, &p.scale, err));
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    RT_TRY(RT_STRIDE(op, args, table_stride, args->width, 8, &p.table_stride, err));
    RT_TRY(RT_STRIDE(op, args, hidden_stride, args->width, 8, &p.hidden_stride, err));
    RT_TRY(rt_ops_embed_memory(args, &p, err));
    RT_TRY(rt_op_resolve(RT_OP_EMBED, &request, &variant, err));
    return rt_op_build(k, &variant, &p, sizeof(p), out, err);
}

/* ---- take ------------------------------------------------------------------------------------ */

RT_STATIC_ASSERT(RT_TAKE_MAX_ROWS == RT_TAKE_MOST_ROWS, "rows as the kernel has them");

enum rt_status rt_ops_take_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                const struct rt_take_rows_args *args, struct rt_work *out,
                                struct rt_error *err)
{
    static const char op[] = "rt_take_rows";
    const struct rt_op_request request = {.caps = caps};
    struct rt_variant variant;
    const struct rt_named_pointer pointers[] = {{"x", args->x, RT_ALIGN_VECTOR},
                                                {"index", args->index, RT_ALIGN_INT32},
                                                {"out", args->out, RT_ALIGN_VECTOR}};
    struct rt_take_params p = {.x = rt_ops_pointer(args->x),
                               .index = rt_ops_pointer(args->index),
                               .out = rt_ops_pointer(args->out),
                               .rows = args->rows,
                               .x_rows = args->x_rows,
                               .width = args->width};
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_TRY(rt_ops_check_count(op, "rows", args->rows, 1, RT_TAKE_MOST_ROWS, err));
    RT_TRY(rt_ops_check_count(op, "x_rows", args->x_rows, 1, INT32_MAX, err));
    RT_TRY(check_width(op, args->width, err));
    RT_TRY(rt_ops_precision(op, args->precision, caps, &p.is_f32, err));
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    RT_TRY(RT_STRIDE(op, args, x_stride, args->width, 8, &p.x_stride, err));
    RT_TRY(RT_STRIDE(op, args, out_stride, args->width, 8, &p.out_stride, err));
    RT_TRY(rt_ops_take_memory(args, &p, err));
    RT_TRY(rt_op_resolve(RT_OP_TAKE, &request, &variant, err));
    return rt_op_build(k, &variant, &p, sizeof(p), out, err);
}

/* ---- route ----------------------------------------------------------------------------------- */

enum rt_status rt_ops_routing(const char *op, const struct rt_routing *r,
                              struct rt_groups_view *out, struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {
        {"routing.choices", r->choices, RT_ALIGN_INT32},
        {"routing.weights", r->weights, RT_ALIGN_FLOAT32},
        {"routing.offsets", r->offsets, RT_ALIGN_INT32},
        {"routing.pairs", r->pairs, RT_ALIGN_INT32},
        {"routing.active", r->active, RT_ALIGN_VECTOR},
        {"routing.active_count", r->active_count, RT_ALIGN_INT32}};
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    *out = (struct rt_groups_view){.offsets = rt_ops_pointer(r->offsets),
                                   .pairs = rt_ops_pointer(r->pairs),
                                   .active = rt_ops_pointer(r->active),
                                   .active_count = rt_ops_pointer(r->active_count)};
    return RT_OK;
}

static enum rt_status check_groups(const char *route, const struct rt_route_args *args,
                                   struct rt_error *err)
{
    const uint32_t groups = args->groups > 1 ? args->groups : 1;
    RT_TRY(rt_ops_check_count(route, "groups", args->groups, 0, RT_ROUTE_MOST_GROUPS, err));
    RT_REQUIRE(args->experts % groups == 0, err, RT_ERR_INVALID,
               "%s: groups %u does not divide experts, %u", route, groups, args->experts);
    RT_TRY(rt_ops_check_count(route, "groups_per_token", args->groups_per_token,
                              args->groups > 0 ? 1 : 0, groups, err));
    const uint32_t left =
        groups > 1 ? args->experts / groups * args->groups_per_token : args->experts;
    RT_REQUIRE(args->experts_per_token <= left, err, RT_ERR_INVALID,
               "%s: experts_per_token %u, but %u of %u groups have %u experts", route,
               args->experts_per_token, args->groups_per_token, groups, left);
    return RT_OK;
}

static enum rt_status check_route(const char *route, const struct rt_route_args *args,
                                  struct rt_error *err)
{
    RT_TRY(rt_ops_check_count(route, "experts", args->experts, 1, RT_ROUTE_MOST_EXPERTS, err));
    RT_TRY(rt_ops_check_count(route, "experts_per_token", args->experts_per_token, 1,
                              RT_ROUTE_MOST_CHOSEN, err));
    RT_TRY(check_groups(route, args, err));
    RT_REQUIRE(args->scoring == RT_SCORING_SOFTMAX || args->scoring == RT_SCORING_SIGMOID, err,
               RT_ERR_INVALID, "%s: scoring %d is not RT_SCORING_SOFTMAX, %d, or _SIGMOID, %d",
               route, (int)args->scoring, RT_SCORING_SOFTMAX, RT_SCORING_SIGMOID);
    RT_REQUIRE(args->group_score == RT_GROUP_SCORE_MAX || args->group_score == RT_GROUP_SCORE_TOP2,
               err, RT_ERR_INVALID,
               "%s: group_score %d is not RT_GROUP_SCORE_MAX, %d, or _TOP2, %d", route,
               (int)args->group_score, RT_GROUP_SCORE_MAX, RT_GROUP_SCORE_TOP2);
    return rt_ops_check_count(route, "normalise", args->normalise, 0, 1, err);
}

enum rt_status rt_ops_route_params(const char *route, const struct rt_route_args *args,
                                   struct rt_route_params *out, struct rt_error *err)
{
    const struct rt_named_pointer logits[] = {{"logits", args->logits, RT_ALIGN_FLOAT32}};
    const struct rt_named_pointer bias[] = {{"bias", args->bias, RT_ALIGN_FLOAT32}};
    RT_TRY(RT_CHECK_RESERVED(route, args, reserved, err));
    RT_TRY(check_route(route, args, err));
    /* The score of a group of one is its expert's. */
    const bool pairs = args->group_score == RT_GROUP_SCORE_TOP2 && args->groups > 1 &&
                       args->experts / args->groups > 1;
    *out = (struct rt_route_params){
        .logits = rt_ops_pointer(args->logits),
        .bias = rt_ops_pointer(args->bias),
        .choices = rt_ops_pointer(args->routing.choices),
        .weights = rt_ops_pointer(args->routing.weights),
        .experts = args->experts,
        .chosen = args->experts_per_token,
        .groups = args->groups,
        .groups_kept = args->groups_per_token,
        .scoring = args->scoring == RT_SCORING_SIGMOID ? RT_ROUTE_SIGMOID : RT_ROUTE_SOFTMAX,
        .group_value = pairs ? RT_ROUTE_GROUP_TOP2 : RT_ROUTE_GROUP_MAX,
        .normalise = args->normalise,
    };
    RT_TRY(rt_ops_token_rows(route, &args->rows, &out->rows, err));
    RT_TRY(rt_ops_factor(route, "scale", args->scale, &out->scale, err));
    RT_TRY(RT_CHECK_POINTERS(route, logits, err));
    RT_TRY(rt_ops_check_optional(route, bias, 1, err));
    RT_TRY(rt_ops_routing(route, &args->routing, &out->groups_of, err));
    return RT_STRIDE(route, args, logit_stride, args->experts, 1, &out->logit_stride, err);
}

enum rt_status rt_ops_route_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                 const struct rt_route_args *args, struct rt_work *out,
                                 struct rt_error *err)
{
    const struct rt_op_request request = {.caps = caps};
    struct rt_variant variant;
    struct rt_route_params p;
    RT_TRY(rt_ops_route_params("rt_route", args, &p, err));
    RT_TRY(rt_ops_route_memory(args, &p, err));
    RT_TRY(rt_op_resolve(RT_OP_ROUTE, &request, &variant, err));
    return rt_op_build(k, &variant, &p, sizeof(p), out, err);
}
