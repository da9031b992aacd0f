/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preattend_quant, with every layout: its cache is bit for bit what quantising makes of the bf16
 * cache that preattend leaves of the same inputs on the same device, and all else is preattend's.
 * preattend.c holds preattend itself to its reference, append_quant.c what quantises.
 */
#include "kernels/ops/op_build.h"
#include "kernels/quant_view.h"
#include "kernels/ref/quant.h"
#include "tests/checkkern/preattend_case.h"
#include "tests/checkkern/quant_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POISON_BYTE 0xa5
#define KV 4u /* which of the buffers that are written is the cache */

/* The quantised cache beside the case's own: as many pages of as many rows. */
static struct rt_kv_view quantised_kv(const struct rt_kv_format *format, bool strided,
                                      const struct rt_kv_view *plain)
{
    const int64_t gap = strided ? 32 : 0, rows = plain->page_size;
    const int64_t apart = format->token_bytes - format->row_bytes;
    struct rt_kv_view kv = *plain;
    kv.token_stride_bytes = format->row_bytes + gap;
    kv.page_stride_bytes = (rows * (kv.token_stride_bytes + apart) + 15) / 16 * 16 + gap;
    kv.token_bytes = format->row_bytes;
    return kv;
}

/* What has been written of the bf16 cache, quantised, into a cache of POISON_BYTE. */
static void quantise_written(const struct rt_kv_view *plain, const struct rt_kv_view *kv,
                             const struct rt_quant_view *quant, uint32_t d_qk)
{
    for (uint32_t page = 0; page < plain->pages; page++)
        for (uint32_t row = 0; row < plain->page_size; row++) {
            const uint16_t *key =
                (const uint16_t *)(const void *)(plain->base + page * plain->page_stride_bytes +
                                                 row * plain->token_stride_bytes);
            bool written = false;
            for (uint32_t i = 0; i < d_qk; i++)
                written |= key[i] != CK_PREATTEND_POISON;
            if (written)
                rt_ref_quantise(quant, key, d_qk, rt_ref_quant_row(kv, quant, page, row));
        }
}

static void launch(struct ck *ck, enum rt_op_id op, const void *params, size_t bytes)
{
    struct rt_launch launch;
    struct rt_error err = {0};
    const enum rt_status status = ck_build(ck, op, params, bytes, &launch, &err);
    ck_launch(ck, status, &err, &launch);
}

static void check(struct ck *ck, struct ck_random *random, const struct ck_preattend *c,
                  const struct rt_kv_format *format)
{
    ck_case(ck, "%s of %u: %u rows of %u, %u heads, page %u, row_base %u%s%s%s%s%s", format->name,
            format->d_qk, c->rows, c->q_len, c->heads, c->page_size, c->row_base,
            c->q_a ? ", q_a" : "", c->q ? ", q" : "", c->strided ? ", strided" : "",
            c->half_order ? ", in halves" : "", c->placed ? ", placed" : "");
    struct ck_preattend_buffers b = ck_preattend_fill(ck, random, c);
    const struct rt_preattend_params plain = ck_preattend_params(c, &b, CK_DEVICE, NULL);
    struct rt_preattend_quant_params p = {.preattend = plain};
    p.preattend.kv = quantised_kv(format, c->strided, &plain.kv);
    p.quant = rt_quant_view_make(format, &p.preattend.kv, 0.0117f);
    struct ck_buffer cache =
        ck_alloc(ck, "quantised kv",
                 p.preattend.kv.pages * (uint64_t)p.preattend.kv.page_stride_bytes, POISON_BYTE);
    p.preattend.kv.base = ck_at(&cache, CK_DEVICE);

    /* What preattend leaves is what is expected: it becomes the reference's side. */
    void *found[CK_PREATTEND_DATA];
    ck_preattend_upload(ck, &b);
    launch(ck, RT_OP_PREATTEND, &plain, sizeof(plain));
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++) {
        found[i] = ck_new(ck, ck_preattend_nth(&b, i)->bytes + CK_GUARD_BYTES);
        ck_download(ck, ck_preattend_nth(&b, i), found[i]);
    }
    ck_preattend_upload(ck, &b);
    launch(ck, RT_OP_PREATTEND_QUANT, &p, sizeof(p));

    struct rt_kv_view from = plain.kv, to = p.preattend.kv;
    from.base = found[KV];
    to.base = ck_at(&cache, CK_REF);
    quantise_written(&from, &to, &p.quant, format->d_qk);
    ck_expect_same(ck, &cache);
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++) {
        struct ck_buffer *data = ck_preattend_nth(&b, i);
        if (i != KV) /* which nobody writes now */
            memcpy(data->ref, found[i], data->bytes + CK_GUARD_BYTES);
        ck_expect_same(ck, data);
        free(found[i]);
    }
    ck_free(ck, &cache);
    ck_preattend_free(ck, &b);
}

void ck_preattend_quant_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 300 : 3 * CK_FORMATS;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct rt_kv_format format = ck_format_make(i % CK_FORMATS);
        struct ck_preattend c = ck_preattend_draw(&random, i);
        c.kv_a = true;
        c.l = format.d_v;
        c.r = format.d_qk - format.d_v;
        check(ck, &random, &c, &format);
    }
}

/* ---- on time ---- */

#define BENCH_LAUNCHES 50

/* bf16: preattend. */
static void bench(struct ck *ck, struct ck_random *random, uint32_t rows, enum rt_kv_layout layout)
{
    const struct ck_preattend c = ck_preattend_whole(rows, 1);
    struct rt_kv_format format;
    struct ck_preattend_buffers b = ck_preattend_fill(ck, random, &c);
    const struct rt_preattend_params plain = ck_preattend_params(&c, &b, CK_DEVICE, NULL);
    struct rt_preattend_quant_params p = {.preattend = plain};
    struct rt_launch launches[BENCH_LAUNCHES];
    struct rt_error err = {0};
    const bool quantised = layout != RT_KV_BF16;
    (void)rt_kv_format_make(layout, RT_PRECISION_BF16, 576, 512, &format);
    if (quantised) { /* in the memory of the plain cache, which is larger */
        p.preattend.kv = quantised_kv(&format, false, &plain.kv);
        p.quant = rt_quant_view_make(&format, &p.preattend.kv, 0.0117f);
    }
    ck_preattend_upload(ck, &b);
    for (int l = 0; l < BENCH_LAUNCHES; l++)
        ck_must(ck,
                ck_build(ck, quantised ? RT_OP_PREATTEND_QUANT : RT_OP_PREATTEND, &p,
                         quantised ? sizeof(p) : sizeof(plain), &launches[l], &err),
                &err);
    printf("preattend_quant  batch %4u, 16 heads, 576/512, %-10s: %8.2f us\n", rows, format.name,
           ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
    ck_preattend_free(ck, &b);
}

void ck_preattend_quant_bench(struct ck *ck)
{
    static const uint32_t batches[] = {1, 64, 512};
    static const enum rt_kv_layout layouts[] = {RT_KV_BF16, RT_KV_FP8_TENSOR, RT_KV_FP8_TOKEN,
                                                RT_KV_V32};
    struct ck_random random = {.state = ck->seed};
    for (size_t b = 0; b < sizeof(batches) / sizeof(batches[0]); b++)
        for (size_t l = 0; l < sizeof(layouts) / sizeof(layouts[0]); l++)
            bench(ck, &random, batches[b], layouts[l]);
}
