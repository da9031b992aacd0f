/* SPDX-License-Identifier: Apache-2.0 */
/* The node of preattend and the product behind it: where there is one, its grid, its parameters,
 * and what it refuses. */
#include "kernels/abi/preattend_absorb_sm90.h"
#include "kernels/ops/op_build.h"
#include "tests/support/device_caps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* A block of DeepSeek-V3's with so many heads. */
static struct rt_preattend_absorb_params block_of(uint32_t heads, uint32_t rows, uint32_t q_len)
{
    const int64_t in = 192, out = 576;
    struct rt_preattend_absorb_params p = {
        .preattend = {.rows = {.count = rows, .q_len = q_len},
                      .kv = {.page_stride_bytes = 64 * 1152,
                             .token_stride_bytes = 1152,
                             .token_bytes = 1152},
                      .kv_a = {(void *)16, q_len * out, out},
                      .q_in = {(void *)32, q_len * heads * in, heads * in, in},
                      .q_out = {(void *)48, q_len * heads * out, heads * out, out},
                      .kv_a_norm.width = 512,
                      .heads = heads,
                      .nope_dim = 128,
                      .latent_dim = 512,
                      .rope_dim = 64},
        .absorb = {.x = {(void *)32, in, heads * in},
                   .y = {(void *)48, out, heads * out},
                   .batch = heads,
                   .m = rows * q_len,
                   .k = 128}};
    p.absorb.w[0] = (struct rt_weight_view){.base = (void *)64,
                                            .batch_stride = 256 * 512,
                                            .row_stride = 1,
                                            .column_stride = 512,
                                            .rows = 512};
    return p;
}

static enum rt_status resolve(const struct rt_device_caps *caps, enum rt_backend backend,
                              const struct rt_preattend_absorb_params *p, struct rt_variant *out,
                              struct rt_error *err)
{
    const struct rt_op_request r = {.caps = caps, .backend = backend, .preattend_absorb = p};
    return rt_op_resolve(RT_OP_PREATTEND_ABSORB, &r, out, err);
}

static struct rt_launch launch_of(const struct rt_device_caps *caps,
                                  const struct rt_preattend_absorb_params *p, const char *entry)
{
    const struct rt_kernels k = {.cc = caps->cc};
    struct rt_variant v;
    struct rt_work work;
    struct rt_error err = {0};
    if (resolve(caps, RT_BACKEND_AUTO, p, &v, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(v.entry, entry);
    if (rt_op_build(&k, &v, p, sizeof(*p), &work, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(work.launch.entry, entry);
    assert_int_equal(work.launch.block[0], 256);
    return work.launch;
}

/* Blocks that multiply, and preattend's. */
static void test_grids(void **state)
{
    (void)state;
    static const struct {
        uint32_t heads, rows, q_len, multiply, others;
        const char *entry;
    } cases[] = {
        /* 8 tiles a head: one each, of 128 heads 3 each, and 8 where more tokens leave room for
         * no more blocks. */
        {16, 1, 1, 128, 1, "rt_preattend_absorb_sm90_8"},
        {16, 8, 1, 128, 3, "rt_preattend_absorb_sm90_8"},
        {16, 3, 3, 128, 4, "rt_preattend_absorb_sm90_16"},
        {128, 1, 1, 342, 3, "rt_preattend_absorb_sm90_8"},
        {128, 16, 1, 128, 34, "rt_preattend_absorb_sm90_16"},
        {20, 1, 1, 80, 1, "rt_preattend_absorb_sm90_8"},
        {1, 1, 1, 8, 1, "rt_preattend_absorb_sm90_8"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct rt_preattend_absorb_params p =
            block_of(cases[i].heads, cases[i].rows, cases[i].q_len);
        const struct rt_launch l = launch_of(&h200, &p, cases[i].entry);
        assert_int_equal(l.grid[0], cases[i].multiply + cases[i].others);
        assert_int_equal(l.smem_bytes, 32 * p.absorb.m * 68);
    }
    const struct rt_preattend_absorb_params p = block_of(16, 9, 1);
    assert_int_equal(launch_of(&l40, &p, "rt_preattend_absorb").grid[0], 8 * 2 * 16 + 4);
    assert_int_equal(launch_of(&host, &p, "rt_preattend_absorb").grid[0], 8 * 2 * 16 + 4);
}

/* Both halves are in the parameters as their own launches have them, and so is the mask. */
static void test_parameters(void **state)
{
    (void)state;
    const struct rt_kernels k = {.cc = 90};
    const struct rt_preattend_absorb_params p = block_of(16, 4, 2);
    struct rt_variant v;
    struct rt_work product, preattend;
    struct rt_op_request r = {.caps = &h200, .backend = RT_BACKEND_AUTO, .product = &p.absorb};
    assert_int_equal(rt_op_resolve(RT_OP_PROJECT, &r, &v, NULL), RT_OK);
    assert_int_equal(rt_op_build(&k, &v, &p.absorb, sizeof(p.absorb), &product, NULL), RT_OK);
    assert_int_equal(rt_op_resolve(RT_OP_PREATTEND, &r, &v, NULL), RT_OK);
    assert_int_equal(rt_op_build(&k, &v, &p.preattend, sizeof(p.preattend), &preattend, NULL),
                     RT_OK);
    const uint64_t words[] = {sizeof(struct rt_project_sm90_params) / 8,
                              sizeof(struct rt_preattend_params) / 8};

    struct rt_launch l = launch_of(&h200, &p, "rt_preattend_absorb_sm90_8");
    assert_memory_equal(l.params, product.launch.params, product.launch.param_bytes);
    assert_memory_equal(l.params + product.launch.param_bytes, &p.preattend, sizeof(p.preattend));
    assert_true(l.address_mask ==
                (product.launch.address_mask | preattend.launch.address_mask << words[0]));

    l = launch_of(&l40, &p, "rt_preattend_absorb");
    assert_memory_equal(l.params, &p, sizeof(p));
    assert_true(l.address_mask ==
                (preattend.launch.address_mask | product.launch.address_mask << words[1]));
}

static void expect_words(const struct rt_error *err, const char *words)
{
    if (!strstr(err->message, words))
        fail_msg("\"%s\" does not say \"%s\"", err->message, words);
}

/* Two nodes are left where one would be wrong, or slower than both. */
static void test_left_apart(void **state)
{
    (void)state;
    struct rt_variant v = {.parts = 77};
    struct rt_error err = {0};
    const float factors = 1;
    struct rt_preattend_absorb_params p = block_of(16, 1, 1);
    assert_int_equal(resolve(&h200, RT_BACKEND_SM90, &p, &v, &err), RT_OK);
    assert_non_null(strstr(v.reason, "sm90 as asked for, up to 8 tokens for 1, 128 blocks"));
    assert_int_equal(resolve(&h200, RT_BACKEND_GENERIC, &p, &v, &err), RT_OK);
    assert_string_equal(v.entry, "rt_preattend_absorb");

    v.parts = 77;
    p.preattend.rope.query_scale = &factors;
    assert_int_equal(resolve(&host, RT_BACKEND_AUTO, &p, &v, &err), RT_ERR_UNSUPPORTED);
    expect_words(&err, "factors of q are written where the product reads");
    p = block_of(16, 1, 1);
    p.absorb.w[0].row_stride = 128;
    p.absorb.w[0].column_stride = 1;
    assert_int_equal(resolve(&h200, RT_BACKEND_AUTO, &p, &v, &err), RT_ERR_UNSUPPORTED);
    expect_words(&err, "lies along k: rt_project_sm90_along8x4");
    p = block_of(16, 17, 1);
    assert_int_equal(resolve(&h200, RT_BACKEND_SM90, &p, &v, &err), RT_ERR_UNSUPPORTED);
    expect_words(&err, "many vectors: rt_project_sm90_many64x64_across");
    assert_int_equal(v.parts, 77);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct rt_kernels k;
    static const char *const words[10] = {"q_in at (nil)",
                                          "factors of q at 0x10",
                                          "a control block at 0x10",
                                          "q's row strides 9216, 9216 are not those of 2 tokens",
                                          "a product of 15 times 4 vectors",
                                          "is not q_in at 0x20",
                                          "is not q_out at 0x30",
                                          "without a norm",
                                          "a latent of 384",
                                          "no pair of halves is named rt_project"};
    struct rt_preattend_absorb_params bad[10];
    for (int i = 0; i < 10; i++)
        bad[i] = block_of(16, 2, 2);
    bad[0].preattend.q_in.base = NULL;
    bad[1].preattend.rope.query_scale = (void *)16;
    bad[2].preattend.rows.ctrl = (void *)16;
    bad[3].preattend.q_in.row_stride = 9216;
    bad[3].preattend.q_out.row_stride = 9216;
    bad[4].absorb.batch = 15;
    bad[5].absorb.x.row_stride += 8;
    bad[6].absorb.y.base = (void *)64;
    bad[7].absorb.norm.weight = (void *)16;
    bad[8].preattend.latent_dim = bad[8].absorb.w[0].rows = 384;
    for (int i = 0; i < 10; i++) {
        const struct rt_variant v = {.op = RT_OP_PREATTEND_ABSORB,
                                     .backend = RT_BACKEND_GENERIC,
                                     .entry = i == 9 ? "rt_project" : "rt_preattend_absorb"};
        struct rt_work work = {.launch.param_bytes = 77};
        struct rt_error err = {0};
        assert_int_equal(rt_op_build(&k, &v, &bad[i], sizeof(bad[i]), &work, &err),
                         i == 9 ? RT_ERR_INTERNAL : RT_ERR_INVALID);
        expect_words(&err, words[i]);
        assert_int_equal(work.launch.param_bytes, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grids),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_left_apart),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("preattend_absorb", tests, NULL, NULL);
}
