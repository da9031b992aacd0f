/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/comm/comm_nccl.h"

#include <stdlib.h>

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

void rt_nccl_job_end(struct rt_nccl_job *job)
{
    int running = RUNNING;
    const pthread_t thread = job->thread; /* which may free the job as soon as it is left */
    if (atomic_compare_exchange_strong(&job->state, &running, LEFT)) {
        (void)pthread_detach(thread);
        return;
    }
    (void)pthread_join(thread, NULL);
    free(job);
}
