/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/measure_time.h"

#include "graphs/build.h"

#include <stdlib.h>

#define WARM_UP 2u
#define NS_PER_MS 1e6

static enum rt_status build(struct rt_measure *m, const struct rt_program *p, struct rt_graph *g)
{
    RT_TRY(rt_graph_build(p, &m->driver, m->stream, g, &m->error));
    enum rt_status status = rt_graph_instantiate(g, &m->driver, m->stream, &m->error);
    if (status != RT_OK)
        rt_graph_free(g, &m->driver);
    return status;
}

enum rt_status rt_measure_replay(struct rt_measure *m, const struct rt_program *p)
{
    struct rt_driver *d = &m->driver;
    struct rt_graph g;
    RT_TRY(build(m, p, &g));
    enum rt_status status = RT_DRV(d, &m->error, graph_launch, (d, g.exec, m->stream));
    if (status == RT_OK)
        status = RT_DRV(d, &m->error, stream_sync, (d, m->stream));
    rt_graph_free(&g, d);
    return status;
}

/*
 * All replays are queued before the first is waited for: what the host needs for a launch lies
 * behind the replay before it, and is not part of any.
 */
static enum rt_status queue(struct rt_measure *m, const struct rt_graph *g, uint32_t replays)
{
    struct rt_driver *d = &m->driver;
    for (uint32_t i = 0; i < WARM_UP; i++)
        RT_TRY(RT_DRV(d, &m->error, graph_launch, (d, g->exec, m->stream)));
    for (uint32_t i = 0; i < replays; i++) {
        rt_devent *around = &m->events[2 * i];
        RT_TRY(RT_DRV(d, &m->error, event_record, (d, around[0], m->stream)));
        RT_TRY(RT_DRV(d, &m->error, graph_launch, (d, g->exec, m->stream)));
        RT_TRY(RT_DRV(d, &m->error, event_record, (d, around[1], m->stream)));
    }
    return RT_OK;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static enum rt_status median_of(struct rt_measure *m, uint32_t replays, double *median_ns)
{
    struct rt_driver *d = &m->driver;
    float ms[RT_MEASURE_MAX_REPLAYS] = {0};
    for (uint32_t i = 0; i < replays; i++) {
        const rt_devent *around = &m->events[2 * i];
        RT_TRY(RT_DRV(d, &m->error, event_elapsed, (d, around[0], around[1], &ms[i])));
    }
    qsort(ms, replays, sizeof(*ms), by_value);
    *median_ns = (double)ms[replays / 2] * NS_PER_MS;
    return RT_OK;
}

enum rt_status rt_measure_replays(struct rt_measure *m, const struct rt_program *p,
                                  uint32_t replays, double *median_ns)
{
    struct rt_driver *d = &m->driver;
    struct rt_graph g;
    RT_TRY(build(m, p, &g));
    enum rt_status status = queue(m, &g, replays);
    /* Waited for also where queueing failed half-way: nothing that runs may be freed. */
    struct rt_error unused = {0};
    enum rt_status waited =
        RT_DRV(d, status == RT_OK ? &m->error : &unused, stream_sync, (d, m->stream));
    if (status == RT_OK)
        status = waited;
    if (status == RT_OK)
        status = median_of(m, replays, median_ns);
    rt_graph_free(&g, d);
    return status;
}
