/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exchanges by NCCL. Rank 0's id goes over the board; that every rank is alive when it makes its
 * communicator, which the library waits for, is known from there.
 */
#include "driver/comm/comm_nccl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static enum rt_status failed(const struct rt_nccl *n, const char *call, rt_nccl_result rc,
                             struct rt_error *err)
{
    return rt_fail(err, RT_ERR_DRIVER, "%s failed: %s (%d)", call, n->api.GetErrorString(rc), rc);
}

#define NCCL(n, err, name, args)                                                                   \
    do {                                                                                           \
        const rt_nccl_result rc_ = (n)->api.name args;                                             \
        if (rc_ != RT_NCCL_SUCCESS)                                                                \
            return failed((n), "nccl" #name, rc_, (err));                                          \
    } while (0)

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

static enum rt_status exchange(struct rt_comm *c, const struct rt_collective *x, rt_dstream s,
                               struct rt_error *err)
{
    const struct rt_nccl *const n = c->impl;
    const void *const from = (const void *)(uintptr_t)x->from;
    void *const to = (void *)(uintptr_t)x->to;
    const int dtype = dtype_of(x->dtype);
    switch (x->kind) {
    case RT_ALL_REDUCE:
        NCCL(n, err, AllReduce, (from, to, x->count, dtype, RT_NCCL_SUM, n->comm, s));
        break;
    case RT_ALL_GATHER:
        NCCL(n, err, AllGather, (from, to, x->count, dtype, n->comm, s));
        break;
    case RT_REDUCE_SCATTER:
        NCCL(n, err, ReduceScatter, (from, to, x->count, dtype, RT_NCCL_SUM, n->comm, s));
        break;
    }
    return RT_OK;
}

static enum rt_status health(struct rt_comm *c, struct rt_error *err)
{
    const struct rt_nccl *const n = c->impl;
    rt_nccl_result rc = RT_NCCL_SUCCESS;
    NCCL(n, err, CommGetAsyncError, (n->comm, &rc));
    if (rc != RT_NCCL_SUCCESS && rc != RT_NCCL_IN_PROGRESS)
        return failed(n, "the communicator", rc, err);
    return RT_OK;
}

/* Kernels that wait for others would wait for ever. A caller's communicator too: nothing else ends
 * them; after that it is to be given up without ncclCommDestroy. */
static void abandon(struct rt_comm *c)
{
    struct rt_nccl *const n = c->impl;
    if (n->comm && !n->abandoned)
        (void)n->api.CommAbort(n->comm);
    n->abandoned = true;
}

static void close_nccl(struct rt_comm *c)
{
    struct rt_nccl *const n = c->impl;
    if (n->comm && !n->given && !n->abandoned)
        (void)n->api.CommDestroy(n->comm);
    rt_nccl_unload(n);
    free(n);
}

static enum rt_status make(struct rt_comm *c, struct rt_nccl *n, struct rt_error *err)
{
    struct rt_nccl_id id;
    if (c->rank == 0) {
        NCCL(n, err, GetUniqueId, (&id));
        rt_board_give_id(&c->board, (const unsigned char *)id.bytes);
    } else {
        RT_TRY(rt_board_take_id(&c->board, (unsigned char *)id.bytes, err));
    }
    NCCL(n, err, CommInitRank, (&n->comm, (int)c->ranks, id, (int)c->rank));
    return RT_OK;
}

static enum rt_status take(const struct rt_comm *c, struct rt_nccl *n, void *given,
                           struct rt_error *err)
{
    int count = 0, rank = 0;
    n->given = true;
    n->comm = given;
    NCCL(n, err, CommCount, (n->comm, &count));
    NCCL(n, err, CommUserRank, (n->comm, &rank));
    RT_REQUIRE(count == (int)c->ranks && rank == (int)c->rank, err, RT_ERR_INVALID,
               "the ncclComm_t is rank %d of %d, the group's rank is %" PRIu32 " of %" PRIu32, rank,
               count, c->rank, c->ranks);
    return RT_OK;
}

enum rt_status rt_comm_open_nccl(struct rt_comm *c, void *given, struct rt_error *err)
{
    enum rt_status status;
    struct rt_nccl *const n = calloc(1, sizeof(*n));
    RT_REQUIRE(n, err, RT_ERR_NOMEM, "out of host memory: %zu bytes for NCCL's table", sizeof(*n));
    RT_TRY_GOTO(rt_nccl_load(n, err));
    RT_TRY_GOTO(given ? take(c, n, given, err) : make(c, n, err));
    c->impl = n;
    c->health = health;
    c->abandon = abandon;
    c->close = close_nccl;
    c->exchange = exchange;
    return RT_OK;
fail:
    rt_nccl_unload(n);
    free(n);
    return status;
}
