/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that choose another way each, have none, or have them in another order. */
#include "runtime/way_agree.h"
#include "tests/unit/comm_crew.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* What a rank has, and what it comes to. */
struct ways {
    uint32_t candidates[2], selected[2], taken[2];
    enum rt_status mine[2];
    const char *prefix[2]; /* of the ways' names */
    bool fails;            /* rank 1 cannot select */
    bool reversed;         /* rank 1 has the last way first */
};

static const struct ways *now;

static int choose(struct rt_driver *d, struct rt_matmul_plan *plan, uint32_t i)
{
    const uint32_t rank = d->caps.ordinal;
    if (now->fails && rank == 1)
        return RT_DRIVER_INJECTED;
    plan->selected = i;
    memset(plan->text, 0, sizeof(plan->text));
    (void)snprintf(plan->text, sizeof(plan->text), "%s %u", now->prefix[rank],
                   now->reversed && rank == 1 ? plan->candidates - 1 - i : i);
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

static enum rt_status agree(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct ways *const w = crew->user;
    struct rt_driver d = {.caps.ordinal = c->rank,
                          .matmul_select = choose,
                          .error_text = no_text,
                          .is_out_of_memory = is_never};
    struct rt_matmul_plan plan = {.candidates = w->candidates[c->rank]};
    const enum rt_status mine = w->mine[c->rank];
    if (mine == RT_OK)
        (void)choose(&d, &plan, w->selected[c->rank]);
    else
        (void)rt_fail(err, mine, "no way here");
    const enum rt_status status = rt_way_agree(c, &d, mine == RT_OK ? &plan : NULL, mine, err);
    w->taken[c->rank] = plan.selected;
    if (status == RT_OK)
        err->message[0] = '\0';
    return status;
}

static void run(struct ways *w, enum rt_status first, enum rt_status second, const char *story)
{
    struct crew crew;
    now = w;
    crew_begin(&crew, 2);
    crew.user = w;
    crew_run(&crew, agree);
    crew_expect(&crew, 0, first, story);
    assert_int_equal(crew.status[1], second);
}

static void test_rank_0_decides(void **state)
{
    struct ways w = {.candidates = {6, 6}, .selected = {4, 2}, .prefix = {"algo", "algo"}};
    (void)state;
    run(&w, RT_OK, RT_OK, "");
    assert_int_equal(w.taken[0], 4);
    assert_int_equal(w.taken[1], 4);
    w.reversed = true;
    run(&w, RT_OK, RT_OK, "");
    assert_int_equal(w.taken[0], 4);
    assert_int_equal(w.taken[1], 1);
}

static void test_nobody_has_what_one_has_not(void **state)
{
    struct ways none = {
        .candidates = {6, 6}, .mine = {RT_OK, RT_ERR_UNSUPPORTED}, .prefix = {"algo", "algo"}};
    struct ways fewer = {.candidates = {6, 2}, .selected = {4, 1}, .prefix = {"algo", "algo"}};
    struct ways other = {.candidates = {6, 6}, .selected = {4, 4}, .prefix = {"algo", "tile"}};
    (void)state;
    run(&none, RT_ERR_UNSUPPORTED, RT_ERR_UNSUPPORTED, "rank 1: no way here");
    run(&fewer, RT_ERR_UNSUPPORTED, RT_ERR_UNSUPPORTED,
        "rank 1: none of its 2 ways is that of rank 0, \"algo 4\"");
    run(&other, RT_ERR_UNSUPPORTED, RT_ERR_UNSUPPORTED,
        "rank 1: none of its 6 ways is that of rank 0, \"algo 4\"");
}

static void test_another_failure_is_its_own(void **state)
{
    struct ways w = {
        .candidates = {6, 6}, .mine = {RT_OK, RT_ERR_DEVICE_MEMORY}, .prefix = {"algo", "algo"}};
    (void)state;
    run(&w, RT_ERR_RANKS, RT_ERR_DEVICE_MEMORY, "rank 1: no way here");
    struct ways fails = {
        .candidates = {6, 6}, .selected = {4, 4}, .prefix = {"algo", "algo"}, .fails = true};
    struct crew crew;
    now = &fails;
    crew_begin(&crew, 2);
    crew.user = &fails;
    crew_run(&crew, agree);
    assert_int_equal(crew.status[0], RT_ERR_RANKS);
    assert_int_equal(crew.status[1], RT_ERR_DRIVER);
    assert_non_null(strstr(crew.error[0].message, "matmul_select failed: injected failure"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rank_0_decides),
        cmocka_unit_test(test_nobody_has_what_one_has_not),
        cmocka_unit_test(test_another_failure_is_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
