/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks whose libraries offer the same ways, some of the same, or others; or none at all. */
#include "runtime/way_agree.h"
#include "tests/unit/comm_crew.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define RANKS 3

/* A way's name, of one letter, and what a rank takes by it; candidates in this order. */
struct offer {
    const char *names; /* null: this rank has failed with `mine` */
    float us[RT_FASTEST_CANDIDATES];
    enum rt_status mine;
};

static struct {
    const struct offer *offers;
    uint32_t taken[RANKS]; /* candidates */
    uint32_t fails;        /* this rank cannot select; RANKS: none */
} now;

static int choose(struct rt_driver *d, struct rt_matmul_plan *plan, uint32_t i)
{
    const uint32_t rank = d->caps.ordinal;
    if (now.fails == rank)
        return RT_DRIVER_INJECTED;
    plan->selected = i;
    return 0;
}

static const char *no_text(struct rt_driver *d, int code)
{
    (void)d;
    (void)code;
    return "no text";
}

static bool is_never(struct rt_driver *d, int code)
{
    (void)d;
    (void)code;
    return false;
}

/* The letter is in the last word: all of them count. */
static struct rt_timed_ways timed_of(const struct offer *o)
{
    struct rt_timed_ways timed = {.count = (uint32_t)strlen(o->names)};
    for (uint32_t i = 0; i < timed.count; i++) {
        timed.ways[i] = (struct rt_timed_way){.candidate = i + 1, .us = o->us[i]};
        timed.ways[i].identity[RT_MATMUL_IDENTITY_WORDS - 1] = (uint32_t)o->names[i];
    }
    return timed;
}

static enum rt_status agree(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    const struct offer *const o = &now.offers[c->rank];
    struct rt_driver d = {.caps.ordinal = c->rank,
                          .matmul_select = choose,
                          .error_text = no_text,
                          .is_out_of_memory = is_never};
    struct rt_matmul_plan plan = {.candidates = RT_FASTEST_CANDIDATES};
    (void)crew;
    if (!o->names) {
        (void)rt_fail(err, o->mine, "no way here");
        return rt_way_agree(c, &d, NULL, NULL, o->mine, err);
    }
    const struct rt_timed_ways timed = timed_of(o);
    const enum rt_status status = rt_way_agree(c, &d, &plan, &timed, RT_OK, err);
    now.taken[c->rank] = plan.selected;
    return status;
}

static void run(struct crew *crew, uint32_t ranks, const struct offer *offers)
{
    now.offers = offers;
    memset(now.taken, 0, sizeof(now.taken));
    crew_begin(crew, ranks);
    crew_run(crew, agree);
}

static void assert_taken(uint32_t ranks, const struct offer *offers, const char *name)
{
    struct crew crew;
    now.fails = RANKS;
    run(&crew, ranks, offers);
    for (uint32_t r = 0; r < ranks; r++) {
        crew_expect(&crew, r, RT_OK, "");
        if (offers[r].names[now.taken[r] - 1] != name[0])
            fail_msg("rank %u took way %u of %s, not %s", r, now.taken[r], offers[r].names, name);
    }
}

static void assert_none(uint32_t ranks, const struct offer *offers, const char *story)
{
    struct crew crew;
    now.fails = RANKS;
    run(&crew, ranks, offers);
    for (uint32_t r = 0; r < ranks; r++)
        crew_expect(&crew, r, RT_ERR_UNSUPPORTED, story);
}

/* Neither rank 0's fastest nor the one that is first: what keeps the others waiting least. */
static void test_the_slowest_rank_decides(void **state)
{
    (void)state;
    static const struct offer same[] = {{"abc", {1, 2, 3}}, {"abc", {9, 4, 5}}, {"abc", {1, 1, 8}}};
    static const struct offer order[] = {{"abc", {1, 2, 3}}, {"cab", {5, 9, 4}}};
    assert_taken(3, same, "b");
    assert_taken(2, order, "b");
}

static void test_of_some_in_common(void **state)
{
    (void)state;
    static const struct offer two[] = {{"ab", {1, 7}}, {"bc", {9, 1}}};
    static const struct offer three[] = {{"abcd", {1, 2, 3, 4}}, {"dc", {1, 9}}, {"xdyc", {1, 8}}};
    static const struct offer one[] = {{"a", {1}}, {"bcdefa", {1, 1, 1, 1, 1, 90}}};
    assert_taken(2, two, "b");
    assert_taken(3, three, "d");
    assert_taken(2, one, "a");
}

/* A library may have two ways that it tells by the same words. */
static void test_of_ways_alike_the_fastest(void **state)
{
    (void)state;
    static const struct offer alike[] = {{"aab", {5, 2, 3}}, {"baa", {4, 3, 9}}};
    assert_taken(2, alike, "a");
    assert_int_equal(now.taken[0], 2);
    assert_int_equal(now.taken[1], 2);
}

static void test_of_none_in_common(void **state)
{
    (void)state;
    static const struct offer apart[] = {{"abc", {1, 2, 3}}, {"de", {1, 2}}};
    static const struct offer in_pairs[] = {{"ab", {1, 2}}, {"bc", {1, 2}}, {"cax", {1, 2, 3}}};
    assert_none(2, apart,
                "rank 1 has none of the ways that ranks before it share, of 3 on rank 0 and 2 on "
                "it");
    assert_none(3, in_pairs,
                "rank 2 has none of the ways that ranks before it share, of 2 on rank 0 and 3 on "
                "it");
}

static void test_nobody_has_what_one_has_not(void **state)
{
    (void)state;
    static const struct offer last[] = {{"ab", {1, 2}}, {NULL, {0}, RT_ERR_UNSUPPORTED}};
    static const struct offer first[] = {
        {NULL, {0}, RT_ERR_UNSUPPORTED}, {"ab", {1, 2}}, {"ab", {1, 2}}};
    assert_none(2, last, "rank 1: no way here");
    assert_none(3, first, "rank 0: no way here");
}

static void test_another_failure_is_its_own(void **state)
{
    (void)state;
    static const struct offer fails[] = {{"ab", {1, 2}}, {NULL, {0}, RT_ERR_DEVICE_MEMORY}};
    static const struct offer good[] = {{"ab", {1, 2}}, {"ab", {1, 2}}};
    struct crew crew;
    now.fails = RANKS;
    run(&crew, 2, fails);
    crew_expect(&crew, 0, RT_ERR_RANKS, "rank 1: no way here");
    crew_expect(&crew, 1, RT_ERR_DEVICE_MEMORY, "no way here");
    now.fails = 1;
    run(&crew, 2, good);
    crew_expect(&crew, 0, RT_OK, "");
    assert_int_equal(crew.status[1], RT_ERR_DRIVER);
    assert_non_null(strstr(crew.error[1].message, "matmul_select failed: injected failure"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_slowest_rank_decides),
        cmocka_unit_test(test_of_some_in_common),
        cmocka_unit_test(test_of_ways_alike_the_fastest),
        cmocka_unit_test(test_of_none_in_common),
        cmocka_unit_test(test_nobody_has_what_one_has_not),
        cmocka_unit_test(test_another_failure_is_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
