/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of every rank, mapped by all of them, for exchanges by kernels of ours.
 *
 *   allocate, export ── gather: handles ── open the others' ── gather: verdicts ── mapped
 *                                │                                 │
 *   where any rank cannot:       └────────────── close, free ──────┘── a barrier in between
 *
 * No failure of it is the group's, for there is another way to exchange: it is told, by the first
 * rank that has one, and nothing is held. Who frees memory that another has open must not: so all
 * close first, and then wait for each other.
 */
#include "driver/comm/comm.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LET_GO_NS UINT64_C(2000000000)
#define STOP_BYTES 64u

/* What a rank tells the others of itself; `why` empty: it can. */
struct offer {
    struct rt_peer_handle handle;
    uint64_t process;
    char why[RT_PEERS_WHY_BYTES];
};

static enum rt_status make_zeros(struct rt_peers *p, rt_addr *out, struct rt_error *err)
{
    struct rt_driver *const d = p->driver;
    rt_dstream s;
    RT_TRY(RT_DRV(d, err, mem_alloc, (d, p->bytes, out)));
    RT_TRY(RT_DRV(d, err, stream_create, (d, &s)));
    enum rt_status status = RT_DRV(d, err, fill, (d, *out, 0, p->bytes, s));
    if (status == RT_OK)
        status = RT_DRV(d, err, stream_sync, (d, s));
    (void)d->stream_destroy(d, s);
    return status;
}

static enum rt_status make_offer(struct rt_comm *c, struct offer *mine, struct rt_error *err)
{
    struct rt_peers *const p = &c->peers;
    struct rt_driver *const d = p->driver;
    void *stop;
    RT_REQUIRE(c->ranks <= RT_PEERS_MOST, err, RT_ERR_UNSUPPORTED,
               "%" PRIu32 " ranks, memory of up to %u is mapped", c->ranks, RT_PEERS_MOST);
    RT_TRY(RT_DRV(d, err, host_alloc, (d, STOP_BYTES, &stop, &p->stop_addr)));
    p->stop = stop;
    *p->stop = 0;
    RT_TRY(make_zeros(p, &p->memory[c->rank], err));
    return RT_DRV(d, err, peer_export, (d, p->memory[c->rank], &mine->handle));
}

static enum rt_status open_all(struct rt_comm *c, const struct offer *offers, struct rt_error *err)
{
    struct rt_peers *const p = &c->peers;
    struct rt_driver *const d = p->driver;
    for (uint32_t r = 0; r < c->ranks; r++) {
        if (r == c->rank)
            continue;
        RT_REQUIRE(
            d->caps.kind == RT_DEVICE_KIND_HOST || offers[r].process != offers[c->rank].process,
            err, RT_ERR_UNSUPPORTED,
            "rank %" PRIu32 " is of the same process, and memory is mapped between processes", r);
        RT_TRY(RT_DRV(d, err, peer_open, (d, &offers[r].handle, &p->memory[r])));
    }
    return RT_OK;
}

static void close_others(struct rt_comm *c)
{
    struct rt_peers *const p = &c->peers;
    for (uint32_t r = 0; r < c->ranks && r < RT_PEERS_MOST; r++) {
        if (r == c->rank || !p->memory[r])
            continue;
        (void)p->driver->peer_close(p->driver, p->memory[r]);
        p->memory[r] = 0;
    }
}

static void free_own(struct rt_comm *c)
{
    struct rt_peers *const p = &c->peers;
    if (c->rank < RT_PEERS_MOST && p->memory[c->rank])
        (void)p->driver->mem_free(p->driver, p->memory[c->rank]);
    if (p->stop)
        (void)p->driver->host_free(p->driver, p->stop);
    p->memory[c->rank % RT_PEERS_MOST] = 0;
    p->stop = NULL;
}

/* True: none has a reason against it. The first that has is everyone's. */
static bool all_can(struct rt_peers *p, const struct offer *offers, uint32_t ranks)
{
    uint32_t r = 0;
    while (r < ranks && offers[r].why[0] == '\0')
        r++;
    if (r < ranks)
        (void)snprintf(p->why, sizeof(p->why), "rank %" PRIu32 ": %.140s", r, offers[r].why);
    return r == ranks;
}

static void note(struct offer *mine, enum rt_status status, const struct rt_error *why)
{
    if (status != RT_OK)
        (void)snprintf(mine->why, sizeof(mine->why), "%.150s", why->message);
}

/* Every rank comes to every gather, whatever became of its own part. */
static enum rt_status map(struct rt_comm *c, struct offer *offers, struct rt_error *err)
{
    struct rt_error why = {.status = RT_OK};
    struct offer mine = {.process = (uint64_t)getpid()};
    note(&mine, make_offer(c, &mine, &why), &why);
    RT_TRY(rt_comm_gather(c, &mine, offers, sizeof(mine), err));
    if (!all_can(&c->peers, offers, c->ranks))
        return RT_OK;
    note(&mine, open_all(c, offers, &why), &why);
    RT_TRY(rt_comm_gather(c, &mine, offers, sizeof(mine), err));
    c->peers.mapped = all_can(&c->peers, offers, c->ranks);
    if (c->peers.mapped)
        return RT_OK;
    close_others(c);
    return rt_comm_barrier(c, err);
}

enum rt_status rt_comm_map(struct rt_comm *c, struct rt_driver *d, uint64_t bytes,
                           struct rt_error *err)
{
    struct offer offers[RT_BOARD_MAX_RANKS];
    if (c->peers.driver)
        return RT_OK;
    c->peers.driver = d;
    c->peers.bytes = bytes;
    RT_TRY(map(c, offers, err));
    if (!c->peers.mapped)
        free_own(c);
    return RT_OK;
}

/* Kernels of another rank may still write here, as one does that has not seen yet that this one has
 * left. */
void rt_comm_unmap(struct rt_comm *c)
{
    struct rt_peers *const p = &c->peers;
    if (!p->driver)
        return;
    close_others(c);
    rt_board_let_go(&c->board);
    if (rt_board_all_let_go(&c->board, LET_GO_NS))
        free_own(c);
    *p = (struct rt_peers){.driver = NULL};
}
