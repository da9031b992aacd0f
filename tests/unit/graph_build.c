/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/build.h"

#include "tests/unit/build_spy.h"

static int spy_mem_info(struct rt_driver *d, uint64_t *free_bytes, uint64_t *total_bytes)
{
    struct spy *const s = (struct spy *)(void *)d;
    *free_bytes = s->free_bytes[s->asked++];
    *total_bytes = UINT64_MAX;
    return 0;
}

/* ---- host device: calls are nodes -------------------------------------------------------------
 */

struct host_call {
    struct host_bench *bench;
    int64_t value;
    int result;
    bool null_stream;
};

static int host_call_fn(void *user, rt_dstream stream)
{
    struct host_call *const c = user;
    c->null_stream = stream == NULL;
    bench_log_put(c->bench->log, c->value);
    return c->result;
}

static void host_program(struct rt_program *p, struct host_bench *b, struct host_call *call)
{
    *p = (struct rt_program){.spec = bench_spec(8, 2)};
    *call = (struct host_call){.bench = b, .value = 3};
    const struct rt_call stage = {.fn = host_call_fn, .user = call};
    add_launch(p, b, "one", 1, true);
    add_launch(p, b, "two", 2, true);
    assert_int_equal(bench_add_call(p, "three", 0, stage, NULL), RT_OK);
    add_launch(p, b, "four", 4, true);
}

static void test_replay_is_the_eager_walk(void **state)
{
    (void)state;
    struct host_bench b;
    struct rt_program p;
    struct host_call call;
    struct rt_graph g;
    host_bench_open(&b);
    host_program(&p, &b, &call);
    assert_int_equal(rt_graph_build(&p, &b.d, NULL, &g, NULL), RT_OK);
    assert_int_equal(b.log->count, 0); /* building runs nothing */
    assert_int_equal(g.node_count, 4);
    assert_memory_equal(g.first_node, ((uint32_t[]){0, 1, 2, 3, 4}), 5 * sizeof(uint32_t));
    assert_int_equal(rt_graph_instantiate(&g, &b.d, NULL, NULL), RT_OK);
    assert_true(g.build_ns > 0);

    assert_int_equal(rt_program_run(&p, &b.d, NULL, NULL), RT_OK);
    assert_int_equal(b.d.graph_launch(&b.d, g.exec, NULL), 0);
    assert_int_equal(b.d.graph_launch(&b.d, g.exec, NULL), 0);
    assert_log(&b, (const int64_t[]){1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4}, 12);
    assert_true(call.null_stream);
    rt_graph_free(&g, &b.d);
    assert_null(g.graph);
    assert_null(g.first_node);
    rt_graph_free(&g, &b.d);
    rt_program_free(&p);
    host_bench_close(&b);
}

static void test_callback_failing_at_replay_stops_it(void **state)
{
    (void)state;
    struct host_bench b;
    struct rt_program p;
    struct host_call call;
    struct rt_graph g;
    host_bench_open(&b);
    host_program(&p, &b, &call);
    assert_int_equal(rt_graph_build(&p, &b.d, NULL, &g, NULL), RT_OK);
    assert_int_equal(rt_graph_instantiate(&g, &b.d, NULL, NULL), RT_OK);
    call.result = 5;
    assert_int_not_equal(b.d.graph_launch(&b.d, g.exec, NULL), 0);
    assert_log(&b, (const int64_t[]){1, 2, 3}, 3);
    call.result = 0;
    assert_int_equal(b.d.graph_launch(&b.d, g.exec, NULL), 0);
    rt_graph_free(&g, &b.d);
    rt_program_free(&p);
    host_bench_close(&b);
}

static void test_empty_program_is_an_empty_graph(void **state)
{
    (void)state;
    struct host_bench b;
    const struct rt_program p = {0};
    struct rt_graph g;
    host_bench_open(&b);
    assert_int_equal(rt_graph_build(&p, &b.d, NULL, &g, NULL), RT_OK);
    assert_int_equal(g.node_count, 0);
    assert_int_equal(g.first_node[0], 0);
    rt_graph_free(&g, &b.d);
    host_bench_close(&b);
}

static enum rt_status build_and_instantiate(const struct rt_program *p, struct rt_driver *d,
                                            struct rt_graph *g, struct rt_error *err)
{
    const uint64_t live = d->probe.live;
    const enum rt_status built = rt_graph_build(p, d, NULL, g, err);
    if (built != RT_OK) {
        assert_null(g->graph);
        assert_null(g->first_node);
        assert_int_equal(d->probe.live, live);
        return built;
    }
    const uint64_t live_built = d->probe.live;
    const enum rt_status status = rt_graph_instantiate(g, d, NULL, err);
    if (status != RT_OK) {
        assert_null(g->exec);
        assert_int_equal(d->probe.live, live_built);
    }
    rt_graph_free(g, d);
    assert_int_equal(d->probe.live, live);
    return status;
}

/* Fails call 1, 2, … of a build until none fails; returns how many there were. */
static uint32_t fail_every_call(const struct rt_program *p, struct rt_driver *d)
{
    for (uint32_t n = 1;; n++) {
        struct rt_graph g;
        struct rt_error err = {0};
        const uint64_t before = d->probe.calls;
        d->probe.fail_at = before + n;
        const enum rt_status status = build_and_instantiate(p, d, &g, &err);
        const bool reached = d->probe.calls >= d->probe.fail_at;
        d->probe.fail_at = 0;
        if (!reached)
            return n - 1;
        if (status == RT_OK) /* only a release may fail unheard */
            continue;
        if (!strstr(err.message, "injected failure") && status != RT_ERR_CALLBACK)
            fail_msg("call %u: %s", n, err.message);
        assert_int_equal(err.status, status);
    }
}

static void test_every_failing_call_leaves_nothing(void **state)
{
    (void)state;
    struct host_bench b;
    struct rt_program p;
    struct host_call call;
    host_bench_open(&b);
    host_program(&p, &b, &call);
    /* create, 4 nodes, mem_info, instantiate, mem_info, two releases */
    assert_int_equal(fail_every_call(&p, &b.d), 10);
    rt_program_free(&p);
    host_bench_close(&b);
}

static void test_failing_stage_is_named(void **state)
{
    (void)state;
    struct host_bench b;
    struct rt_program p;
    struct host_call call;
    struct rt_graph g;
    struct rt_error err = {0};
    host_bench_open(&b);
    host_program(&p, &b, &call);
    b.d.probe.fail_at = b.d.probe.calls + 3; /* graph_create, "one", "two" */
    assert_int_equal(rt_graph_build(&p, &b.d, NULL, &g, &err), RT_ERR_DRIVER);
    const char *const start = "graph (batch 8, query length 2), stage \"two\": ";
    assert_memory_equal(err.message, start, strlen(start));
    assert_int_equal(rt_graph_build(&p, &b.d, NULL, &g, NULL), RT_OK);
    rt_graph_free(&g, &b.d);
    rt_program_free(&p);
    host_bench_close(&b);
}

/* ---- a device that captures ---------------------------------------------------------------------
 */

static void test_edges_follow_the_tails(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {.spec = bench_spec(4, 1)};
    struct rt_graph g;
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    struct capture_call fork = {.capture = &s.capture, .branches = 2, .value = 30};
    struct capture_call line = {.capture = &s.capture, .branches = 1, .value = 50};
    struct capture_call none = {.capture = &s.capture, .branches = 0};
    add_launch(&p, b, "a", 10, true);
    add_launch(&p, b, "b", 20, false);
    add_capture(&p, &fork, "c");
    add_launch(&p, b, "d", 40, true);
    add_capture(&p, &line, "e");
    add_launch(&p, b, "f", 60, true);
    add_capture(&p, &none, "g");
    add_launch(&p, b, "h", 70, true);
    add_launch(&p, b, "i", 80, true);
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, NULL), RT_OK);

    assert_int_equal(s.added_count, 6);
    const struct added *const a = s.added;
    assert_int_equal(a[0].edge_count, 0);
    assert_int_equal(a[1].edge_count, 1);
    assert_edge(&a[1], 0, a[0].node, false); /* does not wait */
    assert_int_equal(a[2].edge_count, 2);    /* joins the fork; waits, but the fork is not ours */
    assert_false(a[2].edges[0].programmatic || a[2].edges[1].programmatic);
    assert_ptr_not_equal(a[2].edges[0].from, a[2].edges[1].from);
    assert_int_equal(a[3].edge_count, 1);
    assert_false(a[3].edges[0].programmatic);
    assert_ptr_not_equal(a[3].edges[0].from, a[2].node);
    assert_int_equal(a[4].edge_count, 1);
    assert_edge(&a[4], 0, a[3].node, true); /* the callback between them put nothing there */
    assert_int_equal(a[5].edge_count, 1);
    assert_edge(&a[5], 0, a[4].node, true);

    assert_int_equal(g.node_count, 9);
    assert_memory_equal(g.first_node, ((uint32_t[]){0, 1, 2, 4, 5, 6, 7, 7, 8, 9}),
                        10 * sizeof(uint32_t));
    assert_int_equal(rt_graph_instantiate(&g, &b->d, NULL, NULL), RT_OK);
    assert_int_equal(b->d.graph_launch(&b->d, g.exec, NULL), 0);
    assert_log(b, (const int64_t[]){10, 20, 30, 30, 40, 50, 60, 70, 80}, 9);
    rt_graph_free(&g, &b->d);
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

/* Our kernel is a tail, but not the only one. */
static void test_two_tails_are_never_programmatic(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {0};
    struct rt_graph g;
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    struct capture_call side = {.capture = &s.capture, .branches = 1, .beside = true};
    add_launch(&p, b, "a", 1, true);
    add_capture(&p, &side, "b");
    add_launch(&p, b, "c", 1, true);
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, NULL), RT_OK);
    assert_int_equal(s.added[1].edge_count, 2);
    assert_edge(&s.added[1], 0, s.added[0].node, false);
    assert_false(s.added[1].edges[1].programmatic);
    rt_graph_free(&g, &b->d);
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

/* A program of one of our kernels, a caller's stage, and another of ours, which waits or not. */
static void build_around(struct spy *s, struct rt_program *p, struct capture_call *stage,
                         bool overlapped, bool waits)
{
    struct rt_graph g;
    open_capturing(s);
    struct host_bench *const b = &s->capture.bench;
    stage->capture = &s->capture;
    add_launch(p, b, "a", 1, true);
    add_capture(p, stage, "b");
    p->stages[1].overlapped = overlapped;
    add_launch(p, b, "c", 3, waits);
    assert_int_equal(rt_graph_build(p, &b->d, NULL, &g, NULL), RT_OK);
    assert_int_equal(rt_graph_instantiate(&g, &b->d, NULL, NULL), RT_OK);
    assert_int_equal(b->d.graph_launch(&b->d, g.exec, NULL), 0);
    assert_int_equal(b->log->values[0], 1);
    assert_int_equal(b->log->values[b->log->count - 1], 3);
    rt_graph_free(&g, &b->d);
}

static void test_stages_that_may_be_overlapped(void **state)
{
    (void)state;
    static const struct {
        struct capture_call stage;
        bool overlapped, waits, programmatic;
    } cases[] = {
        {{.branches = 1}, true, true, true},
        {{.branches = 1}, false, true, false},
        {{.branches = 1}, true, false, false},
        {{.branches = 2}, true, true, false},
        {{.branches = 1, .beside = true}, true, true, false},
        {{.branches = 1, .no_kernels = true}, true, true, false},
        {{.branches = 0}, true, true, true}, /* ours is the tail */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spy s;
        struct rt_program p = {0};
        struct capture_call stage = cases[i].stage;
        build_around(&s, &p, &stage, cases[i].overlapped, cases[i].waits);
        const struct added *const behind = &s.added[1];
        for (uint32_t k = 0; k < behind->edge_count; k++)
            if (behind->edges[k].programmatic != cases[i].programmatic || behind->edges[k].begun)
                fail_msg("case %zu: edge %u is %s", i, k,
                         cases[i].programmatic ? "a full one" : "programmatic");
        assert_int_equal(behind->edge_count, cases[i].stage.branches + cases[i].stage.beside +
                                                 (cases[i].stage.branches == 0));
        rt_program_free(&p);
        capture_bench_close(&s.capture);
    }
}

/* A library's last kernel: a launch that waits may be there as soon as it runs. */
static void test_products_that_may_be_overlapped(void **state)
{
    (void)state;
    static const struct {
        uint32_t kernels; /* the product leaves, none behind the other */
        bool overlapped, waits, early;
    } cases[] = {{1, true, true, true},
                 {1, false, true, false},
                 {1, true, false, false},
                 {2, true, true, false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spy s;
        struct rt_program p = {0};
        struct rt_graph g;
        open_capturing(&s);
        struct host_bench *const b = &s.capture.bench;
        struct capture_call product = {.capture = &s.capture, .branches = cases[i].kernels};
        add_launch(&p, b, "a", 1, true);
        add_product(&p, &product, "b");
        p.stages[1].overlapped = cases[i].overlapped;
        add_launch(&p, b, "c", 3, cases[i].waits);
        add_launch(&p, b, "d", 4, true);
        assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, NULL), RT_OK);
        assert_int_equal(s.added[1].edge_count, cases[i].kernels);
        assert_int_equal(s.added[1].edges[0].programmatic, cases[i].early);
        assert_int_equal(s.added[1].edges[0].begun, cases[i].early);
        assert_edge(&s.added[2], 0, s.added[1].node, true);
        assert_false(s.added[2].edges[0].begun); /* ours says when */
        rt_graph_free(&g, &b->d);
        rt_program_free(&p);
        capture_bench_close(&s.capture);
    }
}

/* What one stage says of its kernels it does not say of another's, which is the tail still. */
static void test_an_empty_stage_says_nothing_of_others(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {0};
    struct rt_graph g;
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    struct capture_call line = {.capture = &s.capture, .branches = 1};
    struct capture_call none = {.capture = &s.capture};
    for (uint32_t first = 0; first < 2; first++) {
        s.added_count = 0;
        add_capture(&p, &line, "kernel");
        p.stages[0].overlapped = first;
        add_capture(&p, &none, "nothing");
        p.stages[1].overlapped = !first;
        add_launch(&p, b, "ours", 1, true);
        assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, NULL), RT_OK);
        assert_int_equal(s.added[0].edge_count, 1);
        assert_int_equal(s.added[0].edges[0].programmatic, first);
        rt_graph_free(&g, &b->d);
        rt_program_free(&p);
    }
    capture_bench_close(&s.capture);
}

static void test_captures_at_the_start_of_the_graph(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {0};
    struct rt_graph g;
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    struct capture_call none = {.capture = &s.capture};
    struct capture_call line = {.capture = &s.capture, .branches = 1};
    add_capture(&p, &none, "nothing");
    add_capture(&p, &line, "something");
    add_launch(&p, b, "ours", 1, true);
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, NULL), RT_OK);
    assert_memory_equal(g.first_node, ((uint32_t[]){0, 0, 1, 2}), 4 * sizeof(uint32_t));
    assert_true(rt_graph_stage_is_empty(&g, 0));
    assert_false(rt_graph_stage_is_empty(&g, 1));
    assert_int_equal(rt_graph_stage_of(&g, &p, 0), 1);
    assert_int_equal(rt_graph_stage_of(&g, &p, 1), 2);
    assert_int_equal(rt_graph_stage_of(&g, &p, 99), 2);
    assert_int_equal(s.added[0].edge_count, 1);
    assert_false(s.added[0].edges[0].programmatic);
    rt_graph_free(&g, &b->d);
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

static void test_failing_capture_callback_ends_the_capture(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {.spec = bench_spec(4, 1)};
    struct rt_graph g;
    struct rt_error err = {0};
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    struct capture_call bad = {.capture = &s.capture, .branches = 1, .result = 9};
    add_launch(&p, b, "a", 1, true);
    add_capture(&p, &bad, "after_attention.2");
    add_launch(&p, b, "b", 1, true);
    const uint64_t live = b->d.probe.live;
    for (uint32_t end_fails = 0; end_fails < 2; end_fails++) {
        /* graph_create, "a", begin, the callback's kernel, end */
        b->d.probe.fail_at = end_fails ? b->d.probe.calls + 5 : 0;
        assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, &err), RT_ERR_CALLBACK);
        assert_string_equal(err.message, "graph (batch 4, query length 1), stage "
                                         "\"after_attention.2\": the stage's function returned 9");
        assert_null(s.capture.graph);
        assert_int_equal(s.capture.ended, end_fails + 1);
        assert_int_equal(b->d.probe.live, live);
        assert_null(g.graph);
        assert_null(g.first_node);
    }
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

static void test_every_failing_call_of_a_capture_leaves_nothing(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {.spec = bench_spec(4, 1)};
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    b->d.graph_add_kernel = b->plain.graph_add_kernel;
    struct capture_call fork = {.capture = &s.capture, .branches = 2};
    add_launch(&p, b, "a", 1, true);
    add_capture(&p, &fork, "b");
    add_launch(&p, b, "c", 1, true);
    /* create, "a", begin, 2 kernels, end, nodes, "c", mem_info, instantiate, mem_info, releases */
    assert_int_equal(fail_every_call(&p, &b->d), 13);
    fork.branches = 1;
    p.stages[1].overlapped = true;
    /* create, "a", begin, kernel, end, its kind, nodes, "c", mem_info, … */
    assert_int_equal(fail_every_call(&p, &b->d), 13);
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

/* Libraries know a capture by its graph: one that has a foreign stage is captured once. */
static void test_foreign_stages_make_it_one_capture(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {.spec = bench_spec(4, 1)};
    struct rt_graph g;
    struct rt_error err = {0};
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    struct capture_call two = {.capture = &s.capture, .branches = 2};
    struct capture_call none = {.capture = &s.capture, .beside = true};
    add_launch(&p, b, "a", 1, true);
    add_capture(&p, &two, "foreign");
    add_launch(&p, b, "b", 1, true);
    add_capture(&p, &none, "nothing");
    add_launch(&p, b, "c", 1, true);
    for (enum rt_stage_trust trust = RT_STAGE_AUDITED; trust <= RT_STAGE_FOREIGN_HOST; trust++) {
        const uint32_t begun = s.capture.begun;
        p.stages[1].trust = trust;
        assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, &err), RT_OK);
        assert_int_equal(s.capture.begun - begun, trust == RT_STAGE_AUDITED ? 2 : 1);
        assert_memory_equal(g.first_node, ((uint32_t[]){0, 1, 3, 4, 4, 5}), 6 * sizeof(uint32_t));
        assert_int_equal(g.node_count, 5);
        assert_null(s.capture.graph);
        rt_graph_free(&g, &b->d);
    }
    b->d.graph_add_kernel = b->plain.graph_add_kernel;
    /* create, begin, "a", nodes, 2 kernels, nodes, "b", nodes, nodes, "c", nodes, end, mem_info,
     * instantiate, mem_info, two releases */
    assert_int_equal(fail_every_call(&p, &b->d), 18);
    two.result = 9;
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, &err), RT_ERR_CALLBACK);
    assert_string_equal(err.message, "graph (batch 4, query length 1), stage \"foreign\": the "
                                     "stage's function returned 9");
    assert_null(s.capture.graph);
    assert_null(g.graph);
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

/* As does an exchange, which fails here for want of a communicator. */
static void test_an_exchange_makes_it_one_capture(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {.spec = bench_spec(4, 1)};
    struct rt_graph g;
    const struct rt_work exchange = {.kind = RT_WORK_COLLECTIVE};
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    add_launch(&p, b, "a", 1, true);
    assert_int_equal(rt_program_add(&p, "sum", 0, &exchange, NULL), RT_OK);
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, NULL), RT_ERR_DRIVER);
    assert_int_equal(s.added_count, 0); /* no node of ours beside a capture */
    assert_int_equal(s.capture.begun, 1);
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

static void test_too_many_branches_are_refused(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {.spec = bench_spec(4, 1)};
    struct rt_graph g;
    struct rt_error err = {0};
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    struct capture_call fork = {.capture = &s.capture, .branches = RT_MAX_TAILS};
    add_capture(&p, &fork, "wide");
    add_launch(&p, b, "join", 1, true);
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, &err), RT_OK);
    assert_int_equal(s.added[0].edge_count, RT_MAX_TAILS);
    rt_graph_free(&g, &b->d);
    fork.branches = RT_MAX_TAILS + 1;
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, &err), RT_ERR_CALLBACK);
    assert_string_equal(
        err.message,
        "graph (batch 4, query length 1), stage \"wide\": the stage's function left 33 "
        "branches, at most 32 can be joined");
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

static void test_device_bytes_are_what_instantiate_took(void **state)
{
    (void)state;
    static const uint64_t cases[][3] = {{1000, 400, 600}, {1000, 1000, 0}, {400, 1000, 0}};
    for (uint32_t i = 0; i < 3; i++) {
        struct spy s;
        struct rt_program p = {0};
        struct rt_graph g;
        open_capturing(&s);
        struct host_bench *const b = &s.capture.bench;
        b->d.mem_info = spy_mem_info;
        memcpy(s.free_bytes, cases[i], sizeof(s.free_bytes));
        add_launch(&p, b, "a", 1, true);
        assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, NULL), RT_OK);
        assert_int_equal(rt_graph_instantiate(&g, &b->d, NULL, NULL), RT_OK);
        assert_int_equal(g.device_bytes, cases[i][2]);
        rt_graph_free(&g, &b->d);
        rt_program_free(&p);
        capture_bench_close(&s.capture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay_is_the_eager_walk),
        cmocka_unit_test(test_callback_failing_at_replay_stops_it),
        cmocka_unit_test(test_empty_program_is_an_empty_graph),
        cmocka_unit_test(test_every_failing_call_leaves_nothing),
        cmocka_unit_test(test_failing_stage_is_named),
        cmocka_unit_test(test_edges_follow_the_tails),
        cmocka_unit_test(test_two_tails_are_never_programmatic),
        cmocka_unit_test(test_stages_that_may_be_overlapped),
        cmocka_unit_test(test_products_that_may_be_overlapped),
        cmocka_unit_test(test_an_empty_stage_says_nothing_of_others),
        cmocka_unit_test(test_captures_at_the_start_of_the_graph),
        cmocka_unit_test(test_failing_capture_callback_ends_the_capture),
        cmocka_unit_test(test_every_failing_call_of_a_capture_leaves_nothing),
        cmocka_unit_test(test_foreign_stages_make_it_one_capture),
        cmocka_unit_test(test_an_exchange_makes_it_one_capture),
        cmocka_unit_test(test_too_many_branches_are_refused),
        cmocka_unit_test(test_device_bytes_are_what_instantiate_took),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
