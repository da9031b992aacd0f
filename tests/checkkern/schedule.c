/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct schedule_case {
    uint32_t rows, parts, overhead, min;
    uint32_t invariant; /* as the schedule's; then overhead is 0, min 1 */
};

struct schedule_buffers {
    struct ck_buffer lengths, tiles, num_splits;
};

static struct rt_schedule_params params_of(const struct schedule_case *c,
                                           const struct schedule_buffers *b, enum ck_side side)
{
    return (struct rt_schedule_params){.rows.length = ck_at(&b->lengths, side),
                                       .schedule.parts = ck_at(&b->tiles, side),
                                       .schedule.num_splits = ck_at(&b->num_splits, side),
                                       .rows.count = c->rows,
                                       .schedule.part_count = c->parts,
                                       .schedule.invariant = c->invariant,
                                       .overhead_blocks = c->overhead,
                                       .min_blocks = c->min};
}

static struct schedule_buffers make_buffers(struct ck *ck, const struct schedule_case *c,
                                            const int32_t *lengths)
{
    struct schedule_buffers b = {
        .lengths = ck_alloc(ck, "lengths", c->rows * sizeof(int32_t), 0x11),
        .tiles = ck_alloc(ck, "tiles", c->parts * sizeof(struct rt_part), 0x77),
        .num_splits = ck_alloc(ck, "num_splits", (c->rows + 1) * sizeof(int32_t), 0x77)};
    memcpy(b.lengths.ref, lengths, c->rows * sizeof(int32_t));
    ck_upload(ck, &b.lengths);
    return b;
}

static void free_buffers(struct ck *ck, struct schedule_buffers *b)
{
    ck_free(ck, &b->lengths);
    ck_free(ck, &b->tiles);
    ck_free(ck, &b->num_splits);
}

static void check(struct ck *ck, const struct schedule_case *c, const int32_t *lengths,
                  const char *kind)
{
    ck_case(ck, "%u rows (%s: %d, %d, …), %u parts, overhead %u, min %u%s", c->rows, kind,
            lengths[0], c->rows > 1 ? lengths[1] : 0, c->parts, c->overhead, c->min,
            c->invariant ? ", batch-invariant" : "");
    struct schedule_buffers b = make_buffers(ck, c, lengths);
    struct rt_schedule_params ref = params_of(c, &b, CK_REF);
    struct rt_schedule_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_schedule(&ref);
    enum rt_status status = ck_build(ck, RT_OP_SCHEDULE, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);
    ck_expect_same(ck, &b.tiles);
    ck_expect_same(ck, &b.num_splits);
    ck_expect_same(ck, &b.lengths);
    free_buffers(ck, &b);
}

/* Cases that others have met: small fan-out, empty rows between, one giant, exact multiples. */
static void check_known(struct ck *ck)
{
    static const struct {
        uint32_t rows, parts;
        int32_t lengths[4];
    } known[] = {
        {1, 132, {4096}},
        {4, 132, {4096, 4096, 4096, 4096}},
        {1, 132, {131072}},
        {4, 8, {8192, 64, 64, 64}},
        {4, 8, {0, 1, 64, 65}},
        {1, 4, {0}},
        {4, 4, {0, -3, 0, INT32_MIN}},
        {4, 1000, {1048576, 0, 1, INT32_MAX}},
        {4, 1, {64, 128, 192, 256}},
        {2, 3, {128, 0}},
        {3, 3, {0, 0, 63}},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        for (uint32_t min = 1; min <= 3; min++) {
            struct schedule_case c = {.rows = known[i].rows,
                                      .parts = known[i].parts,
                                      .overhead = 5 * (min - 1) / 2,
                                      .min = min};
            check(ck, &c, known[i].lengths, "known");
            c = (struct schedule_case){.rows = c.rows,
                                       .parts = c.parts + min - 1,
                                       .min = 1,
                                       .invariant = min % 2 ? RT_INVARIANT_PIECES(2, min % 5)
                                                            : RT_INVARIANT_FOLDED(2, min % 5)};
            check(ck, &c, known[i].lengths, "known");
        }
}

static const char *fill_lengths(struct ck_random *random, int32_t *lengths, uint32_t rows)
{
    uint32_t live = 1 + ck_random_below(random, rows);
    uint32_t kind = ck_random_below(random, 6);
    const uint32_t alike = 64 << ck_random_below(random, 12);
    memset(lengths, 0, rows * sizeof(*lengths));
    for (uint32_t r = 0; r < rows; r++) {
        uint32_t x = ck_random_below(random, 1048577);
        if (kind == 0)
            lengths[r] = (int32_t)x;
        else if (kind == 1)
            lengths[r] = (int32_t)(x % 400) - 40;
        else if (kind == 2)
            lengths[r] = (int32_t)(x % 128 * RT_BLOCK_TOKENS + x % 3) - 1;
        else if (kind == 3)
            lengths[r] = x % 40 ? 1 : 1000000;
        else if (kind == 5) /* whole rows, where they idle little */
            lengths[r] = x % 30 ? (int32_t)(alike - x % 7) : 0;
        else if (r < live) /* a padded graph */
            lengths[r] = (int32_t)(x % 8192);
    }
    static const char *const names[] = {"any", "short", "edges", "giants", "padded", "alike"};
    return names[kind];
}

void ck_schedule_run(struct ck *ck)
{
    check_known(ck);
    struct ck_random random = {.state = ck->seed};
    int32_t *lengths = ck_new(ck, RT_MAX_BATCH * sizeof(*lengths));
    const uint32_t rounds = ck->full ? 2000 : ck_is_brief(ck) ? 50 : 150;
    for (uint32_t i = 0; i < rounds; i++) {
        static const uint32_t most_rows[] = {4, 33, 64, 512, 1025, RT_MAX_BATCH};
        struct schedule_case c = {.rows =
                                      1 + ck_random_below(&random, most_rows[i % (i % 25 ? 3 : 6)]),
                                  .parts = 1 + ck_random_below(&random, i % 3 ? 300 : 1000),
                                  .overhead = ck_random_below(&random, 7),
                                  .min = 1 + ck_random_below(&random, 6)};
        if (i % 30 == 0)
            c.rows = RT_MAX_BATCH;
        const char *kind = fill_lengths(&random, lengths, c.rows);
        check(ck, &c, lengths, kind);
        c = (struct schedule_case){.rows = c.rows,
                                   .parts = c.parts,
                                   .min = 1,
                                   .invariant = i % 2 ? RT_INVARIANT_PIECES(2 + i % 3, i % 5)
                                                      : RT_INVARIANT_FOLDED(2 + i % 3, i % 5)};
        check(ck, &c, lengths, kind);
    }
    free(lengths);
}

#define BENCH_LAUNCHES 50

void ck_schedule_bench(struct ck *ck)
{
    static const uint32_t batches[] = {1, 8, 64, 128, 512, 4096};
    int32_t *lengths = ck_new(ck, RT_MAX_BATCH * sizeof(*lengths));
    struct ck_random random = {.state = ck->seed};
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        struct schedule_case c = {.rows = batches[i], .parts = 264, .overhead = 2, .min = 2};
        for (uint32_t r = 0; r < c.rows; r++)
            lengths[r] = (int32_t)(1 + ck_random_below(&random, 131072));
        struct schedule_buffers b = make_buffers(ck, &c, lengths);
        struct rt_schedule_params p = params_of(&c, &b, CK_DEVICE);
        struct rt_launch launches[BENCH_LAUNCHES];
        struct rt_error err = {0};
        for (int l = 0; l < BENCH_LAUNCHES; l++)
            ck_must(ck, ck_build(ck, RT_OP_SCHEDULE, &p, sizeof(p), &launches[l], &err), &err);
        printf("schedule   batch %4u, lengths to 131072, %u parts: %8.2f us\n", c.rows, c.parts,
               ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
        free_buffers(ck, &b);
    }
    free(lengths);
}
