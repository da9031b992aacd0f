/* SPDX-License-Identifier: Apache-2.0 */
/* Experts of many tokens: who takes them to the tensor cores, and with which grid. */
#include "kernels/abi/experts_many.h"
#include "kernels/op.h"
#include "tests/support/device_caps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct rt_device_caps tiny = {.kind = RT_DEVICE_KIND_CUDA,
                                           .name = "tiny",
                                           .cc = 80,
                                           .sm_count = 4,
                                           .smem_optin_bytes = 64 * 1024};
/* Room for down_many's sums of 128 tokens, and not for tiles. */
static const struct rt_device_caps close = {.kind = RT_DEVICE_KIND_CUDA,
                                            .name = "close",
                                            .cc = 86,
                                            .sm_count = 40,
                                            .smem_optin_bytes = 95 * 1024};
static const struct rt_kernels no_device = {0};

static struct rt_experts_up_params up_of(struct rt_experts_view work, uint32_t hidden,
                                         uint32_t width)
{
    return (struct rt_experts_up_params){.work = work, .hidden = hidden, .width = width};
}

static struct rt_experts_down_params down_of(struct rt_experts_view work, uint32_t hidden,
                                             uint32_t width)
{
    return (struct rt_experts_down_params){
        .work = work, .rows = {.count = work.tokens, .q_len = 1}, .hidden = hidden, .width = width};
}

/* Resolved, and built of it. */
static struct rt_launch choose(enum rt_op_id op, const struct rt_op_request *request,
                               struct rt_variant *v)
{
    const bool is_up = op == RT_OP_EXPERTS_UP;
    struct rt_work work;
    struct rt_error err = {0};
    if (rt_op_resolve(op, request, v, &err) != RT_OK)
        fail_msg("%s", err.message);
    if (rt_op_build(&no_device, v,
                    is_up ? (const void *)request->experts_up : request->experts_down,
                    is_up ? sizeof(*request->experts_up) : sizeof(*request->experts_down), &work,
                    &err) != RT_OK)
        fail_msg("%s: %s", v->reason, err.message);
    return work.launch;
}

/* V2-Lite's experts: 64, of which 6, and 2 shared ones. */
#define LITE(count)                                                                                \
    {                                                                                              \
        .tokens = (count), .experts = 64, .chosen = 6, .shared = 2                                 \
    }

static struct rt_experts_view lite(uint32_t tokens)
{
    return (struct rt_experts_view)LITE(tokens);
}

static void test_up(void **state)
{
    (void)state;
    static const struct {
        const struct rt_device_caps *caps;
        enum rt_backend backend;
        uint32_t tokens, hidden;
        const char *entry;
        uint32_t blocks; /* 0: whatever */
    } cases[] = {
        /* Rows in 22 tiles; 2 * 16 of shared experts, and (12288 - 64) / 128 + 64 of the others. */
        {&h200, RT_BACKEND_AUTO, 2048, 2048, "rt_experts_up_many", 22 * (32 + 95 + 64)},
        {&h200, RT_BACKEND_AUTO, 128, 2048, "rt_experts_sm90_up16", 0},
        {&h200, RT_BACKEND_AUTO, 129, 2044, "rt_experts_up", 0},
        {&h200, RT_BACKEND_GENERIC, 33, 2048, "rt_experts_up_many", 22 * (2 + 1 + 64)},
        {&h200, RT_BACKEND_GENERIC, 32, 2048, "rt_experts_up", 0},
        {&l40, RT_BACKEND_AUTO, 33, 2048, "rt_experts_up_many", 0},
        {&tiny, RT_BACKEND_AUTO, 33, 2048, "rt_experts_up", 0},
        {&host, RT_BACKEND_AUTO, 33, 2048, "rt_experts_up_many", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct rt_experts_up_params p = up_of(lite(cases[i].tokens), cases[i].hidden, 1408);
        const struct rt_op_request request = {
            .caps = cases[i].caps, .backend = cases[i].backend, .experts_up = &p};
        struct rt_variant v;
        const struct rt_launch l = choose(RT_OP_EXPERTS_UP, &request, &v);
        assert_string_equal(v.entry, cases[i].entry);
        assert_int_equal(strstr(v.reason, "tensor cores, tiles of 128 pairs") != NULL,
                         strstr(v.entry, "many") != NULL);
        if (cases[i].blocks)
            assert_int_equal(l.grid[0], cases[i].blocks);
    }
}

static void test_down(void **state)
{
    (void)state;
    static const struct {
        const struct rt_device_caps *caps;
        uint32_t tokens, hidden, width;
        const char *entry;
        uint32_t group, blocks;
    } cases[] = {
        {&h200, 2048, 2048, 1408, "rt_experts_down_many512", 512, 4 * 32},
        {&h200, 512, 2048, 1408, "rt_experts_down_many512", 128, 4 * 32},
        {&h200, 129, 2048, 1408, "rt_experts_down_many512", 64, 3 * 32},
        {&h200, 520, 7168, 2048, "rt_experts_down_many512", 320, 2 * 112},
        {&l40, 2048, 2048, 1408, "rt_experts_down_many128", 128, 16 * 32},
        {&l40, 2048, 63, 1408, "rt_experts_down_many128", 64, 32},
        {&h200, 2048, 2048, 1404, "rt_experts_down", 0, 0},
        {&tiny, 2048, 2048, 1408, "rt_experts_down", 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct rt_experts_down_params p =
            down_of(lite(cases[i].tokens), cases[i].hidden, cases[i].width);
        const struct rt_op_request request = {.caps = cases[i].caps, .experts_down = &p};
        struct rt_variant v;
        const struct rt_launch l = choose(RT_OP_EXPERTS_DOWN, &request, &v);
        assert_string_equal(v.entry, cases[i].entry);
        if (!cases[i].group)
            continue;
        struct rt_experts_down_many_params many;
        assert_int_equal(l.param_bytes, sizeof(many));
        memcpy(&many, l.params, sizeof(many));
        assert_int_equal(many.group, cases[i].group);
        assert_int_equal(l.grid[0], cases[i].blocks);
        assert_int_equal(l.smem_bytes, 3 * 16384 + cases[i].group * 256 + 64 * 12);
    }
}

/* Down in two launches: a tile of pairs or of the shared experts together by 128 rows, and a block
 * 1024 numbers of a token. */
static void test_pairs(void **state)
{
    (void)state;
    static const struct {
        const struct rt_device_caps *caps;
        enum rt_backend backend;
        struct rt_experts_view work;
        uint32_t hidden, width, pairs_blocks, sum_blocks; /* 0: refused */
        const char *why;
    } cases[] = {
        {&h200, RT_BACKEND_AUTO, LITE(2048), 2048, 1408, 16 * (16 + 95 + 64), 2 * 2048, ""},
        {&h200, RT_BACKEND_AUTO, LITE(129), 2048, 1408, 16 * (2 + 5 + 64), 2 * 129, ""},
        {&h200, RT_BACKEND_AUTO, {.tokens = 300, .shared = 1}, 1032, 64, 9 * 3, 2 * 300, ""},
        {&l40, RT_BACKEND_AUTO, LITE(33), 2048, 1408, 16 * (1 + 1 + 64), 2 * 33, ""},
        {&host, RT_BACKEND_AUTO, LITE(33), 2048, 1408, 16 * (1 + 1 + 64), 2 * 33, ""},
        {&h200, RT_BACKEND_AUTO, LITE(128), 2048, 1408, 0, 0, "rt_experts_sm90_down16x1"},
        {&h200, RT_BACKEND_GENERIC, LITE(32), 2048, 1408, 0, 0, "which rt_experts_down does"},
        {&h200, RT_BACKEND_AUTO, LITE(200), 2048, 1404, 0, 0, "which rt_experts_down does"},
        {&h200, RT_BACKEND_AUTO, LITE(200), 2044, 1408, 0, 0, "a multiple of 8 numbers, not 2044"},
        {&h200, RT_BACKEND_SM90, LITE(200), 2048, 1408, 0, 0, "up to 128 tokens"},
        {&close, RT_BACKEND_AUTO, LITE(200), 2048, 1408, 0, 0, "need 98304 bytes of shared"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int sum = 0; sum < 2; sum++) {
            const struct rt_experts_down_pairs_params p = {
                .down = down_of(cases[i].work, cases[i].hidden, cases[i].width)};
            const struct rt_op_request request = {
                .caps = cases[i].caps, .backend = cases[i].backend, .experts_down = &p.down};
            const enum rt_op_id op = sum ? RT_OP_EXPERTS_DOWN_SUM : RT_OP_EXPERTS_DOWN_PAIRS;
            struct rt_variant v;
            struct rt_work work;
            struct rt_error err = {0};
            const enum rt_status status = rt_op_resolve(op, &request, &v, &err);
            if (!cases[i].pairs_blocks) {
                assert_int_equal(status, RT_ERR_UNSUPPORTED);
                if (!strstr(err.message, cases[i].why))
                    fail_msg("\"%s\" does not say \"%s\"", err.message, cases[i].why);
                continue;
            }
            assert_int_equal(status, RT_OK);
            assert_int_equal(rt_op_build(&no_device, &v, &p, sizeof(p), &work, &err), RT_OK);
            assert_string_equal(v.entry, sum ? "rt_experts_down_sum" : "rt_experts_down_pairs");
            assert_non_null(strstr(v.reason, "tiles of 128 pairs, as there is scratch"));
            assert_int_equal(work.launch.grid[0],
                             sum ? cases[i].sum_blocks : cases[i].pairs_blocks);
            assert_int_equal(work.launch.smem_bytes, sum ? 0 : 98304);
        }
}

/* What is built may lie elsewhere than what was resolved, and no worse. */
static void test_pairs_not_built(void **state)
{
    (void)state;
    const struct rt_experts_down_pairs_params good = {.down = down_of(lite(200), 64, 64)};
    const struct rt_op_request request = {.caps = &h200, .experts_down = &good.down};
    static const char *const words[] = {"products is at 0x4", "out is at 0x4", "h is at 0x8",
                                        "100 rows of 1 tokens are not 200", "too many for one"};
    for (int fault = 0; fault < 5; fault++)
        for (int sum = 0; sum < 2; sum++) {
            struct rt_experts_down_pairs_params p = good;
            struct rt_variant v;
            struct rt_work work;
            struct rt_error err = {0};
            if (fault == 0)
                p.products = (float *)4;
            if (fault == 1)
                p.down.out = (uint16_t *)4;
            if (fault == 2)
                p.down.h.base = (void *)8;
            if (fault == 3)
                p.down.rows.count = 100;
            if (fault == 4) {
                p.down.work.tokens = p.down.rows.count = RT_MAX_TOKENS;
                p.down.hidden = INT32_MAX - 7;
            }
            assert_int_equal(rt_op_resolve(sum ? RT_OP_EXPERTS_DOWN_SUM : RT_OP_EXPERTS_DOWN_PAIRS,
                                           &request, &v, &err),
                             RT_OK);
            assert_int_equal(rt_op_build(&no_device, &v, &p, sizeof(p), &work, &err),
                             RT_ERR_INVALID);
            if (!strstr(err.message, words[fault]))
                fail_msg("\"%s\" does not say \"%s\"", err.message, words[fault]);
        }
}

/* f32 is the references' alone, and what is not aligned the scalar kernels'. */
static void test_not_taken(void **state)
{
    (void)state;
    for (int fault = 0; fault < 5; fault++) {
        struct rt_experts_up_params up = up_of(lite(200), 64, 64);
        struct rt_experts_down_params down = down_of(lite(200), 64, 64);
        up.is_f32 = down.is_f32 = fault == 0;
        if (fault == 1)
            up.h.base = (void *)2, down.out = (uint16_t *)2;
        if (fault == 2)
            up.h.place_stride = down.out_stride = 65;
        if (fault == 3)
            up.x_stride = down.h.token_stride = 65;
        if (fault == 4)
            up.gate[1].row_stride = down.down[1].row_stride = 65;
        const struct rt_op_request request = {
            .caps = &host, .experts_up = &up, .experts_down = &down};
        struct rt_variant v;
        (void)choose(RT_OP_EXPERTS_UP, &request, &v);
        assert_string_equal(v.entry, "rt_experts_up");
        (void)choose(RT_OP_EXPERTS_DOWN, &request, &v);
        assert_string_equal(v.entry, "rt_experts_down");
    }
}

/* What was resolved for other addresses, or of the other operator. */
static void test_not_built(void **state)
{
    (void)state;
    struct rt_experts_up_params up = up_of(lite(200), 64, 64);
    struct rt_experts_down_params down = down_of(lite(200), 64, 64);
    const struct rt_op_request request = {.caps = &h200, .experts_up = &up, .experts_down = &down};
    struct rt_variant of_up, of_down;
    struct rt_work work;
    struct rt_error err = {0};
    (void)choose(RT_OP_EXPERTS_UP, &request, &of_up);
    (void)choose(RT_OP_EXPERTS_DOWN, &request, &of_down);
    up.h.token_stride = 12;
    assert_int_equal(rt_op_build(&no_device, &of_up, &up, sizeof(up), &work, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "h token stride in elements is 12"));
    down.out = (uint16_t *)4;
    assert_int_equal(rt_op_build(&no_device, &of_down, &down, sizeof(down), &work, &err),
                     RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "out is at 0x4"));
    of_down.op = RT_OP_EXPERTS_UP;
    up.h.token_stride = 0;
    assert_int_equal(rt_op_build(&no_device, &of_down, &up, sizeof(up), &work, &err),
                     RT_ERR_INTERNAL);
    assert_non_null(strstr(err.message, "experts_up was planned as rt_experts_down_many512"));
    of_up.op = RT_OP_EXPERTS_DOWN;
    down.out = NULL;
    assert_int_equal(rt_op_build(&no_device, &of_up, &down, sizeof(down), &work, &err),
                     RT_ERR_INTERNAL);
    assert_non_null(strstr(err.message, "experts_down was planned as rt_experts_up_many"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_up),        cmocka_unit_test(test_down),
        cmocka_unit_test(test_pairs),     cmocka_unit_test(test_pairs_not_built),
        cmocka_unit_test(test_not_taken), cmocka_unit_test(test_not_built),
    };
    return cmocka_run_group_tests_name("experts_many", tests, NULL, NULL);
}
