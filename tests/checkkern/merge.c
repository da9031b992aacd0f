/* SPDX-License-Identifier: Apache-2.0 */
/* merge: against the reference, within the bound of kernels/abi/merge.h. */
#include "common/bf16.h"
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAN_BYTE 0xff
#define POISON_BYTE 0x77

struct merge_case {
    uint32_t pieces, tokens, heads, v_dim, gap; /* gap: vectors of 8 numbers behind a head */
    int32_t live;
    float spread; /* of lse */
    bool has_live, lse_base2, no_lse, in_place, poisoned, sink;
};

struct merge_buffers {
    struct ck_buffer in, in_lse, out, out_lse, live, sink;
};

static uint32_t head_stride(const struct merge_case *c)
{
    return c->v_dim + 8 * c->gap;
}

static struct rt_merge_params params_of(const struct merge_case *c, const struct merge_buffers *b,
                                        enum ck_side side)
{
    const int64_t head = head_stride(c), token = head * c->heads, lse = c->heads + c->gap;
    struct rt_merge_params p = {
        .in = {ck_at(&b->in, side), token * c->tokens, token, head},
        .in_lse = {ck_at(&b->in_lse, side), lse * c->tokens, lse, 1},
        .out = {ck_at(c->in_place ? &b->in : &b->out, side), token, head},
        .out_lse = {ck_at(c->in_place ? &b->in_lse : &b->out_lse, side), lse, 1},
        .live = c->has_live ? ck_at(&b->live, side) : NULL,
        .sink = c->sink ? ck_at(&b->sink, side) : NULL,
        .pieces = c->pieces,
        .tokens = c->tokens,
        .heads = c->heads,
        .v_dim = c->v_dim,
        .lse_base2 = c->lse_base2,
    };
    if (c->no_lse)
        p.out_lse.base = NULL;
    return p;
}

/* Some see no key, which both infinities say: their vectors stay NaN, as do those of padding. */
static void fill(struct ck_random *random, const struct merge_case *c,
                 const struct rt_merge_params *p)
{
    const uint32_t live = rt_merge_live(p);
    for (uint64_t i = 0; i < (uint64_t)c->pieces * live * c->heads; i++) {
        const uint32_t piece = (uint32_t)(i / (live * c->heads));
        const uint32_t token = (uint32_t)(i / c->heads % live), head = (uint32_t)(i % c->heads);
        uint16_t *in = (uint16_t *)p->in.base + piece * p->in.piece_stride +
                       token * p->in.token_stride + head * p->in.head_stride;
        float *lse = (float *)p->in_lse.base + piece * p->in_lse.piece_stride +
                     token * p->in_lse.token_stride + head;
        const uint32_t kind = ck_random_below(random, c->poisoned ? 40 : 8);
        *lse = kind == 0   ? INFINITY
               : kind == 1 ? -INFINITY
               : kind == 8 ? NAN
                           : c->spread * (float)ck_random_normal(random);
        for (uint32_t d = 0; d < c->v_dim && kind > 1; d++)
            in[d] = rt_float_to_bf16((float)ck_random_normal(random));
        if (kind == 9)
            in[ck_random_below(random, c->v_dim)] = 0x7fc0; /* NaN, and of its number alone */
    }
}

static struct merge_buffers make(struct ck *ck, struct ck_random *random,
                                 const struct merge_case *c)
{
    const uint64_t vectors = (uint64_t)c->tokens * c->heads * head_stride(c) * 2;
    const uint64_t values = (uint64_t)c->tokens * (c->heads + c->gap) * 4;
    struct merge_buffers b = {.in = ck_alloc(ck, "in", c->pieces * vectors, NAN_BYTE),
                              .in_lse = ck_alloc(ck, "in_lse", c->pieces * values, NAN_BYTE),
                              .out = ck_alloc(ck, "out", vectors, POISON_BYTE),
                              .out_lse = ck_alloc(ck, "out_lse", values, POISON_BYTE),
                              .live = ck_alloc(ck, "live", 4, 0),
                              .sink = ck_alloc(ck, "sink", c->heads * 4, NAN_BYTE)};
    const struct rt_merge_params p = params_of(c, &b, CK_REF);
    *(int32_t *)ck_at(&b.live, CK_REF) = c->live;
    if (rt_merge_live(&p) > 0)
        fill(random, c, &p);
    ck_upload(ck, &b.in);
    ck_upload(ck, &b.in_lse);
    if (c->sink)
        ck_random_sinks(random, c->spread, ck_at(&b.sink, CK_REF), c->heads);
    ck_upload(ck, &b.live);
    ck_upload(ck, &b.sink);
    return b;
}

static void drop(struct ck *ck, struct merge_buffers *b)
{
    struct ck_buffer *all[] = {&b->in, &b->in_lse, &b->out, &b->out_lse, &b->live, &b->sink};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

/* ---- the bound ---- */

static void *copy_of(struct ck *ck, const struct ck_buffer *b)
{
    void *to = ck_new(ck, b->bytes + CK_GUARD_BYTES);
    ck_download(ck, b, to);
    return to;
}

/* What is within the bound, or NaN where the truth is, becomes the truth: then all bytes agree. */
static void take_near(float *found, float truth, double bound)
{
    const double difference = fabs((double)*found - (double)truth);
    if (*found == truth || difference <= bound || (isnan(*found) && isnan(truth)))
        *found = truth;
}

static void compare_out(struct ck *ck, const struct merge_case *c, const struct ck_buffer *b)
{
    uint16_t *found = copy_of(ck, b);
    const uint16_t *truth = ck_at(b, CK_REF);
    for (uint64_t i = 0; i < (uint64_t)c->tokens * c->heads * head_stride(c); i++) {
        const float want = rt_bf16_to_float(truth[i]);
        float got = rt_bf16_to_float(found[i]);
        /* Two roundings to bf16 of numbers that nearly agree; none that is summed is above 6. */
        take_near(&got, want, fabs((double)want) * 0x1p-7 + 6 * 0x1p-18);
        if (got == want || (isnan(got) && isnan(want)))
            found[i] = truth[i];
    }
    ck_expect_bytes(ck, "out", found, truth, b->bytes + CK_GUARD_BYTES);
    free(found);
}

static void compare_lse(struct ck *ck, const struct merge_case *c, const struct ck_buffer *b)
{
    float *found = copy_of(ck, b);
    const float *truth = ck_at(b, CK_REF);
    const double largest = 1 + 6 * (double)c->spread;
    for (uint64_t i = 0; i < (uint64_t)c->tokens * (c->heads + c->gap); i++) {
        take_near(&found[i], truth[i], largest * 0x1p-20);
        if (isnan(found[i]) && isnan(truth[i]))
            memcpy(&found[i], &truth[i], sizeof(*found)); /* another NaN is as good */
    }
    ck_expect_bytes(ck, "lse", found, truth, b->bytes + CK_GUARD_BYTES);
    free(found);
}

static void check(struct ck *ck, struct ck_random *random, const struct merge_case *c)
{
    ck_case(ck, "%u pieces of %u tokens, %u heads of %u, gap %u, live %d, spread %g%s%s%s%s%s",
            c->pieces, c->tokens, c->heads, c->v_dim, c->gap, c->has_live ? c->live : -1,
            (double)c->spread, c->lse_base2 ? ", base 2" : "", c->no_lse ? ", no lse" : "",
            c->in_place ? ", in place" : "", c->poisoned ? ", NaN" : "", c->sink ? ", sinks" : "");
    struct merge_buffers b = make(ck, random, c);
    const struct rt_merge_params ref = params_of(c, &b, CK_REF);
    const struct rt_merge_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_merge(&ref);
    const enum rt_status built = ck_build(ck, RT_OP_MERGE, &device, sizeof(device), &launch, &err);
    ck_launch(ck, built, &err, &launch);
    compare_out(ck, c, c->in_place ? &b.in : &b.out);
    compare_lse(ck, c, c->in_place ? &b.in_lse : &b.out_lse);
    if (!c->in_place) {
        ck_expect_same(ck, &b.in);
        ck_expect_same(ck, &b.in_lse);
    }
    drop(ck, &b);
}

void ck_merge_run(struct ck *ck)
{
    static const uint32_t dims[] = {128, 512, 8, 256, 64, 192, 264, 24};
    static const uint32_t pieces[] = {2, 1, 3, 4, 5, 9, 64, 8};
    static const float spreads[] = {1, 30, 0, 1000};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 400 : ck->quick ? 32 : 80;
    for (uint32_t i = 0; i < rounds; i++) {
        const uint32_t tokens = 1 + ck_random_below(&random, 9);
        const struct merge_case c = {
            .pieces = pieces[(i + i / 8) % 8],
            .tokens = tokens,
            .heads = 1 + ck_random_below(&random, 20),
            .v_dim = dims[i % 8],
            .gap = i % 3 == 0 ? 1 + ck_random_below(&random, 3) : 0,
            .live = i % 7 == 0 ? -5 : (int32_t)ck_random_below(&random, 2 * tokens),
            .spread = spreads[i / 2 % 4],
            .has_live = i % 4 == 3 || i % 7 == 0,
            .lse_base2 = i / 3 % 2,
            .no_lse = i % 11 == 5,
            .in_place = i % 5 == 4,
            .poisoned = i % 6 == 1,
            .sink = i % 5 % 2 == 0,
        };
        check(ck, &random, &c);
    }
}

/* ---- on time ---- */

#define LAUNCHES 8

void ck_merge_bench(struct ck *ck)
{
    static const uint32_t shapes[][4] = {
        {2, 2048, 16, 128}, {2, 8192, 16, 128}, {2, 8192, 128, 128}, {8, 64, 16, 512}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const uint32_t *s = shapes[i];
        const struct merge_case c = {
            .pieces = s[0], .tokens = s[1], .heads = s[2], .v_dim = s[3], .has_live = true};
        struct ck_random random = {.state = ck->seed};
        struct merge_buffers b = make(ck, &random, &c); /* live 0: nothing is filled in */
        struct rt_merge_params p = params_of(&c, &b, CK_DEVICE);
        struct rt_launch launches[LAUNCHES];
        struct rt_error err = {0};
        p.live = NULL;
        for (int l = 0; l < LAUNCHES; l++)
            ck_must(ck, ck_build(ck, RT_OP_MERGE, &p, sizeof(p), &launches[l], &err), &err);
        const double ns = ck_time_ns(ck, launches, LAUNCHES);
        const double bytes = (s[0] + 1.0) * s[1] * s[2] * (2.0 * s[3] + 4);
        printf("merge      %u pieces of %5u tokens, %3u heads of %3u: %8.2f us, %6.0f GB/s\n", s[0],
               s[1], s[2], s[3], ns / 1e3, bytes / ns);
        drop(ck, &b);
    }
}
