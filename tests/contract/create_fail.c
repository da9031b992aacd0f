/* SPDX-License-Identifier: Apache-2.0 */
/* Every driver call of create, step, sequence work and destroy fails once: a code and a sentence
 * come back, the state is as before, nothing leaks. */
#include "tests/support/fail_driver.h"
#include "tests/support/fixture.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int stage(void *user, const struct rt_stage_context *context)
{
    (void)context;
    ++*(int *)user;
    return 0;
}

static enum rt_status create(const struct rt_config *config, int *calls, rt_runtime **rt,
                             struct rt_error *error)
{
    struct rt_create_params params = {
        .struct_size = sizeof(params), .config = config, .stage_user = calls};
    for (int i = 0; i < RT_STAGE_POINT_COUNT; i++)
        params.stages[i] = i == RT_STAGE_INDEXER && !config->topk ? NULL : stage;
    return rt_create(&params, rt, error);
}

static void every_call_of_create(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    uint64_t failed = 0;
    for (uint64_t n = 1;; n++) {
        int calls = 0;
        rt_runtime *rt = NULL;
        struct rt_error error = {0};
        fail_driver_arm(n);
        enum rt_status status = create(&config, &calls, &rt, &error);
        fail_driver_arm(0);
        bool reached = fail_driver_reached();
        if (status == RT_OK) {
            reached = rt->driver.probe.calls >= n;
            rt->driver.probe.fail_at = 0;
            rt_destroy(&rt);
        }
        assert_null(rt);
        assert_int_equal(fail_driver_live(), 0);
        if (!reached) {
            assert_int_equal(status, RT_OK);
            break;
        }
        failed++;
        if (status == RT_OK)
            fail_msg("call %" PRIu64 " failed but rt_create said ok", n);
        assert_int_equal(error.status, status);
        assert_non_null(strstr(error.message, "injected failure"));
    }
    assert_true(failed > 50);
}

static void every_call_of_destroy(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    for (uint64_t n = 1;; n++) {
        int calls = 0;
        rt_runtime *rt = NULL;
        assert_int_equal(create(&config, &calls, &rt, NULL), RT_OK);
        rt->driver.probe.fail_at = rt->driver.probe.calls + n;
        rt_destroy(&rt);
        assert_null(rt);
        assert_int_equal(fail_driver_live(), 0);
        /* n == 1 is entering itself: then the caller's context is not left instead */
        assert_int_equal(fail_driver_contexts(), n == 1 ? 1 : 0);
        if (!fail_driver_reached())
            break;
    }
}

/* A sequence on the first nine tokens of what `seq` has: the page is retained, copied, released. */
static enum rt_status open_on_prefix(rt_runtime *rt, rt_seq seq)
{
    rt_seq guest = 0;
    int32_t page;
    uint32_t count;
    RT_TRY(rt_seq_pages(rt, seq, &page, 1, &count));
    RT_TRY(rt_pages_retain(rt, &page, 1));
    const struct rt_seq_params params = {
        .struct_size = sizeof(params), .length = 9, .shared_pages = &page, .shared_count = 1};
    enum rt_status status = rt_seq_open(rt, &params, &guest);
    assert_int_equal(rt_pages_release(rt, &page, 1), RT_OK); /* leaves the story as it is */
    if (status == RT_OK)
        assert_int_equal(rt_seq_close(rt, guest), RT_OK);
    return status;
}

/* A sequence of nine tokens in page 20. */
static rt_seq open_own(rt_runtime *rt)
{
    const struct rt_seq_params params = {
        .struct_size = sizeof(params), .pages = RT_PAGES_CALLER, .length = 9};
    const int32_t page = 20;
    rt_seq seq = 0;
    assert_int_equal(rt_seq_open(rt, &params, &seq), RT_OK);
    assert_int_equal(rt_seq_bind_pages(rt, seq, 0, &page, 1), RT_OK);
    return seq;
}

/* The script below, with driver call `n` after create failing; true once n is past its end. */
static bool run_script(uint64_t n)
{
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 3);
    rt_seq a = fixture_open(rt), b = fixture_open(rt), own = open_own(rt);
    rt_seq fork = 0, twin = 0, guest = 0;
    rt_seq both[2] = {a, b};
    for (int i = 0; i < 5; i++)
        fixture_step_ok(rt, both, 2, 3);
    rt->driver.probe.fail_at = rt->driver.probe.calls + n;
    struct fixture_snapshot before, after;
    enum rt_status status = RT_OK;
    for (int op = 0; op < 9 && status == RT_OK; op++) {
        uint64_t ticket;
        fixture_snapshot(rt, &before);
        switch (op) {
        case 0: /* 15 tokens: the last page is copied */
            status = rt_seq_fork(rt, a, &fork);
            break;
        case 1:
            status = fixture_step(rt, both, 2, 1, &ticket);
            break;
        case 2: /* 16 tokens: the only page is shared */
            status = rt_seq_fork(rt, a, &twin);
            break;
        case 3: /* and copied */
            status = rt_seq_rewind(rt, twin, 9);
            break;
        case 4: {
            const struct rt_step_params eager = {
                .struct_size = sizeof(eager), .flags = RT_STEP_EAGER, .rows = 2, .seqs = both};
            status = rt_step(rt, &eager, &ticket);
            break;
        }
        case 5:
            status = open_on_prefix(rt, b);
            break;
        case 6:
            status = rt_seq_fork_onto(rt, own, 21, &guest);
            break;
        case 7: {
            uint16_t word = 0;
            status = rt_tensor_read(rt, "out", 0, 0, &word, sizeof(word));
            break;
        }
        default:
            status = rt_audit(rt);
        }
        if (status != RT_OK) {
            fixture_snapshot(rt, &after);
            after.harvested = before.harvested;
            assert_memory_equal(&before, &after, sizeof(before));
        }
    }
    bool reached = rt->driver.probe.fail_at <= rt->driver.probe.calls;
    rt->driver.probe.fail_at = 0;
    if (reached) {
        /* ctx_leave may fail unnoticed where the work itself succeeded. */
        if (status != RT_OK && !strstr(rt_last_error(rt)->message, "injected failure"))
            fail_msg("call %u: %s", (unsigned)n, rt_last_error(rt)->message);
    } else {
        assert_int_equal(status, RT_OK);
    }
    rt_destroy(&rt);
    assert_int_equal(fail_driver_live(), 0);
    return !reached;
}

static void every_call_of_a_running_script(void **state)
{
    (void)state;
    uint64_t n = 1;
    while (!run_script(n))
        n++;
    assert_true(n > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_of_create),
        cmocka_unit_test(every_call_of_destroy),
        cmocka_unit_test(every_call_of_a_running_script),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
