/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/sums.h"

#include "runtime/one_shot.h"

#include <inttypes.h>
#include <stdio.h>

#define WARM_UP 3u
#define REPLAYS 9u

const struct rt_sum_choice *rt_sums_find(const struct rt_sums *s, const struct rt_collective *x)
{
    for (uint32_t i = 0; s && i < s->choice_count; i++)
        if (s->choices[i].kind == x->kind && s->choices[i].count == x->count &&
            s->choices[i].dtype == x->dtype)
            return &s->choices[i];
    return NULL;
}

static enum rt_status time_one(const struct rt_kernels *k, const struct rt_collective *x,
                               rt_dstream stream, const struct rt_work *work, float *us,
                               struct rt_error *err)
{
    float all[REPLAYS] = {0};
    const struct rt_sum_clock clock = {.d = k->driver,
                                       .comm = x->comm,
                                       .stream = stream,
                                       .warm_up = WARM_UP,
                                       .replays = REPLAYS,
                                       .us = all};
    RT_TRY(rt_sum_time(&clock, work, err));
    *us = all[REPLAYS / 2];
    return RT_OK;
}

/* What rank 0 has seen counts, on rank 0 too. */
static enum rt_status measure(const struct rt_kernels *k, const struct rt_collective *x,
                              rt_dstream stream, struct rt_sum_choice *out, struct rt_error *err)
{
    const struct rt_work library = {.kind = RT_WORK_COLLECTIVE, .collective = *x};
    const uint64_t bytes = x->count * rt_dtype_bytes(x->dtype);
    struct rt_work one_shot;
    float us[2], all[RT_PEERS_MOST][2];
    RT_TRY(rt_one_shot_work(k, x, &one_shot, err));
    RT_TRY(RT_DRV(k->driver, err, fill, (k->driver, x->to, 0, bytes, stream)));
    RT_TRY(time_one(k, x, stream, &library, &us[0], err));
    RT_TRY(time_one(k, x, stream, &one_shot, &us[1], err));
    RT_TRY(rt_comm_gather(x->comm, us, all, sizeof(us), err));
    out->one_shot = all[0][1] < all[0][0];
    (void)snprintf(out->reason, sizeof(out->reason),
                   "%s: %" PRIu64 " bytes take %.2f us in one shot and %.2f us by NCCL, on rank 0",
                   out->one_shot ? "one shot" : "NCCL", bytes, (double)all[0][1],
                   (double)all[0][0]);
    return RT_OK;
}

enum rt_status rt_sums_choose(struct rt_sums *s, const struct rt_kernels *k,
                              const struct rt_collective *x, rt_dstream stream,
                              struct rt_error *err)
{
    struct rt_sum_choice choice = {.kind = x->kind, .count = x->count, .dtype = x->dtype};
    char why[RT_PEERS_WHY_BYTES];
    if (rt_sums_find(s, x) || s->choice_count == RT_SUM_MOST_CHOICES)
        return RT_OK;
    if (rt_one_shot_serves(x->comm, x, why, sizeof(why)))
        RT_TRY(measure(k, x, stream, &choice, err));
    else
        (void)snprintf(choice.reason, sizeof(choice.reason), "no one-shot %s: %s",
                       x->kind == RT_ALL_GATHER ? "gather" : "sum", why);
    s->choices[s->choice_count++] = choice;
    return RT_OK;
}
