/* SPDX-License-Identifier: Apache-2.0 */
/* Knowing what happens: counters and descriptions. */
#include "graphs/dump.h"
#include "runtime/runtime.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STRINGIFY(x) #x
#define VERSION_TEXT(major, minor, patch) STRINGIFY(major) "." STRINGIFY(minor) "." STRINGIFY(patch)

const char *rt_version(void)
{
    return VERSION_TEXT(RT_VERSION_MAJOR, RT_VERSION_MINOR, RT_VERSION_PATCH);
}

const struct rt_error *rt_last_error(const rt_runtime *rt)
{
    static const struct rt_error none = {.status = RT_ERR_INVALID, .message = "runtime is null"};
    return rt ? &rt->error : &none;
}

enum rt_status rt_thread_enter(rt_runtime *rt)
{
    RT_ENTER(rt);
    if (rt->driver.caps.kind == RT_DEVICE_KIND_HOST)
        return RT_OK;
    return RT_DRV(&rt->driver, &rt->error, ctx_enter, (&rt->driver));
}

enum rt_status rt_thread_leave(rt_runtime *rt)
{
    RT_ENTER(rt);
    if (rt->driver.caps.kind == RT_DEVICE_KIND_HOST)
        return RT_OK;
    return RT_DRV(&rt->driver, &rt->error, ctx_leave, (&rt->driver));
}

enum rt_status rt_get_stats(rt_runtime *rt, struct rt_stats *out)
{
    RT_ENTER(rt);
    RT_CHECK_STRUCT(out, &rt->error);
    rt_harvest(rt);
    rt->stats.free_pages = rt->pages.free_count;
    rt->stats.retained_pages = rt->pages.pinned;
    rt_struct_write(out, &rt->stats, sizeof(rt->stats));
    return RT_OK;
}

enum rt_status rt_get_bucket_stats(rt_runtime *rt, uint32_t index, struct rt_bucket_stats *out)
{
    RT_ENTER(rt);
    RT_CHECK_STRUCT(out, &rt->error);
    RT_REQUIRE(index < rt->captured_count, &rt->error, RT_ERR_INVALID,
               "rt_get_bucket_stats: graph %u of %u", index, rt->captured_count);
    const struct rt_captured *g = &rt->captured[index];
    const struct rt_bucket_stats mine = {
        .nodes = g->graph.node_count,
        .batch = g->program.spec.rows,
        .query_len = rt_spec_query_len(&g->program.spec),
        .replays = g->replays,
        .live_rows = g->live_rows,
        .padded_rows = g->padded_rows,
        .graph_bytes = g->graph.device_bytes,
        .capture_ns = g->graph.build_ns,
        .chunk = rt_spec_chunk(&g->program.spec),
        .decode_rows = rt_spec_is_chunk(&g->program.spec) ? g->program.spec.decode_rows : 0,
        .context_tokens = rt_blueprint_context(&rt->blueprint, &g->program.spec),
        .most_blocks = g->program.spec.most_blocks,
    };
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

enum rt_status rt_get_info(rt_runtime *rt, struct rt_info *out)
{
    RT_ENTER(rt);
    RT_CHECK_STRUCT(out, &rt->error);
    struct rt_info mine = {
        .graph_bytes = rt->control.graph.device_bytes,
        .capture_ns = rt->control.graph.build_ns,
    };
    rt_blueprint_info(&rt->blueprint, &mine);
    snprintf(mine.device_reason, sizeof(mine.device_reason), "%s", rt->device_reason);
    for (uint32_t i = 0; i < rt->captured_count; i++) {
        mine.graph_bytes += rt->captured[i].graph.device_bytes;
        mine.capture_ns += rt->captured[i].graph.build_ns;
    }
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

enum rt_status rt_audit(rt_runtime *rt)
{
    RT_ENTER(rt);
    struct rt_driver *d = &rt->driver;
    RT_TRY(RT_DRV(d, &rt->error, ctx_enter, (d)));
    enum rt_status status = rt_weights_still_there(&rt->weights, d, &rt->error);
    if (status == RT_OK)
        status = rt_graph_audit(&rt->control.graph, &rt->control.program, d, rt->regions,
                                rt->region_count, &rt->error);
    for (uint32_t i = 0; i < rt->captured_count && status == RT_OK; i++)
        status = rt_graph_audit(&rt->captured[i].graph, &rt->captured[i].program, d, rt->regions,
                                rt->region_count, &rt->error);
    (void)d->ctx_leave(d);
    return status;
}

static const struct rt_captured *find_captured(const struct rt_runtime *rt, uint32_t batch,
                                               uint32_t query_len)
{
    for (uint32_t i = 0; i < rt->captured_count; i++)
        if (!rt_spec_is_chunk(&rt->captured[i].program.spec) &&
            !rt->captured[i].program.spec.most_blocks &&
            rt->captured[i].program.spec.rows == batch &&
            rt_spec_query_len(&rt->captured[i].program.spec) == query_len)
            return &rt->captured[i];
    return NULL;
}

static enum rt_status check_text(struct rt_runtime *rt, const char *function, const char *text,
                                 size_t capacity, const size_t *needed)
{
    RT_REQUIRE(needed, &rt->error, RT_ERR_INVALID, "%s: needed is null", function);
    RT_REQUIRE(text || !capacity, &rt->error, RT_ERR_INVALID, "%s: text is null", function);
    return RT_OK;
}

enum rt_status rt_dot(rt_runtime *rt, uint32_t batch, uint32_t query_len, char *text,
                      size_t capacity, size_t *needed)
{
    RT_ENTER(rt);
    RT_TRY(check_text(rt, __func__, text, capacity, needed));
    const struct rt_captured *g = find_captured(rt, batch, query_len);
    RT_REQUIRE(g, &rt->error, RT_ERR_INVALID, "rt_dot: no graph for batch %u, query length %u",
               batch, query_len);
    *needed = rt_program_dot(&g->program, text, capacity);
    return RT_OK;
}

enum rt_status rt_graph_dot(rt_runtime *rt, uint32_t index, char *text, size_t capacity,
                            size_t *needed)
{
    RT_ENTER(rt);
    RT_TRY(check_text(rt, __func__, text, capacity, needed));
    RT_REQUIRE(index < rt->captured_count, &rt->error, RT_ERR_INVALID,
               "rt_graph_dot: graph %u of %u", index, rt->captured_count);
    *needed = rt_program_dot(&rt->captured[index].program, text, capacity);
    return RT_OK;
}
