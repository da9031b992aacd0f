/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SLOTS 6
#define MAX_BLOCKS 5
#define PAGES 30
#define PAGE_SIZE 16
#define MAX_LENGTH 80
#define BUCKET 4
#define QUERY_LEN 2
#define MAX_ROWS 10
#define DRAFTS 3 /* the longest query is of four tokens */
#define DEPTH 3
#define OPS_ROOM 128

/* A record as the ring holds it. */
struct slot_record {
    struct rt_record head;
    struct rt_record_row rows[BUCKET];
    int32_t tokens[BUCKET * QUERY_LEN];
    _Alignas(64) unsigned char ops[OPS_ROOM];
};

struct slot_completion {
    struct rt_completion head;
    struct rt_row_outcome outcomes[BUCKET];
    int32_t tokens[BUCKET * QUERY_LEN];
};

struct rig {
    struct slot_record ring[DEPTH];
    struct slot_completion completions[DEPTH];
    uint64_t completed;
    struct rt_ctrl ctrl;
    int32_t slot_length[SLOTS], slot_token[SLOTS], table[SLOTS * MAX_BLOCKS];
    int32_t row_slot[BUCKET], row_position[BUCKET], row_length[BUCKET], row_reach[BUCKET],
        row_accept[BUCKET];
    int32_t tokens[MAX_ROWS * QUERY_LEN], accepted[MAX_ROWS], sampled[MAX_ROWS];
    int32_t drafts[MAX_ROWS * DRAFTS], slot_drafts[SLOTS * DRAFTS];
    struct rt_page_copy copies[RT_MAX_PAGE_COPIES];
};

static void begin(struct rig *rig)
{
    struct rt_step_begin_params p = {.ring = (const unsigned char *)rig->ring,
                                     .ctrl = &rig->ctrl,
                                     .slot_length = rig->slot_length,
                                     .slot_token = rig->slot_token,
                                     .slot_drafts = rig->slot_drafts,
                                     .block_table = rig->table,
                                     .row_slot = rig->row_slot,
                                     .row_position = rig->row_position,
                                     .row_length = rig->row_length,
                                     .row_reach = rig->row_reach,
                                     .row_accept = rig->row_accept,
                                     .tokens = rig->tokens,
                                     .accepted = rig->accepted,
                                     .sampled = rig->sampled,
                                     .drafts = rig->drafts,
                                     .copies = rig->copies,
                                     .ring_depth = DEPTH,
                                     .record_bytes = sizeof(struct slot_record),
                                     .rows_offset = offsetof(struct slot_record, rows),
                                     .tokens_offset = offsetof(struct slot_record, tokens),
                                     .ops_offset = offsetof(struct slot_record, ops),
                                     .bucket = BUCKET,
                                     .query_len = QUERY_LEN,
                                     .slots = SLOTS,
                                     .max_blocks = MAX_BLOCKS,
                                     .pages = PAGES,
                                     .page_size = PAGE_SIZE,
                                     .max_length = MAX_LENGTH,
                                     .max_rows = MAX_ROWS,
                                     .draft_columns = DRAFTS};
    rt_ref_step_begin(&p);
}

static void end(struct rig *rig)
{
    struct rt_step_end_params p = {.ctrl = &rig->ctrl,
                                   .slot_length = rig->slot_length,
                                   .slot_token = rig->slot_token,
                                   .slot_drafts = rig->slot_drafts,
                                   .row_slot = rig->row_slot,
                                   .row_position = rig->row_position,
                                   .row_length = rig->row_length,
                                   .row_accept = rig->row_accept,
                                   .tokens = rig->tokens,
                                   .accepted = rig->accepted,
                                   .sampled = rig->sampled,
                                   .drafts = rig->drafts,
                                   .completions = (unsigned char *)rig->completions,
                                   .completed = &rig->completed,
                                   .ring_depth = DEPTH,
                                   .completion_bytes = sizeof(struct slot_completion),
                                   .bucket = BUCKET,
                                   .query_len = QUERY_LEN,
                                   .draft_columns = DRAFTS,
                                   .tokens_offset = offsetof(struct slot_completion, tokens)};
    rt_ref_step_end(&p);
}

/* A good record of the next step with `live` rows: row r is slot r, all tokens kept. */
static struct slot_record *write_record(struct rig *rig, uint32_t live)
{
    struct slot_record *record = &rig->ring[(rig->ctrl.step + 1) % DEPTH];
    memset(record, 0, sizeof(*record));
    record->head = (struct rt_record){
        .step = rig->ctrl.step + 1, .live_rows = live, .query_len = QUERY_LEN, .bucket = BUCKET};
    for (uint32_t r = 0; r < live; r++) {
        record->rows[r] = (struct rt_record_row){.slot = r, .accept = QUERY_LEN, .new_block = -1};
        record->tokens[r * QUERY_LEN] = -1;
        record->tokens[r * QUERY_LEN + 1] = 500 + (int32_t)r;
    }
    return record;
}

static void add_op(struct slot_record *record, struct rt_record_op op, const int32_t *ids)
{
    memcpy(record->ops + record->head.op_bytes, &op, sizeof(op));
    record->head.op_bytes += sizeof(op);
    record->head.op_count++;
    if (op.kind == RT_OP_SET_PAGES && op.b > 0) {
        memcpy(record->ops + record->head.op_bytes, ids, (size_t)op.b * sizeof(*ids));
        record->head.op_bytes += ((uint32_t)op.b * 4 + 15) / 16 * 16;
    }
}

static void expect_error(const struct rig *rig, enum rt_device_error error, uint32_t row,
                         int64_t value)
{
    assert_int_equal(rig->ctrl.error, error);
    assert_int_equal(rig->ctrl.error_row, row);
    assert_int_equal(rig->ctrl.error_value, value);
}

static void expect_row(const struct rig *rig, uint32_t row, int32_t slot, int32_t position,
                       int32_t length)
{
    assert_int_equal(rig->row_slot[row], slot);
    assert_int_equal(rig->row_position[row], position);
    assert_int_equal(rig->row_length[row], length);
}

static void test_good_step(void **state)
{
    struct rig *rig = *state;
    struct slot_record *record = write_record(rig, 3);
    record->head.row_base = 5;
    record->rows[1].accept = RT_ACCEPT_BY_DEVICE;
    record->rows[2] =
        (struct rt_record_row){.slot = 4, .accept = 1, .new_block = 4, .new_page = PAGES - 1};
    rig->slot_length[1] = 7;
    rig->slot_length[4] = MAX_LENGTH - QUERY_LEN;
    rig->slot_token[4] = 44;
    begin(rig);
    expect_error(rig, RT_DEV_OK, 0, 0);
    assert_int_equal(rig->ctrl.step, 0); /* not before step_end */
    assert_int_equal(rig->ctrl.live_rows, 3);
    assert_int_equal(rig->ctrl.row_base, 5);
    expect_row(rig, 0, 0, 0, 2);
    expect_row(rig, 1, 1, 7, 9);
    expect_row(rig, 2, 4, MAX_LENGTH - 2, MAX_LENGTH);
    expect_row(rig, 3, -1, 0, 0);
    assert_int_equal(rig->table[4 * MAX_BLOCKS + 4], PAGES - 1);
    assert_int_equal(rig->tokens[(5 + 2) * QUERY_LEN], 44);
    assert_int_equal(rig->tokens[(5 + 2) * QUERY_LEN + 1], 502);
    assert_int_equal(rig->tokens[(5 + 3) * QUERY_LEN + 1], -1);
    assert_int_equal(rig->accepted[5 + 1], QUERY_LEN);
    assert_int_equal(rig->accepted[5 + 2], 1);
    assert_int_equal(rig->accepted[5 + 3], 0);
    assert_int_equal(rig->sampled[5 + 3], -1);

    rig->accepted[5 + 1] = 0;   /* a stage rejects everything */
    rig->sampled[5 + 0] = 1234; /* and samples for row 0 */
    rig->slot_token[1] = 11;
    end(rig);
    assert_int_equal(rig->slot_length[0], 2);
    assert_int_equal(rig->slot_token[0], 1234);
    assert_int_equal(rig->slot_length[1], 7);
    assert_int_equal(rig->slot_token[1], 11);
    assert_int_equal(rig->slot_length[4], MAX_LENGTH - 1);
    assert_int_equal(rig->slot_token[4], 44);
    const struct slot_completion *c = &rig->completions[1];
    assert_int_equal(rig->ctrl.step, 1);
    assert_int_equal(rig->completed, 1);
    assert_int_equal(c->head.step, 1);
    assert_int_equal(c->head.live_rows, 3);
    assert_int_equal(c->outcomes[0].sampled, 1234);
    assert_int_equal(c->outcomes[1].accepted, 0);
    assert_int_equal(c->outcomes[2].accepted, 1);
    assert_true(c->head.t_begin > 0 && c->head.t_begin <= c->head.t_end);
}

/* A row of fewer tokens ends earlier, and has nothing in its last columns; attention is told where
 * a whole one would end. Of the device's counts none is above the row's own. */
static void test_ragged_rows(void **state)
{
    struct rig *rig = *state;
    struct slot_record *record = write_record(rig, 3);
    record->rows[0].tokens = QUERY_LEN;
    record->rows[1].tokens = record->rows[2].tokens = 1;
    record->rows[1].accept = record->rows[2].accept = RT_ACCEPT_BY_DEVICE;
    rig->slot_length[1] = MAX_LENGTH - 1;
    rig->slot_token[1] = 21;
    rig->slot_token[2] = 22;
    begin(rig);
    expect_error(rig, RT_DEV_OK, 0, 0);
    expect_row(rig, 0, 0, 0, 2);
    expect_row(rig, 1, 1, MAX_LENGTH - 1, MAX_LENGTH);
    expect_row(rig, 2, 2, 0, 1);
    const int32_t reach[] = {2, MAX_LENGTH + 1, 2, 0};
    assert_memory_equal(rig->row_reach, reach, sizeof(reach));
    const int32_t tokens[] = {500, 21, -1, 22, -1};
    assert_memory_equal(rig->tokens + 1, tokens, sizeof(tokens));
    assert_int_equal(rig->accepted[1], 1);
    rig->accepted[2] = 2; /* more than it has */
    end(rig);
    const struct slot_completion *c = &rig->completions[1];
    assert_int_equal(c->head.error, RT_DEV_ACCEPT);
    assert_int_equal(c->head.error_row, 2);
    assert_int_equal(c->outcomes[1].accepted, 1);
    assert_int_equal(c->outcomes[2].accepted, 1);
    assert_int_equal(rig->slot_length[1], MAX_LENGTH);
    assert_int_equal(rig->slot_length[2], 1);
    assert_int_equal(c->tokens[2], 21);
    assert_int_equal(c->tokens[3], -1);
}

/* Steps number the ring's records, round and round. */
static void test_ring_goes_round(void **state)
{
    struct rig *rig = *state;
    for (uint64_t step = 1; step <= 7; step++) {
        write_record(rig, 2);
        begin(rig);
        assert_int_equal(rig->ctrl.error, RT_DEV_OK);
        end(rig);
        assert_int_equal(rig->completed, step);
        assert_int_equal(rig->completions[step % DEPTH].head.step, step);
        assert_int_equal(rig->slot_length[1], 2 * step);
    }
}

/* All that a refused record must leave alone. */
static void expect_untouched(struct rig *rig, const struct rig *before)
{
    assert_memory_equal(rig->slot_length, before->slot_length, sizeof(rig->slot_length));
    assert_memory_equal(rig->slot_token, before->slot_token, sizeof(rig->slot_token));
    assert_memory_equal(rig->slot_drafts, before->slot_drafts, sizeof(rig->slot_drafts));
    assert_memory_equal(rig->drafts, before->drafts, sizeof(rig->drafts));
    assert_memory_equal(rig->table, before->table, sizeof(rig->table));
    assert_memory_equal(rig->tokens, before->tokens, sizeof(rig->tokens));
    assert_memory_equal(rig->copies, before->copies, sizeof(rig->copies));
    for (uint32_t r = 0; r < BUCKET; r++)
        expect_row(rig, r, -1, 0, 0);
    assert_int_equal(rig->ctrl.live_rows, 0);
    assert_int_equal(rig->ctrl.row_base, 0);
    assert_int_equal(rig->ctrl.copy_count, 0);
}

static void test_stray_replay(void **state)
{
    struct rig *rig = *state;
    struct slot_record *record = write_record(rig, 4);
    add_op(record, (struct rt_record_op){.kind = RT_OP_SET_SLOT, .slot = 5, .a = 3, .b = 9}, NULL);
    record->head.row_base = 6;
    begin(rig);
    end(rig);
    const struct rig before = *rig;
    begin(rig); /* nobody wrote a record for step 2 */
    expect_error(rig, RT_DEV_STEP, 0, (int64_t)before.ring[2].head.step);
    expect_untouched(rig, &before);
    assert_int_equal(rig->ctrl.step, 1);
    end(rig);
    expect_untouched(rig, &before);
    assert_int_equal(rig->completed, 1);
    assert_memory_equal(rig->completions, before.completions, sizeof(before.completions));

    write_record(rig, 1); /* and the real step 2 is served as if nothing had been */
    begin(rig);
    assert_int_equal(rig->ctrl.error, RT_DEV_OK);
    assert_int_equal(rig->row_length[0], 4);
}

static void test_refused_headers(void **state)
{
    const struct {
        uint32_t bucket, query_len, live_rows, row_base;
        enum rt_device_error error;
        int64_t value;
    } cases[] = {
        {.bucket = 8, .query_len = 2, .live_rows = 1, .error = RT_DEV_BUCKET, .value = 8},
        {.bucket = 4, .query_len = 1, .live_rows = 1, .error = RT_DEV_QUERY_LEN, .value = 1},
        {.bucket = 4, .query_len = 2, .live_rows = 5, .error = RT_DEV_ROWS, .value = 5},
        {.bucket = 4, .query_len = 2, .row_base = 7, .error = RT_DEV_ROWS, .value = 7},
        {.bucket = 4, .query_len = 2, .row_base = UINT32_MAX, .error = RT_DEV_ROWS, UINT32_MAX},
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct slot_record *record = write_record(rig, 0);
        add_op(record, (struct rt_record_op){.kind = RT_OP_SET_SLOT, .slot = 5, .a = 3}, NULL);
        record->head.bucket = cases[i].bucket;
        record->head.query_len = cases[i].query_len;
        record->head.live_rows = cases[i].live_rows;
        record->head.row_base = cases[i].row_base;
        const struct rig before = *rig;
        begin(rig);
        expect_error(rig, cases[i].error, 0, cases[i].value);
        expect_untouched(rig, &before);
        end(rig);
        /* The step number was right, so the host hears of it. */
        assert_int_equal(rig->completed, i + 1);
        assert_int_equal(rig->completions[(i + 1) % DEPTH].head.error, cases[i].error);
        assert_int_equal(rig->completions[(i + 1) % DEPTH].head.live_rows, 0);
    }
}

static void test_refused_rows(void **state)
{
    const struct {
        struct rt_record_row row;
        int32_t length;
        enum rt_device_error error;
        int64_t value;
    } cases[] = {
        {{.slot = SLOTS, .accept = 1, .new_block = -1}, 0, RT_DEV_SLOT, SLOTS},
        {{.slot = 1, .accept = 1, .new_block = 0, .new_page = PAGES}, 0, RT_DEV_PAGE, PAGES},
        {{.slot = 1, .accept = 1, .new_block = 0, .new_page = -1}, 0, RT_DEV_PAGE, -1},
        {{.slot = 1, .accept = 1, .new_block = -2, .new_page = 0}, 0, RT_DEV_BLOCK, -2},
        {{.slot = 1, .accept = 1, .new_block = MAX_BLOCKS}, 0, RT_DEV_BLOCK, MAX_BLOCKS},
        {{.slot = 1, .accept = 1, .new_block = -1}, MAX_LENGTH - 1, RT_DEV_LENGTH, MAX_LENGTH + 1},
        {{.slot = 1, .accept = 1, .tokens = 1, .new_block = -1},
         MAX_LENGTH,
         RT_DEV_LENGTH,
         MAX_LENGTH + 1},
        {{.slot = 1, .accept = 1, .tokens = 3, .new_block = -1}, 0, RT_DEV_TOKENS, 3},
        {{.slot = 1, .accept = 2, .tokens = 1, .new_block = -1}, 0, RT_DEV_ACCEPT, 2},
        {{.slot = 1, .accept = 0, .new_block = -1}, 0, RT_DEV_ACCEPT, 0},
        {{.slot = 1, .accept = 3, .new_block = -1}, 0, RT_DEV_ACCEPT, 3},
        {{.slot = 1, .accept = -2, .new_block = -1}, 0, RT_DEV_ACCEPT, -2},
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct slot_record *record = write_record(rig, 3);
        record->rows[1] = cases[i].row;
        memset(rig->slot_length, 0, sizeof(rig->slot_length));
        rig->slot_length[1] = cases[i].length;
        begin(rig);
        expect_error(rig, cases[i].error, 1, cases[i].value);
        expect_row(rig, 0, 0, 0, 2);
        expect_row(rig, 1, -1, 0, 0);
        expect_row(rig, 2, 2, 0, 2);
        assert_int_equal(rig->tokens[QUERY_LEN], -1);
        assert_int_equal(rig->accepted[1], 0);
        end(rig);
        const struct slot_completion *c = &rig->completions[(i + 1) % DEPTH];
        assert_int_equal(c->head.error_row, 1);
        assert_int_equal(c->outcomes[1].accepted, 0);
        assert_int_equal(c->outcomes[1].sampled, -1);
        assert_int_equal(rig->slot_length[1], cases[i].length);
        assert_int_equal(rig->slot_length[2], 2);
    }
}

static void test_ops(void **state)
{
    struct rig *rig = *state;
    struct slot_record *record = write_record(rig, 1);
    record->rows[0].slot = 3;
    rig->slot_token[0] = 77;
    add_op(record, (struct rt_record_op){RT_OP_SET_SLOT, 3, 33, RT_TOKEN_OF_SLOT(0)}, NULL);
    add_op(record, (struct rt_record_op){RT_OP_SET_PAGES, 3, 1, 3}, (int32_t[]){9, -1, 8});
    add_op(record, (struct rt_record_op){RT_OP_COPY_PAGE, PAGE_SIZE, 9, 8}, NULL);
    add_op(record, (struct rt_record_op){RT_OP_SET_SLOT, 2, 1, -1}, NULL);
    begin(rig);
    expect_error(rig, RT_DEV_PAGE, 1, -1);
    expect_row(rig, 0, 3, 33, 35);
    assert_int_equal(rig->tokens[0], 77);
    assert_int_equal(rig->slot_length[2], 1);
    assert_int_equal(rig->slot_token[2], -1);
    assert_int_equal(rig->table[3 * MAX_BLOCKS + 1], 9);
    assert_int_equal(rig->table[3 * MAX_BLOCKS + 2], 0);
    assert_int_equal(rig->table[3 * MAX_BLOCKS + 3], 8);
    assert_int_equal(rig->ctrl.copy_count, 1);
    assert_int_equal(rig->copies[0].from, 9);
    assert_int_equal(rig->copies[0].to, 8);
    assert_int_equal(rig->copies[0].rows, PAGE_SIZE);
}

/* What a stage leaves in `drafts` is the slot's next tokens where the record names none; a slot
 * that takes another's token takes its drafts, any other that is set loses them. */
static void test_drafts(void **state)
{
    struct rig *rig = *state;
    const int32_t left[DRAFTS] = {7, -9, 8}, kept[DRAFTS] = {7, -1, 8}, none[DRAFTS] = {-1, -1, -1};
    struct slot_record *record = write_record(rig, 2);
    record->head.row_base = 3;
    begin(rig);
    assert_memory_equal(&rig->drafts[3 * DRAFTS], none, sizeof(none));
    assert_memory_equal(&rig->drafts[6 * DRAFTS], none, sizeof(none)); /* padding */
    assert_int_equal(rig->drafts[7 * DRAFTS], 0x77777777);
    memcpy(&rig->drafts[4 * DRAFTS], left, sizeof(left));
    end(rig);
    assert_memory_equal(&rig->slot_drafts[DRAFTS], kept, sizeof(kept));
    assert_memory_equal(rig->slot_drafts, none, sizeof(none));
    assert_int_equal(rig->completions[1].tokens[1], 500);
    assert_int_equal(rig->completions[1].tokens[3], 501);

    record = write_record(rig, 2);
    record->rows[0].slot = 4;
    record->tokens[1] = record->tokens[3] = -1;
    add_op(record, (struct rt_record_op){RT_OP_SET_SLOT, 4, 2, RT_TOKEN_OF_SLOT(1)}, NULL);
    begin(rig);
    assert_int_equal(rig->tokens[1], 7);
    assert_int_equal(rig->tokens[3], 7);
    end(rig); /* no stage has left a draft */
    assert_int_equal(rig->completions[2].tokens[1], 7);
    assert_memory_equal(&rig->slot_drafts[DRAFTS], none, sizeof(none));

    memcpy(&rig->slot_drafts[DRAFTS], left, sizeof(left));
    record = write_record(rig, 2);
    record->tokens[3] = -1;
    add_op(record, (struct rt_record_op){RT_OP_SET_SLOT, 1, 2, 44}, NULL);
    begin(rig);
    assert_int_equal(rig->tokens[2], 44);
    assert_int_equal(rig->tokens[3], -1);
    assert_memory_equal(&rig->slot_drafts[DRAFTS], none, sizeof(none));
}

/* A bad op is named; those that can be stepped over are, the others end the list. */
static void test_bad_ops(void **state)
{
    const struct {
        struct rt_record_op op;
        enum rt_device_error error;
        int64_t value;
        bool ends;
    } cases[] = {
        {{RT_OP_SET_SLOT, SLOTS, 0, 0}, RT_DEV_SLOT, SLOTS, false},
        {{RT_OP_SET_SLOT, 0, MAX_LENGTH + 1, 0}, RT_DEV_LENGTH, MAX_LENGTH + 1, false},
        {{RT_OP_SET_SLOT, 0, -1, 0}, RT_DEV_LENGTH, -1, false},
        {{RT_OP_SET_SLOT, 0, 0, RT_TOKEN_OF_SLOT(SLOTS)}, RT_DEV_SLOT, SLOTS, false},
        {{RT_OP_SET_SLOT, 0, 0, INT32_MIN}, RT_DEV_SLOT, INT32_MAX - 1, false},
        {{RT_OP_SET_PAGES, SLOTS, 0, 1}, RT_DEV_SLOT, SLOTS, false},
        {{RT_OP_SET_PAGES, 0, MAX_BLOCKS, 1}, RT_DEV_BLOCK, MAX_BLOCKS, false},
        {{RT_OP_SET_PAGES, 0, -1, 1}, RT_DEV_BLOCK, -1, false},
        {{RT_OP_SET_PAGES, 0, 0, -1}, RT_DEV_OP, RT_OP_SET_PAGES, true},
        {{RT_OP_SET_PAGES, 0, 0, OPS_ROOM}, RT_DEV_OP, RT_OP_SET_PAGES, true},
        {{RT_OP_SET_PAGES, 0, 0, INT32_MAX}, RT_DEV_OP, RT_OP_SET_PAGES, true},
        {{RT_OP_COPY_PAGE, 1, PAGES, 0}, RT_DEV_PAGE, PAGES, false},
        {{RT_OP_COPY_PAGE, 1, 0, -1}, RT_DEV_PAGE, -1, false},
        {{RT_OP_COPY_PAGE, PAGE_SIZE + 1, 0, 1}, RT_DEV_LENGTH, PAGE_SIZE + 1, false},
        {{0, 0, 0, 0}, RT_DEV_OP, 0, true},
        {{4, 0, 0, 0}, RT_DEV_OP, 4, true},
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct slot_record *record = write_record(rig, 1);
        memset(rig->slot_length, 0, sizeof(rig->slot_length));
        /* As long as it says, where it can be: an unreadable length must not be believed. */
        struct rt_record_op op = cases[i].op;
        const int32_t none[OPS_ROOM] = {0};
        if (cases[i].ends)
            op.b = 0;
        add_op(record, op, none);
        memcpy(record->ops, &cases[i].op, sizeof(op));
        add_op(record, (struct rt_record_op){RT_OP_SET_SLOT, 5, 1, 1}, NULL);
        begin(rig);
        expect_error(rig, cases[i].error, 0, cases[i].value);
        assert_int_equal(rig->slot_length[5], cases[i].ends ? 0 : 1);
        assert_int_equal(rig->ctrl.live_rows, 1);
        end(rig);
    }
}

/* op_count and op_bytes that lie never lead out of the record. */
static void test_ops_that_lie(void **state)
{
    struct rig *rig = *state;
    struct slot_record *record = write_record(rig, 0);
    for (int i = 0; i < OPS_ROOM / 16; i++)
        add_op(record, (struct rt_record_op){RT_OP_SET_SLOT, 1, i, 0}, NULL);
    record->head.op_count = UINT32_MAX;
    record->head.op_bytes = UINT32_MAX;
    begin(rig);
    expect_error(rig, RT_DEV_OP, OPS_ROOM / 16, 0);
    assert_int_equal(rig->slot_length[1], OPS_ROOM / 16 - 1);
    end(rig);

    record = write_record(rig, 0);
    add_op(record, (struct rt_record_op){RT_OP_SET_SLOT, 1, 9, 0}, NULL);
    record->head.op_bytes = 15;
    begin(rig);
    expect_error(rig, RT_DEV_OP, 0, 0);
    assert_int_equal(rig->slot_length[1], OPS_ROOM / 16 - 1);
}

static void test_bad_accept_at_end(void **state)
{
    struct rig *rig = *state;
    struct slot_record *record = write_record(rig, 3);
    record->rows[1].accept = record->rows[2].accept = RT_ACCEPT_BY_DEVICE;
    begin(rig);
    rig->accepted[1] = -1;
    rig->accepted[2] = QUERY_LEN + 1;
    end(rig);
    const struct slot_completion *c = &rig->completions[1];
    assert_int_equal(c->head.error, RT_DEV_ACCEPT);
    assert_int_equal(c->head.error_row, 1);
    assert_int_equal(c->head.error_value, -1);
    assert_int_equal(c->outcomes[1].accepted, QUERY_LEN);
    assert_int_equal(rig->slot_length[2], QUERY_LEN);
}

/* A stage that writes every row's count decides for those alone that were left to it. */
static void test_accept_of_the_host(void **state)
{
    struct rig *rig = *state;
    struct slot_record *record = write_record(rig, 3);
    record->rows[1].accept = RT_ACCEPT_BY_DEVICE;
    begin(rig);
    assert_int_equal(rig->row_accept[0], QUERY_LEN);
    assert_int_equal(rig->row_accept[1], RT_ACCEPT_BY_DEVICE);
    assert_int_equal(rig->row_accept[3], 0);
    for (int r = 0; r < 3; r++)
        rig->accepted[r] = r == 2 ? 77 : 1;
    end(rig);
    const struct slot_completion *c = &rig->completions[1];
    assert_int_equal(c->head.error, RT_DEV_OK);
    for (int r = 0; r < 3; r++) {
        assert_int_equal(c->outcomes[r].accepted, r == 1 ? 1 : QUERY_LEN);
        assert_int_equal(rig->slot_length[r], r == 1 ? 1 : QUERY_LEN);
    }
}

static int make_rig(void **state)
{
    struct rig *rig = aligned_alloc(_Alignof(struct rig), sizeof(*rig));
    if (!rig)
        return -1;
    memset(rig, 0, sizeof(*rig));
    memset(rig->tokens, 0x77, sizeof(rig->tokens));
    memset(rig->drafts, 0x77, sizeof(rig->drafts));
    *state = rig;
    return 0;
}

static int free_rig(void **state)
{
    free(*state);
    return 0;
}

#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, make_rig, free_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_good_step),
        RIG_TEST(test_ragged_rows),
        RIG_TEST(test_ring_goes_round),
        RIG_TEST(test_stray_replay),
        RIG_TEST(test_refused_headers),
        RIG_TEST(test_refused_rows),
        RIG_TEST(test_ops),
        RIG_TEST(test_bad_ops),
        RIG_TEST(test_ops_that_lie),
        RIG_TEST(test_bad_accept_at_end),
        RIG_TEST(test_accept_of_the_host),
        RIG_TEST(test_drafts),
    };
    return cmocka_run_group_tests_name("ref_step", tests, NULL, NULL);
}
