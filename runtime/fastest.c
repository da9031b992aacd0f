/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/fastest.h"

#include "driver/matmul_plan.h"

#include <float.h>
#include <string.h>

#define ROUNDS 2u

enum rt_status rt_fastest_prepare(struct rt_driver *d, const struct rt_matmul *product,
                                  struct rt_matmul_plan **out, struct rt_error *err)
{
    struct rt_error story = {.status = RT_OK};
    const enum rt_status status =
        RT_DRV(d, &story, matmul_prepare, (d, product, RT_FASTEST_CANDIDATES, out));
    if (status == RT_OK)
        return RT_OK;
    return rt_fail(err, status == RT_ERR_DRIVER ? RT_ERR_UNSUPPORTED : status, "%s", story.message);
}

struct trial {
    struct rt_driver *d;
    rt_dstream stream;
    const struct rt_matmul *const *layers; /* the same product with several layers' weights */
    uint32_t count;
    struct rt_matmul_plan *plan;
    rt_devent from, to;
};

static int run_all(const struct trial *t)
{
    for (uint32_t i = 0; i < t->count; i++) {
        struct rt_matmul m = *t->layers[i];
        m.plan = t->plan;
        const int rc = t->d->matmul(t->d, &m, t->stream);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static bool all_kernels(struct rt_driver *d, rt_dgraph graph, const struct rt_matmul *m,
                        uint32_t *named)
{
    rt_dnode nodes[16];
    uint32_t count = sizeof(nodes) / sizeof(nodes[0]), all = 0;
    if (d->graph_nodes(d, graph, NULL, &all) != 0 || all > count ||
        d->graph_nodes(d, graph, nodes, &count) != 0)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct rt_node_info info;
        if (d->graph_node_info(d, nodes[i], &info) != 0 || info.type != RT_NODE_KERNEL ||
            info.is_opaque)
            return false;
        *named |= rt_matmul_named(m, info.words, info.word_count);
    }
    return true;
}

/* What the audit will ask. The host device has typed nodes for products, and nothing to ask. */
static bool is_captured_as_kernels(const struct trial *t, uint32_t *named)
{
    struct rt_driver *d = t->d;
    rt_dgraph graph;
    rt_dnode tails[4];
    uint32_t tail_count = 0;
    struct rt_matmul m = *t->layers[0];
    *named = 0;
    if (d->caps.kind == RT_DEVICE_KIND_HOST)
        return true;
    m.plan = t->plan;
    if (d->graph_create(d, &graph) != 0)
        return false;
    bool good = d->graph_capture_begin(d, graph, t->stream, NULL, 0) == 0;
    if (good) {
        const bool put = d->matmul(d, &m, t->stream) == 0;
        good = d->graph_capture_end(d, graph, t->stream, tails, 4, &tail_count) == 0 && put;
    }
    good = good && all_kernels(d, graph, &m, named);
    (void)d->graph_destroy(d, graph);
    return good;
}

/* What one product takes; false where the selected way is none. The first round loads code. */
static bool measure(const struct trial *t, float *us, uint32_t *named)
{
    struct rt_driver *d = t->d;
    float ms = 0;
    if (run_all(t) != 0 || d->stream_sync(d, t->stream) != 0 || !is_captured_as_kernels(t, named) ||
        d->event_record(d, t->from, t->stream) != 0)
        return false;
    for (uint32_t i = 0; i < ROUNDS; i++)
        if (run_all(t) != 0)
            return false;
    if (d->event_record(d, t->to, t->stream) != 0 || d->event_sync(d, t->to) != 0 ||
        d->event_elapsed(d, t->from, t->to, &ms) != 0)
        return false;
    *us = ms * 1e3f / (float)(ROUNDS * t->count);
    return true;
}

static enum rt_status time_all(const struct trial *t, struct rt_timed_ways *out,
                               struct rt_error *err)
{
    struct rt_matmul_plan *const plan = t->plan;
    out->count = 0;
    for (uint32_t i = 0; i < plan->candidates && i < RT_FASTEST_CANDIDATES; i++) {
        struct rt_timed_way *const way = &out->ways[out->count];
        RT_TRY(RT_DRV(t->d, err, matmul_select, (t->d, plan, i)));
        if (!measure(t, &way->us, &way->named))
            continue;
        way->candidate = i;
        memcpy(way->identity, plan->identity, sizeof(way->identity));
        out->count++;
    }
    RT_REQUIRE(out->count > 0, err, RT_ERR_UNSUPPORTED,
               "none of the library's %u ways to multiply %u vectors of %u by %u rows, %u times, "
               "works as kernels alone",
               plan->candidates, t->layers[0]->m, t->layers[0]->k, t->layers[0]->n,
               t->layers[0]->batch);
    return rt_fastest_pick(t->d, plan, &out->ways[0], err);
}

enum rt_status rt_fastest_pick(struct rt_driver *d, struct rt_matmul_plan *plan,
                               const struct rt_timed_way *way, struct rt_error *err)
{
    RT_TRY(RT_DRV(d, err, matmul_select, (d, plan, way->candidate)));
    plan->named = way->named;
    return RT_OK;
}

enum rt_status rt_fastest_time(struct rt_driver *d, rt_dstream stream,
                               const struct rt_matmul *const *layers, uint32_t count,
                               struct rt_matmul_plan *plan, struct rt_timed_ways *out,
                               struct rt_error *err)
{
    struct trial t = {.d = d, .stream = stream, .layers = layers, .count = count, .plan = plan};
    RT_TRY(RT_DRV(d, err, event_create, (d, &t.from)));
    enum rt_status status = RT_DRV(d, err, event_create, (d, &t.to));
    if (status == RT_OK) {
        status = time_all(&t, out, err);
        (void)d->event_destroy(d, t.to);
    }
    (void)d->event_destroy(d, t.from);
    return status;
}

bool rt_fastest_prefer(struct rt_timed_ways *timed, const struct rt_matmul_plan *liked)
{
    bool found = false;
    for (uint32_t i = 0; i < timed->count; i++) {
        struct rt_timed_way *const way = &timed->ways[i];
        if (memcmp(way->identity, liked->identity, sizeof(way->identity)) != 0)
            continue;
        way->us = way->candidate == liked->selected ? 0 : FLT_MIN;
        found = true;
    }
    return found;
}

enum rt_status rt_fastest_take(struct rt_driver *d, struct rt_matmul_plan *plan,
                               const struct rt_timed_ways *timed, struct rt_error *err)
{
    const struct rt_timed_way *best = timed->ways;
    for (uint32_t i = 1; i < timed->count; i++)
        if (timed->ways[i].us < best->us)
            best = &timed->ways[i];
    return rt_fastest_pick(d, plan, best, err);
}

enum rt_status rt_fastest_select(struct rt_driver *d, rt_dstream stream,
                                 const struct rt_matmul *const *layers, uint32_t count,
                                 const struct rt_matmul_plan *liked, struct rt_matmul_plan *plan,
                                 struct rt_error *err)
{
    struct rt_timed_ways timed;
    RT_TRY(rt_fastest_time(d, stream, layers, count, plan, &timed, err));
    RT_REQUIRE(!liked || rt_fastest_prefer(&timed, liked), err, RT_ERR_UNSUPPORTED,
               "the way of the product that this one is to be like is none of those that work: %s",
               liked->text);
    return rt_fastest_take(d, plan, &timed, err);
}
