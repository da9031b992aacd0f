/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The runtime that these step kernels serve. */
#define SLOTS 400u
#define MAX_BLOCKS 9u
#define PAGES 5000u
#define PAGE_SIZE 64u
#define MAX_LENGTH 550u
#define MAX_ROWS 700u
#define BUCKET_MAX 300u
#define Q_MAX 8u
#define DEPTH 5u
#define ROWS_OFFSET 64u
#define TOKENS_OFFSET (ROWS_OFFSET + BUCKET_MAX * 16u)
#define OPS_OFFSET (TOKENS_OFFSET + BUCKET_MAX * Q_MAX * 4u)
#define RECORD_BYTES ((OPS_OFFSET + 2048u + 63u) / 64u * 64u)
#define OUTCOME_TOKENS (64u + BUCKET_MAX * 8u)
#define COMPLETION_BYTES ((OUTCOME_TOKENS + BUCKET_MAX * Q_MAX * 4u + 63u) / 64u * 64u)
#define DRAFTS (Q_MAX - 1u)

enum {
    RING,
    CTRL,
    SLOT_LENGTH,
    SLOT_TOKEN,
    SLOT_DRAFTS,
    TABLE,
    ROW_SLOT,
    ROW_POSITION,
    ROW_LENGTH,
    ROW_REACH,
    ROW_ACCEPT,
    TOKENS,
    ACCEPTED,
    SAMPLED,
    ROW_DRAFTS,
    COPIES,
    COMPLETIONS,
    COMPLETED,
    BUFFERS
};

struct rig {
    struct ck_buffer b[BUFFERS];
    uint32_t bucket, query_len; /* of the next launch */
    uint32_t draft_columns;     /* of a sequence of launches */
};

static void make_rig(struct ck *ck, struct rig *rig)
{
    static const struct {
        const char *name;
        uint64_t bytes;
        unsigned char fill;
        bool mapped;
    } lines[BUFFERS] = {
        [RING] = {"ring", DEPTH * RECORD_BYTES, 0, true},
        [CTRL] = {"ctrl", sizeof(struct rt_ctrl), 0, false},
        [SLOT_LENGTH] = {"slot_length", SLOTS * 4, 0, false},
        [SLOT_TOKEN] = {"slot_token", SLOTS * 4, 0, false},
        [SLOT_DRAFTS] = {"slot_drafts", SLOTS * DRAFTS * 4, 0, false},
        [TABLE] = {"block_table", SLOTS * MAX_BLOCKS * 4, 0, false},
        [ROW_SLOT] = {"row_slot", BUCKET_MAX * 4, 0x77, false},
        [ROW_POSITION] = {"row_position", BUCKET_MAX * 4, 0x77, false},
        [ROW_LENGTH] = {"row_length", BUCKET_MAX * 4, 0x77, false},
        [ROW_REACH] = {"row_reach", BUCKET_MAX * 4, 0x77, false},
        [ROW_ACCEPT] = {"row_accept", BUCKET_MAX * 4, 0x77, false},
        [TOKENS] = {"tokens", MAX_ROWS * Q_MAX * 4, 0x77, false},
        [ACCEPTED] = {"accepted", MAX_ROWS * 4, 0x77, false},
        [SAMPLED] = {"sampled", MAX_ROWS * 4, 0x77, false},
        [ROW_DRAFTS] = {"drafts", MAX_ROWS * DRAFTS * 4, 0x77, false},
        [COPIES] = {"copies", RT_MAX_PAGE_COPIES * sizeof(struct rt_page_copy), 0x77, false},
        [COMPLETIONS] = {"completions", DEPTH * COMPLETION_BYTES, 0x77, true},
        [COMPLETED] = {"completed", 8, 0, true},
    };
    for (int i = 0; i < BUFFERS; i++)
        rig->b[i] = (lines[i].mapped ? ck_alloc_mapped : ck_alloc)(ck, lines[i].name,
                                                                   lines[i].bytes, lines[i].fill);
}

static void free_rig(struct ck *ck, struct rig *rig)
{
    for (int i = 0; i < BUFFERS; i++)
        ck_free(ck, &rig->b[i]);
}

static struct rt_step_begin_params begin_params(const struct rig *rig, enum ck_side side)
{
    return (struct rt_step_begin_params){.ring = ck_at(&rig->b[RING], side),
                                         .ctrl = ck_at(&rig->b[CTRL], side),
                                         .slot_length = ck_at(&rig->b[SLOT_LENGTH], side),
                                         .slot_token = ck_at(&rig->b[SLOT_TOKEN], side),
                                         .slot_drafts = ck_at(&rig->b[SLOT_DRAFTS], side),
                                         .block_table = ck_at(&rig->b[TABLE], side),
                                         .row_slot = ck_at(&rig->b[ROW_SLOT], side),
                                         .row_position = ck_at(&rig->b[ROW_POSITION], side),
                                         .row_length = ck_at(&rig->b[ROW_LENGTH], side),
                                         .row_reach = ck_at(&rig->b[ROW_REACH], side),
                                         .row_accept = ck_at(&rig->b[ROW_ACCEPT], side),
                                         .tokens = ck_at(&rig->b[TOKENS], side),
                                         .accepted = ck_at(&rig->b[ACCEPTED], side),
                                         .sampled = ck_at(&rig->b[SAMPLED], side),
                                         .drafts = ck_at(&rig->b[ROW_DRAFTS], side),
                                         .copies = ck_at(&rig->b[COPIES], side),
                                         .ring_depth = DEPTH,
                                         .record_bytes = RECORD_BYTES,
                                         .rows_offset = ROWS_OFFSET,
                                         .tokens_offset = TOKENS_OFFSET,
                                         .ops_offset = OPS_OFFSET,
                                         .bucket = rig->bucket,
                                         .query_len = rig->query_len,
                                         .slots = SLOTS,
                                         .max_blocks = MAX_BLOCKS,
                                         .pages = PAGES,
                                         .page_size = PAGE_SIZE,
                                         .max_length = MAX_LENGTH,
                                         .max_rows = MAX_ROWS,
                                         .draft_columns = rig->draft_columns};
}

static struct rt_step_end_params end_params(const struct rig *rig, enum ck_side side)
{
    return (struct rt_step_end_params){.ctrl = ck_at(&rig->b[CTRL], side),
                                       .slot_length = ck_at(&rig->b[SLOT_LENGTH], side),
                                       .slot_token = ck_at(&rig->b[SLOT_TOKEN], side),
                                       .slot_drafts = ck_at(&rig->b[SLOT_DRAFTS], side),
                                       .row_slot = ck_at(&rig->b[ROW_SLOT], side),
                                       .row_position = ck_at(&rig->b[ROW_POSITION], side),
                                       .row_length = ck_at(&rig->b[ROW_LENGTH], side),
                                       .row_accept = ck_at(&rig->b[ROW_ACCEPT], side),
                                       .tokens = ck_at(&rig->b[TOKENS], side),
                                       .accepted = ck_at(&rig->b[ACCEPTED], side),
                                       .sampled = ck_at(&rig->b[SAMPLED], side),
                                       .drafts = ck_at(&rig->b[ROW_DRAFTS], side),
                                       .completions = ck_at(&rig->b[COMPLETIONS], side),
                                       .completed = ck_at(&rig->b[COMPLETED], side),
                                       .ring_depth = DEPTH,
                                       .completion_bytes = COMPLETION_BYTES,
                                       .bucket = rig->bucket,
                                       .query_len = rig->query_len,
                                       .draft_columns = rig->draft_columns,
                                       .tokens_offset = OUTCOME_TOKENS};
}

static struct rt_ctrl *ref_ctrl(const struct rig *rig)
{
    return ck_at(&rig->b[CTRL], CK_REF);
}

/* The record that the next step_begin will look at. */
static unsigned char *next_record(const struct rig *rig)
{
    return rig->b[RING].ref + (ref_ctrl(rig)->step + 1) % DEPTH * RECORD_BYTES;
}

/* An op that is longer than what is left, or than anybody's ids, is written without them. */
static void add_op(unsigned char *record, struct rt_record_op op, const int32_t *ids)
{
    struct rt_record *head = (void *)record;
    uint32_t count = op.kind == RT_OP_SET_PAGES && op.b > 0 ? (uint32_t)op.b : 0;
    uint32_t room = RECORD_BYTES - OPS_OFFSET - head->op_bytes;
    if (count > MAX_BLOCKS || sizeof(op) + (count * 4 + 15) / 16 * 16 > room)
        count = 0;
    if (sizeof(op) > room)
        return;
    unsigned char *to = record + OPS_OFFSET + head->op_bytes;
    memcpy(to, &op, sizeof(op));
    memcpy(to + sizeof(op), ids, count * sizeof(*ids));
    head->op_bytes += (uint32_t)sizeof(op) + (count * 4 + 15) / 16 * 16;
    head->op_count++;
}

/* Good ops; `bad` of ten are not. */
static void write_ops(struct ck_random *random, unsigned char *record, uint32_t bad)
{
    uint32_t count = ck_random_below(random, 12);
    for (uint32_t i = 0; i < count; i++) {
        int32_t ids[MAX_BLOCKS];
        uint32_t first = ck_random_below(random, MAX_BLOCKS);
        struct rt_record_op op = {.kind = 1 + ck_random_below(random, 3),
                                  .slot = ck_random_below(random, SLOTS)};
        for (uint32_t k = 0; k < MAX_BLOCKS; k++)
            ids[k] = (int32_t)ck_random_below(random, PAGES);
        if (op.kind == RT_OP_SET_SLOT) {
            op.a = (int32_t)ck_random_below(random, MAX_LENGTH + 1);
            op.b = (int32_t)ck_random_below(random, SLOTS + 3) - 2 - (int32_t)SLOTS;
        } else if (op.kind == RT_OP_SET_PAGES) {
            op.a = (int32_t)first;
            op.b = (int32_t)ck_random_below(random, MAX_BLOCKS - first + 1);
        } else {
            op.slot = ck_random_below(random, PAGE_SIZE + 1);
            op.a = ids[0];
            op.b = ids[1];
        }
        if (ck_random_below(random, 10) < bad) {
            uint32_t what = ck_random_below(random, 5);
            op.kind = what == 0 ? ck_random_below(random, 6) : op.kind;
            op.slot = what == 1 ? SLOTS + ck_random_below(random, 3) : op.slot;
            op.a = what == 2 ? (int32_t)ck_random_u64(random) : op.a;
            ids[ck_random_below(random, MAX_BLOCKS)] = what == 3 ? -5 : ids[0];
            if (what == 4 && op.kind != RT_OP_SET_PAGES)
                op.b = (int32_t)ck_random_u64(random);
        }
        add_op(record, op, ids);
    }
}

/* Rows of different slots, as the host promises. */
static void write_rows(struct ck_random *random, unsigned char *record, uint32_t live)
{
    struct rt_record_row *rows = (void *)(record + ROWS_OFFSET);
    int32_t *tokens = (void *)(record + TOKENS_OFFSET);
    uint32_t first = ck_random_below(random, SLOTS);
    for (uint32_t r = 0; r < live; r++) {
        rows[r] = (struct rt_record_row){.slot = (first + r * 7) % SLOTS, .new_block = -1};
        uint32_t query_len = ((struct rt_record *)(void *)record)->query_len;
        rows[r].tokens = (uint16_t)ck_random_below(random, query_len + 1); /* 0: all */
        const uint32_t count = rt_record_tokens(&rows[r], query_len);
        rows[r].accept =
            (int16_t)(ck_random_below(random, 4) ? 1 + (int32_t)ck_random_below(random, count)
                                                 : RT_ACCEPT_BY_DEVICE);
        if (ck_random_below(random, 4) == 0) {
            rows[r].new_block = (int32_t)ck_random_below(random, MAX_BLOCKS);
            rows[r].new_page = (int32_t)ck_random_below(random, PAGES);
        }
    }
    for (uint32_t i = 0; i < BUCKET_MAX * Q_MAX; i++)
        tokens[i] = (int32_t)ck_random_below(random, 5000) - 1000;
    for (uint32_t i = 0; i < BUCKET_MAX * Q_MAX; i++)
        if (ck_random_below(random, 2))
            tokens[i] = -1;
}

static void spoil_row(struct ck_random *random, struct rt_record_row *row)
{
    static const int32_t values[] = {
        -2, -1, 0, 9, INT32_MAX, INT32_MIN, (int32_t)PAGES, (int32_t)MAX_BLOCKS};
    int32_t value = values[ck_random_below(random, 8)];
    switch (ck_random_below(random, 5)) {
    case 4:
        row->tokens = (uint16_t)value;
        break;
    case 0:
        row->slot = SLOTS + ck_random_below(random, 5);
        break;
    case 1:
        row->accept = (int16_t)value;
        break;
    case 2:
        row->new_block = value;
        break;
    default:
        row->new_block = 0;
        row->new_page = value;
        break;
    }
}

static void spoil_header(struct ck_random *random, struct rt_record *head)
{
    switch (ck_random_below(random, 6)) {
    case 0:
        head->step += ck_random_below(random, 2) ? 1 : UINT64_MAX; /* one late, one early */
        break;
    case 1:
        head->bucket++;
        break;
    case 2:
        head->query_len++;
        break;
    case 3:
        head->live_rows = head->bucket + 1 + ck_random_below(random, 3);
        break;
    case 4:
        head->row_base = MAX_ROWS - head->bucket + 1;
        break;
    default:
        head->op_bytes = (uint32_t)ck_random_u64(random);
        head->op_count = UINT32_MAX;
        break;
    }
}

/* A record for the next step; `spoilt` of ten have something wrong in the header or the rows. */
static void write_record(struct rig *rig, struct ck_random *random, uint32_t spoilt)
{
    static const uint32_t buckets[] = {0, 1, 4, 64, 256, BUCKET_MAX};
    unsigned char *record = next_record(rig);
    struct rt_record *head = (void *)record;
    rig->bucket = buckets[ck_random_below(random, 6)];
    rig->query_len = 1 + ck_random_below(random, Q_MAX);
    memset(record, 0x3c, RECORD_BYTES);
    *head = (struct rt_record){.step = ref_ctrl(rig)->step + 1,
                               .live_rows = ck_random_below(random, rig->bucket + 1),
                               .row_base = ck_random_below(random, MAX_ROWS - rig->bucket + 1),
                               .query_len = rig->query_len,
                               .bucket = rig->bucket};
    write_rows(random, record, head->live_rows);
    write_ops(random, record, spoilt / 2);
    for (uint32_t r = 0; r < head->live_rows; r++)
        if (ck_random_below(random, 100) < spoilt)
            spoil_row(random, (struct rt_record_row *)(void *)(record + ROWS_OFFSET) + r);
    if (ck_random_below(random, 10) < spoilt)
        spoil_header(random, head);
}

/* Clocks differ: the device's must go forwards, then it is taken over by the reference. */
static void take_clock(struct ck *ck, const char *name, uint64_t found, uint64_t *ref,
                       uint64_t least)
{
    if (found < least || found == 0)
        ck_failed(ck, "%s is %llu ns, before %llu", name, (unsigned long long)found,
                  (unsigned long long)least);
    *ref = found;
}

static void run_begin(struct ck *ck, struct rig *rig, uint64_t *clock)
{
    struct rt_step_begin_params ref = begin_params(rig, CK_REF);
    struct rt_step_begin_params device = begin_params(rig, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    ck_upload(ck, &rig->b[RING]);
    rt_ref_step_begin(&ref);
    enum rt_status status = ck_build(ck, RT_OP_STEP_BEGIN, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);
    struct {
        struct rt_ctrl ctrl;
        unsigned char guard[CK_GUARD_BYTES];
    } found;
    ck_download(ck, &rig->b[CTRL], &found);
    take_clock(ck, "t_begin", found.ctrl.t_begin, &ref_ctrl(rig)->t_begin, *clock);
    *clock = found.ctrl.t_begin;
    for (int i = 0; i < BUFFERS; i++)
        ck_expect_same(ck, &rig->b[i]);
}

/* What stages do between the two: accept, sample, and stamp the time of attention. */
static void run_stages(struct ck *ck, struct rig *rig, struct ck_random *random)
{
    struct rt_ctrl *ctrl = ref_ctrl(rig);
    int32_t *accepted = ck_at(&rig->b[ACCEPTED], CK_REF),
            *sampled = ck_at(&rig->b[SAMPLED], CK_REF),
            *drafts = ck_at(&rig->b[ROW_DRAFTS], CK_REF);
    for (uint32_t r = 0; r < ctrl->live_rows; r++) {
        uint32_t x = ck_random_below(random, 40);
        if (x < 10)
            accepted[ctrl->row_base + r] = (int32_t)(x % (rig->query_len + 1));
        if (x == 11)
            accepted[ctrl->row_base + r] = ck_random_below(random, 2) ? -1 : 9;
        for (uint32_t i = 0; i < rig->draft_columns && x % 2; i++)
            drafts[(ctrl->row_base + r) * rig->draft_columns + i] =
                (int32_t)ck_random_below(random, 100000) - 1000;
        if (x > 20)
            sampled[ctrl->row_base + r] = (int32_t)ck_random_below(random, 100000) - 10;
    }
    ctrl->t_attend_first = ck_random_u64(random);
    ctrl->t_attend_last = ck_random_u64(random);
    ck_upload(ck, &rig->b[ACCEPTED]);
    ck_upload(ck, &rig->b[SAMPLED]);
    ck_upload(ck, &rig->b[ROW_DRAFTS]);
    ck_upload(ck, &rig->b[CTRL]);
}

static void run_end(struct ck *ck, struct rig *rig, uint64_t *clock)
{
    struct rt_step_end_params ref = end_params(rig, CK_REF);
    struct rt_step_end_params device = end_params(rig, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    bool completes = ref_ctrl(rig)->error != RT_DEV_STEP;
    rt_ref_step_end(&ref);
    enum rt_status status = ck_build(ck, RT_OP_STEP_END, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);
    if (completes) {
        uint64_t at = ref_ctrl(rig)->step % DEPTH * COMPLETION_BYTES;
        const struct rt_completion *found = (void *)(rig->b[COMPLETIONS].mapped + at);
        struct rt_completion *expected = (void *)(rig->b[COMPLETIONS].ref + at);
        take_clock(ck, "t_end", found->t_end, &expected->t_end, *clock);
        *clock = found->t_end;
    }
    for (int i = 0; i < BUFFERS; i++)
        ck_expect_same(ck, &rig->b[i]);
}

void ck_step_run(struct ck *ck)
{
    const uint32_t steps = ck->full ? 3000 : ck_is_brief(ck) ? 50 : ck->quick ? 100 : 300;
    for (uint32_t spoilt = 0; spoilt <= 3; spoilt++) {
        struct ck_random random = {.state = ck->seed + spoilt};
        struct rig rig = {.draft_columns = spoilt == 2 ? 0 : DRAFTS};
        uint64_t clock = 0;
        uint32_t failures = ck->failures;
        make_rig(ck, &rig);
        for (uint32_t i = 0; i < steps && ck->failures == failures; i++) {
            write_record(&rig, &random, spoilt);
            ck_case(ck,
                    "launch %u of a sequence, %u of 10 records spoilt, bucket %u, query length %u",
                    i, spoilt, rig.bucket, rig.query_len);
            run_begin(ck, &rig, &clock);
            if (ck_random_below(&random, 10) == 0)
                continue; /* cut short: the same step begins again */
            run_stages(ck, &rig, &random);
            run_end(ck, &rig, &clock);
        }
        free_rig(ck, &rig);
    }
}

#define BENCH_PAIRS 10
#define BENCH_DEPTH ((CK_REPLAYS + 1) * BENCH_PAIRS)

/* A ring that holds the record of every step of every replay, so each does its real work. */
static struct ck_buffer make_long_ring(struct ck *ck, struct ck_random *random, uint32_t bucket)
{
    struct ck_buffer ring = ck_alloc_mapped(ck, "ring", BENCH_DEPTH * RECORD_BYTES, 0);
    for (uint64_t step = 1; step < BENCH_DEPTH; step++) {
        unsigned char *record = ring.ref + step * RECORD_BYTES;
        *(struct rt_record *)(void *)record =
            (struct rt_record){.step = step, .live_rows = bucket, .query_len = 1, .bucket = bucket};
        write_rows(random, record, bucket);
    }
    ck_upload(ck, &ring);
    return ring;
}

void ck_step_bench(struct ck *ck)
{
    static const uint32_t buckets[] = {1, 64, 256};
    struct ck_random random = {.state = ck->seed};
    for (size_t i = 0; i < sizeof(buckets) / sizeof(buckets[0]); i++) {
        struct rig rig = {.bucket = buckets[i], .query_len = 1, .draft_columns = 1};
        struct rt_launch launches[2 * BENCH_PAIRS];
        struct rt_error err = {0};
        make_rig(ck, &rig);
        struct ck_buffer ring = make_long_ring(ck, &random, buckets[i]);
        struct rt_step_begin_params begin = begin_params(&rig, CK_DEVICE);
        struct rt_step_end_params end = end_params(&rig, CK_DEVICE);
        begin.ring = ck_at(&ring, CK_DEVICE);
        begin.ring_depth = BENCH_DEPTH;
        for (int l = 0; l < 2 * BENCH_PAIRS; l += 2) {
            ck_must(ck, ck_build(ck, RT_OP_STEP_BEGIN, &begin, sizeof(begin), &launches[l], &err),
                    &err);
            ck_must(ck, ck_build(ck, RT_OP_STEP_END, &end, sizeof(end), &launches[l + 1], &err),
                    &err);
        }
        printf("step       batch %4u, begin and end: %8.2f us\n", buckets[i],
               2 * ck_time_ns(ck, launches, 2 * BENCH_PAIRS) / 1e3);
        ck_free(ck, &ring);
        free_rig(ck, &rig);
    }
}
