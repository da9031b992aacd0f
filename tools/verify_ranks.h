/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_VERIFY_RANKS_H
#define RT_TOOLS_VERIFY_RANKS_H

/*
 * Ranks that verify the same configuration together: every rank draws the same history, and each
 * has its part of the heads. What a rank has seen is compared on its two sides first, and then,
 * where ranks must have the same, between ranks by its digest.
 */
#include "replayrt/ranks.h"
#include "tools/verify.h"

struct run;
struct shape;

#define VERIFY_SIDES 2
/* Of one meeting of the ranks: two words each of what rt_ranks_least takes. */
#define VERIFY_DIGESTS (RT_MAX_LEAST / 2)

struct verify_ranks {
    uint32_t rank, ranks;          /* ranks 0: the command is all there is */
    rt_ranks *sides[VERIFY_SIDES]; /* of the runtimes: a group serves one at a time */
    rt_ranks *verdict;             /* of none: it outlives a failure of the others */
    uint32_t words[RT_MAX_LEAST];  /* of what was seen since ranks have met last */
    const char *names[VERIFY_DIGESTS];
    uint32_t layers[VERIFY_DIGESTS];
    uint32_t count;
};

/* Meets the others, and leaves this rank's part in the configuration. Without ranks in `options`
 * does nothing. Behind a failure too: verify_ranks_part. */
enum rt_status verify_ranks_meet(struct verify_ranks *r, const struct verify_options *options,
                                 struct rt_config *config, struct rt_error *error);
/*
 * Behind the runtimes' end, with what this rank has come to: leaves the groups, tells the others
 * and hears of them. The first rank's failure that is not another rank's becomes everybody's, with
 * its number in front. Where the ranks cannot tell each other, report->told stays false.
 */
enum rt_status verify_ranks_part(struct verify_ranks *r, enum rt_status status,
                                 struct verify_report *report, struct rt_error *error);

/* run.seen[REPLAY] holds `bytes` of this tensor: kept for the next meeting, if ranks must have the
 * same. Meets where there is no more room. */
enum rt_status verify_ranks_note(struct run *run, const char *name, uint32_t layer, uint64_t bytes,
                                 const struct shape *s);
/* All that was noted is the same on all ranks. */
enum rt_status verify_ranks_compare(struct run *run, const struct shape *s);

#endif
