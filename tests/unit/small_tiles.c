/* SPDX-License-Identifier: Apache-2.0 */
/* Where attention has smaller tiles, and which graphs there are for it. */
#include "runtime/blueprint.h"
#include "runtime/ops_work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CONFIGS 300

static struct rt_device_caps device(const char *name)
{
    struct rt_device_caps caps;
    assert_int_equal(rt_device_caps_assume(name, &caps, NULL), RT_OK);
    return caps;
}

/* ---- the limits ------------------------------------------------------------------------------ */

struct asked {
    struct rt_device_caps caps;
    struct rt_kv_format kv;
    struct rt_op_request request;
};

/* 576/512, pages of 64. */
static void ask_of(struct asked *a, const struct rt_device_caps *caps, enum rt_kv_layout layout,
                   uint32_t heads, uint32_t q_len)
{
    a->caps = *caps;
    assert_true(rt_kv_format_make(layout, RT_PRECISION_BF16, 576, 512, &a->kv));
    a->request = (struct rt_op_request){
        .caps = &a->caps, .kv = &a->kv, .heads = heads, .q_len = q_len, .page_size = 64};
}

static void ask(struct asked *a, const struct rt_device_caps *caps, uint32_t heads, uint32_t q_len)
{
    ask_of(a, caps, RT_KV_BF16, heads, q_len);
}

/* Query rows of a batch row, the tile they have, and with what limit which smaller one: of bf16, of
 * e4m3 with one scale a token, and with tiles' scales. */
static void test_limits(void **state)
{
    (void)state;
    static const struct {
        uint32_t heads, q_len, large, small, rows, blocks[3];
    } cases[] = {
        {8, 1, 8, 8, 0, {0, 0, 0}},           {9, 1, 16, 8, 66, {48, 128, 128}},
        {16, 1, 16, 8, 66, {48, 128, 128}},   {8, 2, 16, 8, 66, {48, 128, 128}},
        {17, 1, 32, 16, 66, {512, 512, 384}}, {16, 2, 32, 16, 66, {512, 512, 384}},
        {33, 1, 64, 16, 44, {132, 128, 64}},  {64, 1, 64, 16, 33, {132, 128, 64}},
        {16, 4, 64, 16, 33, {132, 128, 64}},  {65, 1, 64, 16, 26, {72, 64, 32}},
        {128, 1, 64, 16, 16, {72, 64, 32}},   {16, 8, 64, 16, 16, {72, 64, 32}},
        {128, 2, 64, 64, 0, {0, 0, 0}},
    };
    static const struct {
        enum rt_kv_layout layout;
        uint32_t column; /* of the above */
    } layouts[] = {{RT_KV_BF16, 0}, {RT_KV_FP8_TENSOR, 1}, {RT_KV_FP8_TOKEN, 1}, {RT_KV_V32, 2}};
    const struct rt_device_caps h200 = device("h200");
    for (size_t n = 0; n < COUNT(cases) * COUNT(layouts); n++) {
        const size_t i = n / COUNT(layouts);
        const enum rt_kv_layout layout = layouts[n % COUNT(layouts)].layout;
        const enum rt_op_id op = layout == RT_KV_BF16 ? RT_OP_ATTEND : RT_OP_ATTEND_QUANT;
        struct asked a;
        struct rt_variant large = {.parts = 0}, small = large, reduce = large;
        ask_of(&a, &h200, layout, cases[i].heads, cases[i].q_len);
        const struct rt_small_tile_limit limit = rt_small_tiles_of(op, &a.request);
        assert_int_equal(limit.rows, cases[i].rows);
        assert_int_equal(limit.blocks, cases[i].blocks[layouts[n % COUNT(layouts)].column]);
        assert_int_equal(rt_op_resolve(op, &a.request, &large, NULL), RT_OK);
        a.request.small_tiles = true;
        assert_int_equal(rt_op_resolve(op, &a.request, &small, NULL), RT_OK);
        assert_int_equal(large.tile_rows, cases[i].large);
        assert_int_equal(small.tile_rows, cases[i].small);
        assert_int_equal(rt_op_resolve(RT_OP_REDUCE, &a.request, &reduce, NULL), RT_OK);
        assert_int_equal(reduce.tile_rows, limit.rows ? cases[i].small : 0);
        assert_int_equal(strstr(small.reason, "blocks of keys") != NULL, limit.rows > 0);
        assert_null(strstr(large.reason, "blocks of keys"));
        if (limit.rows) /* no part has two rows to begin with */
            assert_int_equal(small.parts, limit.rows);
    }
}

/* What was measured, and nothing else. */
static void test_no_limit_elsewhere(void **state)
{
    (void)state;
    const struct rt_device_caps h200 = device("h200"), a100 = device("a100"), host = device("host");
    const struct rt_device_caps *const others[] = {&a100, &host};
    static const uint32_t geometries[][2] = {{512, 512}, {320, 256}, {288, 256}};
    struct asked a;
    for (size_t i = 0; i < COUNT(others); i++) {
        ask(&a, others[i], 64, 1);
        assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).rows, 0);
    }
    for (size_t i = 0; i < COUNT(geometries); i++) {
        ask(&a, &h200, 64, 1);
        assert_true(rt_kv_format_make(RT_KV_BF16, RT_PRECISION_BF16, geometries[i][0],
                                      geometries[i][1], &a.kv));
        assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).rows, 0);
    }
    ask(&a, &h200, 64, 1);
    assert_int_equal(rt_small_tiles_of(RT_OP_SPARSE_ATTEND, &a.request).rows, 0);
    assert_int_equal(rt_small_tiles_of(RT_OP_SPARSE_ATTEND_QUANT, &a.request).rows, 0);
    a.request.page_size = 32;
    assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).rows, 0);
    a.request.page_size = 128;
    assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).rows, 33);
    a.request.backend = RT_BACKEND_GENERIC;
    assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).rows, 0);
    a.request.backend = RT_BACKEND_SM90;
    a.request.invariant = 1;
    assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).rows, 0);
}

/* By operators of a benchmark as by a step: the rule with the blocks that there are. */
static void test_operators(void **state)
{
    (void)state;
    static const struct {
        uint32_t batch, blocks, tile_rows;
    } cases[] = {{4, 132, 16}, {4, 133, 64}, {33, 33, 16}, {34, 34, 64}, {4, 0, 64}};
    const struct rt_device_caps h200 = device("h200");
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct rt_mla_shape shape = {.struct_size = sizeof(shape),
                                           .batch = cases[i].batch,
                                           .query_len = 1,
                                           .heads = 64,
                                           .d_qk = 576,
                                           .d_v = 512,
                                           .page_size = 64,
                                           .max_blocks = 1,
                                           .pages = 1};
        struct rt_ops_choice choice;
        assert_int_equal(
            rt_ops_choose_for_blocks("bench", &h200, &shape, 0, cases[i].blocks, &choice, NULL),
            RT_OK);
        assert_int_equal(choice.attend.tile_rows, cases[i].tile_rows);
        assert_int_equal(
            rt_ops_choose_for_blocks("bench", &h200, &shape, 1, cases[i].blocks, &choice, NULL),
            RT_OK);
        assert_int_equal(choice.attend.tile_rows, 64); /* batch-invariant: always */
        assert_int_equal(rt_ops_choose("bench", &h200, &shape, 0, &choice, NULL), RT_OK);
        assert_int_equal(choice.attend.tile_rows, 64);
    }
}

/* In proportion to the multiprocessors; a device of few has none. */
static void test_limits_follow_the_device(void **state)
{
    (void)state;
    struct rt_device_caps caps = device("h200");
    struct asked a;
    for (caps.sm_count = 1; caps.sm_count <= 264; caps.sm_count++) {
        ask(&a, &caps, 128, 1);
        const struct rt_small_tile_limit limit = rt_small_tiles_of(RT_OP_ATTEND, &a.request);
        assert_int_equal(limit.blocks, caps.sm_count * 72 / 132);
        assert_int_equal(limit.rows, caps.sm_count < 8 ? 1 : caps.sm_count / 8);
        assert_int_equal(rt_small_tiles_serve(&limit, 1, 1), caps.sm_count >= 2);
    }
}

/* ---- graphs ---------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint32_t below(uint32_t n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((random_state >> 32) * n >> 32);
}

static void draw_config(struct rt_config *c)
{
    static const uint32_t heads[] = {1, 8, 9, 16, 20, 32, 64, 128};
    rt_config_default(c);
    c->geometry = (struct rt_geometry){.heads = heads[below(COUNT(heads))],
                                       .kv_lora_rank = 512,
                                       .qk_rope_head_dim = below(6) ? 64 : 0,
                                       .layers = 2,
                                       .softmax_scale = 0.1};
    c->batch_size_count = 1 + below(8);
    for (uint32_t i = 0, size = 0; i < c->batch_size_count; i++)
        c->batch_sizes[i] = size += 1 + below(12);
    c->query_len_count = 1 + below(3);
    for (uint32_t i = 0, length = 0; i < c->query_len_count; i++)
        c->query_lens[i] = length += 1 + below(2);
    c->max_length = 1u << below(21);
    c->max_length -= below(c->max_length);
    c->max_length += 8;
    c->page_size = below(4) ? 64 : 32;
    c->pages = 100;
    c->invariant = below(8) == 0;
    c->small_tiles = (enum rt_small_tiles)below(3);
    c->kv_layout =
        !c->invariant && c->geometry.qk_rope_head_dim && below(3) == 0 ? RT_KV_V32 : RT_KV_BF16;
}

static struct rt_blueprint *blueprint_of(const struct rt_config *c)
{
    const struct rt_device_caps caps = device("h200");
    struct rt_blueprint *const b = calloc(1, sizeof(*b));
    struct rt_error err = {.status = RT_OK};
    assert_non_null(b);
    if (rt_blueprint_make(c, &caps, UINT64_C(1) << 36, b, &err) != RT_OK)
        fail_msg("%s", err.message);
    return b;
}

/* As the configuration's requests are. */
static struct rt_small_tile_limit limit_of(const struct rt_blueprint *b, uint32_t q_len)
{
    const struct rt_op_request request = {.caps = &b->caps,
                                          .kv = &b->placement.dims.kv,
                                          .heads = b->config.geometry.heads,
                                          .q_len = q_len,
                                          .page_size = b->config.page_size,
                                          .invariant = b->config.invariant};
    return rt_small_tiles_of(rt_attend_op(&b->config), &request);
}

/* The graph's kernel and bound, by the words of the rule. */
static void check_graph(const struct rt_blueprint *b, uint32_t i)
{
    const struct rt_config *c = &b->config;
    const struct rt_graph_spec *spec = &b->specs[i];
    const uint32_t q = rt_spec_query_len(spec),
                   small = rt_spec_find_small(b->specs, b->spec_count, i);
    const struct rt_small_tile_limit limit = limit_of(b, q);
    const struct rt_variant *attend = rt_attend_variant(b, rt_blueprint_variants(b, spec));
    const uint32_t large_tile = b->variants[q][rt_attend_op(c)].tile_rows;
    const uint64_t longest = (c->max_length + q - 1 + 63) / 64;
    const uint64_t most = spec->most_blocks ? spec->most_blocks : spec->rows * longest;
    const bool fits = spec->rows <= limit.rows && most <= limit.blocks;
    if (fits && c->small_tiles != RT_SMALL_TILES_OFF)
        assert_true(attend->tile_rows < large_tile);
    else
        assert_int_equal(attend->tile_rows, large_tile);
    if (spec->most_blocks) {
        assert_int_equal(spec->most_blocks, limit.blocks);
        assert_true(fits && spec->rows * longest > limit.blocks);
        assert_int_equal(c->small_tiles, RT_SMALL_TILES_AUTO);
        assert_int_equal(small, i);
    } else if (small < b->spec_count) {
        assert_true(b->specs[small].most_blocks > 0);
        assert_int_equal(b->specs[small].rows, spec->rows);
        assert_int_equal(b->specs[small].tokens, spec->tokens);
    } else if (c->small_tiles == RT_SMALL_TILES_AUTO) {
        assert_true(fits || spec->rows > limit.rows || spec->rows > limit.blocks);
    }
}

/* Every batch size has its graph for any lengths, wherever there is one for few blocks. */
static void check_covers(const struct rt_blueprint *b)
{
    const struct rt_config *c = &b->config;
    struct rt_spec_index index;
    assert_int_equal(rt_spec_index_init(&index, b->specs, b->spec_count, NULL), RT_OK);
    for (uint32_t k = 0; k < c->query_len_count; k++)
        for (uint32_t rows = 1; rows <= c->batch_sizes[c->batch_size_count - 1]; rows++) {
            uint32_t spec = UINT32_MAX, bucket = 0;
            while (c->batch_sizes[bucket] < rows)
                bucket++;
            assert_int_equal(rt_spec_take(&index, c->query_lens[k], rows, &spec), rows);
            assert_int_equal(spec, bucket * c->query_len_count + k);
            assert_int_equal(b->specs[spec].most_blocks, 0);
        }
    rt_spec_index_free(&index);
}

static void test_graphs(void **state)
{
    (void)state;
    uint32_t pairs = 0, alone = 0;
    random_state = 1;
    while (pairs + alone < CONFIGS) {
        struct rt_config c;
        draw_config(&c);
        struct rt_blueprint *const b = blueprint_of(&c);
        const uint32_t sizes = c.batch_size_count * c.query_len_count;
        for (uint32_t i = 0; i < b->spec_count; i++)
            check_graph(b, i);
        check_covers(b);
        pairs += b->spec_count > sizes;
        alone += b->spec_count == sizes;
        /* A second graph takes nothing of the arena. */
        const uint64_t arena_bytes = b->placement.arena_bytes;
        free(b);
        c.small_tiles = RT_SMALL_TILES_OFF;
        struct rt_blueprint *const off = blueprint_of(&c);
        assert_int_equal(off->spec_count, sizes);
        assert_true(arena_bytes <= off->placement.arena_bytes);
        free(off);
    }
    assert_true(pairs > CONFIGS / 20 && alone > CONFIGS / 20);
}

/* Ranks that share a context, and blocks that are one kernel each: one graph, by one tile. */
static void test_graphs_without(void **state)
{
    (void)state;
    struct rt_config c;
    rt_config_default(&c);
    c.geometry = (struct rt_geometry){.heads = 16,
                                      .kv_lora_rank = 512,
                                      .qk_rope_head_dim = 64,
                                      .layers = 2,
                                      .softmax_scale = 0.1};
    c.layer = 1;
    c.block.hidden_size = 7168;
    c.block.q_lora_rank = 1536;
    c.block.qk_nope_head_dim = c.block.v_head_dim = 128;
    c.pages = 9;
    struct rt_blueprint *b = blueprint_of(&c);
    for (uint32_t i = 0; i < b->spec_count; i++) /* mla_block serves up to 8 rows */
        assert_int_equal(rt_spec_find_small(b->specs, b->spec_count, i) < b->spec_count,
                         b->specs[i].rows > 8);
    free(b);
    c.context_parallel = 2;
    b = blueprint_of(&c);
    assert_int_equal(b->spec_count, c.batch_size_count);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),    cmocka_unit_test(test_no_limit_elsewhere),
        cmocka_unit_test(test_operators), cmocka_unit_test(test_limits_follow_the_device),
        cmocka_unit_test(test_graphs),    cmocka_unit_test(test_graphs_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
