/* SPDX-License-Identifier: Apache-2.0 */
/* The caller's stages: what they may not do while they run, and which of them failed. */
#include "runtime/runtime.h"

enum rt_status rt_refuse_in_stage(struct rt_runtime *rt, const char *function)
{
    const struct rt_stage_context *c = rt->in_stage;
    return rt_fail(&rt->error, RT_ERR_INVALID,
                   "%s: called by a stage of this runtime (%s, layer %u, batch %u), which may call "
                   "rt_tensor only",
                   function, rt_stage_point_name(c->point), c->layer, c->batch);
}

static const struct rt_captured *find_exec(const struct rt_runtime *rt, rt_dexec exec)
{
    for (uint32_t i = 0; i < rt->captured_count; i++)
        if (rt->captured[i].graph.exec == exec)
            return &rt->captured[i];
    return NULL;
}

enum rt_status rt_name_failed_stage(struct rt_runtime *rt, enum rt_status status)
{
    const struct rt_driver *d = &rt->driver;
    const struct rt_captured *g = find_exec(rt, d->failed_exec);
    if ((status != RT_ERR_CALLBACK && status != RT_ERR_RANKS) || !g)
        return status;
    const uint32_t stage = rt_graph_stage_of(&g->graph, &g->program, d->failed_node);
    return rt_program_stage_failed(&g->program, stage, status, &rt->error);
}
