/* SPDX-License-Identifier: Apache-2.0 */
/* Forks of sequences whose pages are the caller's, who gives the page of the copy. */
#include "tests/support/fixture.h"
#include "tests/support/history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 16

static rt_seq open_own(rt_runtime *rt, uint32_t length, const int32_t *pages, uint32_t count)
{
    const struct rt_seq_params params = {.struct_size = sizeof(params),
                                         .pages = RT_PAGES_CALLER,
                                         .length = length,
                                         .last_token = -1};
    rt_seq seq = 0;
    assert_int_equal(rt_seq_open(rt, &params, &seq), RT_OK);
    assert_int_equal(rt_seq_bind_pages(rt, seq, 0, pages, count), RT_OK);
    return seq;
}

/* Parent and child go on, each as a sequence that has had its past alone. */
static void a_fork_goes_on_in_the_pages_it_is_given(void **state)
{
    (void)state;
    const uint32_t lengths[] = {0, 1, 15, 16, 17, 32, 40};
    const int32_t own[] = {10, 11, 12, 13}, ahead[] = {20, 21, 22, 23};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        const uint32_t n = lengths[i], full = n / PAGE;
        uint16_t out[HISTORY_OUT], truth[HISTORY_OUT];
        int32_t pages[5];
        uint32_t count;
        rt_runtime *rt = fixture_create(NULL);
        fixture_randomise(rt, 71);
        rt_seq parent = open_own(rt, 0, own, 4), child = 0;
        history_grow(rt, parent, 1, 0, n);
        assert_int_equal(rt_seq_fork_onto(rt, parent, n % PAGE ? 20 : -1, &child), RT_OK);
        assert_int_equal(rt_seq_pages(rt, child, pages, 5, &count), RT_OK);
        assert_int_equal(count, full + (n % PAGE ? 1 : 0));
        for (uint32_t k = 0; k < count; k++)
            assert_int_equal(pages[k], k < full ? own[k] : 20);
        assert_int_equal(rt_seq_bind_pages(rt, child, full, ahead, 2), RT_OK);
        history_grow(rt, child, 2, n, n + 17);
        history_out(rt, 0, out);
        history_truth(rt, 1, n, 2, n + 17, truth);
        assert_memory_equal(out, truth, sizeof(truth));
        history_grow(rt, parent, 1, n, n + 17);
        history_out(rt, 0, out);
        history_truth(rt, 1, n + 17, 1, n + 17, truth);
        assert_memory_equal(out, truth, sizeof(truth));
        assert_int_equal(rt_seq_close(rt, child), RT_OK);
        assert_int_equal(rt->pages.free_count, 24);
        rt_destroy(&rt);
    }
}

static void refused(rt_runtime *rt, rt_seq seq, int32_t last_page, enum rt_status expected,
                    const char *words)
{
    struct fixture_snapshot before, after;
    rt_seq out = 7;
    rt_harvest(rt);
    fixture_snapshot(rt, &before);
    const enum rt_status status = rt_seq_fork_onto(rt, seq, last_page, &out);
    if (status != expected || !strstr(rt_last_error(rt)->message, words))
        fail_msg("got %s, \"%s\", expected \"%s\"", rt_status_string(status),
                 rt_last_error(rt)->message, words);
    rt_harvest(rt);
    fixture_snapshot(rt, &after);
    assert_memory_equal(&before, &after, sizeof(after));
    assert_int_equal(out, 7);
}

static void forks_that_are_refused(void **state)
{
    (void)state;
    const int32_t own[] = {10, 11, 12, 13};
    rt_runtime *rt = fixture_create(NULL);
    rt_seq whole = open_own(rt, 32, own, 4), part = open_own(rt, 20, own, 3);
    rt_seq bare = open_own(rt, 20, own, 1), builtin = fixture_open(rt);
    refused(rt, builtin, -1, RT_ERR_UNSUPPORTED, "has builtin pages: rt_seq_fork");
    refused(rt, whole, 5, RT_ERR_INVALID, "at length 32 copies no page: last_page must be -1");
    refused(rt, part, -1, RT_ERR_INVALID, "last_page -1 is not one of 24");
    refused(rt, part, 24, RT_ERR_INVALID, "last_page 24 is not one of 24");
    refused(rt, part, 10, RT_ERR_INVALID, "last_page 10 is bound at column 0");
    refused(rt, part, 12, RT_ERR_INVALID, "last_page 12 is bound at column 2");
    refused(rt, bare, 5, RT_ERR_PAGES, "at length 20 shares 2 pages, 1 are bound");
    rt->driver.probe.fail_at = rt->driver.probe.calls + 1;
    refused(rt, part, 5, RT_ERR_DRIVER, "injected");
    rt->driver.probe.fail_at = 0;
    (void)fixture_open(rt);
    (void)fixture_open(rt);
    refused(rt, part, 5, RT_ERR_SLOTS, "all 6");
    assert_int_equal(rt_seq_close(rt, builtin), RT_OK);
    assert_int_equal(rt_seq_fork_onto(rt, part, 5, &builtin), RT_OK);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fork_goes_on_in_the_pages_it_is_given),
        cmocka_unit_test(forks_that_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
