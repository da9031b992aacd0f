/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/program.h"

#include "tests/unit/host_bench.h"

struct call {
    struct host_bench *bench;
    int64_t value;
    int result;
    rt_dstream stream; /* the one it was given */
};

static int call_fn(void *user, rt_dstream stream)
{
    struct call *const c = user;
    c->stream = stream;
    bench_log_put(c->bench->log, c->value);
    return c->result;
}

static void add_launch(struct rt_program *p, const struct host_bench *b, const char *label,
                       int64_t value, bool waits)
{
    const struct rt_launch l = host_bench_launch(b, value, waits);
    assert_int_equal(bench_add_launch(p, label, RT_NO_LAYER, &l, NULL), RT_OK);
}

static void add_call(struct rt_program *p, struct call *c, const char *label)
{
    const struct rt_call call = {.fn = call_fn, .user = c};
    assert_int_equal(bench_add_call(p, label, 7, call, NULL), RT_OK);
}

static void test_stages_are_copies(void **state)
{
    (void)state;
    struct host_bench b;
    host_bench_open(&b);
    struct rt_program p = {.spec = bench_spec(8, 1)};
    struct call c = {.bench = &b};
    struct rt_launch l = host_bench_launch(&b, 5, true);
    char label[] = "append.3";
    assert_int_equal(bench_add_launch(&p, label, 3, &l, NULL), RT_OK);
    add_call(&p, &c, "call");
    struct rt_launch before;
    memcpy(&before, &l, sizeof(before));
    memset(&l, 0xA5, sizeof(l));
    memset(label, 'x', sizeof(label) - 1);

    assert_int_equal(p.count, 2);
    assert_int_equal(p.stages[0].work->kind, RT_WORK_LAUNCH);
    assert_int_equal(p.stages[0].layer, 3);
    assert_string_equal(p.stages[0].label, "append.3");
    assert_memory_equal(&p.stages[0].work->launch, &before, sizeof(before));
    assert_int_equal((uintptr_t)p.stages[0].work % _Alignof(struct rt_launch), 0);
    assert_int_equal(p.stages[1].work->kind, RT_WORK_CALL);
    assert_int_equal(p.stages[1].layer, 7);
    assert_ptr_equal(p.stages[1].work->call.user, &c);
    rt_program_free(&p);
    assert_null(p.stages);
    assert_int_equal(p.count + p.capacity + p.spec.rows + p.spec.tokens, 0);
    rt_program_free(&p);
    host_bench_close(&b);
}

static void test_long_labels_are_cut(void **state)
{
    (void)state;
    struct host_bench b;
    host_bench_open(&b);
    struct rt_program p = {0};
    const char *const fits = "0123456789012345678901234567890123456.8";
    const char *const longer = "0123456789012345678901234567890123456.89 and more";
    assert_int_equal(strlen(fits), RT_LABEL_BYTES - 1);
    struct call c = {.bench = &b};
    add_launch(&p, &b, fits, 0, false);
    add_launch(&p, &b, longer, 0, false);
    add_call(&p, &c, longer);
    add_launch(&p, &b, "", 0, false);
    assert_string_equal(p.stages[0].label, fits);
    assert_string_equal(p.stages[1].label, fits);
    assert_string_equal(p.stages[2].label, fits);
    assert_string_equal(p.stages[3].label, "");
    rt_program_free(&p);
    host_bench_close(&b);
}

/* Graphs keep the address of a call: growing the list must not move it. */
static void test_growth_keeps_order_and_addresses(void **state)
{
    (void)state;
    enum { STAGES = 300 };
    struct host_bench b;
    host_bench_open(&b);
    struct rt_program p = {0};
    struct call c = {.bench = &b};
    const struct rt_work *works[STAGES];
    for (uint32_t i = 0; i < STAGES; i++) {
        if (i % 3 == 0)
            add_call(&p, &c, "call");
        else
            add_launch(&p, &b, "launch", i, false);
        works[i] = p.stages[i].work;
    }
    assert_int_equal(p.count, STAGES);
    for (uint32_t i = 0; i < STAGES; i++) {
        assert_int_equal(p.stages[i].work->kind, i % 3 == 0 ? RT_WORK_CALL : RT_WORK_LAUNCH);
        assert_ptr_equal(p.stages[i].work, works[i]);
    }
    rt_program_free(&p);
    host_bench_close(&b);
}

/* What the driver was told about the edge into each launch. */
struct spy_bench {
    struct host_bench bench;
    bool programmatic[16];
    uint32_t launches;
    rt_dstream stream;
};

static int spy_launch(struct rt_driver *d, const struct rt_launch *l, bool programmatic,
                      rt_dstream s)
{
    struct spy_bench *const spy = (struct spy_bench *)(void *)d;
    spy->programmatic[spy->launches++] = programmatic;
    spy->stream = s;
    return spy->bench.plain.launch(d, l, programmatic, s);
}

static void test_run_walks_in_order_with_safe_edges(void **state)
{
    (void)state;
    struct spy_bench spy = {.launches = 0};
    struct host_bench *const b = &spy.bench;
    host_bench_open(b);
    b->d.launch = spy_launch;
    rt_dstream stream;
    assert_int_equal(b->d.stream_create(&b->d, &stream), 0);
    struct rt_program p = {0};
    struct call c = {.bench = b, .value = 13};
    add_launch(&p, b, "a", 10, true);  /* nothing before it */
    add_launch(&p, b, "b", 11, true);  /* launch before it, waits */
    add_launch(&p, b, "c", 12, false); /* does not wait */
    add_call(&p, &c, "d");
    add_launch(&p, b, "e", 14, true); /* a call before it */
    add_launch(&p, b, "f", 15, true);
    add_call(&p, &c, "g");
    p.stages[6].overlapped = true;
    add_launch(&p, b, "h", 16, true); /* a call before it that may be overlapped */
    add_call(&p, &c, "i");
    p.stages[8].overlapped = true;
    add_launch(&p, b, "j", 17, false);
    static const bool expected[] = {false, true,  false, false, false,
                                    true,  false, true,  false, false};
    assert_int_equal(p.count, 10);
    for (uint32_t i = 0; i < p.count; i++)
        assert_int_equal(rt_program_edge_programmatic(&p, i), expected[i]);

    assert_int_equal(rt_program_run(&p, &b->d, stream, NULL), RT_OK);
    assert_log(b, (const int64_t[]){10, 11, 12, 13, 14, 15, 13, 16, 13, 17}, 10);
    assert_int_equal(spy.launches, 7);
    assert_false(spy.programmatic[0]);
    assert_true(spy.programmatic[1]);
    assert_false(spy.programmatic[2]);
    assert_false(spy.programmatic[3]);
    assert_true(spy.programmatic[4]);
    assert_true(spy.programmatic[5]);
    assert_false(spy.programmatic[6]);
    assert_ptr_equal(spy.stream, stream);
    assert_null(c.stream); /* host device */
    rt_program_free(&p);
    assert_int_equal(b->d.stream_destroy(&b->d, stream), 0);
    host_bench_close(b);
}

/* t0 - a1 a2, b3 - t4 - a5, c6 - t7, and what each is behind. */
static void test_branches(void **state)
{
    (void)state;
    static const uint32_t branches[] = {0, 1, 1, 2, 0, 1, 3, 0};
    static const struct {
        uint32_t count, before[2];
        bool programmatic;
    } expected[] = {{0, {0}, false},    {1, {0}, false}, {1, {1}, true},  {1, {0}, false},
                    {2, {3, 2}, false}, {1, {4}, false}, {1, {4}, false}, {2, {6, 5}, false}};
    struct host_bench b;
    host_bench_open(&b);
    struct rt_program p = {0};
    for (uint32_t i = 0; i < 8; i++) {
        p.branch = branches[i];
        add_launch(&p, &b, "stage", i, true);
        assert_int_equal(p.stages[i].branch, branches[i]);
    }
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t before[RT_MAX_BRANCHES];
        assert_int_equal(rt_program_before(&p, i, before), expected[i].count);
        assert_memory_equal(before, expected[i].before, expected[i].count * sizeof(*before));
        assert_int_equal(rt_program_edge_programmatic(&p, i), expected[i].programmatic);
    }
    assert_int_equal(rt_program_run(&p, &b.d, NULL, NULL), RT_OK);
    assert_log(&b, (const int64_t[]){0, 1, 2, 3, 4, 5, 6, 7}, 8); /* on a stream, as listed */
    rt_program_free(&p);
    p.branch = 1; /* in front of everything */
    add_launch(&p, &b, "a", 1, true);
    p.branch = 2;
    add_launch(&p, &b, "b", 2, true);
    uint32_t none[RT_MAX_BRANCHES];
    assert_int_equal(rt_program_before(&p, 0, none) + rt_program_before(&p, 1, none), 0);
    rt_program_free(&p);
    host_bench_close(&b);
}

/* t0 - a1, b2 - t3 of tight branches, whose stages are launches, a call and a call that may be
 * overlapped, in the place `odd`: which edges may be programmatic. */
static void test_tight_branches(void **state)
{
    (void)state;
    static const struct {
        uint32_t odd; /* 4: none */
        bool overlapped, programmatic[4];
    } cases[] = {
        {4, false, {false, true, true, true}}, {0, false, {false, false, false, true}},
        {0, true, {false, true, true, true}},  {1, false, {false, false, false, false}},
        {1, true, {false, false, true, true}}, {2, false, {false, true, false, false}},
        {2, true, {false, true, false, true}},
    };
    static const uint32_t branches[] = {RT_TRUNK, 1, 2, RT_TRUNK};
    struct host_bench b;
    host_bench_open(&b);
    for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
        struct rt_program p = {0};
        struct call c = {.bench = &b};
        for (uint32_t i = 0; i < 4; i++) {
            p.branch = branches[i];
            p.tight = p.branch != RT_TRUNK;
            if (i == cases[k].odd)
                add_call(&p, &c, "odd");
            else
                add_launch(&p, &b, "launch", i, true);
            p.stages[i].overlapped = i == cases[k].odd && cases[k].overlapped;
        }
        for (uint32_t i = 0; i < 4; i++)
            if (rt_program_edge_programmatic(&p, i) != cases[k].programmatic[i])
                fail_msg("case %zu: stage %u is %s", k, i,
                         cases[k].programmatic[i] ? "not" : "programmatic");
        rt_program_free(&p);
    }
    host_bench_close(&b);
}

static void test_empty_program_runs(void **state)
{
    (void)state;
    struct host_bench b;
    host_bench_open(&b);
    const struct rt_program p = {0};
    const uint64_t calls = b.d.probe.calls;
    assert_int_equal(rt_program_run(&p, &b.d, NULL, NULL), RT_OK);
    assert_int_equal(b.d.probe.calls, calls);
    host_bench_close(&b);
}

static void test_failing_callback_is_named(void **state)
{
    (void)state;
    struct host_bench b;
    host_bench_open(&b);
    struct rt_program p = {.spec = bench_spec(8, 2)};
    struct call c = {.bench = &b, .value = 2, .result = -42};
    add_launch(&p, &b, "first", 1, false);
    add_call(&p, &c, "before_attention.4");
    add_launch(&p, &b, "last", 3, false);
    struct rt_error err = {0};
    assert_int_equal(rt_program_run(&p, &b.d, NULL, &err), RT_ERR_CALLBACK);
    assert_int_equal(err.status, RT_ERR_CALLBACK);
    assert_string_equal(err.message, "graph (batch 8, query length 2), stage "
                                     "\"before_attention.4\": the stage's function returned -42");
    assert_log(&b, (const int64_t[]){1, 2}, 2);
    assert_int_equal(rt_program_run(&p, &b.d, NULL, NULL), RT_ERR_CALLBACK);
    rt_program_free(&p);
    host_bench_close(&b);
}

static void test_every_failing_launch_is_named(void **state)
{
    (void)state;
    static const char *const labels[] = {"one", "two", "three"};
    struct host_bench b;
    host_bench_open(&b);
    struct rt_program p = {.spec = bench_spec(1, 1)};
    for (uint32_t i = 0; i < 3; i++)
        add_launch(&p, &b, labels[i], i, true);
    for (uint32_t i = 0; i < 3; i++) {
        b.log->count = 0;
        b.d.probe.fail_at = b.d.probe.calls + 1 + i;
        struct rt_error err = {0};
        assert_int_equal(rt_program_run(&p, &b.d, NULL, &err), RT_ERR_DRIVER);
        assert_non_null(strstr(err.message, labels[i]));
        assert_non_null(strstr(err.message, "injected failure"));
        assert_int_equal(b.log->count, i);
    }
    rt_program_free(&p);
    host_bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stages_are_copies),
        cmocka_unit_test(test_long_labels_are_cut),
        cmocka_unit_test(test_growth_keeps_order_and_addresses),
        cmocka_unit_test(test_run_walks_in_order_with_safe_edges),
        cmocka_unit_test(test_branches),
        cmocka_unit_test(test_tight_branches),
        cmocka_unit_test(test_empty_program_runs),
        cmocka_unit_test(test_failing_callback_is_named),
        cmocka_unit_test(test_every_failing_launch_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
