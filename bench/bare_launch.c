/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bare_launch.h"

#include "runtime/ranks_impl.h"
#include "runtime/runtime.h"

#include <time.h>

static const struct rt_graph *find(const struct rt_runtime *rt, uint32_t batch, uint32_t query_len)
{
    for (uint32_t i = 0; i < rt->captured_count; i++)
        if (!rt_spec_is_chunk(&rt->captured[i].program.spec) &&
            rt->captured[i].program.spec.rows == batch &&
            rt_spec_query_len(&rt->captured[i].program.spec) == query_len)
            return &rt->captured[i].graph;
    return NULL;
}

/*
 * The device refuses this replay, because the ring holds no record for it, so no state changes;
 * what the host pays is the same.
 */
static enum rt_status time_launch(struct rt_runtime *rt, const struct rt_graph *g, uint64_t *ns)
{
    struct rt_driver *d = &rt->driver;
    struct timespec from, to;
    RT_TRY(RT_DRV(d, &rt->error, stream_sync, (d, rt->stream)));
    clock_gettime(CLOCK_MONOTONIC, &from);
    enum rt_status status = RT_DRV(d, &rt->error, graph_launch, (d, g->exec, rt->stream));
    clock_gettime(CLOCK_MONOTONIC, &to);
    RT_TRY(status);
    RT_TRY(rt_ranks_settle(rt)); /* or a rank that is gone would be waited for for good */
    *ns = (uint64_t)(to.tv_sec - from.tv_sec) * 1000000000u + (uint64_t)to.tv_nsec -
          (uint64_t)from.tv_nsec;
    return RT_DRV(d, &rt->error, stream_sync, (d, rt->stream));
}

enum rt_status bare_launch(rt_runtime *rt, uint32_t batch, uint32_t query_len, uint64_t *ns)
{
    struct rt_driver *d = &rt->driver;
    const struct rt_graph *g = find(rt, batch, query_len);
    RT_REQUIRE(g, &rt->error, RT_ERR_INVALID, "no graph for batch %u, query length %u", batch,
               query_len);
    RT_TRY(RT_DRV(d, &rt->error, ctx_enter, (d)));
    enum rt_status status = time_launch(rt, g, ns);
    (void)d->ctx_leave(d);
    return status;
}
