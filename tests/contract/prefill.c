/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts in chunks, alone and beside rows that decode, against the same tokens one by one.
 *
 * usage: prefill TOKENS    of the longest prompt
 */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/prompts.h"

#define D_QK 288
#define D_V 256
#define HEADS 3
#define LAYERS 2

static const uint32_t chunks[] = {5, 24};
static const uint32_t mixed[] = {1, 3};

static rt_runtime *create(void)
{
    struct rt_config config;
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    fixture_config(&config);
    memcpy(config.chunks, chunks, sizeof(chunks));
    config.chunk_count = 2;
    config.prefill_rows = 3;
    memcpy(config.mixed_rows, mixed, sizeof(mixed));
    config.mixed_row_count = 2;
    const struct rt_create_params p = {.struct_size = sizeof(p),
                                       .config = &config,
                                       .stages = {[RT_STAGE_BEFORE_ATTENTION] = feed_tokens}};
    if (rt_create(&p, &rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    return rt;
}

static void expect_same_cache(rt_runtime *a, rt_seq of_a, rt_runtime *b, rt_seq of_b)
{
    uint32_t length[2] = {0, 0};
    assert_int_equal(rt_seq_length(a, of_a, &length[0]), RT_OK);
    assert_int_equal(rt_seq_length(b, of_b, &length[1]), RT_OK);
    assert_int_equal(length[0], length[1]);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t i = 0; i < length[0]; i++)
            assert_memory_equal(cached(a, of_a, layer, i), cached(b, of_b, layer, i), D_QK * 2);
}

static void expect_close(const uint16_t *a, const uint16_t *b, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const float x = rt_bf16_to_float(a[i]), y = rt_bf16_to_float(b[i]);
        if (!(fabsf(x - y) <= 8e-4f + fabsf(y) * 2.01f / 128))
            fail_msg("element %u: %g, one by one %g", i, (double)x, (double)y);
    }
}

static void read_out(rt_runtime *rt, uint32_t token, uint16_t *out)
{
    const uint16_t *all = fixture_address(rt, "out", LAYERS - 1);
    memcpy(out, all + (size_t)token * HEADS * D_V, HEADS * D_V * 2);
}

/* Lengths that end within chunks and at their ends, and pages. */
static void prompts_are_their_tokens(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {1, 4, 5, 6, 16, 23, 24, 25, 47, 61, 80};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        rt_runtime *rt = create(), *other = create();
        const rt_seq seq = fixture_open(rt), twin = fixture_open(other);
        int32_t ids[80];
        uint16_t out[HEADS * D_V], expected[HEADS * D_V];
        make_ids(ids, lengths[i], 5 + i);
        const struct rt_prompt prompt = {.seq = seq, .tokens = ids, .count = lengths[i]};
        const struct rt_prefill_params p = {
            .struct_size = sizeof(p), .prompts = &prompt, .prompt_count = 1};
        uint64_t ticket = 0;
        if (rt_prefill(rt, &p, &ticket) != RT_OK)
            fail_msg("%s", rt_last_error(rt)->message);
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
        read_out(rt, last_of(rt, 0), out);
        for (uint32_t t = 0; t < lengths[i]; t++)
            step_one(other, twin, ids[t]);
        read_out(other, 0, expected);
        expect_same_cache(rt, seq, other, twin);
        expect_close(out, expected, HEADS * D_V);
        rt_destroy(&rt);
        rt_destroy(&other);
    }
}

#define LONGEST 4096u

static uint32_t long_tokens; /* of the longest prompt, a multiple of a page's 64 */

/* A head of a layer, of sequences as long, with one chunk size or none. */
static rt_runtime *create_long(uint32_t chunk)
{
    struct rt_config config;
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    fixture_config(&config);
    config.geometry.heads = config.geometry.layers = 1;
    config.max_sequences = 1;
    config.max_length = long_tokens;
    config.page_size = 64;
    config.pages = long_tokens / 64;
    config.chunks[0] = chunk;
    config.chunk_count = chunk > 0;
    config.batch_size_count = config.query_len_count = 1;
    const struct rt_create_params p = {.struct_size = sizeof(p),
                                       .config = &config,
                                       .stages = {[RT_STAGE_BEFORE_ATTENTION] = feed_tokens}};
    if (rt_create(&p, &rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    return rt;
}

/* One by one, in one chunk, and in chunks that end nowhere: the same cache, bit for bit, and what
 * the last token sees of it but for the order of sums. */
static void a_long_prompt_is_its_tokens(void **state)
{
    (void)state;
    const uint32_t sizes[] = {long_tokens, 999};
    static int32_t ids[LONGEST];
    uint16_t out[D_V], expected[D_V];
    rt_runtime *other = create_long(0);
    const rt_seq twin = fixture_open(other);
    make_ids(ids, long_tokens, 77);
    for (uint32_t t = 0; t < long_tokens; t++)
        step_one(other, twin, ids[t]);
    memcpy(expected, fixture_address(other, "out", 0), sizeof(expected));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        rt_runtime *rt = create_long(sizes[i]);
        const rt_seq seq = fixture_open(rt);
        const struct rt_prompt prompt = {.seq = seq, .tokens = ids, .count = long_tokens};
        const struct rt_prefill_params p = {
            .struct_size = sizeof(p), .prompts = &prompt, .prompt_count = 1};
        uint64_t ticket = 0;
        assert_int_equal(rt_prefill(rt, &p, &ticket), RT_OK);
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
        for (uint32_t t = 0; t < long_tokens; t++)
            assert_memory_equal(cached(rt, seq, 0, t), cached(other, twin, 0, t), D_QK * 2);
        const uint16_t *all = fixture_address(rt, "out", 0);
        memcpy(out, all + (size_t)last_of(rt, 0) * D_V, sizeof(out));
        expect_close(out, expected, D_V);
        rt_destroy(&rt);
    }
    rt_destroy(&other);
}

/* More prompts than a chunk has rows, some in the middle of a sequence. */
static void several_prompts_share_chunks(void **state)
{
    (void)state;
    enum { COUNT = 5 };
    static const uint32_t before[COUNT] = {0, 7, 0, 16, 3}, counts[COUNT] = {9, 2, 30, 1, 20};
    rt_runtime *rt = create(), *other = create();
    struct rt_prompt prompts[COUNT];
    rt_seq twins[COUNT];
    int32_t ids[COUNT][64];
    uint64_t tickets[COUNT] = {0}, ticket = 0;
    uint32_t rows[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        make_ids(ids[i], 64, 40 + i);
        prompts[i] = (struct rt_prompt){
            .seq = fixture_open(rt), .tokens = ids[i] + before[i], .count = counts[i]};
        twins[i] = fixture_open(other);
        for (uint32_t t = 0; t < before[i]; t++)
            step_one(rt, prompts[i].seq, ids[i][t]);
        for (uint32_t t = 0; t < before[i] + counts[i]; t++)
            step_one(other, twins[i], ids[i][t]);
    }
    const struct rt_prefill_params p = {.struct_size = sizeof(p),
                                        .prompts = prompts,
                                        .prompt_count = COUNT,
                                        .tickets = tickets,
                                        .rows = rows};
    if (rt_prefill(rt, &p, &ticket) != RT_OK)
        fail_msg("%s", rt_last_error(rt)->message);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    for (uint32_t i = 0; i < COUNT; i++)
        expect_same_cache(rt, prompts[i].seq, other, twins[i]);
    /* 24 of 9 + 2 + 13, then 17 + 1 + 6, then 14 */
    assert_int_equal(tickets[0], ticket - 2);
    assert_int_equal(tickets[1], ticket - 2);
    assert_int_equal(tickets[2], ticket - 1);
    assert_int_equal(tickets[3], ticket - 1);
    assert_int_equal(tickets[4], ticket);
    assert_int_equal(rows[1], 1);
    assert_int_equal(rows[2], 0);
    assert_int_equal(rows[3], 1);
    int32_t tokens[3];
    uint32_t count = 0;
    assert_int_equal(rt_result_tokens(rt, tickets[2], tokens, 3, &count), RT_OK);
    assert_int_equal(count, 3);
    assert_int_equal(tokens[0], ids[2][29]);
    assert_int_equal(tokens[1], ids[3][16]);
    rt_destroy(&rt);
    rt_destroy(&other);
}

/* Rows that decode beside prompts: bit for bit as alone in a batch as large. */
static void mixed_steps_are_separate_ones(void **state)
{
    (void)state;
    for (uint32_t eager = 0; eager < 2; eager++) {
        rt_runtime *rt = create(), *other = create();
        int32_t ids[2][40];
        rt_seq seqs[2], twins[2];
        uint16_t out[HEADS * D_V], expected[HEADS * D_V];
        uint64_t ticket = 0;
        for (uint32_t i = 0; i < 2; i++) {
            make_ids(ids[i], 40, 70 + i);
            seqs[i] = fixture_open(rt);
            twins[i] = fixture_open(other);
        }
        for (uint32_t t = 0; t < 20; t++) {
            step_one(rt, seqs[0], ids[0][t]);
            step_one(other, twins[0], ids[0][t]);
        }
        const struct rt_prompt prompt = {.seq = seqs[1], .tokens = ids[1], .count = 21};
        const struct rt_step_params p = {.struct_size = sizeof(p),
                                         .flags = eager ? RT_STEP_EAGER : 0,
                                         .rows = 1,
                                         .seqs = &seqs[0],
                                         .tokens = &ids[0][20],
                                         .prompts = &prompt,
                                         .prompt_count = 1};
        if (rt_step(rt, &p, &ticket) != RT_OK)
            fail_msg("%s", rt_last_error(rt)->message);
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
        struct rt_stats stats = {.struct_size = sizeof(stats)};
        assert_int_equal(rt_get_stats(rt, &stats), RT_OK);
        assert_int_equal(stats.replays, 21);
        read_out(rt, last_of(rt, 1), out);
        step_one(other, twins[0], ids[0][20]);
        read_out(other, 0, expected);
        assert_memory_equal(out, expected, sizeof(out));
        for (uint32_t t = 0; t < 21; t++)
            step_one(other, twins[1], ids[1][t]);
        for (uint32_t i = 0; i < 2; i++)
            expect_same_cache(rt, seqs[i], other, twins[i]);
        rt_destroy(&rt);
        rt_destroy(&other);
    }
}

static void idle_steps_touch_nothing(void **state)
{
    (void)state;
    rt_runtime *rt = create();
    struct rt_step_params p = {.struct_size = sizeof(p), .idle_batch = 2};
    struct rt_row_result row;
    uint64_t ticket = 0;
    uint32_t count = 9;
    assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
    assert_int_equal(ticket, 1);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    assert_int_equal(rt_result(rt, ticket, &row, 1, &count), RT_OK);
    assert_int_equal(count, 0);
    p.prompt_count = 1;
    assert_int_equal(rt_step(rt, &p, &ticket), RT_ERR_INVALID);
    assert_non_null(strstr(rt_last_error(rt)->message, "idle_batch 2 beside 0 rows and 1 prompts"));
    p.prompt_count = 0;
    p.idle_batch = 3;
    assert_int_equal(rt_step(rt, &p, &ticket), RT_ERR_ROWS);
    assert_non_null(strstr(rt_last_error(rt)->message, "idle_batch 3"));
    rt_destroy(&rt);
}

static void refuse(rt_runtime *rt, const struct rt_prompt *prompts, uint32_t count,
                   enum rt_status status, const char *text)
{
    struct fixture_snapshot before, after;
    const struct rt_prefill_params p = {
        .struct_size = sizeof(p), .prompts = prompts, .prompt_count = count};
    uint64_t ticket = 99;
    fixture_snapshot(rt, &before);
    assert_int_equal(rt_prefill(rt, &p, &ticket), status);
    fixture_snapshot(rt, &after);
    if (!strstr(rt_last_error(rt)->message, text))
        fail_msg("\"%s\" has no \"%s\"", rt_last_error(rt)->message, text);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(ticket, 99);
}

/* More rows than there are sequences are refused before any of them is looked at. */
static void rows_are_counted_before_they_are_read(void **state)
{
    (void)state;
    rt_runtime *rt = create();
    int32_t id = 1;
    const rt_seq seq = fixture_open(rt);
    const struct rt_prompt prompt = {.seq = fixture_open(rt), .tokens = &id, .count = 1};
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .rows = UINT32_MAX,
                                     .seqs = &seq,
                                     .prompts = &prompt,
                                     .prompt_count = 1};
    uint64_t ticket = 0;
    assert_int_equal(rt_step(rt, &p, &ticket), RT_ERR_ROWS);
    assert_non_null(strstr(rt_last_error(rt)->message, "4294967295 rows; this runtime has 1..6"));
    rt_destroy(&rt);
}

static void bad_prompts_change_nothing(void **state)
{
    (void)state;
    rt_runtime *rt = create();
    const rt_seq seq = fixture_open(rt), closed = fixture_open(rt);
    int32_t ids[200];
    make_ids(ids, 200, 1);
    assert_int_equal(rt_seq_close(rt, closed), RT_OK);
    struct rt_prompt p[2] = {{.seq = seq, .tokens = ids, .count = 81},
                             {.seq = seq, .tokens = ids, .count = 3}};
    refuse(rt, p, 1, RT_ERR_LENGTH, "81 new ones");
    p[0].count = 3;
    refuse(rt, p, 2, RT_ERR_DUPLICATE, "prompt 1");
    p[1].seq = closed;
    refuse(rt, p, 2, RT_ERR_SEQUENCE, "not an open");
    p[1].seq = fixture_open(rt);
    ids[2] = -1;
    refuse(rt, p, 1, RT_ERR_INVALID, "token 2 is -1");
    p[0].reserved = 5;
    refuse(rt, p, 1, RT_ERR_INVALID, "prompt 0: reserved is 5, not 0");
    p[0].reserved = 0;
    p[0].count = 0;
    refuse(rt, p, 1, RT_ERR_INVALID, "0 tokens");
    refuse(rt, p, 0, RT_ERR_INVALID, "0 prompts");
    refuse(rt, NULL, 1, RT_ERR_INVALID, "null");
    const struct rt_prefill_params odd = {
        .struct_size = sizeof(odd), .flags = 64, .prompts = p, .prompt_count = 1};
    assert_int_equal(rt_prefill(rt, &odd, NULL), RT_ERR_INVALID);
    assert_string_equal(rt_last_error(rt)->message, "rt_prefill: unknown flags 0x40");
    /* 24 pages of 16: four sequences of 80 take 20, and two of 33 want 6 more. */
    ids[2] = 2;
    struct rt_prompt many[6];
    for (uint32_t i = 0; i < 6; i++)
        many[i] = (struct rt_prompt){.seq = i == 0   ? seq
                                            : i == 1 ? p[1].seq
                                                     : fixture_open(rt),
                                     .tokens = ids,
                                     .count = i < 4 ? 80 : 33};
    refuse(rt, many, 6, RT_ERR_PAGES, "the prefill needs 26 new pages, 24 of 24");
    rt_destroy(&rt);
}

/* A step in flight decides one token: with it the prompt is too long, without it it is not. */
static void a_length_in_flight_is_waited_for(void **state)
{
    (void)state;
    static const int32_t by_device = RT_ACCEPT_DEVICE;
    rt_runtime *rt = create();
    const rt_seq seq = fixture_open(rt);
    int32_t ids[80];
    uint64_t ticket = 0;
    make_ids(ids, 80, 3);
    struct rt_prompt prompt = {.seq = seq, .tokens = ids, .count = 78};
    const struct rt_prefill_params first = {
        .struct_size = sizeof(first), .prompts = &prompt, .prompt_count = 1};
    assert_int_equal(rt_prefill(rt, &first, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    const struct rt_step_params step = {
        .struct_size = sizeof(step), .rows = 1, .seqs = &seq, .tokens = ids, .accept = &by_device};
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    assert_int_equal(rt_step(rt, &step, &ticket), RT_OK);
    prompt.count = 3;
    refuse(rt, &prompt, 1, RT_ERR_LENGTH, "78 tokens and 3 new ones exceed");
    prompt.count = 2;
    refuse(rt, &prompt, 1, RT_ERR_BUSY, "up to 79 tokens and 2 new ones may exceed");
    assert_int_equal(rt_host_hold(rt, 0), RT_OK);
    rt_destroy(&rt);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_their_tokens),
        cmocka_unit_test(a_long_prompt_is_its_tokens),
        cmocka_unit_test(several_prompts_share_chunks),
        cmocka_unit_test(mixed_steps_are_separate_ones),
        cmocka_unit_test(idle_steps_touch_nothing),
        cmocka_unit_test(rows_are_counted_before_they_are_read),
        cmocka_unit_test(bad_prompts_change_nothing),
        cmocka_unit_test(a_length_in_flight_is_waited_for),
    };
    if (argc != 2)
        return 2;
    long_tokens = (uint32_t)strtoul(argv[1], NULL, 10);
    if (long_tokens > LONGEST || long_tokens % 64 > 0)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
