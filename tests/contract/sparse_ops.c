/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt/sparse_ops.h: what lists, counts, tables, a second cache and sinks make of keys whose
 * sums are known by hand; and what is refused, by name. */
#include "replayrt/sparse_ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BATCH 2
#define QUERY_LEN 2
#define TOKENS (BATCH * QUERY_LEN)
#define D_QK 576
#define D_V 512
#define PAGE 8
#define PAGES 6
#define COLUMNS 2
#define HEADS 3
#define TOPK 5
#define EXTRA_TOPK 2

/* Token i of the pool has the value i, or of the second pool 100 + i, and q nothing: all keys weigh
 * the same. */
struct rig {
    _Alignas(256) uint16_t kv[PAGES * PAGE * D_QK];
    _Alignas(256) uint16_t more[PAGES * PAGE * D_QK];
    _Alignas(256) uint16_t q[TOKENS * HEADS * D_QK];
    _Alignas(256) uint16_t rope[TOKENS * HEADS * (D_QK - D_V)];
    _Alignas(256) uint16_t out[TOKENS * HEADS * D_V];
    _Alignas(256) float lse[TOKENS * HEADS];
    _Alignas(256) int32_t indices[TOKENS][TOPK], extra[TOKENS][EXTRA_TOPK], counts[TOKENS];
    _Alignas(256) int32_t table[BATCH][COLUMNS], lengths[TOKENS], num_splits[TOKENS + 1];
    _Alignas(256) float sink[HEADS];
    void *parts, *partial_out, *partial_lse;
    rt_ops *ops;
    struct rt_mla_sparse_args args;
};

static uint64_t at(const void *pointer)
{
    return (uintptr_t)pointer;
}

static void *scratch(uint64_t bytes)
{
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    assert_non_null(memory);
    return memory;
}

static uint16_t bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return (uint16_t)(bits >> 16); /* small whole numbers: exact */
}

static float number(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof(value));
    return value;
}

static struct rt_mla_sparse_args args_of(const struct rig *r)
{
    return (struct rt_mla_sparse_args){
        .struct_size = sizeof(struct rt_mla_sparse_args),
        .softmax_scale = 0.1f,
        .shape = {.struct_size = sizeof(struct rt_mla_sparse_shape),
                  .batch = BATCH,
                  .query_len = QUERY_LEN,
                  .heads = HEADS,
                  .d_qk = D_QK,
                  .d_v = D_V},
        .keys = {.struct_size = sizeof(struct rt_mla_sparse_keys),
                 .topk = TOPK,
                 .entries = RT_SPARSE_SLOTS,
                 .page_size = PAGE,
                 .pages = PAGES,
                 .kv = at(r->kv),
                 .indices = at(r->indices)},
        .schedule = {at(r->parts), at(r->num_splits)},
        .lengths = at(r->lengths),
        .partial_out = at(r->partial_out),
        .partial_lse = at(r->partial_lse),
        .q = at(r->q),
        .out = at(r->out),
        .lse = at(r->lse),
    };
}

static int set_up(void **state)
{
    static const int32_t indices[TOKENS][TOPK] = {{3, 3, 5, -1, 9},
                                                  {-1, -1, -1, -1, -1},
                                                  {PAGES * PAGE, 0, 47, INT32_MIN, INT32_MAX},
                                                  {7, 8, 9, 10, 11}};
    struct rig *r = aligned_alloc(256, sizeof(*r));
    assert_non_null(r);
    memset(r, 0, sizeof(*r));
    assert_int_equal(rt_ops_create("host", &r->ops, NULL), RT_OK);
    for (uint32_t i = 0; i < PAGES * PAGE; i++)
        for (uint32_t d = 0; d < D_QK; d++) {
            r->kv[i * D_QK + d] = d < D_V ? bf16((float)i) : 0;
            r->more[i * D_QK + d] = d < D_V ? bf16((float)(100 + i)) : 0;
        }
    memcpy(r->indices, indices, sizeof(indices));
    r->args = args_of(r);
    struct rt_mla_sparse_workspace w = {.struct_size = sizeof(w)};
    assert_int_equal(rt_mla_sparse_workspace_size(r->ops, &r->args.shape, &w), RT_OK);
    assert_int_equal(w.lengths_bytes, sizeof(r->lengths));
    assert_int_equal(w.num_splits_bytes, sizeof(r->num_splits));
    r->parts = scratch(w.part_bytes);
    r->partial_out = scratch(w.partial_out_bytes);
    r->partial_lse = scratch(w.partial_lse_bytes);
    r->args = args_of(r);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    free(r->parts);
    free(r->partial_out);
    free(r->partial_lse);
    rt_ops_destroy(&r->ops);
    free(r);
    return 0;
}

/* The decode alone, where it makes its plan itself; what a schedule would write stays. */
static void run_by_counts(struct rig *r)
{
    struct rt_mla_sparse_args args = r->args;
    struct rt_mla_sparse_workspace w = {.struct_size = sizeof(w)};
    static uint16_t out[TOKENS * HEADS * D_V];
    static float lse[TOKENS * HEADS];
    memcpy(out, r->out, sizeof(out));
    memcpy(lse, r->lse, sizeof(lse));
    args.schedule = (struct rt_mla_schedule_buffers){0};
    args.lengths = 0;
    assert_int_equal(rt_mla_sparse_workspace_size(r->ops, &args.shape, &w), RT_OK);
    memset(r->out, 0xff, sizeof(r->out));
    memset(r->lse, 0xff, sizeof(r->lse));
    const enum rt_status status = rt_mla_sparse_decode(r->ops, &args, NULL);
    if (w.own_plan) {
        if (status != RT_OK)
            fail_msg("%s", rt_ops_last_error(r->ops)->message);
        assert_memory_equal(r->out, out, sizeof(out));
        assert_memory_equal(r->lse, lse, sizeof(lse));
        return;
    }
    assert_int_equal(status, RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "without a schedule, which "));
    memcpy(r->out, out, sizeof(out));
    memcpy(r->lse, lse, sizeof(lse));
}

static void run(struct rig *r)
{
    memset(r->out, 0xff, sizeof(r->out));
    memset(r->lse, 0xff, sizeof(r->lse));
    if (rt_mla_sparse_schedule(r->ops, &r->args, NULL) != RT_OK ||
        rt_mla_sparse_decode(r->ops, &r->args, NULL) != RT_OK)
        fail_msg("%s", rt_ops_last_error(r->ops)->message);
    run_by_counts(r);
}

/* Of each token: the mean of its keys' values, and how many they are. */
static void expect(const struct rig *r, const double means[TOKENS], const int keys[TOKENS])
{
    for (uint32_t i = 0; i < TOKENS * HEADS; i++) {
        const double mean = means[i / HEADS];
        const int count = keys[i / HEADS];
        for (uint32_t d = 0; d < D_V; d++)
            if (!(fabs((double)number(r->out[i * D_V + d]) - mean) <= mean / 128))
                fail_msg("token %u, head %u, column %u: %g, not %g", i / HEADS, i % HEADS, d,
                         (double)number(r->out[i * D_V + d]), mean);
        if (count == 0)
            assert_true(r->lse[i] == INFINITY);
        else if (!(fabs((double)r->lse[i] - log(count)) < 1e-6))
            fail_msg("lse %u is %g, not ln(%d)", i, (double)r->lse[i], count);
    }
}

static void slots(void **state)
{
    struct rig *r = *state;
    run(r);
    expect(r, (double[]){5, 0, 23.5, 9}, (int[]){4, 0, 2, 5});
    assert_memory_equal(r->lengths, ((int32_t[]){5, 5, 5, 5}), sizeof(r->lengths));
}

static void counts(void **state)
{
    struct rig *r = *state;
    memcpy(r->counts, (int32_t[]){2, 5, 2, 99}, sizeof(r->counts));
    r->args.keys.counts = at(r->counts);
    run(r);
    expect(r, (double[]){3, 0, 0, 9}, (int[]){2, 0, 1, 5});
    memcpy(r->counts, (int32_t[]){3, -1, 77, 77}, sizeof(r->counts));
    r->args.keys.counts_by_request = 1;
    run(r);
    expect(r, (double[]){11.0 / 3, 0, 0, 0}, (int[]){3, 0, 0, 0});
    assert_memory_equal(r->lengths, ((int32_t[]){3, 3, 0, 0}), sizeof(r->lengths));
}

/* Position p of request 0 is in page 4 or 1, of request 1 in page 2 or none. */
static void positions(void **state)
{
    struct rig *r = *state;
    const int32_t table[BATCH][COLUMNS] = {{4, 1}, {2, -1}};
    memcpy(r->table, table, sizeof(table));
    r->args.keys.entries = RT_SPARSE_POSITIONS;
    r->args.keys.block_table = at(r->table);
    r->args.keys.max_blocks = COLUMNS;
    run(r);
    /* 35 35 37 9; none; 16 (others lead nowhere); 23 (8 and more: no page) */
    expect(r, (double[]){29, 0, 16, 23}, (int[]){4, 0, 1, 1});
}

static void two_caches(void **state)
{
    struct rig *r = *state;
    const int32_t extra[TOKENS][EXTRA_TOPK] = {{0, 2}, {4, -1}, {-1, -1}, {1, 1}};
    memcpy(r->extra, extra, sizeof(extra));
    r->args.extra = r->args.keys;
    r->args.extra.topk = EXTRA_TOPK;
    r->args.extra.page_size = 1;
    r->args.extra.pages = PAGES * PAGE;
    r->args.extra.kv = at(r->more);
    r->args.extra.indices = at(r->extra);
    run(r);
    expect(r, (double[]){222.0 / 6, 104, 23.5, 247.0 / 7}, (int[]){6, 1, 2, 7});
    memcpy(r->counts, (int32_t[]){0, 1, 2, 0}, sizeof(r->counts));
    r->args.keys.counts = at(r->counts);
    run(r);
    expect(r, (double[]){101, 104, 0, 101}, (int[]){2, 1, 1, 2});
}

/* q's two parts: a score from the rope part, which is no value. And a sink that takes a half. */
static void rope_and_sink(void **state)
{
    struct rig *r = *state;
    for (uint32_t i = 0; i < TOKENS * HEADS; i++)
        r->rope[i * (D_QK - D_V)] = bf16(10);
    r->kv[5 * D_QK + D_V] = bf16(64);
    r->args.q_rope = at(r->rope);
    r->args.lse_base = RT_LSE_BASE2;
    r->args.sink = at(r->sink);
    r->sink[0] = 64;
    r->sink[1] = -INFINITY;
    r->sink[2] = INFINITY;
    run(r);
    const float want[HEADS] = {2.5f, 5, 0};
    for (uint32_t h = 0; h < HEADS; h++) {
        assert_true(number(r->out[h * D_V + 500]) == want[h]);
        assert_true(fabs((double)r->lse[h] - 64 / log(2)) < 1e-3);
        assert_true(r->lse[HEADS + h] == INFINITY && r->out[(HEADS + h) * D_V] == 0);
    }
}

/* ---- refused --------------------------------------------------------------------------------- */

#define ARG(member)                                                                                \
    offsetof(struct rt_mla_sparse_args, member), sizeof(((struct rt_mla_sparse_args *)0)->member)

static void refused(void **state)
{
    struct rig *r = *state;
    const struct {
        size_t offset, bytes;
        uint64_t value;
        const char *words;
    } bad[] = {
        {ARG(shape.struct_size), 8, "shape.struct_size is 8, not"},
        {ARG(shape.kv_layout), 9, "kv_layout 9 is not known"},
        {ARG(shape.kv_layout), RT_KV_V4, "kv_layout v4 has no d_qk/d_v 576/512"},
        {ARG(shape.kv_layout), RT_KV_FP8_TENSOR, "kv_scale 0 is not a finite number above 0"},
        {ARG(keys.reserved), 5, "keys.reserved is 5, not 0"},
        {ARG(kv_scale), 0x3f800000, "kv_scale 1 with layout bf16, which has none"},
        {ARG(shape.query_len), 9, "query_len 9 is not 1..8"},
        {ARG(shape.batch), 2049, "batch 2049 of query_len 2 is not 1..2048"},
        {ARG(shape.heads), 129, "heads 129 is not 1..128"},
        {ARG(shape.d_qk), 320,
         "no kernel serves sparse attention of d_qk/d_v 320/512; served are 576/512, 512/512"},
        {ARG(shape.backend), 77, "backend 77 is not known"},
        {ARG(softmax_scale), 0, "softmax_scale 0 is not a positive number"},
        {ARG(lse_base), 7, "lse_base 7 is not"},
        {ARG(keys.struct_size), 1, "keys.struct_size is 1, not"},
        {ARG(keys.topk), 0, "keys.topk 0 is not 1..1048576"},
        {ARG(keys.entries), 0,
         "keys.entries 0 is not RT_SPARSE_SLOTS, 1, or RT_SPARSE_POSITIONS, 2"},
        {ARG(keys.entries), RT_SPARSE_POSITIONS,
         "keys.entries are positions, with block_table 0x0 of 0 columns"},
        {ARG(keys.max_blocks), 3, "keys.entries are slots, with block_table 0x0 of 3 columns"},
        {ARG(keys.page_size), 0, "keys.page_size 0 is not"},
        {ARG(keys.pages), 0, "keys.pages 0 is not"},
        {ARG(keys.counts_by_request), 2, "keys.counts_by_request 2 is not 0 or 1"},
        {ARG(keys.indices), 0, "keys.indices is null"},
        {ARG(keys.counts), 6, "keys.counts = 0x6 is not 4-byte aligned"},
        {ARG(keys.kv), 8, "keys.kv = 0x8 is not 16-byte aligned"},
        {ARG(keys.kv_page_stride), 4, "keys.kv_page_stride = 4 is not"},
        {ARG(keys.kv_token_stride), 12, "keys.kv_token_stride = 12 is not"},
        {ARG(keys.indices_token_stride), TOPK - 1, "keys.indices_token_stride 4 is below topk 5"},
        {ARG(extra.indices), 16, "extra.topk is 0, with addresses"},
        {ARG(extra.topk), 4, "extra.struct_size is 0, not"},
        {ARG(lengths), 0, "lengths is null"},
        {ARG(schedule.parts), 8, "schedule.parts = 0x8 is not 16-byte aligned"},
        {ARG(q), 0, "q is null"},
        {ARG(q_rope), 24, "q_rope = 0x18 is not 16-byte aligned"},
        {ARG(q_rope_head_stride), 64, "q_rope is null, its strides are 0, 0 and 64"},
        {ARG(q_head_stride), 4, "q_head_stride = 4 is not"},
        {ARG(sink), 2, "sink = 0x2 is not 4-byte aligned"},
        {ARG(out_head_stride), D_V - 8, "out_head_stride of out"},
        {ARG(out), at(r->kv) + sizeof(r->kv) - 16, "and keys.kv = "},
        {ARG(lse), at(r->indices), "and keys.indices = "},
        {ARG(lse), at(r->lengths), "and lengths = "},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rt_mla_sparse_args args = r->args;
        memcpy((char *)&args + bad[i].offset, &bad[i].value, bad[i].bytes);
        assert_int_not_equal(rt_mla_sparse_decode(r->ops, &args, NULL), RT_OK);
        if (!strstr(rt_ops_last_error(r->ops)->message, bad[i].words))
            fail_msg("\"%s\" does not say \"%s\"", rt_ops_last_error(r->ops)->message,
                     bad[i].words);
    }
    struct rt_mla_sparse_args args = r->args;
    args.keys.counts = args.lengths;
    assert_int_equal(rt_mla_sparse_schedule(r->ops, &args, NULL), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "and keys.counts = "));
    args = r->args;
    args.shape.d_qk = D_V;
    args.q_rope = at(r->rope);
    assert_int_equal(rt_mla_sparse_decode(r->ops, &args, NULL), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "but d_v has all 512 elements"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(slots, set_up, tear_down),
        cmocka_unit_test_setup_teardown(counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(positions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(two_caches, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rope_and_sink, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
