/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/comm/comm_nccl.h"

#include <inttypes.h>
#include <stdlib.h>

#define NS_PER_S 1e9

enum state { RUNNING, DONE, LEFT };

static void *work(void *user)
{
    struct rt_nccl_job *const job = user;
    int running = RUNNING;
    job->run(job);
    if (atomic_compare_exchange_strong(&job->state, &running, DONE))
        return NULL;
    if (job->undo)
        job->undo(job);
    free(job);
    return NULL;
}

struct rt_nccl_job *rt_nccl_job_start(const struct rt_nccl_job *what)
{
    struct rt_nccl_job *const job = malloc(sizeof(*job));
    if (!job)
        return NULL;
    *job = *what;
    if (pthread_create(&job->thread, NULL, work, job) == 0)
        return job;
    free(job);
    return NULL;
}

bool rt_nccl_job_is_done(const struct rt_nccl_job *job)
{
    return atomic_load(&job->state) != RUNNING;
}

bool rt_nccl_job_end(struct rt_nccl_job *job, bool keep)
{
    int running = RUNNING;
    const pthread_t thread = job->thread; /* which may free the job as soon as it is left */
    if (atomic_compare_exchange_strong(&job->state, &running, LEFT)) {
        (void)pthread_detach(thread);
        return false;
    }
    (void)pthread_join(thread, NULL);
    if (!keep && job->undo)
        job->undo(job);
    free(job);
    return true;
}

static enum rt_status look(const struct rt_comm *c, const char *call, const struct rt_board_wait *w,
                           struct rt_error *err)
{
    RT_TRY(rt_board_others_are_there(&c->board, err));
    RT_REQUIRE(!rt_board_is_late(&c->board, w), err, RT_ERR_RANKS,
               "%s of rank %" PRIu32 " (this one) of %" PRIu32
               " has not returned within %.3f s; NCCL_DEBUG=INFO has it tell what it waits for",
               call, c->rank, c->ranks, (double)c->board.limit_ns / NS_PER_S);
    return RT_OK;
}

enum rt_status rt_nccl_job_watch(const struct rt_nccl_job *job, const struct rt_comm *c,
                                 const char *call, struct rt_error *err)
{
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    while (!atomic_load(&job->has_entered))
        (void)rt_board_pause(&w);
    while (!rt_nccl_job_is_done(job))
        if (rt_board_pause(&w))
            RT_TRY(look(c, call, &w, err));
    if (job->entered != 0)
        return rt_driver_fail(job->d, err, RT_DOP_ctx_enter, job->entered, __FILE__, __LINE__);
    return RT_OK;
}

bool rt_nccl_job_enter(struct rt_nccl_job *job)
{
    job->entered = job->d->ctx_enter(job->d);
    atomic_store(&job->has_entered, true);
    return job->entered == 0;
}
