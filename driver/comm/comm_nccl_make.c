/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ncclCommInitRank waits for all ranks for as long as it takes, and so does an exchange that is the
 * first of its kind, with which the library connects. So both are jobs, while this thread watches
 * the ranks and the clock. Calls that do not block are no way out: a communicator that is made so
 * would put its exchanges on the stream by threads of its own, which no capture sees.
 */
#include "driver/comm/comm_nccl.h"

static enum rt_status do_job(const struct rt_nccl_job *what, const char *call, struct rt_nccl *n,
                             struct rt_comm *c, struct rt_error *err)
{
    struct rt_nccl_job *const job = rt_nccl_job_start(what);
    RT_REQUIRE(job, err, RT_ERR_NOMEM, "no memory or no thread for %s", call);
    enum rt_status status = rt_nccl_job_watch(job, c, call, err);
    if (status == RT_OK && job->rc != RT_NCCL_SUCCESS)
        status = rt_nccl_fallen(n, c, call, job->rc, err);
    if (status == RT_OK)
        n->comm = job->comm;
    c->lingers = !rt_nccl_job_end(job, status == RT_OK) || c->lingers;
    return status;
}

static void make(struct rt_nccl_job *job)
{
    if (rt_nccl_job_enter(job))
        job->rc = job->api.CommInitRank(&job->comm, job->ranks, job->id, job->rank);
}

/* It came too late. */
static void unmake(struct rt_nccl_job *job)
{
    if (job->entered == 0 && job->rc == RT_NCCL_SUCCESS)
        (void)job->api.CommAbort(job->comm);
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
    return do_job(&what, "ncclCommInitRank", n, c, err);
}

static void connect_one(struct rt_nccl_job *job)
{
    if (rt_nccl_job_enter(job))
        job->rc =
            rt_nccl_put(&job->api, job->comm, (uint32_t)job->rank, &job->exchange, job->stream);
}

/* Of what an exchange reads, or of what it writes: the larger. */
static uint64_t numbers_bytes(const struct rt_collective *x)
{
    struct rt_span spans[RT_MAX_SPANS];
    uint64_t bytes = 0;
    for (uint32_t i = rt_collective_spans(x, spans); i-- > 0;)
        bytes = spans[i].bytes > bytes ? spans[i].bytes : bytes;
    return bytes;
}

static enum rt_status connect_by(struct rt_comm *c, struct rt_driver *d,
                                 const struct rt_collective *x, rt_dstream s, struct rt_error *err)
{
    struct rt_nccl *const n = c->impl;
    const struct rt_nccl_job what = {.api = n->api,
                                     .run = connect_one,
                                     .d = d,
                                     .comm = n->comm,
                                     .rank = (int)c->rank,
                                     .exchange = *x,
                                     .stream = s};
    RT_TRY(do_job(&what, rt_nccl_call_name(x->kind), n, c, err));
    return rt_comm_await(c, d, s, true, err);
}

/* A job that is left behind keeps its stream and its numbers: the library may come to them when
 * whoever asked for the exchange has freed all that is its own. */
enum rt_status rt_nccl_connect(struct rt_comm *c, struct rt_driver *d,
                               const struct rt_collective *x, struct rt_error *err)
{
    struct rt_collective own = *x;
    const uint64_t bytes = numbers_bytes(x);
    rt_dstream s;
    enum rt_status status;
    RT_TRY(RT_DRV(d, err, stream_create, (d, &s)));
    status = RT_DRV(d, err, mem_alloc, (d, 2 * bytes, &own.from));
    if (status == RT_OK) {
        own.to = own.from + bytes;
        status = connect_by(c, d, &own, s, err);
        if (c->lingers)
            return status;
        (void)d->mem_free(d, own.from);
    }
    (void)d->stream_destroy(d, s);
    return status;
}
