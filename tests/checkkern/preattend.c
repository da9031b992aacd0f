/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preattend against the reference in f32, which has the same numbers at the same places: what the
 * kernel stores is within one bf16 rounding of it, and what the reference leaves alone stays as it
 * is, bit for bit.
 */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"
#include "tests/checkkern/preattend_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BF16_INFINITY 0x7f80u

/* ---- outcomes ---- */

/* Where a buffer's rotated numbers are: from `begin` on in each innermost piece; r 0: none. */
struct layout {
    int64_t row_stride, token_stride, head_stride;
    uint32_t begin, r;
    bool half_order;
};

static void layouts_of(const struct rt_preattend_params *p, int64_t number_bytes,
                       struct layout layouts[CK_PREATTEND_DATA])
{
    const struct layout none = {1, 1, 1, 0, 0, false};
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++)
        layouts[i] = none;
    const int64_t token = p->kv.token_stride_bytes / number_bytes;
    layouts[3] = (struct layout){p->q_out.row_stride, p->q_out.token_stride, p->q_out.head_stride,
                                 p->latent_dim,       p->rope_dim,           p->rope.half_order};
    layouts[4] = (struct layout){p->kv.page_stride_bytes / number_bytes,
                                 token,
                                 token,
                                 p->latent_dim,
                                 p->rope_dim,
                                 p->rope.half_order};
}

/* The other number of a rotated pair; of others the number itself. */
static int64_t partner_of(const struct layout *l, int64_t i)
{
    const int64_t d = i % l->row_stride % l->token_stride % l->head_stride - l->begin;
    if (d < 0 || d >= l->r)
        return i;
    if (l->half_order)
        return d < l->r / 2 ? i + l->r / 2 : i - l->r / 2;
    return d % 2 ? i - 1 : i + 1;
}

/* Half a unit of bf16's last place, and what sums and products of floats may be off by. */
static double bound_of(double truth, double partner)
{
    const double partners = isfinite(partner) ? fabs(partner) : 0;
    return fabs(truth) * 0x1p-8 + (fabs(truth) + partners) * 0x1p-20 + 0x1p-133;
}

static bool is_nan_bits(uint16_t bits)
{
    return (bits & 0x7fffu) > BF16_INFINITY;
}

/* `before` is what the buffer held. */
static void compare(struct ck *ck, const char *name, const uint16_t *before, const uint16_t *found,
                    const float *truth, uint64_t count, const struct layout *l)
{
    struct ck_floats f = {.name = name, .rel_bound = 0x1p-99};
    for (uint64_t i = 0; i < count; i++) {
        const struct ck_place place = {(uint32_t)(i / (uint64_t)l->row_stride), 0, 0,
                                       (uint32_t)(i % (uint64_t)l->row_stride)};
        uint32_t bits;
        memcpy(&bits, &truth[i], sizeof(bits));
        const bool kept = bits == (uint32_t)before[i] << 16;
        if (kept && found[i] == before[i])
            continue;
        if (kept && (!is_nan_bits(before[i]) || before[i] == CK_PREATTEND_POISON)) {
            ck_failed(ck, "%s, element %llu: 0x%04x became 0x%04x", name, (unsigned long long)i,
                      before[i], found[i]);
            return;
        }
        f.abs_bound = bound_of((double)truth[i], (double)truth[partner_of(l, (int64_t)i)]);
        ck_floats_add(&f, (double)rt_bf16_to_float(found[i]), (double)truth[i], place);
    }
    if (f.count > 0)
        ck_floats_end(ck, &f, 0);
}

/* The reference is one, whatever its numbers are: in bf16 the same, rounded. */
static void compare_references(struct ck *ck, const struct ck_buffer *b, const float *truth)
{
    const uint16_t *found = ck_at(b, CK_REF);
    for (uint64_t i = 0; i < (b->bytes + CK_GUARD_BYTES) / 2; i++) {
        const uint16_t expected = rt_float_to_bf16(truth[i]);
        if (found[i] == expected || (is_nan_bits(found[i]) && is_nan_bits(expected)))
            continue;
        ck_failed(ck, "the reference's %s in bf16, element %llu: 0x%04x, in f32 %.9g", b->name,
                  (unsigned long long)i, found[i], (double)truth[i]);
        return;
    }
}

/* What the data buffers hold, as it is and widened. */
static void widen(struct ck *ck, struct ck_preattend_buffers *b,
                  uint16_t *before[CK_PREATTEND_DATA], struct ck_preattend_truth *truth)
{
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++) {
        const uint64_t bytes = ck_preattend_nth(b, i)->bytes + CK_GUARD_BYTES;
        before[i] = ck_new(ck, bytes);
        memcpy(before[i], ck_preattend_nth(b, i)->ref, bytes);
        truth->data[i] = ck_new(ck, 2 * bytes);
        for (uint64_t n = 0; n < bytes / 2; n++)
            truth->data[i][n] = rt_bf16_to_float(before[i][n]);
    }
}

static void check(struct ck *ck, struct ck_random *random, const struct ck_preattend *c)
{
    ck_case(ck,
            "%u rows of %u, %u heads, P %u, L %u, R %u, width %u, page %u, row_base %u:%s%s%s%s%s%s"
            "%s%s%s%s%s, eps %g",
            c->rows, c->q_len, c->heads, c->p, c->l, c->r, c->width, c->page_size, c->row_base,
            c->q_a ? " q_a" : "", c->kv_a ? " kv_a" : "", c->q ? " q" : "",
            c->table ? ", turned" : "", c->half_order ? " in halves" : "",
            c->factors ? ", factors" : "", c->weights ? ", weights" : "",
            c->strided ? ", strided" : "", c->early ? ", early" : "", c->placed ? ", placed" : "",
            c->ragged ? ", ragged" : "", (double)c->eps);
    struct ck_preattend_buffers b = ck_preattend_fill(ck, random, c);
    struct ck_preattend_truth truth;
    uint16_t *before[CK_PREATTEND_DATA];
    ck_preattend_upload(ck, &b);
    widen(ck, &b, before, &truth);

    const struct rt_preattend_params exact = ck_preattend_params(c, &b, CK_REF, &truth);
    const struct rt_preattend_params ref = ck_preattend_params(c, &b, CK_REF, NULL);
    const struct rt_preattend_params device = ck_preattend_params(c, &b, CK_DEVICE, NULL);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_preattend(&exact);
    rt_ref_preattend(&ref);
    enum rt_status status = ck_build(ck, RT_OP_PREATTEND, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);

    struct layout layouts[CK_PREATTEND_DATA];
    layouts_of(&ref, 2, layouts);
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++) {
        const uint64_t bytes = ck_preattend_nth(&b, i)->bytes + CK_GUARD_BYTES;
        uint16_t *found = ck_new(ck, bytes);
        ck_download(ck, ck_preattend_nth(&b, i), found);
        compare_references(ck, ck_preattend_nth(&b, i), truth.data[i]);
        compare(ck, ck_preattend_nth(&b, i)->name, before[i], found, truth.data[i], bytes / 2,
                &layouts[i]);
        free(found);
        free(before[i]);
        free(truth.data[i]);
    }
    for (size_t i = CK_PREATTEND_DATA; i < CK_PREATTEND_BUFFERS; i++)
        ck_expect_same(ck, ck_preattend_nth(&b, i));
    ck_preattend_free(ck, &b);
}

/* ---- edges ---- */

#define CHAIN 3u

/* Positions written by a launch of append, which takes them for a token of 16 bytes. */
static struct rt_append_params positions_of(const struct ck_preattend_buffers *b)
{
    return (struct rt_append_params){
        .latent = {.base = ck_at(&b->kv_weight, CK_DEVICE)},
        .kv = {.base = ck_at(&b->position, CK_DEVICE),
               .table = ck_at(&b->slot, CK_DEVICE),
               .page_size = 1,
               .max_blocks = 1,
               .pages = 1,
               .token_bytes = 16},
        .rows = {.count = 1, .q_len = 1, .position = ck_at(&b->slot, CK_DEVICE)}};
}

/* Each reads what the one before it writes: q_a and q's P numbers are done again, q_out's become
 * kv_a. Launched one by one and as a chain they leave the same bits. */
static void check_chain(struct ck *ck, struct ck_random *random, bool early)
{
    const struct ck_preattend c = {.rows = 4,
                                   .q_len = 2,
                                   .heads = 9,
                                   .p = 64,
                                   .l = 256,
                                   .r = 32,
                                   .width = 768,
                                   .page_size = 16,
                                   .q_a = true,
                                   .kv_a = true,
                                   .q = true,
                                   .table = true,
                                   .factors = true,
                                   .weights = true,
                                   .early = early,
                                   .eps = 1e-6f,
                                   .scale = 1.0f};
    ck_case(ck, "a chain%s", early ? ", early" : " behind positions");
    struct ck_preattend_buffers b = ck_preattend_fill(ck, random, &c);
    memset(b.slot.ref, 0, b.slot.bytes);
    memcpy(b.position.ref, (const int32_t[]){15, 40, 3, 62}, 16);
    if (!early) /* the right ones come with the chain's first launch */
        memcpy(b.kv_weight.ref, (const int32_t[]){16, 33, 2, 7}, 16);

    const struct rt_append_params positions = positions_of(&b);
    struct rt_preattend_params p = ck_preattend_params(&c, &b, CK_DEVICE, NULL);
    struct rt_launch launches[CHAIN];
    struct rt_error err = {0};
    ck_must(ck, ck_build(ck, RT_OP_PREATTEND, &p, sizeof(p), &launches[1], &err), &err);
    launches[0] = launches[1];
    if (!early)
        ck_must(ck, ck_build(ck, RT_OP_APPEND, &positions, sizeof(positions), &launches[0], &err),
                &err);
    p.kv_a = (struct rt_tokens_view){p.q_out.base, p.q_out.row_stride, p.q_out.token_stride};
    ck_must(ck, ck_build(ck, RT_OP_PREATTEND, &p, sizeof(p), &launches[2], &err), &err);
    ck_preattend_upload(ck, &b);
    ck_launch_chain(ck, launches, CHAIN);
    void *chained[CK_PREATTEND_DATA];
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++) {
        chained[i] = ck_new(ck, ck_preattend_nth(&b, i)->bytes + CK_GUARD_BYTES);
        ck_download(ck, ck_preattend_nth(&b, i), chained[i]);
    }
    ck_preattend_upload(ck, &b);
    for (uint32_t i = 0; i < CHAIN; i++)
        ck_launch(ck, RT_OK, &err, &launches[i]);
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++) {
        ck_download(ck, ck_preattend_nth(&b, i), ck_preattend_nth(&b, i)->ref);
        ck_expect_bytes(ck, ck_preattend_nth(&b, i)->name, chained[i], ck_preattend_nth(&b, i)->ref,
                        ck_preattend_nth(&b, i)->bytes);
        free(chained[i]);
    }
    ck_preattend_free(ck, &b);
}

void ck_preattend_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 1000 : ck_is_brief(ck) ? 40 : 110;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct ck_preattend c = ck_preattend_draw(&random, i);
        check(ck, &random, &c);
    }
    /* More tokens than a block has warps, and than a wave has blocks. */
    struct ck_preattend large = ck_preattend_whole(ck_is_cuda(ck) ? 512 : 33, 2);
    large.slots = true;
    check(ck, &random, &large);
    check_chain(ck, &random, false);
    check_chain(ck, &random, true);
}

#define BENCH_LAUNCHES 50

void ck_preattend_bench(struct ck *ck)
{
    static const uint32_t batches[] = {1, 16, 64, 512};
    struct ck_random random = {.state = ck->seed};
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++)
        for (uint32_t early = 0; early < 2; early++) {
            struct ck_preattend c = ck_preattend_whole(batches[i], 1);
            c.early = early;
            struct ck_preattend_buffers b = ck_preattend_fill(ck, &random, &c);
            ck_preattend_upload(ck, &b);
            const struct rt_preattend_params p = ck_preattend_params(&c, &b, CK_DEVICE, NULL);
            struct rt_launch launches[BENCH_LAUNCHES];
            struct rt_error err = {0};
            for (int l = 0; l < BENCH_LAUNCHES; l++)
                ck_must(ck, ck_build(ck, RT_OP_PREATTEND, &p, sizeof(p), &launches[l], &err), &err);
            printf("preattend  batch %4u, 16 heads, 576/512%s: %8.2f us\n", c.rows,
                   early ? ", early" : "       ", ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
            ck_preattend_free(ck, &b);
        }
}
