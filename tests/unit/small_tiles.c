/* SPDX-License-Identifier: Apache-2.0 */
/* Where attention has smaller tiles, and which graphs there are for it. */
#include "runtime/blueprint.h"
#include "runtime/ops_work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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

/* What a request for it gives. */
static void check_small_tile(struct asked *a, enum rt_op_id op,
                             const struct rt_small_tile_limit *limit)
{
    struct rt_variant small = {.parts = 0}, reduce = small;
    a->request.small_tile_rows = limit->tile_rows;
    assert_int_equal(rt_op_resolve(op, &a->request, &small, NULL), RT_OK);
    assert_int_equal(rt_op_resolve(RT_OP_REDUCE, &a->request, &reduce, NULL), RT_OK);
    assert_int_equal(small.tile_rows, limit->tile_rows);
    assert_int_equal(reduce.tile_rows, limit->tile_rows);
    char words[64];
    (void)snprintf(words, sizeof(words), "up to batch %u and %u blocks of keys", limit->rows,
                   limit->blocks);
    assert_non_null(strstr(small.reason, words));
    assert_int_equal(small.parts, limit->rows); /* no part has two rows to begin with */
    a->request.small_tile_rows = 0;
}

/* Query rows of a batch row, the tile they have, and with what limits which smaller ones: of bf16,
 * of e4m3 with one scale a token, and with tiles' scales. */
static void test_limits(void **state)
{
    (void)state;
    static const struct {
        uint32_t heads, q_len, large;
        struct {
            uint32_t tile_rows, rows, blocks[3]; /* 0: it has none there */
        } small[2];
    } cases[] = {
        {8, 1, 8, {{0}}},
        {9, 1, 16, {{8, 66, {48, 256, 128}}}},
        {16, 1, 16, {{8, 66, {48, 256, 128}}}},
        {8, 2, 16, {{8, 66, {48, 256, 128}}}},
        {17, 1, 32, {{8, 44, {16, 32, 32}}, {16, 66, {512, 512, 384}}}},
        {16, 2, 32, {{8, 33, {16, 32, 32}}, {16, 66, {512, 512, 384}}}},
        {32, 1, 32, {{8, 33, {16, 32, 32}}, {16, 66, {512, 512, 384}}}},
        {33, 1, 64, {{8, 26, {8, 16, 16}}, {16, 44, {132, 128, 64}}}},
        {64, 1, 64, {{8, 16, {8, 16, 16}}, {16, 33, {132, 128, 64}}}},
        {16, 4, 64, {{8, 16, {8, 16, 16}}, {16, 33, {132, 128, 64}}}},
        {65, 1, 64, {{8, 14, {0, 8, 8}}, {16, 26, {72, 64, 32}}}},
        {128, 1, 64, {{8, 8, {0, 8, 8}}, {16, 16, {72, 64, 32}}}},
        {16, 8, 64, {{8, 8, {0, 8, 8}}, {16, 16, {72, 64, 32}}}},
        {128, 2, 64, {{0}}},
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
        const uint32_t column = layouts[n % COUNT(layouts)].column;
        struct asked a;
        struct rt_variant large = {.parts = 0};
        uint32_t count = 0;
        ask_of(&a, &h200, layout, cases[i].heads, cases[i].q_len);
        const struct rt_small_tile_limits limits = rt_small_tiles_of(op, &a.request);
        assert_int_equal(rt_op_resolve(op, &a.request, &large, NULL), RT_OK);
        assert_int_equal(large.tile_rows, cases[i].large);
        assert_null(strstr(large.reason, "blocks of keys"));
        for (uint32_t k = 0; k < COUNT(cases[i].small); k++) {
            if (!cases[i].small[k].blocks[column])
                continue;
            const struct rt_small_tile_limit *const limit = &limits.tiles[count++];
            assert_int_equal(limit->tile_rows, cases[i].small[k].tile_rows);
            assert_int_equal(limit->rows, cases[i].small[k].rows);
            assert_int_equal(limit->blocks, cases[i].small[k].blocks[column]);
            check_small_tile(&a, op, limit);
        }
        assert_int_equal(limits.count, count);
        a.request.small_tile_rows = 32; /* no such small tile */
        assert_int_equal(rt_op_resolve(op, &a.request, &large, NULL), RT_OK);
        assert_int_equal(large.tile_rows, cases[i].large);
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
        assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).count, 0);
    }
    for (size_t i = 0; i < COUNT(geometries); i++) {
        ask(&a, &h200, 64, 1);
        assert_true(rt_kv_format_make(RT_KV_BF16, RT_PRECISION_BF16, geometries[i][0],
                                      geometries[i][1], &a.kv));
        assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).count, 0);
    }
    ask(&a, &h200, 64, 1);
    assert_int_equal(rt_small_tiles_of(RT_OP_SPARSE_ATTEND, &a.request).count, 0);
    assert_int_equal(rt_small_tiles_of(RT_OP_SPARSE_ATTEND_QUANT, &a.request).count, 0);
    a.request.page_size = 32;
    assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).count, 0);
    a.request.page_size = 128;
    assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).tiles[1].rows, 33);
    a.request.backend = RT_BACKEND_GENERIC;
    assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).count, 0);
    a.request.backend = RT_BACKEND_SM90;
    a.request.invariant = 1;
    assert_int_equal(rt_small_tiles_of(RT_OP_ATTEND, &a.request).count, 0);
}

/* By operators of a benchmark as by a step: the rule with the blocks that there are. */
static void test_operators(void **state)
{
    (void)state;
    static const struct {
        uint32_t batch, blocks, tile_rows;
    } cases[] = {{1, 1, 8},    {1, 8, 8},    {1, 9, 16},   {8, 8, 8}, {4, 132, 16},
                 {4, 133, 64}, {33, 33, 16}, {34, 34, 64}, {4, 0, 64}};
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

/* In proportion to the multiprocessors; a device of few has none, or fewer. */
static void test_limits_follow_the_device(void **state)
{
    (void)state;
    struct rt_device_caps caps = device("h200");
    struct asked a;
    for (caps.sm_count = 1; caps.sm_count <= 264; caps.sm_count++) {
        static const struct {
            uint32_t tile_rows, tiles, blocks;
        } of_64_heads[] = {{8, 8, 8}, {16, 4, 132}};
        uint32_t count = 0;
        ask(&a, &caps, 64, 1);
        const struct rt_small_tile_limits limits = rt_small_tiles_of(RT_OP_ATTEND, &a.request);
        for (uint32_t k = 0; k < COUNT(of_64_heads); k++) {
            const uint32_t blocks = caps.sm_count * of_64_heads[k].blocks / 132;
            if (!blocks)
                continue;
            const struct rt_small_tile_limit *const limit = &limits.tiles[count++];
            const uint32_t rows = caps.sm_count / of_64_heads[k].tiles;
            assert_int_equal(limit->tile_rows, of_64_heads[k].tile_rows);
            assert_int_equal(limit->blocks, blocks);
            assert_int_equal(limit->rows, rows ? rows : 1);
        }
        assert_int_equal(limits.count, count);
        assert_int_equal(count, caps.sm_count < 17 ? 1 : 2);
        assert_int_equal(rt_small_tiles_find(&limits, 1, 1), 0);
        assert_int_equal(rt_small_tiles_find(&limits, 1, limits.tiles[0].blocks + 1), 1);
        assert_int_equal(rt_small_tiles_find(&limits, 1, UINT64_MAX), count);
        assert_int_equal(rt_small_tiles_find(&limits, 265, 1), count);
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
static struct rt_small_tile_limits limits_of(const struct rt_blueprint *b, uint32_t q_len)
{
    const struct rt_op_request request = {.caps = &b->caps,
                                          .kv = &b->placement.dims.kv,
                                          .heads = b->config.geometry.heads,
                                          .q_len = q_len,
                                          .page_size = b->config.page_size,
                                          .invariant = b->config.invariant};
    return rt_small_tiles_of(rt_attend_op(&b->config), &request);
}

/* The tile of the least limit that a graph for so many blocks is within. */
static uint32_t tile_for(const struct rt_blueprint *b, uint32_t q, uint32_t rows, uint64_t most)
{
    const struct rt_small_tile_limits limits = limits_of(b, q);
    for (uint32_t k = 0; k < limits.count && b->config.small_tiles != RT_SMALL_TILES_OFF; k++)
        if (rows <= limits.tiles[k].rows && most <= limits.tiles[k].blocks)
            return limits.tiles[k].tile_rows;
    return b->variants[q][rt_attend_op(&b->config)].tile_rows;
}

/* The graph's kernel and bound, by the words of the rule. */
static void check_graph(const struct rt_blueprint *b, uint32_t i)
{
    const struct rt_config *c = &b->config;
    const struct rt_graph_spec *spec = &b->specs[i];
    const uint32_t q = rt_spec_query_len(spec),
                   small = rt_spec_find_small(b->specs, b->spec_count, i);
    const struct rt_variant *attend = rt_attend_variant(b, rt_blueprint_variants(b, spec));
    const uint64_t longest = (c->max_length + q - 1 + 63) / 64;
    const uint64_t most = spec->most_blocks ? spec->most_blocks : spec->rows * longest;
    assert_int_equal(attend->tile_rows, tile_for(b, q, spec->rows, most));
    assert_true(c->small_tiles == RT_SMALL_TILES_AUTO || !spec->most_blocks);
    assert_true(spec->most_blocks < spec->rows * longest);
    if (small < b->spec_count) {
        assert_in_range(b->specs[small].most_blocks, 1, most - 1);
        assert_int_equal(b->specs[small].rows, spec->rows);
        assert_int_equal(b->specs[small].tokens, spec->tokens);
    }
}

/* A step of any number of blocks that a batch size's rows can have goes to the graph whose tile the
 * rule names: the least limit's, whichever graphs there are. */
static void check_steps(const struct rt_blueprint *b, uint32_t i)
{
    const struct rt_config *c = &b->config;
    const uint32_t q = rt_spec_query_len(&b->specs[i]), rows = b->specs[i].rows;
    const uint32_t before = i < c->query_len_count ? 0 : b->specs[i - c->query_len_count].rows;
    const uint64_t longest = (uint64_t)rows * ((c->max_length + q - 1 + 63) / 64);
    for (uint64_t blocks = before + 1; blocks <= 600 && blocks <= longest; blocks++) {
        uint32_t at = i, small = rt_spec_find_small(b->specs, b->spec_count, i);
        while (small < b->spec_count && blocks <= b->specs[small].most_blocks) {
            at = small;
            small = rt_spec_find_small(b->specs, b->spec_count, at);
        }
        const uint32_t got =
            rt_attend_variant(b, rt_blueprint_variants(b, &b->specs[at]))->tile_rows;
        const uint32_t named =
            tile_for(b, q, rows, c->small_tiles == RT_SMALL_TILES_STATIC ? longest : blocks);
        if (got != named)
            fail_msg("%u rows of %u tokens, %u blocks: tiles of %u rows, not %u", rows, q,
                     (uint32_t)blocks, got, named);
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
    uint32_t several = 0, third = 0, alone = 0;
    random_state = 1;
    while (several + alone < CONFIGS) {
        struct rt_config c;
        draw_config(&c);
        struct rt_blueprint *const b = blueprint_of(&c);
        const uint32_t sizes = c.batch_size_count * c.query_len_count;
        for (uint32_t i = 0; i < b->spec_count; i++)
            check_graph(b, i);
        for (uint32_t i = 0; i < sizes; i++)
            check_steps(b, i);
        check_covers(b);
        several += b->spec_count > sizes;
        bool has_third = false;
        for (uint32_t i = sizes; i < b->spec_count; i++)
            has_third |= rt_spec_find_small(b->specs, b->spec_count, i) < b->spec_count;
        third += has_third;
        alone += b->spec_count == sizes;
        /* Further graphs take nothing of the arena. */
        const uint64_t arena_bytes = b->placement.arena_bytes;
        free(b);
        c.small_tiles = RT_SMALL_TILES_OFF;
        struct rt_blueprint *const off = blueprint_of(&c);
        assert_int_equal(off->spec_count, sizes);
        assert_true(arena_bytes <= off->placement.arena_bytes);
        free(off);
    }
    assert_true(several > CONFIGS / 20 && third > CONFIGS / 40 && alone > CONFIGS / 20);
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
    for (uint32_t i = 0; i < c.batch_size_count; i++) /* mla_block serves up to 8 rows */
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
