/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cooperative launches: on a stream, as nodes, captured; what a graph tells of them; and who
 * refuses a grid that cannot be resident. Without a GPU that could run the kernel only the host
 * device is tested; with RT_TEST_FAKE_CUDA set, the driver is the one of fake_cuda.c.
 */
#include "graphs/audit.h"
#include "kernels/registry.h"
#include "tests/unit/build_spy.h"
#include "tests/unit/wide_kernel.h"

/* ---- programs, on the host device ---- */

static struct rt_launch cooperative_launch(const struct host_bench *b, uint32_t blocks)
{
    struct rt_launch l = host_bench_launch(b, 7, true);
    l.grid[0] = blocks;
    l.cooperative = true;
    return l;
}

static void add_cooperative(struct rt_program *p, const struct host_bench *b)
{
    const struct rt_launch l = cooperative_launch(b, b->d.caps.sm_count);
    assert_int_equal(bench_add_launch(p, "block.0", 0, &l, NULL), RT_OK);
}

static void test_host_holds_a_block_a_multiprocessor(void **state)
{
    (void)state;
    struct host_bench b;
    uint32_t most = 0;
    host_bench_open(&b);
    const uint32_t sms = b.d.caps.sm_count;
    assert_int_equal(b.d.kernel_resident_blocks(&b.d, b.kernel, 1024, 0, &most), 0);
    assert_int_equal(most, sms);
    assert_int_equal(b.d.kernel_resident_blocks(&b.d, b.kernel, 1025, 0, &most), 0);
    assert_int_equal(most, 0);
    assert_int_not_equal(b.d.kernel_resident_blocks(&b.d, b.kernel, 0, 0, &most), 0);
    assert_int_not_equal(b.d.kernel_resident_blocks(&b.d, NULL, 32, 0, &most), 0);
    for (uint32_t more = 0; more < 2; more++) {
        struct rt_launch l = cooperative_launch(&b, sms + more);
        rt_dgraph g = NULL;
        rt_dnode n = NULL;
        assert_int_equal(b.d.graph_create(&b.d, &g), 0);
        assert_int_equal(b.d.launch(&b.d, &l, true, NULL) != 0, more);
        assert_int_equal(b.d.graph_add_kernel(&b.d, g, &l, NULL, 0, &n) != 0, more);
        l.cooperative = false;
        assert_int_equal(b.d.launch(&b.d, &l, true, NULL), 0);
        assert_int_equal(b.d.graph_destroy(&b.d, g), 0);
    }
    host_bench_close(&b);
}

static void test_what_is_not_resident_is_refused_by_name(void **state)
{
    (void)state;
    struct host_bench b;
    struct rt_error err = {0};
    host_bench_open(&b);
    const struct rt_kernels kernels = {.driver = &b.d}, none = {0};
    struct rt_launch l = cooperative_launch(&b, b.d.caps.sm_count);
    assert_int_equal(rt_kernels_check_resident(&kernels, &l, &err), RT_OK);
    l.grid[1] = 2;
    assert_int_equal(rt_kernels_check_resident(&kernels, &l, &err), RT_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "kernel bench_put: its 16 blocks wait for each other, and "
                                     "host (C reference kernels) holds 8 of them at the same time");
    assert_int_equal(rt_kernels_check_resident(&none, &l, &err), RT_OK);
    l.cooperative = false;
    assert_int_equal(rt_kernels_check_resident(&kernels, &l, &err), RT_OK);
    l.cooperative = true;
    b.d.probe.fail_at = b.d.probe.calls + 1;
    assert_int_equal(rt_kernels_check_resident(&kernels, &l, &err), RT_ERR_DRIVER);
    host_bench_close(&b);
}

/* In the trunk it is audited as what it is; in a branch there is something beside it. */
static void test_nothing_stands_beside_it(void **state)
{
    (void)state;
    struct spy s;
    struct rt_program p = {.spec = bench_spec(1, 1)};
    struct rt_graph g;
    struct rt_error err = {0};
    open_capturing(&s);
    struct host_bench *const b = &s.capture.bench;
    add_launch(&p, b, "trunk", 1, true);
    add_cooperative(&p, b);
    add_launch(&p, b, "trunk", 2, true);
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, &err), RT_OK);
    assert_edge(&s.added[1], 0, s.added[0].node, true);
    assert_edge(&s.added[2], 0, s.added[1].node, true);
    rt_graph_free(&g, &b->d);
    p.branch = 1;
    add_cooperative(&p, b);
    p.branch = RT_TRUNK;
    const uint64_t calls = b->d.probe.calls;
    assert_int_equal(rt_graph_build(&p, &b->d, NULL, &g, &err), RT_ERR_INTERNAL);
    assert_string_equal(err.message, "graph (batch 1, query length 1), stage \"block.0\": kernel "
                                     "bench_put is cooperative and in branch 1, must be alone in "
                                     "the trunk");
    assert_null(g.graph);
    assert_int_equal(b->d.probe.calls, calls);
    rt_program_free(&p);
    capture_bench_close(&s.capture);
}

/* What the driver tells is not what was asked for, in either direction. */
static void test_audit_reads_it_back(void **state)
{
    (void)state;
    struct host_bench b;
    struct rt_program p = {.spec = bench_spec(8, 1)};
    struct rt_graph g;
    struct rt_error err = {0};
    host_bench_open(&b);
    const struct rt_audit_region region = {.base = b.memory, .bytes = BENCH_LOG_BYTES};
    add_launch(&p, &b, "append.0", 1, true);
    add_cooperative(&p, &b);
    assert_int_equal(rt_graph_build(&p, &b.d, NULL, &g, NULL), RT_OK);
    assert_int_equal(rt_graph_audit(&g, &p, &b.d, &region, 1, &err), RT_OK);
    p.stages[1].work->launch.cooperative = false;
    assert_int_equal(rt_graph_audit(&g, &p, &b.d, &region, 1, &err), RT_ERR_AUDIT);
    assert_string_equal(err.message, "graph (batch 8, query length 1), stage \"block.0\", kernel "
                                     "bench_put: the node is cooperative, must not be");
    p.stages[1].work->launch.cooperative = true;
    p.stages[0].work->launch.cooperative = true;
    assert_int_equal(rt_graph_audit(&g, &p, &b.d, &region, 1, &err), RT_ERR_AUDIT);
    assert_string_equal(err.message, "graph (batch 8, query length 1), stage \"append.0\", kernel "
                                     "bench_put: the node is not cooperative, must be");
    rt_graph_free(&g, &b.d);
    rt_program_free(&p);
    host_bench_close(&b);
}

/* ---- CUDA ---- */

struct fixture {
    struct rt_driver d;
    rt_addr mem;
    rt_dlibrary lib;
    rt_dkernel kernel;
    rt_dstream s;
    rt_dgraph g;
};

static bool is_fake(void)
{
    return getenv("RT_TEST_FAKE_CUDA") != NULL;
}

static int set_up(void **state)
{
    struct fixture *const f = calloc(1, sizeof(*f));
    const struct rt_image image = {.fatbin = wide_ptx, .fatbin_bytes = sizeof(wide_ptx)};
    assert_non_null(f);
    struct rt_driver *const d = &f->d;
    assert_int_equal(rt_driver_open_cuda(0, d, NULL), RT_OK);
    assert_int_equal(d->ctx_enter(d), 0);
    assert_int_equal(d->mem_alloc(d, 256, &f->mem), 0);
    assert_int_equal(d->library_load(d, &image, &f->lib), 0);
    assert_int_equal(d->kernel_get(d, f->lib, "rt_test_wide", &f->kernel), 0);
    assert_int_equal(d->stream_create(d, &f->s), 0);
    assert_int_equal(d->graph_create(d, &f->g), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *const f = *state;
    struct rt_driver *const d = &f->d;
    assert_int_equal(d->graph_destroy(d, f->g), 0);
    assert_int_equal(d->stream_destroy(d, f->s), 0);
    assert_int_equal(d->library_unload(d, f->lib), 0);
    assert_int_equal(d->mem_free(d, f->mem), 0);
    assert_int_equal(d->ctx_leave(d), 0);
    assert_int_equal(d->probe.live, 0);
    rt_driver_close(d);
    free(f);
    return 0;
}

/* Writes value + 1. */
static struct rt_launch wide_launch(const struct fixture *f, uint32_t value, uint32_t blocks)
{
    const struct wide_params p = {.p = f->mem, .last = value};
    struct rt_launch l = {.kernel = f->kernel,
                          .entry = "rt_test_wide",
                          .grid = {blocks, 1, 1},
                          .block = {1, 1, 1},
                          .waits = true,
                          .cooperative = true,
                          .param_bytes = sizeof(p),
                          .address_mask = 3};
    memcpy(l.params, &p, sizeof(p));
    return l;
}

static void assert_value(const struct fixture *f, uint32_t want)
{
    struct rt_driver *const d = (struct rt_driver *)(uintptr_t)&f->d;
    uint32_t value = 0;
    assert_int_equal(d->copy_out(d, &value, f->mem, sizeof(value), f->s), 0);
    assert_int_equal(d->stream_sync(d, f->s), 0);
    assert_int_equal(value, want);
}

/* Two explicit nodes and a captured one, a programmatic edge in front of each; one of another kind
 * in the end. */
static void add_nodes(struct fixture *f)
{
    struct rt_driver *const d = &f->d;
    rt_dnode nodes[3] = {0};
    uint32_t count = 0;
    for (uint32_t i = 0; i < 2; i++) {
        const struct rt_launch l = wide_launch(f, 10 + i, 4);
        const struct rt_dedge edge = {.from = i ? nodes[0] : NULL, .programmatic = true};
        assert_int_equal(d->graph_add_kernel(d, f->g, &l, &edge, i, &nodes[i]), 0);
    }
    struct rt_launch l = wide_launch(f, 12, 4);
    const struct rt_dedge edge = {.from = nodes[1]};
    assert_int_equal(d->graph_capture_begin(d, f->g, f->s, &edge, 1), 0);
    assert_int_equal(d->launch(d, &l, true, f->s), 0);
    l.cooperative = false;
    assert_int_equal(d->launch(d, &l, true, f->s), 0);
    assert_int_equal(d->graph_capture_end(d, f->g, f->s, nodes, 1, &count), 0);
    assert_int_equal(count, 1);
}

static void nodes_tell_what_they_are(void **state)
{
    struct fixture *const f = *state;
    struct rt_driver *const d = &f->d;
    rt_dnode nodes[4] = {0};
    rt_dexec x = NULL;
    uint32_t count = 4;
    add_nodes(f);
    assert_int_equal(d->graph_nodes(d, f->g, nodes, &count), 0);
    assert_int_equal(count, 4);
    for (uint32_t i = 0; i < count; i++) {
        struct rt_node_info info;
        assert_int_equal(d->graph_node_info(d, nodes[i], &info), 0);
        assert_int_equal(info.type, RT_NODE_KERNEL);
        assert_int_equal(info.cooperative, i < 3);
        assert_int_equal(info.is_opaque, 0);
    }
    assert_int_equal(d->graph_instantiate(d, f->g, f->s, &x), 0);
    assert_int_equal(d->graph_launch(d, x, f->s), 0);
    assert_value(f, 13);
    assert_int_equal(d->exec_destroy(d, x), 0);
}

static void streams_take_what_is_resident(void **state)
{
    struct fixture *const f = *state;
    struct rt_driver *const d = &f->d;
    uint32_t most = 0;
    assert_int_equal(d->kernel_resident_blocks(d, f->kernel, 1, 0, &most), 0);
    assert_true(most >= d->caps.sm_count && most % d->caps.sm_count == 0);
    const struct rt_launch all = wide_launch(f, 20, most), more = wide_launch(f, 30, most + 1);
    assert_int_equal(d->launch(d, &all, false, f->s), 0);
    assert_value(f, 21);
    assert_int_equal(d->launch(d, &all, true, f->s), 0);
    struct rt_error err = {0};
    assert_int_equal(RT_DRV(d, &err, launch, (d, &more, false, f->s)), RT_ERR_DRIVER);
    assert_non_null(strstr(err.message, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"));
    assert_value(f, 21);
    assert_int_equal(d->kernel_resident_blocks(d, f->kernel, 2000, 0, &most), 0);
    assert_int_equal(most, 0);
    const uint32_t before = most;
    d->probe.fail_at = d->probe.calls + 1;
    assert_int_equal(d->kernel_resident_blocks(d, f->kernel, 1, 0, &most), RT_DRIVER_INJECTED);
    assert_int_equal(most, before);
}

/* A graph that holds one may be refused when it is built or when it is instantiated. */
static void graphs_refuse_what_is_not(void **state)
{
    struct fixture *const f = *state;
    struct rt_driver *const d = &f->d;
    rt_dnode n = NULL;
    rt_dexec x = NULL;
    uint32_t most = 0;
    assert_int_equal(d->kernel_resident_blocks(d, f->kernel, 1, 0, &most), 0);
    const struct rt_launch more = wide_launch(f, 40, most + 1);
    int rc = d->graph_add_kernel(d, f->g, &more, NULL, 0, &n);
    if (rc == 0)
        rc = d->graph_instantiate(d, f->g, f->s, &x);
    assert_int_not_equal(rc, 0);
    assert_null(x);
}

static void half_a_node_is_undone(void **state)
{
    struct fixture *const f = *state;
    struct rt_driver *const d = &f->d;
    const struct rt_launch l = wide_launch(f, 1, 4);
    struct rt_node_info info = {.smem_bytes = 77};
    rt_dnode n = NULL;
    uint32_t count = 7, most = 5;
    setenv("FAKE_CUDA_FAILS", "cuGraphKernelNodeSetAttribute", 1);
    assert_int_not_equal(d->graph_add_kernel(d, f->g, &l, NULL, 0, &n), 0);
    assert_null(n);
    assert_int_equal(d->graph_nodes(d, f->g, NULL, &count), 0);
    assert_int_equal(count, 0);
    setenv("FAKE_CUDA_FAILS", "cuGraphKernelNodeGetAttribute", 1);
    assert_int_equal(d->graph_add_kernel(d, f->g, &l, NULL, 0, &n), 0);
    assert_int_not_equal(d->graph_node_info(d, n, &info), 0);
    assert_int_equal(info.smem_bytes, 77);
    setenv("FAKE_CUDA_FAILS", "cuOccupancyMaxActiveBlocksPerMultiprocessor", 1);
    assert_int_not_equal(d->kernel_resident_blocks(d, f->kernel, 1, 0, &most), 0);
    assert_int_equal(most, 5);
    unsetenv("FAKE_CUDA_FAILS");
}

static bool cuda_has_kernel(void)
{
    struct rt_driver d;
    const bool has = rt_driver_open_cuda(0, &d, NULL) == RT_OK && d.caps.cc >= 90;
    rt_driver_close(&d);
    return has;
}

#define CUDA(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest host[] = {
        cmocka_unit_test(test_host_holds_a_block_a_multiprocessor),
        cmocka_unit_test(test_what_is_not_resident_is_refused_by_name),
        cmocka_unit_test(test_nothing_stands_beside_it),
        cmocka_unit_test(test_audit_reads_it_back),
    };
    const struct CMUnitTest cuda[] = {
        CUDA(nodes_tell_what_they_are),
        CUDA(streams_take_what_is_resident),
        CUDA(graphs_refuse_what_is_not),
    };
    const struct CMUnitTest fake[] = {
        CUDA(half_a_node_is_undone),
    };
    int failures = cmocka_run_group_tests(host, NULL, NULL);
    if (cuda_has_kernel() || is_fake())
        failures += cmocka_run_group_tests(cuda, NULL, NULL);
    if (is_fake())
        failures += cmocka_run_group_tests(fake, NULL, NULL);
    return failures;
}
