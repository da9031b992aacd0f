/* SPDX-License-Identifier: Apache-2.0 */
/* What the operators at a decoder's two ends are launched with, and what they refuse. */
#include "kernels/ops/op_build.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct rt_kernels no_device;

static enum rt_status build(enum rt_op_id op, const void *params, size_t bytes,
                            struct rt_launch *out, struct rt_error *err)
{
    const struct rt_device_caps host = {.kind = RT_DEVICE_KIND_HOST};
    const struct rt_op_request request = {.caps = &host};
    struct rt_variant variant;
    struct rt_work work = {0};
    RT_TRY(rt_op_resolve(op, &request, &variant, err));
    RT_TRY(rt_op_build(&no_device, &variant, params, bytes, &work, err));
    *out = work.launch;
    return RT_OK;
}

static void refuse(enum rt_op_id op, const void *params, size_t bytes, const char *words)
{
    struct rt_launch l = {0};
    struct rt_error err = {0};
    assert_int_equal(build(op, params, bytes, &l, &err), RT_ERR_INVALID);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void test_embed(void **state)
{
    (void)state;
    const struct rt_embed_params good = {.rows = {.count = 5, .q_len = 3},
                                         .table_stride = 16,
                                         .hidden_stride = 24,
                                         .vocab = 7,
                                         .width = 16};
    struct rt_launch l = {0};
    assert_int_equal(build(RT_OP_EMBED, &good, sizeof(good), &l, NULL), RT_OK);
    assert_string_equal(l.entry, "rt_embed");
    assert_int_equal(l.grid[0], 15);
    assert_int_equal(l.grid[1] * l.grid[2], 1);
    assert_int_equal(l.block[0], RT_EMBED_THREADS);
    assert_true(l.waits);
    assert_int_equal(l.address_mask, 0x3a7); /* table, tokens, hidden; four of rows */
    struct rt_embed_params bad[8];
    static const char *const words[8] = {"0 rows",
                                         "query length 9",
                                         "a vocabulary of 0",
                                         "a vocabulary of 2147483648",
                                         "embeddings of 12 numbers",
                                         "embedding table is at 0x8",
                                         "embedding stride in elements is 17",
                                         "hidden stride in elements is 20"};
    for (int i = 0; i < 8; i++)
        bad[i] = good;
    bad[0].rows.count = 0;
    bad[1].rows.q_len = 9;
    bad[2].vocab = 0;
    bad[3].vocab = 1u << 31;
    bad[4].width = 12;
    bad[5].table = (void *)8;
    bad[6].table_stride = 17;
    bad[7].hidden_stride = 20;
    for (int i = 0; i < 8; i++)
        refuse(RT_OP_EMBED, &bad[i], sizeof(bad[i]), words[i]);
}

static void test_sample(void **state)
{
    (void)state;
    const struct rt_sample_params good = {.rows = {.count = 5, .q_len = 3}, .vocab = 129280};
    static const struct {
        enum rt_op_id op;
        const char *entry;
        uint32_t x, y, threads;
    } launches[] = {
        {RT_OP_SAMPLE_BEST, "rt_sample_best", 64, 15, RT_SAMPLE_PIECE_THREADS},
        {RT_OP_SAMPLE_TALLY, "rt_sample_tally", 64, 15, RT_SAMPLE_PIECE_THREADS},
        {RT_OP_SAMPLE, "rt_sample", 5, 1, RT_SAMPLE_THREADS},
    };
    struct rt_sample_params bad[6];
    static const char *const words[6] = {"0 rows",
                                         "query length 9",
                                         "a vocabulary of 0",
                                         "a vocabulary of 262145",
                                         "logits is at 0x2, not 4-byte",
                                         "sample's bin_weights is at 0x4, not 8-byte"};
    for (int i = 0; i < 6; i++)
        bad[i] = good;
    bad[0].rows.count = 0;
    bad[1].rows.q_len = 9;
    bad[2].vocab = 0;
    bad[3].vocab = RT_SAMPLE_MOST_VOCAB + 1;
    bad[4].logits = (void *)2;
    bad[5].bin_weights = (void *)4;
    for (int i = 0; i < 3; i++) {
        struct rt_launch l = {0};
        assert_int_equal(build(launches[i].op, &good, sizeof(good), &l, NULL), RT_OK);
        assert_string_equal(l.entry, launches[i].entry);
        assert_int_equal(l.grid[0], launches[i].x);
        assert_int_equal(l.grid[1], launches[i].y);
        assert_int_equal(l.block[0], launches[i].threads);
        assert_true(l.waits);
        assert_int_equal(l.address_mask, 0x1ffe9); /* all but strides and counts */
        for (int j = 0; j < 6; j++)
            refuse(launches[i].op, &bad[j], sizeof(bad[j]), words[j]);
    }
}

static void test_take(void **state)
{
    (void)state;
    const struct rt_take_params good = {
        .x_stride = 16, .out_stride = 24, .rows = 5, .x_rows = 70, .width = 16};
    struct rt_launch l = {0};
    assert_int_equal(build(RT_OP_TAKE, &good, sizeof(good), &l, NULL), RT_OK);
    assert_string_equal(l.entry, "rt_take");
    assert_int_equal(l.grid[0], 5);
    assert_int_equal(l.grid[1] * l.grid[2], 1);
    assert_int_equal(l.block[0], RT_TAKE_THREADS);
    assert_true(l.waits);
    assert_int_equal(l.address_mask, 0x7); /* x, index, out */
    struct rt_take_params bad[9];
    static const char *const words[9] = {"0 rows to take, not 1 to 16777216",
                                         "16777217 rows to take,",
                                         "0 rows to take from",
                                         "2147483648 rows to take from",
                                         "rows of 12 numbers to take",
                                         "x is at 0x8",
                                         "out is at 0x8",
                                         "x stride in elements is 17",
                                         "out stride in elements is 20"};
    for (int i = 0; i < 9; i++)
        bad[i] = good;
    bad[0].rows = 0;
    bad[1].rows = RT_TAKE_MOST_ROWS + 1;
    bad[2].x_rows = 0;
    bad[3].x_rows = 1u << 31;
    bad[4].width = 12;
    bad[5].x = (void *)8;
    bad[6].out = (void *)8;
    bad[7].x_stride = 17;
    bad[8].out_stride = 20;
    for (int i = 0; i < 9; i++)
        refuse(RT_OP_TAKE, &bad[i], sizeof(bad[i]), words[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_take),
    };
    return cmocka_run_group_tests_name("token_ops", tests, NULL, NULL);
}
