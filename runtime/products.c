/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/products.h"

#include "driver/matmul_plan.h"

#include <float.h>
#include <stdlib.h>

/* Of the library's candidates, which it orders by its own estimate. */
#define MOST_CANDIDATES 6u
/* Layers a measurement walks: eight of 30 MB are four times an H200's cache. */
#define MOST_LAYERS 8u
#define ROUNDS 2u

struct trial {
    struct rt_driver *d;
    rt_dstream stream;
    const struct rt_matmul *layers[MOST_LAYERS]; /* the same product with several layers' weights */
    uint32_t count;
    struct rt_matmul_plan *plan;
    rt_devent from, to;
};

/* ---- one candidate --------------------------------------------------------------------------- */

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

static bool all_kernels(struct rt_driver *d, rt_dgraph graph)
{
    rt_dnode nodes[16];
    uint32_t count = sizeof(nodes) / sizeof(nodes[0]), all = 0;
    if (d->graph_nodes(d, graph, NULL, &all) != 0 || all > count ||
        d->graph_nodes(d, graph, nodes, &count) != 0)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct rt_node_info info;
        if (d->graph_node_info(d, nodes[i], &info) != 0 || info.type != RT_NODE_KERNEL)
            return false;
    }
    return true;
}

/* What the audit will ask. The host device has typed nodes for products, and nothing to ask. */
static bool is_captured_as_kernels(const struct trial *t)
{
    struct rt_driver *d = t->d;
    rt_dgraph graph;
    rt_dnode tails[4];
    uint32_t tail_count = 0;
    struct rt_matmul m = *t->layers[0];
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
    good = good && all_kernels(d, graph);
    (void)d->graph_destroy(d, graph);
    return good;
}

/* Milliseconds of all layers; false where the selected way is none. The first round loads code. */
static bool measure(const struct trial *t, float *ms)
{
    struct rt_driver *d = t->d;
    if (run_all(t) != 0 || d->stream_sync(d, t->stream) != 0 || !is_captured_as_kernels(t) ||
        d->event_record(d, t->from, t->stream) != 0)
        return false;
    for (uint32_t i = 0; i < ROUNDS; i++)
        if (run_all(t) != 0)
            return false;
    return d->event_record(d, t->to, t->stream) == 0 && d->event_sync(d, t->to) == 0 &&
           d->event_elapsed(d, t->from, t->to, ms) == 0;
}

static bool serves(const struct rt_product *product, const struct rt_matmul *m)
{
    struct rt_matmul planned = *m;
    planned.plan = product->plan;
    return rt_matmul_plan_serves(&product->first, &planned);
}

/* ---- one product ----------------------------------------------------------------------------- */

static enum rt_status select_fastest(struct trial *t, struct rt_error *err)
{
    float best_ms = FLT_MAX;
    uint32_t best = t->plan->candidates;
    for (uint32_t i = 0; i < t->plan->candidates; i++) {
        float ms = 0;
        RT_TRY(RT_DRV(t->d, err, matmul_select, (t->d, t->plan, i)));
        if (!measure(t, &ms) || ms >= best_ms)
            continue;
        best_ms = ms;
        best = i;
    }
    RT_REQUIRE(best < t->plan->candidates, err, RT_ERR_UNSUPPORTED,
               "none of the library's %u ways to multiply %u vectors of %u by %u rows, %u times, "
               "works as kernels alone",
               t->plan->candidates, t->layers[0]->m, t->layers[0]->k, t->layers[0]->n,
               t->layers[0]->batch);
    return RT_DRV(t->d, err, matmul_select, (t->d, t->plan, best));
}

static enum rt_status try_all(struct trial *t, struct rt_error *err)
{
    struct rt_driver *d = t->d;
    RT_TRY(RT_DRV(d, err, event_create, (d, &t->from)));
    enum rt_status status = RT_DRV(d, err, event_create, (d, &t->to));
    if (status == RT_OK) {
        status = select_fastest(t, err);
        (void)d->event_destroy(d, t->to);
    }
    (void)d->event_destroy(d, t->from);
    return status;
}

static enum rt_status push(struct rt_products *products, const struct rt_product *product,
                           struct rt_error *err)
{
    if (products->count == products->capacity) {
        const uint32_t capacity = products->capacity ? 2 * products->capacity : 16;
        struct rt_product *items = realloc(products->items, capacity * sizeof(*items));
        RT_REQUIRE(items, err, RT_ERR_NOMEM, "out of host memory for %u products", capacity);
        products->items = items;
        products->capacity = capacity;
    }
    products->items[products->count++] = *product;
    return RT_OK;
}

/* The first of its kind is program's stage `first`. */
static enum rt_status add(struct rt_products *products, const struct rt_program *program,
                          uint32_t first, struct rt_driver *d, rt_dstream stream,
                          struct rt_error *err)
{
    struct rt_product product = {.first = program->stages[first].work->matmul};
    struct trial t = {.d = d, .stream = stream};
    RT_TRY(RT_DRV(d, err, matmul_prepare, (d, &product.first, MOST_CANDIDATES, &product.plan)));
    t.plan = product.plan;
    for (uint32_t i = first; i < program->count && t.count < MOST_LAYERS; i++) {
        const struct rt_work *work = program->stages[i].work;
        if (work->kind == RT_WORK_MATMUL && serves(&product, &work->matmul))
            t.layers[t.count++] = &work->matmul;
    }
    /* A single way is tried too: a library loads its code at the first use, not in a capture. */
    enum rt_status status = try_all(&t, err);
    if (status == RT_OK)
        status = push(products, &product, err);
    if (status != RT_OK)
        (void)d->matmul_release(d, product.plan);
    return status;
}

static struct rt_product *find(const struct rt_products *products, const struct rt_matmul *m)
{
    for (uint32_t i = 0; i < products->count; i++)
        if (serves(&products->items[i], m))
            return &products->items[i];
    return NULL;
}

enum rt_status rt_products_plan(struct rt_products *products, struct rt_program *program,
                                struct rt_driver *d, rt_dstream stream, struct rt_error *err)
{
    for (uint32_t i = 0; i < program->count; i++) {
        struct rt_work *work = program->stages[i].work;
        if (work->kind != RT_WORK_MATMUL || work->matmul.m == 0)
            continue;
        if (!find(products, &work->matmul)) {
            const enum rt_status status = add(products, program, i, d, stream, err);
            if (status != RT_OK)
                return rt_program_stage_failed(program, i, status, err);
        }
        work->matmul.plan = find(products, &work->matmul)->plan;
    }
    return RT_OK;
}

void rt_products_free(struct rt_products *products, struct rt_driver *d)
{
    for (uint32_t i = 0; i < products->count; i++)
        (void)d->matmul_release(d, products->items[i].plan);
    free(products->items);
    *products = (struct rt_products){.items = NULL};
}
