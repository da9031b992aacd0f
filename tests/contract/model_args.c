/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arguments of replayrt/model_ops.h: each bad one is refused by name and with its value, and
 * nothing is written. And what rt_ops_overlap does to launches.
 */
#include "kernels/abi/experts.h"
#include "replayrt/model_ops.h"
#include "runtime/ops_handle.h"
#include "tests/support/mistake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BYTES (1u << 16) /* of each tensor */
#define POISON 0xa5

/* What operators write lies in `out`, of which each gets a part; the rest is read. */
struct rig {
    rt_ops *ops;
    unsigned char *in, *out;
};

static uint64_t in(const struct rig *r, uint32_t part)
{
    return (uintptr_t)r->in + part * 4096;
}

static uint64_t out(const struct rig *r, uint32_t part)
{
    return (uintptr_t)r->out + part * 4096;
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    r->in = aligned_alloc(4096, BYTES);
    r->out = aligned_alloc(4096, BYTES);
    assert_non_null(r->in);
    assert_non_null(r->out);
    memset(r->in, 0, BYTES);
    memset(r->out, POISON, BYTES);
    assert_int_equal(rt_ops_create("host", &r->ops, NULL), RT_OK);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    rt_ops_destroy(&r->ops);
    free(r->in);
    free(r->out);
    free(r);
    return 0;
}

static void refused(const struct rig *r, enum rt_status status, enum rt_status wanted,
                    const char *words)
{
    const struct rt_error *error = rt_ops_last_error(r->ops);
    if (status != wanted || error->status != wanted || !strstr(error->message, words))
        fail_msg("%s: \"%s\" does not say \"%s\"", rt_status_string(status), error->message, words);
    for (size_t i = 0; i < BYTES; i++)
        if (r->out[i] != POISON)
            fail_msg("%s: byte %zu was written", words, i);
}

typedef enum rt_status (*op_fn)(rt_ops *ops, const void *args);

/* `good` is taken; with any one of the mistakes, or null, it is not. */
static void try_all(const struct rig *r, op_fn op, const void *good, size_t bytes,
                    const struct mistake *bad, size_t count)
{
    unsigned char args[512];
    assert_true(bytes <= sizeof(args));
    for (size_t i = 0; i < count; i++) {
        memcpy(args, good, bytes);
        memcpy(args + bad[i].member, &bad[i].value, bad[i].bytes);
        refused(r, op(r->ops, args), RT_ERR_INVALID, bad[i].words);
    }
    refused(r, op(r->ops, NULL), RT_ERR_INVALID, "args is null");
    assert_int_equal(op(NULL, good), RT_ERR_INVALID);
    if (op(r->ops, good) != RT_OK)
        fail_msg("%s", rt_ops_last_error(r->ops)->message);
}
#define TRY_ALL(r, op, good, bad)                                                                  \
    try_all((r), (op), &(good), sizeof(good), (bad), sizeof(bad) / sizeof((bad)[0]))

/* Only the host device has f32. */
static void f32_needs_the_host(struct rig *r, op_fn op, const void *args, const char *words)
{
    struct rt_device_caps *caps = &r->ops->driver.caps;
    caps->kind = RT_DEVICE_KIND_CUDA;
    refused(r, op(r->ops, args), RT_ERR_UNSUPPORTED, words);
    caps->kind = RT_DEVICE_KIND_HOST;
}

static struct rt_token_rows rows_of(const struct rig *r)
{
    return (struct rt_token_rows){.rows = 3,
                                  .query_len = 2,
                                  .lengths = in(r, 0),
                                  .slots = in(r, 0),
                                  .positions = in(r, 0),
                                  .row_base = in(r, 0)};
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

#define INFINITE 0x7f800000u
#define NOT_A_NUMBER 0x7fc00000u

/* ---- embed ----------------------------------------------------------------------------------- */

static enum rt_status do_embed(rt_ops *ops, const void *args)
{
    return rt_embed(ops, args, NULL);
}

static struct rt_embed_args embed_args(const struct rig *r)
{
    return (struct rt_embed_args){.struct_size = sizeof(struct rt_embed_args),
                                  .rows = rows_of(r),
                                  .table = in(r, 1),
                                  .tokens = in(r, 2),
                                  .hidden = out(r, 0),
                                  .vocab = 4,
                                  .width = 16};
}

static void embed(void **state)
{
    struct rig *r = *state;
    struct rt_embed_args args = embed_args(r);
#define BAD(member, value, words) MISTAKE(rt_embed_args, member, value, words)
    const struct mistake bad[] = {
        BAD_ROWS(rt_embed_args),
        BAD(struct_size, 3, "rt_embed: args->struct_size is 3"),
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
        BAD(hidden_stride, 8, "hidden_stride = 8 is less than the 16 numbers that are written"),
        BAD(vocab, 0, "vocab 0 is not 1..2147483647"),
        BAD(vocab, UINT32_MAX, "vocab 4294967295 is not"),
        BAD(width, 0, "width 0 is not a multiple of 8"),
        BAD(width, 12, "width 12 is not a multiple of 8"),
        BAD(width, 0x80000000u, "width 2147483648 is not"),
        BAD(scale, INFINITE, "scale inf is not a finite number"),
        BAD(scale, NOT_A_NUMBER, "scale nan is not"),
    };
#undef BAD
    refused(r, rt_embed(r->ops, &args, (void *)16), RT_ERR_INVALID, "the host device has no");
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

static struct rt_routing routing_of(const struct rig *r)
{
    return (struct rt_routing){.choices = out(r, 1),
                               .weights = out(r, 2),
                               .offsets = out(r, 3),
                               .pairs = out(r, 4),
                               .active = out(r, 5),
                               .active_count = out(r, 6)};
}
#define BAD_ROUTING(type)                                                                          \
    MISTAKE(type, routing.choices, 0, "routing.choices is null"),                                  \
        MISTAKE(type, routing.weights, out(r, 2) + 2, "routing.weights = 0x"),                     \
        MISTAKE(type, routing.offsets, 0, "routing.offsets is null"),                              \
        MISTAKE(type, routing.pairs, out(r, 4) + 1, "routing.pairs = 0x"),                         \
        MISTAKE(type, routing.active, out(r, 5) + 8, "routing.active = 0x"),                       \
        MISTAKE(type, routing.active_count, 0, "routing.active_count is null")

static struct rt_route_args route_args(const struct rig *r)
{
    return (struct rt_route_args){.struct_size = sizeof(struct rt_route_args),
                                  .experts = 12,
                                  .experts_per_token = 5,
                                  .groups = 4,
                                  .groups_per_token = 2,
                                  .group_score = RT_GROUP_SCORE_TOP2,
                                  .rows = rows_of(r),
                                  .logits = in(r, 1),
                                  .bias = in(r, 1),
                                  .routing = routing_of(r)};
}

static void route(void **state)
{
    struct rig *r = *state;
    const struct rt_route_args args = route_args(r);
#define BAD(member, value, words) MISTAKE(rt_route_args, member, value, words)
    const struct mistake bad[] = {
        BAD_ROWS(rt_route_args),
        BAD_ROUTING(rt_route_args),
        BAD(struct_size, 3, "rt_route: args->struct_size is 3"),
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

static struct rt_experts_shape shape_of(void)
{
    return (struct rt_experts_shape){.tokens = 6,
                                     .hidden = 16,
                                     .width = 8,
                                     .experts = 4,
                                     .experts_per_token = 2,
                                     .shared = 1,
                                     .backend = RT_BACKEND_GENERIC};
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

static struct rt_expert_weights weights_of(const struct rig *r)
{
    return (struct rt_expert_weights){.address = in(r, 3)};
}

static struct rt_experts_up_args up_args(const struct rig *r)
{
    const struct rt_expert_weights w = weights_of(r);
    return (struct rt_experts_up_args){.struct_size = sizeof(struct rt_experts_up_args),
                                       .shape = shape_of(),
                                       .routing = routing_of(r),
                                       .x = in(r, 2),
                                       .h = out(r, 7),
                                       .gate = {w, w},
                                       .up = {w, w}};
}

static struct rt_experts_down_args down_args(const struct rig *r)
{
    const struct rt_expert_weights w = weights_of(r);
    return (struct rt_experts_down_args){.struct_size = sizeof(struct rt_experts_down_args),
                                         .shape = shape_of(),
                                         .rows = rows_of(r),
                                         .routing = routing_of(r),
                                         .h = in(r, 2),
                                         .out = out(r, 8),
                                         .down = {w, w}};
}

static void experts_up(void **state)
{
    struct rig *r = *state;
    struct rt_experts_up_args args = up_args(r);
#define BAD(member, value, words) MISTAKE(rt_experts_up_args, member, value, words)
    const struct mistake bad[] = {
        BAD_SHAPE(rt_experts_up_args),
        BAD_ROUTING(rt_experts_up_args),
        BAD(struct_size, 3, "rt_experts_up: args->struct_size is 3"),
        BAD(x, 0, "rt_experts_up: x is null"),
        BAD(x, in(r, 2) + 2, "x = 0x"),
        BAD(h, 0, "h is null"),
        BAD(h, out(r, 7) + 8, "h = 0x"),
        BAD(x_stride, 12, "x_stride = 12 is not"),
        BAD(h_place_stride, 4, "h_place_stride = 4 is not"),
        BAD(h_token_stride, 16, "h_token_stride = 16 is less than the 24 numbers"),
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
    refused(r, do_up(r->ops, &args), RT_ERR_INVALID, "shape.shared 0 is not 1..1024");
    args.shape = shape_of();
    args.shape.backend = RT_BACKEND_SM90;
    refused(r, do_up(r->ops, &args), RT_ERR_UNSUPPORTED, "this is the host device");
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
        BAD(rows.rows, 2, "shape.tokens 6 is not rows.rows 2 times rows.query_len 2"),
        BAD(behind_up, 2, "behind_up 2 is not 0..1"),
        BAD(h, 0, "rt_experts_down: h is null"),
        BAD(out, 0, "out is null"),
        BAD(out, out(r, 8) + 8, "out = 0x"),
        BAD(h_place_stride, 4, "h_place_stride = 4 is not"),
        BAD(h_token_stride, -16, "h_token_stride = -16 is not"),
        BAD(out_stride, 12, "out_stride = 12 is not"),
        BAD(out_stride, 8, "out_stride = 8 is less than the 16 numbers that are written"),
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
    refused(r, rt_experts_get_info(r->ops, &shape, &info), RT_ERR_INVALID,
            "rt_experts_get_info: shape.tokens 32769 is not 1..32768");
    shape = shape_of();
    shape.shared = 5000;
    refused(r, rt_experts_get_info(r->ops, &shape, &info), RT_ERR_INVALID,
            "rt_experts_get_info: shape.shared 5000 is not 0..1024");
    shape = shape_of();
    shape.backend = RT_BACKEND_SM90;
    refused(r, rt_experts_get_info(r->ops, &shape, &info), RT_ERR_UNSUPPORTED, "sm90");
    refused(r, rt_experts_get_info(r->ops, NULL, &info), RT_ERR_INVALID, "shape is null");
    assert_string_equal(info.up, "untouched");
    info.struct_size = 1;
    refused(r, rt_experts_get_info(r->ops, &shape, &info), RT_ERR_INVALID, "struct_size is 1");
    refused(r, rt_experts_get_info(r->ops, &shape, NULL), RT_ERR_INVALID, "out is null");
    assert_int_equal(rt_experts_get_info(NULL, &shape, &info), RT_ERR_INVALID);
}

/* ---- sample ---------------------------------------------------------------------------------- */

static enum rt_status do_sample(rt_ops *ops, const void *args)
{
    return rt_sample(ops, args, NULL);
}

static struct rt_sample_args sample_args(const struct rig *r)
{
    return (struct rt_sample_args){.struct_size = sizeof(struct rt_sample_args),
                                   .vocab = 5,
                                   .rows = rows_of(r),
                                   .logits = in(r, 1),
                                   .accept = in(r, 0),
                                   .tokens = in(r, 2),
                                   .accepted = out(r, 0),
                                   .sampled = out(r, 1),
                                   .lines = in(r, 3),
                                   .workspace = in(r, 4)};
}

static void sample(void **state)
{
    struct rig *r = *state;
    const struct rt_sample_args args = sample_args(r);
#define BAD(member, value, words) MISTAKE(rt_sample_args, member, value, words)
    const struct mistake bad[] = {
        BAD_ROWS(rt_sample_args),
        BAD(struct_size, 3, "rt_sample: args->struct_size is 3"),
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
    };
#undef BAD
    refused(r, rt_sample(r->ops, &args, (void *)16), RT_ERR_INVALID, "the host device has no");
    TRY_ALL(r, do_sample, args, bad);
}

/* ---- overlap --------------------------------------------------------------------------------- */

static struct spy {
    int (*launch)(struct rt_driver *d, const struct rt_launch *l, bool programmatic, rt_dstream s);
    uint32_t launches, early;
    uint32_t looks_early; /* `early` of the last experts_down */
} spy;

static int spy_launch(struct rt_driver *d, const struct rt_launch *l, bool programmatic,
                      rt_dstream s)
{
    spy.launches++;
    spy.early += programmatic;
    if (l->param_bytes == sizeof(struct rt_experts_down_params))
        spy.looks_early = ((const struct rt_experts_down_params *)(const void *)l->params)->early;
    return spy.launch(d, l, programmatic, s);
}

/* Every operator's launches, and none of the library's. */
static void put_everything(struct rig *r)
{
    const struct rt_embed_args e = embed_args(r);
    const struct rt_route_args route_a = route_args(r);
    const struct rt_experts_up_args up = up_args(r);
    const struct rt_experts_down_args down = down_args(r);
    const struct rt_sample_args s = sample_args(r);
    const struct rt_mla_input_norm_args norm = {.struct_size = sizeof(norm),
                                                .tokens = 2,
                                                .hidden = in(r, 1),
                                                .residual = out(r, 1),
                                                .normed = out(r, 2),
                                                .norm = {.width = 16},
                                                .first = 1};
    spy.launches = spy.early = 0;
    assert_int_equal(rt_embed(r->ops, &e, NULL), RT_OK);
    assert_int_equal(rt_route(r->ops, &route_a, NULL), RT_OK);
    assert_int_equal(rt_experts_up(r->ops, &up, NULL), RT_OK);
    assert_int_equal(rt_experts_down(r->ops, &down, NULL), RT_OK);
    assert_int_equal(rt_sample(r->ops, &s, NULL), RT_OK);
    assert_int_equal(rt_mla_input_norm(r->ops, &norm, NULL), RT_OK);
    for (int by_library = 0; by_library < 2; by_library++) {
        const struct rt_product_shape shape = {.struct_size = sizeof(shape),
                                               .batch = 1,
                                               .vectors = 2,
                                               .k = 16,
                                               .weights = {{.rows = 8}},
                                               .projections = by_library ? RT_PROJECTIONS_CUBLASLT
                                                                         : RT_PROJECTIONS_OWN};
        const struct rt_product_args args = {.struct_size = sizeof(args),
                                             .x = in(r, 1),
                                             .y = out(r, 3),
                                             .weights = {in(r, 2)},
                                             .workspace = out(r, 4)};
        rt_product *p = NULL;
        assert_int_equal(rt_product_create(r->ops, &shape, &p), RT_OK);
        assert_int_equal(rt_product_run(p, &args, NULL), RT_OK);
        rt_product_destroy(&p);
    }
    assert_int_equal(spy.launches, 4 + 3 + 1 + 1);
}

static void overlap(void **state)
{
    struct rig *r = *state;
    spy.launch = r->ops->driver.launch;
    r->ops->driver.launch = spy_launch;
    put_everything(r);
    assert_int_equal(spy.early, 0);
    assert_int_equal(rt_ops_overlap(r->ops, 1), RT_OK);
    put_everything(r);
    assert_int_equal(spy.early, spy.launches);
    memset(r->out, POISON, BYTES);
    refused(r, rt_ops_overlap(r->ops, 2), RT_ERR_INVALID, "rt_ops_overlap: overlap 2 is not 0 or");
    put_everything(r); /* as it was */
    assert_int_equal(spy.early, spy.launches);
    /* Kernels before sm_90 do not wait. */
    r->ops->kernels.cc = 80;
    put_everything(r);
    assert_int_equal(spy.early, 0);
    r->ops->kernels.cc = 0;
    assert_int_equal(rt_ops_overlap(r->ops, 0), RT_OK);
    put_everything(r);
    assert_int_equal(spy.early, 0);
    assert_int_equal(rt_ops_overlap(NULL, 0), RT_ERR_INVALID);
}

static void behind_up(void **state)
{
    struct rig *r = *state;
    struct rt_experts_down_args down = down_args(r);
    spy.launch = r->ops->driver.launch;
    r->ops->driver.launch = spy_launch;
    for (uint32_t way = 0; way < 2; way++) {
        down.behind_up = way;
        spy.looks_early = 77;
        assert_int_equal(rt_experts_down(r->ops, &down, NULL), RT_OK);
        assert_int_equal(spy.looks_early, way);
    }
}

#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(embed),        RIG_TEST(route),  RIG_TEST(experts_up), RIG_TEST(experts_down),
        RIG_TEST(experts_info), RIG_TEST(sample), RIG_TEST(overlap),    RIG_TEST(behind_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
