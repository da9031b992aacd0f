/* SPDX-License-Identifier: Apache-2.0 */
/* The hot path: exactly one driver call a step, the graph launch; no allocation. */
#include "tests/support/count_malloc.h"
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void only_launches(const struct rt_driver_probe *before, const struct rt_driver_probe *after,
                          uint64_t launches)
{
    for (int op = 0; op < RT_DOP_COUNT; op++) {
        uint64_t expected = op == RT_DOP_graph_launch ? launches : 0;
        if (after->per_op[op] - before->per_op[op] != expected)
            fail_msg("%s called %llu times, expected %llu", rt_driver_op_name(op),
                     (unsigned long long)(after->per_op[op] - before->per_op[op]),
                     (unsigned long long)expected);
    }
    assert_int_equal(after->calls - before->calls, launches);
}

static void one_launch_per_step(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 1);
    rt_seq seqs[4];
    for (int i = 0; i < 4; i++)
        seqs[i] = fixture_open(rt);
    for (uint32_t step = 0; step < 24; step++) {
        uint32_t rows = 1 + step % 4, q = step % 3 ? 1 : 3;
        uint64_t ticket;
        struct rt_driver_probe before = rt->driver.probe;
        count_malloc_begin();
        enum rt_status status = fixture_step(rt, seqs, rows, q, &ticket);
        const int allocations = count_malloc_end();
        assert_int_equal(status, RT_OK);
        only_launches(&before, &rt->driver.probe, 1);
        assert_int_equal(allocations, 0);
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    }
    rt_destroy(&rt);
}

static void a_large_batch_is_one_launch_per_replay(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 2);
    rt_seq seqs[6];
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    struct rt_driver_probe before = rt->driver.probe;
    uint64_t ticket;
    assert_int_equal(fixture_step(rt, seqs, 6, 1, &ticket), RT_OK);
    only_launches(&before, &rt->driver.probe, 2); /* 4 + 2 rows */
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    struct rt_bucket_stats four = {.struct_size = sizeof(four)}, two = four;
    assert_int_equal(rt_get_bucket_stats(rt, 4, &four), RT_OK);
    assert_int_equal(rt_get_bucket_stats(rt, 2, &two), RT_OK);
    assert_int_equal(four.batch, 4);
    assert_int_equal(four.live_rows, 4);
    assert_int_equal(two.batch, 2);
    assert_int_equal(two.live_rows, 2);
    struct rt_row_result results[6];
    uint32_t count = 0;
    assert_int_equal(rt_result(rt, ticket, results, 6, &count), RT_OK);
    assert_int_equal(count, 6);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(results[i].accepted, 1);
    rt_destroy(&rt);
}

static void a_refused_step_calls_nothing(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    rt_seq seq = fixture_open(rt);
    rt_seq twice[2] = {seq, seq};
    struct rt_driver_probe before = rt->driver.probe;
    assert_int_equal(fixture_step(rt, twice, 2, 1, NULL), RT_ERR_DUPLICATE);
    only_launches(&before, &rt->driver.probe, 0);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_launch_per_step),
        cmocka_unit_test(a_large_batch_is_one_launch_per_replay),
        cmocka_unit_test(a_refused_step_calls_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
