/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_CAPTURE_BENCH_H
#define RT_TESTS_UNIT_CAPTURE_BENCH_H

/*
 * The host device dressed as a device that captures: what a callback puts on the capturing stream
 * (capture_bench_put) becomes nodes of the graph.
 *
 * Includes cmocka.h, so a test includes this last.
 */
#include "tests/unit/host_bench.h"

#define CAPTURE_TAILS 64u

struct capture_bench {
    struct host_bench bench;
    rt_dgraph graph; /* while capturing; else null */
    rt_dstream stream;
    rt_dnode tails[CAPTURE_TAILS];
    uint32_t tail_count;
    uint32_t begun, ended;
};

/* A caller's stage: `branches` kernels side by side after what was before, each with `value`. */
struct capture_call {
    struct capture_bench *capture;
    uint32_t branches;
    bool no_kernels; /* nodes of another kind, which do nothing */
    bool beside;     /* what was before stays a tail, first of all */
    int64_t value;
    rt_addr second; /* a word of each kernel's parameters */
    int result;
};

static int capture_begin(struct rt_driver *d, rt_dgraph g, rt_dstream s,
                         const struct rt_dedge *edges, uint32_t edge_count)
{
    struct capture_bench *const c = (struct capture_bench *)(void *)d;
    if (rt_probe_enter(d, RT_DOP_graph_capture_begin))
        return RT_DRIVER_INJECTED;
    d->probe.live++;
    c->graph = g;
    c->stream = s;
    c->begun++;
    c->tail_count = edge_count;
    for (uint32_t i = 0; i < edge_count; i++)
        c->tails[i] = edges[i].from;
    return 0;
}

static int capture_end(struct rt_driver *d, rt_dgraph g, rt_dstream s, rt_dnode *tails,
                       uint32_t capacity, uint32_t *count)
{
    struct capture_bench *const c = (struct capture_bench *)(void *)d;
    const bool injected = rt_probe_enter(d, RT_DOP_graph_capture_end);
    assert_ptr_equal(c->graph, g);
    assert_ptr_equal(c->stream, s);
    d->probe.live--;
    c->graph = NULL;
    c->ended++;
    if (injected)
        return RT_DRIVER_INJECTED;
    for (uint32_t i = 0; i < c->tail_count && i < capacity; i++)
        tails[i] = c->tails[i];
    *count = c->tail_count;
    return 0;
}

/* What is launched while capturing is the new tail. */
static int capture_launch(struct rt_driver *d, const struct rt_launch *l, bool programmatic,
                          rt_dstream s)
{
    struct capture_bench *const c = (struct capture_bench *)(void *)d;
    struct rt_dedge edges[CAPTURE_TAILS];
    if (!c->graph)
        return c->bench.plain.launch(d, l, programmatic, s);
    for (uint32_t i = 0; i < c->tail_count; i++)
        edges[i] = (struct rt_dedge){.from = c->tails[i], .programmatic = programmatic};
    const int failed =
        c->bench.plain.graph_add_kernel(d, c->graph, l, edges, c->tail_count, &c->tails[0]);
    c->tail_count = 1;
    return failed;
}

static int capture_nothing(void *user, rt_dstream stream)
{
    (void)user;
    (void)stream;
    return 0;
}

static int capture_node(const struct capture_call *call, const struct rt_dedge *edges,
                        uint32_t edge_count, rt_dnode *out)
{
    struct capture_bench *const c = call->capture;
    struct host_bench *const b = &c->bench;
    struct rt_launch l = host_bench_launch(b, call->value, false);
    const struct bench_params params = {
        .log = b->log, .second = call->second, .value = call->value};
    const struct rt_work nothing = {.kind = RT_WORK_CALL, .call = {.fn = capture_nothing}};
    memcpy(l.params, &params, sizeof(params));
    return call->no_kernels
               ? b->plain.graph_add_work(&b->d, c->graph, &nothing, edges, edge_count, out)
               : b->plain.graph_add_kernel(&b->d, c->graph, &l, edges, edge_count, out);
}

static int capture_bench_put(void *user, rt_dstream stream)
{
    const struct capture_call *const call = user;
    struct capture_bench *const c = call->capture;
    struct rt_dedge edges[CAPTURE_TAILS];
    assert_non_null(c->graph);
    assert_ptr_equal(stream, c->stream);
    const uint32_t edge_count = c->tail_count;
    for (uint32_t i = 0; i < edge_count; i++)
        edges[i] = (struct rt_dedge){.from = c->tails[i]};
    const uint32_t kept = call->beside ? edge_count : 0;
    for (uint32_t i = 0; i < call->branches; i++) {
        const int failed = capture_node(call, edges, edge_count, &c->tails[kept + i]);
        if (failed)
            return failed;
        c->tail_count = kept + i + 1;
    }
    return call->result;
}

static inline void capture_bench_open(struct capture_bench *c)
{
    memset(c, 0, sizeof(*c));
    host_bench_open(&c->bench);
    c->bench.d.caps.kind = RT_DEVICE_KIND_CUDA;
    c->bench.d.graph_capture_begin = capture_begin;
    c->bench.d.graph_capture_end = capture_end;
    c->bench.d.launch = capture_launch;
}

static inline void capture_bench_close(struct capture_bench *c)
{
    assert_int_equal(c->begun, c->ended);
    c->bench.d.caps.kind = RT_DEVICE_KIND_HOST;
    host_bench_close(&c->bench);
}

#endif
