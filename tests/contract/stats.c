/* SPDX-License-Identifier: Apache-2.0 */
/* A step is one rt_step call, however many replays serve it: what the statistics count of it. */
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct rt_stats stats_of(rt_runtime *rt)
{
    struct rt_stats stats = {.struct_size = sizeof(stats)};
    assert_int_equal(rt_get_stats(rt, &stats), RT_OK);
    return stats;
}

static void step_all(rt_runtime *rt, const rt_seq *seqs, uint32_t rows, uint32_t flags)
{
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .flags = flags, .rows = rows, .seqs = seqs};
    uint64_t ticket;
    assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
}

/* Six rows are two replays. The step's time begins with the first and ends with the last; the gap
 * lies between steps, not inside one. */
static void a_step_of_two_replays_is_one_step(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 41);
    rt_seq seqs[6];
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    uint64_t gpu_ns = 0, gap_ns = 0, last_attend = 0;
    for (uint64_t step = 0; step < 5; step++) {
        step_all(rt, seqs, 6, step == 3 ? RT_STEP_EAGER : 0);
        const struct rt_completion *first = rt_ring_completion(&rt->ring, rt->ring.next_step - 2);
        const struct rt_completion *second = rt_ring_completion(&rt->ring, rt->ring.next_step - 1);
        const struct rt_stats s = stats_of(rt);
        assert_int_equal(s.steps, step + 1);
        assert_int_equal(s.replays, 2 * (step + 1));
        assert_int_equal(s.eager_steps, step >= 3);
        assert_int_equal(s.gpu_steps, step + 1);
        assert_int_equal(s.gpu_ns_last, second->t_end - first->t_begin);
        gpu_ns += s.gpu_ns_last;
        assert_int_equal(s.gpu_ns_total, gpu_ns);
        assert_int_equal(s.gap_steps, step);
        if (step > 0) {
            assert_int_equal(s.gap_ns_last, first->t_attend_first - last_attend);
            assert_int_equal(s.gap_end_ns + s.gap_graph_ns + s.gap_begin_ns, s.gap_ns_last);
            gap_ns += s.gap_ns_last;
        }
        assert_int_equal(s.gap_ns_total, gap_ns);
        last_attend = second->t_attend_last;
    }
    rt_destroy(&rt);
}

/* Seen all at once, and with control records between. */
static void steps_are_counted_whenever_they_are_seen(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    config.ring_depth = 16;
    rt_runtime *rt = fixture_create(&config);
    fixture_randomise(rt, 42);
    rt_seq seqs[6], fork;
    for (int i = 0; i < 5; i++)
        seqs[i] = fixture_open(rt);
    const rt_seq five[5] = {seqs[0], seqs[1], seqs[2], seqs[3], seqs[4]};
    assert_int_equal(fixture_step(rt, five, 5, 1, NULL), RT_OK);
    assert_int_equal(rt_seq_fork(rt, seqs[0], &fork), RT_OK);
    assert_int_equal(fixture_step(rt, five, 5, 1, NULL), RT_OK);
    assert_int_equal(fixture_step(rt, five, 1, 1, NULL), RT_OK);
    assert_int_equal(rt_synchronize(rt), RT_OK);
    const struct rt_stats s = stats_of(rt);
    assert_int_equal(s.steps, 3);
    assert_int_equal(s.replays, 5);
    assert_int_equal(s.control_replays, 1);
    assert_int_equal(s.gpu_steps, 3);
    assert_int_equal(s.gap_steps, 2);
    rt_destroy(&rt);
}

static int fail_small(void *user, const struct rt_stage_context *context)
{
    return *(bool *)user && context->batch == 2;
}

/* What ran of a step that failed is no step, and no gap ends or begins with it. */
static void half_a_step_is_none(void **state)
{
    (void)state;
    bool failing = false;
    rt_runtime *rt = fixture_create_stage(RT_STAGE_AFTER_ATTENTION, fail_small, &failing);
    fixture_randomise(rt, 43);
    rt_seq seqs[6];
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    step_all(rt, seqs, 6, 0);
    const struct rt_stats before = stats_of(rt);
    failing = true;
    const uint32_t flags[] = {0, RT_STEP_EAGER};
    for (int i = 0; i < 2; i++) {
        const struct rt_step_params p = {
            .struct_size = sizeof(p), .flags = flags[i], .rows = 6, .seqs = seqs};
        assert_int_equal(rt_step(rt, &p, NULL), RT_ERR_CALLBACK);
        const struct rt_stats s = stats_of(rt);
        assert_int_equal(s.steps, 1);
        assert_int_equal(s.eager_steps, 0);
        assert_int_equal(s.replays, 3 + i);
        assert_int_equal(s.gpu_steps, 1);
        assert_int_equal(s.gpu_ns_total, before.gpu_ns_total);
        assert_int_equal(s.gap_steps, 0);
    }
    failing = false;
    step_all(rt, seqs, 6, 0);
    assert_int_equal(stats_of(rt).gap_steps, 0);
    step_all(rt, seqs, 6, 0);
    assert_int_equal(stats_of(rt).gap_steps, 1);
    assert_int_equal(stats_of(rt).gpu_steps, 3);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_of_two_replays_is_one_step),
        cmocka_unit_test(steps_are_counted_whenever_they_are_seen),
        cmocka_unit_test(half_a_step_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
