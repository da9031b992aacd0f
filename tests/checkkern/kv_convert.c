/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_convert from every layout to every other of its geometry, bit for bit the reference's,
 * whatever tables and lengths hold; and of the reference itself: ways that say to be exact are.
 */
#include "common/bf16.h"
#include "kernels/ops/op_build.h"
#include "kernels/quant_view.h"
#include "kernels/ref/quant.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"
#include "tests/checkkern/quant_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POISON_BYTE 0x77
#define COLUMNS 3u

struct convert_case {
    struct rt_kv_format from, to;
    float from_scale, to_scale; /* of those with one scale for all */
    uint32_t rows, from_page, to_page, max_length;
    bool strided;
    bool plain; /* numbers alike, as most are, whose scales are powers of two */
};

struct convert_buffers {
    struct ck_buffer from, to, from_table, to_table, length;
};

static struct rt_kv_view view_of(const struct convert_case *c, const struct rt_kv_format *format,
                                 uint32_t page_size, const struct ck_buffer *pool,
                                 const struct ck_buffer *table, enum ck_side side)
{
    const int64_t gap = c->strided ? 16 : 0, apart = format->token_bytes - format->row_bytes;
    struct rt_kv_view kv = {.base = ck_at(pool, side),
                            .table = ck_at(table, side),
                            .token_stride_bytes = format->row_bytes + gap,
                            .page_size = page_size,
                            .max_blocks = COLUMNS,
                            .pages = c->rows * COLUMNS + 1,
                            .token_bytes = format->row_bytes};
    kv.page_stride_bytes = (page_size * (kv.token_stride_bytes + apart) + 15) / 16 * 16 + 2 * gap;
    return kv;
}

static struct rt_kv_convert_params params_of(const struct convert_case *c,
                                             const struct convert_buffers *b, enum ck_side side)
{
    struct rt_kv_convert_params p = {
        .from = view_of(c, &c->from, c->from_page, &b->from, &b->from_table, side),
        .to = view_of(c, &c->to, c->to_page, &b->to, &b->to_table, side),
        .length = ck_at(&b->length, side),
        .rows = c->rows,
        .max_length = c->max_length,
        .d_qk = c->from.d_qk,
        .copies = c->from.layout == c->to.layout && c->from_scale == c->to_scale};
    p.from_quant = rt_quant_view_of_any(&c->from, &p.from, c->from_scale);
    p.to_quant = rt_quant_view_of_any(&c->to, &p.to, c->to_scale);
    return p;
}

static struct convert_buffers make(struct ck *ck, const struct convert_case *c)
{
    const struct convert_buffers none = {0};
    const struct rt_kv_convert_params p = params_of(c, &none, CK_REF);
    const uint64_t table_bytes = 4ull * c->rows * COLUMNS;
    return (struct convert_buffers){
        .from = ck_alloc(ck, "from", p.from.pages * (uint64_t)p.from.page_stride_bytes, 0),
        .to = ck_alloc(ck, "to", p.to.pages * (uint64_t)p.to.page_stride_bytes, POISON_BYTE),
        .from_table = ck_alloc(ck, "from's table", table_bytes, 0),
        .to_table = ck_alloc(ck, "to's table", table_bytes, 0),
        .length = ck_alloc(ck, "lengths", 4ull * c->rows, 0)};
}

/* Each row's pages are its own; now and then one that there is not. */
static void fill_table(struct ck_random *random, const struct convert_case *c,
                       struct ck_buffer *table)
{
    const int32_t none[] = {-1, INT32_MAX, (int32_t)(c->rows * COLUMNS) + 1};
    int32_t *at = ck_at(table, CK_REF);
    for (uint32_t i = 0; i < c->rows * COLUMNS; i++)
        at[i] = ck_random_below(random, 9) ? (int32_t)(c->rows * COLUMNS - 1 - i)
                                           : none[ck_random_below(random, 3)];
}

/* Numbers as they come in models, of a few magnitudes; zeros, NaN and infinities among them where
 * they are not plain. */
static void fill_tokens(struct ck_random *random, const struct rt_kv_view *kv,
                        const struct rt_quant_view *quant, uint32_t d_qk, bool plain)
{
    static const float magnitudes[] = {1, 1e-3f, 300, 1, 0};
    uint16_t token[RT_KV_CONVERT_MOST_WIDTH];
    for (uint32_t page = 0; page < kv->pages; page++)
        for (uint32_t row = 0; row < kv->page_size; row++) {
            const float by = magnitudes[ck_random_below(random, plain ? 3 : 5)];
            for (uint32_t i = 0; i < d_qk; i++)
                token[i] = rt_float_to_bf16(by * (float)ck_random_normal(random));
            if (!plain && ck_random_below(random, 8) == 0)
                token[ck_random_below(random, d_qk)] = row % 2 ? 0x7fc0 : 0xff80;
            rt_ref_quantise(quant, token, d_qk, rt_ref_quant_row(kv, quant, page, row));
        }
}

static void fill(struct ck_random *random, const struct convert_case *c, struct convert_buffers *b)
{
    const struct rt_kv_convert_params p = params_of(c, b, CK_REF);
    const int32_t edges[] = {0, -1, INT32_MAX, INT32_MIN, (int32_t)c->max_length};
    int32_t *length = ck_at(&b->length, CK_REF);
    fill_tokens(random, &p.from, &p.from_quant, p.d_qk, c->plain);
    fill_table(random, c, &b->from_table);
    fill_table(random, c, &b->to_table);
    for (uint32_t r = 0; r < c->rows; r++)
        length[r] = ck_random_below(random, 3) ? (int32_t)ck_random_below(random, c->max_length + 5)
                                               : edges[ck_random_below(random, 5)];
}

/* bf16 has many NaN, and a device its own. */
static void expect_numbers(struct ck *ck, const struct ck_buffer *b, bool plain)
{
    uint16_t *found = ck_new(ck, b->bytes + CK_GUARD_BYTES), *expected = ck_at(b, CK_REF);
    ck_download(ck, b, found);
    for (uint64_t i = 0; plain && i < b->bytes / 2; i++)
        if ((found[i] & 0x7fffu) > 0x7f80u && (expected[i] & 0x7fffu) > 0x7f80u)
            found[i] = expected[i];
    ck_expect_bytes(ck, b->name, found, expected, b->bytes + CK_GUARD_BYTES);
    free(found);
}

static void check(struct ck *ck, struct ck_random *random, const struct convert_case *c)
{
    ck_case(ck, "%s to %s of %u/%u, %u rows, pages of %u to %u, up to %u tokens%s%s", c->from.name,
            c->to.name, c->from.d_qk, c->from.d_v, c->rows, c->from_page, c->to_page, c->max_length,
            c->strided ? ", strided" : "", c->plain ? ", plain" : "");
    struct convert_buffers b = make(ck, c);
    struct ck_buffer *all[] = {&b.from, &b.to, &b.from_table, &b.to_table, &b.length};
    fill(random, c, &b);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_upload(ck, all[i]);
    const struct rt_kv_convert_params ref = params_of(c, &b, CK_REF);
    const struct rt_kv_convert_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_kv_convert(&ref);
    const enum rt_status built =
        ck_build(ck, RT_OP_KV_CONVERT, &device, sizeof(device), &launch, &err);
    ck_launch(ck, built, &err, &launch);
    expect_numbers(ck, &b.to, c->to.layout == RT_KV_BF16);
    ck_expect_same(ck, &b.from);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

/* What a key of `from` is in bf16 is what it is in `to`: the ways that are exact. */
static void check_exact(struct ck *ck, struct ck_random *random, const struct rt_kv_format *from,
                        const struct rt_kv_format *to)
{
    enum { BYTES = 2 * RT_KV_CONVERT_MOST_WIDTH };
    _Alignas(16) unsigned char a[BYTES], b[BYTES];
    uint16_t before[RT_KV_CONVERT_MOST_WIDTH], after[RT_KV_CONVERT_MOST_WIDTH];
    const int32_t page = 0, length = 1;
    struct rt_kv_convert_params p = {.from = {.base = a,
                                              .table = &page,
                                              .page_size = 1,
                                              .max_blocks = 1,
                                              .pages = 1,
                                              .token_stride_bytes = from->row_bytes,
                                              .token_bytes = from->row_bytes},
                                     .to = {.base = b,
                                            .table = &page,
                                            .page_size = 1,
                                            .max_blocks = 1,
                                            .pages = 1,
                                            .token_stride_bytes = to->row_bytes,
                                            .token_bytes = to->row_bytes},
                                     .length = &length,
                                     .rows = 1,
                                     .max_length = 1,
                                     .d_qk = from->d_qk};
    ck_case(ck, "%s to %s of %u is exact", from->name, to->name, from->d_qk);
    p.from_quant = rt_quant_view_of_any(from, &p.from, 1);
    p.to_quant = rt_quant_view_of_any(to, &p.to, 1);
    for (uint32_t i = 0; i < 20; i++) {
        memset(a, 0, sizeof(a));
        memset(b, 0, sizeof(b));
        fill_tokens(random, &p.from, &p.from_quant, p.d_qk, false);
        rt_ref_kv_convert(&p);
        rt_ref_dequantise(&p.from_quant, rt_ref_quant_row(&p.from, &p.from_quant, 0, 0), p.d_qk,
                          before);
        rt_ref_dequantise(&p.to_quant, rt_ref_quant_row(&p.to, &p.to_quant, 0, 0), p.d_qk, after);
        for (uint32_t n = 0; n < p.d_qk; n++)
            if (before[n] != after[n] && (before[n] & 0x7fffu) <= 0x7f80u)
                ck_failed(ck, "number %u was 0x%04x and is 0x%04x", n, before[n], after[n]);
    }
}

static const struct {
    uint32_t d_qk, d_v;
} geometries[] = {{576, 512}, {320, 256}, {288, 256}, {512, 512}};

static bool format_of(uint32_t g, uint32_t layout, struct rt_kv_format *out)
{
    return rt_kv_format_make((enum rt_kv_layout)layout, RT_PRECISION_BF16, geometries[g].d_qk,
                             geometries[g].d_v, out);
}

/* Scales for all of a token, or more of it, become those for fewer; and all of them bf16. */
static bool is_exact(const struct rt_kv_format *from, const struct rt_kv_format *to)
{
    if (from->scale == RT_KV_SCALE_TENSOR)
        return false;
    return to->layout == RT_KV_BF16 ||
           (from->layout == RT_KV_FP8_TOKEN && to->scale == RT_KV_SCALE_F32);
}

/* From e4m3 to e4m3 by scales that are all powers of two: up to 2^9 apart, far apart, and so that
 * the largest numbers do not fit. */
static void check_powers(struct ck *ck, struct ck_random *random, const struct convert_case *like)
{
    static const float scales[] = {0.03125f, 0x1p-40f, 0x1p-9f};
    for (uint32_t i = 0; i < 3; i++) {
        struct convert_case c = *like;
        c.plain = true;
        c.from_scale = c.from.scale == RT_KV_SCALE_TENSOR ? 0.5f : 1;
        c.to_scale = c.to.scale == RT_KV_SCALE_TENSOR ? scales[i] : 1;
        c.max_length = 1 + ck_random_below(random, 40);
        if (i == 0 || c.to.scale == RT_KV_SCALE_TENSOR)
            check(ck, random, &c);
    }
}

void ck_kv_convert_run(struct ck *ck)
{
    static const uint32_t pages[] = {64, 16, 1, 8, 128, 5};
    struct ck_random random = {.state = ck->seed};
    struct convert_case c = {.plain = false};
    uint32_t i = 0;
    for (uint32_t g = 0; g < 4; g++)
        for (uint32_t from = RT_KV_BF16; from <= RT_KV_V4; from++)
            for (uint32_t to = RT_KV_BF16; to <= RT_KV_V4; to++, i++) {
                if (!format_of(g, from, &c.from) || !format_of(g, to, &c.to))
                    continue;
                c.from_page = pages[i % 6];
                c.to_page = pages[i / 2 % 6];
                c.from_scale = from == RT_KV_FP8_TENSOR ? 0.0117f : 1;
                c.to_scale = to != RT_KV_FP8_TENSOR ? 1 : i % 2 ? 0.0117f : 0.03125f;
                c.rows = 1 + i % 3;
                c.max_length = 1 + ck_random_below(&random, c.from_page * COLUMNS + 40);
                c.strided = i % 4 == 1;
                check(ck, &random, &c);
                if (is_exact(&c.from, &c.to) && from != to)
                    check_exact(ck, &random, &c.from, &c.to);
                if (rt_kv_is_quantised(&c.from) && rt_kv_is_quantised(&c.to) && from != to)
                    check_powers(ck, &random, &c);
            }
}

/* ---- on time ---- */

#define LAUNCHES 4
#define BENCH_PAGE 64u

static void bench(struct ck *ck, enum rt_kv_layout from, enum rt_kv_layout to, uint32_t rows,
                  uint32_t tokens)
{
    struct convert_case c = {.from_scale = 0.03125f,
                             .to_scale = 0.03125f,
                             .rows = rows,
                             .from_page = BENCH_PAGE,
                             .to_page = BENCH_PAGE,
                             .max_length = tokens};
    (void)format_of(0, from, &c.from);
    (void)format_of(0, to, &c.to);
    const uint32_t columns = (tokens + BENCH_PAGE - 1) / BENCH_PAGE, count = rows * columns;
    struct convert_buffers none = {0};
    struct rt_kv_convert_params p = params_of(&c, &none, CK_REF);
    struct convert_buffers b = {
        .from = ck_alloc(ck, "from", count * (uint64_t)p.from.page_stride_bytes, 0),
        .to = ck_alloc(ck, "to", count * (uint64_t)p.to.page_stride_bytes, 0),
        .from_table = ck_alloc(ck, "from's table", 4ull * count, 0),
        .to_table = ck_alloc(ck, "to's table", 4ull * count, 0),
        .length = ck_alloc(ck, "lengths", 4ull * rows, 0)};
    int32_t *const from_table = ck_at(&b.from_table, CK_REF);
    int32_t *const to_table = ck_at(&b.to_table, CK_REF), *length = ck_at(&b.length, CK_REF);
    for (uint32_t i = 0; i < count; i++)
        from_table[i] = to_table[count - 1 - i] = (int32_t)i;
    for (uint32_t r = 0; r < rows; r++)
        length[r] = (int32_t)tokens;
    struct ck_buffer *all[] = {&b.from, &b.to, &b.from_table, &b.to_table, &b.length};
    for (size_t i = 0; i < 5; i++)
        ck_upload(ck, all[i]);
    p = params_of(&c, &b, CK_DEVICE);
    p.from.max_blocks = p.to.max_blocks = columns;
    p.from.pages = p.to.pages = count;
    struct rt_launch launches[LAUNCHES];
    struct rt_error err = {0};
    for (int l = 0; l < LAUNCHES; l++)
        ck_must(ck, ck_build(ck, RT_OP_KV_CONVERT, &p, sizeof(p), &launches[l], &err), &err);
    const double ns = ck_time_ns(ck, launches, LAUNCHES);
    printf("kv_convert  %3u x %5u tokens, %-10s to %-10s: %8.2f us, %6.0f GB/s\n", rows, tokens,
           c.from.name, c.to.name, ns / 1e3,
           (double)rows * tokens * (c.from.token_bytes + c.to.token_bytes) / ns);
    for (size_t i = 0; i < 5; i++)
        ck_free(ck, all[i]);
}

void ck_kv_convert_bench(struct ck *ck)
{
    static const enum rt_kv_layout ways[][2] = {
        {RT_KV_BF16, RT_KV_BF16},     {RT_KV_BF16, RT_KV_V32},        {RT_KV_V32, RT_KV_BF16},
        {RT_KV_V32, RT_KV_FP8_TOKEN}, {RT_KV_BF16, RT_KV_FP8_TENSOR}, {RT_KV_V32, RT_KV_V32}};
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        bench(ck, ways[i][0], ways[i][1], 1, 8192);
        bench(ck, ways[i][0], ways[i][1], 64, 8192);
    }
}
