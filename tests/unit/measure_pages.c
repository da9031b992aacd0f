/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Noise of quantised caches: what bench attention compares kernels over must be the same numbers
 * whether or not a kernel rounds elements to bf16, and near the noise that it is made of.
 */
#include "bench/measure_pages.h"
#include "common/bf16.h"
#include "kernels/quant_view.h"
#include "kernels/ref/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define NOISE 4096u /* numbers */
#define PAGES 3u
#define GUARD 64u
#define SCALE 0.0625f
#define MOST_D_QK 576u

static uint16_t noise[NOISE];

/* Of both signs, 2^-5 to 2, as no cache has them twice. */
static int make_noise(void **state)
{
    (void)state;
    uint64_t s = 1;
    for (uint32_t i = 0; i < NOISE; i++) {
        s = s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        noise[i] = (uint16_t)((s >> 48 & 0x8000) | (122 + (s >> 40) % 6) << 7 | (s >> 50 & 0x7f));
    }
    return 0;
}

struct cache {
    const struct rt_kv_format *format;
    uint32_t page_size;
    struct rt_kv_view kv;
    struct rt_quant_view quant;
    unsigned char *bytes;
};

static struct cache make_cache(const struct rt_kv_format *format, uint32_t page_size)
{
    const uint64_t page_bytes = rt_kv_page_bytes(format, page_size);
    struct cache c = {.format = format, .page_size = page_size};
    c.bytes = malloc(PAGES * page_bytes + GUARD);
    assert_non_null(c.bytes);
    memset(c.bytes, 0xff, PAGES * page_bytes + GUARD); /* NaN, whatever begins there */
    rt_measure_make_pages(format, page_size, SCALE, noise, sizeof(noise), PAGES, c.bytes);
    for (uint32_t i = 0; i < GUARD; i++)
        assert_int_equal(c.bytes[PAGES * page_bytes + i], 0xff);
    c.kv = (struct rt_kv_view){.base = c.bytes,
                               .page_stride_bytes = (int64_t)page_bytes,
                               .token_stride_bytes = format->row_bytes,
                               .token_bytes = format->row_bytes,
                               .page_size = (int32_t)page_size};
    c.quant = rt_quant_view_make(format, &c.kv, SCALE);
    return c;
}

static bool is_power_of_2(float x)
{
    int log2;
    return x > 0 && isfinite(x) && frexpf(x, &log2) == 0.5f;
}

static float scale_of(const struct cache *c, struct rt_ref_quant_row row, uint32_t element)
{
    const uint32_t tile = element / c->quant.tile;
    float scale = SCALE;
    if (c->format->scale == RT_KV_SCALE_F32)
        memcpy(&scale, row.scales + tile * sizeof(scale), sizeof(scale));
    if (c->format->scale == RT_KV_SCALE_UE8M0)
        scale = ldexpf(1, row.scales[tile] - 127);
    return scale;
}

static void check_token(const struct cache *c, uint32_t token)
{
    const uint64_t slots = sizeof(noise) / 2 / RT_MEASURE_PLACE_BYTES;
    const uint16_t *from = noise + rt_measure_place(token, slots) * RT_MEASURE_PLACE_BYTES / 2;
    const struct rt_ref_quant_row row =
        rt_ref_quant_row(&c->kv, &c->quant, token / c->page_size, token % c->page_size);
    uint16_t read[MOST_D_QK];
    rt_ref_dequantise(&c->quant, row, c->format->d_qk, read);
    for (uint32_t e = 0; e < c->format->d_qk; e++) {
        const float made_of = rt_bf16_to_float(from[e]), is = rt_bf16_to_float(read[e]);
        if (e >= c->quant.fp8) {
            assert_int_equal(read[e], from[e]);
            continue;
        }
        const float scale = scale_of(c, row, e);
        const double product = rt_ref_of_e4m3(row.row[e]) * (double)scale;
        if (!is_power_of_2(scale) || (double)is != product ||
            !(fabsf(is - made_of) <= fmaxf(fabsf(made_of) / 16, scale / 1024)))
            fail_msg("%s %u/%u, pages of %u, token %u, element %u: %.9g of %.9g, scale %.9g",
                     c->format->name, c->format->d_qk, c->format->d_v, c->page_size, token, e,
                     (double)is, (double)made_of, (double)scale);
    }
}

static void numbers_are_the_same_rounded_or_not(void **state)
{
    (void)state;
    static const uint32_t d_qks[] = {576, 320, 288, 512}, d_vs[] = {512, 256, 256, 512};
    static const uint32_t page_sizes[] = {1, 8, 64};
    uint32_t formats = 0;
    for (int layout = RT_KV_BF16 + 1; layout <= RT_KV_V4; layout++)
        for (int g = 0; g < 4; g++)
            for (int p = 0; p < 3; p++) {
                struct rt_kv_format format;
                if (!rt_kv_format_make((enum rt_kv_layout)layout, RT_PRECISION_BF16, d_qks[g],
                                       d_vs[g], &format))
                    continue;
                struct cache c = make_cache(&format, page_sizes[p]);
                for (uint32_t token = 0; token < PAGES * c.page_size; token++)
                    check_token(&c, token);
                free(c.bytes);
                formats++;
            }
    assert_int_equal(formats, 13 * 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_the_same_rounded_or_not),
    };
    return cmocka_run_group_tests(tests, make_noise, NULL);
}
