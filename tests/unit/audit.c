/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/audit_bench.h"

static void test_clean_graph_passes(void **state)
{
    (void)state;
    struct audit_bench a;
    open_bench(&a, 0, 0); /* null pointers are fine, and so are scalars that are no addresses */
    build(&a);
    assert_int_equal(a.graph.node_count, 5);
    assert_passes(&a);
    close_bench(&a);
}

static void test_stray_pointer_of_ours(void **state)
{
    (void)state;
    struct audit_bench a;
    char text[512];
    open_bench(&a, 0x7f00dead0040, 0);
    build(&a);
    stray_text(text, "append.3", 1, 0x7f00dead0040);
    assert_fails(&a, text);
    close_bench(&a);
}

static void test_region_edges(void **state)
{
    (void)state;
    static const struct {
        rt_addr pointer;
        bool inside;
    } cases[] = {
        {0x10000, true}, {0x10fff, true}, {0x11000, false}, {0xffff, false}, {UINT64_MAX, false}};
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct audit_bench a;
        char text[512];
        open_bench(&a, cases[i].pointer, 0);
        build(&a);
        a.regions[1] = (struct rt_audit_region){.base = 0x10000, .bytes = 0x1000, .name = "pool"};
        a.region_count = 2;
        stray_text(text, "append.3", 1, cases[i].pointer);
        if (cases[i].inside)
            assert_passes(&a);
        else
            assert_fails(&a, text);
        close_bench(&a);
    }
}

static void test_empty_region_holds_nothing_and_the_last_byte_counts(void **state)
{
    (void)state;
    struct audit_bench a;
    char text[512];
    open_bench(&a, UINT64_MAX, 0);
    build(&a);
    a.region_count = 2;
    a.regions[1] = (struct rt_audit_region){.base = UINT64_MAX, .bytes = 0};
    stray_text(text, "append.3", 1, UINT64_MAX);
    assert_fails(&a, text);
    a.regions[1] = (struct rt_audit_region){.base = UINT64_MAX, .bytes = 1};
    assert_passes(&a);
    close_bench(&a);
}

static void test_no_regions_at_all(void **state)
{
    (void)state;
    struct audit_bench a;
    char text[512];
    open_bench(&a, 0, 0);
    build(&a);
    a.region_count = 0;
    stray_text(text, "step_begin", 0, a.capture.bench.memory);
    assert_fails(&a, text);
    close_bench(&a);
}

/* 64 bytes of an allocation, where no address looks like numbers: the first 64 KiB of 4 GiB do, in
 * which the address sanitizer has what is small. */
static rt_addr alloc_64(struct host_bench *b, rt_addr *whole)
{
    const rt_addr past = UINT64_C(64) << 10;
    assert_int_equal(b->d.mem_alloc(&b->d, 2 * past, whole), 0);
    return (*whole & UINT32_MAX) < past ? *whole + past : *whole;
}

/* In a caller's kernel only the driver can tell a pointer from a number. */
static void test_pointers_of_the_caller(void **state)
{
    (void)state;
    struct audit_bench a;
    char text[512];
    open_bench(&a, 0, 0x123456); /* no allocation: a number */
    build(&a);
    assert_passes(&a);
    close_bench(&a);

    struct host_bench *const b = &a.capture.bench;
    rt_addr whole;
    open_bench(&a, 0, 0);
    const rt_addr other = alloc_64(b, &whole);
    a.call.second = other + 63;
    build(&a);
    stray_text(text, "after.3", 1, other + 63);
    assert_fails(&a, text);
    a.regions[1] = (struct rt_audit_region){.base = other, .bytes = 64, .name = "caller"};
    a.region_count = 2;
    assert_passes(&a);
    assert_int_equal(b->d.mem_free(&b->d, whole), 0);
    close_bench(&a);
}

static int fake_info(struct rt_driver *d, rt_dnode n, struct rt_node_info *out)
{
    struct audit_bench *const a = (struct audit_bench *)(void *)d;
    const int failed = a->capture.bench.plain.graph_node_info(d, n, out);
    if (a->asked++ == a->fake_node)
        out->type = a->fake_type;
    return failed;
}

static void test_other_nodes_are_refused(void **state)
{
    (void)state;
    static const struct {
        enum rt_node_type type;
        const char *text;
    } cases[] = {
        {RT_NODE_CALL, "call"},
        {RT_NODE_MEMCPY, "memcpy"},
        {RT_NODE_MEMSET, "memset"},
        {RT_NODE_HOST, "host function"},
        {RT_NODE_MEM_ALLOC, "memory allocation"},
        {RT_NODE_MEM_FREE, "memory free"},
        {RT_NODE_EMPTY, "empty"},
        {RT_NODE_EVENT, "event"},
        {RT_NODE_OTHER, "unknown"},
        {(enum rt_node_type)77, "unknown"},
    };
    static const char *const stages[] = {"step_begin", "append.3", "after.3", "after.3",
                                         "step_end"};
    struct audit_bench a;
    open_bench(&a, 0, 0);
    build(&a);
    a.capture.bench.d.graph_node_info = fake_info;
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (a.fake_node = 0; a.fake_node < 5; a.fake_node++) {
            char text[512];
            (void)snprintf(text, sizeof(text),
                           "graph (batch 8, query length 1), stage \"%s\": %s node, only kernels "
                           "may be in the graph",
                           stages[a.fake_node], cases[i].text);
            a.fake_type = cases[i].type;
            assert_fails(&a, text);
        }
    }
    close_bench(&a);
}

/* A foreign stage: copies and fills, and any address; host functions where those are asked for. */
static void test_foreign_stages(void **state)
{
    (void)state;
    static const struct {
        enum rt_node_type type;
        enum rt_stage_trust least; /* from which it passes */
    } cases[] = {{RT_NODE_KERNEL, RT_STAGE_FOREIGN},
                 {RT_NODE_MEMCPY, RT_STAGE_FOREIGN},
                 {RT_NODE_MEMSET, RT_STAGE_FOREIGN},
                 {RT_NODE_EMPTY, RT_STAGE_FOREIGN},
                 {RT_NODE_EVENT, RT_STAGE_FOREIGN},
                 {RT_NODE_HOST, RT_STAGE_FOREIGN_HOST},
                 {RT_NODE_MEM_ALLOC, RT_STAGE_FOREIGN_HOST + 1},
                 {RT_NODE_MEM_FREE, RT_STAGE_FOREIGN_HOST + 1},
                 {RT_NODE_OTHER, RT_STAGE_FOREIGN_HOST + 1}};
    struct audit_bench a;
    rt_addr whole;
    open_bench(&a, 0, 0);
    struct host_bench *const b = &a.capture.bench;
    a.call.second = alloc_64(b, &whole); /* a stray pointer */
    build(&a);
    b->d.graph_node_info = fake_info;
    a.fake_node = 2; /* the first of the callback's two */
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (uint32_t trust = RT_STAGE_AUDITED; trust <= RT_STAGE_FOREIGN_HOST; trust++) {
            a.fake_type = cases[i].type;
            a.program.stages[2].trust = (enum rt_stage_trust)trust;
            assert_int_equal(audit(&a, NULL),
                             trust >= (uint32_t)cases[i].least ? RT_OK : RT_ERR_AUDIT);
        }
    /* Our own stages stay what they are. */
    a.fake_node = 0;
    a.fake_type = RT_NODE_MEMSET;
    assert_int_equal(audit(&a, NULL), RT_ERR_AUDIT);
    assert_int_equal(b->d.mem_free(&b->d, whole), 0);
    close_bench(&a);
}

static int host_call(void *user, rt_dstream stream)
{
    (void)user;
    (void)stream;
    return 0;
}

static void test_calls_are_fine_on_the_host_device(void **state)
{
    (void)state;
    struct audit_bench a;
    open_bench(&a, 0, 0);
    a.capture.bench.d.caps.kind = RT_DEVICE_KIND_HOST;
    a.program.stages[2].work->call.fn = host_call;
    build(&a);
    assert_int_equal(a.graph.node_count, 4);
    assert_passes(&a);
    /* But not in the place of a kernel of ours. */
    a.capture.bench.d.graph_node_info = fake_info;
    a.fake_type = RT_NODE_CALL;
    assert_fails(&a, "graph (batch 8, query length 1), stage \"step_begin\": call node, only "
                     "kernels may be in the graph");
    close_bench(&a);
}

static int narrow_info(struct rt_driver *d, rt_dnode n, struct rt_node_info *out)
{
    const struct audit_bench *const a = (const struct audit_bench *)(const void *)d;
    const int failed = a->capture.bench.plain.graph_node_info(d, n, out);
    out->word_count = 1;
    return failed;
}

static void test_missing_parameters_are_noticed(void **state)
{
    (void)state;
    struct audit_bench a;
    open_bench(&a, 0, 0);
    build(&a);
    a.capture.bench.d.graph_node_info = narrow_info;
    assert_fails(&a, "graph (batch 8, query length 1), stage \"step_begin\", kernel bench_put: 1 "
                     "parameter words where at least 2 are expected");
    close_bench(&a);
}

static int opaque_info(struct rt_driver *d, rt_dnode n, struct rt_node_info *out)
{
    struct audit_bench *const a = (struct audit_bench *)(void *)d;
    const int failed = a->capture.bench.plain.graph_node_info(d, n, out);
    if (a->asked++ == a->fake_node) {
        out->is_opaque = true;
        out->word_count = 0;
    }
    return failed;
}

/* Whatever a library hides is its own business in a foreign stage, and a gap in the proof else. */
static void test_parameters_that_the_driver_does_not_tell(void **state)
{
    (void)state;
    struct audit_bench a;
    open_bench(&a, 0, 0);
    build(&a);
    a.capture.bench.d.graph_node_info = opaque_info;
    a.fake_node = 2;
    assert_fails(&a, "graph (batch 8, query length 1), stage \"after.3\", kernel bench_put: the "
                     "driver does not tell its parameters, so only a foreign stage may have it");
    a.program.stages[2].trust = RT_STAGE_FOREIGN;
    assert_passes(&a);
    a.fake_node = 0;
    assert_fails(&a, "graph (batch 8, query length 1), stage \"step_begin\", kernel bench_put: the "
                     "driver does not tell its parameters, so only a foreign stage may have it");
    close_bench(&a);
}

static void test_another_kernel_is_noticed(void **state)
{
    (void)state;
    struct audit_bench a;
    open_bench(&a, 0, 0);
    build(&a);
    a.program.stages[1].work->launch.entry = "bench_other";
    assert_fails(&a, "graph (batch 8, query length 1), stage \"append.3\": kernel bench_put where "
                     "bench_other is expected");
    close_bench(&a);
}

static void test_nodes_behind_our_back_are_noticed(void **state)
{
    (void)state;
    struct audit_bench a;
    open_bench(&a, 0, 0);
    build(&a);
    struct rt_driver *const d = &a.capture.bench.d;
    const struct rt_launch l = host_bench_launch(&a.capture.bench, 1, false);
    rt_dnode node;
    assert_int_equal(d->graph_add_kernel(d, a.graph.graph, &l, NULL, 0, &node), 0);
    assert_fails(&a, "graph (batch 8, query length 1) has 6 nodes, 5 were built");
    close_bench(&a);
}

static void test_empty_stages_and_empty_graphs(void **state)
{
    (void)state;
    struct audit_bench a;
    open_bench(&a, 0, 0);
    a.call.branches = 0;
    build(&a);
    assert_int_equal(a.graph.node_count, 3);
    assert_passes(&a);
    a.capture.bench.d.graph_node_info = fake_info;
    a.fake_type = RT_NODE_MEMSET;
    a.fake_node = 2; /* the stage without nodes is stepped over */
    assert_fails(&a,
                 "graph (batch 8, query length 1), stage \"step_end\": memset node, only kernels "
                 "may be in the graph");
    close_bench(&a);

    struct host_bench b;
    const struct rt_program none = {0};
    struct rt_graph g;
    host_bench_open(&b);
    assert_int_equal(rt_graph_build(&none, &b.d, NULL, &g, NULL), RT_OK);
    assert_int_equal(rt_graph_audit(&g, &none, &b.d, NULL, 0, NULL), RT_OK);
    rt_graph_free(&g, &b.d);
    host_bench_close(&b);
}

static void test_every_failing_call_is_reported(void **state)
{
    (void)state;
    struct audit_bench a;
    open_bench(&a, 0, 0x123456);
    build(&a);
    struct rt_driver_probe *const probe = &a.capture.bench.d.probe;
    const uint64_t live = probe->live;
    uint32_t failures = 0;
    for (enum rt_status status = RT_ERR_DRIVER; status != RT_OK; failures++) {
        struct rt_error err = {0};
        probe->fail_at = probe->calls + failures + 1;
        status = audit(&a, &err);
        assert_int_equal(probe->live, live);
        if (status == RT_OK)
            break;
        assert_int_equal(status, RT_ERR_DRIVER);
        assert_non_null(strstr(err.message, "injected failure"));
    }
    /* nodes twice, 5 of info; in each of the caller's two kernels two words the driver is asked */
    assert_int_equal(failures, 2 + 5 + 2 * 2);
    probe->fail_at = 0;
    close_bench(&a);
}

/* In the kernels of a caller. */
static void test_small_numbers_are_no_addresses(void **state)
{
    (void)state;
    static const struct {
        uint64_t word;
        bool number;
    } cases[] = {{UINT64_C(0x403020100), true},    {UINT64_C(0x0706050403020100), true},
                 {UINT64_C(0x400000040), true},    {UINT64_C(0xffff0000ffff), true},
                 {UINT64_C(0x403020101), false},   {UINT64_C(0x1000403020100), false},
                 {UINT64_C(0x400010000), false},   {UINT64_C(0x1000000000040), false},
                 {UINT64_C(0x7f5a02000000), false}};
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct audit_bench a;
        char text[512];
        open_bench(&a, 0, cases[i].word);
        build(&a);
        taken_for_an_address = cases[i].word;
        a.capture.bench.d.address_range = knows_one;
        stray_text(text, "after.3", 1, cases[i].word);
        if (cases[i].number)
            assert_passes(&a);
        else
            assert_fails(&a, text);
        close_bench(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_numbers_are_no_addresses),
        cmocka_unit_test(test_clean_graph_passes),
        cmocka_unit_test(test_stray_pointer_of_ours),
        cmocka_unit_test(test_region_edges),
        cmocka_unit_test(test_empty_region_holds_nothing_and_the_last_byte_counts),
        cmocka_unit_test(test_no_regions_at_all),
        cmocka_unit_test(test_pointers_of_the_caller),
        cmocka_unit_test(test_other_nodes_are_refused),
        cmocka_unit_test(test_foreign_stages),
        cmocka_unit_test(test_calls_are_fine_on_the_host_device),
        cmocka_unit_test(test_missing_parameters_are_noticed),
        cmocka_unit_test(test_parameters_that_the_driver_does_not_tell),
        cmocka_unit_test(test_another_kernel_is_noticed),
        cmocka_unit_test(test_nodes_behind_our_back_are_noticed),
        cmocka_unit_test(test_empty_stages_and_empty_graphs),
        cmocka_unit_test(test_every_failing_call_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
