/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/sum_norm.h"

#include "kernels/abi/all_reduce_norm.h"
#include "kernels/op.h"
#include "runtime/one_shot.h"
#include "runtime/recipe_parts.h"

struct rt_input_norm_params rt_input_norm_of(const struct rt_blueprint *b,
                                             const struct rt_arena *arena,
                                             const struct rt_weights *weights, uint32_t layer,
                                             uint32_t tokens)
{
    const struct rt_config *const c = &b->config;
    return (struct rt_input_norm_params){
        .hidden = (const uint16_t *)(uintptr_t)rt_arena_addr(arena, RT_TENSOR_HIDDEN, 0),
        .residual = (uint16_t *)(uintptr_t)rt_arena_addr(arena, RT_TENSOR_RESIDUAL, 0),
        .normed = (uint16_t *)(uintptr_t)rt_arena_addr(arena, RT_TENSOR_NORMED, 0),
        .stride = c->block.hidden_size,
        .norm = rt_weights_norm(weights, &c->block, layer, RT_WEIGHT_INPUT_NORM,
                                c->block.input_norm_eps, 1.0),
        .tokens = tokens,
        .first = layer == 0,
        .is_f32 = c->precision == RT_PRECISION_F32,
        .hidden_scale = (float)c->block.residual_scale,
    };
}

bool rt_sum_norm_serves(const struct rt_collective *sum, const struct rt_input_norm_params *norm)
{
    const uint32_t width = norm->norm.width;
    const bool same = sum->from == (uintptr_t)norm->hidden && sum->to == sum->from &&
                      sum->count == (uint64_t)norm->tokens * width;
    return same && !norm->first && !norm->is_f32 && norm->stride == width &&
           (uint64_t)norm->tokens * RT_ALL_REDUCE_NORM_SLOTS(width) <= RT_ALL_REDUCE_MOST_BLOCKS;
}

enum rt_status rt_sum_norm_work(const struct rt_kernels *k, const struct rt_collective *sum,
                                const struct rt_input_norm_params *norm, struct rt_work *out,
                                struct rt_error *err)
{
    const struct rt_all_reduce_norm_params p = {.sum = rt_one_shot_params(sum), .norm = *norm};
    const struct rt_op_request request = {.caps = &k->driver->caps};
    struct rt_variant variant;
    RT_TRY(rt_op_resolve(RT_OP_ALL_REDUCE_NORM, &request, &variant, err));
    return rt_op_build(k, &variant, &p, sizeof(p), out, err);
}
