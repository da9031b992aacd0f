/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/sums.h"

#include "kernels/op.h"
#include "runtime/one_shot.h"

#include <inttypes.h>
#include <stdio.h>

#define WARM_UP 3u
#define REPLAYS 9u

static const struct rt_sum_choice *find(const struct rt_sums *s, const struct rt_collective *x,
                                        bool with_norm)
{
    for (uint32_t i = 0; s && i < s->choice_count; i++)
        if (s->choices[i].kind == x->kind && s->choices[i].count == x->count &&
            s->choices[i].dtype == x->dtype && s->choices[i].with_norm == with_norm)
            return &s->choices[i];
    return NULL;
}

const struct rt_sum_choice *rt_sums_find(const struct rt_sums *s, const struct rt_collective *x)
{
    return find(s, x, false);
}

const struct rt_sum_choice *rt_sums_find_norm(const struct rt_sums *s,
                                              const struct rt_collective *x)
{
    return find(s, x, true);
}

const char *rt_sum_choice_name(const struct rt_sum_choice *choice)
{
    if (choice->with_norm)
        return "sums and norms";
    return choice->kind == RT_ALL_TO_ALL   ? "exchanges"
           : choice->kind == RT_ALL_GATHER ? "gathers"
                                           : "sums";
}

/* The two ways of an exchange: `count` pieces of work, and one shot in their place. */
struct ways {
    const struct rt_kernels *k;
    const struct rt_collective *x;
    struct rt_work pieces[2], one_shot;
    uint32_t count;
    const char *names[2], *how[2]; /* of either, first the pieces */
};

static enum rt_status time_one(const struct ways *w, const struct rt_work *works, uint32_t count,
                               rt_dstream stream, float *us, struct rt_error *err)
{
    float all[REPLAYS] = {0};
    const struct rt_sum_clock clock = {.d = w->k->driver,
                                       .comm = w->x->comm,
                                       .stream = stream,
                                       .warm_up = WARM_UP,
                                       .replays = REPLAYS,
                                       .us = all};
    RT_TRY(rt_sum_time(&clock, works, count, err));
    *us = all[REPLAYS / 2];
    return RT_OK;
}

/* What a rank has to say of a choice. */
struct seen {
    float us[2];
    int32_t liked; /* one_shot, of the runtime that this one is to be like; NOBODYS: none chose */
};
#define NOBODYS (-1)

/* What rank 0 says counts, on rank 0 too. All measure where they need not: whether they are to be
 * like another runtime they have not told each other. */
static enum rt_status measure(const struct rt_sums *like, const struct ways *w, rt_dstream stream,
                              struct rt_sum_choice *out, struct rt_error *err)
{
    const uint64_t bytes = w->x->count * rt_dtype_bytes(w->x->dtype);
    const struct rt_sum_choice *const liked = find(like, w->x, out->with_norm);
    struct seen mine = {.liked = liked ? (int32_t)liked->one_shot : NOBODYS}, all[RT_PEERS_MOST];
    RT_TRY(RT_DRV(w->k->driver, err, fill, (w->k->driver, w->x->to, 0, bytes, stream)));
    RT_TRY(time_one(w, w->pieces, w->count, stream, &mine.us[0], err));
    RT_TRY(time_one(w, &w->one_shot, 1, stream, &mine.us[1], err));
    RT_TRY(rt_comm_gather(w->x->comm, &mine, all, sizeof(mine), err));
    const struct seen *const first = &all[0];
    const bool is_faster = first->us[1] < first->us[0];
    out->one_shot = first->liked == NOBODYS ? is_faster : (uint32_t)first->liked;
    (void)snprintf(out->reason, sizeof(out->reason),
                   "%s%s: %" PRIu64 " bytes take %.2f us %s and %.2f us %s, on rank 0",
                   w->names[out->one_shot],
                   first->liked == NOBODYS ? "" : ", as in the runtime that this one is like",
                   bytes, (double)first->us[1], w->how[1], (double)first->us[0], w->how[0]);
    return RT_OK;
}

static bool is_chosen(const struct rt_sums *s, const struct rt_collective *x)
{
    return rt_sums_find(s, x) || s->choice_count == RT_SUM_MOST_CHOICES;
}

enum rt_status rt_sums_choose(struct rt_sums *s, const struct rt_kernels *k,
                              const struct rt_collective *x, rt_dstream stream,
                              struct rt_error *err)
{
    struct rt_sum_choice choice = {.kind = x->kind, .count = x->count, .dtype = x->dtype};
    struct ways w = {.k = k,
                     .x = x,
                     .pieces = {{.kind = RT_WORK_COLLECTIVE, .collective = *x}},
                     .count = 1,
                     .names = {"NCCL", "one shot"},
                     .how = {"by NCCL", "in one shot"}};
    char why[RT_PEERS_WHY_BYTES];
    if (is_chosen(s, x))
        return RT_OK;
    if (rt_one_shot_serves(x->comm, x, why, sizeof(why))) {
        RT_TRY(rt_one_shot_work(k, x, &w.one_shot, err));
        RT_TRY(measure(s->like, &w, stream, &choice, err));
    } else {
        (void)snprintf(choice.reason, sizeof(choice.reason), "no one-shot %s: %s",
                       x->kind == RT_ALL_GATHER ? "gather" : "sum", why);
    }
    s->choices[s->choice_count++] = choice;
    return RT_OK;
}

static enum rt_status op_work(const struct rt_kernels *k, enum rt_op_id op, const void *params,
                              size_t param_bytes, struct rt_work *out, struct rt_error *err)
{
    const struct rt_op_request request = {.caps = &k->driver->caps};
    struct rt_variant variant;
    RT_TRY(rt_op_resolve(op, &request, &variant, err));
    return rt_op_build(k, &variant, params, param_bytes, out, err);
}

enum rt_status rt_sums_choose_context(struct rt_sums *s, const struct rt_kernels *k,
                                      const struct rt_context_exchange *x, rt_dstream stream,
                                      struct rt_error *err)
{
    const struct rt_collective *const swap = &x->swap;
    struct rt_sum_choice choice = {.kind = swap->kind, .count = swap->count, .dtype = swap->dtype};
    struct ways w = {.k = k,
                     .x = swap,
                     .pieces = {{.kind = RT_WORK_COLLECTIVE, .collective = *swap}},
                     .count = 2,
                     .names = {"NCCL", "one shot"},
                     .how = {"by NCCL and a merge", "in one shot"}};
    char why[RT_PEERS_WHY_BYTES];
    if (is_chosen(s, swap))
        return RT_OK;
    if (rt_context_one_shot_serves(x, why, sizeof(why))) {
        RT_TRY(op_work(k, RT_OP_MERGE, &x->merge, sizeof(x->merge), &w.pieces[1], err));
        RT_TRY(rt_context_one_shot_work(k, x, &w.one_shot, err));
        RT_TRY(measure(s->like, &w, stream, &choice, err));
    } else {
        (void)snprintf(choice.reason, sizeof(choice.reason), "no one-shot exchange: %s", why);
    }
    s->choices[s->choice_count++] = choice;
    return RT_OK;
}

enum rt_status rt_sums_choose_norm(struct rt_sums *s, const struct rt_kernels *k,
                                   const struct rt_collective *x,
                                   const struct rt_input_norm_params *norm, rt_dstream stream,
                                   struct rt_error *err)
{
    const struct rt_sum_choice *const sum = rt_sums_find(s, x);
    struct rt_sum_choice choice = {
        .kind = x->kind, .count = x->count, .dtype = x->dtype, .with_norm = 1};
    struct ways w = {.k = k,
                     .x = x,
                     .count = 2,
                     .names = {"two launches", "one launch"},
                     .how = {"in two launches", "in one"}};
    if (!sum || !sum->one_shot || rt_sums_find_norm(s, x) ||
        s->choice_count == RT_SUM_MOST_CHOICES || !rt_sum_norm_serves(x, norm))
        return RT_OK;
    RT_TRY(rt_one_shot_work(k, x, &w.pieces[0], err));
    RT_TRY(op_work(k, RT_OP_INPUT_NORM, norm, sizeof(*norm), &w.pieces[1], err));
    RT_TRY(rt_sum_norm_work(k, x, norm, &w.one_shot, err));
    RT_TRY(measure(s->like, &w, stream, &choice, err));
    s->choices[s->choice_count++] = choice;
    return RT_OK;
}
