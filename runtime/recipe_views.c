/* SPDX-License-Identifier: Apache-2.0 */
/* Views of a layer's weights, norms and RoPE, as kernels take them. */
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
