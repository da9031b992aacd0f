/* SPDX-License-Identifier: Apache-2.0 */
/* merge: what it is launched with and refuses, and its truth in f32, which the host alone has. */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct rt_kernels no_device;

static enum rt_status build(const struct rt_merge_params *p, struct rt_launch *out,
                            struct rt_error *err)
{
    const struct rt_device_caps host = {.kind = RT_DEVICE_KIND_HOST};
    const struct rt_op_request request = {.caps = &host};
    struct rt_variant variant;
    struct rt_work work = {0};
    RT_TRY(rt_op_resolve(RT_OP_MERGE, &request, &variant, err));
    RT_TRY(rt_op_build(&no_device, &variant, p, sizeof(*p), &work, err));
    *out = work.launch;
    return RT_OK;
}

static struct rt_merge_params good(uint32_t v_dim)
{
    return (struct rt_merge_params){.in = {NULL, 40 * (int64_t)v_dim, 4 * (int64_t)v_dim, v_dim},
                                    .in_lse = {NULL, 40, 4, 1},
                                    .out = {NULL, 4 * (int64_t)v_dim, v_dim},
                                    .out_lse = {NULL, 4, 1},
                                    .pieces = 2,
                                    .tokens = 10,
                                    .heads = 4,
                                    .v_dim = v_dim};
}

/* 256 threads of as many lanes an item as 16 bytes each need, up to a warp. */
static void test_launch(void **state)
{
    static const uint32_t dims[][2] = {{8, 1}, {16, 1}, {64, 2}, {128, 3}, {192, 5}, {512, 5}};
    (void)state;
    for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
        const struct rt_merge_params p = good(dims[i][0]);
        struct rt_launch l = {0};
        assert_int_equal(build(&p, &l, NULL), RT_OK);
        assert_string_equal(l.entry, "rt_merge");
        assert_int_equal(l.grid[0], dims[i][1]);
        assert_int_equal(l.grid[1] * l.grid[2], 1);
        assert_int_equal(l.block[0], RT_MERGE_THREADS);
        assert_true(l.waits);
        assert_int_equal(l.address_mask, 1 | 1 << 4 | 1 << 8 | 1 << 11 | 1 << 14 | 1 << 15);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    struct rt_merge_params bad[14];
    static const char *const words[14] = {"0 pieces, not 1 to 64",
                                          "65 pieces,",
                                          "0 tokens, not 1 to 16777216",
                                          "16777217 tokens,",
                                          "0 heads, not 1 to 128",
                                          "129 heads,",
                                          "v_dim = 12 is not a multiple of 8 from 8 to 512",
                                          "v_dim = 520 is not",
                                          "in is at 0x8",
                                          "out is at 0x2",
                                          "in piece stride in elements is 9",
                                          "in head stride in elements is 4",
                                          "out token stride in elements is 12",
                                          "out head stride in elements is 1"};
    for (int i = 0; i < 14; i++)
        bad[i] = good(64);
    bad[0].pieces = 0;
    bad[1].pieces = 65;
    bad[2].tokens = 0;
    bad[3].tokens = RT_PREFILL_MOST_TOKENS + 1;
    bad[4].heads = 0;
    bad[5].heads = 129;
    bad[6].v_dim = 12;
    bad[7].v_dim = 520;
    bad[8].in.base = (void *)8;
    bad[9].out.base = (void *)2;
    bad[10].in.piece_stride = 9;
    bad[11].in.head_stride = 4;
    bad[12].out.token_stride = 12;
    bad[13].out.head_stride = 1;
    for (int i = 0; i < 14; i++) {
        struct rt_launch l = {0};
        struct rt_error err = {0};
        assert_int_equal(build(&bad[i], &l, &err), RT_ERR_INVALID);
        if (!strstr(err.message, words[i]))
            fail_msg("\"%s\" does not say \"%s\"", err.message, words[i]);
    }
}

/* One token, one head: 1 and 3 by weights that are as 1 to 3; and beside one that saw nothing. */
static void test_f32(void **state)
{
    float in[3][8], lse[3] = {(float)log(1), (float)log(3), INFINITY}, out[8], out_lse = 0;
    (void)state;
    for (int d = 0; d < 8; d++) {
        in[0][d] = 1 + 0x1p-20f;
        in[1][d] = 3;
        in[2][d] = NAN;
    }
    struct rt_merge_params p = {.in = {in, 8, 8, 8},
                                .in_lse = {lse, 1, 1, 1},
                                .out = {out, 8, 8},
                                .out_lse = {&out_lse, 1, 1},
                                .pieces = 3,
                                .tokens = 1,
                                .heads = 1,
                                .v_dim = 8,
                                .is_f32 = 1};
    rt_ref_merge(&p);
    for (int d = 0; d < 8; d++)
        assert_true(fabs((double)out[d] - (1 + 0x1p-20 + 9) / 4) < 1e-6);
    assert_true(fabs((double)out_lse - log(4)) < 1e-6);
    const float sink = (float)log(4); /* as heavy as all of them, and in no lse */
    p.sink = &sink;
    rt_ref_merge(&p);
    for (int d = 0; d < 8; d++)
        assert_true(fabs((double)out[d] - (1 + 0x1p-20 + 9) / 8) < 1e-6);
    assert_true(fabs((double)out_lse - log(4)) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launch),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_f32),
    };
    return cmocka_run_group_tests_name("merge", tests, NULL, NULL);
}
