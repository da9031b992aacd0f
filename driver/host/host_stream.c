/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/host/host_parts.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS 1e6

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static rt_dstream stream_of(struct rt_host *h, rt_dstream s)
{
    return s ? s : &h->own_stream;
}

/* ---- work ---- */

static int work_check(const struct rt_host *h, const struct rt_host_work *w)
{
    switch (w->kind) {
    case RT_HOST_WORK_KERNEL:
        return rt_host_check_launch(h, w->launch);
    case RT_HOST_WORK_MATMUL:
        return rt_host_check_matmul(h, &w->matmul);
    case RT_HOST_WORK_COLLECTIVE:
        return rt_host_check_collective(h, &w->collective);
    case RT_HOST_WORK_COPY_IN:
    case RT_HOST_WORK_COPY_OUT:
    case RT_HOST_WORK_FILL:
        return rt_host_check_range(h, w->device, w->bytes);
    case RT_HOST_WORK_GRAPH:
    case RT_HOST_WORK_EVENT:
        break;
    }
    return 0;
}

static int work_run(struct rt_host *h, const struct rt_host_work *w)
{
    void *const device = (void *)(uintptr_t)w->device;
    switch (w->kind) {
    case RT_HOST_WORK_KERNEL:
        rt_host_run_kernel(w->launch);
        break;
    case RT_HOST_WORK_MATMUL:
        rt_host_run_matmul(&w->matmul);
        break;
    case RT_HOST_WORK_COLLECTIVE:
        return rt_host_run_collective(h, &w->collective);
    case RT_HOST_WORK_GRAPH:
        return rt_host_replay(h, w->exec);
    case RT_HOST_WORK_COPY_IN:
        memmove(device, w->from, (size_t)w->bytes);
        break;
    case RT_HOST_WORK_COPY_OUT:
        memmove(w->to, device, (size_t)w->bytes);
        break;
    case RT_HOST_WORK_FILL:
        memset(device, w->value, (size_t)w->bytes);
        break;
    case RT_HOST_WORK_EVENT:
        w->event->ns = now_ns();
        w->event->recorded = true;
        break;
    }
    return 0;
}

/* A queued copy must not depend on anything its giver may release before it runs. */
static struct rt_host_work *work_clone(const struct rt_host_work *w, rt_dstream s)
{
    struct rt_host_work *copy = malloc(sizeof(*copy));
    if (!copy)
        return NULL;
    *copy = *w;
    if (w->kind == RT_HOST_WORK_KERNEL) {
        copy->owned_launch = rt_host_alloc_aligned(sizeof(*copy->owned_launch));
        if (!copy->owned_launch) {
            free(copy);
            return NULL;
        }
        *copy->owned_launch = *w->launch;
        copy->launch = copy->owned_launch;
    }
    if (w->kind == RT_HOST_WORK_GRAPH)
        w->exec->users++;
    if (w->kind == RT_HOST_WORK_EVENT) {
        w->event->queued++;
        w->event->stream = s;
    }
    return copy;
}

static void work_free(struct rt_host_work *w)
{
    if (w->kind == RT_HOST_WORK_GRAPH)
        rt_host_exec_release(w->exec);
    if (w->kind == RT_HOST_WORK_EVENT && --w->event->queued == 0 && w->event->destroyed)
        free(w->event);
    free(w->owned_launch);
    free(w);
}

int rt_host_submit(struct rt_host *h, rt_dstream s, const struct rt_host_work *work)
{
    const int rc = work_check(h, work);
    if (rc != 0)
        return rc;
    s = stream_of(h, s);
    if (s->error != 0)
        return s->error;
    if (!s->held)
        return work_run(h, work);
    struct rt_host_work *copy = work_clone(work, s);
    if (!copy)
        return RT_HOST_NO_MEMORY;
    if (s->last)
        s->last->next = copy;
    else
        s->first = copy;
    s->last = copy;
    return 0;
}

/* Runs the oldest work of the queue; false where there is none. What it needs is checked again: a
 * test may have freed memory that queued work still wants. Behind a failure nothing runs. */
static bool stream_advance(struct rt_host *h, rt_dstream s)
{
    struct rt_host_work *w = s->first;
    if (!w)
        return false;
    s->first = w->next;
    if (!s->first)
        s->last = NULL;
    if (s->error == 0)
        s->error = work_check(h, w);
    if (s->error == 0)
        s->error = work_run(h, w);
    work_free(w);
    return true;
}

void rt_host_drain(struct rt_host *h, rt_dstream s)
{
    while (stream_advance(h, s))
        continue;
}

void rt_driver_host_hold(struct rt_driver *d, rt_dstream s, bool hold)
{
    if (d->caps.kind != RT_DEVICE_KIND_HOST)
        return;
    struct rt_host *h = rt_host_of(d);
    s = stream_of(h, s);
    s->held = hold;
    if (!hold)
        rt_host_drain(h, s);
}

uint32_t rt_driver_host_release(struct rt_driver *d, rt_dstream s, uint32_t count)
{
    if (d->caps.kind != RT_DEVICE_KIND_HOST)
        return 0;
    struct rt_host *h = rt_host_of(d);
    s = stream_of(h, s);
    uint32_t ran = 0;
    while (ran < count && stream_advance(h, s))
        ran++;
    return ran;
}

/* ---- streams ---- */

static int stream_create(struct rt_driver *d, rt_dstream *out)
{
    if (rt_probe_enter(d, RT_DOP_stream_create))
        return RT_DRIVER_INJECTED;
    rt_dstream s = calloc(1, sizeof(*s));
    if (!s)
        return RT_HOST_NO_MEMORY;
    d->probe.live++;
    *out = s;
    return 0;
}

static int stream_destroy(struct rt_driver *d, rt_dstream s)
{
    const bool injected = rt_probe_enter(d, RT_DOP_stream_destroy);
    if (!s)
        return RT_HOST_INVALID;
    rt_host_drain(rt_host_of(d), s);
    const int rc = s->error;
    free(s);
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : rc;
}

static int stream_sync(struct rt_driver *d, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_stream_sync))
        return RT_DRIVER_INJECTED;
    struct rt_host *h = rt_host_of(d);
    s = stream_of(h, s);
    rt_host_drain(h, s);
    return s->error;
}

static int stream_query(struct rt_driver *d, rt_dstream s, bool *out_idle)
{
    if (rt_probe_enter(d, RT_DOP_stream_query))
        return RT_DRIVER_INJECTED;
    s = stream_of(rt_host_of(d), s);
    if (s->error != 0)
        return s->error;
    *out_idle = !s->first;
    return 0;
}

/* ---- events ---- */

static int event_create(struct rt_driver *d, rt_devent *out)
{
    if (rt_probe_enter(d, RT_DOP_event_create))
        return RT_DRIVER_INJECTED;
    rt_devent e = calloc(1, sizeof(*e));
    if (!e)
        return RT_HOST_NO_MEMORY;
    d->probe.live++;
    *out = e;
    return 0;
}

static int event_destroy(struct rt_driver *d, rt_devent e)
{
    const bool injected = rt_probe_enter(d, RT_DOP_event_destroy);
    if (!e)
        return RT_HOST_INVALID;
    e->destroyed = true;
    if (e->queued == 0)
        free(e);
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

static int event_record(struct rt_driver *d, rt_devent e, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_event_record))
        return RT_DRIVER_INJECTED;
    struct rt_host *h = rt_host_of(d);
    if (!e || (e->queued > 0 && e->stream != stream_of(h, s)))
        return RT_HOST_INVALID;
    const struct rt_host_work work = {.kind = RT_HOST_WORK_EVENT, .event = e};
    return rt_host_submit(h, s, &work);
}

static int event_sync(struct rt_driver *d, rt_devent e)
{
    if (rt_probe_enter(d, RT_DOP_event_sync))
        return RT_DRIVER_INJECTED;
    if (!e)
        return RT_HOST_INVALID;
    while (e->queued > 0 && stream_advance(rt_host_of(d), e->stream))
        continue;
    return 0;
}

static int event_elapsed(struct rt_driver *d, rt_devent from, rt_devent to, float *out_ms)
{
    if (rt_probe_enter(d, RT_DOP_event_elapsed))
        return RT_DRIVER_INJECTED;
    if (!from || !to)
        return RT_HOST_INVALID;
    if (!from->recorded || !to->recorded || from->queued > 0 || to->queued > 0)
        return RT_HOST_NOT_READY;
    *out_ms = (float)((double)(to->ns - from->ns) / NS_PER_MS);
    return 0;
}

/* ---- copies and kernels ---- */

static int copy_in(struct rt_driver *d, rt_addr to, const void *from, uint64_t bytes, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_copy_in))
        return RT_DRIVER_INJECTED;
    if (bytes == 0)
        return 0;
    if (!from)
        return RT_HOST_INVALID;
    const struct rt_host_work work = {
        .kind = RT_HOST_WORK_COPY_IN, .device = to, .from = from, .bytes = bytes};
    return rt_host_submit(rt_host_of(d), s, &work);
}

static int copy_out(struct rt_driver *d, void *to, rt_addr from, uint64_t bytes, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_copy_out))
        return RT_DRIVER_INJECTED;
    if (bytes == 0)
        return 0;
    if (!to)
        return RT_HOST_INVALID;
    const struct rt_host_work work = {
        .kind = RT_HOST_WORK_COPY_OUT, .device = from, .to = to, .bytes = bytes};
    return rt_host_submit(rt_host_of(d), s, &work);
}

static int fill(struct rt_driver *d, rt_addr to, uint8_t value, uint64_t bytes, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_fill))
        return RT_DRIVER_INJECTED;
    if (bytes == 0)
        return 0;
    const struct rt_host_work work = {
        .kind = RT_HOST_WORK_FILL, .device = to, .value = value, .bytes = bytes};
    return rt_host_submit(rt_host_of(d), s, &work);
}

static int launch(struct rt_driver *d, const struct rt_launch *l, bool programmatic, rt_dstream s)
{
    (void)programmatic; /* kernels run one after the other anyway */
    if (rt_probe_enter(d, RT_DOP_launch))
        return RT_DRIVER_INJECTED;
    if (!l)
        return RT_HOST_INVALID;
    const struct rt_host_work work = {.kind = RT_HOST_WORK_KERNEL, .launch = l};
    return rt_host_submit(rt_host_of(d), s, &work);
}

static int matmul(struct rt_driver *d, const struct rt_matmul *m, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_matmul))
        return RT_DRIVER_INJECTED;
    if (!m || rt_host_check_plan(m) != 0)
        return RT_HOST_INVALID;
    const struct rt_host_work work = {.kind = RT_HOST_WORK_MATMUL, .matmul = *m};
    return rt_host_submit(rt_host_of(d), s, &work);
}

static int collective(struct rt_driver *d, const struct rt_collective *c, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_collective))
        return RT_DRIVER_INJECTED;
    if (!c)
        return RT_HOST_INVALID;
    const struct rt_host_work work = {.kind = RT_HOST_WORK_COLLECTIVE, .collective = *c};
    return rt_host_submit(rt_host_of(d), s, &work);
}

void rt_host_bind_streams(struct rt_driver *d)
{
    d->matmul = matmul;
    d->collective = collective;
    d->stream_create = stream_create;
    d->stream_destroy = stream_destroy;
    d->stream_sync = stream_sync;
    d->stream_query = stream_query;
    d->event_create = event_create;
    d->event_destroy = event_destroy;
    d->event_record = event_record;
    d->event_sync = event_sync;
    d->event_elapsed = event_elapsed;
    d->copy_in = copy_in;
    d->copy_out = copy_out;
    d->fill = fill;
    d->launch = launch;
}
