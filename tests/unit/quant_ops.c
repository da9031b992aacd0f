/* SPDX-License-Identifier: Apache-2.0 */
/* Operators over quantised caches beside those whose parameters they begin with: the same grid and
 * addresses, and what they refuse. */
#include "common/kv_format.h"
#include "kernels/abi/quant_sm90.h"
#include "kernels/ops/op_build.h"
#include "kernels/quant_view.h"
#include "tests/unit/build_op.h"

#include <string.h>

static struct rt_kv_view v32_pages(struct rt_quant_view *quant)
{
    struct rt_kv_format format;
    assert_true(rt_kv_format_make(RT_KV_V32, RT_PRECISION_BF16, 576, 512, &format));
    const struct rt_kv_view kv = {.page_stride_bytes = 64 * 656,
                                  .token_stride_bytes = 656,
                                  .page_size = 64,
                                  .token_bytes = 656};
    *quant = rt_quant_view_make(&format, &kv, 1);
    return kv;
}

static void test_preattend(void **state)
{
    (void)state;
    struct rt_preattend_quant_params p = {
        .preattend = {.rows = {.count = 3, .q_len = 2},
                      .kv_a = {(void *)16, 2 * 576, 576},
                      .q_in = {(void *)16, 40 * 192, 20 * 192, 192},
                      .q_out = {(void *)16, 40 * 576, 20 * 576, 576},
                      .kv_a_norm.width = 512,
                      .heads = 20,
                      .nope_dim = 128,
                      .latent_dim = 512,
                      .rope_dim = 64}};
    struct rt_launch l = {0}, plain = {0};
    p.preattend.kv = v32_pages(&p.quant);
    assert_int_equal(build(RT_OP_PREATTEND_QUANT, &p, sizeof(p), &l, NULL), RT_OK);
    struct rt_preattend_params same = p.preattend;
    same.kv.token_bytes = 1152;
    assert_int_equal(build(RT_OP_PREATTEND, &same, sizeof(same), &plain, NULL), RT_OK);
    assert_string_equal(l.entry, "rt_preattend_quant");
    assert_int_equal(l.grid[0], plain.grid[0]);
    assert_int_equal(l.block[0], plain.block[0]);
    assert_true(l.address_mask == plain.address_mask);

    struct rt_preattend_quant_params bad = p;
    bad.preattend.kv_a.base = NULL;
    refuse(RT_OP_PREATTEND_QUANT, &bad, sizeof(bad), "preattend_quant with kv_a at");
    bad = p;
    bad.preattend.is_f32 = 1;
    refuse(RT_OP_PREATTEND_QUANT, &bad, sizeof(bad), "f32 1: must be there, of bf16");
    bad = p;
    bad.quant.fp8 = 640;
    refuse(RT_OP_PREATTEND_QUANT, &bad, sizeof(bad), "640 numbers of e4m3 of 576");
    bad = p;
    bad.quant.scale_kind = RT_QUANT_SCALE_TENSOR;
    bad.quant.tensor_scale = 0;
    refuse(RT_OP_PREATTEND_QUANT, &bad, sizeof(bad), "a KV scale of 0 is not from");
    bad = p;
    bad.preattend.kv_a_norm.width = 256;
    refuse(RT_OP_PREATTEND_QUANT, &bad, sizeof(bad), "a norm of 256 numbers");
}

static void test_kv_gather(void **state)
{
    (void)state;
    struct rt_kv_gather_quant_params p = {
        .gather = {.first = (void *)16, .out = (void *)16, .rows = 2, .count = 100}, .d_qk = 576};
    struct rt_launch l = {0}, plain = {0};
    p.gather.kv = v32_pages(&p.quant);
    assert_int_equal(build(RT_OP_KV_GATHER_QUANT, &p, sizeof(p), &l, NULL), RT_OK);
    struct rt_kv_gather_params same = p.gather;
    same.kv.token_bytes = 1152;
    same.kv.token_stride_bytes = 1152;
    assert_int_equal(build(RT_OP_KV_GATHER, &same, sizeof(same), &plain, NULL), RT_OK);
    assert_string_equal(l.entry, "rt_kv_gather_quant");
    assert_int_equal(l.grid[0], plain.grid[0]);
    assert_true(l.address_mask == plain.address_mask);

    struct rt_kv_gather_quant_params bad = p;
    bad.d_qk = 248;
    refuse(RT_OP_KV_GATHER_QUANT, &bad, sizeof(bad), "tokens of 248 numbers to gather");
    bad = p;
    bad.gather.out = (void *)4;
    refuse(RT_OP_KV_GATHER_QUANT, &bad, sizeof(bad), "out is at 0x4");
    bad = p;
    bad.quant.tile = 96;
    refuse(RT_OP_KV_GATHER_QUANT, &bad, sizeof(bad), "96 to a scale");
}

/* A kernel of one kind of scales is built over that kind alone; one of both over either. */
static void test_kinds_of_scales(void **state)
{
    (void)state;
    static const struct rt_kernels no_device;
    static const enum rt_kv_layout layouts[] = {RT_KV_FP8_TENSOR, RT_KV_FP8_TOKEN, RT_KV_V32};
    static const struct {
        const char *entry;
        uint32_t scales, tile_rows;
        bool serves[3];
    } kernels[] = {
        {"rt_mla_quant_sm90_576x512_n8_one", RT_ATTEND_SCALES_one, 8, {true, true, false}},
        {"rt_mla_quant_sm90_576x512_n8_tiles", RT_ATTEND_SCALES_tiles, 8, {false, false, true}},
        {"rt_mla_quant_sm90_576x512_m64", RT_ATTEND_SCALES_any, 64, {true, true, true}}};
    struct rt_attend_quant_params p = {.attend = {.rows = {.count = 1, .q_len = 1},
                                                  .q = {NULL, 8 * 576, 8 * 576, 576},
                                                  .out = {NULL, 8 * 512, 8 * 512, 512},
                                                  .heads = 8,
                                                  .d_qk = 576,
                                                  .d_v = 512,
                                                  .scale = 0.1f,
                                                  .schedule.part_count = 132}};
    for (size_t i = 0; i < 9; i++) {
        const struct rt_variant v = {.op = RT_OP_ATTEND_QUANT,
                                     .backend = RT_BACKEND_SM90,
                                     .entry = kernels[i / 3].entry,
                                     .tile_rows = kernels[i / 3].tile_rows,
                                     .m_tiles = 1,
                                     .parts = 132,
                                     .threads = 384,
                                     .scales = kernels[i / 3].scales};
        struct rt_kv_format format;
        struct rt_work work;
        struct rt_error err = {0};
        assert_true(rt_kv_format_make(layouts[i % 3], RT_PRECISION_BF16, 576, 512, &format));
        p.attend.kv = (struct rt_kv_view){.page_stride_bytes = 64 * format.token_bytes,
                                          .token_stride_bytes = format.row_bytes,
                                          .page_size = 64,
                                          .token_bytes = format.row_bytes,
                                          .max_blocks = 1,
                                          .pages = 1};
        p.quant = rt_quant_view_make(&format, &p.attend.kv, 1);
        const enum rt_status status = rt_op_build(&no_device, &v, &p, sizeof(p), &work, &err);
        assert_int_equal(status, kernels[i / 3].serves[i % 3] ? RT_OK : RT_ERR_INTERNAL);
        assert_int_equal(strstr(err.message, "over scales of") != NULL, status != RT_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preattend),
        cmocka_unit_test(test_kv_gather),
        cmocka_unit_test(test_kinds_of_scales),
    };
    return cmocka_run_group_tests_name("quant_ops", tests, NULL, NULL);
}
