/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/chunk_form.h"

#include "common/math.h"
#include "kernels/abi/prefill.h"

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
    return c->block.qk_nope_head_dim + c->geometry.qk_rope_head_dim > RT_PREFILL_MOST_DIM ||
           c->block.v_head_dim > RT_PREFILL_MOST_DIM;
}

/* Why it is absorbed, whatever it costs; false: nothing says so. */
static bool must_absorb(const struct rt_config *c, struct rt_chunk_form *out)
{
    if (!c->layer)
        (void)snprintf(out->reason, sizeof(out->reason),
                       "absorbed: without layer the caller's queries are");
    else if (is_too_wide(c))
        (void)snprintf(out->reason, sizeof(out->reason),
                       "absorbed: prefill serves heads of up to %u numbers, not %u + %u and %u",
                       RT_PREFILL_MOST_DIM, c->block.qk_nope_head_dim, c->geometry.qk_rope_head_dim,
                       c->block.v_head_dim);
    return out->reason[0] != 0;
}

static enum rt_status cut_context(const struct rt_config *c, struct rt_chunk_form *out,
                                  struct rt_error *err)
{
    out->piece = rt_min_u32(c->context_piece, c->max_length);
    out->pieces = rt_ceil_div_u32(c->max_length, out->piece);
    RT_REQUIRE(out->pieces <= RT_MAX_CONTEXT_PIECES, err, RT_ERR_CONFIG,
               "prefill.context_piece is %u: must be at least %u, for max_length %u comes in %d "
               "pieces at most",
               c->context_piece, rt_ceil_div_u32(c->max_length, RT_MAX_CONTEXT_PIECES),
               c->max_length, RT_MAX_CONTEXT_PIECES);
    return RT_OK;
}

enum rt_status rt_chunk_form_choose(const struct rt_config *config, uint32_t chunk,
                                    struct rt_chunk_form *out, struct rt_error *err)
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
    if (!out->absorbed)
        RT_TRY(cut_context(config, out, err));
    RT_REQUIRE(!out->absorbed || chunk <= RT_MAX_BATCH, err, RT_ERR_CONFIG,
               "prefill.chunks: %u tokens are more than %d, which absorbed attention takes (%s)",
               chunk, RT_MAX_BATCH, out->reason);
    return RT_OK;
}
