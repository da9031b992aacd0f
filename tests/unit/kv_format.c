/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts of the cache: which geometries have them, and every byte of their tokens. */
#include "common/kv_format.h"
#include "kernels/quant_view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct expected {
    enum rt_kv_layout layout;
    uint32_t d_qk, d_v, token_bytes, row_bytes, fp8, tile, scale_bytes, rest_offset;
} formats[] = {
    {RT_KV_BF16, 576, 512, 1152, 1152, 0, 0, 0, 0},
    {RT_KV_BF16, 320, 256, 640, 640, 0, 0, 0, 0},
    {RT_KV_BF16, 288, 256, 576, 576, 0, 0, 0, 0},
    {RT_KV_BF16, 512, 512, 1024, 1024, 0, 0, 0, 0},
    {RT_KV_FP8_TENSOR, 576, 512, 576, 576, 576, 576, 0, 576},
    {RT_KV_FP8_TENSOR, 320, 256, 320, 320, 320, 320, 0, 320},
    {RT_KV_FP8_TENSOR, 288, 256, 288, 288, 288, 288, 0, 288},
    {RT_KV_FP8_TENSOR, 512, 512, 512, 512, 512, 512, 0, 512},
    {RT_KV_FP8_TOKEN, 576, 512, 644, 640, 512, 512, 4, 512},
    {RT_KV_FP8_TOKEN, 320, 256, 388, 384, 256, 256, 4, 256},
    {RT_KV_FP8_TOKEN, 288, 256, 324, 320, 256, 256, 4, 256},
    {RT_KV_FP8_TOKEN, 512, 512, 516, 512, 512, 512, 4, 512},
    {RT_KV_V32, 576, 512, 656, 656, 512, 128, 16, 528},
    {RT_KV_V32, 320, 256, 400, 400, 256, 128, 16, 272},
    {RT_KV_V32, 288, 256, 336, 336, 256, 128, 16, 272},
    {RT_KV_V32_NO_ROPE, 512, 512, 528, 528, 512, 128, 16, 528},
    {RT_KV_V4, 512, 512, 584, 576, 448, 64, 8, 448},
};
#define FORMATS (sizeof(formats) / sizeof(formats[0]))

static void test_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < FORMATS; i++) {
        const struct expected *e = &formats[i];
        struct rt_kv_format f;
        assert_true(rt_kv_format_make(e->layout, RT_PRECISION_BF16, e->d_qk, e->d_v, &f));
        assert_string_equal(f.name, rt_kv_layout_name(e->layout));
        assert_int_equal(f.token_bytes, e->token_bytes);
        assert_int_equal(f.row_bytes, e->row_bytes);
        assert_int_equal(f.row_bytes % 16, 0);
        assert_int_equal(f.fp8_elements, e->fp8);
        assert_int_equal(f.tile_elements, e->tile);
        assert_int_equal(f.scale_bytes, e->scale_bytes);
        assert_int_equal(rt_kv_is_quantised(&f), e->layout != RT_KV_BF16);
        assert_int_equal(f.element_bytes, e->layout == RT_KV_BF16 ? 2 : 0);
        for (uint32_t page = 16; page <= 128; page *= 2) /* those of a runtime leave no gap */
            assert_int_equal(rt_kv_page_bytes(&f, page), page * f.token_bytes);
    }
    struct rt_kv_format v4;
    assert_true(rt_kv_format_make(RT_KV_V4, RT_PRECISION_BF16, 512, 512, &v4));
    assert_int_equal(rt_kv_page_bytes(&v4, 1), 592); /* 584, and what is missing to 16 */
}

/* Rows that are gaps apart: scales in them go with them, others begin behind the last. */
static void test_views(void **state)
{
    (void)state;
    for (size_t i = 0; i < FORMATS; i++) {
        const struct expected *e = &formats[i];
        const struct rt_kv_view kv = {.page_size = 32, .token_stride_bytes = 1024};
        struct rt_kv_format f;
        assert_true(rt_kv_format_make(e->layout, RT_PRECISION_BF16, e->d_qk, e->d_v, &f));
        if (!rt_kv_is_quantised(&f))
            continue;
        const struct rt_quant_view q = rt_quant_view_make(&f, &kv, 0.5f);
        const bool by_tensor = f.scale == RT_KV_SCALE_TENSOR;
        assert_int_equal(q.fp8, e->fp8);
        assert_int_equal(q.rest_offset_bytes, e->rest_offset);
        assert_true(q.tensor_scale == (by_tensor ? 0.5f : 1.0f));
        if (by_tensor)
            continue;
        assert_int_equal(q.scale_offset_bytes, f.scales_apart ? 32 * 1024 : e->fp8);
        assert_int_equal(q.scale_stride_bytes, f.scales_apart ? e->scale_bytes : 1024);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        enum rt_kv_layout layout;
        enum rt_precision precision;
        uint32_t d_qk, d_v;
    } bad[] = {{RT_KV_V32, RT_PRECISION_BF16, 512, 512},
               {RT_KV_V32_NO_ROPE, RT_PRECISION_BF16, 576, 512},
               {RT_KV_V4, RT_PRECISION_BF16, 576, 512},
               {RT_KV_V4, RT_PRECISION_BF16, 320, 256},
               {RT_KV_FP8_TENSOR, RT_PRECISION_F32, 576, 512},
               {RT_KV_FP8_TOKEN, RT_PRECISION_BF16, 288, 0}, /* tiles of 0 */
               {RT_KV_FP8_TOKEN, RT_PRECISION_BF16, 24, 256},
               {RT_KV_FP8_TENSOR, RT_PRECISION_BF16, 580, 512},
               {RT_KV_V32, RT_PRECISION_BF16, 576, 500},
               {(enum rt_kv_layout)6, RT_PRECISION_BF16, 576, 512},
               {(enum rt_kv_layout) - 1, RT_PRECISION_BF16, 576, 512}};
    const struct rt_kv_format none = {0};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rt_kv_format f = {.d_qk = 7};
        assert_false(
            rt_kv_format_make(bad[i].layout, bad[i].precision, bad[i].d_qk, bad[i].d_v, &f));
        assert_memory_equal(&f, &none, sizeof(f));
    }
    assert_null(rt_kv_layout_name((enum rt_kv_layout)6));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
