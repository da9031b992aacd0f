/* SPDX-License-Identifier: Apache-2.0 */
#include "config/chunk_form.h"

#include "common/math.h"

#include <inttypes.h>
#include <stdio.h>

/* A key's and value's expansion, and then a token's score and value, in multiplications a head. */
struct cost {
    uint64_t expand, expanded, absorbed;
};

static struct cost cost_of(const struct rt_config *c)
{
    const uint64_t latent = c->geometry.kv_lora_rank, rope = c->geometry.qk_rope_head_dim;
    const uint64_t nope = c->block.qk_nope_head_dim, value = c->block.v_head_dim;
    return (struct cost){.expand = latent * (nope + value),
                         .expanded = nope + rope + value,
                         .absorbed = 2 * latent + rope};
}

static bool is_too_wide(const struct rt_config *c)
{
    return c->block.qk_nope_head_dim + c->geometry.qk_rope_head_dim > RT_EXPANDED_MOST_DIM ||
           c->block.v_head_dim > RT_EXPANDED_MOST_DIM;
}

/* Why it is absorbed, whatever it costs; false: nothing says so. */
static bool must_absorb(const struct rt_config *c, struct rt_chunk_form *out)
{
    if (!c->layer)
        (void)snprintf(out->reason, sizeof(out->reason),
                       "absorbed: without layer the caller's queries are");
    else if (c->context_parallel > 1)
        (void)snprintf(out->reason, sizeof(out->reason),
                       "absorbed: of a context over %u ranks each has latents of its own",
                       c->context_parallel);
    else if (c->topk)
        (void)snprintf(out->reason, sizeof(out->reason),
                       "absorbed: every token has a list of keys of its own, attention.topk");
    else if (is_too_wide(c))
        (void)snprintf(out->reason, sizeof(out->reason),
                       "absorbed: prefill serves heads of up to %u numbers, not %u + %u and %u",
                       RT_EXPANDED_MOST_DIM, c->block.qk_nope_head_dim,
                       c->geometry.qk_rope_head_dim, c->block.v_head_dim);
    return out->reason[0] != 0;
}

#define PIECE_STEP 128u /* a default is a multiple of it: whole pages, whole tiles of keys */

/* As large as it must be for the longest context, where nobody chose it. */
static uint32_t piece_of(const struct rt_config *c)
{
    if (c->context_piece)
        return c->context_piece;
    const uint32_t least = rt_ceil_div_u32(c->max_length, RT_MAX_CONTEXT_PIECES);
    return rt_max_u32(RT_LEAST_CONTEXT_PIECE, rt_ceil_div_u32(least, PIECE_STEP) * PIECE_STEP);
}

void rt_chunk_form_choose(const struct rt_config *config, uint32_t chunk, struct rt_chunk_form *out)
{
    *out = (struct rt_chunk_form){.absorbed = true};
    if (!must_absorb(config, out)) {
        const struct cost cost = cost_of(config);
        const uint64_t expanded = cost.expand + chunk * cost.expanded;
        const uint64_t absorbed = chunk * cost.absorbed;
        out->absorbed = absorbed <= expanded;
        (void)snprintf(out->reason, sizeof(out->reason),
                       "%s: a key costs %" PRIu64 " multiplications a head absorbed, %" PRIu64
                       " expanded, %" PRIu64 " of them once",
                       out->absorbed ? "absorbed" : "expanded", absorbed, expanded, cost.expand);
    }
    if (out->absorbed)
        return;
    out->piece = rt_min_u32(piece_of(config), config->max_length);
    out->pieces = rt_ceil_div_u32(config->max_length, out->piece);
}

uint32_t rt_chunk_prefill_rows(const struct rt_config *config)
{
    const uint32_t rows = config->prefill_rows ? config->prefill_rows : RT_PREFILL_ROWS;
    return rt_min_u32(rows, config->max_sequences);
}
