/* SPDX-License-Identifier: Apache-2.0 */
#include "buffers/pages.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SEED UINT64_C(0x9a6e5)
#define PAGES 37u

#ifdef NDEBUG
#define ASSERTIONS false
#else
#define ASSERTIONS true
#endif

static void test_takes_every_page_once(void **state)
{
    (void)state;
    struct rt_pages p;
    assert_int_equal(rt_pages_init(&p, 100, NULL), RT_OK);
    assert_int_equal(p.free_count, 100);
    bool seen[100] = {false};
    for (uint32_t i = 0; i < 100; i++) {
        const int32_t page = rt_pages_take(&p);
        assert_in_range(page, 0, 99);
        assert_false(seen[page]);
        assert_int_equal(rt_pages_refs(&p, page), 1);
        seen[page] = true;
    }
    assert_int_equal(p.free_count, 0);
    assert_int_equal(rt_pages_take(&p), -1);
    assert_int_equal(p.free_count, 0);
    rt_pages_free(&p);
}

static void test_is_a_stack(void **state)
{
    (void)state;
    struct rt_pages p;
    assert_int_equal(rt_pages_init(&p, 4, NULL), RT_OK);
    for (int32_t i = 0; i < 4; i++)
        assert_int_equal(rt_pages_take(&p), i);
    rt_pages_drop(&p, 2);
    rt_pages_drop(&p, 0);
    assert_int_equal(rt_pages_take(&p), 0);
    assert_int_equal(rt_pages_take(&p), 2);
    rt_pages_free(&p);
}

static void test_shares_up_to_its_limit(void **state)
{
    (void)state;
    struct rt_pages p;
    assert_int_equal(rt_pages_init(&p, 2, NULL), RT_OK);
    const int32_t page = rt_pages_take(&p);
    for (uint32_t refs = 1; refs < RT_PAGES_MAX_REFS; refs++)
        rt_pages_share(&p, page);
    assert_int_equal(rt_pages_refs(&p, page), 65535);
    for (uint32_t refs = RT_PAGES_MAX_REFS; refs > 1; refs--)
        rt_pages_drop(&p, page);
    assert_int_equal(p.free_count, 1);
    rt_pages_drop(&p, page);
    assert_int_equal(p.free_count, 2);
    assert_int_equal(rt_pages_refs(&p, page), 0);
    rt_pages_free(&p);
}

/* Neither kind of reference can be taken for the other, and a page counts as pinned once. */
static void test_pins_are_references_of_another_kind(void **state)
{
    (void)state;
    struct rt_pages p;
    assert_int_equal(rt_pages_init(&p, 3, NULL), RT_OK);
    const int32_t page = rt_pages_take(&p), other = rt_pages_take(&p);
    rt_pages_share(&p, page);
    rt_pages_pin(&p, page);
    rt_pages_drop(&p, page); /* the last one that is not pinned */
    assert_int_equal(rt_pages_refs(&p, page), 1);
    assert_int_equal(rt_pages_pins(&p, page), 1);
    assert_int_equal(p.free_count, 1);
    rt_pages_share(&p, page);
    rt_pages_pin(&p, page);
    rt_pages_pin(&p, other);
    assert_int_equal(p.pinned, 2);
    rt_pages_unpin(&p, page);
    assert_int_equal(p.pinned, 2);
    rt_pages_drop(&p, page);
    rt_pages_unpin(&p, page);
    assert_int_equal(p.pinned, 1);
    assert_int_equal(p.free_count, 1);
    rt_pages_drop(&p, page);
    assert_int_equal(p.free_count, 2);
    assert_int_equal(rt_pages_pins(&p, page), 0);
    rt_pages_free(&p);
}

static uint32_t below(uint64_t *random, uint32_t limit)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*random >> 33) % limit);
}

/* A page in use, found from a random place on; PAGES when all are free. */
static uint32_t any_used(const uint32_t *refs, uint32_t from)
{
    for (uint32_t i = 0; i < PAGES; i++)
        if (refs[(from + i) % PAGES] > 0)
            return (from + i) % PAGES;
    return PAGES;
}

static uint32_t naive_free(const uint32_t *refs)
{
    uint32_t free_count = 0;
    for (uint32_t i = 0; i < PAGES; i++)
        free_count += refs[i] == 0;
    return free_count;
}

static void walk_one(struct rt_pages *p, uint32_t *refs, uint64_t *random)
{
    const uint32_t what = below(random, 5);
    const uint32_t used = any_used(refs, below(random, PAGES));
    if (what < 2 || used == PAGES) {
        const int32_t page = rt_pages_take(p);
        assert_int_equal(page < 0, naive_free(refs) == 0);
        if (page >= 0) {
            assert_int_equal(refs[page], 0);
            refs[page] = 1;
        }
    } else if (what == 2) {
        rt_pages_share(p, (int32_t)used);
        refs[used]++;
    } else {
        rt_pages_drop(p, (int32_t)used);
        refs[used]--;
    }
}

static void test_random_walk_against_a_model(void **state)
{
    (void)state;
    struct rt_pages p;
    assert_int_equal(rt_pages_init(&p, PAGES, NULL), RT_OK);
    uint32_t refs[PAGES] = {0};
    uint64_t random = SEED;
    for (uint32_t step = 0; step < 100000; step++) {
        walk_one(&p, refs, &random);
        for (uint32_t i = 0; i < PAGES; i++)
            if (rt_pages_refs(&p, (int32_t)i) != refs[i])
                fail_msg("seed 0x%llx, step %u: page %u has %u references, not %u",
                         (unsigned long long)SEED, step, i, rt_pages_refs(&p, (int32_t)i), refs[i]);
        assert_int_equal(p.free_count, naive_free(refs));
    }
    rt_pages_free(&p);
}

static void assert_refused(uint64_t count, const char *text)
{
    struct rt_pages p;
    memset(&p, 0xA5, sizeof(p));
    struct rt_error err = {0};
    assert_int_equal(rt_pages_init(&p, count, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, text);
    assert_null(p.free_list);
    assert_null(p.refs);
    assert_null(p.pins);
    assert_int_equal(p.count + p.free_count + p.pinned, 0);
    rt_pages_free(&p);
}

static void test_bad_counts_are_refused(void **state)
{
    (void)state;
    assert_refused(0, "0 pages, valid are 1 to 2147483647");
    assert_refused(UINT64_C(1) << 31, "2147483648 pages, valid are 1 to 2147483647");
    assert_refused(UINT64_MAX, "18446744073709551615 pages, valid are 1 to 2147483647");
}

static void drop_twice(void)
{
    struct rt_pages p;
    if (rt_pages_init(&p, 3, NULL) != RT_OK)
        return;
    const int32_t page = rt_pages_take(&p);
    rt_pages_drop(&p, page);
    rt_pages_drop(&p, page);
}

static void share_too_often(void)
{
    struct rt_pages p;
    if (rt_pages_init(&p, 3, NULL) != RT_OK)
        return;
    const int32_t page = rt_pages_take(&p);
    for (uint32_t refs = 1; refs <= RT_PAGES_MAX_REFS; refs++)
        rt_pages_share(&p, page);
}

static void drop_what_is_pinned(void)
{
    struct rt_pages p;
    if (rt_pages_init(&p, 3, NULL) != RT_OK)
        return;
    const int32_t page = rt_pages_take(&p);
    rt_pages_pin(&p, page);
    rt_pages_drop(&p, page);
}

static void pin_what_is_pinned(void)
{
    struct rt_pages p;
    if (rt_pages_init(&p, 3, NULL) != RT_OK)
        return;
    const int32_t page = rt_pages_take(&p);
    rt_pages_pin(&p, page);
    rt_pages_pin(&p, page);
}

static void unpin_what_is_not(void)
{
    struct rt_pages p;
    if (rt_pages_init(&p, 3, NULL) != RT_OK)
        return;
    rt_pages_unpin(&p, rt_pages_take(&p));
}

static void assert_aborts(void (*mistake)(void))
{
    fflush(NULL);
    const pid_t child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        mistake();
        _exit(0);
    }
    int result = 0;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result));
    assert_int_equal(WTERMSIG(result), SIGABRT);
}

static void test_misuse_is_caught_in_debug(void **state)
{
    (void)state;
    if (!ASSERTIONS)
        skip();
    assert_aborts(drop_twice);
    assert_aborts(share_too_often);
    assert_aborts(drop_what_is_pinned);
    assert_aborts(pin_what_is_pinned);
    assert_aborts(unpin_what_is_not);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_every_page_once),
        cmocka_unit_test(test_is_a_stack),
        cmocka_unit_test(test_shares_up_to_its_limit),
        cmocka_unit_test(test_pins_are_references_of_another_kind),
        cmocka_unit_test(test_random_walk_against_a_model),
        cmocka_unit_test(test_bad_counts_are_refused),
        cmocka_unit_test(test_misuse_is_caught_in_debug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
