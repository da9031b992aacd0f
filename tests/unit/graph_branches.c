/* SPDX-License-Identifier: Apache-2.0 */
/* Branches of a program in the graph that is built of it. */
#include "tests/unit/build_spy.h"

/* A branch begins behind the trunk by a full edge, however it is captured, goes on by programmatic
 * ones, and the trunk is behind the ends of all, also of one that has put nothing on the stream. */
static void test_branches(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {0};
    struct rt_graph g;
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    struct capture_call two = {.capture = &s.capture, .branches = 2};
    struct capture_call none = {.capture = &s.capture};
    add_launch(&p, b, "trunk", 1, true);
    p.branch = 1;
    add_launch(&p, b, "a", 2, true);
    add_launch(&p, b, "a", 3, true);
    p.branch = 2;
    add_capture(&p, &two, "b");
    p.branch = 3;
    add_capture(&p, &none, "c");
    p.branch = 4;
    add_capture(&p, &none, "d");
    p.branch = RT_TRUNK;
    add_launch(&p, b, "trunk", 4, true);
    add_launch(&p, b, "trunk", 5, true);
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, NULL), RT_OK);
    const struct added *const a = s.added; /* ours; the captured two are nodes of their own */
    assert_int_equal(s.added_count, 5);
    assert_int_equal(a[1].edge_count, 1);
    assert_edge(&a[1], 0, a[0].node, false);
    assert_int_equal(a[2].edge_count, 1);
    assert_edge(&a[2], 0, a[1].node, true);
    assert_int_equal(a[3].edge_count, 4);
    assert_edge(&a[3], 0, a[2].node, false);
    assert_false(a[3].edges[1].programmatic || a[3].edges[2].programmatic);
    assert_edge(&a[3], 3, a[0].node, false);
    assert_int_equal(a[4].edge_count, 1);
    assert_edge(&a[4], 0, a[3].node, true);
    assert_memory_equal(g.first_node, ((uint32_t[]){0, 1, 2, 3, 5, 5, 5, 6, 7}),
                        9 * sizeof(uint32_t));
    rt_graph_free(&g, &b->d);
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

/* A library's kernel in the trunk, and behind it in tight branches one of ours and a library's:
 * edges out of the library's are open when it has begun, those out of ours when it says so. */
static void test_tight_branches(void **state)
{
    (void)state;
    for (uint32_t full = 0; full < 4; full++) { /* bits: the product in trunk, in branch is full */
        struct spy s;
        struct rt_program p = {0};
        struct rt_graph g;
        open_capturing(&s);
        struct host_bench *const b = &s.capture.bench;
        struct capture_call product = {.capture = &s.capture, .branches = 1};
        add_launch(&p, b, "before", 1, true);
        add_product(&p, &product, "trunk");
        p.stages[1].overlapped = !(full & 1);
        p.tight = true;
        p.branch = 1;
        add_product(&p, &product, "a");
        p.stages[2].overlapped = !(full & 2);
        p.branch = 2;
        add_launch(&p, b, "b", 2, true);
        p.tight = false;
        p.branch = RT_TRUNK;
        add_launch(&p, b, "join", 3, true);
        assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, NULL), RT_OK);
        const struct added *const fork = &s.added[1], *const join = &s.added[2];
        assert_int_equal(fork->edge_count, 1);
        assert_int_equal(fork->edges[0].programmatic, !(full & 1));
        assert_int_equal(fork->edges[0].begun, !(full & 1));
        assert_int_equal(join->edge_count, 2);
        assert_edge(join, 1, fork->node, !(full & 2));
        assert_int_equal(join->edges[0].programmatic, !(full & 2));
        assert_int_equal(join->edges[0].begun, !(full & 2));
        assert_false(join->edges[1].begun);
        rt_graph_free(&g, &b->d);
        rt_program_free(&p);
        capture_bench_close(&s.capture);
    }
}

/* More ends than can be joined are refused where they would be. */
static void test_too_many_ends(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {.spec = bench_spec(1, 1)};
    struct rt_graph g;
    struct rt_error err = {0};
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    struct capture_call half = {.capture = &s.capture, .branches = RT_MAX_TAILS / 2};
    struct capture_call rest = {.capture = &s.capture, .branches = RT_MAX_TAILS / 2 + 1};
    p.branch = 1;
    add_capture(&p, &half, "a");
    p.branch = 2;
    add_capture(&p, &rest, "b");
    p.branch = RT_TRUNK;
    add_launch(&p, b, "join", 1, true);
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, &err), RT_ERR_CALLBACK);
    assert_non_null(strstr(err.message, "\"join\""));
    assert_non_null(strstr(err.message, "more than 32 branches"));
    rest.branches--;
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, &err), RT_OK);
    assert_int_equal(s.added[s.added_count - 1].edge_count, RT_MAX_TAILS);
    rt_graph_free(&g, &b->d);
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_branches),
        cmocka_unit_test(test_tight_branches),
        cmocka_unit_test(test_too_many_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
