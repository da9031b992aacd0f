/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arguments of replayrt/model_ops.h: each bad one is refused by name and with its value, and
 * nothing is written.
 */
#include "runtime/ops_handle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/support/model_rig.h"

static void refused_as(const struct rig *r, enum rt_status status, enum rt_status wanted,
                       const char *words)
{
    const struct rt_error *error = rt_ops_last_error(r->ops);
    if (status != wanted || error->status != wanted || !strstr(error->message, words))
        fail_msg("%s: \"%s\" does not say \"%s\"", rt_status_string(status), error->message, words);
    untouched(r, words);
}

/* `good` is taken; with any one of the mistakes, or null, it is not. */
#define TRY_ALL(r, op, good, bad)                                                                  \
    do {                                                                                           \
        REFUSE_ALL((r)->ops, (op), (good), (bad));                                                 \
        untouched((r), #op);                                                                       \
        if ((op)((r)->ops, &(good)) != RT_OK)                                                      \
            fail_msg("%s", rt_ops_last_error((r)->ops)->message);                                  \
    } while (0)

/* Only the host device has f32. */
static void f32_needs_the_host(struct rig *r, op_fn op, const void *args, const char *words)
{
    struct rt_device_caps *caps = &r->ops->driver.caps;
    caps->kind = RT_DEVICE_KIND_CUDA;
    refused_as(r, op(r->ops, args), RT_ERR_UNSUPPORTED, words);
    caps->kind = RT_DEVICE_KIND_HOST;
}

#define BAD_ROWS(type)                                                                             \
    MISTAKE(type, rows.rows, 0, "rows.rows 0 is not 1..16384"),                                    \
        MISTAKE(type, rows.rows, 16385, "rows.rows 16385 is not 1..16384"),                        \
        MISTAKE(type, rows.query_len, 0, "rows.query_len 0 is not 1..8"),                          \
        MISTAKE(type, rows.query_len, 9, "rows.query_len 9 is not 1..8"),                          \
        MISTAKE(type, rows.lengths, in(r, 0) + 2, "rows.lengths = 0x"),                            \
        MISTAKE(type, rows.slots, in(r, 0) + 1, "rows.slots = 0x"),                                \
        MISTAKE(type, rows.positions, 3, "rows.positions = 0x3 is not 4-byte aligned"),            \
        MISTAKE(type, rows.row_base, in(r, 0) + 2, "rows.row_base = 0x")

/* `written`: of the operator. */
#define ROWS_IN(type, written)                                                                     \
    MISTAKE(type, rows.lengths, (written), "and rows.lengths = 0x"),                               \
        MISTAKE(type, rows.slots, (written) + 8, "and rows.slots = 0x"),                           \
        MISTAKE(type, rows.positions, (written) + 4, "and rows.positions = 0x"),                   \
        MISTAKE(type, rows.row_base, (written), "and rows.row_base = 0x")

#define INFINITE 0x7f800000u
#define NOT_A_NUMBER 0x7fc00000u

/* ---- embed ----------------------------------------------------------------------------------- */

static enum rt_status do_embed(rt_ops *ops, const void *args)
{
    return rt_embed(ops, args, NULL);
}

static void embed(void **state)
{
    struct rig *r = *state;
    struct rt_embed_args args = embed_args(r);
#define BAD(member, value, words) MISTAKE(rt_embed_args, member, value, words)
    const struct mistake bad[] = {
        BAD_ROWS(rt_embed_args),
        BAD(struct_size, 3, "rt_embed: args->struct_size is 3"),
        BAD(reserved, 5, "rt_embed: reserved is 5, not 0"),
        BAD(precision, 2,
            "rt_embed: precision 2 is not RT_PRECISION_BF16, 0, or RT_PRECISION_F32, 1"),
        BAD(table, 0, "rt_embed: table is null"),
        BAD(table, in(r, 1) + 8, "rt_embed: table = 0x"),
        BAD(tokens, 0, "tokens is null"),
        BAD(tokens, in(r, 2) + 2, "tokens = 0x"),
        BAD(hidden, 0, "hidden is null"),
        BAD(hidden, out(r, 0) + 4, "hidden = 0x"),
        BAD(table_stride, 20, "table_stride = 20 is not a non-negative multiple of 8"),
        BAD(table_stride, -8, "table_stride = -8 is not"),
        BAD(hidden_stride, INT64_C(1) << 39, "hidden_stride = 549755813888 is not below 2^39"),
        BAD(hidden_stride, 8, "hidden_stride of hidden leads 16 bytes on, of which 32 are taken"),
        BAD(table_stride, 8, "table_stride of table leads 16 bytes on, of which 32 are taken"),
        BAD(hidden, in(r, 1) + 3 * 32 + 16, "and table = 0x"),
        BAD(table, out(r, 0) + 5 * 32, "hidden = 0x"),
        BAD(tokens, out(r, 0) + 6 * 32 - 4, "and tokens = 0x"),
        ROWS_IN(rt_embed_args, out(r, 0)),
        BAD(vocab, 0, "vocab 0 is not 1..2147483647"),
        BAD(vocab, UINT32_MAX, "vocab 4294967295 is not"),
        BAD(width, 0, "width 0 is not a multiple of 8"),
        BAD(width, 12, "width 12 is not a multiple of 8"),
        BAD(width, 0x80000000u, "width 2147483648 is not"),
        BAD(scale, INFINITE, "scale inf is not a finite number"),
        BAD(scale, NOT_A_NUMBER, "scale nan is not"),
    };
#undef BAD
    refused_as(r, rt_embed(r->ops, &args, (void *)16), RT_ERR_INVALID, "the host device has no");
    args.precision = RT_PRECISION_F32;
    f32_needs_the_host(r, do_embed, &args, "rt_embed: precision RT_PRECISION_F32 is served on");
    args.precision = RT_PRECISION_BF16;
    TRY_ALL(r, do_embed, args, bad);
}

/* ---- route ----------------------------------------------------------------------------------- */

static enum rt_status do_route(rt_ops *ops, const void *args)
{
    return rt_route(ops, args, NULL);
}

/* Where it is only read. */
#define ROUTING_IN(type, written)                                                                  \
    MISTAKE(type, routing.choices, (written), "and routing.choices = 0x"),                         \
        MISTAKE(type, routing.weights, (written) + 4, "and routing.weights = 0x"),                 \
        MISTAKE(type, routing.offsets, (written) + 8, "and routing.offsets = 0x"),                 \
        MISTAKE(type, routing.pairs, (written), "and routing.pairs = 0x"),                         \
        MISTAKE(type, routing.active, (written), "and routing.active = 0x"),                       \
        MISTAKE(type, routing.active_count, (written) + 12, "and routing.active_count = 0x")
#define BAD_ROUTING(type)                                                                          \
    MISTAKE(type, routing.choices, 0, "routing.choices is null"),                                  \
        MISTAKE(type, routing.weights, out(r, 2) + 2, "routing.weights = 0x"),                     \
        MISTAKE(type, routing.offsets, 0, "routing.offsets is null"),                              \
        MISTAKE(type, routing.pairs, out(r, 4) + 1, "routing.pairs = 0x"),                         \
        MISTAKE(type, routing.active, out(r, 5) + 8, "routing.active = 0x"),                       \
        MISTAKE(type, routing.active_count, 0, "routing.active_count is null")

static void route(void **state)
{
    struct rig *r = *state;
    const struct rt_route_args args = route_args(r);
#define BAD(member, value, words) MISTAKE(rt_route_args, member, value, words)
    const struct mistake bad[] = {
        BAD_ROWS(rt_route_args),
        BAD_ROUTING(rt_route_args),
        BAD(struct_size, 3, "rt_route: args->struct_size is 3"),
        BAD(reserved, 5, "rt_route: reserved is 5, not 0"),
        BAD(experts, 0, "rt_route: experts 0 is not 1..1024"),
        BAD(experts, 1025, "experts 1025 is not 1..1024"),
        BAD(experts_per_token, 0, "experts_per_token 0 is not 1..32"),
        BAD(experts_per_token, 33, "experts_per_token 33 is not 1..32"),
        BAD(experts_per_token, 7, "experts_per_token 7, but 2 of 4 groups have 6 experts"),
        BAD(groups, 33, "groups 33 is not 0..32"),
        BAD(groups, 5, "groups 5 does not divide experts, 12"),
        BAD(groups, 0, "groups_per_token 2 is not 0..1"),
        BAD(groups_per_token, 0, "groups_per_token 0 is not 1..4"),
        BAD(groups_per_token, 5, "groups_per_token 5 is not 1..4"),
        BAD(scoring, 2, "scoring 2 is not RT_SCORING_SOFTMAX, 0, or _SIGMOID, 1"),
        BAD(group_score, 9, "group_score 9 is not RT_GROUP_SCORE_MAX, 0, or _TOP2, 1"),
        BAD(normalise, 2, "normalise 2 is not 0..1"),
        BAD(scale, INFINITE, "scale inf is not a finite number"),
        BAD(logits, 0, "logits is null"),
        BAD(logits, in(r, 1) + 1, "logits = 0x"),
        BAD(logit_stride, -1, "logit_stride = -1 is not a non-negative multiple of 1"),
        BAD(bias, in(r, 1) + 2, "bias = 0x"),
        BAD(logit_stride, 11, "logit_stride of logits leads 44 bytes on, of which 48 are taken"),
        BAD(logits, out(r, 1), "and logits = 0x"),
        BAD(bias, out(r, 5) + 12 * 16 - 4, "and bias = 0x"), /* active, its last word */
        ROWS_IN(rt_route_args, out(r, 3)),
        BAD(routing.choices, out(r, 4) - 29 * 4, "routing.choices = 0x"), /* pairs */
        BAD(routing.weights, out(r, 1), "and routing.weights = 0x"),
        BAD(routing.offsets, out(r, 2) + 29 * 4, "and routing.offsets = 0x"),
        BAD(routing.pairs, out(r, 3) + 12 * 4, "and routing.pairs = 0x"),
        BAD(routing.active, out(r, 4), "and routing.active = 0x"),
        BAD(routing.active_count, out(r, 3) + 8, "and routing.active_count = 0x"),
        BAD(routing.active_count, in(r, 1), "and bias = 0x"),
    };
#undef BAD
    TRY_ALL(r, do_route, args, bad);
}

/* ---- experts --------------------------------------------------------------------------------- */

static enum rt_status do_up(rt_ops *ops, const void *args)
{
    return rt_experts_up(ops, args, NULL);
}

static enum rt_status do_down(rt_ops *ops, const void *args)
{
    return rt_experts_down(ops, args, NULL);
}

#define BAD_SHAPE(type)                                                                            \
    MISTAKE(type, shape.tokens, 0, "shape.tokens 0 is not 1..32768"),                              \
        MISTAKE(type, shape.tokens, 32769, "shape.tokens 32769 is not 1..32768"),                  \
        MISTAKE(type, shape.hidden, 0, "shape.hidden 0 is not 1..2147483647"),                     \
        MISTAKE(type, shape.width, 0x80000000u, "shape.width 2147483648 is not 1.."),              \
        MISTAKE(type, shape.experts, 1025, "shape.experts 1025 is not 0..1024"),                   \
        MISTAKE(type, shape.experts, 0, "shape.experts_per_token 2 is not 0..0"),                  \
        MISTAKE(type, shape.experts, 1, "shape.experts_per_token 2 is not 1..1"),                  \
        MISTAKE(type, shape.experts_per_token, 0, "shape.experts_per_token 0 is not 1..4"),        \
        MISTAKE(type, shape.shared, 1025, "shape.shared 1025 is not 0..1024"),                     \
        MISTAKE(type, shape.backend, 7, "shape.backend 7 is none of enum rt_backend"),             \
        MISTAKE(type, shape.precision, 3,                                                          \
                "precision 3 is not RT_PRECISION_BF16, 0, or RT_PRECISION_F32")

static void experts_up(void **state)
{
    struct rig *r = *state;
    struct rt_experts_up_args args = up_args(r);
#define BAD(member, value, words) MISTAKE(rt_experts_up_args, member, value, words)
    const struct mistake bad[] = {
        BAD_SHAPE(rt_experts_up_args),
        BAD_ROUTING(rt_experts_up_args),
        BAD(struct_size, 3, "rt_experts_up: args->struct_size is 3"),
        BAD(reserved, 5, "rt_experts_up: reserved is 5, not 0"),
        BAD(x, 0, "rt_experts_up: x is null"),
        BAD(x, in(r, 2) + 2, "x = 0x"),
        BAD(h, 0, "h is null"),
        BAD(h, out(r, 7) + 8, "h = 0x"),
        BAD(x_stride, 12, "x_stride = 12 is not"),
        BAD(h_place_stride, 4, "h_place_stride = 4 is not"),
        BAD(h_token_stride, 16, "h_token_stride of h leads 32 bytes on, of which 48 are taken"),
        BAD(x_stride, 8, "x_stride of x leads 16 bytes on, of which 32 are taken"),
        BAD(gate[0].row_stride, 8, "gate[0].row_stride of gate[0] leads 16 bytes on"),
        BAD(up[0].expert_stride, 8, "up[0].expert_stride of up[0] leads 16 bytes on"),
        BAD(h, in(r, 2) + 5 * 32, "and x = 0x"),
        BAD(gate[0].address, out(r, 7), "and gate[0] = 0x"),
        BAD(gate[1].address, out(r, 7) + 16, "and gate[1] = 0x"),
        BAD(up[0].address, out(r, 7) - 16, "and up[0] = 0x"),
        BAD(up[1].address, out(r, 7), "and up[1] = 0x"),
        ROUTING_IN(rt_experts_up_args, out(r, 7)),
        BAD(gate[0].address, 0, "gate[0].address is null"),
        BAD(gate[1].address, in(r, 3) + 4, "gate[1].address = 0x"),
        BAD(up[0].address, in(r, 3) + 2, "up[0].address = 0x"),
        BAD(up[1].address, 0, "up[1].address is null"),
        BAD(gate[0].expert_stride, -8, "gate[0].expert_stride = -8 is not"),
        BAD(gate[1].row_stride, 20, "gate[1].row_stride = 20 is not"),
        BAD(up[0].row_stride, (INT64_C(1) << 39) - 8,
            "up[0].expert_stride, packed, of 8 times 549755813880 is not below 2^39 elements"),
        BAD(up[1].expert_stride, INT64_C(1) << 40, "up[1].expert_stride = 1099511627776 is not"),
    };
#undef BAD
    args.shape.precision = RT_PRECISION_F32;
    f32_needs_the_host(r, do_up, &args, "rt_experts_up: precision RT_PRECISION_F32 is served on");
    args.shape.precision = RT_PRECISION_BF16;
    args.shape.experts = args.shape.experts_per_token = args.shape.shared = 0;
    refused_as(r, do_up(r->ops, &args), RT_ERR_INVALID, "shape.shared 0 is not 1..1024");
    args.shape = shape_of();
    args.shape.backend = RT_BACKEND_SM90;
    refused_as(r, do_up(r->ops, &args), RT_ERR_UNSUPPORTED, "this is the host device");
    args.shape = shape_of();
    TRY_ALL(r, do_up, args, bad);
    args.shape.experts = args.shape.experts_per_token = 0; /* and nobody looks at what they have */
    args.routing = (struct rt_routing){0};
    args.gate[0].address = args.up[0].address = 1;
    assert_int_equal(do_up(r->ops, &args), RT_OK);
}

static void experts_down(void **state)
{
    struct rig *r = *state;
    struct rt_experts_down_args args = down_args(r);
#define BAD(member, value, words) MISTAKE(rt_experts_down_args, member, value, words)
    const struct mistake bad[] = {
        BAD_SHAPE(rt_experts_down_args),
        BAD_ROWS(rt_experts_down_args),
        BAD_ROUTING(rt_experts_down_args),
        BAD(struct_size, 3, "rt_experts_down: args->struct_size is 3"),
        BAD(reserved, 5, "rt_experts_down: reserved is 5, not 0"),
        BAD(reserved_too, 6, "rt_experts_down: reserved_too is 6, not 0"),
        BAD(rows.rows, 2, "shape.tokens 6 is not rows.rows 2 times rows.query_len 2"),
        BAD(behind_up, 2, "behind_up 2 is not 0..1"),
        BAD(h, 0, "rt_experts_down: h is null"),
        BAD(out, 0, "out is null"),
        BAD(out, out(r, 8) + 8, "out = 0x"),
        BAD(h_place_stride, 4, "h_place_stride = 4 is not"),
        BAD(h_token_stride, -16, "h_token_stride = -16 is not"),
        BAD(out_stride, 12, "out_stride = 12 is not"),
        BAD(out_stride, 8, "out_stride of out leads 16 bytes on, of which 32 are taken"),
        BAD(h_token_stride, 16, "h_token_stride of h leads 32 bytes on, of which 48 are taken"),
        BAD(h, out(r, 8) + 5 * 32, "and h = 0x"),
        BAD(down[0].address, out(r, 8), "and down[0] = 0x"),
        BAD(down[1].address, out(r, 8) - 16, "and down[1] = 0x"),
        ROUTING_IN(rt_experts_down_args, out(r, 8)),
        ROWS_IN(rt_experts_down_args, out(r, 8)),
        BAD(down[0].address, 0, "down[0].address is null"),
        BAD(down[1].address, in(r, 3) + 4, "down[1].address = 0x"),
        BAD(down[0].row_stride, 12, "down[0].row_stride = 12 is not"),
        BAD(down[1].expert_stride, 4, "down[1].expert_stride = 4 is not"),
    };
#undef BAD
    args.shape.precision = RT_PRECISION_F32;
    f32_needs_the_host(r, do_down, &args, "rt_experts_down: precision RT_PRECISION_F32 is");
    args.shape = shape_of();
    TRY_ALL(r, do_down, args, bad);
}

static void experts_info(void **state)
{
    struct rig *r = *state;
    struct rt_experts_shape shape = shape_of();
    struct rt_experts_info info = {.struct_size = sizeof(info), .up = "untouched"};
    shape.tokens = 4093; /* rows of one token */
    assert_int_equal(rt_experts_get_info(r->ops, &shape, &info), RT_OK);
    assert_string_equal(info.up, "rt_experts_up_many");
    assert_non_null(strstr(info.down, "rt_experts_down_many")); /* of groups as there is room */
    assert_string_equal(info.reason, "generic as asked for; tensor cores, tiles of 128 pairs");
    shape.tokens = 32;
    assert_int_equal(rt_experts_get_info(r->ops, &shape, &info), RT_OK);
    assert_string_equal(info.up, "rt_experts_up");
    assert_string_equal(info.down, "rt_experts_down");
    assert_string_equal(info.reason, "generic as asked for");
    info.up = "untouched";
    shape.tokens = RT_MAX_TOKENS + 1;
    refused_as(r, rt_experts_get_info(r->ops, &shape, &info), RT_ERR_INVALID,
               "rt_experts_get_info: shape.tokens 32769 is not 1..32768");
    shape = shape_of();
    shape.shared = 5000;
    refused_as(r, rt_experts_get_info(r->ops, &shape, &info), RT_ERR_INVALID,
               "rt_experts_get_info: shape.shared 5000 is not 0..1024");
    shape = shape_of();
    shape.backend = RT_BACKEND_SM90;
    refused_as(r, rt_experts_get_info(r->ops, &shape, &info), RT_ERR_UNSUPPORTED, "sm90");
    refused_as(r, rt_experts_get_info(r->ops, NULL, &info), RT_ERR_INVALID, "shape is null");
    assert_string_equal(info.up, "untouched");
    info.struct_size = 1;
    refused_as(r, rt_experts_get_info(r->ops, &shape, &info), RT_ERR_INVALID, "struct_size is 1");
    refused_as(r, rt_experts_get_info(r->ops, &shape, NULL), RT_ERR_INVALID, "out is null");
    assert_int_equal(rt_experts_get_info(NULL, &shape, &info), RT_ERR_INVALID);
}

/* ---- sample ---------------------------------------------------------------------------------- */

static enum rt_status do_sample(rt_ops *ops, const void *args)
{
    return rt_sample(ops, args, NULL);
}

static void sample(void **state)
{
    struct rig *r = *state;
    const struct rt_sample_args args = sample_args(r);
#define BAD(member, value, words) MISTAKE(rt_sample_args, member, value, words)
    const struct mistake bad[] = {
        BAD_ROWS(rt_sample_args),
        BAD(struct_size, 3, "rt_sample: args->struct_size is 3"),
        BAD(reserved, 5, "rt_sample: reserved is 5, not 0"),
        BAD(vocab, 0, "rt_sample: vocab 0 is not 1..262144"),
        BAD(vocab, 262145, "vocab 262145 is not 1..262144"),
        BAD(rows.lengths, 0, "rt_sample: rows.lengths is null"),
        BAD(rows.positions, 0, "rows.positions is null"),
        BAD(logits, 0, "logits is null"),
        BAD(logits, in(r, 1) + 2, "logits = 0x"),
        BAD(row_stride, -1, "row_stride = -1 is not a non-negative multiple of 1"),
        BAD(token_stride, INT64_C(1) << 39, "token_stride = 549755813888 is not below"),
        BAD(scale, NOT_A_NUMBER, "scale nan is not a finite number"),
        BAD(accept, in(r, 0) + 1, "accept = 0x"),
        BAD(tokens, 0, "tokens is null"),
        BAD(accepted, 0, "accepted is null"),
        BAD(sampled, out(r, 1) + 2, "sampled = 0x"),
        BAD(lines, 0, "lines is null"),
        BAD(lines, in(r, 3) + 8, "lines = 0x"),
        BAD(workspace, 0, "workspace is null"),
        BAD(workspace, in(r, 4) + 128, "is not 256-byte aligned"),
        BAD(token_stride, 4, "token_stride of logits leads 16 bytes on, of which 20 are taken"),
        BAD(row_stride, 9, "row_stride of logits leads 36 bytes on, of which 40 are taken"),
        BAD(accepted, out(r, 1) + 8, "accepted = 0x"),
        BAD(sampled, in(r, 4), "and workspace = 0x"),
        BAD(workspace, in(r, 1), "and logits = 0x"),
        BAD(logits, out(r, 0) + 8, "and logits = 0x"),
        BAD(accept, out(r, 0), "and accept = 0x"),
        BAD(tokens, out(r, 1) - 20, "and tokens = 0x"),
        BAD(lines, out(r, 1), "and lines = 0x"),
        ROWS_IN(rt_sample_args, out(r, 0)),
    };
#undef BAD
    refused_as(r, rt_sample(r->ops, &args, (void *)16), RT_ERR_INVALID, "the host device has no");
    TRY_ALL(r, do_sample, args, bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(embed),        RIG_TEST(route),        RIG_TEST(experts_up),
        RIG_TEST(experts_down), RIG_TEST(experts_info), RIG_TEST(sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
