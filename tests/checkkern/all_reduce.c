/* SPDX-License-Identifier: Apache-2.0 */
/*
 * all_reduce: against the reference, within the bound of kernels/abi/all_reduce.h, and all_gather,
 * to the bit. One rank's kernel runs, behind the others' reference, which has sent: what it needs
 * is there, and what it writes, into all mailboxes, is known to the bit. Ranks that wait for each
 * other: tests/emu and tests/gpu.
 */
#include "common/bf16.h"
#include "common/math.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/mailbox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NAN_BYTE 0xff
#define POISON_BYTE 0x77
#define EXCHANGES 3u

struct sum_case {
    uint32_t ranks, me, bytes, epoch; /* epoch: of the exchange before */
    bool in_place;                    /* of sums */
    bool gathers;
};

struct sum_buffers {
    struct ck_buffer from[RT_ALL_REDUCE_MOST_RANKS], mailbox[RT_ALL_REDUCE_MOST_RANKS];
    struct ck_buffer to, stop;
};

static uint32_t blocks_of(const struct sum_case *c)
{
    return rt_ceil_div_u32(c->bytes, RT_ALL_REDUCE_BLOCK_BYTES);
}

static struct rt_all_reduce_params params_of(const struct sum_case *c, const struct sum_buffers *b,
                                             uint32_t rank, enum ck_side side)
{
    struct rt_all_reduce_params p = {.from = ck_at(&b->from[rank], side),
                                     .to = ck_at(c->in_place ? &b->from[rank] : &b->to, side),
                                     .stop = ck_at(&b->stop, side),
                                     .rank = rank,
                                     .ranks = c->ranks,
                                     .bytes = c->bytes};
    for (uint32_t r = 0; r < c->ranks; r++)
        p.mailbox[r] = ck_at(&b->mailbox[r], side);
    return p;
}

static struct sum_buffers make(struct ck *ck, struct ck_random *random, const struct sum_case *c)
{
    const uint64_t mailbox = rt_all_reduce_mailbox_bytes(c->ranks, blocks_of(c));
    struct sum_buffers b = {
        .to = ck_alloc(ck, "to", (uint64_t)c->bytes * (c->gathers ? c->ranks : 1), POISON_BYTE),
        .stop = ck_alloc_mapped(ck, "stop", 4, 0)};
    for (uint32_t r = 0; r < c->ranks; r++) {
        b.from[r] = ck_alloc(ck, "from", c->bytes, NAN_BYTE);
        b.mailbox[r] = ck_alloc(ck, "mailbox", mailbox, 0);
        ck_mailbox_fill(random, c->ranks, blocks_of(c), RT_ALL_REDUCE_SLOT_BYTES, c->epoch,
                        &b.mailbox[r]);
    }
    return b;
}

static void drop(struct ck *ck, const struct sum_case *c, struct sum_buffers *b)
{
    for (uint32_t r = 0; r < c->ranks; r++) {
        ck_free(ck, &b->from[r]);
        ck_free(ck, &b->mailbox[r]);
    }
    ck_free(ck, &b->to);
    ck_free(ck, &b->stop);
}

static void compare_sum(struct ck *ck, const struct sum_case *c, const struct ck_buffer *b)
{
    uint16_t *const found = ck_new(ck, b->bytes + CK_GUARD_BYTES);
    const uint16_t *const truth = ck_at(b, CK_REF);
    ck_download(ck, b, found);
    for (uint32_t i = 0; i < c->bytes / 2; i++) {
        const double want = (double)rt_bf16_to_float(truth[i]);
        const double got = (double)rt_bf16_to_float(found[i]);
        const double bound = c->ranks == 2 ? 0 : fabs(want) * 0x1p-7 + 64 * 0x1p-20;
        if (fabs(want - got) <= bound || (isnan(want) && isnan(got)))
            found[i] = truth[i];
    }
    ck_expect_bytes(ck, "sum", found, truth, b->bytes + CK_GUARD_BYTES);
    free(found);
}

/* Numbers that nearly cancel, infinities and NaN among them. */
static void fill_numbers(struct ck_random *random, const struct sum_case *c, struct sum_buffers *b)
{
    static const uint16_t odd[] = {0x7f80, 0xff80, 0x7fc0, 0x8000, 0x0001};
    for (uint32_t r = 0; r < c->ranks; r++) {
        uint16_t *const from = ck_at(&b->from[r], CK_REF);
        for (uint32_t i = 0; i < c->bytes / 2; i++)
            from[i] = ck_random_below(random, 50) == 0
                          ? odd[ck_random_below(random, 5)]
                          : rt_float_to_bf16((float)(8 * ck_random_normal(random)));
    }
}

/* The kernel, and the reference. */
static void run_both(struct ck *ck, const struct sum_case *c, const struct sum_buffers *b)
{
    struct rt_launch launch;
    struct rt_error err = {0};
    const struct rt_all_reduce_params ref = params_of(c, b, c->me, CK_REF);
    const struct rt_all_reduce_params device = params_of(c, b, c->me, CK_DEVICE);
    const enum rt_status built = ck_build(ck, c->gathers ? RT_OP_ALL_GATHER : RT_OP_ALL_REDUCE,
                                          &device, sizeof(device), &launch, &err);
    if (c->gathers)
        rt_ref_all_gather(&ref);
    else
        rt_ref_all_reduce(&ref);
    ck_launch(ck, built, &err, &launch);
}

static void exchange(struct ck *ck, struct ck_random *random, const struct sum_case *c,
                     struct sum_buffers *b)
{
    fill_numbers(random, c, b);
    for (uint32_t r = 0; r < c->ranks; r++) {
        const struct rt_all_reduce_params p = params_of(c, b, r, CK_REF);
        if (r != c->me)
            rt_ref_all_reduce_send(&p);
    }
    for (uint32_t r = 0; r < c->ranks; r++) {
        ck_upload(ck, &b->from[r]);
        ck_upload(ck, &b->mailbox[r]);
    }
    run_both(ck, c, b);
    if (c->gathers)
        ck_expect_same(ck, &b->to);
    else
        compare_sum(ck, c, c->in_place ? &b->from[c->me] : &b->to);
    for (uint32_t r = 0; r < c->ranks; r++)
        ck_expect_same(ck, &b->mailbox[r]);
    if (!c->in_place)
        ck_expect_same(ck, &b->from[c->me]);
}

/* The others go on as well. */
static void count(const struct sum_case *c, struct sum_buffers *b)
{
    for (uint32_t r = 0; r < c->ranks; r++)
        if (r != c->me)
            ck_mailbox_count(blocks_of(c), &b->mailbox[r]);
}

/* Nobody has sent, and the host says that nobody will: nothing is written but what is sent. */
static void stop(struct ck *ck, const struct sum_case *c, struct sum_buffers *b)
{
    *(int32_t *)ck_at(&b->stop, CK_REF) = 1;
    ck_upload(ck, &b->stop);
    ck_upload(ck, &b->from[c->me]);
    for (uint32_t r = 0; r < c->ranks; r++)
        ck_upload(ck, &b->mailbox[r]); /* the others have counted */
    run_both(ck, c, b);
    if (c->gathers)
        ck_expect_same(ck, &b->to);
    ck_expect_same(ck, &b->from[c->me]);
    for (uint32_t r = 0; r < c->ranks; r++)
        ck_expect_same(ck, &b->mailbox[r]);
}

static void check(struct ck *ck, struct ck_random *random, const struct sum_case *c)
{
    ck_case(ck, "rank %u of %u, %u bytes, epoch %u%s%s", c->me, c->ranks, c->bytes, c->epoch,
            c->in_place ? ", in place" : "", c->gathers ? ", gathered" : "");
    struct sum_buffers b = make(ck, random, c);
    for (uint32_t i = 0; i < EXCHANGES; i++) {
        exchange(ck, random, c, &b);
        count(c, &b);
    }
    stop(ck, c, &b);
    drop(ck, c, &b);
}

void ck_all_reduce_run(struct ck *ck)
{
    static const uint32_t bytes[] = {16, 4096, 4112, 1024, 8192, 12304};
    static const uint32_t epochs[] = {0, 1, UINT32_MAX - 1, 70000};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 60 : ck->quick ? 6 : 12;
    for (uint32_t i = 0; i < rounds; i++) {
        const uint32_t ranks = i % 3 ? 2 + ck_random_below(&random, 7) : 2;
        struct sum_case c = {.ranks = ranks,
                             .me = ck_random_below(&random, ranks),
                             .bytes = bytes[i % 6],
                             .epoch = epochs[i / 2 % 4],
                             .in_place = i % 2};
        check(ck, &random, &c);
        c.in_place = false;
        c.gathers = true;
        check(ck, &random, &c);
    }
    const struct sum_case largest = {.ranks = 2, .me = 1, .bytes = RT_ALL_REDUCE_MOST_BYTES};
    check(ck, &random, &largest);
}
