/* SPDX-License-Identifier: Apache-2.0 */
/* The shared node of schedule and append: what its two halves write together is what they write
 * alone; their own edges are in schedule.c and append.c. */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"

#define COLUMNS 40u
#define PAGE_SIZE 16u

struct shared_case {
    uint32_t rows, parts, q_len, d_qk;
};

struct shared_buffers {
    struct ck_buffer lengths, ends, positions, slots, tiles, num_splits, latent, kv, table, ctrl;
};

static struct rt_schedule_append_params params_of(const struct shared_case *c,
                                                  const struct shared_buffers *b, enum ck_side side)
{
    const struct rt_rows_view rows = {.slot = ck_at(&b->slots, side),
                                      .position = ck_at(&b->positions, side),
                                      .length = ck_at(&b->lengths, side),
                                      .ctrl = ck_at(&b->ctrl, side),
                                      .count = c->rows,
                                      .q_len = c->q_len};
    struct rt_rows_view ragged = rows;
    ragged.length = ck_at(&b->ends, side);
    return (struct rt_schedule_append_params){
        .schedule = {.rows = rows,
                     .schedule = {.parts = ck_at(&b->tiles, side),
                                  .num_splits = ck_at(&b->num_splits, side),
                                  .part_count = c->parts},
                     .overhead_blocks = 2,
                     .min_blocks = 2},
        .append = {.latent = {.base = ck_at(&b->latent, side),
                              .row_stride = c->q_len * (int64_t)c->d_qk,
                              .token_stride = c->d_qk},
                   .kv = {.base = ck_at(&b->kv, side),
                          .table = ck_at(&b->table, side),
                          .page_stride_bytes = 2 * PAGE_SIZE * (int64_t)c->d_qk,
                          .token_stride_bytes = 2 * (int64_t)c->d_qk,
                          .page_size = PAGE_SIZE,
                          .max_blocks = COLUMNS,
                          .pages = c->rows * COLUMNS,
                          .token_bytes = 2 * c->d_qk},
                   .rows = ragged},
    };
}

static struct shared_buffers make_buffers(struct ck *ck, const struct shared_case *c)
{
    uint64_t rows = c->rows;
    return (struct shared_buffers){
        .lengths = ck_alloc(ck, "lengths", rows * 4, 0),
        .ends = ck_alloc(ck, "ends", rows * 4, 0),
        .positions = ck_alloc(ck, "row_position", rows * 4, 0),
        .slots = ck_alloc(ck, "row_slot", rows * 4, 0),
        .tiles = ck_alloc(ck, "tiles", c->parts * sizeof(struct rt_part), 0x77),
        .num_splits = ck_alloc(ck, "num_splits", (rows + 1) * 4, 0x77),
        .latent = ck_alloc(ck, "latent", (rows + 1) * c->q_len * c->d_qk * 2, 0),
        .kv = ck_alloc(ck, "kv", rows * COLUMNS * PAGE_SIZE * c->d_qk * 2, 0x77),
        .table = ck_alloc(ck, "table", rows * COLUMNS * 4, 0),
        .ctrl = ck_alloc(ck, "ctrl", sizeof(struct rt_ctrl), 0)};
}

/* The last fifth of the rows is padding; the data rows start at 1. */
static void fill(struct ck *ck, struct ck_random *random, const struct shared_case *c,
                 const struct shared_buffers *b)
{
    int32_t *lengths = ck_at(&b->lengths, CK_REF), *positions = ck_at(&b->positions, CK_REF);
    int32_t *ends = ck_at(&b->ends, CK_REF);
    int32_t *slots = ck_at(&b->slots, CK_REF), *table = ck_at(&b->table, CK_REF);
    uint16_t *latent = ck_at(&b->latent, CK_REF);
    *(struct rt_ctrl *)ck_at(&b->ctrl, CK_REF) = (struct rt_ctrl){.row_base = 1};
    for (uint64_t i = 0; i < b->latent.bytes / 2; i++)
        latent[i] = (uint16_t)ck_random_u64(random);
    for (uint32_t r = 0; r < c->rows; r++) {
        bool live = r < c->rows - c->rows / 5;
        positions[r] = (int32_t)ck_random_below(random, COLUMNS * PAGE_SIZE - c->q_len + 1);
        lengths[r] = live ? positions[r] + (int32_t)c->q_len : 0;
        ends[r] = lengths[r] - (int32_t)(live ? ck_random_below(random, c->q_len) : 0);
        slots[r] = live ? (int32_t)(c->rows - 1 - r) : -1;
        for (uint32_t i = 0; i < COLUMNS; i++)
            table[r * COLUMNS + i] = (int32_t)(r * COLUMNS + (i * 7 + 3) % COLUMNS);
    }
    const struct ck_buffer *all[] = {&b->lengths, &b->ends,  &b->positions, &b->slots,
                                     &b->latent,  &b->table, &b->ctrl};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_upload(ck, all[i]);
}

static void check(struct ck *ck, struct ck_random *random, const struct shared_case *c)
{
    ck_case(ck, "%u rows, %u parts, query length %u, d_qk %u", c->rows, c->parts, c->q_len,
            c->d_qk);
    struct shared_buffers b = make_buffers(ck, c);
    fill(ck, random, c, &b);
    const struct rt_schedule_append_params ref = params_of(c, &b, CK_REF);
    const struct rt_schedule_append_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_schedule_append(&ref);
    enum rt_status status =
        ck_build(ck, RT_OP_SCHEDULE_APPEND, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);
    struct ck_buffer *all[] = {&b.lengths,    &b.ends,   &b.positions, &b.slots, &b.tiles,
                               &b.num_splits, &b.latent, &b.kv,        &b.table, &b.ctrl};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        ck_expect_same(ck, all[i]);
        ck_free(ck, all[i]);
    }
}

void ck_schedule_append_run(struct ck *ck)
{
    static const uint32_t widths[] = {576, 320, 288, 512}, rows[] = {1, 2, 5, 31, 32, 33, 64, 127};
    struct ck_random random = {.state = ck->seed};
    for (uint32_t i = 0; i < (ck->full ? 200u : 32u); i++) {
        const struct shared_case c = {.rows = i % 4 ? rows[i / 4 % 8]
                                                    : 1 + ck_random_below(&random, 200),
                                      .parts = 1 + ck_random_below(&random, 300),
                                      .q_len = 1 + i % 8,
                                      .d_qk = widths[i % 4]};
        check(ck, &random, &c);
    }
}
