/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preattend_sums: bit for bit what preattend leaves, on the same device and by the same reference,
 * of a q_a and a kv_a that hold the sums, rounded; the views it has in their place hold nothing.
 * preattend.c holds preattend itself to its reference. Sums are exact, so that their order, in
 * double or not, is no matter, and are mostly no numbers of bf16.
 */
#include "kernels/abi/preattend_sums.h"
#include "common/bf16.h"
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/preattend_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define Q_A 0u
#define KV_A 1u /* of the buffers */

struct sums {
    struct ck_buffer parts[2]; /* of q_a, of kv_a */
    int64_t stride;
    uint32_t count;
};

/* A number's parts: powers of two of it that add up to it, and a little more, which rounding to
 * bf16 takes away; of number i they are shifted by as many. */
static float part_of(float number, uint64_t i, uint32_t part, uint32_t count)
{
    static const float shares[RT_PREATTEND_MOST_PARTS][RT_PREATTEND_MOST_PARTS] = {
        {1}, {0.75f, 0.25f}, {0.5f, 0.375f, 0.125f}, {0.5f, 0.25f, 0.125f, 0.125f}};
    const float more = part == i % count ? 0x1p-10f : 0;
    return number * (shares[count - 1][(part + i) % count] + more);
}

/* Of what the buffers hold; zeros have no sign, for a sum of zeros has none. */
static struct sums make_sums(struct ck *ck, struct ck_preattend_buffers *b, uint32_t count)
{
    struct sums s = {.count = count};
    for (uint32_t which = 0; which < 2; which++) {
        const uint64_t numbers = ck_preattend_nth(b, which)->bytes / 2;
        if (s.stride < (int64_t)numbers)
            s.stride = (int64_t)(numbers + 3) / 4 * 4;
    }
    for (uint32_t which = 0; which < 2; which++) {
        struct ck_buffer *of = ck_preattend_nth(b, which);
        uint16_t *numbers = ck_at(of, CK_REF);
        s.parts[which] =
            ck_alloc(ck, which ? "sums of kv_a" : "sums of q_a", 4 * s.stride * count, 0xff);
        float *parts = ck_at(&s.parts[which], CK_REF);
        for (uint64_t i = 0; i < of->bytes / 2; i++) {
            numbers[i] = (numbers[i] & 0x7fffu) ? numbers[i] : 0;
            for (uint32_t part = 0; part < count; part++)
                parts[part * s.stride + i] = part_of(rt_bf16_to_float(numbers[i]), i, part, count);
        }
        ck_upload(ck, &s.parts[which]);
    }
    return s;
}

static struct rt_preattend_sums_params params_of(const struct rt_preattend_params *p,
                                                 const struct sums *s, enum ck_side side)
{
    return (struct rt_preattend_sums_params){.preattend = *p,
                                             .sums = {.q_a = ck_at(&s->parts[Q_A], side),
                                                      .kv_a = ck_at(&s->parts[KV_A], side),
                                                      .stride = s->stride,
                                                      .parts = s->count}};
}

static void launch(struct ck *ck, enum rt_op_id op, const void *params, size_t bytes)
{
    struct rt_launch launch;
    struct rt_error err = {0};
    const enum rt_status status = ck_build(ck, op, params, bytes, &launch, &err);
    ck_launch(ck, status, &err, &launch);
}

/* What nobody may read: kv_a, and q_a before it is written. */
static void poison(const struct ck_preattend *c, struct ck_preattend_buffers *b)
{
    for (uint32_t which = c->q_a ? Q_A : KV_A; which <= KV_A; which++)
        memset(ck_preattend_nth(b, which)->ref, 0xff, ck_preattend_nth(b, which)->bytes);
}

/* What is expected of it, in place of what the buffers hold on the reference's side. */
static void expect(struct ck_preattend_buffers *b, void *const found[CK_PREATTEND_DATA])
{
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++)
        if (i != KV_A) /* which nobody writes */
            memcpy(ck_preattend_nth(b, i)->ref, found[i], ck_preattend_nth(b, i)->bytes);
}

static void check(struct ck *ck, struct ck_random *random, const struct ck_preattend *c,
                  uint32_t count)
{
    ck_case(ck, "%u parts: %u rows of %u, width %u, L %u, R %u, row_base %u%s%s%s%s", count,
            c->rows, c->q_len, c->width, c->l, c->r, c->row_base, c->q_a ? ", q_a" : "",
            c->kv_a ? ", kv_a" : "", c->strided ? ", strided" : "",
            c->half_order ? ", in halves" : "");
    struct ck_preattend_buffers b = ck_preattend_fill(ck, random, c);
    struct sums s = make_sums(ck, &b, count);
    const struct rt_preattend_params device = ck_preattend_params(c, &b, CK_DEVICE, NULL);
    const struct rt_preattend_params ref = ck_preattend_params(c, &b, CK_REF, NULL);
    const struct rt_preattend_sums_params p = params_of(&device, &s, CK_DEVICE);
    const struct rt_preattend_sums_params ref_p = params_of(&ref, &s, CK_REF);
    void *before[CK_PREATTEND_DATA], *by_ref[CK_PREATTEND_DATA], *found[CK_PREATTEND_DATA];
    ck_preattend_upload(ck, &b);
    launch(ck, RT_OP_PREATTEND, &device, sizeof(device));
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++) {
        const struct ck_buffer *data = ck_preattend_nth(&b, i);
        before[i] = ck_new(ck, data->bytes);
        by_ref[i] = ck_new(ck, data->bytes);
        found[i] = ck_new(ck, data->bytes + CK_GUARD_BYTES);
        memcpy(before[i], data->ref, data->bytes);
        ck_download(ck, data, found[i]);
    }
    rt_ref_preattend(&ref);
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++) {
        memcpy(by_ref[i], ck_preattend_nth(&b, i)->ref, ck_preattend_nth(&b, i)->bytes);
        memcpy(ck_preattend_nth(&b, i)->ref, before[i], ck_preattend_nth(&b, i)->bytes);
    }

    poison(c, &b);
    ck_preattend_upload(ck, &b);
    launch(ck, RT_OP_PREATTEND_SUMS, &p, sizeof(p));
    rt_ref_preattend_sums(&ref_p);
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++)
        if (i != KV_A)
            ck_expect_bytes(ck, "the reference's", ck_preattend_nth(&b, i)->ref, by_ref[i],
                            ck_preattend_nth(&b, i)->bytes);
    expect(&b, found);
    for (size_t i = 0; i < CK_PREATTEND_BUFFERS; i++)
        ck_expect_same(ck, ck_preattend_nth(&b, i));
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++) {
        free(before[i]);
        free(by_ref[i]);
        free(found[i]);
    }
    for (uint32_t which = 0; which < 2; which++) {
        ck_expect_same(ck, &s.parts[which]);
        ck_free(ck, &s.parts[which]);
    }
    ck_preattend_free(ck, &b);
}

void ck_preattend_sums_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 300 : ck_is_brief(ck) ? 24 : 60;
    for (uint32_t i = 0; i < rounds; i++) {
        struct ck_preattend c = ck_preattend_draw(&random, i);
        c.weights = true;
        c.q_a = c.q_a || !c.kv_a;
        check(ck, &random, &c, 1 + i % RT_PREATTEND_MOST_PARTS);
    }
}

#define BENCH_LAUNCHES 50

void ck_preattend_sums_bench(struct ck *ck)
{
    static const uint32_t batches[] = {32, 64};
    struct ck_random random = {.state = ck->seed};
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++)
        for (uint32_t parts = 0; parts <= RT_PREATTEND_MOST_PARTS; parts += 2) {
            struct ck_preattend c = ck_preattend_whole(batches[i], 1);
            c.q = false;
            c.early = true;
            struct ck_preattend_buffers b = ck_preattend_fill(ck, &random, &c);
            struct sums s = make_sums(ck, &b, parts ? parts : 1);
            ck_preattend_upload(ck, &b);
            const struct rt_preattend_params plain = ck_preattend_params(&c, &b, CK_DEVICE, NULL);
            const struct rt_preattend_sums_params p = params_of(&plain, &s, CK_DEVICE);
            struct rt_launch launches[BENCH_LAUNCHES];
            struct rt_error err = {0};
            for (int l = 0; l < BENCH_LAUNCHES; l++)
                ck_must(ck,
                        ck_build(ck, parts ? RT_OP_PREATTEND_SUMS : RT_OP_PREATTEND,
                                 parts ? (const void *)&p : &plain,
                                 parts ? sizeof(p) : sizeof(plain), &launches[l], &err),
                        &err);
            printf("preattend_sums  batch %4u, q_a and kv_a of 576/512, %u parts: %8.2f us\n",
                   c.rows, parts, ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
            ck_free(ck, &s.parts[Q_A]);
            ck_free(ck, &s.parts[KV_A]);
            ck_preattend_free(ck, &b);
        }
}
