/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/rank_agree.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WHY_BYTES 192

/* What a rank tells the others. */
struct answer {
    int32_t status;
    char why[WHY_BYTES];
};

enum rt_status rt_rank_agree(struct rt_comm *comm, enum rt_status mine, struct rt_error *err)
{
    struct answer answers[RT_BOARD_MAX_RANKS], answer = {.status = (int32_t)mine};
    if (mine != RT_OK)
        (void)snprintf(answer.why, sizeof(answer.why), "%.180s", err->message);
    RT_TRY(rt_comm_gather(comm, &answer, answers, sizeof(answer), err));
    if (mine != RT_OK && mine != RT_ERR_UNSUPPORTED)
        return mine;
    /* Of another rank's failure this one knows the story alone. */
    for (uint32_t r = 0; r < comm->ranks; r++) {
        const enum rt_status status = (enum rt_status)answers[r].status;
        if (status != RT_OK)
            return rt_fail(err, status == RT_ERR_UNSUPPORTED ? status : RT_ERR_RANKS,
                           "rank %" PRIu32 ": %s", r, answers[r].why);
    }
    return RT_OK;
}
