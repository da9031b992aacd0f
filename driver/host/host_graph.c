/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/host/host_parts.h"

#include "common/math.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 16

/* ---- recording ---- */

static int graph_create(struct rt_driver *d, rt_dgraph *out)
{
    if (rt_probe_enter(d, RT_DOP_graph_create))
        return RT_DRIVER_INJECTED;
    rt_dgraph g = calloc(1, sizeof(*g));
    if (!g)
        return RT_HOST_NO_MEMORY;
    d->probe.live++;
    *out = g;
    return 0;
}

static void free_node(rt_dnode n)
{
    free(n->before);
    free(n);
}

static int graph_destroy(struct rt_driver *d, rt_dgraph g)
{
    const bool injected = rt_probe_enter(d, RT_DOP_graph_destroy);
    if (!g)
        return RT_HOST_INVALID;
    for (uint32_t i = 0; i < g->count; i++)
        free_node(g->nodes[i]);
    free(g->nodes);
    free(g);
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

static bool graph_has(const struct rt_dgraph_opaque *g, rt_dnode n)
{
    /* From the end: edges mostly come from the node before. */
    for (uint32_t i = g->count; i-- > 0;) {
        if (g->nodes[i] == n)
            return true;
    }
    return false;
}

/* As on CUDA: a programmatic edge joins two kernels. */
static int check_edges(const struct rt_dgraph_opaque *g, enum rt_work_kind into,
                       const struct rt_dedge *edges, uint32_t edge_count)
{
    if (!g || (edge_count > 0 && !edges))
        return RT_HOST_INVALID;
    for (uint32_t i = 0; i < edge_count; i++) {
        if (!graph_has(g, edges[i].from))
            return RT_HOST_INVALID;
        if (edges[i].programmatic &&
            (into != RT_WORK_LAUNCH || edges[i].from->work.kind != RT_WORK_LAUNCH))
            return RT_HOST_INVALID;
    }
    return 0;
}

static bool graph_grow(rt_dgraph g)
{
    if (g->count < g->capacity)
        return true;
    uint64_t capacity;
    if (!rt_mul_u64(g->capacity, 2, &capacity) || capacity > UINT32_MAX)
        return false;
    if (capacity == 0)
        capacity = FIRST_CAPACITY;
    rt_dnode *nodes = realloc(g->nodes, (size_t)capacity * sizeof(rt_dnode));
    if (!nodes)
        return false;
    g->nodes = nodes;
    g->capacity = (uint32_t)capacity;
    return true;
}

/* Null: no memory. */
static rt_dnode graph_append(rt_dgraph g, enum rt_work_kind kind, const struct rt_dedge *edges,
                             uint32_t edge_count)
{
    if (!graph_grow(g))
        return NULL;
    rt_dnode n = rt_host_alloc_aligned(sizeof(*n));
    rt_dnode *const before = calloc((size_t)edge_count + 1, sizeof(*before));
    if (!n || !before) {
        free(before);
        free(n);
        return NULL;
    }
    for (uint32_t i = 0; i < edge_count; i++) {
        before[i] = edges[i].from;
        before[i]->behind_count++;
    }
    n->work.kind = kind;
    n->before = before;
    n->before_count = edge_count;
    n->number = g->count;
    g->nodes[g->count++] = n;
    return n;
}

static int graph_add_kernel(struct rt_driver *d, rt_dgraph g, const struct rt_launch *l,
                            const struct rt_dedge *edges, uint32_t edge_count, rt_dnode *out)
{
    if (rt_probe_enter(d, RT_DOP_graph_add_kernel))
        return RT_DRIVER_INJECTED;
    if (!l)
        return RT_HOST_INVALID;
    int rc = check_edges(g, RT_WORK_LAUNCH, edges, edge_count);
    if (rc == 0)
        rc = rt_host_check_launch(rt_host_of(d), l);
    if (rc != 0)
        return rc;
    rt_dnode n = graph_append(g, RT_WORK_LAUNCH, edges, edge_count);
    if (!n)
        return RT_HOST_NO_MEMORY;
    n->work.launch = *l;
    *out = n;
    return 0;
}

static int check_work(const struct rt_host *h, const struct rt_work *work)
{
    switch (work->kind) {
    case RT_WORK_MATMUL: {
        const int rc = rt_host_check_plan(&work->matmul);
        return rc == 0 ? rt_host_check_matmul(h, &work->matmul) : rc;
    }
    case RT_WORK_COLLECTIVE:
        return rt_host_check_collective(h, &work->collective);
    case RT_WORK_CALL:
        return work->call.fn ? 0 : RT_HOST_INVALID;
    case RT_WORK_LAUNCH:
        break;
    }
    return RT_HOST_INVALID;
}

static int graph_add_work(struct rt_driver *d, rt_dgraph g, const struct rt_work *work,
                          const struct rt_dedge *edges, uint32_t edge_count, rt_dnode *out)
{
    if (rt_probe_enter(d, RT_DOP_graph_add_work))
        return RT_DRIVER_INJECTED;
    if (!work)
        return RT_HOST_INVALID;
    int rc = check_edges(g, work->kind, edges, edge_count);
    if (rc == 0)
        rc = check_work(rt_host_of(d), work);
    if (rc != 0)
        return rc;
    rt_dnode n = graph_append(g, work->kind, edges, edge_count);
    if (!n)
        return RT_HOST_NO_MEMORY;
    n->work = *work;
    *out = n;
    return 0;
}

static int graph_capture_begin(struct rt_driver *d, rt_dgraph g, rt_dstream s,
                               const struct rt_dedge *edges, uint32_t edge_count)
{
    (void)g;
    (void)s;
    (void)edges;
    (void)edge_count;
    if (rt_probe_enter(d, RT_DOP_graph_capture_begin))
        return RT_DRIVER_INJECTED;
    return RT_HOST_UNSUPPORTED;
}

static int graph_capture_end(struct rt_driver *d, rt_dgraph g, rt_dstream s, rt_dnode *tails,
                             uint32_t capacity, uint32_t *count)
{
    (void)g;
    (void)s;
    (void)tails;
    (void)capacity;
    (void)count;
    if (rt_probe_enter(d, RT_DOP_graph_capture_end))
        return RT_DRIVER_INJECTED;
    return RT_HOST_UNSUPPORTED;
}

/* ---- reading back ---- */

static int graph_nodes(struct rt_driver *d, rt_dgraph g, rt_dnode *nodes, uint32_t *count)
{
    if (rt_probe_enter(d, RT_DOP_graph_nodes))
        return RT_DRIVER_INJECTED;
    if (!g || !count)
        return RT_HOST_INVALID;
    if (!nodes) {
        *count = g->count;
        return 0;
    }
    *count = rt_min_u32(*count, g->count);
    if (*count > 0)
        memcpy(nodes, g->nodes, *count * sizeof(rt_dnode));
    return 0;
}

static int graph_node_info(struct rt_driver *d, rt_dnode n, struct rt_node_info *out)
{
    if (rt_probe_enter(d, RT_DOP_graph_node_info))
        return RT_DRIVER_INJECTED;
    if (!n)
        return RT_HOST_INVALID;
    static const enum rt_node_type types[] = {[RT_WORK_LAUNCH] = RT_NODE_KERNEL,
                                              [RT_WORK_MATMUL] = RT_NODE_MATMUL,
                                              [RT_WORK_COLLECTIVE] = RT_NODE_COLLECTIVE,
                                              [RT_WORK_CALL] = RT_NODE_CALL};
    *out = (struct rt_node_info){.type = types[n->work.kind]};
    if (n->work.kind == RT_WORK_MATMUL)
        out->matmul = n->work.matmul;
    if (n->work.kind == RT_WORK_COLLECTIVE)
        out->collective = n->work.collective;
    if (n->work.kind != RT_WORK_LAUNCH)
        return 0;
    const struct rt_launch *l = &n->work.launch;
    snprintf(out->name, sizeof(out->name), "%s", ((const struct rt_host_kernel *)l->kernel)->entry);
    memcpy(out->grid, l->grid, sizeof(out->grid));
    memcpy(out->block, l->block, sizeof(out->block));
    out->smem_bytes = l->smem_bytes;
    out->cooperative = l->cooperative;
    _Static_assert(RT_LAUNCH_PARAM_BYTES <= sizeof(out->words), "a launch fits a node's words");
    memcpy(out->words, l->params, l->param_bytes);
    out->word_count = rt_ceil_div_u32(l->param_bytes, sizeof(out->words[0]));
    return 0;
}

/* ---- executable graphs ---- */

/* Those whose last missing one was n are ready, the newest last. */
static uint32_t add_ready(const struct rt_dgraph_opaque *g, const struct rt_dnode_opaque *n,
                          rt_dnode *ready, uint32_t count)
{
    uint32_t left = n->behind_count;
    for (uint32_t i = n->number + 1; left > 0; i++) {
        rt_dnode other = g->nodes[i];
        for (uint32_t k = 0; k < other->before_count; k++) {
            if (other->before[k] != n)
                continue;
            left--;
            if (--other->missing == 0)
                ready[count++] = other;
        }
    }
    return count;
}

/*
 * As the edges want it, and of what they leave open the newest first: of branches beside each other
 * the last, whole, where the eager runner has the first. So what is not really independent differs
 * between replay and eager. False: no memory.
 */
static bool order(const struct rt_dgraph_opaque *g, rt_dexec x)
{
    rt_dnode *const ready = calloc((size_t)g->count + 1, sizeof(*ready));
    uint32_t count = 0;
    if (!ready)
        return false;
    for (uint32_t i = 0; i < g->count; i++) {
        g->nodes[i]->missing = g->nodes[i]->before_count;
        if (g->nodes[i]->before_count == 0)
            ready[count++] = g->nodes[i];
    }
    while (count > 0) {
        const struct rt_dnode_opaque *const n = ready[--count];
        x->nodes[x->count++] = (struct rt_host_node){.work = n->work, .number = n->number};
        count = add_ready(g, n, ready, count);
    }
    free(ready);
    return true;
}

static int graph_instantiate(struct rt_driver *d, rt_dgraph g, rt_dstream s, rt_dexec *out)
{
    (void)s; /* there is nothing to upload */
    if (rt_probe_enter(d, RT_DOP_graph_instantiate))
        return RT_DRIVER_INJECTED;
    if (!g)
        return RT_HOST_INVALID;
    rt_dexec x = calloc(1, sizeof(*x));
    if (!x)
        return RT_HOST_NO_MEMORY;
    if (g->count > 0) {
        x->nodes = rt_host_alloc_aligned(g->count * (uint64_t)sizeof(*x->nodes));
        if (!x->nodes) {
            free(x);
            return RT_HOST_NO_MEMORY;
        }
    }
    if (!order(g, x)) {
        free(x->nodes);
        free(x);
        return RT_HOST_NO_MEMORY;
    }
    x->users = 1;
    d->probe.live++;
    *out = x;
    return 0;
}

static int exec_destroy(struct rt_driver *d, rt_dexec x)
{
    const bool injected = rt_probe_enter(d, RT_DOP_exec_destroy);
    if (!x)
        return RT_HOST_INVALID;
    rt_host_exec_release(x);
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

static int graph_launch(struct rt_driver *d, rt_dexec x, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_graph_launch))
        return RT_DRIVER_INJECTED;
    if (!x)
        return RT_HOST_INVALID;
    const struct rt_host_work work = {.kind = RT_HOST_WORK_GRAPH, .exec = x};
    return rt_host_submit(rt_host_of(d), s, &work);
}

void rt_host_bind_graphs(struct rt_driver *d)
{
    d->graph_create = graph_create;
    d->graph_destroy = graph_destroy;
    d->graph_add_kernel = graph_add_kernel;
    d->graph_add_work = graph_add_work;
    d->graph_capture_begin = graph_capture_begin;
    d->graph_capture_end = graph_capture_end;
    d->graph_nodes = graph_nodes;
    d->graph_node_info = graph_node_info;
    d->graph_instantiate = graph_instantiate;
    d->exec_destroy = exec_destroy;
    d->graph_launch = graph_launch;
}
