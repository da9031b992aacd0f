/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA back end. Without a GPU only its refusals are tested and the rest is skipped; with
 * RT_TEST_FAKE_CUDA set, the driver found is the one of fake_cuda.c and all of it runs.
 */
#include "driver/driver.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SKIPPED 77

/* rt_test_mad: *p = *p * 3 + value, by thread 0 of block 0, after its predecessor's end. */
#define PTX(target, wait)                                                                          \
    ".version 8.0\n.target " target "\n.address_size 64\n"                                         \
    ".visible .entry rt_test_mad(.param .align 8 .b8 p[16])\n"                                     \
    "{\n"                                                                                          \
    "    .reg .pred %q;\n    .reg .b32 %r<6>;\n    .reg .b64 %d<3>;\n" wait                        \
    "    mov.u32 %r1, %ctaid.x;\n"                                                                 \
    "    mov.u32 %r2, %tid.x;\n"                                                                   \
    "    or.b32 %r3, %r1, %r2;\n"                                                                  \
    "    setp.ne.u32 %q, %r3, 0;\n"                                                                \
    "    @%q ret;\n"                                                                               \
    "    ld.param.u64 %d1, [p];\n"                                                                 \
    "    ld.param.u32 %r1, [p+8];\n"                                                               \
    "    cvta.to.global.u64 %d2, %d1;\n"                                                           \
    "    ld.global.u32 %r2, [%d2];\n"                                                              \
    "    mad.lo.u32 %r4, %r2, 3, %r1;\n"                                                           \
    "    st.global.u32 [%d2], %r4;\n"                                                              \
    "    ret;\n"                                                                                   \
    "}\n"                                                                                          \
    ".visible .entry rt_test_two(.param .u64 a, .param .u32 b)\n"                                  \
    "{\n"                                                                                          \
    "    ret;\n"                                                                                   \
    "}\n"

static const char ptx_sm80[] = PTX("sm_80", "");
static const char ptx_sm90[] = PTX("sm_90", "    griddepcontrol.wait;\n");

struct mad_params {
    rt_addr p;
    uint32_t value;
    uint32_t reserved;
};

static void assert_names(const struct rt_error *err, const char *part)
{
    if (!strstr(err->message, part))
        fail_msg("\"%s\" does not contain \"%s\"", err->message, part);
}

/* ---- a life on the device, from open to close ---- */

struct life {
    struct rt_driver d;
    bool entered;
    rt_addr mem, mapped; /* 8 u32 each */
    void *host;
    rt_dstream s;
    rt_devent e[2];
    rt_dlibrary lib;
    rt_dkernel mad;
    rt_dgraph g;
    rt_dexec x;
    bool capturing;
};

/* Failures that a test chose come back; what the device gets wrong fails the test here. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        const int try_rc = (call);                                                                 \
        if (try_rc == RT_DRIVER_INJECTED)                                                          \
            return try_rc;                                                                         \
        if (try_rc != 0)                                                                           \
            fail_msg("%s: %s", #call, l->d.error_text(&l->d, try_rc));                             \
    } while (0)

static struct rt_launch mad_launch(const struct life *l, uint32_t value)
{
    const struct mad_params p = {.p = l->mem, .value = value};
    struct rt_launch launch = {.kernel = l->mad,
                               .entry = "rt_test_mad",
                               .grid = {2, 1, 1},
                               .block = {32, 1, 1},
                               .param_bytes = sizeof(p)};
    memcpy(launch.params, &p, sizeof(p));
    return launch;
}

static int word(struct life *l, uint32_t *out)
{
    struct rt_driver *d = &l->d;
    TRY(d->copy_out(d, out, l->mem, sizeof(*out), l->s));
    TRY(d->stream_sync(d, l->s));
    return 0;
}

static int try_memory(struct life *l)
{
    struct rt_driver *d = &l->d;
    uint64_t available = 0, total = 0;
    struct rt_address_range range = {0};
    uint32_t in[8], out[8];
    TRY(d->ctx_enter(d));
    l->entered = true;
    TRY(d->mem_info(d, &available, &total));
    assert_true(available > 0 && available <= total);
    TRY(d->mem_alloc(d, sizeof(in), &l->mem));
    TRY(d->host_alloc(d, sizeof(in), &l->host, &l->mapped));
    TRY(d->stream_create(d, &l->s));
    for (uint32_t i = 0; i < 8; i++)
        in[i] = 1000 + i;
    TRY(d->copy_in(d, l->mem, in, sizeof(in), l->s));
    TRY(d->fill(d, l->mem + 4, 0x5A, 8, l->s));
    TRY(d->copy_out(d, out, l->mem, sizeof(out), l->s));
    TRY(d->stream_sync(d, l->s));
    in[1] = in[2] = 0x5A5A5A5A;
    assert_memory_equal(in, out, sizeof(in));
    TRY(d->fill(d, l->mapped, 0x33, sizeof(in), l->s)); /* the device writes host memory */
    TRY(d->stream_sync(d, l->s));
    assert_int_equal(((const uint32_t *)l->host)[7], 0x33333333);

    TRY(d->address_range(d, l->mem + 31, &range));
    assert_int_equal(range.base, l->mem);
    assert_true(range.bytes >= sizeof(in));
    TRY(d->address_range(d, l->mapped + 5, &range));
    assert_int_equal(range.base, l->mapped);
    static const rt_addr unknown[] = {0, 1, 3, 0x5A5A5A5A5A5A5A5A, UINT64_MAX};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        TRY(d->address_range(d, unknown[i], &range));
        assert_int_equal(range.base, 0);
        assert_int_equal(range.bytes, 0);
    }
    struct rt_tensor_map map;
    const struct rt_tensor_map_spec spec = {
        .address = l->mem, .dims = 2, .size = {8, 2}, .stride_bytes = {0, 16}, .box = {8, 2}};
    if (d->caps.cc >= 90)
        TRY(d->tensor_map(d, &spec, &map));
    return 0;
}

static int try_events(struct life *l)
{
    struct rt_driver *d = &l->d;
    bool idle = false;
    float ms = -1;
    for (int i = 0; i < 2; i++) {
        TRY(d->event_create(d, &l->e[i]));
        TRY(d->event_record(d, l->e[i], l->s));
    }
    TRY(d->event_sync(d, l->e[1]));
    TRY(d->event_elapsed(d, l->e[0], l->e[1], &ms));
    assert_true(ms >= 0);
    TRY(d->stream_sync(d, l->s));
    TRY(d->stream_query(d, l->s, &idle));
    assert_true(idle);
    return 0;
}

static int try_kernels(struct life *l)
{
    struct rt_driver *d = &l->d;
    const char *ptx = d->caps.cc >= 90 ? ptx_sm90 : ptx_sm80;
    const struct rt_image image = {.fatbin = ptx, .fatbin_bytes = strlen(ptx) + 1};
    rt_dkernel two = NULL, none = NULL;
    uint32_t bytes = 0, value = 0;
    TRY(d->library_load(d, &image, &l->lib));
    TRY(d->kernel_get(d, l->lib, "rt_test_mad", &l->mad));
    TRY(d->kernel_get(d, l->lib, "rt_test_two", &two));
    int rc = d->kernel_get(d, l->lib, "rt_test_none", &none);
    if (rc == RT_DRIVER_INJECTED)
        return rc;
    assert_true(rc != 0 && !none);
    TRY(d->kernel_set_smem(d, l->mad, 65536));
    TRY(d->kernel_resident_blocks(d, l->mad, 32, 65536, &value));
    TRY(d->kernel_param_bytes(d, l->mad, &bytes));
    assert_int_equal(bytes, sizeof(struct mad_params));
    rc = d->kernel_param_bytes(d, two, &bytes);
    if (rc == RT_DRIVER_INJECTED)
        return rc;
    assert_int_not_equal(rc, 0); /* two parameters */
    TRY(d->fill(d, l->mem, 0, 4, l->s));
    struct rt_launch launch = mad_launch(l, 1);
    TRY(d->launch(d, &launch, false, l->s));
    launch = mad_launch(l, 2);
    launch.cluster_x = d->caps.cc >= 90 ? 2 : 0;
    TRY(d->launch(d, &launch, d->caps.cc >= 90, l->s));
    TRY(word(l, &value));
    assert_int_equal(value, 5);
    return 0;
}

/* mad 1 -> (early) mad 2 -> captured: (early) mad 0, fill of a word -> mad 1 -> (begun) mad 2 */
static int try_graph(struct life *l)
{
    struct rt_driver *d = &l->d;
    const bool hopper = d->caps.cc >= 90;
    struct rt_dedge edge = {0};
    rt_dnode n = NULL, tails[4];
    uint32_t count = 0;
    struct rt_launch launch = mad_launch(l, 1);
    TRY(d->graph_create(d, &l->g));
    TRY(d->graph_add_kernel(d, l->g, &launch, NULL, 0, &n));
    edge = (struct rt_dedge){.from = n, .programmatic = hopper};
    launch = mad_launch(l, 2);
    launch.cluster_x = hopper ? 2 : 0;
    TRY(d->graph_add_kernel(d, l->g, &launch, &edge, 1, &n));
    int rc = d->graph_add_work(d, l->g, &(struct rt_work){.kind = RT_WORK_CALL}, NULL, 0, &n);
    if (rc == RT_DRIVER_INJECTED)
        return rc;
    assert_int_not_equal(rc, 0);

    edge = (struct rt_dedge){.from = n};
    TRY(d->graph_capture_begin(d, l->g, l->s, &edge, 1));
    l->capturing = true;
    launch = mad_launch(l, 0);
    TRY(d->launch(d, &launch, hopper, l->s));
    TRY(d->fill(d, l->mem + 4, 7, 4, l->s));
    l->capturing = false;
    TRY(d->graph_capture_end(d, l->g, l->s, tails, 4, &count));
    assert_int_equal(count, 1);
    edge = (struct rt_dedge){.from = tails[0]};
    launch = mad_launch(l, 1);
    TRY(d->graph_add_kernel(d, l->g, &launch, &edge, 1, &n));
    edge = (struct rt_dedge){.from = n, .programmatic = hopper, .begun = hopper};
    launch = mad_launch(l, 2);
    return d->graph_add_kernel(d, l->g, &launch, &edge, 1, &n);
}

/* The stand-in remembers which port an edge leaves. */
static void expect_edges(const rt_dnode *nodes, bool hopper)
{
    void *const library = dlopen("libcuda.so.1", RTLD_NOW);
    assert_non_null(library);
    int (*early)(const void *node, size_t i) = NULL;
    *(void **)&early = dlsym(library, "fake_edge_early");
    const int expected[] = {0, hopper, hopper, 0, 0, 2 * hopper};
    for (size_t i = 0; early && i < sizeof(expected) / sizeof(expected[0]); i++)
        assert_int_equal(early(nodes[i], 0), expected[i]);
    dlclose(library);
}

static int try_reading_back(struct life *l)
{
    struct rt_driver *d = &l->d;
    static const uint32_t values[] = {1, 2, 0, 0, 1, 2};
    rt_dnode nodes[8] = {0};
    uint32_t count = 0;
    TRY(d->graph_nodes(d, l->g, NULL, &count));
    assert_int_equal(count, 6);
    count = 8;
    TRY(d->graph_nodes(d, l->g, nodes, &count));
    assert_int_equal(count, 6);
    for (uint32_t i = 0; i < count; i++) { /* in the order of creation */
        struct rt_node_info info;
        TRY(d->graph_node_info(d, nodes[i], &info));
        if (i == 3) {
            assert_int_equal(info.type, RT_NODE_MEMSET);
            continue;
        }
        assert_int_equal(info.type, RT_NODE_KERNEL);
        assert_string_equal(info.name, "rt_test_mad");
        assert_int_equal(info.grid[0], 2);
        assert_int_equal(info.block[0], 32);
        assert_int_equal(info.word_count, 2);
        assert_int_equal(info.words[0], l->mem);
        assert_int_equal((uint32_t)info.words[1], values[i]);
    }
    expect_edges(nodes, d->caps.cc >= 90);
    return 0;
}

/* The launch needs no current context: a step may come from any thread. */
static int try_replay(struct life *l)
{
    struct rt_driver *d = &l->d;
    uint32_t value = 0, want = 0;
    TRY(d->graph_instantiate(d, l->g, l->s, &l->x));
    TRY(d->fill(d, l->mem, 0, 4, l->s));
    l->entered = false;
    TRY(d->ctx_leave(d));
    for (int i = 0; i < 3; i++)
        TRY(d->graph_launch(d, l->x, l->s));
    TRY(d->ctx_enter(d));
    l->entered = true;
    for (int i = 0; i < 3; i++)
        want = ((((want * 3 + 1) * 3 + 2) * 3 + 0) * 3 + 1) * 3 + 2;
    TRY(word(l, &value));
    assert_int_equal(value, want);
    return 0;
}

/* Releases all there is; the first failure, the chosen one included. */
static int end(struct life *l)
{
    struct rt_driver *d = &l->d;
    int rc = 0;
    uint32_t count;
    if (!l->entered && d->ctx_enter(d) != 0) {
        rc = RT_DRIVER_INJECTED;
        assert_int_equal(d->ctx_enter(d), 0);
    }
    const int results[] = {
        l->capturing ? d->graph_capture_end(d, l->g, l->s, NULL, 0, &count) : 0,
        l->x ? d->exec_destroy(d, l->x) : 0,
        l->g ? d->graph_destroy(d, l->g) : 0,
        l->lib ? d->library_unload(d, l->lib) : 0,
        l->e[0] ? d->event_destroy(d, l->e[0]) : 0,
        l->e[1] ? d->event_destroy(d, l->e[1]) : 0,
        l->s ? d->stream_destroy(d, l->s) : 0,
        l->host ? d->host_free(d, l->host) : 0,
        l->mem ? d->mem_free(d, l->mem) : 0,
        d->ctx_leave(d),
    };
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        if (rc == 0)
            rc = results[i];
    }
    assert_int_equal(d->probe.live, 0);
    return rc;
}

static int live(struct life *l)
{
    static int (*const parts[])(struct life *) = {try_memory, try_events,       try_kernels,
                                                  try_graph,  try_reading_back, try_replay};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const int rc = parts[i](l);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static void serves_a_whole_life(void **state)
{
    (void)state;
    struct life l = {.entered = false};
    struct rt_error err = {.status = RT_OK};
    if (rt_driver_open("cuda:0", &l.d, NULL, 0, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_int_equal(l.d.caps.kind, RT_DEVICE_KIND_CUDA);
    assert_true(l.d.caps.cc >= 80 && l.d.caps.sm_count > 0 && l.d.caps.memory_bytes > 0);
    assert_int_equal(live(&l), 0);
    assert_int_equal(end(&l), 0);
    rt_driver_close(&l.d);
}

static void every_operation_fails_once(void **state)
{
    (void)state;
    bool failed[RT_DOP_COUNT] = {false};
    for (uint64_t n = 1;; n++) {
        struct life l = {.entered = false};
        assert_int_equal(rt_driver_open_cuda(0, &l.d, NULL), RT_OK);
        l.d.probe.fail_at = n;
        int rc = live(&l);
        const enum rt_driver_op op =
            (enum rt_driver_op)l.d.probe.log[(l.d.probe.calls - 1) % RT_PROBE_LOG];
        if (rc == RT_DRIVER_INJECTED)
            failed[op] = true;
        const int end_rc = end(&l);
        if (rc == 0)
            rc = end_rc;
        const uint64_t calls = l.d.probe.calls;
        rt_driver_close(&l.d);
        assert_int_equal(rc, n <= calls ? RT_DRIVER_INJECTED : 0);
        if (n > calls)
            break;
    }
    static const enum rt_driver_op in_the_middle[] = {
        RT_DOP_mem_alloc,         RT_DOP_graph_add_kernel,  RT_DOP_graph_capture_begin,
        RT_DOP_graph_capture_end, RT_DOP_graph_instantiate, RT_DOP_graph_launch};
    for (size_t i = 0; i < sizeof(in_the_middle) / sizeof(in_the_middle[0]); i++)
        assert_true(failed[in_the_middle[i]]);
}

static void out_of_memory_is_told_apart(void **state)
{
    (void)state;
    struct rt_driver d;
    struct rt_error err = {.status = RT_OK};
    rt_addr addr = 7;
    assert_int_equal(rt_driver_open_cuda(0, &d, NULL), RT_OK);
    assert_int_equal(RT_DRV(&d, &err, ctx_enter, (&d)), RT_OK);
    assert_int_equal(RT_DRV(&d, &err, mem_alloc, (&d, UINT64_C(1) << 50, &addr)),
                     RT_ERR_DEVICE_MEMORY);
    assert_names(&err, "mem_alloc failed: CUDA_ERROR_OUT_OF_MEMORY (2): out of memory; ");
    assert_names(&err, " bytes) of ");
    assert_names(&err, " GiB are free [");
    assert_int_equal(addr, 7);
    assert_int_equal(d.mem_free(&d, 0) == 0, 0);
    assert_int_equal(d.probe.live, 0);
    assert_int_equal(d.ctx_leave(&d), 0);
    rt_driver_close(&d);
}

static void refuses_an_absent_ordinal(void **state)
{
    (void)state;
    struct rt_driver d;
    struct rt_error err = {.status = RT_OK};
    char device[32], names[128];
    uint32_t count = 0;
    assert_int_equal(rt_driver_cuda_count(&count, NULL), RT_OK);
    snprintf(device, sizeof(device), "cuda:%u", count);
    assert_int_equal(rt_driver_open(device, &d, NULL, 0, &err), RT_ERR_NO_DEVICE);
    snprintf(names, sizeof(names), "%s does not exist: the driver has %u device", device, count);
    assert_names(&err, names);
}

/* ---- without a driver ---- */

static void says_what_is_missing(void **state)
{
    (void)state;
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library) {
        dlclose(library);
        skip();
    }
    struct rt_driver d;
    struct rt_error err = {.status = RT_OK};
    uint32_t count = 7;
    assert_int_equal(rt_driver_cuda_count(&count, NULL), RT_ERR_NO_DEVICE);
    assert_int_equal(count, 0);
    assert_int_equal(rt_driver_open("cuda:0", &d, NULL, 0, &err), RT_ERR_NO_DEVICE);
    assert_int_equal(err.status, RT_ERR_NO_DEVICE);
    if (!strstr(err.message, "this build has no CUDA kernels"))
        assert_names(&err, "libcuda.so.1");
    char why[256];
    assert_int_equal(rt_driver_open("auto", &d, why, sizeof(why), NULL), RT_OK);
    assert_int_equal(d.caps.kind, RT_DEVICE_KIND_HOST);
    assert_non_null(strstr(err.message, why));
    assert_true(why[0] != '\0');
    rt_driver_close(&d);
}

/* ---- the fake driver's own failures ---- */

static void refuses_old_drivers(void **state)
{
    (void)state;
    static const char *const symbols[] = {"cuFuncLoad", "cuInit", "cuStreamSynchronize",
                                          "cuTensorMapEncodeTiled"};
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        struct rt_driver d;
        struct rt_error err = {.status = RT_OK};
        char names[64];
        setenv("FAKE_CUDA_LACKS", symbols[i], 1);
        assert_int_equal(rt_driver_open_cuda(0, &d, &err), RT_ERR_DRIVER);
        assert_int_equal(rt_driver_open("auto", &d, NULL, 0, NULL), RT_ERR_DRIVER);
        unsetenv("FAKE_CUDA_LACKS");
        snprintf(names, sizeof(names), "(for CUDA 12.2) lacks %s; needed is", symbols[i]);
        assert_names(&err, names);
    }
}

static void refuses_dead_drivers(void **state)
{
    (void)state;
    struct rt_driver d;
    struct rt_error err = {.status = RT_OK};
    setenv("FAKE_CUDA_INIT", "100", 1);
    assert_int_equal(rt_driver_open_cuda(0, &d, &err), RT_ERR_NO_DEVICE);
    assert_names(&err, "cuInit failed: CUDA_ERROR_NO_DEVICE (100): ");
    unsetenv("FAKE_CUDA_INIT");
    setenv("FAKE_CUDA_FULL", "0", 1);
    assert_int_equal(rt_driver_open_cuda(0, &d, &err), RT_ERR_DEVICE_MEMORY);
    assert_names(&err, "cuda:0: cuDevicePrimaryCtxRetain failed: CUDA_ERROR_OUT_OF_MEMORY (2): ");
    unsetenv("FAKE_CUDA_FULL");
    setenv("FAKE_CUDA_OLD", "1", 1);
    assert_int_equal(rt_driver_open_cuda(1, &d, &err), RT_ERR_UNSUPPORTED);
    assert_string_equal(err.message,
                        "cuda:1: fake 1 has compute capability 7.0, needed is 8.0 or later");
    unsetenv("FAKE_CUDA_OLD");
    setenv("FAKE_CUDA_DEVICES", "0", 1);
    assert_int_equal(rt_driver_open_cuda(0, &d, &err), RT_ERR_NO_DEVICE);
    assert_string_equal(err.message, "the NVIDIA driver has no device");
    unsetenv("FAKE_CUDA_DEVICES");
    assert_int_equal(rt_driver_open("cuda:1", &d, NULL, 0, &err), RT_OK);
    assert_int_equal(d.caps.ordinal, 1);
    assert_string_equal(d.caps.name, "fake 1");
    rt_driver_close(&d);
}

/* The second half of an operation fails: the first is undone. */
static void undoes_half_operations(void **state)
{
    (void)state;
    struct life l = {.entered = false};
    struct rt_driver *d = &l.d;
    rt_dexec x = NULL;
    rt_dnode n = NULL;
    uint32_t count = 7;
    assert_int_equal(rt_driver_open_cuda(0, d, NULL), RT_OK);
    assert_int_equal(try_memory(&l), 0);
    assert_int_equal(try_kernels(&l), 0);
    assert_int_equal(d->graph_create(d, &l.g), 0);
    const uint64_t before = d->probe.live;
    setenv("FAKE_CUDA_FAILS", "cuMemHostGetDevicePointer", 1);
    void *host = NULL;
    rt_addr mapped = 0;
    assert_int_not_equal(d->host_alloc(d, 8, &host, &mapped), 0);
    assert_null(host);
    setenv("FAKE_CUDA_FAILS", "cuGraphKernelNodeSetAttribute", 1);
    struct rt_launch launch = mad_launch(&l, 1);
    launch.cluster_x = 2;
    assert_int_not_equal(d->graph_add_kernel(d, l.g, &launch, NULL, 0, &n), 0);
    assert_null(n);
    assert_int_equal(d->graph_nodes(d, l.g, NULL, &count), 0);
    assert_int_equal(count, 0);
    setenv("FAKE_CUDA_FAILS", "cuStreamSynchronize", 1);
    assert_int_not_equal(d->graph_instantiate(d, l.g, l.s, &x), 0);
    assert_null(x);
    assert_int_equal(d->probe.live, before);
    setenv("FAKE_CUDA_FAILS", "cuStreamEndCapture", 1);
    count = 7;
    assert_int_equal(d->graph_capture_begin(d, l.g, l.s, NULL, 0), 0);
    assert_int_equal(d->probe.live, before + 1);
    assert_int_not_equal(d->graph_capture_end(d, l.g, l.s, NULL, 0, &count), 0);
    assert_int_equal(d->probe.live, before);
    assert_int_not_equal(d->graph_capture_end(d, l.g, l.s, NULL, 0, &count), 0);
    assert_int_equal(d->probe.live, before);
    assert_int_equal(count, 7);
    unsetenv("FAKE_CUDA_FAILS");
    assert_int_equal(end(&l), 0);
    rt_driver_close(d);
}

/* What is not told of a kernel's parameters, or not in full, is told to be unknown. */
static void tells_what_it_cannot_read(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
        bool is_opaque, is_named;
    } cases[] = {{"FAKE_CUDA_FAILS", "cuGraphKernelNodeGetParams", true, false},
                 {"FAKE_CUDA_FAILS", "cuKernelGetParamInfo", true, true},
                 {"FAKE_CUDA_BUFFER", "0", true, true},
                 {"FAKE_CUDA_BUFFER", "8", true, true},
                 {"FAKE_CUDA_BUFFER", "15", true, true},
                 {"FAKE_CUDA_BUFFER", "16", false, true}};
    struct life l = {.entered = false};
    struct rt_driver *d = &l.d;
    rt_dnode n;
    assert_int_equal(rt_driver_open_cuda(0, d, NULL), RT_OK);
    assert_int_equal(try_memory(&l), 0);
    assert_int_equal(try_kernels(&l), 0);
    assert_int_equal(d->graph_create(d, &l.g), 0);
    const struct rt_launch launch = mad_launch(&l, 5);
    assert_int_equal(d->graph_add_kernel(d, l.g, &launch, NULL, 0, &n), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rt_node_info info;
        setenv(cases[i].name, cases[i].value, 1);
        assert_int_equal(d->graph_node_info(d, n, &info), 0);
        unsetenv(cases[i].name);
        assert_int_equal(info.type, RT_NODE_KERNEL);
        assert_int_equal(info.is_opaque, cases[i].is_opaque);
        assert_string_equal(info.name, cases[i].is_named ? "rt_test_mad" : "");
        assert_int_equal(info.word_count, cases[i].is_opaque ? 0 : 2);
        assert_int_equal(info.words[0], cases[i].is_opaque ? 0 : l.mem);
        assert_int_equal((uint32_t)info.words[1], cases[i].is_opaque ? 0 : 5);
    }
    assert_int_equal(end(&l), 0);
    rt_driver_close(d);
}

int main(void)
{
    const struct CMUnitTest always[] = {
        cmocka_unit_test(says_what_is_missing),
    };
    const struct CMUnitTest with_device[] = {
        cmocka_unit_test(serves_a_whole_life),
        cmocka_unit_test(every_operation_fails_once),
        cmocka_unit_test(out_of_memory_is_told_apart),
        cmocka_unit_test(refuses_an_absent_ordinal),
    };
    const struct CMUnitTest with_fake[] = {
        cmocka_unit_test(refuses_old_drivers),
        cmocka_unit_test(refuses_dead_drivers),
        cmocka_unit_test(undoes_half_operations),
        cmocka_unit_test(tells_what_it_cannot_read),
    };
    const bool fake = getenv("RT_TEST_FAKE_CUDA") != NULL;
    int failures = cmocka_run_group_tests(always, NULL, NULL);
    if (!fake && rt_driver_cuda_count(&(uint32_t){0}, NULL) != RT_OK)
        return failures ? failures : SKIPPED;
    failures += cmocka_run_group_tests(with_device, NULL, NULL);
    if (fake)
        failures += cmocka_run_group_tests(with_fake, NULL, NULL);
    return failures;
}
