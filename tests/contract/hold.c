/* SPDX-License-Identifier: Apache-2.0 */
/* The host device held back, through public calls alone: how a caller tests its own run-ahead. */
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int count_or_fail(void *user, const struct rt_stage_context *context)
{
    (void)context;
    int32_t *calls = user;
    return *calls < 0 ? 5 : (++*calls, 0);
}

static rt_runtime *create_host(int32_t *calls)
{
    rt_runtime *rt = fixture_create_stage(RT_STAGE_STEP_END, count_or_fail, calls);
    fixture_randomise(rt, 61);
    return rt;
}

static void release(rt_runtime *rt, uint32_t count, uint32_t expected)
{
    uint32_t ran = 77;
    assert_int_equal(rt_host_release(rt, count, &ran), RT_OK);
    assert_int_equal(ran, expected);
}

/* A decode loop that runs into a full ring and out of it again. */
static void a_loop_meets_a_full_ring(void **state)
{
    (void)state;
    int32_t calls = 0;
    rt_runtime *rt = create_host(&calls);
    rt_seq seq = fixture_open(rt);
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    uint64_t oldest = 0, newest = 0;
    uint32_t busy = 0;
    for (uint32_t step = 0; step < 20; step++) {
        enum rt_status status;
        while ((status = fixture_step(rt, &seq, 1, 1, &newest)) == RT_ERR_BUSY) {
            busy++;
            assert_int_equal(rt_wait(rt, oldest, 0), RT_ERR_TIMEOUT);
            release(rt, 1, 1);
            assert_int_equal(rt_wait(rt, oldest++, 0), RT_OK);
        }
        assert_int_equal(status, RT_OK);
        if (!oldest)
            oldest = newest;
    }
    assert_int_equal(busy, 17); /* three records */
    assert_int_equal(calls, 17);
    release(rt, UINT32_MAX, 3);
    release(rt, UINT32_MAX, 0);
    assert_int_equal(rt_wait(rt, newest, 0), RT_OK);
    assert_int_equal(calls, 20);
    rt_destroy(&rt);
}

/* Nobody else can run what is held: a wait without an end would have none. */
static void an_endless_wait_for_held_work_ends(void **state)
{
    (void)state;
    int32_t calls = 0;
    rt_runtime *rt = create_host(&calls);
    rt_seq seq = fixture_open(rt);
    uint64_t ticket;
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_ERR_TIMEOUT);
    assert_non_null(strstr(rt_last_error(rt)->message, "rt_host_release"));
    assert_int_equal(rt_host_hold(rt, 0), RT_OK); /* runs it */
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    fixture_step_ok(rt, &seq, 1, 1);
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, &ticket), RT_OK);
    assert_int_equal(rt_synchronize(rt), RT_OK); /* so does this, and holding goes on */
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, 1000), RT_ERR_TIMEOUT);
    rt_destroy(&rt); /* and this */
    assert_int_equal(calls, 4);
}

/* On a GPU too, a stage that fails late is told by the wait. */
static void a_held_stage_that_fails_is_told_by_the_wait(void **state)
{
    (void)state;
    int32_t calls = 0;
    rt_runtime *rt = create_host(&calls);
    rt_seq seq = fixture_open(rt);
    uint64_t ticket;
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, &ticket), RT_OK);
    calls = -1;
    release(rt, UINT32_MAX, 1);
    assert_int_equal(rt_wait(rt, ticket, 1000000000), RT_ERR_CALLBACK);
    rt_destroy(&rt);
}

/* Fails and says so a single time. */
static int fail_once(void *user, const struct rt_stage_context *context)
{
    (void)context;
    int32_t *calls_left = user;
    return (*calls_left)-- == 0;
}

/* As on a GPU: nothing runs behind a stage that failed, and every wait from there on tells of it,
 * however long it would wait. */
static void nothing_runs_behind_a_held_stage_that_failed(void **state)
{
    (void)state;
    static const uint64_t timeouts[] = {UINT64_MAX, 0, 1000000000};
    int32_t calls_left = -1;
    rt_runtime *rt = fixture_create_stage(RT_STAGE_BEFORE_ATTENTION, fail_once, &calls_left);
    rt_seq seqs[2] = {fixture_open(rt), fixture_open(rt)};
    uint64_t tickets[3];
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    for (uint32_t i = 0; i < 3; i++) /* of different graphs */
        assert_int_equal(fixture_step(rt, seqs, i == 0 ? 1 : 2, 1, &tickets[i]), RT_OK);
    release(rt, 1, 1);
    assert_int_equal(rt_wait(rt, tickets[0], UINT64_MAX), RT_OK);
    calls_left = 0;
    release(rt, 1, 1);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(rt_wait(rt, tickets[1], timeouts[i]), RT_ERR_CALLBACK);
    release(rt, 1, 1);
    const int32_t left = calls_left;
    assert_int_equal(rt_wait(rt, tickets[1], UINT64_MAX), RT_ERR_CALLBACK);
    assert_int_equal(rt_wait(rt, tickets[2], UINT64_MAX), RT_ERR_CALLBACK);
    assert_int_equal(rt_wait(rt, tickets[0], UINT64_MAX), RT_OK);
    assert_int_equal(fixture_step(rt, seqs, 1, 1, NULL), RT_ERR_CALLBACK);
    assert_int_equal(rt_host_hold(rt, 0), RT_OK);
    assert_int_equal(fixture_step(rt, seqs, 1, 1, NULL), RT_ERR_CALLBACK);
    assert_int_equal(calls_left, left);
    rt_destroy(&rt);
}

/* Its callbacks do their work at once, before the held kernels in front of them. */
static void an_eager_step_is_not_held(void **state)
{
    (void)state;
    int32_t calls = 0;
    rt_runtime *rt = create_host(&calls);
    rt_seq seq = fixture_open(rt);
    const struct rt_step_params eager = {
        .struct_size = sizeof(eager), .flags = RT_STEP_EAGER, .rows = 1, .seqs = &seq};
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    assert_int_equal(rt_step(rt, &eager, NULL), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(rt_last_error(rt)->message, "rt_host_hold"));
    assert_int_equal(calls, 0);
    assert_int_equal(rt_host_hold(rt, 0), RT_OK);
    assert_int_equal(rt_step(rt, &eager, NULL), RT_OK);
    assert_int_equal(rt_host_hold(NULL, 1), RT_ERR_INVALID);
    assert_int_equal(rt_host_release(NULL, 1, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_host_release(rt, 1, NULL), RT_OK);
    rt_destroy(&rt);
}

static void another_device_is_not_held(void **state)
{
    (void)state;
    int32_t calls = 0;
    rt_runtime *rt = create_host(&calls);
    rt->driver.caps.kind = RT_DEVICE_KIND_CUDA;
    assert_int_equal(rt_host_hold(rt, 1), RT_ERR_UNSUPPORTED);
    assert_int_equal(rt_host_release(rt, 1, NULL), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(rt_last_error(rt)->message, "host device"));
    rt->driver.caps.kind = RT_DEVICE_KIND_HOST;
    rt_destroy(&rt);
}

static void threads_enter_nothing(void **state)
{
    (void)state;
    int32_t calls = 0;
    rt_runtime *rt = create_host(&calls);
    assert_int_equal(rt_thread_leave(rt), RT_OK);
    assert_int_equal(rt_thread_enter(rt), RT_OK);
    rt_seq seq = fixture_open(rt);
    fixture_step_ok(rt, &seq, 1, 1);
    assert_int_equal(rt_thread_leave(rt), RT_OK);
    assert_int_equal(rt_thread_leave(rt), RT_OK);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_loop_meets_a_full_ring),
        cmocka_unit_test(an_endless_wait_for_held_work_ends),
        cmocka_unit_test(a_held_stage_that_fails_is_told_by_the_wait),
        cmocka_unit_test(nothing_runs_behind_a_held_stage_that_failed),
        cmocka_unit_test(an_eager_step_is_not_held),
        cmocka_unit_test(another_device_is_not_held),
        cmocka_unit_test(threads_enter_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
