/* SPDX-License-Identifier: Apache-2.0 */
/*
 * context_merge: against the reference, within the bound of kernels/abi/merge.h, and bit for bit
 * rt_merge of what the ranks have. One rank's kernel runs, behind the others' reference, which has
 * sent; what it writes into mailboxes is known to the bit. Ranks that wait for each other:
 * tests/emu and tests/gpu.
 */
#include "common/bf16.h"
#include "common/context.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/mailbox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define POISON_BYTE 0x77
#define EXCHANGES 3u

struct context_case {
    uint32_t ranks, me, tokens, heads, v_dim, epoch; /* epoch: of the exchange before */
    float spread;                                    /* of lse */
};

struct context_buffers {
    struct ck_buffer given[RT_ALL_REDUCE_MOST_RANKS], mailbox[RT_ALL_REDUCE_MOST_RANKS];
    struct ck_buffer out, out_lse, stop;
    struct ck_buffer taken, merged, merged_lse; /* of rt_merge */
};

static uint32_t head_bytes(const struct context_case *c)
{
    return (uint32_t)rt_context_head_bytes(c->tokens, c->v_dim, 2);
}

static uint32_t blocks_of(const struct context_case *c)
{
    return rt_ceil_div_u32(c->tokens * c->heads * (c->v_dim / 8), RT_ALL_REDUCE_THREADS);
}

static struct rt_context_merge_params params_of(const struct context_case *c,
                                                const struct context_buffers *b, uint32_t rank,
                                                enum ck_side side)
{
    struct rt_context_merge_params p = {.given = ck_at(&b->given[rank], side),
                                        .out = ck_at(&b->out, side),
                                        .out_lse = ck_at(&b->out_lse, side),
                                        .stop = ck_at(&b->stop, side),
                                        .rank = rank,
                                        .ranks = c->ranks,
                                        .tokens = c->tokens,
                                        .heads = c->heads,
                                        .v_dim = c->v_dim,
                                        .head_bytes = head_bytes(c)};
    for (uint32_t r = 0; r < c->ranks; r++)
        p.mailbox[r] = ck_at(&b->mailbox[r], side);
    return p;
}

/* Some have seen no key, which both infinities say, and what is in their vectors is not read; an
 * lse of NaN, and a number of NaN alone. */
static void fill_given(struct ck_random *random, const struct context_case *c, struct ck_buffer *b)
{
    unsigned char *const base = ck_at(b, CK_REF);
    memset(base, 0xff, (size_t)b->bytes);
    for (uint32_t h = 0; h < c->ranks * c->heads; h++)
        for (uint32_t t = 0; t < c->tokens; t++) {
            unsigned char *const head = base + (uint64_t)h * head_bytes(c);
            uint16_t *const vector = (uint16_t *)(void *)head + (uint64_t)t * c->v_dim;
            float *const lse =
                (float *)(void *)(head + (uint64_t)c->tokens * c->v_dim * 2 + 4 * (uint64_t)t);
            const uint32_t kind = ck_random_below(random, 30);
            *lse = kind < 4    ? INFINITY
                   : kind == 4 ? -INFINITY
                   : kind == 5 ? NAN
                               : c->spread * (float)ck_random_normal(random);
            for (uint32_t d = 0; d < c->v_dim && kind > 4; d++)
                vector[d] = rt_float_to_bf16((float)ck_random_normal(random));
            if (kind == 6)
                vector[ck_random_below(random, c->v_dim)] = 0x7fc0;
        }
}

static struct context_buffers make(struct ck *ck, struct ck_random *random,
                                   const struct context_case *c)
{
    const uint64_t items = (uint64_t)c->tokens * c->heads;
    const uint64_t mailbox = rt_context_merge_mailbox_bytes(c->ranks, blocks_of(c));
    const uint64_t given = (uint64_t)c->ranks * c->heads * head_bytes(c);
    struct context_buffers b = {.out = ck_alloc(ck, "out", items * c->v_dim * 2, POISON_BYTE),
                                .out_lse = ck_alloc(ck, "out_lse", items * 4, POISON_BYTE),
                                .stop = ck_alloc_mapped(ck, "stop", 4, 0),
                                .taken = ck_alloc(ck, "taken", given, POISON_BYTE),
                                .merged = ck_alloc(ck, "merged", items * c->v_dim * 2, POISON_BYTE),
                                .merged_lse = ck_alloc(ck, "merged_lse", items * 4, POISON_BYTE)};
    for (uint32_t r = 0; r < c->ranks; r++) {
        b.given[r] = ck_alloc(ck, "given", given, 0xff);
        b.mailbox[r] = ck_alloc(ck, "mailbox", mailbox, 0);
        ck_mailbox_fill(random, c->ranks, blocks_of(c), RT_CONTEXT_MERGE_SLOT_BYTES, c->epoch,
                        &b.mailbox[r]);
    }
    return b;
}

static void drop(struct ck *ck, const struct context_case *c, struct context_buffers *b)
{
    struct ck_buffer *const all[] = {&b->out,   &b->out_lse, &b->stop,
                                     &b->taken, &b->merged,  &b->merged_lse};
    for (uint32_t r = 0; r < c->ranks; r++) {
        ck_free(ck, &b->given[r]);
        ck_free(ck, &b->mailbox[r]);
    }
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

/* ---- what is compared ------------------------------------------------------------------------ */

/* rt_merge of what an all-to-all would have brought. */
static void merge(struct ck *ck, const struct context_case *c, struct context_buffers *b)
{
    const int64_t head = head_bytes(c), piece = head * c->heads;
    const uint64_t lse_at = (uint64_t)c->tokens * c->v_dim * 2;
    unsigned char *const taken = ck_at(&b->taken, CK_REF);
    unsigned char *const device = ck_at(&b->taken, CK_DEVICE);
    const struct rt_merge_params p = {
        .in = {device, piece / 2, c->v_dim, head / 2},
        .in_lse = {device + lse_at, piece / 4, 1, head / 4},
        .out = {ck_at(&b->merged, CK_DEVICE), (int64_t)c->heads * c->v_dim, c->v_dim},
        .out_lse = {ck_at(&b->merged_lse, CK_DEVICE), c->heads, 1},
        .pieces = c->ranks,
        .tokens = c->tokens,
        .heads = c->heads,
        .v_dim = c->v_dim};
    struct rt_launch launch;
    struct rt_error err = {0};
    for (uint32_t r = 0; r < c->ranks; r++)
        memcpy(taken + r * piece,
               (const unsigned char *)ck_at(&b->given[r], CK_REF) + c->me * piece, (size_t)piece);
    ck_upload(ck, &b->taken);
    const enum rt_status built = ck_build(ck, RT_OP_MERGE, &p, sizeof(p), &launch, &err);
    ck_launch(ck, built, &err, &launch);
}

/* What is within the bound, or NaN where the truth is, becomes the truth. */
static void compare(struct ck *ck, const struct context_case *c, const struct context_buffers *b)
{
    const uint64_t items = (uint64_t)c->tokens * c->heads;
    uint16_t *const out = ck_new(ck, b->out.bytes + CK_GUARD_BYTES);
    float *const lse = ck_new(ck, b->out_lse.bytes + CK_GUARD_BYTES);
    const uint16_t *const truth = ck_at(&b->out, CK_REF);
    const float *const lse_truth = ck_at(&b->out_lse, CK_REF);
    ck_download(ck, &b->out, out);
    ck_download(ck, &b->out_lse, lse);
    for (uint64_t i = 0; i < items * c->v_dim; i++) {
        const double want = (double)rt_bf16_to_float(truth[i]);
        const double got = (double)rt_bf16_to_float(out[i]);
        if (fabs(want - got) <= fabs(want) * 0x1p-7 + 6 * 0x1p-18 || (isnan(want) && isnan(got)))
            out[i] = truth[i];
    }
    for (uint64_t i = 0; i < items; i++)
        if (fabs((double)lse[i] - (double)lse_truth[i]) <= (1 + 6 * (double)c->spread) * 0x1p-20 ||
            (isnan(lse[i]) && isnan(lse_truth[i])))
            memcpy(&lse[i], &lse_truth[i], sizeof(*lse));
    ck_expect_bytes(ck, "out", out, truth, b->out.bytes + CK_GUARD_BYTES);
    ck_expect_bytes(ck, "lse", lse, lse_truth, b->out_lse.bytes + CK_GUARD_BYTES);
    free(lse);
    free(out);
}

/* The kernel's bits are those of rt_merge, all of both being device code. */
static void compare_merged(struct ck *ck, const struct context_buffers *b)
{
    void *const out = ck_new(ck, b->out.bytes + CK_GUARD_BYTES);
    void *const merged = ck_new(ck, b->merged.bytes + CK_GUARD_BYTES);
    ck_download(ck, &b->out, out);
    ck_download(ck, &b->merged, merged);
    ck_expect_bytes(ck, "out beside rt_merge's", out, merged, b->out.bytes);
    ck_download(ck, &b->out_lse, out);
    ck_download(ck, &b->merged_lse, merged);
    ck_expect_bytes(ck, "lse beside rt_merge's", out, merged, b->out_lse.bytes);
    free(merged);
    free(out);
}

static void run_both(struct ck *ck, const struct context_case *c, const struct context_buffers *b)
{
    struct rt_launch launch;
    struct rt_error err = {0};
    const struct rt_context_merge_params ref = params_of(c, b, c->me, CK_REF);
    const struct rt_context_merge_params device = params_of(c, b, c->me, CK_DEVICE);
    const enum rt_status built =
        ck_build(ck, RT_OP_CONTEXT_MERGE, &device, sizeof(device), &launch, &err);
    rt_ref_context_merge(&ref);
    ck_launch(ck, built, &err, &launch);
}

static void exchange(struct ck *ck, struct ck_random *random, const struct context_case *c,
                     struct context_buffers *b)
{
    for (uint32_t r = 0; r < c->ranks; r++) {
        const struct rt_context_merge_params p = params_of(c, b, r, CK_REF);
        fill_given(random, c, &b->given[r]);
        if (r != c->me)
            rt_ref_context_merge_send(&p);
    }
    for (uint32_t r = 0; r < c->ranks; r++) {
        ck_upload(ck, &b->given[r]);
        ck_upload(ck, &b->mailbox[r]);
    }
    run_both(ck, c, b);
    compare(ck, c, b);
    merge(ck, c, b);
    compare_merged(ck, b);
    for (uint32_t r = 0; r < c->ranks; r++)
        ck_expect_same(ck, &b->mailbox[r]);
    ck_expect_same(ck, &b->given[c->me]);
}

/* The others go on as well. */
static void count(const struct context_case *c, struct context_buffers *b)
{
    for (uint32_t r = 0; r < c->ranks; r++)
        if (r != c->me)
            ck_mailbox_count(blocks_of(c), &b->mailbox[r]);
}

/* Nobody has sent, and the host says that nobody will: nothing is written but what is sent. */
static void stop(struct ck *ck, const struct context_case *c, struct context_buffers *b)
{
    *(int32_t *)ck_at(&b->stop, CK_REF) = 1;
    memset(ck_at(&b->out, CK_REF), POISON_BYTE, (size_t)b->out.bytes);
    memset(ck_at(&b->out_lse, CK_REF), POISON_BYTE, (size_t)b->out_lse.bytes);
    ck_upload(ck, &b->stop);
    ck_upload(ck, &b->out);
    ck_upload(ck, &b->out_lse);
    for (uint32_t r = 0; r < c->ranks; r++)
        ck_upload(ck, &b->mailbox[r]); /* the others have counted */
    run_both(ck, c, b);
    ck_expect_same(ck, &b->out);
    ck_expect_same(ck, &b->out_lse);
    for (uint32_t r = 0; r < c->ranks; r++)
        ck_expect_same(ck, &b->mailbox[r]);
}

static void check(struct ck *ck, struct ck_random *random, const struct context_case *c)
{
    ck_case(ck, "rank %u of %u, %u tokens, %u heads of %u, epoch %u, spread %g", c->me, c->ranks,
            c->tokens, c->heads, c->v_dim, c->epoch, (double)c->spread);
    struct context_buffers b = make(ck, random, c);
    for (uint32_t i = 0; i < EXCHANGES; i++) {
        exchange(ck, random, c, &b);
        count(c, &b);
    }
    stop(ck, c, &b);
    drop(ck, c, &b);
}

void ck_context_merge_run(struct ck *ck)
{
    static const uint32_t epochs[] = {0, 1, UINT32_MAX - 1, 70000};
    static const float spreads[] = {0, 3, 200};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 40 : ck->quick ? 5 : 10;
    for (uint32_t i = 0; i < rounds; i++) {
        const uint32_t ranks = i % 3 ? 2 + ck_random_below(&random, 7) : 2;
        const struct context_case c = {.ranks = ranks,
                                       .me = ck_random_below(&random, ranks),
                                       .tokens = 1 + ck_random_below(&random, i % 2 ? 9 : 3),
                                       .heads = 1 + ck_random_below(&random, 8),
                                       .v_dim = i % 2 ? 256 : 512,
                                       .epoch = epochs[i % 4],
                                       .spread = spreads[i % 3]};
        check(ck, &random, &c);
    }
    const struct context_case largest = {
        .ranks = 2, .me = 1, .tokens = 4, .heads = 64, .v_dim = 512, .spread = 3};
    check(ck, &random, &largest);
}
