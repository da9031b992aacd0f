/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/way_agree.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WHY_BYTES 160

/* What a rank tells the others. */
struct way {
    int32_t status;
    char text[RT_MATMUL_PLAN_TEXT]; /* RT_OK: the library's own name for it */
    char why[WHY_BYTES];
};

static struct way way_of(const struct rt_matmul_plan *plan, enum rt_status status,
                         const struct rt_error *err)
{
    struct way w = {.status = (int32_t)status};
    if (status == RT_OK)
        memcpy(w.text, plan->text, sizeof(w.text));
    else
        (void)snprintf(w.why, sizeof(w.why), "%.150s", err->message);
    return w;
}

/* Of another rank's failure this one knows the story alone. */
static enum rt_status all_have(const struct rt_comm *comm, const struct way *ways,
                               enum rt_status mine, struct rt_error *err)
{
    if (mine != RT_OK && mine != RT_ERR_UNSUPPORTED)
        return mine;
    for (uint32_t r = 0; r < comm->ranks; r++) {
        const enum rt_status status = (enum rt_status)ways[r].status;
        if (status != RT_OK)
            return rt_fail(err, status == RT_ERR_UNSUPPORTED ? status : RT_ERR_RANKS,
                           "rank %" PRIu32 ": %s", r, ways[r].why);
    }
    return RT_OK;
}

/* The library may list the same ways in another order: so a way is known by its name. */
static enum rt_status take(struct rt_driver *d, struct rt_matmul_plan *plan,
                           const struct way *wanted, struct rt_error *err)
{
    for (uint32_t i = 0; i < plan->candidates; i++) {
        RT_TRY(RT_DRV(d, err, matmul_select, (d, plan, i)));
        if (memcmp(plan->text, wanted->text, sizeof(wanted->text)) == 0)
            return RT_OK;
    }
    return rt_fail(err, RT_ERR_UNSUPPORTED,
                   "none of its %" PRIu32 " ways is that of rank 0, \"%.80s\"", plan->candidates,
                   wanted->text);
}

enum rt_status rt_way_agree(struct rt_comm *comm, struct rt_driver *d, struct rt_matmul_plan *plan,
                            enum rt_status mine, struct rt_error *err)
{
    struct way ways[RT_BOARD_MAX_RANKS];
    struct way w = way_of(plan, mine, err);
    RT_TRY(rt_comm_gather(comm, &w, ways, sizeof(w), err));
    RT_TRY(all_have(comm, ways, mine, err));
    const enum rt_status taken = take(d, plan, &ways[0], err);
    w = way_of(plan, taken, err);
    RT_TRY(rt_comm_gather(comm, &w, ways, sizeof(w), err));
    return all_have(comm, ways, taken, err);
}
