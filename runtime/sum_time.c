/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/sum_time.h"

#include "graphs/build.h"

#include <stdlib.h>

struct events {
    rt_devent begin, end;
};

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* What ranks wait for each other in has an end, and is told by name. */
static enum rt_status replay(const struct rt_sum_clock *c, const struct events *e,
                             const struct rt_graph *g, float *us, float *launch_us,
                             struct rt_error *err)
{
    struct rt_driver *const d = c->d;
    float ms = 0;
    RT_TRY(RT_DRV(d, err, event_record, (d, e->begin, c->stream)));
    const uint64_t begin = rt_board_now_ns();
    RT_TRY(RT_DRV(d, err, graph_launch, (d, g->exec, c->stream)));
    *launch_us = (float)(rt_board_now_ns() - begin) * 1e-3f;
    RT_TRY(RT_DRV(d, err, event_record, (d, e->end, c->stream)));
    RT_TRY(rt_comm_await(c->comm, d, c->stream, true, err));
    RT_TRY(RT_DRV(d, err, event_elapsed, (d, e->begin, e->end, &ms)));
    *us = ms * 1e3f / RT_SUM_CHAIN;
    return RT_OK;
}

static enum rt_status replay_all(const struct rt_sum_clock *c, const struct events *e,
                                 const struct rt_graph *g, struct rt_error *err)
{
    RT_TRY(rt_comm_barrier(c->comm, err)); /* nobody captures any more */
    for (uint32_t i = 0; i < c->warm_up + c->replays; i++) {
        const uint32_t to = i < c->warm_up ? 0 : i - c->warm_up;
        float us, launch_us;
        RT_TRY(replay(c, e, g, &us, &launch_us, err));
        if (c->us)
            c->us[to] = us;
        if (c->launch_us)
            c->launch_us[to] = launch_us;
    }
    if (c->us)
        qsort(c->us, c->replays, sizeof(*c->us), by_value);
    if (c->launch_us)
        qsort(c->launch_us, c->replays, sizeof(*c->launch_us), by_value);
    return RT_OK;
}

static enum rt_status run_chain(const struct rt_sum_clock *c, const struct events *e,
                                const struct rt_work *works, uint32_t count, struct rt_error *err)
{
    struct rt_program p = {0};
    struct rt_graph g = {0};
    enum rt_status status = RT_OK;
    for (uint32_t i = 0; i < RT_SUM_CHAIN * count && status == RT_OK; i++)
        status = rt_program_add(&p, "sum", i, &works[i % count], err);
    if (status == RT_OK)
        status = rt_graph_build(&p, c->d, c->stream, &g, err);
    if (status == RT_OK)
        status = rt_graph_instantiate(&g, c->d, c->stream, err);
    if (status == RT_OK)
        status = replay_all(c, e, &g, err);
    rt_graph_free(&g, c->d);
    rt_program_free(&p);
    return status;
}

enum rt_status rt_sum_time(const struct rt_sum_clock *clock, const struct rt_work *works,
                           uint32_t count, struct rt_error *err)
{
    struct rt_driver *const d = clock->d;
    struct events e = {0};
    enum rt_status status = RT_DRV(d, err, event_create, (d, &e.begin));
    if (status == RT_OK)
        status = RT_DRV(d, err, event_create, (d, &e.end));
    if (status == RT_OK)
        status = run_chain(clock, &e, works, count, err);
    if (e.end)
        (void)d->event_destroy(d, e.end);
    if (e.begin)
        (void)d->event_destroy(d, e.begin);
    return status;
}
