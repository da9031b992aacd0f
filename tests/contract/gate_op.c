/* SPDX-License-Identifier: Apache-2.0 */
/* rt_gate beside the operators that it is made of, bit for bit, and what it refuses, by name. The
 * same program runs with the CUDA kernels, emulated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/gate_rig.h"

#define POISON 0xa5

struct rig {
    rt_ops *ops;
    struct gate_read in;
    struct gate_written gate, apart;
};

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    uint64_t random = 5;
    memset(&r->gate, POISON, sizeof(r->gate));
    memset(&r->apart, POISON, sizeof(r->apart));
    gate_fill(&random, &r->in);
    memcpy(r->gate.residual, r->in.residual, sizeof(r->in.residual));
    memcpy(r->apart.residual, r->in.residual, sizeof(r->in.residual));
    *state = r;
    return 0;
}

/* Twice: what counts the blocks is ready for the next launch. */
static void as_its_parts(void **state)
{
    struct rig *r = *state;
    const struct rt_gate_args gate = gate_args_of(&r->in, &r->gate),
                              apart = gate_args_of(&r->in, &r->apart);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(rt_gate(r->ops, &gate, NULL), RT_OK);
        assert_int_equal(rt_mla_input_norm(r->ops, &apart.norm, NULL), RT_OK);
        memcpy(r->apart.logits, r->gate.logits, sizeof(r->apart.logits));
        assert_int_equal(rt_route(r->ops, &apart.route, NULL), RT_OK);
        assert_memory_equal(&r->gate, &r->apart, sizeof(r->gate));
        assert_int_equal(r->in.arrivals, 0);
    }
    assert_int_equal(r->gate.choices[CHOSEN], -1); /* of the padding */
}

static enum rt_status run(rt_ops *ops, const void *args)
{
    return rt_gate(ops, args, NULL);
}

static void refusals(void **state)
{
    struct rig *r = *state;
    const struct rt_gate_args good = gate_args_of(&r->in, &r->gate);
#define BAD(member, value, words) MISTAKE(rt_gate_args, member, value, words)
    const struct mistake bad[] = {
        BAD(struct_size, 3, "rt_gate: args->struct_size is 3"),
        BAD(reserved, 5, "rt_gate: reserved is 5, not 0"),
        BAD(norm.reserved, 6, "rt_gate: reserved is 6, not 0"),
        BAD(route.reserved, 7, "rt_gate: reserved is 7, not 0"),
        BAD(norm.struct_size, 7, "rt_gate: norm.struct_size is 7, not "),
        BAD(route.struct_size, 9, "rt_gate: route.struct_size is 9, not "),
        BAD(norm.tokens, 3, "rt_gate: norm.tokens 3, but 4 rows of query_len 1"),
        BAD(norm.hidden, 0, "rt_gate: hidden is null"),
        BAD(norm.normed, good.norm.residual, "rt_gate: "),
        BAD(route.experts, 0, "rt_gate: experts 0 is not 1..1024"),
        BAD(router, 0, "rt_gate: router is null"),
        BAD(router, (uintptr_t)r->in.router + 2, "rt_gate: router = 0x"),
        BAD(router_stride, 12, "rt_gate: router_stride = 12 is not a non-negative multiple of 8"),
        BAD(arrivals, 0, "rt_gate: arrivals is null"),
        BAD(arrivals, (uintptr_t)&r->in.arrivals + 1, "rt_gate: arrivals = 0x"),
        BAD(norm.normed, good.norm.hidden + 16, "and hidden = 0x"),
        BAD(norm.norm.weight, good.norm.residual, "and norm.weight = 0x"),
        BAD(norm.hidden, at(r->gate.choices) / 16 * 16, "and hidden = 0x"),
        BAD(route.logits, at(r->gate.normed), "normed = 0x"),
        BAD(route.logits, at(r->gate.weights), "and logits = 0x"),
        BAD(route.bias, at(r->gate.logits), "and bias = 0x"),
        BAD(route.logit_stride, EXPERTS - 1, "logit_stride of logits leads 44 bytes on, of which"),
        BAD(route.rows.slots, at(&r->gate.active_count), "and rows.slots = 0x"),
        BAD(route.routing.pairs, at(r->gate.offsets), "and routing.pairs = 0x"),
        BAD(router, at(r->gate.residual), "and router = 0x"),
        BAD(router, at(r->gate.logits) / 16 * 16, "and router = 0x"),
        BAD(router_stride, HIDDEN - 8, "router_stride of router leads 368 bytes on, of which 384"),
        BAD(arrivals, at(r->in.router), "and router = 0x"),
        BAD(arrivals, at(r->gate.offsets), "and arrivals = 0x"),
    };
#undef BAD
    REFUSE_ALL(r->ops, run, good, bad);
    assert_memory_equal(&r->gate, &r->apart, sizeof(r->gate));
    assert_int_equal(r->in.arrivals, 0);
}

/* One more token than there are lanes for their pairs. */
static void more_than_fit(void **state)
{
    struct rig *r = *state;
    struct rt_gate_args args = gate_args_of(&r->in, &r->gate);
    args.route.experts_per_token = 9;
    assert_int_equal(rt_gate(r->ops, &args, NULL), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message,
                           "4 tokens of 192 numbers, each to 9 of 12 experts"));
    assert_int_equal(rt_gate_tokens(HIDDEN, EXPERTS, 9), 3);
    assert_int_equal(rt_gate_tokens(4096, 512, 8), 4);
    assert_int_equal(rt_gate_tokens(4104, 512, 8), 2);
    assert_int_equal(rt_gate_tokens(8200, 512, 8), 0);
    assert_int_equal(rt_gate_tokens(4096, 513, 8), 0);
    assert_int_equal(rt_gate_tokens(4096, 512, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OP_TEST(as_its_parts),
        OP_TEST(refusals),
        OP_TEST(more_than_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
