/* SPDX-License-Identifier: Apache-2.0 */
/* rt_kv_gather: which tokens come, and what it refuses, by name. The same program runs with the
 * CUDA kernel, emulated. */
#include "replayrt/kv_ops.h"
#include "replayrt/prefill_ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/values.h"

#define ROWS 4
#define COUNT 30
#define WIDTH 24
#define PAGE 4
#define COLUMNS 3
#define PAGES 7
#define GAP 8 /* numbers behind a token, and behind a page */
#define TOKEN_STRIDE (WIDTH + GAP)
#define PAGE_STRIDE (PAGE * TOKEN_STRIDE + GAP)
#define POISON 0x7fc1u

/* Row 0 is short, row 1 empty, row 2 begins inside of its second page, row 3 leaves the table. */
static const int32_t first[ROWS + 1] = {1, 4, 4, 11, 26}, positions[ROWS] = {0, 0, 5, 2};
static const int32_t slots[ROWS] = {2, 0, 1, 0};
static const int32_t table[3][COLUMNS] = {{5, -1, 6}, {1, 0, PAGES}, {3, 2, 4}};

struct rig {
    rt_ops *ops;
    _Alignas(256) uint16_t kv[PAGES * PAGE_STRIDE];
    _Alignas(256) uint16_t out[COUNT * WIDTH];
    _Alignas(256) int32_t table[3][COLUMNS];
    _Alignas(256) int32_t first[ROWS + 1];
    _Alignas(256) int32_t slots[ROWS], positions[ROWS];
};

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    for (size_t i = 0; i < sizeof(r->kv) / 2; i++)
        r->kv[i] = (uint16_t)(i + 1);
    for (size_t i = 0; i < sizeof(r->out) / 2; i++)
        r->out[i] = POISON;
    memcpy(r->table, table, sizeof(table));
    memcpy(r->first, first, sizeof(first));
    memcpy(r->slots, slots, sizeof(slots));
    memcpy(r->positions, positions, sizeof(positions));
    *state = r;
    return 0;
}

static struct rt_kv_gather_args good(const struct rig *r)
{
    return (struct rt_kv_gather_args){.struct_size = sizeof(struct rt_kv_gather_args),
                                      .rows = ROWS,
                                      .count = COUNT,
                                      .width = WIDTH,
                                      .page_size = PAGE,
                                      .max_blocks = COLUMNS,
                                      .pages = PAGES,
                                      .kv = at(r->kv),
                                      .block_table = at(r->table),
                                      .slots = at(r->slots),
                                      .first = at(r->first),
                                      .positions = at(r->positions),
                                      .out = at(r->out),
                                      .kv_page_stride = PAGE_STRIDE,
                                      .kv_token_stride = TOKEN_STRIDE};
}

/* Token `token` of all rows lies at out[j]. */
static void expect_token(const struct rig *r, int32_t token, uint32_t j, bool own_lines,
                         bool from_0)
{
    int row = -1;
    for (int i = 0; i < ROWS; i++)
        row = token >= first[i] && token < first[i + 1] ? i : row;
    const int slot = row < 0 ? 0 : own_lines ? row : slots[row];
    const int position = row < 0 ? 0 : (from_0 ? 0 : positions[row]) + token - first[row];
    const int page = position / PAGE < COLUMNS ? table[slot][position / PAGE] : -1;
    for (uint32_t d = 0; d < WIDTH; d++) {
        const uint32_t place = (uint32_t)(position % PAGE) * TOKEN_STRIDE + d;
        const uint16_t there =
            page >= 0 && page < PAGES ? r->kv[(uint32_t)page * PAGE_STRIDE + place] : 0;
        const uint16_t want = row < 0 ? POISON : there;
        if (r->out[j * WIDTH + d] != want)
            fail_msg("token %d, number %u: 0x%04x, not 0x%04x", token, d, r->out[j * WIDTH + d],
                     want);
    }
}

static void gathers(void **state)
{
    struct rig *r = *state;
    const struct rt_kv_gather_args args = good(r);
    assert_int_equal(rt_kv_gather(r->ops, &args, NULL), RT_OK);
    for (uint32_t j = 0; j < COUNT; j++)
        expect_token(r, (int32_t)j, j, false, false);
}

/* The tokens from the sixth on, of lines and positions that nobody gave. */
static void gathers_a_part(void **state)
{
    struct rig *r = *state;
    struct rt_kv_gather_args args = good(r);
    r->first[3] = r->first[4] = first[3]; /* row 3 has no line of its own number */
    args.begin = 6;
    args.count = 5;
    args.slots = args.positions = 0;
    assert_int_equal(rt_kv_gather(r->ops, &args, NULL), RT_OK);
    for (uint32_t j = 0; j < 5; j++)
        expect_token(r, 6 + (int32_t)j, j, true, true);
    for (size_t i = 5u * WIDTH; i < sizeof(r->out) / 2; i++)
        assert_int_equal(r->out[i], POISON);
}

/* Negative lines, and no table at all: zeros. */
static void nothing_is_zeros(void **state)
{
    struct rig *r = *state;
    struct rt_kv_gather_args args = good(r);
    args.begin = 1;
    args.count = 20;
    for (int without_table = 0; without_table < 2; without_table++) {
        memset(r->out, 0x11, 20u * WIDTH * sizeof(uint16_t));
        for (int i = 0; i < ROWS; i++)
            r->slots[i] = without_table ? slots[i] : -1 - i;
        args.max_blocks = without_table ? 0 : COLUMNS;
        args.block_table = without_table ? 0 : at(r->table);
        assert_int_equal(rt_kv_gather(r->ops, &args, NULL), RT_OK);
        for (size_t i = 0; i < 20u * WIDTH; i++)
            assert_int_equal(r->out[i], 0);
    }
}

static enum rt_status run(rt_ops *ops, const void *args)
{
    return rt_kv_gather(ops, args, NULL);
}

static void refuses(void **state)
{
    struct rig *r = *state;
#define BAD(member, value, words) MISTAKE(rt_kv_gather_args, member, value, words)
    const struct mistake bad[] = {
        BAD(struct_size, 3, "rt_kv_gather: args->struct_size is 3"),
        BAD(rows, 0, "rt_kv_gather: rows 0 is not 1..512"),
        BAD(rows, 513, "rows 513 is not 1..512"),
        BAD(count, 0, "count 0 is not 1..16777216"),
        BAD(count, RT_PREFILL_MAX_TOKENS + 1, "count 16777217 is not"),
        BAD(begin, INT32_MAX, "begin 2147483647 is not 0..2147483617"),
        BAD(width, 0, "rt_kv_gather: width 0 is not a multiple of 8 from 8 to 32768"),
        BAD(width, 12, "width 12 is not"),
        BAD(width, 32776, "width 32776 is not"),
        BAD(page_size, 0, "page_size 0 is not 1.."),
        BAD(page_size, RT_MAX_LENGTH + 1, "page_size "),
        BAD(max_blocks, RT_MAX_LENGTH + 1, "max_blocks "),
        BAD(pages, 0, "pages 0 is not 1..2147483647"),
        BAD(pages, UINT32_MAX, "pages 4294967295 is not"),
        BAD(kv, 0, "kv is null"),
        BAD(kv, at(r->kv) + 8, "kv = 0x"),
        BAD(block_table, 0, "block_table is null"),
        BAD(block_table, at(r->table) + 2, "block_table = 0x"),
        BAD(slots, at(r->slots) + 2, "slots = 0x"),
        BAD(first, 0, "first is null"),
        BAD(first, at(r->first) + 1, "first = 0x"),
        BAD(positions, at(r->positions) + 2, "positions = 0x"),
        BAD(out, 0, "out is null"),
        BAD(out, at(r->out) + 2, "out = 0x"),
        BAD(kv_page_stride, 12, "kv_page_stride = 12 is not a non-negative multiple of 8"),
        BAD(kv_token_stride, -8, "kv_token_stride = -8 is not"),
        BAD(kv_token_stride, INT64_C(1) << 39, "is not below 2^39 elements"),
        BAD(kv_token_stride, WIDTH - 8, "kv_token_stride of kv leads 32 bytes on, of which 48"),
        BAD(kv_page_stride, 8, "kv_page_stride of kv leads 16 bytes on, of which 48 are taken"),
        BAD(kv, at(r->out), "out = 0x"),
        BAD(out, at(r->kv + PAGES * PAGE_STRIDE - GAP - WIDTH), "and kv = 0x"),
        BAD(block_table, at(r->out) + sizeof(r->out) - 4, "and block_table = 0x"),
        BAD(slots, at(r->out), "and slots = 0x"),
        BAD(first, at(r->out) - 4 * ROWS, "and first = 0x"),
        BAD(positions, at(r->out) + 4, "and positions = 0x"),
    };
#undef BAD
    const struct rt_kv_gather_args args = good(r);
    REFUSE_ALL(r->ops, run, args, bad);
    for (size_t i = 0; i < sizeof(r->out) / 2; i++)
        assert_int_equal(r->out[i], POISON);
}

/* ---- other layouts than bf16 ----------------------------------------------------------------- */

#define LAYOUT_ROWS 2u
#define LAYOUT_TOKENS 20
#define LAYOUT_SCALE 0.0117f
#define MOST_POOL (PAGES * PAGE * 576u * 2)

/* Pools of bf16 as it was, of the layout, and of what the layout makes of it. */
struct layout_rig {
    rt_ops *ops;
    _Alignas(256) unsigned char plain[MOST_POOL];
    _Alignas(256) unsigned char quantised[MOST_POOL];
    _Alignas(256) unsigned char back[MOST_POOL];
    _Alignas(256) uint16_t out[LAYOUT_TOKENS * 576], expected[LAYOUT_TOKENS * 576];
    _Alignas(256) int32_t table[LAYOUT_ROWS][COLUMNS];
    _Alignas(256) int32_t first[LAYOUT_ROWS + 1], positions[LAYOUT_ROWS], lengths[LAYOUT_ROWS];
};

static int set_up_layouts(void **state)
{
    static const int32_t lines[LAYOUT_ROWS][COLUMNS] = {{5, 0, 6}, {1, 2, 4}};
    struct layout_rig *r = op_rig_new(sizeof(*r));
    uint64_t random = 5;
    fill(&random, (uint16_t *)(void *)r->plain, MOST_POOL / 2);
    memcpy(r->table, lines, sizeof(lines));
    r->first[0] = 2;
    r->first[1] = 11;
    r->first[2] = 18;
    r->positions[1] = 5; /* behind it the table is left */
    r->lengths[0] = r->lengths[1] = PAGE * COLUMNS;
    *state = r;
    return 0;
}

static const struct layout_case {
    enum rt_kv_layout layout;
    uint32_t d_qk, d_v;
    float scale;
} layout_cases[] = {{RT_KV_FP8_TENSOR, 288, 256, LAYOUT_SCALE},
                    {RT_KV_FP8_TOKEN, 320, 256, 0},
                    {RT_KV_V32, 576, 512, 0},
                    {RT_KV_V32_NO_ROPE, 512, 512, 0},
                    {RT_KV_V4, 512, 512, 0},
                    {RT_KV_FP8_TOKEN, 512, 512, 0}};

static struct rt_kv_pages pages_of(const struct layout_rig *r, enum rt_kv_layout layout,
                                   float scale, const unsigned char *kv)
{
    return (struct rt_kv_pages){.layout = layout,
                                .kv_scale = scale,
                                .page_size = PAGE,
                                .max_blocks = COLUMNS,
                                .pages = PAGES,
                                .kv = at(kv),
                                .block_table = at(r->table)};
}

static void convert(struct layout_rig *r, const struct layout_case *c, bool back)
{
    const struct rt_kv_pages plain = pages_of(r, RT_KV_BF16, 0, back ? r->back : r->plain);
    const struct rt_kv_pages quantised = pages_of(r, c->layout, c->scale, r->quantised);
    const struct rt_kv_convert_args args = {.struct_size = sizeof(args),
                                            .rows = LAYOUT_ROWS,
                                            .d_qk = c->d_qk,
                                            .d_v = c->d_v,
                                            .max_length = PAGE * COLUMNS,
                                            .lengths = at(r->lengths),
                                            .from = back ? quantised : plain,
                                            .to = back ? plain : quantised};
    assert_int_equal(rt_kv_convert(r->ops, &args, NULL), RT_OK);
}

static struct rt_kv_gather_args gather_of(const struct layout_rig *r, const struct layout_case *c)
{
    return (struct rt_kv_gather_args){.struct_size = sizeof(struct rt_kv_gather_args),
                                      .rows = LAYOUT_ROWS,
                                      .count = LAYOUT_TOKENS,
                                      .width = c->d_qk,
                                      .page_size = PAGE,
                                      .max_blocks = COLUMNS,
                                      .pages = PAGES,
                                      .kv = at(r->quantised),
                                      .block_table = at(r->table),
                                      .first = at(r->first),
                                      .positions = at(r->positions),
                                      .out = at(r->out),
                                      .kv_layout = c->layout,
                                      .d_v = c->d_v,
                                      .kv_scale = c->scale};
}

/* What comes of a layout is what comes of a cache of bf16 that it was converted to. */
static void gathers_layouts(void **state)
{
    struct layout_rig *r = *state;
    for (size_t i = 0; i < sizeof(layout_cases) / sizeof(layout_cases[0]); i++) {
        const struct layout_case *c = &layout_cases[i];
        struct rt_kv_gather_args args = gather_of(r, c);
        const size_t bytes = (size_t)LAYOUT_TOKENS * c->d_qk * sizeof(uint16_t);
        convert(r, c, false);
        convert(r, c, true);
        memset(r->out, 0x7f, sizeof(r->out));
        memset(r->expected, 0x7f, sizeof(r->expected));
        assert_int_equal(rt_kv_gather(r->ops, &args, NULL), RT_OK);
        args.kv_layout = RT_KV_BF16;
        args.d_v = 0;
        args.kv_scale = 0;
        args.kv = at(r->back);
        args.out = at(r->expected);
        assert_int_equal(rt_kv_gather(r->ops, &args, NULL), RT_OK);
        assert_memory_equal(r->out, r->expected, bytes);
        /* Token 2 of all is the first of row 0, at page 5: within what e4m3 has of it. */
        const uint16_t *was = (const uint16_t *)(void *)r->plain + (size_t)5 * PAGE * c->d_qk;
        for (uint32_t d = 0; d < c->d_qk; d++)
            assert_true(fabs(number(r->out[2 * c->d_qk + d]) - number(was[d])) < 0.13);
    }
}

static void refuses_layouts(void **state)
{
    struct layout_rig *r = *state;
    const struct layout_case token = {RT_KV_FP8_TOKEN, 288, 256, 0};
#define BAD(member, value, words) MISTAKE(rt_kv_gather_args, member, value, words)
    const struct mistake bad[] = {
        BAD(kv_layout, 99, "rt_kv_gather: kv_layout 99 is not known"),
        BAD(kv_layout, RT_KV_FP8_TENSOR, "kv_scale 0 is not a finite number above 0"),
        BAD(kv_layout, RT_KV_BF16, "d_v 256 and kv_scale 0 of a cache of bf16 are not 0"),
        BAD(reserved, 1, "reserved is 1"),
        BAD(kv_token_stride, 328, "kv_token_stride = 328 is not a non-negative multiple of 16"),
        BAD(kv_token_stride, 304, "kv_token_stride of kv leads 304 bytes on, of which 320"),
        BAD(out, at(r->quantised) + (PAGES - 1) * (PAGE * 324) + PAGE * 320, /* of the last page */
            "and scales of kv = 0x"),
    };
#undef BAD
    const struct layout_case strange[] = {
        {RT_KV_V4, 288, 256, 0}, {RT_KV_FP8_TOKEN, 24, 256, 0}, {RT_KV_FP8_TOKEN, 288, 0, 0}};
    struct rt_kv_gather_args args = gather_of(r, &token);
    memset(r->out, 0x11, sizeof(r->out));
    REFUSE_ALL(r->ops, run, args, bad);
    args.kv_scale = 0.5f;
    refused(r->ops, run(r->ops, &args), "kv_scale 0.5 with layout fp8_token, which has none");
    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
        char words[80];
        args = gather_of(r, &strange[i]);
        (void)snprintf(words, sizeof(words), "rt_kv_gather: kv_layout %s has no d_qk/d_v %u/%u",
                       i ? "fp8_token" : "v4", strange[i].d_qk, strange[i].d_v);
        assert_int_equal(run(r->ops, &args), RT_ERR_GEOMETRY);
        assert_string_equal(rt_ops_last_error(r->ops)->message, words);
    }
    for (size_t i = 0; i < sizeof(r->out) / 2; i++)
        assert_int_equal(r->out[i], 0x1111);
}

#define LAYOUT_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_layouts, op_rig_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        OP_TEST(gathers), OP_TEST(gathers_a_part),      OP_TEST(nothing_is_zeros),
        OP_TEST(refuses), LAYOUT_TEST(gathers_layouts), LAYOUT_TEST(refuses_layouts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
