/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exchanges by NCCL. Rank 0's id goes over the board, from where it is known too that every rank is
 * alive while the library waits for it (comm_nccl_make.c).
 */
#include "driver/comm/comm_nccl.h"

#include <inttypes.h>
#include <stdlib.h>

/* A process that ends closes what it has one by one: its sockets, by which NCCL learns of it, some
 * time before the lock by which the board does. And a rank that gives up tells its story only when
 * it has looked for others' itself. */
#define FALL_NS UINT64_C(2000000000)

enum rt_status rt_nccl_failed(const struct rt_nccl *n, const char *call, rt_nccl_result rc,
                              struct rt_error *err)
{
    return rt_fail(err, RT_ERR_DRIVER, "%s failed: %s (%d)", call, n->api.GetErrorString(rc), rc);
}

enum rt_status rt_nccl_fallen(const struct rt_nccl *n, const struct rt_comm *c, const char *call,
                              rt_nccl_result rc, struct rt_error *err)
{
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    const uint64_t limit_ns = c->board.limit_ns < FALL_NS ? c->board.limit_ns : FALL_NS;
    struct rt_error own = {.status = RT_OK}, theirs = {.status = RT_OK};
    (void)rt_nccl_failed(n, call, rc, &own);
    while (rt_board_others_are_there(&c->board, &theirs) == RT_OK) {
        if (c->ranks == 1 || rt_board_now_ns() - w.begin_ns > limit_ns) {
            *err = own;
            return own.status;
        }
        while (!rt_board_pause(&w))
            continue;
    }
    return rt_fail(err, RT_ERR_RANKS, "%s; %s", theirs.message, own.message);
}

static int dtype_of(enum rt_dtype dtype)
{
    switch (dtype) {
    case RT_DTYPE_BF16:
        return RT_NCCL_BF16;
    case RT_DTYPE_F32:
        return RT_NCCL_F32;
    case RT_DTYPE_I32:
        return RT_NCCL_I32;
    case RT_DTYPE_U8:
        break;
    }
    return RT_NCCL_U8;
}

const char *rt_nccl_call_name(enum rt_collective_kind kind)
{
    static const char *const names[] = {[RT_ALL_REDUCE] = "ncclAllReduce",
                                        [RT_ALL_GATHER] = "ncclAllGather",
                                        [RT_REDUCE_SCATTER] = "ncclReduceScatter",
                                        [RT_ALL_TO_ALL] = "a group of ncclSend and ncclRecv"};
    return names[kind];
}

/* With each rank of the group, itself among them. A group that was begun is ended: the library
 * would take what comes next for a part of it. */
static rt_nccl_result swap(const struct rt_nccl_api *api, rt_nccl_comm comm, uint32_t rank,
                           const struct rt_collective *x, rt_dstream s)
{
    const char *from = (const char *)(uintptr_t)x->from;
    char *to = (char *)(uintptr_t)x->to;
    const uint64_t bytes = x->count * rt_dtype_bytes(x->dtype);
    const int dtype = dtype_of(x->dtype), group = (int)x->group;
    const int first = (int)(rank / x->group * x->group);
    rt_nccl_result rc = api->GroupStart();
    if (rc != RT_NCCL_SUCCESS)
        return rc;
    for (int i = 0; i < group && rc == RT_NCCL_SUCCESS; i++, from += bytes, to += bytes) {
        rc = api->Send(from, x->count, dtype, first + i, comm, s);
        if (rc == RT_NCCL_SUCCESS)
            rc = api->Recv(to, x->count, dtype, first + i, comm, s);
    }
    const rt_nccl_result ended = api->GroupEnd();
    return rc == RT_NCCL_SUCCESS ? ended : rc;
}

rt_nccl_result rt_nccl_put(const struct rt_nccl_api *api, rt_nccl_comm comm, uint32_t rank,
                           const struct rt_collective *x, rt_dstream s)
{
    const void *const from = (const void *)(uintptr_t)x->from;
    void *const to = (void *)(uintptr_t)x->to;
    const int dtype = dtype_of(x->dtype);
    switch (x->kind) {
    case RT_ALL_GATHER:
        return api->AllGather(from, to, x->count, dtype, comm, s);
    case RT_REDUCE_SCATTER:
        return api->ReduceScatter(from, to, x->count, dtype, RT_NCCL_SUM, comm, s);
    case RT_ALL_TO_ALL:
        return swap(api, comm, rank, x, s);
    case RT_ALL_REDUCE:
        break;
    }
    return api->AllReduce(from, to, x->count, dtype, RT_NCCL_SUM, comm, s);
}

static enum rt_status exchange(struct rt_comm *c, const struct rt_collective *x, rt_dstream s,
                               struct rt_error *err)
{
    const struct rt_nccl *const n = c->impl;
    const rt_nccl_result rc = rt_nccl_put(&n->api, n->comm, c->rank, x, s);
    if (rc == RT_NCCL_SUCCESS)
        return RT_OK;
    return rt_nccl_fallen(n, c, rt_nccl_call_name(x->kind), rc, err);
}

static enum rt_status health(struct rt_comm *c, struct rt_error *err)
{
    const struct rt_nccl *const n = c->impl;
    rt_nccl_result rc = RT_NCCL_SUCCESS;
    const rt_nccl_result asked = n->api.CommGetAsyncError(n->comm, &rc);
    if (asked != RT_NCCL_SUCCESS)
        return rt_nccl_fallen(n, c, "ncclCommGetAsyncError", asked, err);
    if (rc != RT_NCCL_SUCCESS && rc != RT_NCCL_IN_PROGRESS)
        return rt_nccl_fallen(n, c, "the communicator", rc, err);
    return RT_OK;
}

static void end(struct rt_nccl_job *job)
{
    job->rc = job->api.CommAbort(job->comm);
}

/* Kernels that wait for others would wait for ever. A caller's communicator too: nothing else ends
 * them; after that it is to be given up without ncclCommDestroy. From 2.26 on ncclCommAbort ends
 * the kernels and returns only when all graphs that have exchanges are gone, of which this thread
 * has some: so it is a job. */
static void abandon(struct rt_comm *c)
{
    struct rt_nccl *const n = c->impl;
    const struct rt_nccl_job what = {.api = n->api, .run = end, .comm = n->comm};
    if (n->comm && !n->abandoned)
        n->ending = rt_nccl_job_start(&what);
    n->abandoned = true;
}

/* Graphs are gone by now, or never will be. */
static void close_nccl(struct rt_comm *c)
{
    struct rt_nccl *const n = c->impl;
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    while (n->ending && !rt_nccl_job_is_done(n->ending) && !rt_board_is_late(&c->board, &w))
        (void)rt_board_pause(&w);
    if (n->ending)
        c->lingers = !rt_nccl_job_end(n->ending, true) || c->lingers;
    if (n->comm && !n->given && !n->abandoned)
        (void)n->api.CommDestroy(n->comm);
    rt_nccl_unload(n);
    free(n);
}

static enum rt_status take(const struct rt_comm *c, struct rt_nccl *n, void *given,
                           struct rt_error *err)
{
    int count = 0, rank = 0;
    n->given = true;
    n->comm = given;
    RT_NCCL(n, err, CommCount, (n->comm, &count));
    RT_NCCL(n, err, CommUserRank, (n->comm, &rank));
    RT_REQUIRE(count == (int)c->ranks && rank == (int)c->rank, err, RT_ERR_INVALID,
               "the ncclComm_t is rank %d of %d, the group's rank is %" PRIu32 " of %" PRIu32, rank,
               count, c->rank, c->ranks);
    return RT_OK;
}

enum rt_status rt_comm_open_nccl(struct rt_comm *c, struct rt_driver *d, void *given,
                                 struct rt_error *err)
{
    enum rt_status status;
    struct rt_nccl *const n = calloc(1, sizeof(*n));
    RT_REQUIRE(n, err, RT_ERR_NOMEM, "out of host memory: %zu bytes for NCCL's table", sizeof(*n));
    RT_TRY_GOTO(rt_nccl_load(n, err));
    RT_TRY_GOTO(given ? take(c, n, given, err) : rt_nccl_make(n, c, d, err));
    c->impl = n;
    c->health = health;
    c->abandon = abandon;
    c->close = close_nccl;
    c->connect = rt_nccl_connect;
    c->exchange = exchange;
    return RT_OK;
fail:
    rt_nccl_unload(n);
    free(n);
    return status;
}
