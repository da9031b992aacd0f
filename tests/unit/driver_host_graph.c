/* SPDX-License-Identifier: Apache-2.0 */
/* The host device: graphs, their copies, call nodes; then every operation failed once. */
#include "driver/host/host_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* *out = *out * 10 + digit. */
struct digit_params {
    uint64_t *out;
    uint64_t digit;
};

static void digit(const void *params)
{
    const struct digit_params *p = params;
    *p->out = *p->out * 10 + p->digit;
}

/* 15 bytes: the last word's tail must read as zeros. */
static void odd(const void *params)
{
    (void)params;
}

static const struct rt_host_kernel kernels[] = {
    {.entry = "digit", .run = digit, .param_bytes = sizeof(struct digit_params)},
    {.entry = "odd", .run = odd, .param_bytes = 15},
};
static const struct rt_image image = {.host_kernels = kernels, .host_kernel_count = 2};

struct fixture {
    struct rt_driver d;
    rt_dlibrary lib;
    rt_dkernel digit, odd;
    rt_dgraph graph;
    uint64_t value; /* what digit writes */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct rt_driver *d = &f->d;
    assert_int_equal(rt_driver_open_host(d, NULL), RT_OK);
    assert_int_equal(d->library_load(d, &image, &f->lib), 0);
    assert_int_equal(d->kernel_get(d, f->lib, "digit", &f->digit), 0);
    assert_int_equal(d->kernel_get(d, f->lib, "odd", &f->odd), 0);
    assert_int_equal(d->graph_create(d, &f->graph), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->graph)
        assert_int_equal(f->d.graph_destroy(&f->d, f->graph), 0);
    assert_int_equal(f->d.library_unload(&f->d, f->lib), 0);
    assert_int_equal(f->d.probe.live, 0);
    rt_driver_close(&f->d);
    free(f);
    return 0;
}

static struct rt_launch digit_launch(struct fixture *f, uint64_t value)
{
    const struct digit_params p = {.out = &f->value, .digit = value};
    struct rt_launch l = {.kernel = f->digit,
                          .grid = {4, 2, 1},
                          .block = {64, 1, 2},
                          .smem_bytes = 1024,
                          .param_bytes = sizeof(p)};
    memcpy(l.params, &p, sizeof(p));
    return l;
}

static rt_dnode add_digit(struct fixture *f, uint64_t value, rt_dnode after)
{
    const struct rt_launch l = digit_launch(f, value);
    const struct rt_dedge edge = {.from = after};
    rt_dnode n = NULL;
    assert_int_equal(f->d.graph_add_kernel(&f->d, f->graph, &l, &edge, after ? 1 : 0, &n), 0);
    assert_non_null(n);
    return n;
}

struct call {
    uint64_t *value;
    int result;
    int times;
};

static int call(void *user, rt_dstream stream)
{
    assert_null(stream);
    struct call *c = user;
    c->times++;
    *c->value = *c->value * 10 + 9;
    return c->result;
}

#define CALL(fn_, user_)                                                                           \
    (struct rt_work)                                                                               \
    {                                                                                              \
        .kind = RT_WORK_CALL, .call = {.fn = (fn_), .user = (user_) }                              \
    }

static rt_dnode add_call(struct fixture *f, struct call *c, rt_dnode after)
{
    const struct rt_dedge edge = {.from = after};
    rt_dnode n = NULL;
    assert_int_equal(f->d.graph_add_work(&f->d, f->graph, &CALL(call, c), &edge, after ? 1 : 0, &n),
                     0);
    return n;
}

static rt_dexec instantiate(struct fixture *f)
{
    rt_dexec x = NULL;
    assert_int_equal(f->d.graph_instantiate(&f->d, f->graph, NULL, &x), 0);
    assert_non_null(x);
    return x;
}

static int replay(struct fixture *f, rt_dexec x)
{
    f->value = 0;
    return f->d.graph_launch(&f->d, x, NULL);
}

/* ---- graphs ---- */

static void replay_runs_in_order(void **state)
{
    struct fixture *f = *state;
    struct call c = {.value = &f->value};
    rt_dnode n = add_digit(f, 1, NULL);
    n = add_call(f, &c, n);
    add_digit(f, 2, n);
    rt_dexec x = instantiate(f);
    const uint64_t calls = f->d.probe.calls;
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(replay(f, x), 0);
        assert_int_equal(f->value, 192);
        assert_int_equal(c.times, i);
    }
    assert_int_equal(f->d.probe.calls, calls + 3);
    assert_int_equal(f->d.exec_destroy(&f->d, x), 0);
}

/* Later changes to the graph, and its end, do not reach an executable copy. */
static void exec_is_immutable(void **state)
{
    struct fixture *f = *state;
    rt_dnode n = add_digit(f, 1, NULL);
    rt_dexec one = instantiate(f);
    for (uint64_t i = 2; i <= 40; i++)
        n = add_digit(f, i % 10, n);
    rt_dexec many = instantiate(f);
    f->graph->nodes[0]->work.launch.params[8] = 5;
    assert_int_equal(f->d.graph_destroy(&f->d, f->graph), 0);
    f->graph = NULL;
    assert_int_equal(replay(f, one), 0);
    assert_int_equal(f->value, 1);
    assert_int_equal(replay(f, many), 0);
    uint64_t want = 0;
    for (uint64_t i = 1; i <= 40; i++)
        want = want * 10 + i % 10;
    assert_int_equal(f->value, want);
    assert_int_equal(f->d.exec_destroy(&f->d, one), 0);
    assert_int_equal(f->d.exec_destroy(&f->d, many), 0);
}

static void empty_graph_replays(void **state)
{
    struct fixture *f = *state;
    rt_dexec x = instantiate(f);
    assert_int_equal(replay(f, x), 0);
    assert_int_equal(f->d.exec_destroy(&f->d, x), 0);
}

static void failing_call_stops_the_replay(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    struct call c = {.value = &f->value};
    rt_dnode n = add_digit(f, 1, NULL);
    n = add_call(f, &c, n);
    add_digit(f, 2, n);
    rt_dexec x = instantiate(f);
    static const struct {
        int result, reported;
    } cases[] = {{-3, -3},
                 {1, 1},
                 {RT_DRIVER_CALL_RANGE, RT_DRIVER_CALL_RANGE},
                 {INT32_MAX, RT_DRIVER_CALL_RANGE},
                 {INT32_MIN, -RT_DRIVER_CALL_RANGE}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rt_error err = {.status = RT_OK};
        c.result = cases[i].result;
        f->value = 0;
        assert_int_equal(RT_DRV(d, &err, graph_launch, (d, x, NULL)), RT_ERR_CALLBACK);
        assert_int_equal(f->value, 19);
        assert_int_equal(d->graph_launch(d, x, NULL), RT_DRIVER_CALL_FAILED + cases[i].reported);
    }
    c.result = 0;
    assert_int_equal(replay(f, x), 0);
    assert_int_equal(f->value, 192);
    assert_int_equal(d->exec_destroy(d, x), 0);
}

/* Of what edges leave open the newest comes first: a branch, whole, and then the one before it. */
static void branches_run_newest_first(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    struct call c = {.value = &f->value, .result = 4};
    rt_dnode ends[2];
    const rt_dnode trunk = add_digit(f, 1, NULL);
    ends[0] = add_digit(f, 3, add_digit(f, 2, trunk));
    ends[1] = add_call(f, &c, add_digit(f, 4, trunk));
    const struct rt_dedge edges[] = {{.from = ends[0]}, {.from = ends[1]}};
    const struct rt_launch l = digit_launch(f, 5);
    rt_dnode n;
    assert_int_equal(d->graph_add_kernel(d, f->graph, &l, edges, 2, &n), 0);
    rt_dexec x = instantiate(f);
    assert_int_equal(replay(f, x), RT_DRIVER_CALL_FAILED + 4);
    assert_int_equal(f->value, 149);
    assert_int_equal(d->failed_node, 4); /* by creation */
    c.result = 0;
    assert_int_equal(replay(f, x), 0);
    assert_int_equal(f->value, 149235);
    assert_int_equal(d->exec_destroy(d, x), 0);
}

static void held_replays_queue(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    struct call c = {.value = &f->value, .result = 4};
    add_call(f, &c, add_digit(f, 1, NULL));
    rt_dexec x = instantiate(f);
    rt_dstream s = NULL;
    assert_int_equal(d->stream_create(d, &s), 0);
    rt_driver_host_hold(d, s, true);
    for (int i = 0; i < 3; i++)
        assert_int_equal(d->graph_launch(d, x, s), 0);
    assert_int_equal(d->exec_destroy(d, x), 0); /* the queued launches keep it */
    assert_int_equal(c.times, 0);
    assert_int_equal(rt_driver_host_release(d, s, 1), 1);
    assert_int_equal(f->value, 19);
    assert_int_equal(d->stream_sync(d, s), RT_DRIVER_CALL_FAILED + 4);
    assert_int_equal(d->failed_node, 1);
    assert_int_equal(f->value, 19); /* nothing runs behind a failure */
    assert_int_equal(d->stream_destroy(d, s), RT_DRIVER_CALL_FAILED + 4);
}

static void edges_are_checked(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    struct call c = {.value = &f->value};
    const struct rt_launch l = digit_launch(f, 1);
    rt_dnode kernel = add_digit(f, 1, NULL), called = add_call(f, &c, kernel), n = NULL;
    rt_dgraph other = NULL;
    rt_dnode foreign = NULL;
    assert_int_equal(d->graph_create(d, &other), 0);
    assert_int_equal(d->graph_add_kernel(d, other, &l, NULL, 0, &foreign), 0);
    const struct rt_dedge bad[] = {
        {.from = foreign}, {.from = NULL}, {.from = called, .programmatic = true}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(d->graph_add_kernel(d, f->graph, &l, &bad[i], 1, &n), RT_HOST_INVALID);
    const struct rt_dedge early = {.from = kernel, .programmatic = true};
    assert_int_equal(d->graph_add_work(d, f->graph, &CALL(call, &c), &early, 1, &n),
                     RT_HOST_INVALID);
    assert_int_equal(d->graph_add_work(d, f->graph, &CALL(NULL, &c), NULL, 0, &n), RT_HOST_INVALID);
    assert_int_equal(d->graph_add_work(d, f->graph, &CALL(call, &c), NULL, 1, &n), RT_HOST_INVALID);
    assert_int_equal(d->graph_add_kernel(d, NULL, &l, NULL, 0, &n), RT_HOST_INVALID);
    assert_int_equal(d->graph_add_kernel(d, f->graph, NULL, NULL, 0, &n), RT_HOST_INVALID);
    struct rt_launch wrong = l;
    wrong.param_bytes++;
    assert_int_equal(d->graph_add_kernel(d, f->graph, &wrong, NULL, 0, &n), RT_HOST_PARAMS);
    assert_null(n);
    const struct rt_dedge both[] = {early, {.from = called}};
    assert_int_equal(d->graph_add_kernel(d, f->graph, &l, both, 2, &n), 0);
    uint32_t count = 0;
    assert_int_equal(d->graph_nodes(d, f->graph, NULL, &count), 0);
    assert_int_equal(count, 3);
    assert_int_equal(d->graph_destroy(d, other), 0);
}

static void nodes_are_read_back(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    struct call c = {.value = &f->value};
    rt_dnode made[3], read[5] = {0};
    made[0] = add_digit(f, 6, NULL);
    made[1] = add_call(f, &c, made[0]);
    struct rt_launch l = {
        .kernel = f->odd, .grid = {1, 1, 1}, .block = {1, 1, 1}, .param_bytes = 15};
    memset(l.params, 0x77, sizeof(l.params));
    assert_int_equal(d->graph_add_kernel(d, f->graph, &l, NULL, 0, &made[2]), 0);
    uint32_t count = 2;
    assert_int_equal(d->graph_nodes(d, f->graph, read, &count), 0);
    assert_int_equal(count, 2);
    assert_null(read[2]);
    count = 5;
    assert_int_equal(d->graph_nodes(d, f->graph, read, &count), 0);
    assert_int_equal(count, 3);
    assert_memory_equal(read, made, sizeof(made));
    assert_int_equal(d->graph_nodes(d, NULL, read, &count), RT_HOST_INVALID);

    struct rt_node_info info;
    assert_int_equal(d->graph_node_info(d, made[0], &info), 0);
    assert_int_equal(info.type, RT_NODE_KERNEL);
    assert_string_equal(info.name, "digit");
    const uint32_t grid[3] = {4, 2, 1}, block[3] = {64, 1, 2};
    assert_memory_equal(info.grid, grid, sizeof(grid));
    assert_memory_equal(info.block, block, sizeof(block));
    assert_int_equal(info.smem_bytes, 1024);
    assert_int_equal(info.word_count, 2);
    assert_int_equal(info.words[0], (uintptr_t)&f->value);
    assert_int_equal(info.words[1], 6);
    assert_int_equal(d->graph_node_info(d, made[1], &info), 0);
    assert_int_equal(info.type, RT_NODE_CALL);
    assert_int_equal(info.word_count, 0);
    assert_int_equal(d->graph_node_info(d, made[2], &info), 0);
    assert_int_equal(info.word_count, 2);
    assert_int_equal(info.words[1], UINT64_C(0x0077777777777777));
    assert_int_equal(d->graph_node_info(d, NULL, &info), RT_HOST_INVALID);
}

static void capture_is_not_supported(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    uint32_t count = 7;
    rt_dnode tail = NULL;
    assert_int_equal(d->graph_capture_begin(d, f->graph, NULL, NULL, 0), RT_HOST_UNSUPPORTED);
    assert_int_equal(d->graph_capture_end(d, f->graph, NULL, &tail, 1, &count),
                     RT_HOST_UNSUPPORTED);
    assert_int_equal(count, 7);
}

static void refuses_null_handles(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    rt_dexec x = NULL;
    assert_int_equal(d->graph_instantiate(d, NULL, NULL, &x), RT_HOST_INVALID);
    assert_int_equal(d->graph_launch(d, NULL, NULL), RT_HOST_INVALID);
    assert_int_equal(d->exec_destroy(d, NULL), RT_HOST_INVALID);
    assert_int_equal(d->graph_destroy(d, NULL), RT_HOST_INVALID);
}

/* ---- every operation failed once ---- */

struct life {
    struct rt_driver *d;
    bool entered;
    rt_addr mem, mapped, peer;
    void *host;
    rt_dstream s;
    rt_devent e;
    rt_dlibrary lib;
    struct rt_matmul_plan *plan;
    rt_dgraph g;
    rt_dexec x;
    uint64_t value;
};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        const int try_rc = (call);                                                                 \
        if (try_rc != 0)                                                                           \
            return try_rc;                                                                         \
    } while (0)

static int live_memory(struct life *l)
{
    struct rt_driver *d = l->d;
    uint64_t available, total;
    struct rt_address_range range;
    struct rt_tensor_map map;
    struct rt_peer_handle handle;
    char byte = 0;
    bool is_idle;
    float ms;
    TRY(d->ctx_enter(d));
    l->entered = true;
    TRY(d->mem_info(d, &available, &total));
    TRY(d->mem_alloc(d, 8, &l->mem));
    TRY(d->host_alloc(d, 8, &l->host, &l->mapped));
    TRY(d->stream_create(d, &l->s));
    TRY(d->event_create(d, &l->e));
    TRY(d->fill(d, l->mem, 1, 8, l->s));
    TRY(d->copy_in(d, l->mem, &byte, 1, l->s));
    TRY(d->copy_out(d, &byte, l->mem, 1, l->s));
    TRY(d->event_record(d, l->e, l->s));
    TRY(d->event_sync(d, l->e));
    TRY(d->event_elapsed(d, l->e, l->e, &ms));
    TRY(d->stream_query(d, l->s, &is_idle));
    TRY(d->stream_sync(d, l->s));
    const struct rt_tensor_map_spec spec = {
        .address = l->mem, .dims = 2, .size = {8, 1}, .stride_bytes = {0, 16}, .box = {8, 1}};
    TRY(d->tensor_map(d, &spec, &map));
    TRY(d->peer_export(d, l->mem, &handle));
    TRY(d->peer_open(d, &handle, &l->peer));
    assert_int_equal(l->peer, l->mem);
    return d->address_range(d, l->mem, &range);
}

static int live_product(struct life *l)
{
    struct rt_driver *d = l->d;
    const struct rt_matmul m = {.a = l->mem,
                                .b = l->mem,
                                .d = l->mem + 4,
                                .input_dtype = RT_DTYPE_F32,
                                .weight_dtype = RT_DTYPE_F32,
                                .output_dtype = RT_DTYPE_F32,
                                .batch = 1,
                                .m = 1,
                                .n = 1,
                                .k = 1,
                                .b_column_stride = 1};
    TRY(rt_driver_open_blas(d, NULL) == RT_OK ? 0 : RT_DRIVER_INJECTED);
    TRY(d->matmul_prepare(d, &m, 1, &l->plan));
    TRY(d->matmul_select(d, l->plan, 0));
    return d->matmul(d, &m, l->s);
}

static int live_graph(struct life *l)
{
    struct rt_driver *d = l->d;
    const struct digit_params p = {.out = &l->value, .digit = 3};
    struct call c = {.value = &l->value};
    struct rt_launch launch = {.grid = {1, 1, 1}, .block = {1, 1, 1}, .param_bytes = sizeof(p)};
    memcpy(launch.params, &p, sizeof(p));
    struct rt_node_info info;
    uint32_t bytes, count;
    rt_dnode node, called, tail;
    TRY(d->library_load(d, &image, &l->lib));
    TRY(d->kernel_get(d, l->lib, "digit", &launch.kernel));
    TRY(d->kernel_set_smem(d, launch.kernel, 64));
    TRY(d->kernel_param_bytes(d, launch.kernel, &bytes));
    TRY(d->kernel_resident_blocks(d, launch.kernel, 32, 64, &count));
    TRY(d->launch(d, &launch, true, l->s));
    TRY(live_product(l));
    TRY(d->collective(d, &(struct rt_collective){.dtype = RT_DTYPE_F32, .ranks = 1}, l->s));
    TRY(d->graph_create(d, &l->g));
    TRY(d->graph_add_kernel(d, l->g, &launch, NULL, 0, &node));
    TRY(d->graph_add_work(d, l->g, &CALL(call, &c), NULL, 0, &called));
    int rc = d->graph_capture_begin(d, l->g, l->s, NULL, 0);
    if (rc != RT_HOST_UNSUPPORTED)
        return rc;
    rc = d->graph_capture_end(d, l->g, l->s, &tail, 1, &count);
    if (rc != RT_HOST_UNSUPPORTED)
        return rc;
    TRY(d->graph_nodes(d, l->g, NULL, &count));
    TRY(d->graph_node_info(d, node, &info));
    TRY(d->graph_instantiate(d, l->g, l->s, &l->x));
    return d->graph_launch(d, l->x, l->s);
}

/* Releases all there is, whatever the operations say; the first of their failures. */
static int end(struct life *l)
{
    struct rt_driver *d = l->d;
    const int results[] = {
        l->x ? d->exec_destroy(d, l->x) : 0,         l->g ? d->graph_destroy(d, l->g) : 0,
        l->lib ? d->library_unload(d, l->lib) : 0,   l->e ? d->event_destroy(d, l->e) : 0,
        l->s ? d->stream_destroy(d, l->s) : 0,       l->host ? d->host_free(d, l->host) : 0,
        l->peer ? d->peer_close(d, l->peer) : 0,     l->mem ? d->mem_free(d, l->mem) : 0,
        l->plan ? d->matmul_release(d, l->plan) : 0, l->entered ? d->ctx_leave(d) : 0,
    };
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        if (results[i] != 0)
            return results[i];
    }
    return 0;
}

static void every_operation_fails_once(void **state)
{
    (void)state;
    struct rt_driver d;
    bool failed[RT_DOP_COUNT] = {false};
    for (uint64_t n = 1;; n++) {
        assert_int_equal(rt_driver_open_host(&d, NULL), RT_OK);
        d.probe.fail_at = n;
        struct life l = {.d = &d};
        int rc = live_memory(&l);
        if (rc == 0)
            rc = live_graph(&l);
        const int end_rc = end(&l);
        if (rc == 0)
            rc = end_rc;
        assert_int_equal(d.probe.live, 0);
        assert_int_equal(((struct rt_host *)d.impl)->contexts, 0);
        const uint64_t calls = d.probe.calls;
        assert_true(calls <= RT_PROBE_LOG);
        if (n <= calls) {
            if (rc != RT_DRIVER_INJECTED)
                fail_msg("call %u of %u gave %d", (unsigned)n, (unsigned)calls, rc);
            failed[d.probe.log[n - 1]] = true;
        }
        rt_driver_close(&d);
        if (n > calls) {
            assert_int_equal(rc, 0);
            break;
        }
    }
    for (int op = 0; op < RT_DOP_COUNT; op++) {
        if (!failed[op])
            fail_msg("%s was never failed", rt_driver_op_name((enum rt_driver_op)op));
    }
}

static void probe_logs_and_counts(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    const uint64_t before = d->probe.per_op[RT_DOP_stream_sync];
    for (int i = 0; i < 2 * RT_PROBE_LOG; i++)
        assert_int_equal(d->stream_sync(d, NULL), 0);
    assert_int_equal(d->ctx_enter(d), 0);
    assert_int_equal(d->ctx_leave(d), 0);
    assert_int_equal(d->probe.per_op[RT_DOP_stream_sync], before + 2 * RT_PROBE_LOG);
    assert_int_equal(d->probe.log[(d->probe.calls - 1) % RT_PROBE_LOG], RT_DOP_ctx_leave);
    assert_int_equal(d->probe.log[(d->probe.calls - 2) % RT_PROBE_LOG], RT_DOP_ctx_enter);
    assert_int_equal(d->probe.log[(d->probe.calls - 3) % RT_PROBE_LOG], RT_DOP_stream_sync);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(replay_runs_in_order),
        TEST(exec_is_immutable),
        TEST(empty_graph_replays),
        TEST(failing_call_stops_the_replay),
        TEST(branches_run_newest_first),
        TEST(held_replays_queue),
        TEST(edges_are_checked),
        TEST(nodes_are_read_back),
        TEST(capture_is_not_supported),
        TEST(refuses_null_handles),
        cmocka_unit_test(every_operation_fails_once),
        TEST(probe_logs_and_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
