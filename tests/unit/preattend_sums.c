/* SPDX-License-Identifier: Apache-2.0 */
/* preattend_sums beside preattend, whose parameters it begins with: the same grid, two addresses
 * more, and what it refuses. */
#include "kernels/abi/preattend_sums.h"
#include "kernels/ops/op_build.h"
#include "tests/unit/build_op.h"

#include <string.h>

static const uint16_t weight[8];

static struct rt_preattend_sums_params good(void)
{
    return (struct rt_preattend_sums_params){
        .preattend = {.rows = {.count = 3, .q_len = 2},
                      .kv = {.page_stride_bytes = 64 * 1152,
                             .token_stride_bytes = 1152,
                             .page_size = 64,
                             .token_bytes = 1152},
                      .q_a = {(void *)16, 2 * 2112, 2112},
                      .kv_a = {(void *)32, 2 * 2112, 2112},
                      .q_a_norm = {.weight = weight, .width = 1536},
                      .kv_a_norm = {.weight = weight, .width = 512},
                      .heads = 16,
                      .nope_dim = 128,
                      .latent_dim = 512,
                      .rope_dim = 64},
        .sums = {.q_a = (void *)16, .kv_a = (void *)32, .stride = 4, .parts = 4}};
}

static void test_build(void **state)
{
    (void)state;
    const struct rt_preattend_sums_params p = good();
    struct rt_launch l = {0}, plain = {0};
    assert_int_equal(build(RT_OP_PREATTEND_SUMS, &p, sizeof(p), &l, NULL), RT_OK);
    assert_int_equal(build(RT_OP_PREATTEND, &p.preattend, sizeof(p.preattend), &plain, NULL),
                     RT_OK);
    assert_string_equal(l.entry, "rt_preattend_sums");
    assert_int_equal(l.grid[0], plain.grid[0]);
    assert_int_equal(l.block[0], plain.block[0]);
    assert_true(l.address_mask ==
                (plain.address_mask | RT_ADDRESS(struct rt_preattend_sums_params, sums.q_a) |
                 RT_ADDRESS(struct rt_preattend_sums_params, sums.kv_a)));
}

static void refused(const struct rt_preattend_sums_params *bad, const char *words)
{
    refuse(RT_OP_PREATTEND_SUMS, bad, sizeof(*bad), words);
}

static void test_refused(void **state)
{
    (void)state;
    struct rt_preattend_sums_params bad = good();
    bad.sums.parts = 0;
    refused(&bad, "preattend_sums of 0 parts");
    bad.sums.parts = RT_PREATTEND_MOST_PARTS + 1;
    refused(&bad, "preattend_sums of 5 parts, f32 0: 1 to 4, and of bf16");
    bad = good();
    bad.preattend.is_f32 = 1;
    bad.preattend.kv.token_bytes *= 2;
    bad.preattend.kv.token_stride_bytes *= 2;
    bad.preattend.kv.page_stride_bytes *= 2;
    refused(&bad, "f32 1: 1 to 4, and of bf16");
    bad = good();
    bad.sums.q_a = NULL;
    refused(&bad, "preattend_sums with q_a's at");
    bad = good();
    bad.preattend.q_a_norm.weight = NULL;
    refused(&bad, "preattend_sums with q_a's at");
    bad = good();
    bad.sums.kv_a = NULL;
    refused(&bad, "preattend_sums with q_a's at");
    bad.preattend.kv_a.base = NULL; /* then there are none */
    struct rt_launch l;
    assert_int_equal(build(RT_OP_PREATTEND_SUMS, &bad, sizeof(bad), &l, NULL), RT_OK);
    bad = good();
    bad.sums.q_a = (void *)8;
    refused(&bad, "q_a's sums is at 0x8");
    bad = good();
    bad.sums.stride = 6;
    refused(&bad, "sums' stride in numbers is 6");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_build),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
