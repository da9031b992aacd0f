/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/way_agree.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WHY_BYTES 192

/* What a rank tells the others. */
struct offer {
    int32_t status;
    struct rt_timed_ways timed; /* RT_OK: at least one */
    char why[WHY_BYTES];
};

static struct offer offer_of(const struct rt_timed_ways *timed, enum rt_status status,
                             const struct rt_error *err)
{
    struct offer o;
    memset(&o, 0, sizeof(o)); /* padding too: the others get all of it */
    o.status = (int32_t)status;
    if (status == RT_OK)
        o.timed = *timed;
    else
        (void)snprintf(o.why, sizeof(o.why), "%.180s", err->message);
    return o;
}

/* Of another rank's failure this one knows the story alone. */
static enum rt_status all_have(const struct rt_comm *comm, const struct offer *offers,
                               enum rt_status mine, struct rt_error *err)
{
    if (mine != RT_OK && mine != RT_ERR_UNSUPPORTED)
        return mine;
    for (uint32_t r = 0; r < comm->ranks; r++) {
        const enum rt_status status = (enum rt_status)offers[r].status;
        if (status != RT_OK)
            return rt_fail(err, status == RT_ERR_UNSUPPORTED ? status : RT_ERR_RANKS,
                           "rank %" PRIu32 ": %s", r, offers[r].why);
    }
    return RT_OK;
}

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
static float slowest(const struct rt_comm *comm, const struct offer *offers,
                     const struct rt_timed_way *way, uint32_t *holders)
{
    float us = 0;
    for (*holders = 0; *holders < comm->ranks; ++*holders) {
        const struct rt_timed_way *const theirs = find(&offers[*holders].timed, way);
        if (!theirs)
            break;
        us = theirs->us > us ? theirs->us : us;
    }
    return us;
}

/* From the same numbers on all ranks, so that they come to the same; *lacking: without a way, the
 * first rank that has none of what those before it share. */
static const struct rt_timed_way *choose(const struct rt_comm *comm, const struct offer *offers,
                                         uint32_t *lacking)
{
    const struct rt_timed_way *best = NULL;
    float best_us = 0;
    *lacking = 0;
    for (uint32_t i = 0; i < offers[0].timed.count; i++) {
        const struct rt_timed_way *const way = &offers[0].timed.ways[i];
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
    struct offer offers[RT_BOARD_MAX_RANKS];
    const struct offer o = offer_of(timed, mine, err);
    uint32_t lacking;
    RT_TRY(rt_comm_gather(comm, &o, offers, sizeof(o), err));
    RT_TRY(all_have(comm, offers, mine, err));
    const struct rt_timed_way *const way = choose(comm, offers, &lacking);
    RT_REQUIRE(way, err, RT_ERR_UNSUPPORTED,
               "rank %" PRIu32 " has none of the ways that ranks before it share, of %" PRIu32
               " on rank 0 and %" PRIu32 " on it",
               lacking, offers[0].timed.count, offers[lacking].timed.count);
    return rt_fastest_pick(d, plan, find(timed, way), err);
}
