/* SPDX-License-Identifier: Apache-2.0 */
/* rt_moe_block beside the operators that it is made of, where the device has it, and what it
 * refuses, by name. The same program runs with the CUDA kernels, emulated, where it must be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/gate_rig.h"

#define WIDTH 72
#define SHARED 1
#define PLACES (CHOSEN + SHARED)
#define EXCHANGE_WORDS 4096

/* What operators write. */
struct written {
    struct gate_written gate;
    uint16_t h[TOKENS * PLACES * WIDTH];
    _Alignas(16) uint16_t out[TOKENS * HIDDEN];
};

struct rig {
    rt_ops *ops;
    struct gate_read in;
    uint16_t gate_up[2][2 * EXPERTS * WIDTH * HIDDEN], down[2][EXPERTS * HIDDEN * WIDTH];
    _Alignas(16) uint32_t exchange[EXCHANGE_WORDS];
    struct written whole, apart;
};

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    uint64_t random = 5;
    gate_fill(&random, &r->in);
    for (int i = 0; i < 2; i++) {
        fill(&random, r->gate_up[i], sizeof(r->gate_up[i]) / sizeof(uint16_t));
        fill(&random, r->down[i], sizeof(r->down[i]) / sizeof(uint16_t));
    }
    memcpy(r->whole.gate.residual, r->in.residual, sizeof(r->in.residual));
    memcpy(r->apart.gate.residual, r->in.residual, sizeof(r->in.residual));
    *state = r;
    return 0;
}

static struct rt_experts_shape shape(void)
{
    return (struct rt_experts_shape){.tokens = TOKENS,
                                     .hidden = HIDDEN,
                                     .width = WIDTH,
                                     .experts = EXPERTS,
                                     .experts_per_token = CHOSEN,
                                     .shared = SHARED};
}

static struct rt_moe_block_args args_of(const struct rig *r, const struct written *w)
{
    const struct rt_gate_args gate = gate_args_of(&r->in, &w->gate);
    struct rt_moe_block_args args = {.struct_size = sizeof(args),
                                     .shape = shape(),
                                     .norm = gate.norm,
                                     .route = gate.route,
                                     .router = gate.router,
                                     .h = (uintptr_t)w->h,
                                     .out = (uintptr_t)w->out,
                                     .exchange = (uintptr_t)r->exchange};
    for (int i = 0; i < 2; i++) {
        args.gate[i].address = (uintptr_t)r->gate_up[i];
        args.up[i].address = (uintptr_t)(r->gate_up[i] + EXPERTS * WIDTH * HIDDEN);
        args.down[i].address = (uintptr_t)r->down[i];
    }
    return args;
}

static void run_apart(struct rig *r)
{
    const struct rt_moe_block_args a = args_of(r, &r->apart);
    const struct rt_gate_args gate = gate_args_of(&r->in, &r->apart.gate);
    const struct rt_experts_up_args up = {.struct_size = sizeof(up),
                                          .shape = a.shape,
                                          .routing = a.route.routing,
                                          .x = a.norm.normed,
                                          .h = a.h,
                                          .gate = {a.gate[0], a.gate[1]},
                                          .up = {a.up[0], a.up[1]}};
    const struct rt_experts_down_args down = {.struct_size = sizeof(down),
                                              .shape = a.shape,
                                              .rows = a.route.rows,
                                              .routing = a.route.routing,
                                              .h = a.h,
                                              .out = a.out,
                                              .down = {a.down[0], a.down[1]}};
    assert_int_equal(rt_gate(r->ops, &gate, NULL), RT_OK);
    assert_int_equal(rt_experts_up(r->ops, &up, NULL), RT_OK);
    assert_int_equal(rt_experts_down(r->ops, &down, NULL), RT_OK);
}

/* Sums have another order, so bits may differ by roundings: of x, of h, of what comes out. */
static void expect_close(const struct written *a, const struct written *b)
{
    double most = 0, off = 0;
    for (int i = 0; i < TOKENS * HIDDEN; i++) {
        const double x = (double)rt_bf16_to_float(a->out[i]);
        most = fmax(most, fabs(x));
        off = fmax(off, fabs(x - (double)rt_bf16_to_float(b->out[i])));
    }
    assert_true(most > 0);
    assert_true(off < most / 64);
}

/* Whether the device has it: the emulated one must. */
static bool is_served(struct rig *r)
{
    const struct rt_experts_shape s = shape();
    struct rt_moe_block_info info = {.struct_size = sizeof(info)};
    const enum rt_status status = rt_moe_block_get_info(r->ops, &s, &info);
#ifndef RT_TEST_EMULATED
    assert_int_equal(status, RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "sm90"));
#else
    assert_int_equal(status, RT_OK);
    assert_string_equal(info.kernel, "rt_moe_block_x4_4"); /* eight blocks have 24 rows each */
    assert_non_null(strstr(info.reason, "4 tokens"));
    assert_true(info.exchange_bytes >= 8 * TOKENS * EXPERTS);
    assert_true(info.exchange_bytes <= sizeof(r->exchange));
#endif
    return status == RT_OK;
}

/* Twice: the exchange is ready for the next launch. Then in place, without groups. */
static void as_its_parts(void **state)
{
    struct rig *r = *state;
    struct rt_moe_block_args args = args_of(r, &r->whole);
    if (!is_served(r)) {
        assert_int_equal(rt_moe_block(r->ops, &args, NULL), RT_ERR_UNSUPPORTED);
        return;
    }
    for (int round = 0; round < 2; round++) {
        assert_int_equal(rt_moe_block(r->ops, &args, NULL), RT_OK);
        run_apart(r);
        assert_memory_equal(r->whole.gate.residual, r->apart.gate.residual,
                            sizeof(r->whole.gate.residual));
        assert_memory_equal(r->whole.gate.choices, r->apart.gate.choices,
                            sizeof(r->whole.gate.choices));
        assert_int_equal(r->whole.gate.choices[CHOSEN], -1); /* of the padding */
        assert_int_equal(r->whole.gate.active_count, 0);     /* nobody's */
        expect_close(&r->whole, &r->apart);
    }
    args.out = args.norm.hidden;
    args.route.routing.offsets = args.route.routing.pairs = 0;
    args.route.routing.active = args.route.routing.active_count = 0;
    run_apart(r);
    assert_int_equal(rt_moe_block(r->ops, &args, NULL), RT_OK);
    memcpy(r->whole.out, r->in.hidden, sizeof(r->whole.out));
    expect_close(&r->whole, &r->apart);
}

/* In place too where strides differ, of a single token: nobody goes them. */
static void one_token_in_place(void **state)
{
    struct rig *r = *state;
    struct rt_moe_block_args args = args_of(r, &r->whole);
    args.shape.tokens = args.norm.tokens = args.route.rows.rows = 1;
    args.norm.stride = 2 * (int64_t)HIDDEN;
    if (!is_served(r))
        return;
    assert_int_equal(rt_moe_block(r->ops, &args, NULL), RT_OK);
    memcpy(r->whole.gate.residual, r->in.residual, sizeof(r->in.residual));
    args.out = args.norm.hidden;
    assert_int_equal(rt_moe_block(r->ops, &args, NULL), RT_OK);
    assert_memory_equal(r->in.hidden, r->whole.out, HIDDEN * sizeof(uint16_t));
    args.shape.tokens = args.norm.tokens = args.route.rows.rows = 2; /* of two somebody does */
    refused(r->ops, rt_moe_block(r->ops, &args, NULL), "and hidden = 0x");
}

/* A shared expert alone, and neither router nor routing. */
static void a_dense_one(void **state)
{
    struct rig *r = *state;
    struct rt_moe_block_args args = args_of(r, &r->whole);
    args.shape.experts = args.shape.experts_per_token = 0;
    args.route.routing = (struct rt_routing){0};
    args.route.logits = args.router = 0;
    const struct rt_moe_block_args a = args_of(r, &r->apart);
    const struct rt_experts_up_args up = {.struct_size = sizeof(up),
                                          .shape = args.shape,
                                          .x = a.norm.normed,
                                          .h = a.h,
                                          .gate = {a.gate[0], a.gate[1]},
                                          .up = {a.up[0], a.up[1]}};
    const struct rt_experts_down_args down = {.struct_size = sizeof(down),
                                              .shape = args.shape,
                                              .rows = a.route.rows,
                                              .h = a.h,
                                              .out = a.out,
                                              .down = {a.down[0], a.down[1]}};
    if (!is_served(r))
        return;
    assert_int_equal(rt_moe_block(r->ops, &args, NULL), RT_OK);
    assert_int_equal(rt_mla_input_norm(r->ops, &a.norm, NULL), RT_OK);
    assert_int_equal(rt_experts_up(r->ops, &up, NULL), RT_OK);
    assert_int_equal(rt_experts_down(r->ops, &down, NULL), RT_OK);
    expect_close(&r->whole, &r->apart);
}

static enum rt_status run(rt_ops *ops, const void *args)
{
    return rt_moe_block(ops, args, NULL);
}

static void refusals(void **state)
{
    struct rig *r = *state;
    const struct rt_moe_block_args good = args_of(r, &r->whole);
    const struct written before = r->whole;
    uint32_t exchange[EXCHANGE_WORDS];
    memcpy(exchange, r->exchange, sizeof(exchange));
#define BAD(member, value, words) MISTAKE(rt_moe_block_args, member, value, words)
    const struct mistake bad[] = {
        BAD(struct_size, 3, "rt_moe_block: args->struct_size is 3"),
        BAD(reserved, 5, "rt_moe_block: reserved is 5, not 0"),
        BAD(norm.struct_size, 7, "rt_moe_block: norm.struct_size is 7, not "),
        BAD(route.struct_size, 9, "rt_moe_block: route.struct_size is 9, not "),
        BAD(norm.tokens, 2, "rt_moe_block: norm.tokens 2, but shape.tokens 4"),
        BAD(norm.norm.width, 184, "rt_moe_block: norm.norm.width 184, but shape.hidden 192"),
        BAD(norm.precision, 1, "rt_moe_block: norm.precision 1, but shape.precision 0"),
        BAD(route.experts, 11, "rt_moe_block: route.experts 11, but shape.experts 12"),
        BAD(route.experts_per_token, 4, "rt_moe_block: route.experts_per_token 4, but shape."),
        BAD(route.rows.rows, 2, "rt_moe_block: shape.tokens 4 is not rows.rows 2"),
        BAD(norm.hidden, 0, "rt_moe_block: hidden is null"),
        BAD(router, 0, "rt_moe_block: router is null"),
        BAD(router_stride, 12, "rt_moe_block: router_stride = 12 is not a non-negative multiple"),
        BAD(h, 0, "rt_moe_block: h is null"),
        BAD(out, (uintptr_t)r->whole.out + 2, "rt_moe_block: out = 0x"),
        BAD(gate[0].address, 0, "rt_moe_block: gate[0].address is null"),
        BAD(down[1].row_stride, 4, "rt_moe_block: down[1].row_stride = 4"),
        BAD(exchange, 0, "rt_moe_block: exchange is null"),
        BAD(exchange, (uintptr_t)r->exchange + 8, "rt_moe_block: exchange = 0x"),
        BAD(route.routing.choices, 0, "rt_moe_block: routing.choices is null"),
        BAD(out, at(r->whole.gate.normed), "normed = 0x"),
        BAD(out, at(r->whole.gate.residual), "residual = 0x"),
        BAD(out, good.norm.hidden + 16, "and hidden = 0x"),
        BAD(h, at(r->whole.out), "out = 0x"),
        BAD(exchange, at(r->whole.h), "h = 0x"),
        BAD(up[1].address, at(r->whole.h), "and up[1] = 0x"),
        BAD(route.rows.slots, at(r->whole.gate.weights), "and rows.slots = 0x"),
        BAD(router, at(r->exchange), "and router = 0x"),
    };
#undef BAD
    REFUSE_ALL(r->ops, run, good, bad);
    assert_memory_equal(&r->whole, &before, sizeof(r->whole));
    assert_memory_equal(r->exchange, exchange, sizeof(exchange));
}

static void what_is_asked(void **state)
{
    struct rig *r = *state;
    const struct rt_experts_shape good = shape();
    struct rt_experts_shape s = good;
    struct rt_moe_block_info info = {.struct_size = sizeof(info)};
    s.tokens = 5;
    assert_int_equal(rt_moe_block_get_info(r->ops, &s, &info), RT_ERR_UNSUPPORTED);
    s = good;
    s.experts = 4000;
    assert_int_equal(rt_moe_block_get_info(r->ops, &s, &info), RT_ERR_INVALID);
    s = good;
    s.backend = RT_BACKEND_GENERIC;
    assert_int_equal(rt_moe_block_get_info(r->ops, &s, &info), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "no generic kernel"));
    assert_int_equal(rt_moe_block_get_info(r->ops, NULL, &info), RT_ERR_INVALID);
    assert_int_equal(rt_moe_block_get_info(r->ops, &good, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_moe_block_get_info(NULL, &good, &info), RT_ERR_INVALID);
    assert_int_equal(rt_moe_block(NULL, NULL, NULL), RT_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OP_TEST(as_its_parts), OP_TEST(one_token_in_place), OP_TEST(a_dense_one),
        OP_TEST(refusals),     OP_TEST(what_is_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
