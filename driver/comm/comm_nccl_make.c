/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ncclCommInitRank waits for all ranks for as long as it takes. So it is a job, while this thread
 * watches the ranks and the clock. Calls that do not block are no way out: a communicator that is
 * made so would put its exchanges on the stream by threads of its own, which no capture sees.
 */
#include "driver/comm/comm_nccl.h"

#include <inttypes.h>

#define NS_PER_S 1e9

static void make(struct rt_nccl_job *job)
{
    job->entered = job->d->ctx_enter(job->d);
    atomic_store(&job->has_entered, true);
    job->rc = RT_NCCL_SUCCESS;
    if (job->entered == 0)
        job->rc = job->api.CommInitRank(&job->comm, job->ranks, job->id, job->rank);
}

/* It came too late. */
static void unmake(struct rt_nccl_job *job)
{
    if (job->entered == 0 && job->rc == RT_NCCL_SUCCESS)
        (void)job->api.CommAbort(job->comm);
}

static enum rt_status look(const struct rt_comm *c, const struct rt_board_wait *w,
                           struct rt_error *err)
{
    for (uint32_t r = 0; r < c->ranks; r++)
        if (r != c->rank)
            RT_TRY(rt_board_is_there(&c->board, r, err));
    RT_REQUIRE(!rt_board_is_late(&c->board, w), err, RT_ERR_RANKS,
               "ncclCommInitRank of rank %" PRIu32 " (this one) of %" PRIu32
               " has not returned within %.3f s; NCCL_DEBUG=INFO has it tell what it waits for",
               c->rank, c->ranks, (double)c->board.limit_ns / NS_PER_S);
    return RT_OK;
}

/* The driver's table is the job's until it has entered the context, which waits for nobody. */
static enum rt_status watch(const struct rt_nccl_job *job, const struct rt_comm *c,
                            struct rt_error *err)
{
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    while (!atomic_load(&job->has_entered))
        (void)rt_board_pause(&w);
    while (!rt_nccl_job_is_done(job))
        if (rt_board_pause(&w))
            RT_TRY(look(c, &w, err));
    return RT_OK;
}

static enum rt_status outcome(const struct rt_nccl_job *job, struct rt_nccl *n,
                              struct rt_error *err)
{
    if (job->entered != 0)
        return rt_driver_fail(job->d, err, RT_DOP_ctx_enter, job->entered, __FILE__, __LINE__);
    if (job->rc != RT_NCCL_SUCCESS)
        return rt_nccl_failed(n, "ncclCommInitRank", job->rc, err);
    n->comm = job->comm;
    return RT_OK;
}

enum rt_status rt_nccl_make(struct rt_nccl *n, struct rt_comm *c, struct rt_driver *d,
                            struct rt_error *err)
{
    struct rt_nccl_job what = {.api = n->api,
                               .run = make,
                               .undo = unmake,
                               .d = d,
                               .rank = (int)c->rank,
                               .ranks = (int)c->ranks};
    if (c->rank == 0) {
        RT_NCCL(n, err, GetUniqueId, (&what.id));
        rt_board_give_id(&c->board, (const unsigned char *)what.id.bytes);
    } else {
        RT_TRY(rt_board_take_id(&c->board, (unsigned char *)what.id.bytes, err));
    }
    struct rt_nccl_job *const job = rt_nccl_job_start(&what);
    RT_REQUIRE(job, err, RT_ERR_NOMEM, "no memory or no thread for ncclCommInitRank");
    enum rt_status status = watch(job, c, err);
    if (status == RT_OK)
        status = outcome(job, n, err);
    rt_nccl_job_end(job);
    return status;
}
