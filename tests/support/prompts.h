/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_PROMPTS_H
#define RT_TESTS_SUPPORT_PROMPTS_H

/* Tokens that are fed in chunks or one by one, and what of them is in a cache of bf16. For programs
 * with cmocka. */
#include "common/bf16.h"
#include "tests/support/fixture.h"

/* What a token feeds follows from its id and position, so that who has fed it does not matter. */
static inline void token_numbers(uint16_t *out, uint32_t count, int32_t id, int32_t position,
                                 uint32_t layer)
{
    uint64_t state =
        1 + (uint64_t)(uint32_t)id * 77777 + (uint64_t)(uint32_t)position * 131 + layer;
    for (uint32_t i = 0; i < count; i++)
        out[i] = rt_float_to_bf16((float)(fixture_random(&state) % 2048) / 1024.0f - 1.0f);
}

/* A stage before attention: queries and latents of all tokens of the graph; of padding too, as they
 * are. */
static inline int feed_tokens(void *user, const struct rt_stage_context *c)
{
    rt_runtime *rt = c->runtime;
    const struct rt_geometry *g = &rt->blueprint.config.geometry;
    const uint32_t d_qk = g->kv_lora_rank + g->qk_rope_head_dim, q_width = g->heads * d_qk;
    uint16_t *q = fixture_address(rt, "q", c->layer),
             *latent = fixture_address(rt, "latent", c->layer);
    const int32_t *position = fixture_address(rt, c->chunk ? "token_positions" : "positions", 0);
    const int32_t *id = fixture_address(rt, c->chunk ? "chunk_tokens" : "tokens", 0);
    const int32_t base = c->chunk ? 0 : *(const int32_t *)fixture_address(rt, "row_base", 0);
    const uint32_t columns = c->chunk ? 1 : c->query_len; /* of a chunk every token is a row */
    (void)user;
    for (uint32_t j = 0; j < c->tokens; j++) {
        const int32_t at_position = position[j / columns] + (int32_t)(j % columns);
        const size_t at = (size_t)base * columns + j;
        token_numbers(latent + at * d_qk, d_qk, id[at], at_position, c->layer);
        token_numbers(q + at * q_width, q_width, id[at], at_position, c->layer + 9);
    }
    return 0;
}

static inline void make_ids(int32_t *ids, uint32_t count, uint64_t seed)
{
    for (uint32_t i = 0; i < count; i++)
        ids[i] = (int32_t)(fixture_random(&seed) % 1000);
}

static inline void step_one(rt_runtime *rt, rt_seq seq, int32_t id)
{
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .rows = 1, .seqs = &seq, .tokens = &id};
    uint64_t ticket = 0;
    assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
}

/* A token's record. */
static inline const uint16_t *cached(rt_runtime *rt, rt_seq seq, uint32_t layer, uint32_t position)
{
    const struct rt_config *c = &rt->blueprint.config;
    const uint32_t width = c->geometry.kv_lora_rank + c->geometry.qk_rope_head_dim;
    int32_t pages[64];
    uint32_t count = 0;
    assert_int_equal(rt_seq_pages(rt, seq, pages, 64, &count), RT_OK);
    assert_true(position / c->page_size < count);
    const uint16_t *kv = fixture_address(rt, "kv", layer);
    return kv + ((size_t)pages[position / c->page_size] * c->page_size + position % c->page_size) *
                    width;
}

/* Of a row of the last step, a chunk whose rows have `columns`: where what its column t is sampled
 * from stands. */
static inline uint32_t column_of(rt_runtime *rt, uint32_t row, uint32_t columns, uint32_t t)
{
    return (uint32_t)((const int32_t *)fixture_address(rt, "row_last", 0))[row * columns + t];
}

/* Likewise of one whose rows have a column each: the row's last token. */
static inline uint32_t last_of(rt_runtime *rt, uint32_t row)
{
    return column_of(rt, row, 1, 0);
}

#endif
