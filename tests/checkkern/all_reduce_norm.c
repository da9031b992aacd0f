/* SPDX-License-Identifier: Apache-2.0 */
/*
 * all_reduce_norm: hidden against the reference, within the bound of kernels/abi/all_reduce.h, what
 * goes into mailboxes to the bit; and all that it writes bit for bit what rt_all_reduce and
 * rt_input_norm make of the same numbers. One rank's kernel runs, behind the others' reference,
 * which has sent. Ranks that wait for each other: tests/emu and tests/gpu.
 */
#include "common/bf16.h"
#include "common/math.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/mailbox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define POISON_BYTE 0x77
#define EXCHANGES 3u

struct sum_norm_case {
    uint32_t ranks, me, tokens, width, epoch; /* epoch: of the exchange before */
    bool weights, in_place;                   /* what is normed is hidden */
    float hidden_scale;
};

/* One way: of each rank its numbers and mailbox; what this one has besides. */
struct sum_norm_side {
    struct ck_buffer hidden[RT_ALL_REDUCE_MOST_RANKS], mailbox[RT_ALL_REDUCE_MOST_RANKS];
    struct ck_buffer residual, normed;
};

struct sum_norm_buffers {
    struct sum_norm_side one, two; /* in one launch, in two */
    struct ck_buffer weight, stop;
};

static uint32_t blocks_of(const struct sum_norm_case *c)
{
    return c->tokens * RT_ALL_REDUCE_NORM_SLOTS(c->width);
}

static struct rt_all_reduce_norm_params params_of(const struct sum_norm_case *c,
                                                  const struct sum_norm_buffers *b,
                                                  const struct sum_norm_side *s, uint32_t rank,
                                                  enum ck_side side)
{
    void *const hidden = ck_at(&s->hidden[rank], side);
    struct rt_all_reduce_norm_params p = {
        .sum = {.from = hidden,
                .to = hidden,
                .stop = ck_at(&b->stop, side),
                .rank = rank,
                .ranks = c->ranks,
                .bytes = c->tokens * c->width * 2},
        .norm = {.hidden = hidden,
                 .residual = ck_at(&s->residual, side),
                 .normed = c->in_place && s == &b->one ? hidden : ck_at(&s->normed, side),
                 .stride = c->width,
                 .norm = {.weight = c->weights ? ck_at(&b->weight, side) : NULL,
                          .eps = 1e-6f,
                          .scale = 1,
                          .width = c->width},
                 .tokens = c->tokens,
                 .hidden_scale = c->hidden_scale}};
    for (uint32_t r = 0; r < c->ranks; r++)
        p.sum.mailbox[r] = ck_at(&s->mailbox[r], side);
    return p;
}

static struct sum_norm_side make_side(struct ck *ck, struct ck_random *random,
                                      const struct sum_norm_case *c)
{
    const uint64_t bytes = (uint64_t)c->tokens * c->width * 2;
    struct sum_norm_side s = {.residual = ck_alloc(ck, "residual", bytes, POISON_BYTE),
                              .normed = ck_alloc(ck, "normed", bytes, POISON_BYTE)};
    for (uint32_t r = 0; r < c->ranks; r++) {
        s.hidden[r] = ck_alloc(ck, "hidden", bytes, POISON_BYTE);
        s.mailbox[r] =
            ck_alloc(ck, "mailbox", rt_all_reduce_mailbox_bytes(c->ranks, blocks_of(c)), 0);
        ck_mailbox_fill(random, c->ranks, blocks_of(c), RT_ALL_REDUCE_SLOT_BYTES, c->epoch,
                        &s.mailbox[r]);
    }
    return s;
}

static struct sum_norm_buffers make(struct ck *ck, struct ck_random *random,
                                    const struct sum_norm_case *c)
{
    struct sum_norm_buffers b = {.one = make_side(ck, random, c), .two = make_side(ck, random, c)};
    b.weight = ck_alloc(ck, "weight", c->width * 2, POISON_BYTE);
    b.stop = ck_alloc_mapped(ck, "stop", 4, 0);
    uint16_t *const weight = ck_at(&b.weight, CK_REF);
    for (uint32_t i = 0; i < c->width; i++)
        weight[i] = rt_float_to_bf16((float)(1 + ck_random_normal(random) / 4));
    ck_upload(ck, &b.weight);
    return b;
}

static void drop_side(struct ck *ck, const struct sum_norm_case *c, struct sum_norm_side *s)
{
    for (uint32_t r = 0; r < c->ranks; r++) {
        ck_free(ck, &s->hidden[r]);
        ck_free(ck, &s->mailbox[r]);
    }
    ck_free(ck, &s->residual);
    ck_free(ck, &s->normed);
}

/* ---- an exchange ----------------------------------------------------------------------------- */

static void copy(const struct ck_buffer *from, struct ck_buffer *to)
{
    memcpy(ck_at(to, CK_REF), ck_at(from, CK_REF), (size_t)from->bytes);
}

/* The same numbers for both ways; tokens are as usual, huge, tiny or have one that is no number. */
static void fill(struct ck_random *random, const struct sum_norm_case *c,
                 struct sum_norm_buffers *b)
{
    static const double magnitudes[] = {1, 1, 1e15, 1e-15, 1, 1};
    for (uint32_t t = 0; t < c->tokens; t++) {
        const uint32_t kind = ck_random_below(random, 6);
        for (uint32_t r = 0; r <= c->ranks; r++) {
            struct ck_buffer *const to = r < c->ranks ? &b->one.hidden[r] : &b->one.residual;
            uint16_t *const numbers = (uint16_t *)ck_at(to, CK_REF) + (uint64_t)t * c->width;
            for (uint32_t i = 0; i < c->width; i++)
                numbers[i] = rt_float_to_bf16((float)(ck_random_normal(random) * magnitudes[kind]));
            if (kind == 4)
                numbers[ck_random_below(random, c->width)] = r % 2 ? 0x7fc0 : 0x7f80;
        }
    }
    for (uint32_t r = 0; r < c->ranks; r++)
        copy(&b->one.hidden[r], &b->two.hidden[r]);
    copy(&b->one.residual, &b->two.residual);
}

static void upload(struct ck *ck, const struct sum_norm_case *c, struct sum_norm_side *s)
{
    for (uint32_t r = 0; r < c->ranks; r++) {
        ck_upload(ck, &s->hidden[r]);
        ck_upload(ck, &s->mailbox[r]);
    }
    ck_upload(ck, &s->residual);
}

static void launch(struct ck *ck, enum rt_op_id op, const void *params, size_t bytes)
{
    struct rt_launch launch;
    struct rt_error err = {0};
    const enum rt_status built = ck_build(ck, op, params, bytes, &launch, &err);
    ck_launch(ck, built, &err, &launch);
}

/* Behind what the others send to each, the kernel and its reference, and the two kernels. */
static void run_all(struct ck *ck, const struct sum_norm_case *c, struct sum_norm_buffers *b)
{
    const struct rt_all_reduce_norm_params ref = params_of(c, b, &b->one, c->me, CK_REF);
    const struct rt_all_reduce_norm_params one = params_of(c, b, &b->one, c->me, CK_DEVICE);
    const struct rt_all_reduce_norm_params two = params_of(c, b, &b->two, c->me, CK_DEVICE);
    for (uint32_t r = 0; r < c->ranks; r++) {
        const struct rt_all_reduce_norm_params in_one = params_of(c, b, &b->one, r, CK_REF);
        const struct rt_all_reduce_norm_params in_two = params_of(c, b, &b->two, r, CK_REF);
        if (r == c->me)
            continue;
        rt_ref_all_reduce_norm_send(&in_one);
        rt_ref_all_reduce_send(&in_two.sum);
    }
    upload(ck, c, &b->one);
    upload(ck, c, &b->two);
    rt_ref_all_reduce_norm(&ref);
    launch(ck, RT_OP_ALL_REDUCE_NORM, &one, sizeof(one));
    launch(ck, RT_OP_ALL_REDUCE, &two.sum, sizeof(two.sum));
    launch(ck, RT_OP_INPUT_NORM, &two.norm, sizeof(two.norm));
}

/* ---- what is compared ------------------------------------------------------------------------ */

static void compare_sum(struct ck *ck, const struct sum_norm_case *c, const struct ck_buffer *b)
{
    uint16_t *const found = ck_new(ck, b->bytes + CK_GUARD_BYTES);
    const uint16_t *const truth = ck_at(b, CK_REF);
    ck_download(ck, b, found);
    for (uint32_t i = 0; i < c->tokens * c->width; i++) {
        const double want = (double)rt_bf16_to_float(truth[i]);
        const double got = (double)rt_bf16_to_float(found[i]);
        const double largest = fabs(want) > 1e3 ? 1e17 : 64; /* of what is summed */
        const double bound = c->ranks == 2 ? 0 : fabs(want) * 0x1p-7 + largest * 0x1p-20;
        if (fabs(want - got) <= bound || (isnan(want) && isnan(got)))
            found[i] = truth[i];
    }
    ck_expect_bytes(ck, "sum", found, truth, b->bytes + CK_GUARD_BYTES);
    free(found);
}

static void expect_equal(struct ck *ck, const char *what, const struct ck_buffer *one,
                         const struct ck_buffer *two)
{
    void *const a = ck_new(ck, one->bytes + CK_GUARD_BYTES);
    void *const b = ck_new(ck, two->bytes + CK_GUARD_BYTES);
    ck_download(ck, one, a);
    ck_download(ck, two, b);
    ck_expect_bytes(ck, what, a, b, one->bytes + CK_GUARD_BYTES);
    free(b);
    free(a);
}

static void exchange(struct ck *ck, struct ck_random *random, const struct sum_norm_case *c,
                     struct sum_norm_buffers *b)
{
    fill(random, c, b);
    run_all(ck, c, b);
    struct ck_buffer *const hidden = &b->one.hidden[c->me];
    if (!c->in_place) {
        compare_sum(ck, c, hidden);
        expect_equal(ck, "hidden beside two launches", hidden, &b->two.hidden[c->me]);
    }
    expect_equal(ck, "residual beside two launches", &b->one.residual, &b->two.residual);
    expect_equal(ck, "normed beside two launches", c->in_place ? hidden : &b->one.normed,
                 &b->two.normed);
    for (uint32_t r = 0; r < c->ranks; r++)
        ck_expect_same(ck, &b->one.mailbox[r]);
}

/* All ranks go on, those whose kernel has not run and the way that has no reference too. */
static void count(const struct sum_norm_case *c, struct sum_norm_buffers *b)
{
    for (uint32_t r = 0; r < c->ranks; r++) {
        if (r != c->me)
            ck_mailbox_count(blocks_of(c), &b->one.mailbox[r]);
        ck_mailbox_count(blocks_of(c), &b->two.mailbox[r]);
    }
}

/* Nobody has sent, and the host says that nobody will: hidden stays as it is, what is sent is. */
static void stop(struct ck *ck, const struct sum_norm_case *c, struct sum_norm_buffers *b)
{
    const struct rt_all_reduce_norm_params ref = params_of(c, b, &b->one, c->me, CK_REF);
    const struct rt_all_reduce_norm_params device = params_of(c, b, &b->one, c->me, CK_DEVICE);
    *(int32_t *)ck_at(&b->stop, CK_REF) = 1;
    ck_upload(ck, &b->stop);
    upload(ck, c, &b->one);
    rt_ref_all_reduce_norm(&ref);
    launch(ck, RT_OP_ALL_REDUCE_NORM, &device, sizeof(device));
    if (!c->in_place)
        ck_expect_same(ck, &b->one.hidden[c->me]);
    for (uint32_t r = 0; r < c->ranks; r++)
        ck_expect_same(ck, &b->one.mailbox[r]);
}

static void check(struct ck *ck, struct ck_random *random, const struct sum_norm_case *c)
{
    ck_case(ck, "rank %u of %u, %u tokens of %u, epoch %u%s%s, scale %g", c->me, c->ranks,
            c->tokens, c->width, c->epoch, c->weights ? "" : ", no weights",
            c->in_place ? ", in place" : "", (double)c->hidden_scale);
    struct sum_norm_buffers b = make(ck, random, c);
    for (uint32_t i = 0; i < EXCHANGES; i++) {
        exchange(ck, random, c, &b);
        count(c, &b);
    }
    stop(ck, c, &b);
    drop_side(ck, c, &b.one);
    drop_side(ck, c, &b.two);
    ck_free(ck, &b.weight);
    ck_free(ck, &b.stop);
}

void ck_all_reduce_norm_run(struct ck *ck)
{
    static const uint32_t widths[] = {8, 2048, 2056, 4104, 7168, 5120, 16384};
    static const uint32_t epochs[] = {0, 70000, UINT32_MAX - 1};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 42 : ck->quick ? 5 : 14;
    for (uint32_t i = 0; i < rounds; i++) {
        const uint32_t ranks = i % 2 ? 2 + ck_random_below(&random, 7) : 2;
        const struct sum_norm_case c = {.ranks = ranks,
                                        .me = ck_random_below(&random, ranks),
                                        .tokens = 1 + ck_random_below(&random, 3),
                                        .width = widths[i % 7],
                                        .epoch = epochs[i % 3],
                                        .weights = i % 4 != 3,
                                        .in_place = i % 5 == 4,
                                        .hidden_scale = i % 3 ? 1 : 0.5f};
        check(ck, &random, &c);
    }
}
