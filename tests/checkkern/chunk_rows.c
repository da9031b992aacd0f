/* SPDX-License-Identifier: Apache-2.0 */
/* chunk_rows: bit for bit the reference's, on records that the host writes and on others. */
#include "kernels/abi/chunk.h"
#include "kernels/ref/ref.h"
#include "replayrt/rt.h"
#include "tests/checkkern/harness.h"

#include <string.h>

#define SLOTS 300u
#define POISON_BYTE 0x77

/* What is wrong with a record; with some of its rows, where it says so. */
enum wrong {
    NOTHING,
    COUNTS,       /* rows: none, negative, too large */
    SUM,          /* each is good, together they exceed the chunk */
    PROMPTS,      /* more than the graph has rows for */
    ROWS_BEHIND,  /* more than the graph decodes */
    DROPPED,      /* rows: by step_begin, the first and others */
    LENGTHS,      /* rows: beyond max_length */
    EARLIER,      /* step_begin has found an error */
    FEWER_LIVE,   /* than there are prompts */
    NONE_LIVE,    /* step_begin has refused it */
    MUCH_CONTEXT, /* more than the pieces */
    FULL_CONTEXT, /* as much as they hold: nothing is wrong */
    WRONGS
};

struct chunk_case {
    uint32_t prefill_rows, decode_rows, query_len, chunk, pieces, piece, max_length, ring_depth;
    enum wrong wrong;
};

enum {
    RING,
    CTRL,
    SLOT_TOKEN,
    TOKENS,
    ROW_SLOT,
    ROW_POSITION,
    ROW_LENGTH,
    ROW_ACCEPT,
    ROW_START,
    ROW_LAST,
    TOKEN_ID,
    TOKEN_SLOT,
    TOKEN_POSITION,
    TOKEN_LENGTH,
    BESIDE_SLOT,
    BESIDE_POSITION,
    BESIDE_REACH,
    CHUNK_FIRST,
    CONTEXT_FIRST,
    PIECE_FIRST,
    BUFFERS
};

struct rig {
    struct ck_buffer b[BUFFERS];
    uint32_t tokens_offset, record_bytes;
};

static uint32_t bucket_of(const struct chunk_case *c)
{
    return c->prefill_rows + c->decode_rows;
}

/* Of the record's tokens. */
static uint32_t words_of(const struct chunk_case *c)
{
    return bucket_of(c) * c->query_len + c->prefill_rows + c->chunk;
}

static void make_rig(struct ck *ck, const struct chunk_case *c, struct rig *rig)
{
    const uint64_t rows = bucket_of(c) * 4u, columns = rows * c->query_len;
    const uint64_t tokens = (c->chunk + c->decode_rows * c->query_len) * 4u;
    const uint64_t beside = (c->decode_rows + 1) * 4u, ends = (c->prefill_rows + 1) * 4u;
    rig->tokens_offset = (uint32_t)sizeof(struct rt_record) + bucket_of(c) * 16;
    rig->record_bytes = (rig->tokens_offset + words_of(c) * 4 + 63) / 64 * 64;
    const struct {
        const char *name;
        uint64_t bytes;
    } lines[BUFFERS] = {
        [RING] = {"ring", (uint64_t)c->ring_depth * rig->record_bytes},
        [CTRL] = {"ctrl", sizeof(struct rt_ctrl)},
        [SLOT_TOKEN] = {"slot_token", SLOTS * 4},
        [TOKENS] = {"tokens", columns},
        [ROW_SLOT] = {"row_slot", rows},
        [ROW_POSITION] = {"row_position", rows},
        [ROW_LENGTH] = {"row_length", rows},
        [ROW_ACCEPT] = {"row_accept", rows},
        [ROW_START] = {"row_start", rows},
        [ROW_LAST] = {"row_last", columns},
        [TOKEN_ID] = {"token_id", tokens},
        [TOKEN_SLOT] = {"token_slot", tokens},
        [TOKEN_POSITION] = {"token_position", tokens},
        [TOKEN_LENGTH] = {"token_length", tokens},
        [BESIDE_SLOT] = {"beside_slot", beside},
        [BESIDE_POSITION] = {"beside_position", beside},
        [BESIDE_REACH] = {"beside_reach", beside},
        [CHUNK_FIRST] = {"chunk_first", ends},
        [CONTEXT_FIRST] = {"context_first", ends},
        [PIECE_FIRST] = {"piece_first", c->pieces ? c->pieces * ends : 4},
    };
    for (int i = 0; i < BUFFERS; i++)
        rig->b[i] = (i == RING ? ck_alloc_mapped : ck_alloc)(ck, lines[i].name, lines[i].bytes,
                                                             POISON_BYTE);
}

static struct rt_chunk_rows_params params_of(const struct chunk_case *c, const struct rig *rig,
                                             enum ck_side side)
{
    return (struct rt_chunk_rows_params){.ring = ck_at(&rig->b[RING], side),
                                         .ctrl = ck_at(&rig->b[CTRL], side),
                                         .slot_token = ck_at(&rig->b[SLOT_TOKEN], side),
                                         .tokens = ck_at(&rig->b[TOKENS], side),
                                         .row_slot = ck_at(&rig->b[ROW_SLOT], side),
                                         .row_position = ck_at(&rig->b[ROW_POSITION], side),
                                         .row_length = ck_at(&rig->b[ROW_LENGTH], side),
                                         .row_accept = ck_at(&rig->b[ROW_ACCEPT], side),
                                         .row_start = ck_at(&rig->b[ROW_START], side),
                                         .row_last = ck_at(&rig->b[ROW_LAST], side),
                                         .token_id = ck_at(&rig->b[TOKEN_ID], side),
                                         .token_slot = ck_at(&rig->b[TOKEN_SLOT], side),
                                         .token_position = ck_at(&rig->b[TOKEN_POSITION], side),
                                         .token_length = ck_at(&rig->b[TOKEN_LENGTH], side),
                                         .beside_slot = ck_at(&rig->b[BESIDE_SLOT], side),
                                         .beside_position = ck_at(&rig->b[BESIDE_POSITION], side),
                                         .beside_reach = ck_at(&rig->b[BESIDE_REACH], side),
                                         .chunk_first = ck_at(&rig->b[CHUNK_FIRST], side),
                                         .context_first = ck_at(&rig->b[CONTEXT_FIRST], side),
                                         .piece_first = ck_at(&rig->b[PIECE_FIRST], side),
                                         .ring_depth = c->ring_depth,
                                         .record_bytes = rig->record_bytes,
                                         .tokens_offset = rig->tokens_offset,
                                         .prefill_rows = c->prefill_rows,
                                         .decode_rows = c->decode_rows,
                                         .chunk = c->chunk,
                                         .pieces = c->pieces,
                                         .piece = c->piece,
                                         .max_length = c->max_length,
                                         .query_len = c->query_len};
}

/* Ids, of which some are -1, at a row's first place too. */
static void write_ids(struct ck_random *random, int32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        ids[i] = ck_random_below(random, 3) ? (int32_t)ck_random_below(random, 200000) : -1;
}

static int32_t bad_count(struct ck_random *random, const struct chunk_case *c)
{
    const int32_t chunk = (int32_t)c->chunk;
    const int32_t values[] = {0, -1, INT32_MIN, chunk + 1, INT32_MAX};
    return values[ck_random_below(random, 5)];
}

/* The prompts' numbers of tokens, of at most a share of what is left each. */
static void write_counts(struct ck_random *random, const struct chunk_case *c, uint32_t prompts,
                         int32_t *counts)
{
    uint32_t left = c->chunk;
    for (uint32_t r = 0; r < prompts; r++) {
        const uint32_t behind = prompts - r - 1;
        const uint32_t most = left > behind ? left - behind : 1;
        const uint32_t share = 1 + 2 * c->chunk / prompts;
        counts[r] = 1 + (int32_t)ck_random_below(random, most < share ? most : share);
        left -= left > (uint32_t)counts[r] ? (uint32_t)counts[r] : left;
        if (c->wrong == COUNTS && ck_random_below(random, 3) == 0)
            counts[r] = bad_count(random, c);
        if (c->wrong == SUM)
            counts[r] = 1 + (int32_t)ck_random_below(random, c->chunk);
    }
}

/* A row as step_begin leaves it: of so many tokens, from `position` on. */
static void put_row(const struct rig *rig, uint32_t r, int32_t slot, int32_t position,
                    int32_t tokens)
{
    const bool live = slot >= 0;
    ((int32_t *)ck_at(&rig->b[ROW_SLOT], CK_REF))[r] = slot;
    ((int32_t *)ck_at(&rig->b[ROW_POSITION], CK_REF))[r] = live ? position : 0;
    ((int32_t *)ck_at(&rig->b[ROW_LENGTH], CK_REF))[r] = live ? position + tokens : 0;
    ((int32_t *)ck_at(&rig->b[ROW_ACCEPT], CK_REF))[r] = live;
}

/* So that the row's tokens end at max_length at most, and at times at it; `beyond` is wrong by so
 * many. */
static int32_t start_of(struct ck_random *random, const struct chunk_case *c, int32_t count,
                        uint32_t beyond)
{
    const int64_t most = (int64_t)c->max_length - (count > 0 ? count : 1);
    if (most < 0)
        return 0;
    if (beyond > 0)
        return (int32_t)(most + beyond < c->max_length ? most + beyond : c->max_length - 1);
    switch (ck_random_below(random, 4)) {
    case 0:
        return (int32_t)most;
    case 1:
        return 0;
    default:
        return (int32_t)ck_random_below(random, (uint32_t)most + 1);
    }
}

static void write_rows(struct ck_random *random, const struct chunk_case *c, const struct rig *rig,
                       uint32_t prompts, const int32_t *counts)
{
    for (uint32_t r = 0; r < bucket_of(c); r++) {
        const bool some = ck_random_below(random, 3) == 0, prompt = r < prompts;
        const bool dropped = c->wrong == DROPPED && (some || r == 0);
        const uint32_t beyond = c->wrong == LENGTHS && some ? 1 + ck_random_below(random, 9) : 0;
        const int32_t own = prompt ? 1 : 1 + (int32_t)ck_random_below(random, c->query_len);
        const int32_t count = prompt && r < c->prefill_rows ? counts[r] : own;
        int32_t start = start_of(random, c, count, beyond);
        if (c->wrong == MUCH_CONTEXT && prompt && count > 0)
            start = (int32_t)c->max_length - count;
        if (c->wrong == FULL_CONTEXT)
            start = r == 0 && c->pieces * c->piece < c->max_length ? (int32_t)(c->pieces * c->piece)
                                                                   : 0;
        put_row(rig, r, dropped ? -1 : (int32_t)ck_random_below(random, SLOTS), start, own);
    }
}

static uint32_t live_of(struct ck_random *random, const struct chunk_case *c, uint32_t prompts)
{
    switch (c->wrong) {
    case NONE_LIVE:
        return 0;
    case FEWER_LIVE:
        return ck_random_below(random, prompts + 1);
    case ROWS_BEHIND:
        return prompts + c->decode_rows + 1;
    case PROMPTS:
        return 1 + ck_random_below(random, bucket_of(c));
    default:
        return prompts + ck_random_below(random, c->decode_rows + 1);
    }
}

static uint32_t prompts_of(struct ck_random *random, const struct chunk_case *c)
{
    const uint32_t beyond[] = {c->prefill_rows + 1, bucket_of(c) + 1, INT32_MAX, UINT32_MAX};
    const uint32_t most = c->prefill_rows < c->chunk ? c->prefill_rows : c->chunk;
    if (c->wrong == PROMPTS)
        return beyond[ck_random_below(random, 4)];
    if (c->wrong == ROWS_BEHIND) /* one row less, so that one too many is still in the bucket */
        return ck_random_below(random, c->prefill_rows);
    return ck_random_below(random, 3)   ? 1 + ck_random_below(random, most)
           : ck_random_below(random, 4) ? most
                                        : 0;
}

static void write_ctrl(struct ck_random *random, const struct chunk_case *c, const struct rig *rig,
                       uint32_t live)
{
    struct rt_ctrl *ctrl = ck_at(&rig->b[CTRL], CK_REF);
    const uint64_t steps[] = {0, 1, c->ring_depth - 1, UINT64_C(1) << 40};
    *ctrl = (struct rt_ctrl){.step = steps[ck_random_below(random, 4)] +
                                     ck_random_below(random, 2 * c->ring_depth),
                             .live_rows = live,
                             .query_len = c->query_len};
    if (c->wrong == EARLIER) {
        ctrl->error = RT_DEV_SLOT;
        ctrl->error_row = 3;
        ctrl->error_value = -5;
    }
}

static void write_inputs(struct ck_random *random, const struct chunk_case *c,
                         const struct rig *rig)
{
    const uint32_t prompts = prompts_of(random, c), live = live_of(random, c, prompts);
    write_ctrl(random, c, rig, live);
    const struct rt_ctrl *ctrl = ck_at(&rig->b[CTRL], CK_REF);
    unsigned char *bytes =
        rig->b[RING].ref + (ctrl->step + 1) % c->ring_depth * (uint64_t)rig->record_bytes;
    *(struct rt_record *)(void *)bytes = (struct rt_record){.step = ctrl->step + 1,
                                                            .live_rows = live,
                                                            .query_len = c->query_len,
                                                            .bucket = bucket_of(c),
                                                            .prompts = prompts};
    int32_t *tokens = (void *)(bytes + rig->tokens_offset);
    int32_t *counts = tokens + bucket_of(c) * c->query_len;
    write_ids(random, tokens, words_of(c));
    write_ids(random, ck_at(&rig->b[TOKENS], CK_REF), bucket_of(c) * c->query_len);
    write_ids(random, ck_at(&rig->b[SLOT_TOKEN], CK_REF), SLOTS);
    write_counts(random, c, prompts < c->prefill_rows ? prompts : c->prefill_rows, counts);
    write_rows(random, c, rig, prompts, counts);
}

static void check(struct ck *ck, struct ck_random *random, const struct chunk_case *c)
{
    ck_case(ck,
            "chunk of %u, %u prompts, %u rows of %u that decode, %u pieces of %u, max_length %u, "
            "ring of %u, wrong %d",
            c->chunk, c->prefill_rows, c->decode_rows, c->query_len, c->pieces, c->piece,
            c->max_length, c->ring_depth, (int)c->wrong);
    struct rig rig;
    struct rt_launch launch;
    struct rt_error err = {0};
    make_rig(ck, c, &rig);
    write_inputs(random, c, &rig);
    for (int i = 0; i < BUFFERS; i++)
        ck_upload(ck, &rig.b[i]);
    const struct rt_chunk_rows_params ref = params_of(c, &rig, CK_REF);
    const struct rt_chunk_rows_params device = params_of(c, &rig, CK_DEVICE);
    rt_ref_chunk_rows(&ref);
    const enum rt_status built =
        ck_build(ck, RT_OP_CHUNK_ROWS, &device, sizeof(device), &launch, &err);
    ck_launch(ck, built, &err, &launch);
    for (int i = 0; i < BUFFERS; i++) {
        ck_expect_same(ck, &rig.b[i]);
        ck_free(ck, &rig.b[i]);
    }
}

static uint32_t one_of(struct ck_random *random, const uint32_t *values, uint32_t count)
{
    return values[ck_random_below(random, count)];
}

/* Every wrong in turn, with graphs of any size. */
void ck_chunk_rows_run(struct ck *ck)
{
    static const uint32_t chunks[] = {64, 1, 513, 16, 3, 1500}, rows[] = {8, 1, 3, 256, 40};
    static const uint32_t decoding[] = {4, 0, 17, 600}, depths[] = {3, 1, 8, 5, 7};
    static const uint32_t lengths[] = {1, 2, 1, 8, 3};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 2000 : ck->quick ? 60 : 400;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct chunk_case c = {
            .prefill_rows = one_of(&random, rows, 5),
            .decode_rows = one_of(&random, decoding, 4),
            .query_len = one_of(&random, lengths, 5),
            .chunk = one_of(&random, chunks, 6),
            .pieces = ck_random_below(&random, 3) * (1 + ck_random_below(&random, 5)),
            .piece = 64 + ck_random_below(&random, 300),
            .max_length = ck_random_below(&random, 3) ? 2000 : 1 + ck_random_below(&random, 100),
            .ring_depth = one_of(&random, depths, 5),
            .wrong = (enum wrong)(i % WRONGS)};
        check(ck, &random, &c);
    }
    const struct chunk_case largest = {.prefill_rows = RT_MAX_PREFILL_ROWS,
                                       .decode_rows = RT_MAX_MIXED_ROWS,
                                       .query_len = RT_MAX_QUERY_LEN,
                                       .chunk = RT_MAX_CHUNK,
                                       .pieces = 63,
                                       .piece = 8192,
                                       .max_length = 500000,
                                       .ring_depth = 2};
    check(ck, &random, &largest);
}
