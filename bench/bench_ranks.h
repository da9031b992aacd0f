/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_BENCH_RANKS_H
#define RT_BENCH_BENCH_RANKS_H

/* Ranks of a benchmark: all measure the same steps, and the first one tells. */
#include "replayrt/ranks.h"
#include "tools/rank_crew.h"

/* Zeroed: the command is all there is. */
struct bench_ranks {
    struct rank_crew crew;
    rt_ranks *group; /* null: none */
};

/* Of a crew that has begun: meets the others, each on a device of its own but on the host device,
 * and leaves this rank's part of the configuration. Without one does nothing. */
enum rt_status bench_ranks_join(struct bench_ranks *r, struct rt_config *config,
                                struct rt_error *error);
/* Behind the runtime's end: what the command ends with. Does not return where a failed group has
 * left a thread in a library. */
int bench_ranks_end(struct bench_ranks *r, int code);

/*
 * How far apart ranks are that have done `count` things each at `ns` of the machine's clock: of
 * each the latest less the earliest, into `ns`. All ranks come here with as many. Blocks.
 */
enum rt_status bench_ranks_spread(rt_runtime *rt, uint64_t *ns, uint32_t count);

#endif
