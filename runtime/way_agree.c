/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/way_agree.h"

#include "runtime/rank_agree.h"

#include <inttypes.h>
#include <string.h>

/* The fastest of those alike: a library may tell two of its ways by the same words. */
static const struct rt_timed_way *find(const struct rt_timed_ways *timed,
                                       const struct rt_timed_way *way)
{
    const struct rt_timed_way *found = NULL;
    for (uint32_t i = 0; i < timed->count; i++)
        if (memcmp(timed->ways[i].identity, way->identity, sizeof(way->identity)) == 0 &&
            (!found || timed->ways[i].us < found->us))
            found = &timed->ways[i];
    return found;
}

/* What rank 0's way takes on the slowest of the ranks that have it, of which *holders are the first
 * ones. */
static float slowest(const struct rt_comm *comm, const struct rt_timed_ways *offers,
                     const struct rt_timed_way *way, uint32_t *holders)
{
    float us = 0;
    for (*holders = 0; *holders < comm->ranks; ++*holders) {
        const struct rt_timed_way *const theirs = find(&offers[*holders], way);
        if (!theirs)
            break;
        us = theirs->us > us ? theirs->us : us;
    }
    return us;
}

/* From the same numbers on all ranks, so that they come to the same; *lacking: without a way, the
 * first rank that has none of what those before it share. */
static const struct rt_timed_way *choose(const struct rt_comm *comm,
                                         const struct rt_timed_ways *offers, uint32_t *lacking)
{
    const struct rt_timed_way *best = NULL;
    float best_us = 0;
    *lacking = 0;
    for (uint32_t i = 0; i < offers[0].count; i++) {
        const struct rt_timed_way *const way = &offers[0].ways[i];
        uint32_t holders;
        const float us = slowest(comm, offers, way, &holders);
        *lacking = holders > *lacking ? holders : *lacking;
        if (holders < comm->ranks || (best && us >= best_us))
            continue;
        best = way;
        best_us = us;
    }
    return best;
}

enum rt_status rt_way_agree(struct rt_comm *comm, struct rt_driver *d, struct rt_matmul_plan *plan,
                            const struct rt_timed_ways *timed, enum rt_status mine,
                            struct rt_error *err)
{
    struct rt_timed_ways offers[RT_BOARD_MAX_RANKS];
    uint32_t lacking;
    RT_TRY(rt_rank_agree(comm, mine, err));
    RT_TRY(rt_comm_gather(comm, timed, offers, sizeof(*timed), err));
    const struct rt_timed_way *const way = choose(comm, offers, &lacking);
    RT_REQUIRE(way, err, RT_ERR_UNSUPPORTED,
               "rank %" PRIu32 " has none of the ways that ranks before it share, of %" PRIu32
               " on rank 0 and %" PRIu32 " on it",
               lacking, offers[0].count, offers[lacking].count);
    return rt_fastest_pick(d, plan, find(timed, way), err);
}
