/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define MOST_THREADS 64u

struct crew {
    void (*work)(void *arg, uint32_t i);
    void *arg;
    uint32_t count;
    atomic_uint next;
};

/* A thread takes one number behind the last: far from where `next` would wrap. */
static void *labour(void *arg)
{
    struct crew *crew = arg;
    for (;;) {
        uint32_t i = atomic_fetch_add(&crew->next, 1);
        if (i >= crew->count)
            return NULL;
        crew->work(crew->arg, i);
    }
}

void ck_parallel(uint32_t count, void (*work)(void *arg, uint32_t i), void *arg)
{
    struct crew crew = {.work = work, .arg = arg, .count = count};
    pthread_t threads[MOST_THREADS];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t wanted = cores > 1 ? (uint32_t)cores - 1 : 0, made = 0;
    wanted = wanted < MOST_THREADS ? wanted : MOST_THREADS;
    wanted = count < 2 ? 0 : wanted < count - 1 ? wanted : count - 1;
    /* A thread that cannot be made is one fewer to share the work. */
    while (made < wanted && pthread_create(&threads[made], NULL, labour, &crew) == 0)
        made++;
    (void)labour(&crew);
    for (uint32_t i = 0; i < made; i++)
        (void)pthread_join(threads[i], NULL);
}
