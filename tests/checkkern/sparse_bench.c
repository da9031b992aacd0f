/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/sparse_case.h"

#include "common/math.h"

#include <stdio.h>
#include <stdlib.h>

/* Keys that lie apart from launch to launch: several times what a cache holds. */
#define COLD_BYTES UINT64_C(300000000)
#define MOST_SETS 64u
#define POOL_TOKENS 262144u

struct shape {
    uint32_t batch, q_len, heads, topk;
};

/* Whole lists, over all of the pool. */
static void fill_lists(struct ck *ck, const struct ck_sparse *c, struct ck_sparse_rig *rig)
{
    struct ck_random random = {.state = ck->seed};
    int32_t *index = ck_at(&rig->keys.index, CK_REF);
    for (uint64_t i = 0; i < rig->keys.index.bytes / sizeof(*index); i++)
        index[i] = (int32_t)ck_random_below(&random, c->keys.tokens);
    ck_upload(ck, &rig->keys.index);
}

/* The rig's rows are those of all sets: a launch takes the first ones, with its set's lists. */
static void launches_of_set(struct ck *ck, const struct ck_sparse_rig *rig, const struct shape *s,
                            uint32_t set, struct rt_launch to[2])
{
    struct rt_sparse_attend_params attend = rig->attend[CK_DEVICE];
    struct rt_reduce_params reduce = rig->reduce;
    struct rt_error err = {0};
    attend.attend.rows.count = reduce.rows.count = s->batch * s->q_len;
    attend.keys.index += (uint64_t)set * s->batch * s->q_len * s->topk;
    ck_must(ck, ck_build_variant(ck, &rig->choice, &attend, sizeof(attend), &to[0], &err), &err);
    ck_must(ck, ck_build(ck, RT_OP_REDUCE, &reduce, sizeof(reduce), &to[1], &err), &err);
}

static struct rt_launch schedule_of(struct ck *ck, const struct ck_sparse_rig *rig,
                                    const struct shape *s)
{
    struct rt_sparse_schedule_params schedule = rig->schedule[CK_DEVICE];
    struct rt_launch launch;
    struct rt_error err = {0};
    schedule.schedule.rows.count = s->batch * s->q_len;
    ck_must(ck, ck_build(ck, RT_OP_SPARSE_SCHEDULE, &schedule, sizeof(schedule), &launch, &err),
            &err);
    return launch;
}

static void bench(struct ck *ck, const struct shape *s, enum rt_backend backend)
{
    const uint64_t keys = (uint64_t)s->batch * s->q_len * s->topk, bytes = keys * 576 * 2;
    const double flops = (double)keys * s->heads * 2 * (576 + 512);
    const uint64_t wanted = ck_is_cuda(ck) ? COLD_BYTES / bytes + 1 : 1;
    const uint32_t sets = (uint32_t)(wanted > MOST_SETS ? MOST_SETS : wanted);
    const struct ck_sparse c = {.d_qk = 576,
                                .d_v = 512,
                                .heads = s->heads,
                                .q_len = s->q_len,
                                .rows = s->batch * sets,
                                .keys = {.tokens = ck_is_cuda(ck) ? POOL_TOKENS : s->topk,
                                         .topk = s->topk,
                                         .page_size = 64},
                                .blank = true,
                                .backend = backend,
                                .scale = 0.1352338f,
                                .seed = ck->seed};
    struct ck_sparse_rig rig;
    if (!ck_sparse_make(ck, &c, &rig))
        return;
    fill_lists(ck, &c, &rig);
    const struct rt_launch schedule = schedule_of(ck, &rig, s);
    const double schedule_ns = ck_time_ns(ck, &schedule, 1);
    struct rt_launch *all = ck_new(ck, 2 * sets * sizeof(*all));
    for (uint32_t i = 0; i < sets; i++)
        launches_of_set(ck, &rig, s, i, &all[2 * i]);
    const double ns = 2 * ck_time_ns(ck, all, 2 * sets);
    printf("sparse     %s batch %3u of %u, heads %3u, topk %4u: schedule %6.2f us; attend and "
           "reduce %8.2f us %6.0f GB/s %6.1f TFLOPS (%u lists of %.1f MB)\n",
           rig.choice.entry, s->batch, s->q_len, s->heads, s->topk, schedule_ns / 1e3, ns / 1e3,
           (double)bytes / ns, flops / ns / 1e3, sets, (double)bytes / 1e6);
    free(all);
    ck_sparse_free(ck, &rig);
}

/* Cold: every launch has a list of its own, over a pool that no cache holds. */
void ck_sparse_bench(struct ck *ck)
{
    static const struct shape shapes[] = {
        {8, 1, 16, 2048},   {1, 1, 16, 2048},   {8, 1, 8, 2048},    {8, 1, 16, 512},
        {8, 1, 64, 2048},   {8, 1, 128, 2048},  {128, 1, 16, 2048}, {128, 1, 32, 2048},
        {128, 1, 64, 2048}, {128, 2, 128, 2048}};
    const size_t count = ck_is_cuda(ck) ? sizeof(shapes) / sizeof(shapes[0]) : 1;
    for (size_t i = 0; i < count; i++) {
        bench(ck, &shapes[i], RT_BACKEND_SM90);
        bench(ck, &shapes[i], RT_BACKEND_GENERIC);
    }
}
