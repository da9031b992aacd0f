/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts through whole blocks, in both forms of attention, against the same tokens one by one: the
 * caches of all layers, and what the last layer leaves. Errors of a bfloat16 are layers deep.
 */
#include "tests/support/block_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/block_past.h"

#define D_QK 288
#define HEADS 3
#define HIDDEN 32
#define LAYERS 2

/* A token's hidden state follows from its id. */
static int embed(void *user, const struct rt_stage_context *c)
{
    uint16_t *hidden = fixture_address(c->runtime, "hidden", 0);
    const int32_t *id = fixture_address(c->runtime, c->chunk ? "chunk_tokens" : "tokens", 0);
    (void)user;
    for (uint32_t j = 0; j < c->tokens; j++)
        token_numbers(hidden + (size_t)j * HIDDEN, HIDDEN, id[j], 0, 0);
    return 0;
}

/* chunks of 4 are absorbed, those of 24 expanded, with cached context 8 tokens at a time. */
static const uint32_t chunks[] = {4, 24};
static const uint32_t mixed[] = {2};

/* What a runtime is besides. */
enum { LORA = 1, F32 = 2, SINKS = 4 };

/* About as heavy as a few keys, nothing, and as all keys of the longest prompts. */
static void write_sinks(rt_runtime *rt)
{
    const float sinks[LAYERS][HEADS] = {{1.5f, -INFINITY, 4.5f}, {4.5f, 0.5f, 3.0f}};
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        assert_int_equal(
            rt_tensor_write(rt, "attn_sink", layer, 0, sinks[layer], sizeof(sinks[layer])), RT_OK);
}

static rt_runtime *create(struct block_fixture *b, uint32_t kind)
{
    struct rt_config config;
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    block_config(&config);
    config.block.q_lora_rank = kind & LORA ? config.block.q_lora_rank : 0;
    config.precision = kind & F32 ? RT_PRECISION_F32 : RT_PRECISION_BF16;
    config.sinks = (kind & SINKS) != 0;
    memcpy(config.chunks, chunks, sizeof(chunks));
    config.chunk_count = 2;
    config.prefill_rows = 3;
    config.mixed_rows[0] = mixed[0];
    config.mixed_row_count = 1;
    config.context_piece = 64;
    config.max_length = 160;
    config.pages = 60;
    block_open(b, &config, 7);
    const struct rt_create_params p = {.struct_size = sizeof(p),
                                       .config = &config,
                                       .weights = b->weights,
                                       .stages = {[RT_STAGE_STEP_BEGIN] = embed}};
    if (rt_create(&p, &rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    if (kind & SINKS)
        write_sinks(rt);
    return rt;
}

/* A prompt in chunks, and its tokens one by one. */
static void expect_its_tokens(uint32_t kind, uint32_t length, uint64_t seed)
{
    struct block_fixture one, two;
    rt_runtime *rt = create(&one, kind), *other = create(&two, kind);
    const rt_seq seq = fixture_open(rt), twin = fixture_open(other);
    int32_t ids[160];
    make_ids(ids, length, seed);
    const struct rt_prompt prompt = {.seq = seq, .tokens = ids, .count = length};
    prefill(rt, &prompt, 1, false);
    for (uint32_t t = 0; t < length; t++)
        step_one(other, twin, ids[t]);
    const uint16_t *hidden = fixture_address(rt, "hidden", 0);
    expect_close(hidden + last_of(rt, 0) * HIDDEN, fixture_address(other, "hidden", 0), HIDDEN,
                 0.02, "length", length);
    expect_same_past(rt, seq, other, twin);
    rt_destroy(&rt);
    rt_destroy(&other);
    block_close(&one);
    block_close(&two);
}

/* Of lengths with 0, 1, 2 and 3 pieces of context in front of the last chunk; queries of either
 * kind in both forms. */
static void prompts_are_their_tokens(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {1, 4, 7, 24, 25, 64, 77, 96, 160};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        expect_its_tokens(i % 2 ? LORA : 0, lengths[i], 5 + i);
}

/* Absorbed; and expanded, chunk by chunk with more of 0 to 3 pieces of context: what each has left
 * is in the second layer's cache. */
static void prompts_are_their_tokens_with_sinks(void **state)
{
    (void)state;
    expect_its_tokens(LORA | SINKS, 3, 15);
    expect_its_tokens(LORA | SINKS, 160, 16);
}

/* Of the same prompt without them: what a sink takes is far above what is compared above. */
static void sinks_are_heard(void **state)
{
    (void)state;
    struct block_fixture one, two;
    rt_runtime *rt = create(&one, LORA | SINKS), *other = create(&two, LORA);
    int32_t ids[77];
    make_ids(ids, 77, 3);
    for (uint32_t i = 0; i < 2; i++) {
        rt_runtime *of = i ? other : rt;
        const struct rt_prompt prompt = {.seq = fixture_open(of), .tokens = ids, .count = 77};
        prefill(of, &prompt, 1, false);
    }
    const uint16_t *a = fixture_address(rt, "hidden", 0);
    const uint16_t *b = fixture_address(other, "hidden", 0);
    double error = 0.0, size = 0.0;
    for (uint32_t i = last_of(rt, 0) * HIDDEN; i < (last_of(rt, 0) + 1) * HIDDEN; i++) {
        const double x = (double)rt_bf16_to_float(a[i]), y = (double)rt_bf16_to_float(b[i]);
        error += (x - y) * (x - y);
        size += y * y;
    }
    assert_true(error > 0.1 * 0.1 * size);
    rt_destroy(&rt);
    rt_destroy(&other);
    block_close(&one);
    block_close(&two);
}

/* Several sequences' contexts share the pieces; a row that decodes is beside them. */
static void expect_separate_steps(uint32_t kind)
{
    enum { COUNT = 4 };
    static const uint32_t before[COUNT] = {70, 0, 31, 50}, counts[COUNT] = {9, 5, 10, 1};
    struct block_fixture one, two;
    rt_runtime *rt = create(&one, kind), *other = create(&two, kind);
    struct rt_prompt prompts[COUNT];
    rt_seq twins[COUNT];
    int32_t ids[COUNT][96];
    for (uint32_t i = 0; i < COUNT; i++) {
        make_ids(ids[i], 96, 40 + i);
        prompts[i] = (struct rt_prompt){
            .seq = fixture_open(rt), .tokens = ids[i] + before[i], .count = counts[i]};
        twins[i] = fixture_open(other);
        for (uint32_t t = 0; t < before[i] + counts[i]; t++) {
            step_one(other, twins[i], ids[i][t]);
            if (t < before[i])
                step_one(rt, prompts[i].seq, ids[i][t]);
        }
    }
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .rows = 1,
                                     .seqs = &prompts[3].seq,
                                     .tokens = prompts[3].tokens,
                                     .prompts = prompts,
                                     .prompt_count = 3};
    uint64_t ticket = 0;
    if (rt_step(rt, &p, &ticket) != RT_OK)
        fail_msg("%s", rt_last_error(rt)->message);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    for (uint32_t i = 0; i < COUNT; i++)
        expect_same_past(rt, prompts[i].seq, other, twins[i]);
    /* What decodes is scheduled as if it were alone. */
    const uint32_t last = before[3] + counts[3] - 1;
    assert_memory_equal(cached(rt, prompts[3].seq, 1, last), cached(other, twins[3], 1, last),
                        D_QK * 2);
    rt_destroy(&rt);
    rt_destroy(&other);
    block_close(&one);
    block_close(&two);
}

static void mixed_steps_are_separate_ones(void **state)
{
    (void)state;
    expect_separate_steps(LORA);
    expect_separate_steps(LORA | SINKS);
}

/* All that a step leaves: every cache, and hidden. */
static void replay_is_eager(void **state)
{
    (void)state;
    static const uint32_t kinds[] = {LORA, LORA | F32, LORA | SINKS};
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        struct block_fixture one, two;
        rt_runtime *rt = create(&one, kinds[k]), *other = create(&two, kinds[k]);
        struct rt_tensor t = {.struct_size = sizeof(t)};
        int32_t ids[2][150];
        struct rt_prompt a[2], b[2];
        for (uint32_t i = 0; i < 2; i++) {
            make_ids(ids[i], 150, 90 + i);
            a[i] = (struct rt_prompt){.seq = fixture_open(rt), .tokens = ids[i], .count = 150};
            b[i] = (struct rt_prompt){.seq = fixture_open(other), .tokens = ids[i], .count = 150};
        }
        prefill(rt, a, 2, false);
        prefill(other, b, 2, true);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            assert_int_equal(rt_tensor(rt, "kv", layer, &t), RT_OK);
            assert_memory_equal(fixture_address(rt, "kv", layer),
                                fixture_address(other, "kv", layer), t.bytes);
        }
        assert_int_equal(rt_tensor(rt, "hidden", 0, &t), RT_OK);
        assert_memory_equal(fixture_address(rt, "hidden", 0), fixture_address(other, "hidden", 0),
                            t.bytes);
        rt_destroy(&rt);
        rt_destroy(&other);
        block_close(&one);
        block_close(&two);
    }
}

/* Pieces of a chunk have room for 192 tokens, one sequence's 160 in whole pieces: a mixed step is
 * one chunk, rt_prefill takes two, and a chunk that is absorbed looks at any number. */
static void a_chunk_expands_one_sequence_at_most(void **state)
{
    (void)state;
    struct block_fixture b;
    struct fixture_snapshot before, after;
    rt_runtime *rt = create(&b, LORA);
    struct rt_prompt prompts[2];
    int32_t ids[160];
    uint64_t ticket = 77;
    make_ids(ids, 160, 23);
    for (uint32_t i = 0; i < 2; i++)
        prompts[i] =
            (struct rt_prompt){.seq = fixture_open(rt), .tokens = ids, .count = i ? 93 : 100};
    prefill(rt, prompts, 2, false);
    prompts[0].count = prompts[1].count = 3;
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .prompts = prompts, .prompt_count = 2};
    rt_harvest(rt);
    fixture_snapshot(rt, &before);
    assert_int_equal(rt_step(rt, &p, &ticket), RT_ERR_ROWS);
    assert_string_equal(rt_last_error(rt)->message,
                        "2 prompts have 193 cached tokens together: a chunk expands at most 192, "
                        "which one sequence can have");
    fixture_snapshot(rt, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(ticket, 77);
    prompts[0].count = prompts[1].count = 2;
    assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
    prompts[0].count = prompts[1].count = 3;
    const uint64_t steps = rt->stats.steps;
    prefill(rt, prompts, 2, false);
    assert_int_equal(rt->stats.steps, steps + 2);
    assert_int_equal(rt_seq_rewind(rt, prompts[1].seq, 87), RT_OK); /* of the other's 105 */
    assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    rt_destroy(&rt);
    block_close(&b);
}

static void plan_says_which_form(void **state)
{
    (void)state;
    struct block_fixture b;
    rt_runtime *rt = create(&b, LORA);
    const struct rt_blueprint *blueprint = &rt->blueprint;
    assert_true(blueprint->forms[0].absorbed);
    assert_false(blueprint->forms[1].absorbed);
    assert_int_equal(blueprint->forms[1].pieces, 3);
    /* L (P + V) = 256 * 24; P + R + V = 56 and 2 L + R = 544 a token */
    assert_non_null(
        strstr(blueprint->forms[0].reason, "2176 multiplications a head absorbed, 6368"));
    assert_non_null(
        strstr(blueprint->forms[1].reason, "13056 multiplications a head absorbed, 7488"));
    rt_destroy(&rt);
    block_close(&b);
}

/* Graphs by their index: statistics say which they are, and the drawing's title says the same. */
static void every_graph_is_told_and_drawn(void **state)
{
    (void)state;
    struct block_fixture b;
    rt_runtime *rt = create(&b, LORA);
    struct rt_bucket_stats g = {.struct_size = sizeof(g)};
    uint32_t graphs = 0, chunk_graphs = 0;
    for (; rt_get_bucket_stats(rt, graphs, &g) == RT_OK; graphs++) {
        char title[128], text[128], columns[32] = "";
        size_t needed = 0;
        if (g.query_len > 1)
            (void)snprintf(columns, sizeof(columns), " of %u tokens", g.query_len);
        if (!g.chunk)
            (void)snprintf(title, sizeof(title), "batch %u, query length %u\"", g.batch,
                           g.query_len);
        else if (g.chunk == chunks[0])
            (void)snprintf(title, sizeof(title), "chunk of 4 tokens, %u rows%s beside it\"",
                           g.decode_rows, columns);
        else
            (void)snprintf(title, sizeof(title),
                           "chunk of 24 tokens, %u rows%s beside it, %u pieces of context\"",
                           g.decode_rows, columns, g.context_tokens / 64);
        chunk_graphs += g.chunk != 0;
        assert_int_equal(rt_graph_dot(rt, graphs, text, sizeof(text), &needed), RT_OK);
        assert_true(needed > sizeof(text)); /* a title, and then stages */
        if (strncmp(text, "digraph \"", 9) != 0 || strncmp(text + 9, title, strlen(title)) != 0)
            fail_msg("graph %u: \"%s\" where \"%s\" is expected", graphs, text, title);
    }
    /* Alone, beside rows of 1 token and beside rows of 3; of 0, 1, 2 and 3 pieces. */
    assert_int_equal(chunk_graphs, 3 + 3 * 4);
    assert_int_equal(graphs, rt->captured_count);
    rt_destroy(&rt);
    block_close(&b);
}

/* The library multiplies at most 2048 vectors at once: 5000 tokens are three products of each. */
static void many_vectors_are_several_products(void **state)
{
    (void)state;
    struct rt_config config;
    struct rt_error error = {0};
    rt_plan *plan = NULL;
    struct rt_plan_stage stage = {.struct_size = sizeof(stage)};
    uint32_t found = 0, graph = 0;
    block_config(&config);
    (void)snprintf(config.device, sizeof(config.device), "auto");
    config.max_length = 8192;
    config.max_sequences = 2;
    config.pages = 600;
    config.chunks[0] = 5000;
    config.chunk_count = 1;
    if (rt_plan_create(&config, "h200", &plan, &error) != RT_OK)
        fail_msg("%s", error.message);
    struct rt_plan_graph g = {.struct_size = sizeof(g)};
    while (rt_plan_graph(plan, graph, &g) == RT_OK && !g.chunk)
        graph++;
    assert_int_equal(g.chunk, 5000);
    assert_int_equal(g.context_tokens, 0);
    for (uint32_t i = 0; rt_plan_stage(plan, graph, i, &stage) == RT_OK; i++)
        found += strcmp(stage.label, "kv_b.0") == 0;
    assert_int_equal(found, 3);
    rt_plan_destroy(&plan);
}

/* Rows and prompts attend in branches of their own; everything in front and behind is of none. */
static void attention_is_in_branches(void **state)
{
    (void)state;
    static const struct {
        const char *label;
        uint32_t branch;
    } expected[] = {{"step_begin", 0},       {"q_b.1", 0},   {"attend.1", 1}, {"w_uv.1", 1},
                    {"prefill_attend.1", 2}, {"o_proj.1", 0}};
    struct block_fixture b;
    rt_runtime *rt = create(&b, LORA);
    struct rt_plan_graph g = {.struct_size = sizeof(g)};
    struct rt_error error = {0};
    rt_plan *plan = NULL;
    uint32_t graph = 0, found = 0;
    if (rt_plan_create(&rt->blueprint.config, NULL, &plan, &error) != RT_OK)
        fail_msg("%s", error.message);
    while (rt_plan_graph(plan, graph, &g) == RT_OK && (g.chunk != 24 || !g.decode_rows))
        graph++;
    assert_int_equal(g.chunk, 24);
    for (uint32_t i = 0; i < g.stages; i++) {
        struct rt_plan_stage s = {.struct_size = sizeof(s)};
        assert_int_equal(rt_plan_stage(plan, graph, i, &s), RT_OK);
        for (size_t k = 0; k < sizeof(expected) / sizeof(expected[0]); k++) {
            if (strcmp(s.label, expected[k].label) != 0)
                continue;
            assert_int_equal(s.branch, expected[k].branch);
            found |= 1u << k;
        }
    }
    assert_int_equal(found, (1u << sizeof(expected) / sizeof(expected[0])) - 1);
    rt_plan_destroy(&plan);
    rt_destroy(&rt);
    block_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_their_tokens),
        cmocka_unit_test(prompts_are_their_tokens_with_sinks),
        cmocka_unit_test(sinks_are_heard),
        cmocka_unit_test(mixed_steps_are_separate_ones),
        cmocka_unit_test(replay_is_eager),
        cmocka_unit_test(a_chunk_expands_one_sequence_at_most),
        cmocka_unit_test(plan_says_which_form),
        cmocka_unit_test(every_graph_is_told_and_drawn),
        cmocka_unit_test(attention_is_in_branches),
        cmocka_unit_test(many_vectors_are_several_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
