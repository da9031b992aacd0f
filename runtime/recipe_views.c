/* SPDX-License-Identifier: Apache-2.0 */
/* Views of a layer's weights, norms and RoPE, as kernels take them, and preattend's parameters. */
#include "runtime/recipe_parts.h"

static const uint16_t *pointer(rt_addr address)
{
    return (const uint16_t *)(uintptr_t)address;
}

struct rt_weight_view rt_recipe_weight(const struct recipe *b, uint32_t layer, enum rt_weight_id id,
                                       enum rt_weight_id bias)
{
    const struct rt_bound_weight *w = rt_weight_of(b->s->weights, layer, id);
    const rt_addr bias_address =
        bias == RT_WEIGHT_COUNT ? 0 : rt_weight_of(b->s->weights, layer, bias)->address;
    return (struct rt_weight_view){
        .base = pointer(w->address),
        .bias = pointer(bias_address),
        .row_stride = w->row_stride,
        .column_stride = w->column_stride,
        .rows = (uint32_t)w->rows,
    };
}

struct rt_norm_view rt_weights_norm(const struct rt_weights *weights, const struct rt_block *block,
                                    uint32_t layer, enum rt_weight_id id, double eps, double scale)
{
    const struct rt_bound_weight *w = rt_weight_of(weights, layer, id);
    return (struct rt_norm_view){
        .weight = pointer(w->address),
        .eps = (float)eps,
        .offset = block->norm_one_plus ? 1.0f : 0.0f,
        .scale = (float)scale,
        .width = (uint32_t)w->columns,
    };
}

struct rt_norm_view rt_recipe_norm(const struct recipe *b, uint32_t layer, enum rt_weight_id id,
                                   double eps, double scale)
{
    return rt_weights_norm(b->s->weights, &b->s->blueprint->config.block, layer, id, eps, scale);
}

struct rt_rope_view rt_recipe_rope_view(const struct recipe *b)
{
    const struct rt_config *c = &b->s->blueprint->config;
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    return (struct rt_rope_view){
        .table = dims->rope_positions ? rt_recipe_at(b, RT_TENSOR_ROPE_TABLE, 0) : NULL,
        .query_scale = dims->query_scales ? rt_recipe_at(b, RT_TENSOR_QUERY_SCALE, 0) : NULL,
        .capacity = c->max_length,
        .half_order = c->block.rope.order == RT_ROPE_HALF,
    };
}

void *rt_recipe_behind(const struct recipe *b, void *base, uint64_t elements)
{
    const bool is_f32 = b->s->blueprint->config.precision == RT_PRECISION_F32;
    return (char *)base + elements * (is_f32 ? sizeof(float) : sizeof(uint16_t));
}

struct rt_preattend_params rt_recipe_preattend_params(const struct recipe *b, uint32_t layer)
{
    const struct rt_config *c = &b->s->blueprint->config;
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    const uint32_t a = dims->a_width,
                   head = c->block.qk_nope_head_dim + c->geometry.qk_rope_head_dim;
    const uint32_t q_row = c->block.q_lora_rank ? dims->q_width : a;
    void *const first = rt_recipe_at_span(b, RT_TENSOR_QKV_A, 0, a);
    const struct rt_tokens_view tokens = {
        .base = first, .row_stride = (int64_t)b->query_len * a, .token_stride = a};
    struct rt_preattend_params p = {
        .rows = rt_recipe_rows_view(b),
        .kv = rt_recipe_kv_view(b, layer),
        .q_a = tokens,
        .kv_a = tokens,
        .q_in = {.base = c->block.q_lora_rank ? rt_recipe_at_span(b, RT_TENSOR_Q_FULL, 0, q_row)
                                              : first,
                 .row_stride = (int64_t)b->query_len * q_row,
                 .token_stride = q_row,
                 .head_stride = head},
        .q_out = rt_recipe_heads_view(b, RT_TENSOR_Q, 0, dims->kv.d_qk),
        .q_a_norm =
            rt_recipe_norm(b, layer, RT_WEIGHT_Q_A_NORM, c->block.norm_eps, c->block.q_a_scale),
        .kv_a_norm =
            rt_recipe_norm(b, layer, RT_WEIGHT_KV_A_NORM, c->block.norm_eps, c->block.kv_a_scale),
        .rope = rt_recipe_rope_view(b),
        .place = rt_recipe_has_context(b) ? rt_recipe_at_span(b, RT_TENSOR_OWN_PLACE, 0, 1) : NULL,
        .heads = c->geometry.heads,
        .nope_dim = c->block.qk_nope_head_dim,
        .latent_dim = c->geometry.kv_lora_rank,
        .rope_dim = c->geometry.qk_rope_head_dim,
        .is_f32 = c->precision == RT_PRECISION_F32,
        /* What stands in front of a schedule was complete before that let its successor begin. The
         * one of listed keys stands behind this, so the first layer has none in front. */
        .early = !rt_spec_is_chunk(b->spec) && !(rt_recipe_is_listed(b) && layer == 0),
    };
    p.kv_a.base = rt_recipe_behind(b, first, a - p.latent_dim - p.rope_dim);
    return p;
}
