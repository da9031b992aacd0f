/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/rank_tokens.h"

#include "tests/support/fixture.h"

int rank_tokens_embed(void *user, const struct rt_stage_context *c)
{
    float *const hidden = fixture_address(c->runtime, "hidden", 0);
    const int32_t base = *(const int32_t *)fixture_address(c->runtime, "row_base", 0);
    const int32_t *id = fixture_address(c->runtime, c->chunk ? "chunk_tokens" : "tokens", 0);
    (void)user;
    id += c->chunk ? 0 : base * (int32_t)c->query_len;
    for (uint32_t j = 0; j < c->tokens; j++) {
        uint64_t state = 1 + (uint64_t)(uint32_t)id[j] * 77777;
        for (uint32_t i = 0; i < RANKS_HIDDEN; i++)
            hidden[j * RANKS_HIDDEN + i] = (float)(fixture_random(&state) % 2048) / 1024.0f - 1.0f;
    }
    return 0;
}

const float *rank_tokens_last(const struct rt_stage_context *c, uint32_t row)
{
    const float *const hidden = fixture_address(c->runtime, "hidden", 0);
    const int32_t *slots = fixture_address(c->runtime, "slots", 0);
    const int32_t *lengths = fixture_address(c->runtime, "lengths", 0);
    const int32_t *positions = fixture_address(c->runtime, "positions", 0);
    const int32_t *last = c->chunk ? fixture_address(c->runtime, "row_last", 0) : NULL;
    if (slots[row] < 0)
        return NULL;
    const int32_t column = lengths[row] - positions[row] - 1;
    const int32_t at = (int32_t)(row * c->query_len) + column;
    const int32_t token = last ? last[at] : at;
    return token < 0 ? NULL : hidden + (uint32_t)token * RANKS_HIDDEN;
}
