/* SPDX-License-Identifier: Apache-2.0 */
/*
 * append_quant: bit for bit as its reference does it; and the reference by a list of all that e4m3
 * can say: every element is the nearest of it, with the scale that the rule asks for.
 */
#include "kernels/quant_view.h"
#include "kernels/ref/quant.h"
#include "tests/checkkern/append_case.h"
#include "tests/checkkern/quant_case.h"

#include "common/bf16.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MOST_D 576
#define SCALE_BYTES 16
#define TENSOR_SCALE 0.0117f

/* The 127 magnitudes, written down by their definition: sixteen exponents of eight, less NaN. */
static double magnitude(uint32_t code)
{
    const uint32_t exponent = code >> 3, mantissa = code & 7;
    return exponent == 0 ? mantissa / 512.0 : (1 + mantissa / 8.0) * pow(2, (int)exponent - 7);
}

/* Of two that are as near, the even one. */
static uint8_t nearest(double x)
{
    uint8_t best = 0;
    if (isnan(x))
        return 0x7f;
    for (uint8_t code = 1; code < 0x7f; code++) {
        const double off = fabs(magnitude(code) - fabs(x)), least = fabs(magnitude(best) - fabs(x));
        if (off < least || (off == least && code % 2 == 0) || isinf(x))
            best = code;
    }
    return (uint8_t)(best | (signbit(x) ? 0x80 : 0));
}

enum kind { NORMAL, TINY, LARGE, EDGES, ZERO, ANY, KINDS };

static uint16_t draw(struct ck_random *random, enum kind kind)
{
    const float x = (float)ck_random_normal(random);
    const float edges[] = {448, 449, 464, 465, -448, 0x1p-6f, 0x1p-9f, 0x1p-10f, 0x1.8p-9f, -0.0f};
    switch (kind) {
    case TINY:
        return rt_float_to_bf16(x * 1e-37f);
    case LARGE:
        return rt_float_to_bf16(x * 1e37f);
    case EDGES:
        return rt_float_to_bf16(edges[ck_random_below(random, 10)]);
    case ZERO:
        return 0;
    case ANY:
        return (uint16_t)ck_random_u64(random);
    default:
        return rt_float_to_bf16(x);
    }
}

/* The scale of a tile by trying all: the least that leaves no finite number beyond 448. */
static double least_scale(const uint16_t *from, uint32_t count)
{
    for (int log2 = RT_QUANT_LEAST_LOG2; log2 < RT_QUANT_MOST_LOG2; log2++) {
        bool fits = true;
        for (uint32_t i = 0; i < count; i++)
            fits &= !(fabs((double)rt_bf16_to_float(from[i])) > 448 * pow(2, log2));
        if (fits)
            return pow(2, log2);
    }
    return pow(2, RT_QUANT_MOST_LOG2);
}

static double scale_in(const struct rt_quant_view *q, const unsigned char *scales, uint32_t tile)
{
    float scale = q->tensor_scale;
    if (q->scale_kind == RT_QUANT_SCALE_F32)
        memcpy(&scale, scales + 4 * (size_t)tile, sizeof(scale));
    return q->scale_kind == RT_QUANT_SCALE_UE8M0 ? pow(2, scales[tile] - 127) : (double)scale;
}

static void check_tile(struct ck *ck, const struct rt_quant_view *q, const uint16_t *token,
                       const struct rt_ref_quant_row *row, uint32_t tile)
{
    const uint32_t first = tile * q->tile;
    const double scale = scale_in(q, row->scales, tile);
    const bool by_tensor = q->scale_kind == RT_QUANT_SCALE_TENSOR;
    if (!by_tensor && scale != least_scale(token + first, q->tile))
        ck_failed(ck, "tile %u has scale %g, not %g", tile, scale,
                  least_scale(token + first, q->tile));
    for (uint32_t i = first; i < first + q->tile; i++) {
        const float x = rt_bf16_to_float(token[i]);
        const double scaled = by_tensor ? (double)(x * (1 / q->tensor_scale)) : (double)x / scale;
        if (row->row[i] != nearest(scaled)) {
            ck_failed(ck, "element %u, %g, is 0x%02x at scale %g, not 0x%02x", i, (double)x,
                      row->row[i], scale, nearest(scaled));
            return;
        }
    }
}

/* What comes back of a number that is within the tile's range: off by a sixteenth of it, or by half
 * of the least that e4m3 knows. */
static void check_back(struct ck *ck, const struct rt_quant_view *q, const uint16_t *token,
                       const struct rt_ref_quant_row *row, uint32_t d_qk)
{
    uint16_t back[MOST_D];
    rt_ref_dequantise(q, *row, d_qk, back);
    for (uint32_t i = 0; i < q->fp8; i++) {
        const double x = (double)rt_bf16_to_float(token[i]), y = (double)rt_bf16_to_float(back[i]);
        const double scale = scale_in(q, row->scales, i / q->tile);
        const double bound = fmax(fabs(x) / 16, scale / 1024) + fabs(x) / 128;
        if (isnan(x) ? !isnan(y) : fabs(x) <= 448 * scale && !(fabs(x - y) <= bound)) {
            ck_failed(ck, "element %u, %g, comes back as %g: off by more than %g", i, x, y, bound);
            return;
        }
    }
    if (memcmp(back + q->fp8, token + q->fp8, (d_qk - q->fp8) * sizeof(*token)) != 0)
        ck_failed(ck, "what is not quantised does not come back");
}

static void check_reference(struct ck *ck, struct ck_random *random, uint32_t f, enum kind kind)
{
    unsigned char row[2 * MOST_D] = {0}, scales[SCALE_BYTES], zeros[SCALE_BYTES] = {0};
    uint16_t token[MOST_D] = {0};
    const struct rt_kv_format format = ck_format_make(f);
    const uint32_t d_qk = format.d_qk;
    const struct rt_kv_view kv = {.page_size = 1, .token_stride_bytes = format.row_bytes};
    const struct rt_quant_view q = rt_quant_view_make(&format, &kv, TENSOR_SCALE);
    const struct rt_ref_quant_row to = {row, format.scales_apart ? scales : row + q.fp8};
    ck_case(ck, "the reference's %s of %u, numbers of kind %d", format.name, d_qk, (int)kind);
    memset(scales, 0x77, sizeof(scales));
    for (uint32_t i = 0; i < d_qk; i++)
        token[i] = draw(random, kind);
    rt_ref_quantise(&q, token, d_qk, to);
    const uint32_t tiles = q.fp8 / q.tile,
                   used = tiles * (q.scale_kind == RT_QUANT_SCALE_F32 ? 4 : 1);
    for (uint32_t tile = 0; tile < tiles; tile++)
        check_tile(ck, &q, token, &to, tile);
    check_back(ck, &q, token, &to, d_qk);
    if (q.scale_bytes > used && memcmp(to.scales + used, zeros, q.scale_bytes - used) != 0)
        ck_failed(ck, "behind the last tile's scale is something");
}

void ck_append_quant_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    for (uint32_t f = 0; f < CK_FORMATS; f++)
        for (uint32_t kind = 0; kind < KINDS; kind++)
            check_reference(ck, &random, f, (enum kind)kind);
    const uint32_t rounds = ck->full ? 400 : 5 * CK_FORMATS;
    for (uint32_t i = 0; i < rounds; i++) {
        struct ck_append c = ck_append_draw(&random, i, ck_formats[i % CK_FORMATS].d_qk,
                                            ck_formats[i % CK_FORMATS].d_v);
        c.layout = ck_formats[i % CK_FORMATS].layout;
        ck_append_check(ck, &random, &c);
    }
}

/* By slots, beside append_general of bf16, the first of each batch. */
void ck_append_quant_bench(struct ck *ck)
{
    static const uint32_t batches[] = {1, 64, 512};
    static const enum rt_kv_layout layouts[] = {RT_KV_BF16, RT_KV_FP8_TENSOR, RT_KV_FP8_TOKEN,
                                                RT_KV_V32};
    struct ck_random random = {.state = ck->seed};
    for (size_t b = 0; b < sizeof(batches) / sizeof(batches[0]); b++)
        for (size_t l = 0; l < sizeof(layouts) / sizeof(layouts[0]); l++) {
            const struct ck_append c = {.rows = batches[b],
                                        .q_len = 1,
                                        .d_qk = 576,
                                        .d_v = 512,
                                        .page_size = 64,
                                        .by_slots = true,
                                        .layout = layouts[l]};
            printf("append_quant  batch %4u, 576/512, %-10s: %8.2f us\n", c.rows,
                   rt_kv_layout_name(c.layout), ck_append_time_ns(ck, &random, &c) / 1e3);
        }
}
