/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels serve the two products of experts. */
#include "kernels/abi/experts.h"
#include "kernels/op.h"
#include "tests/support/device_caps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* One shared expert of m tokens, packed: vectors of k numbers, a weight of `rows` for the half. */
struct half {
    struct rt_experts_up_params up;
    struct rt_experts_down_params down;
    struct rt_op_request request;
    enum rt_op_id op;
};

static struct rt_op_request *half_of(struct half *h, enum rt_op_id op, uint32_t m, uint32_t k,
                                     uint32_t rows)
{
    const bool is_up = op == RT_OP_EXPERTS_UP;
    const uint32_t hidden = is_up ? k : rows, width = is_up ? rows : k;
    const struct rt_expert_weight_view w = {NULL, (int64_t)k * rows, k};
    const uint32_t q_len = m % 2 ? 1 : 2;
    h->op = op;
    h->up = (struct rt_experts_up_params){.work = {.tokens = m, .shared = 1},
                                          .h = {NULL, width, width},
                                          .gate[1] = w,
                                          .up[1] = w,
                                          .x_stride = hidden,
                                          .hidden = hidden,
                                          .width = width};
    h->down = (struct rt_experts_down_params){.work = h->up.work,
                                              .rows = {.count = m / q_len, .q_len = q_len},
                                              .h = h->up.h,
                                              .down[1] = w,
                                              .out_stride = hidden,
                                              .hidden = hidden,
                                              .width = width};
    h->request =
        (struct rt_op_request){.caps = &h200, .experts_up = &h->up, .experts_down = &h->down};
    return &h->request;
}

static void expect_experts(const struct half *h, const char *entry, const char *reason)
{
    struct rt_variant choice = {0};
    struct rt_error err = {0};
    if (rt_op_resolve(h->op, &h->request, &choice, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(choice.entry, entry);
    assert_int_equal(choice.backend, strstr(entry, "sm90") ? RT_BACKEND_SM90 : RT_BACKEND_GENERIC);
    if (!strstr(choice.reason, reason))
        fail_msg("\"%s\" does not say \"%s\"", choice.reason, reason);
    /* What was chosen is built. */
    struct rt_work work;
    const struct rt_kernels no_device = {0};
    const bool is_up = h->op == RT_OP_EXPERTS_UP;
    if (rt_op_build(&no_device, &choice, is_up ? (const void *)&h->up : &h->down,
                    is_up ? sizeof(h->up) : sizeof(h->down), &work, &err) != RT_OK)
        fail_msg("%s: %s", choice.reason, err.message);
}

/* By tokens, and of the second product by a block's share of its rows. */
static void test_experts(void **state)
{
    (void)state;
    static const struct {
        enum rt_op_id op;
        uint32_t m, k, rows;
        const char *entry;
    } cases[] = {
        {RT_OP_EXPERTS_UP, 1, 2048, 1408, "rt_experts_sm90_up_few"},
        {RT_OP_EXPERTS_UP, 8, 7168, 2048, "rt_experts_sm90_up_few"},
        {RT_OP_EXPERTS_UP, 9, 2048, 1408, "rt_experts_sm90_up16"},
        {RT_OP_EXPERTS_UP, 128, 2048, 9, "rt_experts_sm90_up16"},
        {RT_OP_EXPERTS_UP, 129, 2048, 9, "rt_experts_up"},
        {RT_OP_EXPERTS_DOWN, 8, 1408, 2048, "rt_experts_sm90_down_few_x1"},
        {RT_OP_EXPERTS_DOWN, 8, 2048, 7168, "rt_experts_sm90_down_few_x4"},
        {RT_OP_EXPERTS_DOWN, 64, 1408, 2048, "rt_experts_sm90_down16x1"},
        {RT_OP_EXPERTS_DOWN, 64, 2048, 7168, "rt_experts_sm90_down16x4"},
        {RT_OP_EXPERTS_DOWN, 64, 2044, 7168, "rt_experts_down"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct half h;
        half_of(&h, cases[i].op, cases[i].m, cases[i].k, cases[i].rows);
        expect_experts(&h, cases[i].entry, strstr(cases[i].entry, "sm90") ? "sm90" : "not sm90");
    }
    for (int op = RT_OP_EXPERTS_UP; op <= RT_OP_EXPERTS_DOWN; op++) {
        struct rt_variant choice = {.parts = 77};
        const struct rt_op_request nothing = {.caps = &h200};
        assert_int_equal(rt_op_resolve((enum rt_op_id)op, &nothing, &choice, NULL), RT_OK);
        assert_int_equal(choice.backend, RT_BACKEND_GENERIC);
        assert_non_null(strstr(choice.reason, "nothing is known"));
    }
}

/* Slices by what an expert has of the tokens, not by all of them; and by what shared ones have. */
static void test_experts_slices(void **state)
{
    (void)state;
    static const struct {
        struct rt_experts_view work;
        const char *up, *down;
    } cases[] = {
        {{.tokens = 8, .experts = 64, .chosen = 9, .shared = 2}, /* few, but not their choices */
         "rt_experts_sm90_up8",
         "rt_experts_sm90_down8x1"},
        {{.tokens = 32, .experts = 64, .chosen = 6, .shared = 2},
         "rt_experts_sm90_up8",
         "rt_experts_sm90_down8x1"},
        {{.tokens = 128, .experts = 64, .chosen = 6, .shared = 2},
         "rt_experts_sm90_up16",
         "rt_experts_sm90_down16x1"},
        {{.tokens = 64, .experts = 64, .chosen = 6, .shared = 2},
         "rt_experts_sm90_up16",
         "rt_experts_sm90_down16x1"},
        {{.tokens = 64, .experts = 256, .chosen = 8, .shared = 1},
         "rt_experts_sm90_up8",
         "rt_experts_sm90_down8x1"},
        {{.tokens = 16, .experts = 4, .chosen = 2, .shared = 8},
         "rt_experts_sm90_up16",
         "rt_experts_sm90_down16x1"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct half h;
        half_of(&h, RT_OP_EXPERTS_UP, cases[i].work.tokens, 2048, 1408);
        h.up.work = cases[i].work;
        expect_experts(&h, cases[i].up, "slices of");
        half_of(&h, RT_OP_EXPERTS_DOWN, cases[i].work.tokens, 1408, 2048);
        h.down.work = cases[i].work;
        expect_experts(&h, cases[i].down, "slices of");
    }
}

/* Up to 8 tokens with up to 64 choices, and as many as there are where none is chosen. */
static void test_experts_few(void **state)
{
    (void)state;
    static const struct rt_experts_view works[] = {
        {.tokens = 1, .experts = 64, .chosen = 32, .shared = 2},
        {.tokens = 8, .experts = 256, .chosen = 8, .shared = 1},
        {.tokens = 8, .chosen = 9, .shared = 1},
    };
    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
        char reason[64];
        struct half h;
        (void)snprintf(reason, sizeof(reason), "sm90, %u tokens side by side, 132 blocks",
                       works[i].tokens);
        half_of(&h, RT_OP_EXPERTS_UP, works[i].tokens, 2048, 1408);
        h.up.work = works[i];
        expect_experts(&h, "rt_experts_sm90_up_few", reason);
        half_of(&h, RT_OP_EXPERTS_DOWN, works[i].tokens, 1408, 2048);
        h.down.work = works[i];
        expect_experts(&h, "rt_experts_sm90_down_few_x1", reason);
    }
}

/* What one kernel does not take, auto gives to the other; asked for by name it is refused. */
static void experts_fall_back(const struct half *like, const char *why)
{
    const char *const generic = like->op == RT_OP_EXPERTS_UP ? "rt_experts_up" : "rt_experts_down";
    struct half h = *like;
    h.request.experts_up = &h.up;
    h.request.experts_down = &h.down;
    expect_experts(&h, generic, why);
    struct rt_variant choice = {.parts = 77};
    struct rt_error err = {0};
    h.request.backend = RT_BACKEND_SM90;
    assert_int_equal(rt_op_resolve(h.op, &h.request, &choice, &err), RT_ERR_UNSUPPORTED);
    if (!strstr(err.message, why))
        fail_msg("\"%s\" does not say \"%s\"", err.message, why);
    assert_int_equal(choice.parts, 77);
    h.request.backend = RT_BACKEND_GENERIC;
    expect_experts(&h, generic, "generic as asked for");
}

static void test_experts_fall_back(void **state)
{
    (void)state;
    struct half h;
    for (int i = RT_OP_EXPERTS_UP; i <= RT_OP_EXPERTS_DOWN; i++) {
        const enum rt_op_id op = (enum rt_op_id)i;
        half_of(&h, op, 1, 64, 48)->caps = &l40;
        experts_fall_back(&h, "compute capability 9.0");
        half_of(&h, op, 129, 60, 48);
        experts_fall_back(&h, "up to 128 tokens to experts, not 129");
        half_of(&h, op, 1, 63, 48);
        experts_fall_back(&h, "not 63");
        half_of(&h, op, 1, 64, 48);
        h.up.is_f32 = h.down.is_f32 = 1;
        experts_fall_back(&h, "bf16 to experts, not f32");
    }
    half_of(&h, RT_OP_EXPERTS_UP, 1, 64, 48);
    h.up.x_stride = 68;
    experts_fall_back(&h, "backend sm90: x stride in elements is 68");
    h.up.x_stride = 64;
    h.up.x = (const uint16_t *)8;
    experts_fall_back(&h, "backend sm90: x is at 0x8");
    h.up.x = NULL;
    h.up.up[1].row_stride = 65;
    experts_fall_back(&h, "backend sm90: up row stride in elements is 65");
    h.up.up[1].row_stride = 64;
    h.up.gate[0].base = (const uint16_t *)2;
    experts_fall_back(&h, "backend sm90: gate is at 0x2");
    half_of(&h, RT_OP_EXPERTS_DOWN, 1, 64, 48);
    h.down.h.token_stride = 66;
    experts_fall_back(&h, "backend sm90: h token stride in elements is 66");
    h.down.h.token_stride = 64;
    h.down.h.base = (void *)4;
    experts_fall_back(&h, "backend sm90: h is at 0x4");
    h.down.h.base = NULL;
    h.down.down[1].expert_stride = 3;
    experts_fall_back(&h, "backend sm90: down expert stride in elements is 3");
}

/* What nobody serves is refused whoever is asked. */
static void test_no_experts(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2 * 5 * 3; i++) {
        struct half h;
        struct rt_variant choice;
        struct rt_op_request *r =
            half_of(&h, i % 2 ? RT_OP_EXPERTS_UP : RT_OP_EXPERTS_DOWN, 2, 64, 48);
        const uint32_t fault = i / 2 % 5;
        h.up.work.shared = h.down.work.shared = fault == 0 ? 0 : 1;
        h.up.work.experts = h.down.work.experts = fault == 1 ? 4 : 0; /* of which none is chosen */
        h.up.hidden = h.down.hidden = fault == 2 ? 0 : 64;
        h.up.work.tokens = h.down.work.tokens = fault == 3 ? 100000 : 2;
        h.up.work.groups.active = h.down.work.groups.active =
            fault == 4 ? (struct rt_expert_group *)8 : NULL;
        r->backend = (enum rt_backend)(i / 10);
        assert_int_equal(rt_op_resolve(h.op, r, &choice, NULL), RT_ERR_INVALID);
    }
    struct half h;
    struct rt_variant choice;
    struct rt_error err = {0};
    half_of(&h, RT_OP_EXPERTS_UP, 1, 8, 8)->backend = (enum rt_backend)9;
    assert_int_equal(rt_op_resolve(h.op, &h.request, &choice, &err), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "backend 9 is not known"));
    /* A grid of more blocks than a launch has: the generic kernel alone would have to. */
    half_of(&h, RT_OP_EXPERTS_DOWN, 129, 8, INT32_MAX);
    assert_int_equal(rt_op_resolve(h.op, &h.request, &choice, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "129 tokens of 2147483647 numbers are too many"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_experts),     cmocka_unit_test(test_experts_slices),
        cmocka_unit_test(test_experts_few), cmocka_unit_test(test_experts_fall_back),
        cmocka_unit_test(test_no_experts),
    };
    return cmocka_run_group_tests_name("resolve_experts", tests, NULL, NULL);
}
