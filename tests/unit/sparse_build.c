/* SPDX-License-Identifier: Apache-2.0 */
/* Lists that sparse_schedule and sparse_attend are not launched over: of the wrong width, too near
 * to each other, with counts of other tokens. */
#include "kernels/abi/sparse.h"
#include "kernels/counted_view.h"
#include "kernels/ref/counted.h"
#include "kernels/ref/ref.h"
#include "tests/unit/build_op.h"

#define PARTS 8u

static void *const somewhere = (void *)16;

static struct rt_sparse_view list_of(uint32_t topk)
{
    return (struct rt_sparse_view){.index = somewhere,
                                   .count = somewhere,
                                   .token_stride = topk,
                                   .topk = topk,
                                   .count_tokens = 1,
                                   .by_position = 1};
}

/* Three rows of two tokens. */
static struct rt_sparse_schedule_params good(void)
{
    return (struct rt_sparse_schedule_params){
        .schedule = {.rows = {.length = somewhere, .count = 6, .q_len = 1},
                     .schedule = {.parts = somewhere, .num_splits = somewhere, .part_count = PARTS},
                     .min_blocks = 1},
        .keys = list_of(100),
        .length = somewhere,
        .q_len = 2};
}

#define REFUSE(member, value, words)                                                               \
    do {                                                                                           \
        struct rt_sparse_schedule_params bad = good();                                             \
        bad.member = (value);                                                                      \
        refuse(RT_OP_SPARSE_SCHEDULE, &bad, sizeof(bad), (words));                                 \
    } while (0)

static void test_schedule(void **state)
{
    (void)state;
    struct rt_sparse_schedule_params p = good();
    struct rt_launch l = {0};
    struct rt_error err = {0};
    if (build(RT_OP_SPARSE_SCHEDULE, &p, sizeof(p), &l, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(l.entry, "rt_sparse_schedule");
    assert_int_equal(l.grid[0], 1);
    p.keys.token_stride = 128; /* lists may be apart, and tokens of a row counted together */
    p.keys.count_tokens = 2;
    p.extra = list_of(3);
    assert_int_equal(build(RT_OP_SPARSE_SCHEDULE, &p, sizeof(p), &l, &err), RT_OK);

    REFUSE(keys.index, NULL, "a sparse attention without a list of keys");
    REFUSE(keys.topk, 0, "keys of 0 entries, not 1 to 1048576");
    REFUSE(keys.topk, RT_MAX_LENGTH + 1, "keys of 1048577 entries, not 1 to 1048576");
    REFUSE(keys.token_stride, 99, "keys of 100 entries are 99 apart");
    REFUSE(keys.token_stride, -100, "keys of 100 entries are -100 apart");
    REFUSE(keys.count_tokens, 3, "keys: 3 tokens have a count together, not 1 or the row's 2");
    REFUSE(keys.count_tokens, 0, "keys: 0 tokens have a count together");
    REFUSE(q_len, 0, "6 tokens in rows of 0");
    REFUSE(q_len, 4, "6 tokens in rows of 4: rows of 1 to 8");
    REFUSE(q_len, 9, "6 tokens in rows of 9");
    REFUSE(length, (int32_t *)32, "lengths are written at 0x20 and read at 0x10");
    struct rt_sparse_view second = list_of(100);
    second.token_stride = 7;
    REFUSE(extra, second, "extra keys of 100 entries are 7 apart");
    second.topk = 0;
    REFUSE(extra, second, "extra keys of 0 entries");
}

/* The lists are attention's as well, whoever has scheduled them. */
static void test_attend(void **state)
{
    (void)state;
    struct rt_error err = {0};
    struct rt_kv_format kv;
    struct rt_variant variant;
    const struct rt_device_caps caps = {.kind = RT_DEVICE_KIND_HOST};
    assert_true(rt_kv_format_make(RT_KV_BF16, RT_PRECISION_BF16, 576, 512, &kv));
    const struct rt_op_request request = {.caps = &caps, .kv = &kv, .heads = 3, .q_len = 2};
    assert_int_equal(rt_op_resolve(RT_OP_SPARSE_ATTEND, &request, &variant, &err), RT_OK);
    const struct rt_sparse_attend_params good = {
        .attend = {.q = {somewhere, 2 * 3 * 576, 3 * 576, 576},
                   .out = {somewhere, 2 * 3 * 512, 3 * 512, 512},
                   .lse = {somewhere, 6, 3, 1},
                   .kv = {.base = somewhere,
                          .page_stride_bytes = 64 * 1152,
                          .token_stride_bytes = 1152,
                          .page_size = 64,
                          .pages = 5,
                          .token_bytes = 1152},
                   .rows = {.length = somewhere, .count = 6, .q_len = 1},
                   .schedule = {.part_count = variant.parts},
                   .scale = 1,
                   .heads = 3,
                   .d_qk = 576,
                   .d_v = 512},
        .keys = list_of(100),
        .q_len = 2};
    struct rt_work work;
    if (rt_op_build(&(struct rt_kernels){0}, &variant, &good, sizeof(good), &work, &err) != RT_OK)
        fail_msg("%s", err.message);
    struct rt_sparse_attend_params bad = good;
    bad.keys.topk = 101;
    const enum rt_status status =
        rt_op_build(&(struct rt_kernels){0}, &variant, &bad, sizeof(bad), &work, &err);
    expect("wider lists", status, &err, RT_ERR_INVALID,
           (const char *const[]){"keys of 101 entries are 100 apart"}, 1);
    bad = good; /* a plan of its own is for others */
    bad.counted.min_blocks = 1;
    assert_int_equal(rt_op_build(&(struct rt_kernels){0}, &variant, &bad, sizeof(bad), &work, &err),
                     RT_ERR_INTERNAL);
    bad = good;
    bad.attend.causal = 1;
    assert_int_equal(rt_op_build(&(struct rt_kernels){0}, &variant, &bad, sizeof(bad), &work, &err),
                     RT_ERR_INTERNAL);
}

/* Who makes the plan itself: sm_90's small tiles of bf16, of few tokens. */
static void test_counts(void **state)
{
    (void)state;
    const struct rt_variant good = {.op = RT_OP_SPARSE_ATTEND,
                                    .backend = RT_BACKEND_SM90,
                                    .tile_rows = 32,
                                    .parts = 132,
                                    .min_blocks = 2,
                                    .overhead_blocks = 3};
    assert_true(rt_attend_counts(&good, 1) && rt_attend_counts(&good, 32));
    assert_false(rt_attend_counts(&good, 33));
    struct rt_variant bad = good;
    bad.tile_rows = 64;
    assert_false(rt_attend_counts(&bad, 1));
    bad = good;
    bad.op = RT_OP_SPARSE_ATTEND_QUANT;
    assert_false(rt_attend_counts(&bad, 1));
    bad = good;
    bad.backend = RT_BACKEND_GENERIC;
    assert_false(rt_attend_counts(&bad, 1));
    bad = good;
    bad.parts = RT_COUNTED_PARTS + 1;
    assert_false(rt_attend_counts(&bad, 1));
    const struct rt_sparse_view keys = list_of(100), none = {0};
    const struct rt_counted_view view = rt_counted_view_make(&good, &keys, &none, somewhere, 2);
    assert_ptr_equal(view.keys.count, keys.count);
    assert_int_equal(view.keys.topk, 100);
    assert_int_equal(view.extra.topk, 0);
    assert_int_equal(view.min_blocks, 2);
    assert_int_equal(view.overhead_blocks, 3);
    assert_int_equal(view.q_len, 2);
}

/* Who leaves nothing to reduce: of as many tokens as was chosen, and of lists so long. */
static void test_whole(void **state)
{
    (void)state;
    const struct rt_variant good = {.op = RT_OP_SPARSE_ATTEND,
                                    .backend = RT_BACKEND_SM90,
                                    .tile_rows = 16,
                                    .parts = 132,
                                    .whole_entry = "whole",
                                    .whole_least = 8,
                                    .whole_most = 15,
                                    .whole_topk = 2048};
    assert_true(rt_attend_is_whole(&good, 8, 2048) && rt_attend_is_whole(&good, 15, 1));
    assert_false(rt_attend_is_whole(&good, 7, 2048));
    assert_false(rt_attend_is_whole(&good, 16, 2048));
    assert_false(rt_attend_is_whole(&good, 8, 2049));
    struct rt_variant bad = good;
    bad.whole_entry = NULL;
    assert_false(rt_attend_is_whole(&bad, 8, 2048));
    bad = good;
    bad.whole_most = 40; /* more than make their plan themselves */
    assert_true(rt_attend_is_whole(&bad, RT_COUNTED_ROWS, 64));
    assert_false(rt_attend_is_whole(&bad, RT_COUNTED_ROWS + 1, 64));
}

/* The reference's plan of counts: what sparse_schedule writes of them. */
static void test_reference(void **state)
{
    (void)state;
    int32_t counts[6] = {100, -1, 64, 900, 65, 1}, row_length[3] = {5, 5, 0};
    int32_t length[6], num_splits[7];
    struct rt_part parts[5];
    struct rt_ref_counted plan;
    const struct rt_variant attend = {.min_blocks = 1, .overhead_blocks = 1};
    struct rt_sparse_view keys = list_of(700), none = {0};
    keys.count = counts;
    struct rt_sparse_schedule_params p = {
        .schedule = {.schedule = {parts, num_splits, 5, 0},
                     .overhead_blocks = 1,
                     .min_blocks = 1,
                     .rows = {.length = length, .count = 6, .q_len = 1}},
        .keys = keys,
        .length = length,
        .row_length = row_length,
        .q_len = 2};
    rt_ref_sparse_schedule(&p);
    const struct rt_counted_view view = rt_counted_view_make(&attend, &keys, &none, row_length, 2);
    struct rt_schedule_view schedule = {.part_count = 5};
    struct rt_rows_view rows = {.count = 6, .q_len = 1};
    rt_ref_plan_counted(&view, &schedule, &rows, &plan);
    assert_ptr_equal(rows.length, plan.length);
    assert_memory_equal(plan.length, length, sizeof(length));
    assert_memory_equal(length, ((int32_t[]){100, 0, 64, 700, 0, 0}), sizeof(length));
    assert_memory_equal(schedule.num_splits, num_splits, sizeof(num_splits));
    assert_memory_equal(schedule.parts, parts, sizeof(parts));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule),  cmocka_unit_test(test_attend),
        cmocka_unit_test(test_counts),    cmocka_unit_test(test_whole),
        cmocka_unit_test(test_reference),
    };
    return cmocka_run_group_tests_name("sparse_build", tests, NULL, NULL);
}
