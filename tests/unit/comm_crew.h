/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_COMM_CREW_H
#define RT_TESTS_UNIT_COMM_CREW_H

/* Ranks of a group as threads of the test: each has a table of its own, and leaves what became of
 * it here, for assertions are the main thread's. */
#include "driver/comm/comm.h"

#define CREW_MOST 4u
#define CREW_LIMIT_NS UINT64_C(5000000000)

struct crew {
    uint32_t ranks;
    uint64_t limit_ns;
    char path[64];
    void *user;
    enum rt_status status[CREW_MOST];
    struct rt_error error[CREW_MOST];
};

/* What one rank does once all are there; its status and story are kept. */
typedef enum rt_status (*crew_fn)(struct crew *crew, struct rt_comm *c, struct rt_error *err);

/* A file that is not there yet. */
void crew_begin(struct crew *crew, uint32_t ranks);
/* All ranks meet, do it, and leave; joined on return. */
void crew_run(struct crew *crew, crew_fn fn);
/* Likewise, and the test fails where one of them does. */
void crew_succeed(struct crew *crew, crew_fn fn);
/* Fails the test where the rank's story is another. "" and RT_OK: none. */
void crew_expect(const struct crew *crew, uint32_t rank, enum rt_status status, const char *story);
/* What a group that did not begin has said: of the file, and these words. */
void crew_assert_story(const struct rt_error *err, const char *path, const char *story);

#endif
