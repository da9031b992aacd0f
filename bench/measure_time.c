/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/measure_time.h"

#include "graphs/build.h"

#include <stdlib.h>

#define WARM_UP 2u
#define NS_PER_MS 1e6

static enum rt_status build(const struct rt_stopwatch *w, const struct rt_program *p,
                            struct rt_graph *g)
{
    RT_TRY(rt_graph_build(p, w->driver, w->stream, g, w->error));
    enum rt_status status = rt_graph_instantiate(g, w->driver, w->stream, w->error);
    if (status != RT_OK)
        rt_graph_free(g, w->driver);
    return status;
}

enum rt_status rt_stopwatch_replay(const struct rt_stopwatch *w, const struct rt_program *p)
{
    struct rt_driver *d = w->driver;
    struct rt_graph g;
    RT_TRY(build(w, p, &g));
    enum rt_status status = RT_DRV(d, w->error, graph_launch, (d, g.exec, w->stream));
    if (status == RT_OK)
        status = RT_DRV(d, w->error, stream_sync, (d, w->stream));
    rt_graph_free(&g, d);
    return status;
}

/*
 * All replays are queued before the first is waited for: what the host needs for a launch lies
 * behind the replay before it, and is not part of any.
 */
static enum rt_status queue(const struct rt_stopwatch *w, const struct rt_graph *g,
                            uint32_t replays)
{
    struct rt_driver *d = w->driver;
    for (uint32_t i = 0; i < WARM_UP; i++)
        RT_TRY(RT_DRV(d, w->error, graph_launch, (d, g->exec, w->stream)));
    for (uint32_t i = 0; i < replays; i++) {
        rt_devent *around = &w->events[2 * i];
        RT_TRY(RT_DRV(d, w->error, event_record, (d, around[0], w->stream)));
        RT_TRY(RT_DRV(d, w->error, graph_launch, (d, g->exec, w->stream)));
        RT_TRY(RT_DRV(d, w->error, event_record, (d, around[1], w->stream)));
    }
    return RT_OK;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static enum rt_status median_of(const struct rt_stopwatch *w, uint32_t replays, double *median_ns)
{
    struct rt_driver *d = w->driver;
    float ms[RT_MEASURE_MAX_REPLAYS] = {0};
    for (uint32_t i = 0; i < replays; i++) {
        const rt_devent *around = &w->events[2 * i];
        RT_TRY(RT_DRV(d, w->error, event_elapsed, (d, around[0], around[1], &ms[i])));
    }
    qsort(ms, replays, sizeof(*ms), by_value);
    *median_ns = (double)ms[replays / 2] * NS_PER_MS;
    return RT_OK;
}

enum rt_status rt_stopwatch_replays(const struct rt_stopwatch *w, const struct rt_program *p,
                                    uint32_t replays, double *median_ns)
{
    struct rt_driver *d = w->driver;
    struct rt_graph g;
    RT_TRY(build(w, p, &g));
    enum rt_status status = queue(w, &g, replays);
    /* Waited for also where queueing failed half-way: nothing that runs may be freed. */
    struct rt_error unused = {0};
    enum rt_status waited =
        RT_DRV(d, status == RT_OK ? w->error : &unused, stream_sync, (d, w->stream));
    if (status == RT_OK)
        status = waited;
    if (status == RT_OK)
        status = median_of(w, replays, median_ns);
    rt_graph_free(&g, d);
    return status;
}

static enum rt_status launch_all(const struct rt_stopwatch *w, const struct rt_graph *g,
                                 uint64_t replays)
{
    struct rt_driver *d = w->driver;
    RT_TRY(RT_DRV(d, w->error, event_record, (d, w->events[0], w->stream)));
    for (uint64_t i = 0; i < replays; i++)
        RT_TRY(RT_DRV(d, w->error, graph_launch, (d, g->exec, w->stream)));
    RT_TRY(RT_DRV(d, w->error, event_record, (d, w->events[1], w->stream)));
    return RT_DRV(d, w->error, stream_sync, (d, w->stream));
}

static enum rt_status sustain(const struct rt_stopwatch *w, const struct rt_graph *g,
                              uint64_t replays, struct rt_energy_meter *meter,
                              struct rt_sustained *out)
{
    struct rt_driver *d = w->driver;
    uint64_t before = 0, after = 0;
    float ms = 0;
    RT_TRY(launch_all(w, g, replays));
    if (meter)
        RT_TRY(rt_energy_read(meter, &before, w->error));
    RT_TRY(launch_all(w, g, replays));
    if (meter)
        RT_TRY(rt_energy_read(meter, &after, w->error));
    RT_TRY(RT_DRV(d, w->error, event_elapsed, (d, w->events[0], w->events[1], &ms)));
    out->replay_ns = (double)ms * NS_PER_MS / (double)replays;
    out->replay_mj = (double)(after - before) / (double)replays;
    return RT_OK;
}

enum rt_status rt_stopwatch_sustain(const struct rt_stopwatch *w, const struct rt_program *p,
                                    uint64_t replays, struct rt_energy_meter *meter,
                                    struct rt_sustained *out)
{
    struct rt_driver *d = w->driver;
    struct rt_graph g;
    RT_TRY(build(w, p, &g));
    enum rt_status status = sustain(w, &g, replays, meter, out);
    /* Also where a launch has failed: nothing that runs may be freed. */
    struct rt_error unused = {0};
    if (status != RT_OK)
        (void)RT_DRV(d, &unused, stream_sync, (d, w->stream));
    rt_graph_free(&g, d);
    return status;
}
