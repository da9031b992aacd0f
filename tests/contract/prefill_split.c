/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mixed step whose rows are more than any graph has beside its chunk, or have several tokens: the
 * rest follow in steps' graphs, under one ticket, in the rows' order.
 */
#include "common/bf16.h"
#include "tests/support/block_fixture.h"
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define D_QK 288
#define HIDDEN 32
#define ROWS 5u   /* that decode */
#define MIXED 2u  /* of them fit beside a chunk */
#define PROMPT 9u /* tokens */
#define PAST 3u   /* of every row */
#define LONG 3u   /* a query length, of which STAY tokens stay where the device says so */
#define STAY 2u

static void *address(rt_runtime *rt, const char *name, uint32_t layer)
{
    struct rt_tensor tensor = {.struct_size = sizeof(tensor)};
    assert_int_equal(rt_tensor(rt, name, layer, &tensor), RT_OK);
    return (void *)(uintptr_t)tensor.address;
}

/* At the beginning a token's hidden state follows from its id, at the end the next id: of the last
 * token that stays, and of a prompt, which has one column, of that. */
static int follow(void *user, const struct rt_stage_context *c)
{
    const int32_t base = *(const int32_t *)address(c->runtime, "row_base", 0);
    const uint32_t q = c->query_len, stay = q == LONG ? STAY : 1;
    const int32_t *tokens = (const int32_t *)address(c->runtime, "tokens", 0) + base * (int32_t)q;
    (void)user;
    if (c->point == RT_STAGE_STEP_END) {
        int32_t *sampled = (int32_t *)address(c->runtime, "sampled", 0) + base;
        int32_t *accepted = (int32_t *)address(c->runtime, "accepted", 0) + base;
        for (uint32_t r = 0; r < c->batch; r++) {
            const uint32_t last = tokens[r * q + stay - 1] < 0 ? 0 : stay - 1;
            accepted[r] = (int32_t)stay;
            sampled[r] = tokens[r * q + last] + 1;
        }
        return 0;
    }
    uint16_t *hidden = address(c->runtime, "hidden", 0);
    const int32_t *id = c->chunk ? address(c->runtime, "chunk_tokens", 0) : tokens;
    for (uint32_t j = 0; j < c->tokens; j++) {
        uint64_t state = 1 + (uint64_t)(uint32_t)id[j] * 77777;
        for (uint32_t i = 0; i < HIDDEN; i++)
            hidden[j * HIDDEN + i] =
                rt_float_to_bf16((float)(fixture_random(&state) % 2048) / 1024.0f - 1.0f);
    }
    return 0;
}

/* A prompt and rows that have a past: prompt.seq is not among seqs. */
struct rig {
    struct block_fixture block;
    rt_runtime *rt;
    rt_seq seqs[ROWS];
    int32_t ids[ROWS], prompt_ids[PROMPT];
    struct rt_prompt prompt;
};

/* The step's graphs are of `largest` rows at most. */
static void open_rig(struct rig *g, uint32_t largest, uint32_t mixed)
{
    struct rt_config config;
    struct rt_error error = {0};
    block_config(&config);
    while (config.batch_sizes[config.batch_size_count - 1] > largest)
        config.batch_sizes[--config.batch_size_count] = 0;
    config.chunks[0] = 12;
    config.chunk_count = 1;
    config.prefill_rows = 1; /* so that no graph has as many rows as the last replay reaches to */
    config.mixed_rows[0] = mixed;
    config.mixed_row_count = mixed > 0;
    block_open(&g->block, &config, 7);
    const struct rt_create_params p = {
        .struct_size = sizeof(p),
        .config = &config,
        .weights = g->block.weights,
        .stages = {[RT_STAGE_STEP_BEGIN] = follow, [RT_STAGE_STEP_END] = follow}};
    if (rt_create(&p, &g->rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    for (uint32_t t = 0; t < PROMPT; t++)
        g->prompt_ids[t] = 500 + (int32_t)t;
    g->prompt =
        (struct rt_prompt){.seq = fixture_open(g->rt), .tokens = g->prompt_ids, .count = PROMPT};
    for (uint32_t r = 0; r < ROWS; r++) {
        int32_t past[PAST];
        for (uint32_t t = 0; t < PAST; t++)
            past[t] = (int32_t)(100 * r + t);
        g->seqs[r] = fixture_open(g->rt);
        g->ids[r] = 700 + 10 * (int32_t)r;
        const struct rt_prompt before = {.seq = g->seqs[r], .tokens = past, .count = PAST};
        const struct rt_prefill_params prefill = {
            .struct_size = sizeof(prefill), .prompts = &before, .prompt_count = 1};
        uint64_t ticket = 0;
        assert_int_equal(rt_prefill(g->rt, &prefill, &ticket), RT_OK);
        assert_int_equal(rt_wait(g->rt, ticket, UINT64_MAX), RT_OK);
    }
    rt_harvest(g->rt);
}

static void close_rig(struct rig *g)
{
    rt_destroy(&g->rt);
    block_close(&g->block);
}

static enum rt_status mix(struct rig *g, uint32_t flags, uint64_t *ticket)
{
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = flags,
                                     .rows = ROWS,
                                     .seqs = g->seqs,
                                     .tokens = g->ids,
                                     .prompts = &g->prompt,
                                     .prompt_count = 1};
    return rt_step(g->rt, &p, ticket);
}

static uint32_t length_of(const struct rig *g, rt_seq seq)
{
    uint32_t length = 0;
    assert_int_equal(rt_seq_length(g->rt, seq, &length), RT_OK);
    return length;
}

/* The prompt is in, and of the rows the first `stepped`. */
static void expect_lengths(const struct rig *g, uint32_t stepped)
{
    assert_int_equal(length_of(g, g->prompt.seq), PROMPT);
    for (uint32_t r = 0; r < ROWS; r++)
        assert_int_equal(length_of(g, g->seqs[r]), r < stepped ? PAST + 1 : PAST);
}

/* Of the prompt, and then of the first `stepped` rows. */
static void expect_results(const struct rig *g, uint64_t ticket, uint32_t stepped)
{
    struct rt_row_result results[1 + ROWS];
    int32_t tokens[1 + ROWS];
    uint32_t count = 0;
    assert_int_equal(rt_result(g->rt, ticket, results, 1 + ROWS, &count), RT_OK);
    assert_int_equal(count, 1 + stepped);
    assert_int_equal(results[0].sampled, g->prompt_ids[PROMPT - 1] + 1);
    for (uint32_t r = 0; r < stepped; r++) {
        assert_int_equal(results[1 + r].accepted, 1);
        assert_int_equal(results[1 + r].sampled, g->ids[r] + 1);
    }
    assert_int_equal(rt_result_tokens(g->rt, ticket, tokens, 1 + ROWS, &count), RT_OK);
    assert_int_equal(count, 1 + stepped);
    assert_memory_equal(tokens + 1, g->ids, stepped * sizeof(*tokens));
}

/* The newest token of a sequence in the last layer's cache. */
static const uint16_t *newest(const struct rig *g, rt_seq seq)
{
    int32_t page = 0;
    uint32_t count = 0;
    assert_int_equal(rt_seq_pages(g->rt, seq, &page, 1, &count), RT_OK);
    assert_int_equal(count, 1);
    const uint16_t *kv = address(g->rt, "kv", 1);
    return kv + ((size_t)page * 16 + length_of(g, seq) - 1) * D_QK;
}

/* As rows of a step without prompts, but for the bits of products, which none here has. */
static void expect_caches(const struct rig *g, uint32_t largest)
{
    struct rig alone;
    uint64_t ticket = 0;
    open_rig(&alone, largest, MIXED);
    const struct rt_prefill_params prefill = {
        .struct_size = sizeof(prefill), .prompts = &alone.prompt, .prompt_count = 1};
    const struct rt_step_params step = {
        .struct_size = sizeof(step), .rows = ROWS, .seqs = alone.seqs, .tokens = alone.ids};
    assert_int_equal(rt_prefill(alone.rt, &prefill, NULL), RT_OK);
    assert_int_equal(rt_step(alone.rt, &step, &ticket), RT_OK);
    assert_int_equal(rt_wait(alone.rt, ticket, UINT64_MAX), RT_OK);
    assert_memory_equal(newest(g, g->prompt.seq), newest(&alone, alone.prompt.seq), D_QK * 2);
    for (uint32_t r = 0; r < ROWS; r++)
        assert_memory_equal(newest(g, g->seqs[r]), newest(&alone, alone.seqs[r]), D_QK * 2);
    close_rig(&alone);
}

static void the_rest_follows(void **state)
{
    (void)state;
    static const struct {
        uint32_t largest, mixed, replays;
    } cases[] = {{4, MIXED, 2}, {2, MIXED, 3}, {4, 0, 3}, {4, ROWS, 1}, {4, 4, 2}};
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        const size_t k = i / 2;
        struct rig g;
        struct rt_stats before = {.struct_size = sizeof(before)}, after = before;
        uint64_t ticket = 0;
        open_rig(&g, cases[k].largest, cases[k].mixed);
        assert_int_equal(rt_get_stats(g.rt, &before), RT_OK);
        if (mix(&g, i % 2 ? RT_STEP_EAGER : 0, &ticket) != RT_OK)
            fail_msg("%s", rt_last_error(g.rt)->message);
        assert_int_equal(rt_wait(g.rt, ticket, UINT64_MAX), RT_OK);
        assert_int_equal(rt_get_stats(g.rt, &after), RT_OK);
        assert_int_equal(after.steps, before.steps + 1);
        assert_int_equal(after.gpu_steps, before.gpu_steps + 1);
        assert_int_equal(after.replays, before.replays + cases[k].replays);
        expect_lengths(&g, ROWS);
        expect_results(&g, ticket, ROWS);
        expect_caches(&g, cases[k].largest);
        close_rig(&g);
    }
}

static struct rt_step_params long_step(const struct rig *g, const int32_t *ids,
                                       const int32_t *accept)
{
    return (struct rt_step_params){.struct_size = sizeof(struct rt_step_params),
                                   .rows = ROWS,
                                   .query_len = LONG,
                                   .seqs = g->seqs,
                                   .tokens = ids,
                                   .accept = accept,
                                   .prompts = &g->prompt,
                                   .prompt_count = 1};
}

/* Rows of several tokens, of which the device says how many stay: as in a step without prompts. */
static void rows_of_several_tokens(void **state)
{
    (void)state;
    struct rig g, alone;
    int32_t ids[ROWS * LONG], tokens[1 + ROWS * LONG];
    const int32_t accept[ROWS] = {RT_ACCEPT_DEVICE, 1, RT_ACCEPT_DEVICE, RT_ACCEPT_ALL,
                                  RT_ACCEPT_DEVICE};
    struct rt_row_result results[1 + ROWS];
    uint64_t ticket = 0;
    uint32_t count = 0;
    open_rig(&g, 4, MIXED);
    open_rig(&alone, 4, MIXED);
    for (uint32_t i = 0; i < ROWS * LONG; i++)
        ids[i] = 900 + (int32_t)(7 * i);
    const struct rt_step_params p = long_step(&g, ids, accept);
    if (rt_step(g.rt, &p, &ticket) != RT_OK)
        fail_msg("%s", rt_last_error(g.rt)->message);
    assert_int_equal(rt_wait(g.rt, ticket, UINT64_MAX), RT_OK);
    assert_int_equal(rt_result(g.rt, ticket, results, 1 + ROWS, &count), RT_OK);
    assert_int_equal(count, 1 + ROWS);
    assert_int_equal(results[0].sampled, g.prompt_ids[PROMPT - 1] + 1);
    assert_int_equal(rt_result_tokens(g.rt, ticket, tokens, 1 + ROWS * LONG, &count), RT_OK);
    assert_int_equal(count, 1 + ROWS * LONG);
    assert_int_equal(tokens[0], g.prompt_ids[PROMPT - 1]);
    assert_memory_equal(tokens + 1, ids, sizeof(ids));
    struct rt_step_params without = long_step(&alone, ids, accept);
    without.prompt_count = 0;
    assert_int_equal(rt_step(alone.rt, &without, &ticket), RT_OK);
    assert_int_equal(rt_wait(alone.rt, ticket, UINT64_MAX), RT_OK);
    assert_int_equal(length_of(&g, g.prompt.seq), PROMPT);
    for (uint32_t r = 0; r < ROWS; r++) {
        const uint32_t stay = accept[r] == RT_ACCEPT_DEVICE ? STAY : accept[r] ? 1 : LONG;
        assert_int_equal(results[1 + r].accepted, stay);
        assert_int_equal(results[1 + r].sampled, ids[r * LONG + STAY - 1] + 1);
        assert_int_equal(length_of(&g, g.seqs[r]), PAST + stay);
        assert_memory_equal(newest(&g, g.seqs[r]), newest(&alone, alone.seqs[r]), D_QK * 2);
    }
    close_rig(&g);
    close_rig(&alone);
}

/* Rows of any number of tokens: bit for bit padded ones of which as many stay. */
static void ragged_rows_follow(void **state)
{
    (void)state;
    struct rig g, alone;
    int32_t ids[ROWS * LONG], stay[ROWS];
    const uint32_t counts[ROWS] = {LONG, 1, 2, LONG, 1};
    uint64_t ticket = 0;
    open_rig(&g, 4, MIXED);
    open_rig(&alone, 4, MIXED);
    for (uint32_t i = 0; i < ROWS * LONG; i++)
        ids[i] = 900 + (int32_t)(7 * i);
    for (uint32_t r = 0; r < ROWS; r++)
        stay[r] = (int32_t)counts[r];
    struct rt_step_params p = long_step(&g, ids, NULL), padded = long_step(&alone, ids, stay);
    p.query_lens = counts;
    padded.prompt_count = 0;
    if (rt_step(g.rt, &p, &ticket) != RT_OK)
        fail_msg("%s", rt_last_error(g.rt)->message);
    assert_int_equal(rt_wait(g.rt, ticket, UINT64_MAX), RT_OK);
    assert_int_equal(rt_step(alone.rt, &padded, &ticket), RT_OK);
    assert_int_equal(rt_wait(alone.rt, ticket, UINT64_MAX), RT_OK);
    for (uint32_t r = 0; r < ROWS; r++) {
        assert_int_equal(length_of(&g, g.seqs[r]), PAST + counts[r]);
        for (uint32_t t = 0; t < counts[r]; t++)
            assert_memory_equal(newest(&g, g.seqs[r]) - (size_t)t * D_QK,
                                newest(&alone, alone.seqs[r]) - (size_t)t * D_QK, D_QK * 2);
    }
    close_rig(&g);
    close_rig(&alone);
}

/* One that fails leaves what was launched in front of it, whose ticket is told. */
static void every_launch_may_fail(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 3; n++) {
        const uint32_t stepped = n == 2 ? MIXED : MIXED + 2;
        struct rig g;
        struct fixture_snapshot before, after;
        uint64_t ticket = 0;
        open_rig(&g, 2, MIXED);
        fixture_snapshot(g.rt, &before);
        g.rt->driver.probe.fail_at = g.rt->driver.probe.calls + n;
        assert_int_equal(mix(&g, 0, &ticket), RT_ERR_DRIVER);
        g.rt->driver.probe.fail_at = 0;
        fixture_snapshot(g.rt, &after);
        if (n == 1) {
            assert_memory_equal(&before, &after, sizeof(after));
            assert_int_equal(ticket, 0);
        } else {
            assert_int_equal(rt_wait(g.rt, ticket, UINT64_MAX), RT_OK);
            expect_lengths(&g, stepped);
            expect_results(&g, ticket, stepped);
        }
        close_rig(&g);
    }
}

static void refuse(struct rig *g, enum rt_status status, const char *words)
{
    struct fixture_snapshot before, after;
    uint64_t ticket = 0;
    fixture_snapshot(g->rt, &before);
    assert_int_equal(mix(g, 0, &ticket), status);
    if (!strstr(rt_last_error(g->rt)->message, words))
        fail_msg("no \"%s\" in: %s", words, rt_last_error(g->rt)->message);
    fixture_snapshot(g->rt, &after);
    assert_memory_equal(&before, &after, sizeof(after));
    assert_int_equal(ticket, 0);
}

static void records_are_counted_first(void **state)
{
    (void)state;
    struct rig g;
    open_rig(&g, 1, MIXED);
    refuse(&g, RT_ERR_ROWS,
           "5 rows beside prompts need 4 replays, 2 rows in the first and at most "
           "1 in each other; the ring has 3 records");
    close_rig(&g);
    open_rig(&g, 2, MIXED);
    assert_int_equal(rt_host_hold(g.rt, 1), RT_OK);
    const rt_seq other = g.seqs[ROWS - 1];
    assert_int_equal(fixture_step(g.rt, &other, 1, 1, NULL), RT_OK);
    refuse(&g, RT_ERR_BUSY, "3 records needed, 2 of 3 free");
    assert_int_equal(rt_host_hold(g.rt, 0), RT_OK);
    close_rig(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rest_follows),          cmocka_unit_test(rows_of_several_tokens),
        cmocka_unit_test(ragged_rows_follow),        cmocka_unit_test(every_launch_may_fail),
        cmocka_unit_test(records_are_counted_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
