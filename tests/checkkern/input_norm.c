/* SPDX-License-Identifier: Apache-2.0 */
/*
 * input_norm: the residual is the reference's, bit for bit; what is normed is within one bf16
 * rounding of the norm, in double, of that residual.
 */
#include "kernels/ops/op_build.h"
#include "kernels/ref/norm.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POISON_BYTE 0xff
#define BF16_NAN 0x7fc0u
#define BF16_INFINITY 0x7f80u

struct norm_case {
    uint32_t tokens, width, gap; /* numbers between tokens */
    bool first, weights, in_place;
    bool dropped; /* with first: the residual is kept nowhere */
    float eps, offset, scale;
    float hidden_scale;
};

struct norm_buffers {
    struct ck_buffer hidden, residual, normed, weight;
};

static struct rt_input_norm_params params_of(const struct norm_case *c,
                                             const struct norm_buffers *b, enum ck_side side)
{
    return (struct rt_input_norm_params){
        .hidden = ck_at(c->in_place ? &b->residual : &b->hidden, side),
        .residual = c->dropped ? NULL : ck_at(&b->residual, side),
        .normed = ck_at(&b->normed, side),
        .stride = c->width + c->gap,
        .norm = {.weight = c->weights ? ck_at(&b->weight, side) : NULL,
                 .eps = c->eps,
                 .offset = c->offset,
                 .scale = c->scale,
                 .width = c->width},
        .tokens = c->tokens,
        .first = c->first,
        .hidden_scale = c->hidden_scale};
}

/* A token in one of many ways: as usual, huge, tiny, zeros, one NaN, one infinity. */
static void fill_token(struct ck_random *random, uint16_t *to, uint32_t width)
{
    static const double magnitudes[] = {1, 1, 1, 1e15, 1e-15, 0, 1, 1};
    const uint32_t kind = ck_random_below(random, 8);
    for (uint32_t i = 0; i < width; i++)
        to[i] = rt_float_to_bf16((float)(ck_random_normal(random) * magnitudes[kind]));
    if (kind >= 6)
        to[ck_random_below(random, width)] = kind == 6 ? BF16_NAN : BF16_INFINITY;
}

static struct norm_buffers make_buffers(struct ck *ck, struct ck_random *random,
                                        const struct norm_case *c)
{
    const uint64_t stride = c->width + c->gap, bytes = c->tokens * stride * 2;
    struct norm_buffers b = {.hidden = ck_alloc(ck, "hidden", bytes, POISON_BYTE),
                             .residual = ck_alloc(ck, "residual", bytes, POISON_BYTE),
                             .normed = ck_alloc(ck, "normed", bytes, POISON_BYTE),
                             .weight = ck_alloc(ck, "weight", c->width * 2, POISON_BYTE)};
    uint16_t *hidden = ck_at(&b.hidden, CK_REF), *residual = ck_at(&b.residual, CK_REF);
    uint16_t *weight = ck_at(&b.weight, CK_REF);
    for (uint32_t t = 0; t < c->tokens; t++) {
        fill_token(random, hidden + t * stride, c->width);
        if (!c->first || c->in_place) /* else it is poison, which nobody may add */
            fill_token(random, residual + t * stride, c->width);
    }
    for (uint32_t i = 0; i < c->width; i++)
        weight[i] =
            rt_float_to_bf16((float)(1.0 - (double)c->offset + ck_random_normal(random) / 4));
    ck_upload(ck, &b.hidden);
    ck_upload(ck, &b.residual);
    ck_upload(ck, &b.weight);
    return b;
}

static void free_buffers(struct ck *ck, struct norm_buffers *b)
{
    ck_free(ck, &b->hidden);
    ck_free(ck, &b->residual);
    ck_free(ck, &b->normed);
    ck_free(ck, &b->weight);
}

static bool same_number(uint16_t a, uint16_t b)
{
    const bool nans = (a & 0x7fffu) > BF16_INFINITY && (b & 0x7fffu) > BF16_INFINITY;
    return a == b || nans;
}

/* All of the buffer, gaps and guard included. */
static void compare_residual(struct ck *ck, const struct ck_buffer *b)
{
    const uint64_t bytes = b->bytes + CK_GUARD_BYTES;
    const uint16_t *expected = ck_at(b, CK_REF);
    uint16_t *found = ck_new(ck, bytes);
    ck_download(ck, b, found);
    for (uint64_t i = 0; i < bytes / 2; i++)
        if (!same_number(found[i], expected[i])) {
            ck_failed(ck, "residual, element %llu: 0x%04x, expected 0x%04x", (unsigned long long)i,
                      found[i], expected[i]);
            break;
        }
    free(found);
}

static void compare_normed(struct ck *ck, const struct norm_case *c, const struct norm_buffers *b)
{
    const uint64_t bytes = b->normed.bytes + CK_GUARD_BYTES, stride = c->width + c->gap;
    const struct rt_norm_view norm = params_of(c, b, CK_REF).norm;
    const uint16_t *residual = ck_at(c->dropped ? &b->hidden : &b->residual, CK_REF);
    uint16_t *found = ck_new(ck, bytes);
    float *x = ck_new(ck, c->width * sizeof(*x));
    struct ck_floats f = {.name = "normed", .rel_bound = 0x1p-99};
    ck_download(ck, &b->normed, found);
    for (uint32_t t = 0; t < c->tokens; t++) {
        for (uint32_t i = 0; i < c->width; i++)
            x[i] = rt_bf16_to_float(residual[t * stride + i]);
        rt_ref_norm(&norm, x, x, true);
        for (uint32_t i = 0; i < c->width; i++) {
            /* Half a unit of bf16's last place, and what float's sums and products add to it. */
            f.abs_bound = fabs((double)x[i]) * (0x1p-8 + 0x1p-20) + 0x1p-133;
            ck_floats_add(&f, (double)rt_bf16_to_float(found[t * stride + i]), (double)x[i],
                          (struct ck_place){t, 0, 0, i});
            found[t * stride + i] = 0xffffu; /* and what is left must be poison */
        }
    }
    ck_floats_end(ck, &f, 0);
    for (uint64_t i = 0; i < bytes / 2; i++)
        if (found[i] != 0xffffu) {
            ck_failed(ck, "normed, element %llu is written", (unsigned long long)i);
            break;
        }
    free(found);
    free(x);
}

static void check(struct ck *ck, struct ck_random *random, const struct norm_case *c)
{
    ck_case(ck, "%u tokens of %u, %u apart%s%s%s, eps %g, offset %g, scale %g, hidden times %g",
            c->tokens, c->width, c->gap, c->first ? ", first" : "",
            c->in_place  ? " in place"
            : c->dropped ? " and dropped"
                         : "",
            c->weights ? "" : ", no norm", (double)c->eps, (double)c->offset, (double)c->scale,
            (double)c->hidden_scale);
    struct norm_buffers b = make_buffers(ck, random, c);
    const struct rt_input_norm_params ref = params_of(c, &b, CK_REF);
    const struct rt_input_norm_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_input_norm(&ref);
    enum rt_status status = ck_build(ck, RT_OP_INPUT_NORM, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);
    compare_residual(ck, &b.residual);
    compare_normed(ck, c, &b);
    ck_expect_same(ck, &b.hidden);
    ck_expect_same(ck, &b.weight);
    free_buffers(ck, &b);
}

#define CHAIN 3u

/* Each reads what the one before it writes; launched one by one and as a chain they leave the same
 * bits. */
static void check_chain(struct ck *ck, struct ck_random *random)
{
    const struct norm_case c = {.tokens = 3,
                                .width = 5120,
                                .weights = true,
                                .eps = 1e-6f,
                                .scale = 1.0f,
                                .hidden_scale = 0.5f};
    ck_case(ck, "a chain");
    struct norm_buffers b = make_buffers(ck, random, &c);
    struct rt_input_norm_params p = params_of(&c, &b, CK_DEVICE);
    uint16_t *const to[CHAIN] = {p.normed, ck_at(&b.hidden, CK_DEVICE), p.normed};
    struct rt_launch launches[CHAIN];
    struct rt_error err = {0};
    for (uint32_t i = 0; i < CHAIN; i++) {
        p.normed = to[i];
        ck_must(ck, ck_build(ck, RT_OP_INPUT_NORM, &p, sizeof(p), &launches[i], &err), &err);
        p.hidden = to[i];
    }
    struct ck_buffer *outcome[] = {&b.residual, &b.normed};
    void *chained[2];
    ck_launch_chain(ck, launches, CHAIN);
    for (int i = 0; i < 2; i++) {
        chained[i] = ck_new(ck, outcome[i]->bytes + CK_GUARD_BYTES);
        ck_download(ck, outcome[i], chained[i]);
    }
    ck_upload(ck, &b.hidden);
    ck_upload(ck, &b.residual);
    for (uint32_t i = 0; i < CHAIN; i++)
        ck_launch(ck, RT_OK, &err, &launches[i]);
    for (int i = 0; i < 2; i++) {
        ck_download(ck, outcome[i], outcome[i]->ref);
        ck_expect_bytes(ck, outcome[i]->name, chained[i], outcome[i]->ref, outcome[i]->bytes);
        free(chained[i]);
    }
    free_buffers(ck, &b);
}

void ck_input_norm_run(struct ck *ck)
{
    static const uint32_t widths[] = {2048, 7168, 8,    4096,  4104, 5120, 6144,
                                      8192, 8200, 2560, 16384, 2304, 7680, 16376};
    static const float epsilons[] = {1e-6f, 1e-5f, 0.0f};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 560 : ck_is_brief(ck) ? 35 : 70;
    for (uint32_t i = 0; i < rounds; i++) {
        struct norm_case c = {.tokens = 1 + ck_random_below(&random, 6),
                              .width = widths[i % 14],
                              .gap = i % 3 ? 0 : 8 * (1 + ck_random_below(&random, 9)),
                              .first = ck_random_below(&random, 3) == 0,
                              .weights = ck_random_below(&random, 6) > 0,
                              .eps = epsilons[i / 2 % 3],
                              .offset = i % 5 == 1 ? 1.0f : 0.0f,
                              .scale = i % 7 == 2 ? 2.0f : 1.0f,
                              .hidden_scale = i % 2 ? 1.0f : 1.4f / sqrtf(62.0f)};
        c.in_place = c.first && ck_random_below(&random, 2);
        c.dropped = c.first && !c.in_place && ck_random_below(&random, 2);
        check(ck, &random, &c);
    }
    check(ck, &random,
          &(struct norm_case){.tokens = 700,
                              .width = 264,
                              .weights = true,
                              .eps = 1e-6f,
                              .scale = 1.0f,
                              .hidden_scale = 1.0f});
    check_chain(ck, &random);
}

#define BENCH_LAUNCHES 50

void ck_input_norm_bench(struct ck *ck)
{
    static const uint32_t batches[] = {1, 16, 64, 512}, widths[] = {2048, 7168};
    struct ck_random random = {.state = ck->seed};
    for (size_t i = 0; i < 8; i++) {
        const struct norm_case c = {.tokens = batches[i % 4],
                                    .width = widths[i / 4],
                                    .weights = true,
                                    .eps = 1e-6f,
                                    .scale = 1.0f,
                                    .hidden_scale = 1.0f};
        struct norm_buffers b = make_buffers(ck, &random, &c);
        const struct rt_input_norm_params p = params_of(&c, &b, CK_DEVICE);
        struct rt_launch launches[BENCH_LAUNCHES];
        struct rt_error err = {0};
        for (int l = 0; l < BENCH_LAUNCHES; l++)
            ck_must(ck, ck_build(ck, RT_OP_INPUT_NORM, &p, sizeof(p), &launches[l], &err), &err);
        printf("input_norm %4u tokens of %u: %8.2f us\n", c.tokens, c.width,
               ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
        free_buffers(ck, &b);
    }
}
