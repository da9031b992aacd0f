/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt_kv_convert: a sequence that one runtime has taken in goes on in another, of another layout and
 * page size, bit for bit as if all of it had been put in there; only the pages of the rows named
 * change; and what it refuses, by name. The same program runs with the CUDA kernels, emulated.
 */
#include "replayrt/kv_ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/values.h"

#define D_V 256
#define D_QK 288
#define HEADS 3
#define TOKENS 21u
#define PAGE 4u
#define COLUMNS 2u
#define PAGES 5u
#define SCALE 0.0117f

/* ---- one runtime's tokens in another's cache ------------------------------------------------- */

/* Inputs follow from the token's position alone. */
static int write_inputs(void *user, const struct rt_stage_context *c)
{
    const uint32_t *position = user;
    uint64_t random = 1 + *position * 8u + c->layer;
    fill(&random, fixture_address(c->runtime, "q", 0), (size_t)HEADS * D_QK);
    fill(&random, fixture_address(c->runtime, "latent", 0), D_QK);
    return 0;
}

struct side {
    rt_runtime *rt;
    rt_seq seq;
    uint32_t position;
    enum rt_kv_layout layout;
    uint32_t page_size;
};

static void open_side(struct side *s, enum rt_kv_layout layout, uint32_t page_size)
{
    struct rt_config config;
    struct rt_create_params params = {.struct_size = sizeof(params), .config = &config};
    struct rt_error err = {.status = RT_OK};
    *s = (struct side){.layout = layout, .page_size = page_size};
    fixture_config(&config);
    strcpy(config.device, "host");
    config.kv_layout = layout;
    config.kv_scale = layout == RT_KV_FP8_TENSOR ? (double)SCALE : 1;
    config.page_size = page_size;
    params.stages[RT_STAGE_BEFORE_ATTENTION] = write_inputs;
    params.stage_user = &s->position;
    if (rt_create(&params, &s->rt, &err) != RT_OK)
        fail_msg("%s", err.message);
}

static void step(struct side *s)
{
    fixture_step_ok(s->rt, &s->seq, 1, 1);
    s->position++;
}

static void take_in(struct side *s, uint32_t tokens)
{
    s->seq = fixture_open(s->rt);
    for (uint32_t i = 0; i < tokens; i++)
        step(s);
}

static struct rt_kv_pages pages_of(const struct side *s, const int32_t *table, uint32_t columns,
                                   uint32_t layer)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    assert_int_equal(rt_tensor(s->rt, "kv", layer, &t), RT_OK);
    return (struct rt_kv_pages){.layout = s->layout,
                                .kv_scale = s->layout == RT_KV_FP8_TENSOR ? SCALE : 0,
                                .page_size = s->page_size,
                                .max_blocks = columns,
                                .pages = (uint32_t)t.shape[0],
                                .kv = t.address,
                                .block_table = at(table)};
}

/* `to` opens a sequence of as many tokens, whose pages are filled from from's. */
static void hand_over(const struct side *from, struct side *to)
{
    const struct rt_seq_params params = {
        .struct_size = sizeof(params), .length = from->position, .last_token = -1};
    static _Alignas(16) int32_t from_table[16], to_table[16], length;
    uint32_t from_count, to_count;
    rt_ops *ops;
    length = (int32_t)from->position;
    to->position = from->position;
    assert_int_equal(rt_seq_open(to->rt, &params, &to->seq), RT_OK);
    assert_int_equal(rt_seq_pages(from->rt, from->seq, from_table, 16, &from_count), RT_OK);
    assert_int_equal(rt_seq_pages(to->rt, to->seq, to_table, 16, &to_count), RT_OK);
    assert_int_equal(rt_ops_create("host", &ops, NULL), RT_OK);
    for (uint32_t layer = 0; layer < 2; layer++) {
        const struct rt_kv_convert_args args = {.struct_size = sizeof(args),
                                                .rows = 1,
                                                .d_qk = D_QK,
                                                .d_v = D_V,
                                                .max_length = from->position,
                                                .lengths = at(&length),
                                                .from =
                                                    pages_of(from, from_table, from_count, layer),
                                                .to = pages_of(to, to_table, to_count, layer)};
        if (rt_kv_convert(ops, &args, NULL) != RT_OK)
            fail_msg("%s", rt_ops_last_error(ops)->message);
    }
    rt_ops_destroy(&ops);
}

/* From bf16 into any layout, and between equal ones: what decode gives is what it would have
 * given had the tokens been put in there. */
static void a_sequence_goes_on_elsewhere(void **state)
{
    static const enum rt_kv_layout ways[][2] = {{RT_KV_BF16, RT_KV_V32},
                                                {RT_KV_BF16, RT_KV_FP8_TOKEN},
                                                {RT_KV_BF16, RT_KV_FP8_TENSOR},
                                                {RT_KV_V32, RT_KV_V32},
                                                {RT_KV_FP8_TOKEN, RT_KV_FP8_TOKEN}};
    (void)state;
    for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
        struct side prompt, decode, whole;
        open_side(&prompt, ways[w][0], 16);
        open_side(&decode, ways[w][1], 32);
        open_side(&whole, ways[w][1], 32);
        take_in(&prompt, TOKENS);
        take_in(&whole, TOKENS);
        hand_over(&prompt, &decode);
        for (uint32_t i = 0; i < 3; i++) {
            step(&decode);
            step(&whole);
            assert_memory_equal(fixture_address(decode.rt, "out", 0),
                                fixture_address(whole.rt, "out", 0), HEADS * D_V * 2);
        }
        rt_destroy(&prompt.rt);
        rt_destroy(&decode.rt);
        rt_destroy(&whole.rt);
    }
}

/* ---- the operator ---------------------------------------------------------------------------- */

struct rig {
    rt_ops *ops;
    _Alignas(256) uint16_t from[PAGES * PAGE * D_QK];
    _Alignas(256) unsigned char to[PAGES * PAGE * D_QK * 2];
    _Alignas(256) int32_t from_table[2][COLUMNS], to_table[2][COLUMNS], lengths[2];
};

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    const int32_t from[2][COLUMNS] = {{4, 1}, {0, 2}}, to[2][COLUMNS] = {{0, 3}, {2, PAGES}};
    const int32_t lengths[2] = {6, 8};
    uint64_t random = 5;
    fill(&random, r->from, sizeof(r->from) / 2);
    memset(r->to, 0x5a, sizeof(r->to));
    memcpy(r->from_table, from, sizeof(from));
    memcpy(r->to_table, to, sizeof(to));
    memcpy(r->lengths, lengths, sizeof(lengths));
    *state = r;
    return 0;
}

static struct rt_kv_convert_args good(const struct rig *r)
{
    const struct rt_kv_pages side = {.page_size = PAGE, .max_blocks = COLUMNS, .pages = PAGES};
    struct rt_kv_convert_args args = {.struct_size = sizeof(args),
                                      .rows = 2,
                                      .d_qk = D_QK,
                                      .d_v = D_V,
                                      .max_length = 7,
                                      .lengths = at(r->lengths),
                                      .from = side,
                                      .to = side};
    args.from.kv = at(r->from);
    args.from.block_table = at(r->from_table);
    args.to.kv = at(r->to);
    args.to.block_table = at(r->to_table);
    return args;
}

/* A copy: six tokens of row 0; four of row 1, whose second page is none; all else is as it was. */
static void only_what_is_named(void **state)
{
    struct rig *r = *state;
    const struct rt_kv_convert_args args = good(r);
    const size_t token = D_QK * 2, page = PAGE * token;
    unsigned char *expected = malloc(sizeof(r->to));
    assert_non_null(expected);
    memset(expected, 0x5a, sizeof(r->to));
    memcpy(expected, (char *)r->from + 4 * page, page);
    memcpy(expected + 3 * page, (char *)r->from + page, 2 * token);
    memcpy(expected + 2 * page, r->from, page);
    assert_int_equal(rt_kv_convert(r->ops, &args, NULL), RT_OK);
    assert_memory_equal(r->to, expected, sizeof(r->to));
    free(expected);
}

static enum rt_status run(rt_ops *ops, const void *args)
{
    return rt_kv_convert(ops, args, NULL);
}

static void refuses(void **state)
{
    struct rig *r = *state;
    const float nan_number = NAN;
    uint32_t nan_bits;
    memcpy(&nan_bits, &nan_number, sizeof(nan_bits));
#define BAD(member, value, words) MISTAKE(rt_kv_convert_args, member, value, words)
    const struct mistake bad[] = {
        BAD(struct_size, 3, "rt_kv_convert: args->struct_size is 3"),
        BAD(rows, 0, "rt_kv_convert: rows 0 is not 1.."),
        BAD(max_length, 0, "max_length 0 is not 1.."),
        BAD(reserved, 1, "rt_kv_convert: reserved"),
        BAD(lengths, 0, "lengths is null"),
        BAD(lengths, at(r->lengths) + 2, "lengths = 0x"),
        BAD(from.layout, 77, "rt_kv_convert: from: kv_layout 77 is not known"),
        BAD(from.kv_scale, nan_bits, "rt_kv_convert: from: kv_scale nan with layout bf16"),
        BAD(to.layout, RT_KV_FP8_TENSOR, "to: kv_scale 0 is not a finite number above 0"),
        BAD(to.page_size, 0, "rt_kv_convert: to: page_size 0 is not 1.."),
        BAD(to.max_blocks, 0, "to: max_blocks 0 is not 1.."),
        BAD(from.pages, 0, "from: pages 0 is not 1..2147483647"),
        BAD(from.reserved, 1, "rt_kv_convert: from: reserved"),
        BAD(from.kv, 0, "from: kv is null"),
        BAD(to.kv, at(r->to) + 8, "to: kv = 0x"),
        BAD(to.block_table, at(r->to_table) + 1, "to: block_table = 0x"),
        BAD(from.kv_token_stride, 4, "from: kv_token_stride = 4 is not"),
        BAD(to.kv, at(r->from), "to.kv = 0x"),
        BAD(to.kv_token_stride, 8, "kv_token_stride of to.kv leads 16 bytes on"),
        BAD(lengths, at(r->to) + 4, "and lengths = 0x"),
        BAD(from.block_table, at(r->to), "and from.block_table = 0x"),
    };
#undef BAD
    struct rt_kv_convert_args args = good(r);
    REFUSE_ALL(r->ops, run, args, bad);
    args.to.layout = RT_KV_V4;
    assert_int_equal(rt_kv_convert(r->ops, &args, NULL), RT_ERR_GEOMETRY);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message,
                           "rt_kv_convert: to: kv_layout v4 has no d_qk/d_v 288/256"));
    args = good(r);
    args.d_v = 0;
    args.to.layout = RT_KV_FP8_TOKEN;
    assert_int_equal(rt_kv_convert(r->ops, &args, NULL), RT_ERR_GEOMETRY);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "has no d_qk/d_v 288/0"));
    for (size_t i = 0; i < sizeof(r->to); i++)
        assert_int_equal(r->to[i], 0x5a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_sequence_goes_on_elsewhere),
                                       OP_TEST(only_what_is_named), OP_TEST(refuses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
