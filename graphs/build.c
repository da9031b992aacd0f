/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/build.h"

#include <stdlib.h>
#include <time.h>

/* Edges out of it, from a launch that waits on: whether they may be programmatic, and of what kind
 * then. */
struct tail {
    rt_dnode node;
    bool overlapped, begun;
};

struct tails {
    struct tail at[RT_MAX_TAILS];
    uint32_t count;
};

/* What the next stage must follow:
 *
 *   launch ──> launch ──> [captured stage] ──┬─> tail ──┐
 *          programmatic                      └─> tail ──┴─> launch ──> …
 *          if it waits                         full edges, but out of a stage that may be
 *                                              overlapped and has one tail, a kernel
 */
struct builder {
    const struct rt_program *program;
    struct rt_driver *driver;
    rt_dstream capture_stream;
    struct rt_graph *graph;
    struct tails now;
    uint32_t branch;   /* that `now` is of */
    struct tails fork; /* the trunk's, which the other branches follow too */
    struct tails ends; /* of branches that are done */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void edges_from_tails(const struct builder *b, bool programmatic,
                             struct rt_dedge edges[RT_MAX_TAILS])
{
    for (uint32_t i = 0; i < b->now.count; i++) {
        const struct tail *const tail = &b->now.at[i];
        edges[i] = (struct rt_dedge){
            .from = tail->node, .programmatic = programmatic, .begun = programmatic && tail->begun};
    }
}

static void follow_one(struct builder *b, rt_dnode node, bool overlapped)
{
    b->now.at[0] = (struct tail){.node = node, .overlapped = overlapped};
    b->now.count = 1;
    b->graph->node_count++;
}

/* Edges into one node are of one kind. */
static bool all_overlapped(const struct tails *tails)
{
    uint32_t i = 0;
    while (i < tails->count && tails->at[i].overlapped)
        i++;
    return i == tails->count;
}

/* A kernel of ours may be overlapped, for it waits before it is over. A callback that put nothing
 * on the stream leaves that kernel the tail. */
static enum rt_status add_launch(struct builder *b, const struct rt_launch *launch,
                                 struct rt_error *err)
{
    struct rt_dedge edges[RT_MAX_TAILS];
    rt_dnode node;
    edges_from_tails(b, launch->waits && all_overlapped(&b->now), edges);
    RT_TRY(RT_DRV(b->driver, err, graph_add_kernel,
                  (b->driver, b->graph->graph, launch, edges, b->now.count, &node)));
    follow_one(b, node, true);
    return RT_OK;
}

/* The host device has no capture: it takes the work as it is. */
static enum rt_status add_work(struct builder *b, const struct rt_work *work, struct rt_error *err)
{
    struct rt_dedge edges[RT_MAX_TAILS];
    rt_dnode node;
    edges_from_tails(b, false, edges);
    RT_TRY(RT_DRV(b->driver, err, graph_add_work,
                  (b->driver, b->graph->graph, work, edges, b->now.count, &node)));
    follow_one(b, node, false);
    return RT_OK;
}

static bool has(const struct tails *tails, rt_dnode node)
{
    uint32_t i = 0;
    while (i < tails->count && tails->at[i].node != node)
        i++;
    return i < tails->count;
}

/* The tails that a capture has left, of which some may have been there before it. What a stage says
 * of its kernels it says of none of those. A library's kernel has full edges into it, so whoever
 * waits for its end has all before it behind it, and may be there as soon as it runs. */
static enum rt_status take_tails(struct builder *b, const struct rt_stage *stage,
                                 const rt_dnode *nodes, uint32_t count, struct rt_error *err)
{
    const struct tails before = b->now;
    struct rt_node_info info;
    for (uint32_t i = 0; i < count; i++) {
        b->now.at[i] = (struct tail){.node = nodes[i]};
        for (uint32_t k = 0; k < before.count; k++)
            if (before.at[k].node == nodes[i])
                b->now.at[i] = before.at[k];
    }
    b->now.count = count;
    if (!stage->overlapped || count != 1 || has(&before, nodes[0]))
        return RT_OK;
    RT_TRY(RT_DRV(b->driver, err, graph_node_info, (b->driver, nodes[0], &info)));
    b->now.at[0].overlapped = info.type == RT_NODE_KERNEL;
    b->now.at[0].begun = stage->work->kind == RT_WORK_MATMUL;
    return RT_OK;
}

/* A capture that has begun is ended whatever the work says, or its stream would be lost. */
static enum rt_status capture_stage(struct builder *b, const struct rt_stage *stage,
                                    struct rt_error *err)
{
    struct rt_driver *const d = b->driver;
    rt_dgraph graph = b->graph->graph;
    struct rt_dedge edges[RT_MAX_TAILS];
    rt_dnode nodes[RT_MAX_TAILS];
    uint32_t tail_count = 0;
    edges_from_tails(b, false, edges);
    RT_TRY(RT_DRV(d, err, graph_capture_begin, (d, graph, b->capture_stream, edges, b->now.count)));
    const enum rt_status status = rt_work_put(stage->work, d, false, b->capture_stream, err);
    const int ended =
        d->graph_capture_end(d, graph, b->capture_stream, nodes, RT_MAX_TAILS, &tail_count);
    RT_TRY(status);
    if (ended != 0)
        return rt_driver_fail(d, err, RT_DOP_graph_capture_end, ended, __FILE__, __LINE__);
    RT_REQUIRE(tail_count <= RT_MAX_TAILS, err, RT_ERR_CALLBACK,
               "the stage's function left %u branches, at most %d can be joined", tail_count,
               RT_MAX_TAILS);
    RT_TRY(take_tails(b, stage, nodes, tail_count, err));
    return RT_DRV(d, err, graph_nodes, (d, graph, NULL, &b->graph->node_count));
}

/* Branches that put nothing on the stream end where they began. */
static enum rt_status end_branch(struct builder *b, struct rt_error *err)
{
    struct tails *const ends = &b->ends;
    for (uint32_t i = 0; i < b->now.count; i++) {
        if (has(ends, b->now.at[i].node))
            continue;
        RT_REQUIRE(ends->count < RT_MAX_TAILS, err, RT_ERR_CALLBACK,
                   "the functions of stages beside each other left more than %d branches, which is "
                   "what can be joined",
                   RT_MAX_TAILS);
        ends->at[ends->count++] = b->now.at[i];
    }
    return RT_OK;
}

/* Edges out of a fork and into a join are full, but those of tight branches. */
static enum rt_status enter_branch(struct builder *b, const struct rt_stage *stage,
                                   struct rt_error *err)
{
    if (stage->branch == b->branch)
        return RT_OK;
    const bool tight = stage->branch == RT_TRUNK ? stage[-1].tight : stage->tight;
    if (b->branch == RT_TRUNK)
        b->fork = b->now;
    else
        RT_TRY(end_branch(b, err));
    b->now = stage->branch == RT_TRUNK ? b->ends : b->fork;
    for (uint32_t i = 0; i < b->now.count; i++)
        b->now.at[i].overlapped = b->now.at[i].overlapped && tight;
    if (stage->branch == RT_TRUNK)
        b->ends.count = 0;
    b->branch = stage->branch;
    return RT_OK;
}

static enum rt_status add_stage(struct builder *b, const struct rt_stage *stage,
                                struct rt_error *err)
{
    RT_TRY(enter_branch(b, stage, err));
    if (stage->work->kind == RT_WORK_LAUNCH)
        return add_launch(b, &stage->work->launch, err);
    if (b->driver->caps.kind == RT_DEVICE_KIND_HOST)
        return add_work(b, stage->work, err);
    return capture_stage(b, stage, err);
}

/* ---- in one capture ---- */

/* A library that keeps what it knows of a capture by its graph, as NCCL 2.28 does, takes the second
 * capture into a graph for the first, which has ended, and whose streams are no part of it. Such a
 * library is met where we exchange, and in stages that a caller calls foreign. */
static bool is_one_capture(const struct rt_program *p, const struct rt_driver *d)
{
    bool has_foreign = false;
    for (uint32_t i = 0; i < p->count; i++)
        has_foreign = has_foreign || p->stages[i].trust != RT_STAGE_AUDITED ||
                      p->stages[i].work->kind == RT_WORK_COLLECTIVE;
    return has_foreign && d->caps.kind != RT_DEVICE_KIND_HOST;
}

/* The driver makes of the stream's order what add_stage makes of tails; one stream has no branches
 * beside each other. */
static enum rt_status capture_stages(struct builder *b, struct rt_error *err)
{
    struct rt_driver *const d = b->driver;
    const struct rt_program *const p = b->program;
    for (uint32_t i = 0; i < p->count; i++) {
        b->graph->first_node[i] = b->graph->node_count;
        enum rt_status status = rt_work_put(
            p->stages[i].work, d, rt_program_edge_programmatic(p, i), b->capture_stream, err);
        if (status == RT_OK)
            status = RT_DRV(d, err, graph_nodes, (d, b->graph->graph, NULL, &b->graph->node_count));
        if (status != RT_OK)
            return rt_program_stage_failed(p, i, status, err);
    }
    b->graph->first_node[p->count] = b->graph->node_count;
    return RT_OK;
}

/* A capture that has begun is ended whatever a stage says, or its stream would be lost. */
static enum rt_status capture_all(struct builder *b, struct rt_error *err)
{
    struct rt_driver *const d = b->driver;
    rt_dgraph graph = b->graph->graph;
    RT_TRY(RT_DRV(d, err, graph_capture_begin, (d, graph, b->capture_stream, NULL, 0)));
    const enum rt_status status = capture_stages(b, err);
    rt_dnode tails[RT_MAX_TAILS];
    uint32_t tail_count;
    const int ended =
        d->graph_capture_end(d, graph, b->capture_stream, tails, RT_MAX_TAILS, &tail_count);
    RT_TRY(status);
    if (ended != 0)
        return rt_driver_fail(d, err, RT_DOP_graph_capture_end, ended, __FILE__, __LINE__);
    return RT_OK;
}

/* ---- either ---- */

/* What runs beside it would hold multiprocessors that its blocks wait for. */
static enum rt_status check_cooperative(const struct rt_program *p, struct rt_error *err)
{
    for (uint32_t i = 0; i < p->count; i++) {
        const struct rt_stage *const s = &p->stages[i];
        RT_REQUIRE(s->work->kind != RT_WORK_LAUNCH || !s->work->launch.cooperative ||
                       s->branch == RT_TRUNK,
                   err, RT_ERR_INTERNAL,
                   "graph (%s), stage \"%s\": kernel %s is cooperative and in branch %u, must be "
                   "alone in the trunk",
                   rt_spec_name(&p->spec).text, s->label, s->work->launch.entry, s->branch);
    }
    return RT_OK;
}

static enum rt_status add_stages(struct builder *b, struct rt_error *err)
{
    for (uint32_t i = 0; i < b->program->count; i++) {
        b->graph->first_node[i] = b->graph->node_count;
        const enum rt_status status = add_stage(b, &b->program->stages[i], err);
        if (status != RT_OK)
            return rt_program_stage_failed(b->program, i, status, err);
    }
    b->graph->first_node[b->program->count] = b->graph->node_count;
    return RT_OK;
}

enum rt_status rt_graph_build(const struct rt_program *p, struct rt_driver *d,
                              rt_dstream capture_stream, struct rt_graph *out, struct rt_error *err)
{
    enum rt_status status;
    struct builder b = {.program = p, .driver = d, .capture_stream = capture_stream, .graph = out};
    *out = (struct rt_graph){.begun_ns = now_ns()};
    RT_TRY(check_cooperative(p, err));
    out->first_node = calloc((size_t)p->count + 1, sizeof(*out->first_node));
    if (!out->first_node) {
        rt_graph_free(out, d);
        return rt_fail(err, RT_ERR_NOMEM, "no memory for a graph of %u stages", p->count);
    }
    RT_TRY_GOTO(RT_DRV(d, err, graph_create, (d, &out->graph)));
    RT_TRY_GOTO(is_one_capture(p, d) ? capture_all(&b, err) : add_stages(&b, err));
    return RT_OK;
fail:
    rt_graph_free(out, d);
    return status;
}

enum rt_status rt_graph_instantiate(struct rt_graph *g, struct rt_driver *d, rt_dstream stream,
                                    struct rt_error *err)
{
    enum rt_status status;
    uint64_t free_before, free_after, total;
    RT_TRY(RT_DRV(d, err, mem_info, (d, &free_before, &total)));
    RT_TRY(RT_DRV(d, err, graph_instantiate, (d, g->graph, stream, &g->exec)));
    RT_TRY_GOTO(RT_DRV(d, err, mem_info, (d, &free_after, &total)));
    g->device_bytes = free_before > free_after ? free_before - free_after : 0;
    g->build_ns = now_ns() - g->begun_ns;
    return RT_OK;
fail:
    (void)d->exec_destroy(d, g->exec);
    g->exec = NULL;
    return status;
}

uint32_t rt_graph_stage_of(const struct rt_graph *g, const struct rt_program *p, uint32_t node)
{
    uint32_t stage = 0;
    while (stage + 1 < p->count && node >= g->first_node[stage + 1])
        stage++;
    return stage;
}

/* A release that reports an earlier failure has released all the same. */
void rt_graph_free(struct rt_graph *g, struct rt_driver *d)
{
    if (g->exec)
        (void)d->exec_destroy(d, g->exec);
    if (g->graph)
        (void)d->graph_destroy(d, g->graph);
    free(g->first_node);
    *g = (struct rt_graph){0};
}
