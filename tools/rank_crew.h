/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_RANK_CREW_H
#define RT_TOOLS_RANK_CREW_H

/*
 * The ranks of a command: processes that it starts itself, or those that a launcher has started, of
 * which it is one (rt_ranks_launched).
 */
#include "replayrt/rt.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RANK_CREW_MOST 64

struct rank_crew {
    uint32_t rank, ranks; /* this process; ranks 0: there are none */
    uint32_t device;      /* ordinal of this rank's GPU */
    pid_t first;          /* of our own: rank 0's process; 0: a launcher has started them */
    char path[96];        /* where they meet */
    pid_t started[RANK_CREW_MOST];
    uint32_t started_count; /* by rank 0, which waits for them */
};

/* Whether a whole model's heads and contexts can be cut over so many; false after a message. */
bool rank_crew_suits(const struct rt_config *config, uint32_t ranks);
/* From the environment, or else by starting ranks - 1 more processes, which return from here too.
 * device: what was asked for, auto or host, for one GPU's number cannot be that of all ranks.
 * config: the whole model's, that the processes which are started will cut, or null. What the
 * command ends with, EXIT_OK where it goes on, else after a message on stderr. Nothing may have
 * been opened or started before. */
int rank_crew_begin(uint32_t ranks, const char *device, const struct rt_config *config,
                    struct rank_crew *crew);
/* This rank's device, in the place of what was asked for: the host as it is, or else a GPU of its
 * own. */
void rank_crew_device(const struct rank_crew *crew, char *device, size_t bytes);
/* Rank 0 waits for those that it started, after having ended them where it has failed itself; who
 * does not end, is stopped or stuck, is killed. False after a message on stderr: one of them has
 * failed alone. */
bool rank_crew_end(struct rank_crew *crew, bool failed);
/* Ends the process with this code, and without exit handlers: for where a thread is left in a
 * library (rt_ranks_destroy), which those would take apart. What was printed is written. */
_Noreturn void rank_crew_leave(int code);

#endif
