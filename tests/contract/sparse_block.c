/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole blocks and chunks over keys that the stage between a block's queries and its attention
 * lists: that stage finds what it is to read; lists of all that a token sees give what dense blocks
 * give; a replay gives what an eager step gives, bit for bit; and what is refused.
 */
#include "tests/support/block_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/block_past.h"

#define HEADS 3
#define D_QK 576
#define HIDDEN 32
#define LAYERS 2
#define TOPK 48
#define POISON 0xffff
#define SEQUENCES 6

/* A side of a comparison. */
struct side {
    struct block_fixture blocks;
    rt_runtime *rt;
    rt_seq seqs[SEQUENCES];
    bool listed, random;
    uint32_t lists; /* written, of live tokens */
};

/* ---- stages ---------------------------------------------------------------------------------- */

/* A token's hidden state follows from its id; what no block has written yet is poison. */
static int embed(void *user, const struct rt_stage_context *c)
{
    uint16_t *hidden = fixture_address(c->runtime, "hidden", 0);
    uint16_t *q = fixture_address(c->runtime, "q", 0);
    const int32_t *id = fixture_address(c->runtime, c->chunk ? "chunk_tokens" : "tokens", 0);
    const uint32_t base = *(const uint32_t *)fixture_address(c->runtime, "row_base", 0);
    (void)user;
    for (uint32_t j = 0; j < c->tokens; j++)
        token_numbers(hidden + (size_t)j * HIDDEN, HIDDEN,
                      id[(c->chunk ? 0 : base * c->query_len) + j], 0, 0);
    memset(q, 0xff, (size_t)c->tokens * HEADS * D_QK * sizeof(*q));
    return 0;
}

/* Of a token of the replay: its slot and position; false: it is padding. */
static bool find(const struct rt_stage_context *c, uint32_t j, int32_t *slot, int32_t *position)
{
    const uint32_t row = c->chunk ? j : j / c->query_len;
    const char *const names[][3] = {{"slots", "positions", "lengths"},
                                    {"token_slots", "token_positions", "token_lengths"}};
    const char *const *name = names[c->chunk > 0];
    *slot = ((const int32_t *)fixture_address(c->runtime, name[0], 0))[row];
    *position = ((const int32_t *)fixture_address(c->runtime, name[1], 0))[row] +
                (int32_t)(c->chunk ? 0 : j % c->query_len);
    return ((const int32_t *)fixture_address(c->runtime, name[2], 0))[row] > 0;
}

static bool is_cached(const struct rt_stage_context *c, int32_t slot, int32_t position)
{
    const struct rt_config *config = &c->runtime->blueprint.config;
    const uint32_t columns = c->runtime->blueprint.placement.max_blocks;
    const int32_t size = (int32_t)config->page_size;
    const int32_t *table = fixture_address(c->runtime, "block_table", 0);
    const uint16_t *kv = fixture_address(c->runtime, "kv", c->layer);
    const int32_t page = table[(uint32_t)slot * columns + (uint32_t)(position / size)];
    return kv[((size_t)page * (size_t)size + (size_t)(position % size)) * D_QK] != POISON;
}

/* All that a token sees, last key first; or any of those, and none. */
static int32_t list(const struct side *s, uint32_t layer, int32_t slot, int32_t position,
                    int32_t *entries)
{
    uint64_t state = 1 + ((uint64_t)layer * 64 + (uint64_t)slot) * 1024 + (uint64_t)position;
    for (int32_t i = 0; i < TOPK; i++)
        entries[i] = s->random ? (int32_t)(fixture_random(&state) % (uint32_t)(position + 9)) - 8
                     : i <= position ? position - i
                                     : INT32_MAX;
    return s->random ? (int32_t)(fixture_random(&state) % (TOPK + 6)) - 2 : position + 1;
}

/* Fails where the queries and the new keys are not there yet. */
static int indexer(void *user, const struct rt_stage_context *c)
{
    struct side *s = user;
    const uint16_t *q = fixture_address(c->runtime, "q", 0);
    int32_t *entries = fixture_address(c->runtime, "sparse_indices", 0);
    int32_t *counts = fixture_address(c->runtime, "sparse_counts", 0);
    for (uint32_t j = 0; j < c->tokens; j++) {
        int32_t slot, position;
        counts[j] = TOPK;
        if (!find(c, j, &slot, &position))
            continue;
        if (q[(size_t)j * HEADS * D_QK] == POISON || q[(size_t)j * HEADS * D_QK + 575] == POISON ||
            !is_cached(c, slot, position))
            return -1;
        counts[j] = list(s, c->layer, slot, position, entries + (size_t)j * TOPK);
        s->lists++;
    }
    return 0;
}

/* ---- runtimes -------------------------------------------------------------------------------- */

static struct rt_config config_of(bool listed)
{
    struct rt_config config;
    block_config(&config);
    strcpy(config.device, "host");
    config.geometry.kv_lora_rank = 512;
    config.geometry.qk_rope_head_dim = 64;
    config.chunks[0] = 4; /* dense, the second would be expanded */
    config.chunks[1] = 24;
    config.chunk_count = 2;
    config.prefill_rows = 3;
    config.mixed_rows[0] = 2;
    config.mixed_row_count = 1;
    config.topk = listed ? TOPK : 0;
    return config;
}

static struct side *open_side(bool listed, bool random)
{
    struct side *s = calloc(1, sizeof(*s));
    const struct rt_config config = config_of(listed);
    struct rt_error error = {0};
    assert_non_null(s);
    s->listed = listed;
    s->random = random;
    block_open(&s->blocks, &config, 7);
    struct rt_create_params p = {.struct_size = sizeof(p),
                                 .config = &config,
                                 .weights = s->blocks.weights,
                                 .stages = {[RT_STAGE_STEP_BEGIN] = embed},
                                 .stage_user = s};
    p.stages[RT_STAGE_INDEXER] = listed ? indexer : NULL;
    if (rt_create(&p, &s->rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        struct rt_tensor t = {.struct_size = sizeof(t)};
        assert_int_equal(rt_tensor(s->rt, "kv", layer, &t), RT_OK);
        memset((void *)(uintptr_t)t.address, 0xff, t.bytes);
    }
    for (uint32_t i = 0; i < SEQUENCES; i++)
        s->seqs[i] = fixture_open(s->rt);
    return s;
}

static void close_side(struct side *s)
{
    rt_destroy(&s->rt);
    block_close(&s->blocks);
    free(s);
}

/* Rows from sequence `first` on, with prompts beside them or none. */
static void step(struct side *s, uint32_t first, uint32_t rows, uint32_t q, const int32_t *tokens,
                 const struct rt_prompt *prompts, uint32_t prompt_count, bool eager)
{
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = eager ? RT_STEP_EAGER : 0,
                                     .rows = rows,
                                     .query_len = q,
                                     .seqs = s->seqs + first,
                                     .tokens = tokens,
                                     .prompts = prompts,
                                     .prompt_count = prompt_count};
    uint64_t ticket = 0;
    if (rt_step(s->rt, &p, &ticket) != RT_OK || rt_wait(s->rt, ticket, UINT64_MAX) != RT_OK)
        fail_msg("%s", rt_last_error(s->rt)->message);
}

/* ---- what is shown --------------------------------------------------------------------------- */

/* Prompts in chunks, a row beside the last of them, and steps of three tokens a row. */
static void all_keys_are_dense_attention(void **state)
{
    (void)state;
    enum { PROMPTS = 2, MOST = 26 };
    static const uint32_t counts[PROMPTS] = {MOST, 3};
    struct side *dense = open_side(false, false), *listed = open_side(true, false);
    int32_t ids[PROMPTS][MOST], more[6];
    struct rt_prompt prompts[PROMPTS];
    for (uint32_t i = 0; i < PROMPTS; i++) {
        make_ids(ids[i], MOST, 5 + i);
        prompts[i] =
            (struct rt_prompt){.seq = listed->seqs[i], .tokens = ids[i], .count = counts[i]};
        for (uint32_t t = 0; t < counts[i]; t++)
            step_one(dense->rt, dense->seqs[i], ids[i][t]);
    }
    prefill(listed->rt, prompts, 1, false);
    step_one(listed->rt, listed->seqs[2], 77);
    step_one(dense->rt, dense->seqs[2], 77);
    step(listed, 2, 1, 1, (const int32_t[]){78}, prompts + 1, 1, false);
    step_one(dense->rt, dense->seqs[2], 78);
    for (uint32_t i = 0; i < 3; i++)
        expect_same_past(listed->rt, listed->seqs[i], dense->rt, dense->seqs[i]);
    make_ids(more, 6, 31);
    step(listed, 1, 2, 3, more, NULL, 0, false);
    step(dense, 1, 2, 3, more, NULL, 0, false);
    for (uint32_t i = 0; i < 6; i++)
        expect_close((const uint16_t *)fixture_address(listed->rt, "hidden", 0) + i * HIDDEN,
                     (const uint16_t *)fixture_address(dense->rt, "hidden", 0) + i * HIDDEN, HIDDEN,
                     0.02, "token", i);
    assert_int_equal(listed->lists, LAYERS * (MOST + 3 + 1 + 1 + 6));
    close_side(dense);
    close_side(listed);
}

static void expect_same_bytes(const struct side *a, const struct side *b, const char *name,
                              uint32_t layer)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    assert_int_equal(rt_tensor(a->rt, name, layer, &t), RT_OK);
    assert_memory_equal(fixture_address(a->rt, name, layer), fixture_address(b->rt, name, layer),
                        t.bytes);
}

/* Lists of any keys, and of none; steps of several replays. */
static void replay_is_eager(void **state)
{
    (void)state;
    static const uint32_t steps[][2] = {{1, 1}, {3, 3}, {6, 1}, {5, 3}};
    struct side *sides[2];
    int32_t ids[SEQUENCES * 3];
    make_ids(ids, SEQUENCES * 3, 90);
    for (uint32_t eager = 0; eager < 2; eager++) {
        struct side *s = sides[eager] = open_side(true, true);
        const struct rt_prompt prompts[] = {
            {.seq = s->seqs[0], .tokens = ids, .count = 18},
            {.seq = s->seqs[1], .tokens = ids + 1, .count = 3},
            {.seq = s->seqs[5], .tokens = ids + 2, .count = 2},
        };
        prefill(s->rt, prompts, 2, eager);
        step(s, 0, 2, 1, ids, prompts + 2, 1, eager);
        for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
            step(s, 0, steps[i][0], steps[i][1], ids, NULL, 0, eager);
    }
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        expect_same_bytes(sides[0], sides[1], "kv", layer);
    expect_same_bytes(sides[0], sides[1], "hidden", 0);
    assert_int_equal(sides[0]->lists, sides[1]->lists);
    close_side(sides[0]);
    close_side(sides[1]);
}

static void refusals(void **state)
{
    (void)state;
    struct rt_config config = config_of(false);
    struct rt_error error = {0};
    struct block_fixture blocks;
    rt_runtime *rt = NULL;
    block_open(&blocks, &config, 7);
    struct rt_create_params p = {.struct_size = sizeof(p),
                                 .config = &config,
                                 .weights = blocks.weights,
                                 .stages = {[RT_STAGE_INDEXER] = indexer}};
    assert_int_equal(rt_create(&p, &rt, &error), RT_ERR_INVALID);
    assert_string_equal(error.message, "rt_create: stages[RT_STAGE_INDEXER] is given without "
                                       "attention.topk, whose lists it writes");
    assert_null(rt);
    config.topk = TOPK;
    config.context_parallel = 3;
    assert_int_equal(rt_config_check(&config, &error), RT_ERR_CONFIG);
    assert_string_equal(error.message, "topk is 48: must be absent with context_parallel above 1");
    config.context_parallel = 1;
    config.chunks[1] = RT_MAX_BATCH + 1;
    assert_int_equal(rt_config_check(&config, &error), RT_ERR_CONFIG);
    assert_string_equal(error.message,
                        "chunks[1] is 4097: must be at most 4096, which absorbed attention takes "
                        "(absorbed: every token has a list of keys of its own, attention.topk)");
    config.chunks[1] = 24;
    config.query_lens[1] = 8;
    config.mixed_rows[0] = 1000;
    config.max_sequences = 1000;
    assert_int_equal(rt_config_check(&config, &error), RT_ERR_CONFIG);
    assert_string_equal(error.message, "mixed_rows[0] is 1000: must be at most 512 with "
                                       "attention.topk and query length 8");
    block_close(&blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_keys_are_dense_attention),
        cmocka_unit_test(replay_is_eager),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
