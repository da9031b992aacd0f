/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt_experts_down with scratch: two launches that come to what one does, who gets them, and what is
 * refused. The same program runs with the CUDA kernels, emulated.
 */
#include "replayrt/model_ops.h"

#include "common/bf16.h"
#include "runtime/ops_handle.h"
#include "tests/support/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/op_rig.h"

#define ROWS 20
#define QUERY_LEN 2
#define TOKENS (ROWS * QUERY_LEN)
#define HIDDEN 136
#define WIDTH 72
#define EXPERTS 6
#define CHOSEN 2
#define SHARED 2
#define PLACES (CHOSEN + SHARED)
#define LINES (CHOSEN + 1) /* of products: all shared experts have one */
#define POISON 0xa5
#define PADDING 5 /* this row is */

struct rig {
    rt_ops *ops;
    _Alignas(256) uint16_t x[TOKENS * HIDDEN], h[TOKENS * PLACES * WIDTH];
    _Alignas(256) uint16_t out[TOKENS * HIDDEN];
    _Alignas(256) uint16_t weights[(EXPERTS + SHARED) * HIDDEN * WIDTH];
    _Alignas(256) float scratch[TOKENS * LINES * HIDDEN + 64];
    _Alignas(256) float logits[TOKENS * EXPERTS];
    _Alignas(256) int32_t slots[ROWS];
    _Alignas(256) int32_t choices[TOKENS * CHOSEN], offsets[EXPERTS + 1], pairs[TOKENS * CHOSEN];
    _Alignas(256) int32_t active[4 * EXPERTS], active_count[1];
    _Alignas(256) float factors[TOKENS * CHOSEN];
};

static uint32_t launches;
static int (*launch)(struct rt_driver *d, const struct rt_launch *l, bool programmatic,
                     rt_dstream s);

static int count_launch(struct rt_driver *d, const struct rt_launch *l, bool programmatic,
                        rt_dstream s)
{
    launches++;
    return launch(d, l, programmatic, s);
}

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    uint64_t random = 5;
    const struct {
        uint16_t *to;
        size_t count;
    } all[] = {{r->x, TOKENS * HIDDEN}, {r->weights, (EXPERTS + SHARED) * HIDDEN * WIDTH}};
    for (size_t i = 0; i < 2; i++)
        for (size_t n = 0; n < all[i].count; n++)
            all[i].to[n] =
                rt_float_to_bf16((float)(int32_t)fixture_random(&random) * (0.5f / 2147483648.0f));
    for (size_t n = 0; n < TOKENS * EXPERTS; n++)
        r->logits[n] = (float)(int32_t)fixture_random(&random) * (2.0f / 2147483648.0f);
    for (int32_t row = 0; row < ROWS; row++)
        r->slots[row] = row == PADDING ? -1 : row;
    launch = r->ops->driver.launch;
    r->ops->driver.launch = count_launch;
    *state = r;
    return 0;
}

static struct rt_token_rows rows_of(const struct rig *r)
{
    return (struct rt_token_rows){.rows = ROWS, .query_len = QUERY_LEN, .slots = at(r->slots)};
}

static struct rt_routing routing_of(const struct rig *r)
{
    return (struct rt_routing){.choices = at(r->choices),
                               .weights = at(r->factors),
                               .offsets = at(r->offsets),
                               .pairs = at(r->pairs),
                               .active = at(r->active),
                               .active_count = at(r->active_count)};
}

/* kind 0: experts alone, 1: and shared ones, 2: a dense MLP. */
static struct rt_experts_shape shape_of(int kind)
{
    return (struct rt_experts_shape){.tokens = TOKENS,
                                     .hidden = HIDDEN,
                                     .width = WIDTH,
                                     .experts = kind < 2 ? EXPERTS : 0,
                                     .experts_per_token = kind < 2 ? CHOSEN : 0,
                                     .shared = kind == 0   ? 0
                                               : kind == 1 ? SHARED
                                                           : 1,
                                     .backend = RT_BACKEND_GENERIC};
}

/* All weights are of one tensor, the shared ones' behind the others'. */
static struct rt_expert_weights weights_of(const struct rig *r, bool shared)
{
    return (struct rt_expert_weights){at(r->weights + (shared ? EXPERTS * HIDDEN * WIDTH : 0)), 0,
                                      0};
}

static struct rt_experts_down_args down_args(const struct rig *r, int kind)
{
    const struct rt_experts_down_args a = {.struct_size = sizeof(a),
                                           .shape = shape_of(kind),
                                           .rows = rows_of(r),
                                           .routing = routing_of(r),
                                           .h = at(r->h),
                                           .out = at(r->out),
                                           .down = {weights_of(r, false), weights_of(r, true)},
                                           .behind_up = 1,
                                           .scratch = at(r->scratch)};
    return a;
}

static void must(const struct rig *r, enum rt_status status)
{
    if (status != RT_OK)
        fail_msg("%s", rt_ops_last_error(r->ops)->message);
}

/* What experts_down has in front of it, of all its tokens. */
static void run_up(struct rig *r, const struct rt_experts_down_args *down)
{
    struct rt_experts_shape shape = down->shape;
    shape.hidden = HIDDEN;
    shape.width = WIDTH;
    const struct rt_route_args route = {.struct_size = sizeof(route),
                                        .experts = EXPERTS,
                                        .experts_per_token = CHOSEN,
                                        .rows = down->rows,
                                        .logits = at(r->logits),
                                        .routing = routing_of(r)};
    const struct rt_experts_up_args up = {.struct_size = sizeof(up),
                                          .shape = shape,
                                          .routing = routing_of(r),
                                          .x = at(r->x),
                                          .h = at(r->h),
                                          .gate = {weights_of(r, false), weights_of(r, true)},
                                          .up = {weights_of(r, false), weights_of(r, true)}};
    must(r, rt_route(r->ops, &route, NULL));
    must(r, rt_experts_up(r->ops, &up, NULL));
}

/* How many launches it was; poison in front of it, and behind scratch. */
static uint32_t run_down(struct rig *r, const struct rt_experts_down_args *args)
{
    memset(r->out, POISON, sizeof(r->out));
    memset(r->scratch, POISON, sizeof(r->scratch));
    launches = 0;
    must(r, rt_experts_down(r->ops, args, NULL));
    for (size_t i = TOKENS * LINES * HIDDEN * sizeof(float); i < sizeof(r->scratch); i++)
        assert_int_equal(((const unsigned char *)r->scratch)[i], POISON);
    return launches;
}

static bool is_poison(const void *memory, size_t bytes)
{
    const unsigned char *byte = memory;
    for (size_t i = 0; i < bytes; i++)
        if (byte[i] != POISON)
            return false;
    return true;
}

/* Bit by bit by the C references; kernels add a token's products in another order. */
static void expect_same(const struct rig *r, const uint16_t *one, const uint16_t *two)
{
    const bool exact = r->ops->driver.caps.cc == 0;
    for (size_t i = 0; i < TOKENS * HIDDEN; i++) {
        const double a = (double)rt_bf16_to_float(one[i]), b = (double)rt_bf16_to_float(two[i]);
        if (exact ? one[i] != two[i] : !(fabs(a - b) <= fabs(a) * 0x1p-7 + 1e-3))
            fail_msg("token %zu, number %zu: %g and %g", i / HIDDEN, i % HIDDEN, a, b);
        if (i / HIDDEN / QUERY_LEN == PADDING)
            assert_true(a == 0 && b == 0);
    }
}

static void one_launch_or_two(void **state)
{
    struct rig *r = *state;
    static uint16_t one[TOKENS * HIDDEN];
    for (int kind = 0; kind < 3; kind++) {
        struct rt_experts_down_args args = down_args(r, kind);
        run_up(r, &args);
        args.scratch = 0;
        assert_int_equal(run_down(r, &args), 1);
        memcpy(one, r->out, sizeof(one));
        assert_false(is_poison(one, sizeof(one)));
        args.scratch = at(r->scratch);
        assert_int_equal(run_down(r, &args), 2);
        expect_same(r, one, r->out);
        /* A caller that was built before there was scratch. */
        args.struct_size = offsetof(struct rt_experts_down_args, scratch);
        assert_int_equal(run_down(r, &args), 1);
        assert_memory_equal(one, r->out, sizeof(one));
        assert_true(is_poison(r->scratch, sizeof(r->scratch)));
    }
}

/* Few tokens, and what the tensor cores do not take: one launch, and scratch is left alone. */
static void scratch_of_no_use(void **state)
{
    struct rig *r = *state;
    static uint16_t one[TOKENS * HIDDEN];
    for (int why = 0; why < 3; why++) {
        struct rt_experts_down_args args = down_args(r, 1);
        args.rows.query_len = why == 0 ? 1 : QUERY_LEN;
        args.shape.tokens = ROWS * args.rows.query_len;
        args.shape.width = why == 1 ? 68 : WIDTH;
        args.shape.hidden = why == 2 ? 132 : HIDDEN;
        args.h_place_stride = args.down[0].row_stride = args.down[1].row_stride = WIDTH;
        args.out_stride = HIDDEN;
        run_up(r, &args);
        assert_int_equal(run_down(r, &args), 1);
        assert_true(is_poison(r->scratch, sizeof(r->scratch)));
        memcpy(one, r->out, sizeof(one));
        args.scratch = 0;
        assert_int_equal(run_down(r, &args), 1);
        assert_memory_equal(one, r->out, sizeof(one));
    }
}

static void bytes(void **state)
{
    (void)state;
    struct rt_experts_shape shape = shape_of(1);
    struct rt_error error = {0};
    uint64_t found = 1;
    assert_int_equal(rt_experts_down_scratch(&shape, &found, NULL), RT_OK);
    assert_int_equal(found, TOKENS * LINES * HIDDEN * sizeof(float));
    shape = shape_of(2);
    shape.tokens = RT_MAX_TOKENS;
    shape.hidden = INT32_MAX;
    assert_int_equal(rt_experts_down_scratch(&shape, &found, NULL), RT_OK);
    assert_int_equal(found, UINT64_C(32768) * 4 * INT32_MAX);
    for (int why = 0; why < 3; why++) {
        shape = shape_of(0);
        shape.tokens = why == 0 ? 32 : TOKENS;
        shape.backend = why == 1 ? RT_BACKEND_SM90 : RT_BACKEND_AUTO;
        shape.precision = why == 2 ? RT_PRECISION_F32 : RT_PRECISION_BF16;
        found = 1;
        assert_int_equal(rt_experts_down_scratch(&shape, &found, NULL), RT_OK);
        assert_int_equal(found, 0);
    }
    found = 77;
    shape.precision = 2;
    assert_int_equal(rt_experts_down_scratch(&shape, &found, &error), RT_ERR_INVALID);
    assert_non_null(strstr(error.message, "rt_experts_down_scratch: precision 2 is not"));
    shape = shape_of(0);
    shape.tokens = 0;
    assert_int_equal(rt_experts_down_scratch(&shape, &found, &error), RT_ERR_INVALID);
    assert_non_null(strstr(error.message, "shape.tokens 0 is not 1..32768"));
    assert_int_equal(rt_experts_down_scratch(NULL, &found, &error), RT_ERR_INVALID);
    assert_non_null(strstr(error.message, "shape is null"));
    assert_int_equal(rt_experts_down_scratch(&shape, NULL, &error), RT_ERR_INVALID);
    assert_non_null(strstr(error.message, "bytes is null"));
    assert_int_equal(found, 77);
}

static enum rt_status do_down(rt_ops *ops, const void *args)
{
    return rt_experts_down(ops, args, NULL);
}

static void refusals(void **state)
{
    struct rig *r = *state;
    const struct rt_experts_down_args args = down_args(r, 1);
    const uint64_t end = at(r->scratch) + TOKENS * LINES * HIDDEN * sizeof(float);
#define BAD(member, value, words) MISTAKE(rt_experts_down_args, member, value, words)
    const struct mistake bad[] = {
        BAD(scratch, at(r->scratch) + 8, "scratch = 0x"),
        BAD(scratch, UINT64_MAX - 15, "scratch = 0xfffffffffffffff0, of 65280 bytes, leads out of"),
        BAD(scratch, at(r->out), "scratch = 0x"),
        BAD(scratch, at(r->out) + sizeof(r->out) - 16, "scratch = 0x"),
        BAD(scratch, at(r->weights), "and down[0] = 0x"),
        BAD(h, end - 16, "and h = 0x"),
        BAD(out, end - 16, "scratch = 0x"),
        BAD(down[1].address, end - 16, "and down[1] = 0x"),
        BAD(routing.choices, end - 4, "and routing.choices = 0x"),
        BAD(routing.weights, at(r->scratch), "and routing.weights = 0x"),
        BAD(routing.pairs, end - 4, "and routing.pairs = 0x"),
        BAD(rows.slots, end - 4, "and rows.slots = 0x"),
    };
#undef BAD
    memset(r->out, POISON, sizeof(r->out));
    memset(r->scratch, POISON, sizeof(r->scratch));
    launches = 0;
    REFUSE_ALL(r->ops, do_down, args, bad);
    assert_int_equal(launches, 0);
    assert_true(is_poison(r->out, sizeof(r->out)));
    assert_true(is_poison(r->scratch, sizeof(r->scratch)));
    /* Where it has no use it has no bytes, and may be anything that is aligned. */
    struct rt_experts_down_args few = args;
    few.rows.query_len = 1;
    few.shape.tokens = ROWS;
    few.scratch = at(r->out);
    run_up(r, &few);
    must(r, rt_experts_down(r->ops, &few, NULL));
}

/* Hopper's streams of weights take a few tokens better; asked for by name others have scratch. */
static void who(void **state)
{
    struct rig *r = *state;
    struct rt_experts_info info = {.struct_size = sizeof(info)};
    struct rt_experts_shape shape = shape_of(1);
    must(r, rt_experts_get_info(r->ops, &shape, &info));
    assert_string_equal(info.down_with_scratch, "rt_experts_down_pairs");
    shape.backend = RT_BACKEND_AUTO;
    must(r, rt_experts_get_info(r->ops, &shape, &info));
    assert_int_equal(info.down_with_scratch != NULL, r->ops->driver.caps.cc != 90);
    shape.tokens = 129;
    must(r, rt_experts_get_info(r->ops, &shape, &info));
    assert_string_equal(info.down_with_scratch, "rt_experts_down_pairs");
    shape.tokens = 32;
    must(r, rt_experts_get_info(r->ops, &shape, &info));
    assert_null(info.down_with_scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OP_TEST(one_launch_or_two),
        OP_TEST(scratch_of_no_use),
        OP_TEST(bytes),
        OP_TEST(refusals),
        OP_TEST(who),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
