/* SPDX-License-Identifier: Apache-2.0 */
/* What plans of products are made of and serve, and the host device's. */
#include "driver/matmul_plan.h"

#include "tests/unit/host_bench.h"

/* [3] times [5, 7] by [6, 7], as it lies: padded, one after the other. */
static struct rt_matmul plain_product(void)
{
    return (struct rt_matmul){.a = 0x1000,
                              .b = 0x2000,
                              .d = 0x4000,
                              .input_dtype = RT_DTYPE_BF16,
                              .weight_dtype = RT_DTYPE_BF16,
                              .output_dtype = RT_DTYPE_F32,
                              .batch = 3,
                              .m = 5,
                              .n = 6,
                              .k = 7,
                              .a_batch_stride = 64,
                              .a_row_stride = 8,
                              .b_batch_stride = 128,
                              .b_row_stride = 16,
                              .b_column_stride = 1,
                              .d_batch_stride = 64,
                              .d_row_stride = 8};
}

/* ---- which products ---- */

static void assert_plannable(const struct rt_matmul *m, bool want, int which)
{
    if (rt_matmul_plannable(m) != want)
        fail_msg("case %d is %s", which, want ? "refused" : "taken");
}

static void test_sizes_and_dtypes(void **state)
{
    (void)state;
    const struct rt_matmul good = plain_product();
    assert_plannable(&good, true, -1);
    static const uint32_t sizes[] = {0, INT32_MAX + 1u, UINT32_MAX};
    for (int i = 0; i < 3; i++) {
        struct rt_matmul wrong[] = {good, good, good, good};
        wrong[0].batch = sizes[i];
        wrong[1].m = sizes[i];
        wrong[2].n = sizes[i];
        wrong[3].k = sizes[i];
        for (int j = 0; j < 4; j++)
            assert_plannable(&wrong[j], false, 10 * i + j);
    }
    struct rt_matmul wrong[] = {good, good, good, good};
    wrong[0].input_dtype = RT_DTYPE_I32;
    wrong[1].weight_dtype = RT_DTYPE_U8;
    wrong[2].output_dtype = (enum rt_dtype)0;
    wrong[3].weight_dtype = (enum rt_dtype)99;
    for (int j = 0; j < 4; j++)
        assert_plannable(&wrong[j], false, 100 + j);
}

static void test_strides(void **state)
{
    (void)state;
    const struct rt_matmul good = plain_product();
    struct rt_matmul wrong[] = {good, good, good, good, good, good, good, good};
    wrong[0].a_row_stride = 6; /* rows overlap */
    wrong[1].d_row_stride = 5;
    wrong[2].b_row_stride = 6;
    wrong[3].b_column_stride = 2; /* neither is 1 */
    wrong[4].a_batch_stride = -64;
    wrong[5].b_batch_stride = -1;
    wrong[6].d_batch_stride = INT64_MIN;
    wrong[7].a_row_stride = -8;
    for (int j = 0; j < 8; j++)
        assert_plannable(&wrong[j], false, j);

    struct rt_matmul across = good; /* k rows of n */
    across.b_row_stride = 1;
    across.b_column_stride = 6;
    assert_false(rt_matmul_b_has_rows_of_k(&across));
    assert_plannable(&across, true, 20);
    across.b_column_stride = 5;
    assert_plannable(&across, false, 21);

    struct rt_matmul single = good; /* of one row the stride is nobody's business */
    single.m = single.n = 1;
    single.a_row_stride = single.d_row_stride = 0;
    single.b_row_stride = 1;
    assert_true(rt_matmul_b_has_rows_of_k(&single));
    assert_plannable(&single, true, 30);
    assert_int_equal(rt_matmul_pitch(1, 7, 0), 7);
    assert_int_equal(rt_matmul_pitch(1, 7, 9), 9);
    assert_int_equal(rt_matmul_pitch(2, 7, 0), 0);
    single.a_row_stride = -1;
    assert_plannable(&single, false, 31);

    struct rt_matmul shared = good; /* heads side by side, one weight for all */
    shared.b_batch_stride = 0;
    shared.a_row_stride = shared.d_row_stride = 24;
    shared.a_batch_stride = shared.d_batch_stride = 8;
    assert_plannable(&shared, true, 40);
}

static void assert_alignment(const struct rt_matmul *m, uint32_t a, uint32_t b, uint32_t bias,
                             uint32_t d)
{
    const struct rt_matmul_alignment is = rt_matmul_alignment(m);
    assert_int_equal(is.a, a);
    assert_int_equal(is.b, b);
    assert_int_equal(is.bias, bias);
    assert_int_equal(is.d, d);
}

/* The least of the address and the strides that are walked. */
static void test_alignment(void **state)
{
    (void)state;
    struct rt_matmul m = plain_product();
    assert_alignment(&m, 16, 32, 256, 32);
    m.bias = 0x3002;
    m.a += 8;
    m.b += 4;
    m.d += 0x100;
    assert_alignment(&m, 8, 4, 2, 32);
    m = plain_product();
    m.m = m.batch = m.n = 1;
    m.a_row_stride = m.d_row_stride = m.a_batch_stride = m.b_row_stride = m.d_batch_stride = 3;
    assert_alignment(&m, 256, 256, 256, 256);
    m.batch = 2;
    assert_alignment(&m, 2, 256, 256, 4);
    m = plain_product();
    m.b_row_stride = 1;
    m.b_column_stride = 12;
    assert_alignment(&m, 16, 8, 256, 32);
}

/* ---- what a plan serves ---- */

static void test_serves_its_product_at_other_addresses(void **state)
{
    (void)state;
    const struct rt_matmul made_of = plain_product();
    const struct rt_matmul_plan plan = {.candidates = 1, .workspace_bytes = 512};
    struct rt_matmul good = made_of;
    good.plan = &plan;
    good.workspace = 0x8000;
    good.workspace_bytes = 512;
    assert_true(rt_matmul_plan_serves(&made_of, &good));
    struct rt_matmul m = good;
    m.a += 16;
    m.b += 32;
    m.d += 64;
    m.workspace_bytes = 4096;
    assert_true(rt_matmul_plan_serves(&made_of, &m));
    struct rt_matmul wrong[] = {good, good, good, good, good, good, good, good};
    wrong[0].a += 8;
    wrong[1].b += 16;
    wrong[2].d += 16;
    wrong[3].bias = 0x3000;
    wrong[4].workspace_bytes = 511;
    wrong[5].workspace = 0;
    wrong[6].workspace += 128;
    wrong[7].output_dtype = RT_DTYPE_BF16;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        if (rt_matmul_plan_serves(&made_of, &wrong[i]))
            fail_msg("case %zu is served", i);
    const struct rt_matmul_plan frugal = {.candidates = 1};
    m = made_of;
    m.plan = &frugal;
    m.workspace = 3; /* which nobody touches */
    assert_true(rt_matmul_plan_serves(&made_of, &m));
}

static void test_serves_one_shape(void **state)
{
    (void)state;
    const struct rt_matmul made_of = plain_product();
    const struct rt_matmul_plan plan = {.candidates = 1};
    for (int i = 0; i < 13; i++) {
        struct rt_matmul m = made_of;
        m.plan = &plan;
        uint32_t *const size[] = {&m.batch, &m.m, &m.n, &m.k};
        int64_t *const stride[] = {&m.a_batch_stride, &m.a_row_stride,    &m.b_batch_stride,
                                   &m.b_row_stride,   &m.b_column_stride, &m.d_batch_stride,
                                   &m.d_row_stride};
        if (i < 4)
            *size[i] *= 2;
        else if (i < 11)
            *stride[i - 4] *= 2;
        else if (i == 11)
            m.input_dtype = RT_DTYPE_F32;
        else
            m.weight_dtype = RT_DTYPE_F32;
        if (rt_matmul_plan_serves(&made_of, &m))
            fail_msg("change %d is served", i);
    }
}

/* ---- the host device's ---- */

static void test_host_plans(void **state)
{
    (void)state;
    struct host_bench b;
    host_bench_open(&b);
    struct rt_driver *const d = &b.d;
    const uint64_t live = d->probe.live;
    struct rt_matmul m = plain_product();
    m.a = m.b = b.memory;
    m.d = b.memory + 2048;
    m.n = 4;
    struct rt_matmul_plan *plan = NULL;
    assert_int_equal(rt_driver_open_blas(d, NULL), RT_OK);
    assert_int_equal(rt_driver_open_blas(d, NULL), RT_OK);
    assert_int_equal(d->matmul_prepare(d, &m, 8, &plan), 0);
    assert_int_equal(d->probe.live, live + 1);
    assert_int_equal(plan->candidates, 1);
    assert_int_equal(plan->workspace_bytes, 0);
    assert_string_equal(plan->text, "plain C");
    assert_int_equal(d->matmul_select(d, plan, 0), 0);
    assert_int_not_equal(d->matmul_select(d, plan, 1), 0);
    assert_int_not_equal(d->matmul_select(d, NULL, 0), 0);

    m.plan = plan;
    memset((void *)(uintptr_t)b.memory, 0, BENCH_LOG_BYTES);
    assert_int_equal(d->matmul(d, &m, NULL), 0);
    struct rt_matmul other = m;
    other.m--;
    assert_int_equal(d->matmul(d, &other, NULL), 1);
    rt_dgraph g;
    rt_dnode node = NULL;
    const struct rt_work works[] = {{.kind = RT_WORK_MATMUL, .matmul = m},
                                    {.kind = RT_WORK_MATMUL, .matmul = other}};
    assert_int_equal(d->graph_create(d, &g), 0);
    assert_int_equal(d->graph_add_work(d, g, &works[0], NULL, 0, &node), 0);
    assert_int_equal(d->graph_add_work(d, g, &works[1], NULL, 0, &node), 1);
    assert_int_equal(d->graph_destroy(d, g), 0);

    struct rt_matmul_plan *none = NULL;
    assert_int_not_equal(d->matmul_prepare(d, &m, 0, &none), 0);
    assert_int_not_equal(d->matmul_prepare(d, NULL, 1, &none), 0);
    other.m = 0;
    assert_int_not_equal(d->matmul_prepare(d, &other, 1, &none), 0);
    assert_null(none);
    assert_int_equal(d->matmul_release(d, plan), 0);
    assert_int_not_equal(d->matmul_release(d, NULL), 0);
    assert_int_equal(d->probe.live, live);
    host_bench_close(&b);
}

/* Held work outlives the plan that it was given with. */
static void test_held_products_need_no_plan(void **state)
{
    (void)state;
    struct host_bench b;
    host_bench_open(&b);
    struct rt_driver *const d = &b.d;
    struct rt_matmul m = plain_product();
    struct rt_matmul_plan *plan = NULL;
    m.a = m.b = b.memory;
    m.d = b.memory + 2048;
    assert_int_equal(d->matmul_prepare(d, &m, 1, &plan), 0);
    m.plan = plan;
    memset((void *)(uintptr_t)b.memory, 0, BENCH_LOG_BYTES);
    *(float *)(uintptr_t)m.d = 7;
    rt_driver_host_hold(d, NULL, true);
    assert_int_equal(d->matmul(d, &m, NULL), 0);
    assert_int_equal(d->matmul_release(d, plan), 0);
    rt_driver_host_hold(d, NULL, false);
    assert_true(*(float *)(uintptr_t)m.d == 0);
    host_bench_close(&b);
}

static void test_opening_fails_when_chosen(void **state)
{
    (void)state;
    struct host_bench b;
    struct rt_error err = {0};
    host_bench_open(&b);
    b.d.probe.fail_at = b.d.probe.calls + 1;
    assert_int_equal(rt_driver_open_blas(&b.d, &err), RT_ERR_DRIVER);
    assert_non_null(strstr(err.message, "open_blas failed: injected failure"));
    assert_int_equal(rt_driver_open_blas(&b.d, &err), RT_OK);
    host_bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_and_dtypes),
        cmocka_unit_test(test_strides),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_serves_its_product_at_other_addresses),
        cmocka_unit_test(test_serves_one_shape),
        cmocka_unit_test(test_host_plans),
        cmocka_unit_test(test_held_products_need_no_plan),
        cmocka_unit_test(test_opening_fails_when_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
