/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"
#include "tests/checkkern/harness.h"

#include <stdio.h>
#include <stdlib.h>

/* What all partials must come to, so that none is left in the L2 cache when its turn is. */
#define COLD_BYTES (UINT64_C(400) << 20)
#define MOST_SETS 64u
#define WARM_LAUNCHES 32u

struct shape {
    uint32_t rows, split_rows, pieces, heads;
};

struct rig {
    struct ck_buffer partial_out, partial_lse, num_splits, length, out, lse;
};

/* The split rows are the batch's first; all partials are zeros, as f16, with an lse of 0. */
static struct rig make(struct ck *ck, const struct shape *s, uint32_t d_v)
{
    uint64_t slots = (uint64_t)s->split_rows * s->pieces, queries = s->heads;
    slots += slots == 0;
    struct rig rig = {.partial_out = ck_alloc(ck, "partial_out", slots * queries * d_v * 4, 0),
                      .partial_lse = ck_alloc(ck, "partial_lse", slots * queries * 4, 0),
                      .num_splits = ck_alloc(ck, "num_splits", (s->rows + 1) * 4, 0),
                      .length = ck_alloc(ck, "row_length", s->rows * 4, 0x11),
                      .out = ck_alloc(ck, "out", s->rows * queries * d_v * 2, 0),
                      .lse = ck_alloc(ck, "lse", s->rows * queries * 4, 0)};
    int32_t *num_splits = ck_at(&rig.num_splits, CK_REF);
    for (uint32_t r = 0; r < s->rows; r++)
        num_splits[r + 1] = num_splits[r] + (int32_t)(r < s->split_rows ? s->pieces : 0);
    ck_upload(ck, &rig.num_splits);
    return rig;
}

static void drop(struct ck *ck, struct rig *rig)
{
    struct ck_buffer *all[] = {&rig->partial_out, &rig->partial_lse, &rig->num_splits,
                               &rig->length,      &rig->out,         &rig->lse};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

static struct rt_launch launch_of(struct ck *ck, const struct shape *s, uint32_t d_v,
                                  const struct rig *rig, rt_addr partials)
{
    struct rt_reduce_params p = {.partials.out = (float *)(uintptr_t)partials,
                                 .partials.lse = ck_at(&rig->partial_lse, CK_DEVICE),
                                 .schedule.num_splits = ck_at(&rig->num_splits, CK_DEVICE),
                                 .rows.length = ck_at(&rig->length, CK_DEVICE),
                                 .out.base = ck_at(&rig->out, CK_DEVICE),
                                 .lse.base = ck_at(&rig->lse, CK_DEVICE),
                                 .out.row_stride = (int64_t)s->heads * d_v,
                                 .out.token_stride = (int64_t)s->heads * d_v,
                                 .out.head_stride = d_v,
                                 .lse.row_stride = s->heads,
                                 .lse.token_stride = s->heads,
                                 .lse.head_stride = 1,
                                 .rows.count = s->rows,
                                 .rows.q_len = 1,
                                 .heads = s->heads,
                                 .d_v = d_v};
    struct rt_launch launch;
    struct rt_error err = {0};
    ck_must(ck, ck_build(ck, RT_OP_REDUCE, &p, sizeof(p), &launch, &err), &err);
    return launch;
}

/* One launch after another over `sets` partials of their own. */
static double time_sets(struct ck *ck, const struct shape *s, uint32_t d_v, const struct rig *rig,
                        uint32_t sets, uint32_t launches)
{
    rt_addr partials[MOST_SETS] = {rig->partial_out.device};
    struct rt_launch *all = ck_new(ck, launches * sizeof(*all));
    for (uint32_t i = 1; i < sets; i++) {
        CK_DRV(ck, mem_alloc, (&ck->driver, rig->partial_out.bytes, &partials[i]));
        CK_DRV(ck, fill, (&ck->driver, partials[i], 0, rig->partial_out.bytes, ck->stream));
    }
    for (uint32_t i = 0; i < launches; i++)
        all[i] = launch_of(ck, s, d_v, rig, partials[i % sets]);
    double ns = ck_time_ns(ck, all, launches);
    for (uint32_t i = 1; i < sets; i++)
        CK_DRV(ck, mem_free, (&ck->driver, partials[i]));
    free(all);
    return ns;
}

static void bench(struct ck *ck, const struct shape *s, uint32_t d_v)
{
    struct rig rig = make(ck, s, d_v);
    uint64_t bytes = (uint64_t)s->split_rows * s->pieces * s->heads * d_v * 2; /* halves */
    uint64_t sets = bytes && ck_is_cuda(ck) ? (COLD_BYTES + bytes - 1) / bytes : 1;
    uint32_t count = sets > MOST_SETS ? MOST_SETS : (uint32_t)sets;
    double warm = time_sets(ck, s, d_v, &rig, 1, ck_is_cuda(ck) ? WARM_LAUNCHES : 2);
    double cold = count > 1 ? time_sets(ck, s, d_v, &rig, count, count) : warm;
    printf(
        "reduce     d_v %u batch %4u, %3u split, heads %3u, pieces %3u: warm %8.2f us %6.0f GB/s, "
        "cold %8.2f us %6.0f GB/s (%.0f MB apart)\n",
        d_v, s->rows, s->split_rows, s->heads, s->pieces, warm / 1e3, (double)bytes / warm,
        cold / 1e3, (double)bytes / cold, (double)(bytes * (count - 1)) / 1e6);
    drop(ck, &rig);
}

/*
 * Warm: the same partials again and again, from L2 where they fit, which is how attend leaves them.
 * Cold: every launch has partials of its own, up to 64 of them, written before and read long after.
 */
void ck_reduce_bench(struct ck *ck)
{
    static const uint32_t pieces[] = {2, 4, 8, 9, 16, 32, 64, 132, 264};
    static const uint32_t heads[] = {16, 32, 64, 128};
    static const struct shape batches[] = {{512, 0, 2, 16},   {512, 0, 2, 128}, {4096, 0, 2, 16},
                                           {66, 66, 2, 128},  {66, 66, 2, 16},  {8, 8, 17, 16},
                                           {8, 8, 9, 128},    {512, 5, 3, 128}, {32, 32, 5, 16},
                                           {128, 65, 2, 128}, {4, 4, 33, 128}};
    for (size_t h = 0; h < sizeof(heads) / sizeof(heads[0]); h++)
        for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
            if (ck_is_cuda(ck) || (pieces[i] == 8 && heads[h] == 16))
                bench(ck, &(struct shape){1, 1, pieces[i], heads[h]}, 512);
    for (size_t i = 0; ck_is_cuda(ck) && i < sizeof(batches) / sizeof(batches[0]); i++)
        bench(ck, &batches[i], 512);
}
