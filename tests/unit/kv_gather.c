/* SPDX-License-Identifier: Apache-2.0 */
/* kv_gather: which row a token is of, what it is launched with, and what it refuses. */
#include "kernels/ops/op_build.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct rt_kernels no_device;

static enum rt_status build(const struct rt_kv_gather_params *p, struct rt_launch *out,
                            struct rt_error *err)
{
    const struct rt_device_caps host = {.kind = RT_DEVICE_KIND_HOST};
    const struct rt_op_request request = {.caps = &host};
    struct rt_variant variant;
    struct rt_work work = {0};
    RT_TRY(rt_op_resolve(RT_OP_KV_GATHER, &request, &variant, err));
    RT_TRY(rt_op_build(&no_device, &variant, p, sizeof(*p), &work, err));
    *out = work.launch;
    return RT_OK;
}

static const struct rt_kv_gather_params good = {.kv = {.page_stride_bytes = 64 * 1152,
                                                       .token_stride_bytes = 1152,
                                                       .page_size = 64,
                                                       .max_blocks = 9,
                                                       .pages = 100,
                                                       .token_bytes = 1152},
                                                .rows = 3,
                                                .count = 8192};

/* Rows without a token are no token's, and offsets that fall lead out of no bounds. */
static void test_row(void **state)
{
    static const int32_t first[] = {2, 2, 5, 5, 5, 6}, falling[] = {0, 90, -7, 50, 100};
    static const uint32_t rows[] = {1, 1, 1, 4};
    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(rt_kv_gather_row(first, 5, 2 + i), rows[i]);
    for (int64_t token = 0; token < 100; token++) {
        const uint32_t row = rt_kv_gather_row(falling, 4, token);
        assert_true(row < 4 && falling[row] <= token && token < falling[row + 1]);
    }
}

/* 1024 vectors of 16 bytes a block, the last block's among them. */
static void test_launch(void **state)
{
    static const uint32_t counts[][2] = {{8192, 576}, {1, 1}, {14, 1}, {15, 2}};
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct rt_kv_gather_params p = good;
        struct rt_launch l = {0};
        p.count = counts[i][0];
        assert_int_equal(build(&p, &l, NULL), RT_OK);
        assert_string_equal(l.entry, "rt_kv_gather");
        assert_int_equal(l.grid[0], counts[i][1]);
        assert_int_equal(l.grid[1] * l.grid[2], 1);
        assert_int_equal(l.block[0], RT_KV_GATHER_THREADS);
        assert_true(l.waits);
        assert_int_equal(l.address_mask, 0x3c3); /* base, table; slot, first, position, out */
    }
}

static void test_refusals(void **state)
{
    (void)state;
    struct rt_kv_gather_params bad[13];
    static const char *const words[13] = {"0 rows to gather, not 1 to 512",
                                          "513 rows to gather",
                                          "0 tokens to gather, not 1 to 16777216",
                                          "16777217 tokens to gather",
                                          "8192 tokens to gather from 2147475456 on",
                                          "pages of 0 tokens",
                                          "tokens of 0 bytes to gather, not 16 to 65536",
                                          "tokens of 65552 bytes",
                                          "kv bytes of a token is 40",
                                          "kv is at 0x8",
                                          "kv page stride in bytes is 8",
                                          "kv token stride in bytes is 1160",
                                          "out is at 0x4"};
    for (int i = 0; i < 13; i++)
        bad[i] = good;
    bad[0].rows = 0;
    bad[1].rows = 513;
    bad[2].count = 0;
    bad[3].count = RT_PREFILL_MOST_TOKENS + 1;
    bad[4].begin = INT32_MAX - 8191;
    bad[5].kv.page_size = 0;
    bad[6].kv.token_bytes = 0;
    bad[7].kv.token_bytes = RT_KV_GATHER_MOST_BYTES + 16;
    bad[8].kv.token_bytes = 40;
    bad[9].kv.base = (void *)8;
    bad[10].kv.page_stride_bytes = 8;
    bad[11].kv.token_stride_bytes = 1160;
    bad[12].out = (void *)4;
    for (int i = 0; i < 13; i++) {
        struct rt_launch l = {0};
        struct rt_error err = {0};
        assert_int_equal(build(&bad[i], &l, &err), RT_ERR_INVALID);
        if (!strstr(err.message, words[i]))
            fail_msg("\"%s\" does not say \"%s\"", err.message, words[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row),
        cmocka_unit_test(test_launch),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("kv_gather", tests, NULL, NULL);
}
