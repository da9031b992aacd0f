/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of a chunk's prompts in the form that is not absorbed. The chunk's own tokens first,
 * then cached context, in pieces of which one is expanded at a time:
 *
 *   pages -kv_gather-> latents -kv_b-> keys and values -prefill_attend-> piece 0, lse 0
 *   pages -kv_gather-> latents -kv_b-> keys and values -prefill_attend-> piece 1, lse 1     merge
 *   ...                                                                                  -> values
 *
 * A head's sink is one more term of what divides, once: of piece 0 where it is all, else of merge.
 *
 * A piece that no sequence reaches into costs its products all the same: the host takes the graph
 * with the fewest pieces that are enough.
 */
#include "kernels/abi/gather.h"
#include "kernels/abi/merge.h"
#include "runtime/recipe_parts.h"

/* Keys that are attended to at once: the chunk's own, or a piece of what is cached. */
struct keys {
    const int32_t *first;    /* of every row, in tokens of all */
    const int32_t *position; /* of every row's first; null: 0 */
    const int32_t *k_first;  /* of every row, in those that are gathered */
    uint32_t begin, count;   /* gathered */
    uint32_t output;         /* which of the outputs it makes */
    bool is_context;
};

static const struct rt_dims *dims_of(const struct recipe *b)
{
    return &b->s->blueprint->placement.dims;
}

static bool is_f32(const struct recipe *b)
{
    return dims_of(b)->is_f32;
}

static void *behind(const struct recipe *b, const void *base, uint64_t elements)
{
    return (char *)(uintptr_t)base + elements * (is_f32(b) ? sizeof(float) : sizeof(uint16_t));
}

static struct keys own_keys(const struct recipe *b)
{
    const int32_t *first = rt_recipe_at(b, RT_TENSOR_CHUNK_FIRST, 0);
    return (struct keys){.first = first,
                         .position = rt_recipe_at(b, RT_TENSOR_ROW_START, 0),
                         .k_first = first,
                         .count = rt_spec_chunk(b->spec)};
}

static struct keys context_keys(const struct recipe *b, uint32_t piece)
{
    const int32_t *firsts = rt_recipe_at(b, RT_TENSOR_PIECE_FIRST, 0);
    const uint32_t size = dims_of(b)->context_piece;
    return (struct keys){
        .first = rt_recipe_at(b, RT_TENSOR_CONTEXT_FIRST, 0),
        .k_first =
            (const int32_t *)(uintptr_t)((uintptr_t)firsts +
                                         (uintptr_t)piece * (rt_spec_prefill_rows(b->spec) + 1) *
                                             sizeof(*firsts)),
        .begin = piece * size,
        .count = size,
        .output = piece + 1,
        .is_context = true,
    };
}

static enum rt_status add_gather(struct recipe *b, uint32_t layer, const struct keys *keys)
{
    const struct rt_kv_gather_params gather = {
        .kv = rt_recipe_kv_view(b, layer),
        .slot = rt_recipe_at(b, RT_TENSOR_ROW_SLOT, 0),
        .first = keys->first,
        .position = keys->position,
        .out = rt_recipe_at(b, RT_TENSOR_EXPANDED_LATENT, 0),
        .rows = rt_spec_prefill_rows(b->spec),
        .begin = keys->begin,
        .count = keys->count,
    };
    if (!rt_recipe_is_quantised(b))
        return rt_recipe_add_op(b, RT_OP_KV_GATHER, layer, &gather, sizeof(gather));
    const struct rt_kv_gather_quant_params p = {
        .gather = gather, .quant = rt_recipe_quant_view(b, layer), .d_qk = dims_of(b)->kv.d_qk};
    return rt_recipe_add_op(b, RT_OP_KV_GATHER_QUANT, layer, &p, sizeof(p));
}

/* Where attention over the keys goes: values at once where nothing is to be merged. */
static struct rt_prefill_view output_of(const struct recipe *b, const struct keys *keys)
{
    const struct rt_dims *dims = dims_of(b);
    void *base = b->spec->pieces ? behind(b, rt_recipe_at(b, RT_TENSOR_PIECE_OUT, 0),
                                          (uint64_t)keys->output * dims->expanded * dims->v_width)
                                 : rt_recipe_at(b, RT_TENSOR_VALUES, 0);
    return (struct rt_prefill_view){
        .base = base, .token_stride = dims->v_width, .head_stride = dims->v_width / dims->heads};
}

static struct rt_prefill_view lse_of(const struct recipe *b, const struct keys *keys)
{
    const struct rt_dims *dims = dims_of(b);
    char *base = rt_recipe_at(b, RT_TENSOR_PIECE_LSE, 0);
    return (struct rt_prefill_view){.base = base + (uint64_t)keys->output * dims->expanded *
                                                       dims->heads * sizeof(float),
                                    .token_stride = dims->heads,
                                    .head_stride = 1};
}

static enum rt_status add_attend(struct recipe *b, uint32_t layer, const struct keys *keys)
{
    const struct rt_config *c = &b->s->blueprint->config;
    const struct rt_dims *dims = dims_of(b);
    const uint32_t nope = c->block.qk_nope_head_dim, latent = c->geometry.kv_lora_rank;
    const struct rt_heads_view q = rt_recipe_full_query(b);
    const void *kv = rt_recipe_at(b, RT_TENSOR_EXPANDED_KV, 0);
    const int64_t kv_head = nope + c->block.v_head_dim, q_head = dims->kv.d_qk;
    const struct rt_prefill_attend_params p = {
        .q = {q.base, q.token_stride, q.head_stride},
        .q_rope = {behind(b, rt_recipe_at(b, RT_TENSOR_Q, 0), latent), q_head * dims->heads,
                   q_head},
        .k = {behind(b, kv, 0), dims->kv_width, kv_head},
        .k_rope = {behind(b, rt_recipe_at(b, RT_TENSOR_EXPANDED_LATENT, 0), latent), q_head, 0},
        .v = {behind(b, kv, nope), dims->kv_width, kv_head},
        .out = output_of(b, keys),
        .lse = lse_of(b, keys),
        .q_first = rt_recipe_at(b, RT_TENSOR_CHUNK_FIRST, 0),
        .k_first = keys->k_first,
        .turn = rt_recipe_at(b, RT_TENSOR_TURN, 0),
        .sink = b->spec->pieces ? NULL : rt_recipe_sink(b, layer),
        .scale = (float)c->geometry.softmax_scale,
        .rows = rt_spec_prefill_rows(b->spec),
        .tokens = rt_spec_chunk(b->spec),
        .keys = keys->count,
        .heads = dims->heads,
        .nope_dim = nope,
        .rope_dim = c->geometry.qk_rope_head_dim,
        .v_dim = c->block.v_head_dim,
        .causal = !keys->is_context,
        .is_f32 = is_f32(b),
    };
    return rt_recipe_add_op(b, RT_OP_PREFILL_ATTEND, layer, &p, sizeof(p));
}

static enum rt_status add_keys(struct recipe *b, uint32_t layer, const struct keys *keys)
{
    RT_TRY(add_gather(b, layer, keys));
    b->span = (struct span){.rows = keys->count, .by_token = true};
    return rt_recipe_add_expansion(b, layer);
}

static enum rt_status add_piece(struct recipe *b, uint32_t layer, const struct keys *keys)
{
    if (keys->is_context || !b->has_keys)
        RT_TRY(add_keys(b, layer, keys));
    b->span = (struct span){.rows = rt_spec_chunk(b->spec), .by_token = true};
    return add_attend(b, layer, keys);
}

static enum rt_status add_merge(struct recipe *b, uint32_t layer)
{
    const struct rt_dims *dims = dims_of(b);
    const int64_t value = dims->v_width / dims->heads;
    const struct rt_merge_params p = {
        .in = {rt_recipe_at(b, RT_TENSOR_PIECE_OUT, 0), (int64_t)dims->expanded * dims->v_width,
               dims->v_width, value},
        .in_lse = {rt_recipe_at(b, RT_TENSOR_PIECE_LSE, 0), (int64_t)dims->expanded * dims->heads,
                   dims->heads, 1},
        .out = {rt_recipe_at(b, RT_TENSOR_VALUES, 0), dims->v_width, value},
        .sink = rt_recipe_sink(b, layer),
        .pieces = b->spec->pieces + 1,
        .tokens = rt_spec_chunk(b->spec),
        .heads = dims->heads,
        .v_dim = (uint32_t)value,
        .is_f32 = is_f32(b),
    };
    return rt_recipe_add_op(b, RT_OP_MERGE, layer, &p, sizeof(p));
}

enum rt_status rt_recipe_add_own_keys(struct recipe *b, uint32_t layer)
{
    const struct keys own = own_keys(b);
    b->has_keys = true;
    return add_keys(b, layer, &own);
}

enum rt_status rt_recipe_add_expanded(struct recipe *b, uint32_t layer)
{
    const struct keys own = own_keys(b);
    RT_TRY(add_piece(b, layer, &own));
    b->has_keys = false; /* the next layer's are to come */
    for (uint32_t i = 0; i < b->spec->pieces; i++) {
        const struct keys context = context_keys(b, i);
        RT_TRY(add_piece(b, layer, &context));
    }
    return b->spec->pieces ? add_merge(b, layer) : RT_OK;
}
