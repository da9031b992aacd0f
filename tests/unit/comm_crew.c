/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/comm_crew.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct rank {
    struct crew *crew;
    crew_fn fn;
    uint32_t rank;
};

static void *work(void *user)
{
    const struct rank *const r = user;
    struct crew *const crew = r->crew;
    struct rt_comm c;
    enum rt_status status =
        rt_comm_meet(crew->path, r->rank, crew->ranks, crew->limit_ns, &c, &crew->error[r->rank]);
    if (status == RT_OK) {
        status = r->fn(crew, &c, &crew->error[r->rank]);
        rt_comm_close(&c);
    }
    crew->status[r->rank] = status;
    return NULL;
}

void crew_begin(struct crew *crew, uint32_t ranks)
{
    *crew = (struct crew){.ranks = ranks, .limit_ns = CREW_LIMIT_NS};
    (void)snprintf(crew->path, sizeof(crew->path), "crew.%ld.group", (long)getpid());
}

void crew_run(struct crew *crew, crew_fn fn)
{
    pthread_t threads[CREW_MOST];
    struct rank ranks[CREW_MOST];
    memset(crew->error, 0, sizeof(crew->error));
    for (uint32_t r = 0; r < crew->ranks; r++) {
        ranks[r] = (struct rank){.crew = crew, .fn = fn, .rank = r};
        assert_int_equal(pthread_create(&threads[r], NULL, work, &ranks[r]), 0);
    }
    for (uint32_t r = 0; r < crew->ranks; r++)
        assert_int_equal(pthread_join(threads[r], NULL), 0);
    assert_int_equal(access(crew->path, F_OK), -1); /* nothing is left behind */
}

void crew_succeed(struct crew *crew, crew_fn fn)
{
    crew_run(crew, fn);
    for (uint32_t r = 0; r < crew->ranks; r++)
        crew_expect(crew, r, RT_OK, "");
}

void crew_expect(const struct crew *crew, uint32_t rank, enum rt_status status, const char *story)
{
    if (crew->status[rank] != status || strcmp(crew->error[rank].message, story) != 0)
        fail_msg("rank %u: status %d \"%s\", expected %d \"%s\"", rank, (int)crew->status[rank],
                 crew->error[rank].message, (int)status, story);
}

void crew_assert_story(const struct rt_error *err, const char *path, const char *story)
{
    char whole[400];
    (void)snprintf(whole, sizeof(whole), "%s: %s", path, story);
    assert_string_equal(err->message, whole);
}
