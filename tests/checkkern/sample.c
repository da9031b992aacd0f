/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample: all three launches, bit for bit the reference's. Logits are unkind: ties by the thousand,
 * infinities, NaN, all alike, a few far ahead; parameters at and beyond their edges.
 */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define POISON_BYTE 0x77
#define ROW_BASE 3u

enum logit_kind {
    NORMAL,   /* as models make them */
    ROUNDED,  /* likewise, of few different values */
    ALIKE,    /* all the same */
    PEAKED,   /* one far ahead */
    INFINITE, /* of both signs, among others */
    HOLES,    /* half of them NaN */
    MASKED,   /* most of them -inf */
    NOTHING,  /* all NaN */
    KINDS
};

struct sample_case {
    uint32_t rows, q_len, vocab, gap;
    bool slots, by_accept;
    float scale;
    const struct rt_sample_line *all; /* of every line; null: each its own */
    enum logit_kind kind;             /* of every column, where `all` is given */
};

enum {
    LOGITS,
    LENGTH,
    SLOT,
    POSITION,
    CTRL,
    ACCEPT,
    TOKENS,
    ACCEPTED,
    SAMPLED,
    LINES,
    BEST,
    SUMS,
    WEIGHTS,
    COUNTS,
    BUFFERS
};

struct rig {
    struct ck_buffer b[BUFFERS];
};

static struct rt_sample_params params_of(const struct sample_case *c, const struct rig *rig,
                                         enum ck_side side)
{
    const int64_t stride = c->vocab + c->gap;
    return (struct rt_sample_params){.logits = ck_at(&rig->b[LOGITS], side),
                                     .row_stride = c->q_len * stride,
                                     .token_stride = stride,
                                     .rows = {.length = ck_at(&rig->b[LENGTH], side),
                                              .slot = c->slots ? ck_at(&rig->b[SLOT], side) : NULL,
                                              .position = ck_at(&rig->b[POSITION], side),
                                              .ctrl = ck_at(&rig->b[CTRL], side),
                                              .count = c->rows,
                                              .q_len = c->q_len},
                                     .accept = c->by_accept ? ck_at(&rig->b[ACCEPT], side) : NULL,
                                     .tokens = ck_at(&rig->b[TOKENS], side),
                                     .accepted = ck_at(&rig->b[ACCEPTED], side),
                                     .sampled = ck_at(&rig->b[SAMPLED], side),
                                     .lines = ck_at(&rig->b[LINES], side),
                                     .best = ck_at(&rig->b[BEST], side),
                                     .sums = ck_at(&rig->b[SUMS], side),
                                     .bin_weights = ck_at(&rig->b[WEIGHTS], side),
                                     .bin_counts = ck_at(&rig->b[COUNTS], side),
                                     .scale = c->scale,
                                     .vocab = c->vocab};
}

static float logit(struct ck_random *random, enum logit_kind kind, uint32_t id, uint32_t ahead)
{
    const float x = (float)(ck_random_normal(random) * 3);
    const uint32_t chance = ck_random_below(random, 100);
    switch (kind) {
    case ROUNDED:
        return roundf(x * 2) / 2;
    case ALIKE:
        return 1.25f;
    case PEAKED:
        return id == ahead ? 30.0f : x;
    case INFINITE:
        return chance < 2 ? INFINITY : chance < 9 ? -INFINITY : x;
    case HOLES:
        return chance < 50 ? NAN : x;
    case MASKED:
        return chance < 95 ? -INFINITY : x;
    case NOTHING:
        return NAN;
    default:
        return chance < 3 ? 0.0f : chance < 6 ? -0.0f : x;
    }
}

static void fill_logits(struct ck_random *random, const struct sample_case *c, float *logits)
{
    for (uint32_t rc = 0; rc < c->rows * c->q_len; rc++) {
        enum logit_kind kind = ck_random_below(random, 3) ? NORMAL : ck_random_below(random, KINDS);
        kind = c->all ? c->kind : kind;
        const uint32_t ahead = ck_random_below(random, c->vocab);
        for (uint32_t id = 0; id < c->vocab; id++)
            logits[rc * (uint64_t)(c->vocab + c->gap) + id] = logit(random, kind, id, ahead);
    }
}

static struct rt_sample_line sampling(struct ck_random *random, uint32_t vocab)
{
    const float temperatures[] = {0.0f,  1.0f,  0.7f, 1.5f, 1e-30f,
                                  1e30f, -1.0f, NAN,  0.1f, INFINITY};
    const float top_ps[] = {1.0f, 0.9f, 0.5f, 0.999f, 0.0f, 1e-9f, 0.99999994f, NAN, -1.0f, 2.0f};
    const int32_t top_ks[] = {
        0, 1, 2, 50, 64, 1000, INT32_MAX, -5, (int32_t)vocab - 1, (int32_t)vocab};
    struct rt_sample_line s = {.temperature = temperatures[ck_random_below(random, 10)],
                               .top_p = top_ps[ck_random_below(random, 10)],
                               .top_k = top_ks[ck_random_below(random, 10)],
                               .seed = ck_random_u64(random)};
    if (ck_random_below(random, 2))
        s.temperature = 1.0f;
    for (uint32_t i = 0; i < RT_SAMPLE_STOPS; i++)
        s.stop[i] = i < 3 ? (int32_t)ck_random_below(random, vocab) : -1;
    return s;
}

/* Drafts that are what is sampled cannot be known before; where they are few ids, some are. */
static void fill_rows(struct ck_random *random, const struct sample_case *c, const struct rig *rig)
{
    int32_t *length = ck_at(&rig->b[LENGTH], CK_REF), *slot = ck_at(&rig->b[SLOT], CK_REF);
    int32_t *position = ck_at(&rig->b[POSITION], CK_REF), *accept = ck_at(&rig->b[ACCEPT], CK_REF);
    int32_t *tokens = ck_at(&rig->b[TOKENS], CK_REF);
    struct rt_sample_line *lines = ck_at(&rig->b[LINES], CK_REF);
    const uint32_t first = ck_random_below(random, c->rows);
    for (uint32_t r = 0; r < c->rows; r++) {
        length[r] = (int32_t)ck_random_below(random, 5) - (r > 0);
        length[r] += r == 0;
        const bool is_there = length[r] > 0 && (r == 0 || ck_random_below(random, 8) > 0);
        slot[r] = is_there ? (int32_t)((first + r) % c->rows) : -1;
        position[r] = (int32_t)ck_random_below(random, 100000);
        /* From -2 on, and up to one that is no count of the row's tokens. */
        accept[r] = ck_random_below(random, 3) ? RT_ACCEPT_BY_DEVICE
                                               : (int32_t)ck_random_below(random, c->q_len + 4) - 2;
        lines[r] = c->all ? *c->all : sampling(random, c->vocab);
    }
    for (uint32_t i = 0; i < (ROW_BASE + c->rows) * c->q_len; i++)
        tokens[i] = ck_random_below(random, 6) ? (int32_t)ck_random_below(random, c->vocab) : -1;
    for (uint32_t r = 0; r < c->rows; r++)
        if (ck_random_below(random, 5) == 0)
            tokens[(ROW_BASE + r) * c->q_len] = lines[slot[r] < 0 ? 0 : slot[r]].stop[1];
    ((struct rt_ctrl *)ck_at(&rig->b[CTRL], CK_REF))->row_base = ROW_BASE;
}

static void make_rig(struct ck *ck, const struct sample_case *c, struct rig *rig)
{
    const uint64_t columns = (uint64_t)c->rows * c->q_len, pieces = rt_sample_pieces(c->vocab);
    const uint64_t data_rows = ROW_BASE + c->rows;
    const struct {
        const char *name;
        uint64_t bytes;
    } lines[BUFFERS] = {
        [LOGITS] = {"logits", columns * (c->vocab + c->gap) * sizeof(float)},
        [LENGTH] = {"length", c->rows * 4},
        [SLOT] = {"slot", c->rows * 4},
        [POSITION] = {"position", c->rows * 4},
        [CTRL] = {"ctrl", sizeof(struct rt_ctrl)},
        [ACCEPT] = {"accept", c->rows * 4},
        [TOKENS] = {"tokens", data_rows * c->q_len * 4},
        [ACCEPTED] = {"accepted", data_rows * 4},
        [SAMPLED] = {"sampled", data_rows * 4},
        [LINES] = {"lines", c->rows * sizeof(struct rt_sample_line)},
        [BEST] = {"best", columns * pieces * 8},
        [SUMS] = {"sums", columns * pieces * 8},
        [WEIGHTS] = {"bin_weights", columns * RT_SAMPLE_BINS * 8},
        [COUNTS] = {"bin_counts", columns * RT_SAMPLE_BINS * 4},
    };
    for (int i = 0; i < BUFFERS; i++)
        rig->b[i] = ck_alloc(ck, lines[i].name, lines[i].bytes, POISON_BYTE);
}

static void fill_rig(struct ck *ck, struct ck_random *random, const struct sample_case *c,
                     const struct rig *rig)
{
    fill_logits(random, c, ck_at(&rig->b[LOGITS], CK_REF));
    fill_rows(random, c, rig);
    for (int i = LOGITS; i <= LINES; i++)
        ck_upload(ck, &rig->b[i]);
}

static void free_rig(struct ck *ck, struct rig *rig)
{
    for (int i = 0; i < BUFFERS; i++)
        ck_free(ck, &rig->b[i]);
}

/* What nobody reads, sample_best clears all the same: that is no difference. */
static void forget_cleared(struct ck *ck, const struct rig *rig)
{
    for (int i = WEIGHTS; i <= COUNTS; i++) {
        void *found = ck_new(ck, rig->b[i].bytes + CK_GUARD_BYTES);
        ck_download(ck, &rig->b[i], found);
        const unsigned char *bytes = found;
        for (uint64_t at = 0; at < rig->b[i].bytes; at++)
            if (rig->b[i].ref[at] == POISON_BYTE && bytes[at] == 0)
                rig->b[i].ref[at] = 0;
        ck_expect_bytes(ck, rig->b[i].name, found, rig->b[i].ref, rig->b[i].bytes);
        free(found);
    }
}

static void run(struct ck *ck, const struct sample_case *c, const struct rig *rig)
{
    static void (*const refs[])(const void *) = {rt_ref_sample_best, rt_ref_sample_tally,
                                                 rt_ref_sample};
    static const enum rt_op_id ops[] = {RT_OP_SAMPLE_BEST, RT_OP_SAMPLE_TALLY, RT_OP_SAMPLE};
    const struct rt_sample_params ref = params_of(c, rig, CK_REF);
    const struct rt_sample_params device = params_of(c, rig, CK_DEVICE);
    struct rt_launch launches[3];
    struct rt_error err = {0};
    for (int i = 0; i < 3; i++) {
        refs[i](&ref);
        ck_must(ck, ck_build(ck, ops[i], &device, sizeof(device), &launches[i], &err), &err);
    }
    /* As a step has them, where each begins before the one in front of it is over; or alone. */
    if (c->slots)
        ck_launch_chain(ck, launches, 3);
    for (int i = 0; i < 3 && !c->slots; i++)
        ck_launch(ck, RT_OK, &err, &launches[i]);
    for (int i = 0; i < WEIGHTS; i++)
        ck_expect_same(ck, &rig->b[i]);
    forget_cleared(ck, rig);
}

static void check(struct ck *ck, struct ck_random *random, const struct sample_case *c)
{
    struct rig rig;
    ck_case(ck, "%u rows of %u, %u ids, gap %u%s%s, scale %g", c->rows, c->q_len, c->vocab, c->gap,
            c->slots ? ", slots" : "", c->by_accept ? ", accept" : "", (double)c->scale);
    make_rig(ck, c, &rig);
    fill_rig(ck, random, c, &rig);
    run(ck, c, &rig);
    free_rig(ck, &rig);
}

/* Whole vocabularies: cuts in bins of few keys, and of more than the desk holds. */
static void check_large(struct ck *ck, struct ck_random *random)
{
    static const struct {
        enum logit_kind kind;
        struct rt_sample_line all;
    } cases[] = {
        {NORMAL, {.temperature = 1.0f, .top_p = 1.0f, .seed = 1}},
        {NORMAL, {.temperature = 1.0f, .top_p = 0.9f, .seed = 2}},
        {ROUNDED, {.temperature = 0.8f, .top_p = 0.95f, .top_k = 50, .seed = 3}},
        {NORMAL, {.temperature = 4.0f, .top_p = 0.99f, .top_k = 90000, .seed = 4}},
        {ALIKE, {.temperature = 1.0f, .top_p = 0.3f, .top_k = 77777, .seed = 5}},
        {HOLES, {.temperature = 1e30f, .top_p = 0.5f, .seed = 6}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check(ck, random,
              &(struct sample_case){.rows = 1,
                                    .q_len = 1,
                                    .vocab = i == 3 ? RT_SAMPLE_MOST_VOCAB : 129280,
                                    .scale = 1,
                                    .all = &cases[i].all,
                                    .kind = cases[i].kind});
}

void ck_sample_run(struct ck *ck)
{
    static const uint32_t vocabs[] = {1, 2, 7, 300, 2048, 2049, 5000, 33};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 600 : ck->quick ? 12 : 80;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct sample_case c = {.rows = 1 + ck_random_below(&random, 5),
                                      .q_len = 1 + ck_random_below(&random, 4) * (i % 2),
                                      .vocab = vocabs[i % 8],
                                      .gap = i % 3 ? 0 : ck_random_below(&random, 5),
                                      .slots = ck_random_below(&random, 2),
                                      .by_accept = ck_random_below(&random, 4) > 0,
                                      .scale = i % 5 == 1   ? 0.25f
                                               : i % 7 == 3 ? -1.0f
                                                            : 1.0f};
        check(ck, &random, &c);
    }
    if (ck->quick)
        return;
    check_large(ck, &random);
}

#define BENCH_STEPS 20

/* Of a batch, as a step has them: the three launches one behind the other. */
static void bench(struct ck *ck, uint32_t rows, const char *how, const struct rt_sample_line *s)
{
    const struct sample_case c = {.rows = rows, .q_len = 1, .vocab = 129280, .scale = 1};
    static const enum rt_op_id ops[] = {RT_OP_SAMPLE_BEST, RT_OP_SAMPLE_TALLY, RT_OP_SAMPLE};
    struct ck_random random = {.state = ck->seed};
    struct rig rig;
    struct rt_launch launches[3 * BENCH_STEPS];
    struct rt_error err = {0};
    make_rig(ck, &c, &rig);
    fill_rig(ck, &random, &c, &rig);
    struct rt_sample_line *lines = ck_at(&rig.b[LINES], CK_REF);
    float *logits = ck_at(&rig.b[LOGITS], CK_REF);
    for (uint32_t r = 0; r < rows; r++) {
        lines[r] = *s;
        ((int32_t *)ck_at(&rig.b[LENGTH], CK_REF))[r] = 1;
        for (uint32_t id = 0; id < c.vocab; id++)
            logits[(uint64_t)r * c.vocab + id] = (float)(ck_random_normal(&random) * 3);
    }
    for (int i = LOGITS; i <= LINES; i++)
        ck_upload(ck, &rig.b[i]);
    const struct rt_sample_params p = params_of(&c, &rig, CK_DEVICE);
    for (int i = 0; i < 3 * BENCH_STEPS; i++)
        ck_must(ck, ck_build(ck, ops[i % 3], &p, sizeof(p), &launches[i], &err), &err);
    printf("sample     batch %4u, %-24s: %8.2f us\n", rows, how,
           3 * ck_time_ns(ck, launches, 3 * BENCH_STEPS) / 1e3);
    free_rig(ck, &rig);
}

void ck_sample_bench(struct ck *ck)
{
    static const uint32_t batches[] = {1, 8, 32, 128};
    static const struct {
        const char *how;
        struct rt_sample_line s;
    } lines[] = {
        {"greedy", {.top_p = 1.0f}},
        {"temperature", {.temperature = 1.0f, .top_p = 1.0f}},
        {"top_k 50", {.temperature = 1.0f, .top_p = 1.0f, .top_k = 50}},
        {"top_p 0.9", {.temperature = 1.0f, .top_p = 0.9f}},
        {"top_k 50, top_p 0.9", {.temperature = 0.7f, .top_p = 0.9f, .top_k = 50}},
    };
    for (size_t i = 0; i < 4; i++)
        for (size_t l = 0; l < sizeof(lines) / sizeof(lines[0]); l++)
            bench(ck, batches[i], lines[l].how, &lines[l].s);
}
