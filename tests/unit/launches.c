/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/attend_generic.h"
#include "kernels/ops/op_build.h"
#include "replayrt/rt.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct rt_kernels no_device; /* plans are made with this */

static const struct rt_variant choice = {.op = RT_OP_ATTEND,
                                         .entry = "rt_mla_attend_576x512_r16",
                                         .tile_rows = 16,
                                         .m_tiles = 3,
                                         .parts = 44,
                                         .threads = 256};

static enum rt_status build(const struct rt_kernels *k, const struct rt_variant *variant,
                            const void *params, size_t bytes, struct rt_launch *out,
                            struct rt_error *err)
{
    struct rt_work work;
    RT_TRY(rt_op_build(k, variant, params, bytes, &work, err));
    assert_int_equal(work.kind, RT_WORK_LAUNCH);
    *out = work.launch;
    return RT_OK;
}

static enum rt_status build_plain(const struct rt_kernels *k, enum rt_op_id op, const void *params,
                                  size_t bytes, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_device_caps host = {.kind = RT_DEVICE_KIND_HOST};
    const struct rt_op_request request = {.caps = &host};
    struct rt_variant variant;
    RT_TRY(rt_op_resolve(op, &request, &variant, err));
    return build(k, &variant, params, bytes, out, err);
}
#define BUILD(k, op, params, out, err)                                                             \
    build_plain((k), RT_OP_##op, &(params), sizeof(params), (out), (err))

/* Of 576/512, packed pages of 64 tokens. */
static struct rt_append_quant_params good_quant(const struct rt_append_params *append)
{
    struct rt_append_quant_params p = {.general.append = *append, .d_qk = 576};
    p.general.append.kv.token_bytes = 656;
    p.quant = (struct rt_quant_view){.scale_offset_bytes = 512,
                                     .scale_stride_bytes = 656,
                                     .scale_kind = RT_QUANT_SCALE_F32,
                                     .scale_bytes = 16,
                                     .fp8 = 512,
                                     .tile = 128,
                                     .rest_offset_bytes = 528,
                                     .tensor_scale = 1};
    return p;
}

static struct rt_attend_params good_attend(void)
{
    return (struct rt_attend_params){.q.row_stride = 40 * 576,
                                     .q.token_stride = 20 * 576,
                                     .q.head_stride = 576,
                                     .out.row_stride = 40 * 512,
                                     .out.token_stride = 20 * 512,
                                     .out.head_stride = 512,
                                     .lse.row_stride = 40,
                                     .lse.token_stride = 20,
                                     .lse.head_stride = 1,
                                     .kv.page_stride_bytes = 2 * 64 * 576,
                                     .kv.token_stride_bytes = 2 * 576,
                                     .scale = 0.1f,
                                     .rows.count = 5,
                                     .rows.q_len = 2,
                                     .heads = 20,
                                     .d_qk = 576,
                                     .d_v = 512,
                                     .kv.page_size = 64,
                                     .kv.max_blocks = 9,
                                     .schedule.part_count = 44,
                                     .kv.pages = 100};
}

static void expect_grid(const struct rt_launch *l, const char *entry, uint32_t x, uint32_t y,
                        uint32_t threads)
{
    assert_string_equal(l->entry, entry);
    assert_int_equal(l->grid[0], x);
    assert_int_equal(l->grid[1], y);
    assert_int_equal(l->grid[2], 1);
    assert_int_equal(l->block[0], threads);
    assert_int_equal(l->block[1] * l->block[2], 1);
    assert_null(l->kernel);
}

static void test_grids(void **state)
{
    (void)state;
    struct rt_launch l = {0};
    struct rt_step_begin_params begin = {.ring_depth = 2,
                                         .record_bytes = 256,
                                         .rows_offset = 64,
                                         .tokens_offset = 128,
                                         .ops_offset = 160,
                                         .bucket = 4,
                                         .query_len = 2};
    assert_int_equal(BUILD(&no_device, STEP_BEGIN, begin, &l, NULL), RT_OK);
    expect_grid(&l, "rt_step_begin", 1, 1, RT_STEP_BEGIN_THREADS);
    assert_int_equal(l.address_mask, 0xffff);
    assert_memory_equal(l.params, &begin, sizeof(begin));

    struct rt_step_end_params end = {.ring_depth = 2,
                                     .completion_bytes = 192,
                                     .bucket = 8,
                                     .query_len = 1,
                                     .tokens_offset = 128};
    assert_int_equal(BUILD(&no_device, STEP_END, end, &l, NULL), RT_OK);
    expect_grid(&l, "rt_step_end", 1, 1, RT_STEP_END_THREADS);

    struct rt_page_copy_params copy = {.layers = 61, .kv.token_bytes = 1152};
    assert_int_equal(BUILD(&no_device, PAGE_COPY, copy, &l, NULL), RT_OK);
    expect_grid(&l, "rt_page_copy", 61, RT_MAX_PAGE_COPIES, RT_PAGE_COPY_THREADS);

    struct rt_schedule_params schedule = {
        .rows.count = 4096, .schedule.part_count = 264, .min_blocks = 2};
    assert_int_equal(BUILD(&no_device, SCHEDULE, schedule, &l, NULL), RT_OK);
    expect_grid(&l, "rt_schedule", 1, 1, RT_SCHEDULE_THREADS);

    struct rt_append_params append = {.rows.count = 3, .rows.q_len = 3};
    assert_int_equal(BUILD(&no_device, APPEND, append, &l, NULL), RT_OK);
    expect_grid(&l, "rt_append", 2, 1, RT_APPEND_WARPS * 32);

    struct rt_append_general_params general = {.append = append};
    general.append.kv.token_bytes = 1152;
    assert_int_equal(BUILD(&no_device, APPEND_GENERAL, general, &l, NULL), RT_OK);
    expect_grid(&l, "rt_append_general", 2, 1, RT_APPEND_WARPS * 32);
    general.rope_bytes = 128; /* and no rope */
    assert_int_equal(BUILD(&no_device, APPEND_GENERAL, general, &l, NULL), RT_ERR_INVALID);
    general.rope.base = (void *)16;
    assert_int_equal(BUILD(&no_device, APPEND_GENERAL, general, &l, NULL), RT_OK);
    general.rope_bytes = 1152;
    assert_int_equal(BUILD(&no_device, APPEND_GENERAL, general, &l, NULL), RT_ERR_INVALID);

    struct rt_append_quant_params quant = good_quant(&append);
    assert_int_equal(BUILD(&no_device, APPEND_QUANT, quant, &l, NULL), RT_OK);
    expect_grid(&l, "rt_append_quant", 2, 1, RT_APPEND_WARPS * 32);

    struct rt_attend_params attend = good_attend();
    assert_int_equal(build(&no_device, &choice, &attend, sizeof(attend), &l, NULL), RT_OK);
    expect_grid(&l, choice.entry, 3, 44, 256);
    assert_true(l.smem_bytes > 0);

    const struct rt_weight_view weight = {.rows = 1536, .row_stride = 7168, .column_stride = 1};
    struct rt_project_params project = {.w = {weight, weight}, .batch = 1, .m = 17, .k = 7168};
    assert_int_equal(BUILD(&no_device, PROJECT, project, &l, NULL), RT_OK);
    expect_grid(&l, "rt_project", 48 * 3, 1, RT_PROJECT_THREADS);
    project.w[1].row_stride = 1; /* weights of two orders */
    project.w[1].column_stride = 1536;
    assert_int_equal(BUILD(&no_device, PROJECT, project, &l, NULL), RT_ERR_INVALID);

    struct rt_reduce_params reduce = {.rows.count = 5, .rows.q_len = 2, .heads = 20, .d_v = 512};
    assert_int_equal(BUILD(&no_device, REDUCE, reduce, &l, NULL), RT_OK);
    expect_grid(&l, "rt_reduce", RT_REDUCE_MOST_BLOCKS(20 * 2), 1, RT_REDUCE_THREADS);
    const struct rt_variant small = {.op = RT_OP_REDUCE, .entry = "rt_reduce", .tile_rows = 16};
    assert_int_equal(build(&no_device, &small, &reduce, sizeof(reduce), &l, NULL), RT_OK);
    expect_grid(&l, "rt_reduce_beside", RT_REDUCE_MOST_BLOCKS(16), 1, RT_REDUCE_THREADS);
    reduce = (struct rt_reduce_params){.rows = {.count = 1, .q_len = 2}, .heads = 3, .d_v = 256};
    assert_int_equal(BUILD(&no_device, REDUCE, reduce, &l, NULL), RT_OK);
    expect_grid(&l, "rt_reduce_beside", 3 * 2 * (256 / RT_REDUCE_LEAST_COLUMNS), 1, 256);
}

static void refuse_quant(struct rt_append_quant_params p, enum rt_status status, const char *words)
{
    struct rt_launch l = {.param_bytes = 77};
    struct rt_error err = {0};
    assert_int_equal(BUILD(&no_device, APPEND_QUANT, p, &l, &err), status);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_int_equal(l.param_bytes, 77);
}

static void test_refused_quant(void **state)
{
    (void)state;
    const struct rt_append_params append = {.rows.count = 3, .rows.q_len = 3};
    const struct rt_append_quant_params good = good_quant(&append);
    const float bad_scales[] = {0, -1, NAN, INFINITY};
    struct rt_append_quant_params p = good;
    p.quant.scale_kind = RT_QUANT_SCALE_TENSOR;
    for (size_t i = 0; i < sizeof(bad_scales) / sizeof(bad_scales[0]); i++) {
        p.quant.tensor_scale = bad_scales[i];
        refuse_quant(p, RT_ERR_INVALID, "a KV scale of");
    }
    p = good;
    p.quant.scale_offset_bytes = 514;
    refuse_quant(p, RT_ERR_INVALID, "begin at byte 514");
    p = good;
    p.quant.scale_kind = 9;
    refuse_quant(p, RT_ERR_INTERNAL, "kind 9");
    p = good;
    p.quant.tile = 96;
    refuse_quant(p, RT_ERR_INTERNAL, "96 to a scale");
    p = good;
    p.quant.scale_bytes = 12;
    refuse_quant(p, RT_ERR_INTERNAL, "12 bytes of KV scales for 512");
    p = good;
    p.general.append.kv.token_bytes = 640;
    refuse_quant(p, RT_ERR_INTERNAL, "of a KV row of 640");
    p = good;
    p.general.rope_bytes = 128; /* and no rope */
    refuse_quant(p, RT_ERR_INVALID, "come from rope");
}

static void refuse_attend(struct rt_attend_params p, enum rt_status status, const char *words)
{
    struct rt_launch l = {.param_bytes = 77};
    struct rt_error err = {0};
    assert_int_equal(build(&no_device, &choice, &p, sizeof(p), &l, &err), status);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_int_equal(l.param_bytes, 77);
}

static void test_refused_attention(void **state)
{
    (void)state;
    struct rt_attend_params p = good_attend();
    p.rows.count = 0;
    refuse_attend(p, RT_ERR_INVALID, "0 rows");
    p = good_attend();
    p.rows.count = RT_MAX_BATCH + 1;
    refuse_attend(p, RT_ERR_INVALID, "4097");
    p = good_attend();
    p.rows.q_len = 9;
    refuse_attend(p, RT_ERR_INVALID, "length 9");
    p = good_attend();
    p.heads = 129;
    refuse_attend(p, RT_ERR_INVALID, "129 heads");
    p = good_attend();
    p.schedule.part_count = 45;
    refuse_attend(p, RT_ERR_INTERNAL, "45 parts");
    p = good_attend();
    p.heads = 25; /* 50 query rows, the tiles hold 48 */
    refuse_attend(p, RT_ERR_INTERNAL, "50 query rows");
    p = good_attend();
    p.scale = 0;
    refuse_attend(p, RT_ERR_INVALID, "scale 0");
    p = good_attend();
    p.kv.token_stride_bytes = 2 * 577;
    refuse_attend(p, RT_ERR_INVALID, "kv token stride in bytes is 1154");
    p = good_attend();
    p.q.base = (void *)8;
    refuse_attend(p, RT_ERR_INVALID, "not 16-byte aligned");
    p = good_attend();
    p.q_rope.base = (void *)16;
    p.q_rope.head_stride = 65;
    refuse_attend(p, RT_ERR_INVALID, "q_rope head stride in elements is 65");
}

static void test_refused_records(void **state)
{
    (void)state;
    const struct rt_step_begin_params good = {.ring_depth = 2,
                                              .record_bytes = 256,
                                              .rows_offset = 64,
                                              .tokens_offset = 128,
                                              .ops_offset = 160,
                                              .bucket = 4,
                                              .query_len = 2};
    struct rt_step_begin_params bad[10];
    for (int i = 0; i < 10; i++)
        bad[i] = good;
    bad[0].record_bytes = 250;
    bad[1].ring_depth = 0;
    bad[2].rows_offset = 48;
    bad[3].rows_offset = 208;
    bad[4].tokens_offset = 240;
    bad[5].ops_offset = 272;
    bad[6].tokens_offset = 132;
    bad[7].query_len = 0;
    bad[8].query_len = 3;
    bad[8].draft_columns = 1;
    bad[9].draft_columns = RT_MAX_QUERY_LEN;
    struct rt_launch l = {0};
    for (int i = 0; i < 10; i++)
        assert_int_equal(BUILD(&no_device, STEP_BEGIN, bad[i], &l, NULL), RT_ERR_INVALID);
    assert_int_equal(BUILD(&no_device, STEP_BEGIN, good, &l, NULL), RT_OK);

    struct rt_step_end_params end = {
        .ring_depth = 2, .completion_bytes = 128, .bucket = 9, .query_len = 1, .tokens_offset = 64};
    assert_int_equal(BUILD(&no_device, STEP_END, end, &l, NULL), RT_ERR_INVALID);
    end.bucket = 8; /* their outcomes fit, but nothing behind */
    static const uint32_t offsets[] = {124, 128, 130, 160, 164};
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        end.tokens_offset = offsets[i];
        end.completion_bytes = i == 1 ? 128 : 192;
        assert_int_equal(BUILD(&no_device, STEP_END, end, &l, NULL),
                         i == 3 ? RT_OK : RT_ERR_INVALID);
    }
    struct rt_schedule_params schedule = {
        .rows.count = 1, .schedule.part_count = 0, .min_blocks = 1};
    assert_int_equal(BUILD(&no_device, SCHEDULE, schedule, &l, NULL), RT_ERR_INVALID);
    schedule =
        (struct rt_schedule_params){.rows.count = 1, .schedule.part_count = 1, .min_blocks = 0};
    assert_int_equal(BUILD(&no_device, SCHEDULE, schedule, &l, NULL), RT_ERR_INVALID);
}

static void refuse(enum rt_op_id op, const void *params, size_t bytes, const char *words)
{
    struct rt_launch l = {.param_bytes = 77};
    struct rt_error err = {0};
    assert_int_equal(build_plain(&no_device, op, params, bytes, &l, &err), RT_ERR_INVALID);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_int_equal(l.param_bytes, 77);
}

static void test_chunk_rows(void **state)
{
    (void)state;
    const struct rt_chunk_rows_params good = {.ring_depth = 3,
                                              .record_bytes = 640, /* 592 of them needed */
                                              .tokens_offset = 64 + 12 * 16,
                                              .prefill_rows = 8,
                                              .decode_rows = 4,
                                              .chunk = 64,
                                              .query_len = 1};
    static const char *const words[15] = {
        "0 prompts",          "257 prompts",      "1025 rows that decode", "0 tokens of 8 prompts",
        "16385 tokens",       "0 records of 640", "records of 630 bytes",  "tokens at 264",
        "room for 84 tokens", "tokens at 320",    "room for 97 tokens",    "3 pieces of 0 tokens",
        "query length 0",     "query length 9",   "room for 108 tokens"};
    struct rt_chunk_rows_params bad[15];
    for (int i = 0; i < 15; i++)
        bad[i] = good;
    bad[0].prefill_rows = 0;
    bad[1].prefill_rows = RT_MAX_PREFILL_ROWS + 1;
    bad[2].decode_rows = RT_MAX_MIXED_ROWS + 1;
    bad[3].chunk = 0;
    bad[4].chunk = RT_MAX_CHUNK + 1;
    bad[5].ring_depth = 0;
    bad[6].record_bytes = 630;
    bad[7].tokens_offset += 8;
    bad[8].record_bytes = 576;
    bad[9].tokens_offset = 320;
    bad[10].chunk = 77; /* 4 bytes too many */
    bad[11].pieces = 3;
    bad[12].query_len = 0;
    bad[13].query_len = RT_MAX_QUERY_LEN + 1;
    bad[14].query_len = 3;
    struct rt_launch l = {0};
    for (int i = 0; i < 15; i++)
        refuse(RT_OP_CHUNK_ROWS, &bad[i], sizeof(bad[i]), words[i]);
    bad[10].chunk--;
    assert_int_equal(BUILD(&no_device, CHUNK_ROWS, bad[10], &l, NULL), RT_OK);
    bad[11].piece = 1;
    assert_int_equal(BUILD(&no_device, CHUNK_ROWS, bad[11], &l, NULL), RT_OK);
    expect_grid(&l, "rt_chunk_rows", 1, 1, RT_CHUNK_ROWS_THREADS);
    assert_int_equal(l.address_mask, (1 << 20) - 1);
}

static struct rt_preattend_params good_preattend(void)
{
    return (struct rt_preattend_params){
        .rows = {.count = 3, .q_len = 2},
        .kv = {.page_stride_bytes = 64 * 1152, .token_stride_bytes = 1152, .token_bytes = 1152},
        .q_a = {(void *)16, 2 * 1536, 1536},
        .kv_a = {(void *)16, 2 * 576, 576},
        .q_in = {(void *)16, 40 * 192, 20 * 192, 192},
        .q_out = {(void *)16, 40 * 576, 20 * 576, 576},
        .q_a_norm.width = 1536,
        .kv_a_norm.width = 512,
        .heads = 20,
        .nope_dim = 128,
        .latent_dim = 512,
        .rope_dim = 64};
}

static void test_preattend(void **state)
{
    (void)state;
    struct rt_launch l = {0};
    struct rt_preattend_params p = good_preattend();
    /* A block for each of 6 tokens, a warp for each, and one for each 8 of 20 heads. */
    assert_int_equal(BUILD(&no_device, PREATTEND, p, &l, NULL), RT_OK);
    expect_grid(&l, "rt_preattend", 6 + (6 + 6 * 3 + 7) / 8, 1, RT_PREATTEND_WARPS * 32);
    assert_true(l.address_mask == UINT64_C(0x59222487d));
    p.q_a.base = NULL;
    p.kv_a.base = NULL;
    assert_int_equal(BUILD(&no_device, PREATTEND, p, &l, NULL), RT_OK);
    assert_int_equal(l.grid[0], (6 * 3 + 7) / 8);
    p.q_in.base = NULL;
    refuse(RT_OP_PREATTEND, &p, sizeof(p), "none of q_a, kv_a and q_in");
    p = good_preattend();
    p.is_f32 = 1; /* four bytes a number */
    refuse(RT_OP_PREATTEND, &p, sizeof(p), "1152 bytes a token");
    p.kv.token_bytes = 2 * 1152;
    assert_int_equal(BUILD(&no_device, PREATTEND, p, &l, NULL), RT_OK);
}

static void test_refused_preattend(void **state)
{
    (void)state;
    struct rt_preattend_params bad[16];
    const char *words[16] = {"0 rows",
                             "query length 9",
                             "a latent of 384",
                             "a rotated part of 48",
                             "0 heads",
                             "129 heads",
                             "100 numbers of a head",
                             "q_out no address",
                             "q_a norm of 1540 numbers",
                             "q_a norm of 4104 numbers",
                             "a norm of 256 numbers",
                             "q_a row stride in elements is 1537",
                             "kv_a is at 0x8",
                             "kv token stride in bytes is 1150",
                             "q_in head stride in elements is 196",
                             "rope table is at 0x4"};
    for (int i = 0; i < 16; i++)
        bad[i] = good_preattend();
    bad[0].rows.count = 0;
    bad[1].rows.q_len = 9;
    bad[2].latent_dim = 384;
    bad[3].rope_dim = 48;
    bad[4].heads = 0;
    bad[5].heads = 129;
    bad[6].nope_dim = 100;
    bad[7].q_out.base = NULL;
    bad[8].q_a_norm.width = 1540;
    bad[9].q_a_norm.width = 4104;
    bad[10].kv_a_norm.width = 256;
    bad[11].q_a.row_stride = 1537;
    bad[12].kv_a.base = (void *)8;
    bad[13].kv.token_stride_bytes = 1150;
    bad[14].q_in.head_stride = 196;
    bad[15].rope.table = (void *)4;
    for (int i = 0; i < 16; i++)
        refuse(RT_OP_PREATTEND, &bad[i], sizeof(bad[i]), words[i]);
}

static void test_input_norm(void **state)
{
    (void)state;
    struct rt_launch l = {0};
    const struct rt_input_norm_params good = {.stride = 7168, .norm.width = 7168, .tokens = 12};
    assert_int_equal(BUILD(&no_device, INPUT_NORM, good, &l, NULL), RT_OK);
    expect_grid(&l, "rt_input_norm", 12, 1, RT_INPUT_NORM_WARPS * 32);
    assert_int_equal(l.address_mask, 0x17);
    struct rt_input_norm_params bad[6];
    static const char *const words[6] = {"0 tokens",
                                         "32769 tokens",
                                         "residual is at 0x8",
                                         "stride in elements is 7170",
                                         "input norm of 7172 numbers",
                                         "input norm of 16392 numbers"};
    for (int i = 0; i < 6; i++)
        bad[i] = good;
    bad[0].tokens = 0;
    bad[1].tokens = RT_MAX_BATCH * RT_MAX_QUERY_LEN + 1;
    bad[2].residual = (void *)8;
    bad[3].stride = 7170;
    bad[4].norm.width = 7172;
    bad[5].norm.width = 16392;
    for (int i = 0; i < 6; i++)
        refuse(RT_OP_INPUT_NORM, &bad[i], sizeof(bad[i]), words[i]);
}

/* What only the host device does is refused on another, by the kernel's name. */
static void test_f32_on_cuda(void **state)
{
    (void)state;
    struct rt_driver d;
    struct rt_kernels k;
    struct rt_launch l = {0};
    struct rt_error err = {0};
    struct rt_preattend_params p = good_preattend();
    p.is_f32 = 1;
    p.kv.token_bytes = 2 * 1152;
    assert_int_equal(rt_driver_open_host(&d, NULL), RT_OK);
    assert_int_equal(rt_kernels_load(&d, &k, NULL), RT_OK);
    assert_int_equal(BUILD(&k, PREATTEND, p, &l, &err), RT_OK);
    d.caps.kind = RT_DEVICE_KIND_CUDA;
    assert_int_equal(BUILD(&k, PREATTEND, p, &l, &err), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "rt_preattend"));
    struct rt_input_norm_params norm = {.norm.width = 8, .tokens = 1, .is_f32 = 1};
    assert_int_equal(BUILD(&k, INPUT_NORM, norm, &l, &err), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "rt_input_norm"));
    d.caps.kind = RT_DEVICE_KIND_HOST;
    rt_kernels_unload(&k);
    rt_driver_close(&d);
}

static void test_lookup(void **state)
{
    (void)state;
    struct rt_launch l = {0};
    struct rt_error err = {0};
    struct rt_schedule_params p = {.rows.count = 1};
    assert_int_equal(rt_kernels_launch(&no_device, "rt_nothing", &p, sizeof(p), &l, &err),
                     RT_ERR_INTERNAL);
    assert_non_null(strstr(err.message, "rt_nothing"));
    assert_int_equal(rt_kernels_launch(&no_device, "rt_schedule", &p, sizeof(p) - 1, &l, &err),
                     RT_ERR_INTERNAL);

    uint32_t count;
    const struct rt_kernel_entry *entries = rt_kernel_entries(&count);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < i; j++)
            assert_string_not_equal(entries[i].entry, entries[j].entry);
}

static void test_load_on_host(void **state)
{
    (void)state;
    struct rt_driver d;
    struct rt_kernels k;
    struct rt_launch l = {0};
    struct rt_schedule_params p = {.rows.count = 1, .schedule.part_count = 1, .min_blocks = 1};
    assert_int_equal(rt_driver_open_host(&d, NULL), RT_OK);
    assert_int_equal(rt_kernels_load(&d, &k, NULL), RT_OK);
    uint32_t count;
    const struct rt_kernel_entry *entries = rt_kernel_entries(&count);
    for (uint32_t i = 0; i < count; i++)
        assert_non_null(k.kernels[i]);
    assert_string_equal(entries[0].entry, "rt_step_begin");
    assert_int_equal(BUILD(&k, SCHEDULE, p, &l, NULL), RT_OK);
    assert_non_null(l.kernel);
    rt_kernels_unload(&k);
    rt_kernels_unload(&k); /* zeroed: nothing to do */
    assert_int_equal(d.probe.live, 0);
    rt_driver_close(&d);
}

/* Each driver call fails once: everything is given back, and the story is the driver's. */
static void test_load_fails_clean(void **state)
{
    (void)state;
    struct rt_driver d;
    struct rt_kernels k;
    struct rt_error err;
    enum rt_status status = RT_ERR_DRIVER;
    for (uint64_t n = 1; status != RT_OK; n++) {
        assert_int_equal(rt_driver_open_host(&d, NULL), RT_OK);
        d.probe.fail_at = d.probe.calls + n;
        status = rt_kernels_load(&d, &k, &err);
        if (status != RT_OK) {
            assert_int_equal(status, RT_ERR_DRIVER);
            assert_null(k.driver);
            assert_null(k.kernels);
            assert_int_equal(d.probe.live, 0);
        }
        rt_kernels_unload(&k);
        rt_driver_close(&d);
        assert_true(n < 1000);
    }
}

/* A GPU too old for every image: nothing is loaded, and asking for a kernel says why. */
static void test_old_device(void **state)
{
    (void)state;
    struct rt_driver d;
    struct rt_kernels k;
    struct rt_launch l = {0};
    struct rt_error err = {0};
    struct rt_schedule_params p = {.rows.count = 1, .schedule.part_count = 1, .min_blocks = 1};
    assert_int_equal(rt_driver_open_host(&d, NULL), RT_OK);
    d.caps.kind = RT_DEVICE_KIND_CUDA;
    d.caps.cc = 70;
    assert_int_equal(rt_kernels_load(&d, &k, &err), RT_OK);
    assert_int_equal(BUILD(&k, SCHEDULE, p, &l, &err), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "rt_schedule"));
    rt_kernels_unload(&k);
    rt_driver_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grids),
        cmocka_unit_test(test_refused_attention),
        cmocka_unit_test(test_refused_quant),
        cmocka_unit_test(test_refused_records),
        cmocka_unit_test(test_chunk_rows),
        cmocka_unit_test(test_preattend),
        cmocka_unit_test(test_refused_preattend),
        cmocka_unit_test(test_input_norm),
        cmocka_unit_test(test_f32_on_cuda),
        cmocka_unit_test(test_lookup),
        cmocka_unit_test(test_load_on_host),
        cmocka_unit_test(test_load_fails_clean),
        cmocka_unit_test(test_old_device),
    };
    return cmocka_run_group_tests_name("launches", tests, NULL, NULL);
}
