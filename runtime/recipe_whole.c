/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that are one kernel each:
 *
 *   hidden ─> mla_block ─(o_proj_sum)─> hidden    layer after layer, each with an exchange of its
 *                                                 own among its neighbours
 *
 * A graph has them in all layers or in none, for the schedule node is for chains alone; and on all
 * ranks or on none: their forms round otherwise, and have the next norm in other sums.
 */
#include "driver/comm/comm.h"
#include "kernels/abi/mla_block.h"
#include "runtime/rank_agree.h"
#include "runtime/recipe_parts.h"
#include "runtime/whole_block.h"

#include <inttypes.h>
#include <stdio.h>

static const struct rt_config *config_of(const struct recipe *b)
{
    return &b->s->blueprint->config;
}

/* ---- a layer's parameters -------------------------------------------------------------------- */

static struct rt_mla_block_weight weight(const struct recipe *b, uint32_t layer,
                                         enum rt_weight_id id, enum rt_weight_id bias)
{
    const struct rt_weight_view w = rt_recipe_weight(b, layer, id, bias);
    return (struct rt_mla_block_weight){.base = w.base, .row_stride = w.row_stride, .bias = w.bias};
}

static unsigned char *exchange(const struct recipe *b, uint32_t layer)
{
    const struct rt_exchanges e = rt_exchanges_of(b->s->blueprint, b->spec);
    const uint64_t at = e.offset + rt_exchange_of(layer, config_of(b)->geometry.layers) * e.bytes;
    return (unsigned char *)rt_recipe_at(b, RT_TENSOR_EXCHANGES, 0) + at;
}

static void fill_norms(const struct recipe *b, uint32_t layer, struct rt_mla_block_params *p)
{
    const struct rt_config *c = config_of(b);
    const struct rt_block *block = &c->block;
    p->kv_a_norm =
        rt_recipe_norm(b, layer, RT_WEIGHT_KV_A_NORM, block->norm_eps, block->kv_a_scale);
    if (block->q_lora_rank)
        p->q_a_norm =
            rt_recipe_norm(b, layer, RT_WEIGHT_Q_A_NORM, block->norm_eps, block->q_a_scale);
    if (c->input_norm)
        p->input_norm = rt_recipe_norm(b, layer, RT_WEIGHT_INPUT_NORM, block->input_norm_eps, 1.0);
}

static struct rt_mla_block_params params_of(const struct recipe *b, uint32_t layer)
{
    const struct rt_config *c = config_of(b);
    const uint32_t layers = c->geometry.layers;
    const bool lora = c->block.q_lora_rank > 0;
    struct rt_mla_block_params p = {
        .rows = rt_recipe_rows_view(b),
        .kv = rt_recipe_kv_view(b, layer),
        .hidden = rt_recipe_at(b, RT_TENSOR_HIDDEN, 0),
        .residual = c->input_norm ? rt_recipe_at(b, RT_TENSOR_RESIDUAL, 0) : NULL,
        .q = weight(b, layer, lora ? RT_WEIGHT_Q_A : RT_WEIGHT_Q,
                    lora ? RT_WEIGHT_Q_A_BIAS : RT_WEIGHT_Q_BIAS),
        .kv_a = weight(b, layer, RT_WEIGHT_KV_A, RT_WEIGHT_KV_A_BIAS),
        .kv_b = weight(b, layer, RT_WEIGHT_KV_B, RT_WEIGHT_COUNT),
        .o = weight(b, layer, RT_WEIGHT_O, rt_recipe_output_bias(b)),
        .rope = rt_recipe_rope_view(b),
        .exchange = exchange(b, layer),
        .stale = exchange(b, layer > 0 ? layer - 1 : layers - 1),
        .hidden_size = c->block.hidden_size,
        .q_rank = c->block.q_lora_rank,
        .heads = c->geometry.heads,
        .scale = (float)c->geometry.softmax_scale,
        .hidden_scale = (float)c->block.residual_scale,
        .first = layer == 0,
        /* From the second layer on what step_begin wrote was complete when the launch in front
         * began, which waits for it. */
        .early = layer > 0,
    };
    if (lora)
        p.q_b = weight(b, layer, RT_WEIGHT_Q_B, RT_WEIGHT_Q_B_BIAS);
    fill_norms(b, layer, &p);
    return p;
}

/* ---- whether --------------------------------------------------------------------------------- */

static enum rt_status check_weight(const struct recipe *b, uint32_t layer, enum rt_weight_id id,
                                   struct rt_error *err)
{
    const struct rt_bound_weight *w = rt_weight_of(b->s->weights, layer, id);
    RT_REQUIRE(
        w->column_stride == 1 && w->row_stride % 8 == 0 && w->address % 16 == 0, err,
        RT_ERR_UNSUPPORTED,
        "mla_block reads weights along k, 16 bytes at a time; %s of layer %u lies at 0x%" PRIx64
        ", strides %" PRId64 ", %" PRId64,
        rt_weight_name(id), layer, w->address, w->row_stride, w->column_stride);
    return RT_OK;
}

/* Weights that lie across k are the chain's. */
static enum rt_status check_weights(const struct recipe *b, uint32_t layer, struct rt_error *err)
{
    static const enum rt_weight_id matrices[] = {RT_WEIGHT_Q_A, RT_WEIGHT_Q,    RT_WEIGHT_KV_A,
                                                 RT_WEIGHT_Q_B, RT_WEIGHT_KV_B, RT_WEIGHT_O};
    for (size_t i = 0; i < sizeof(matrices) / sizeof(matrices[0]); i++)
        if (rt_weight_of(b->s->weights, layer, matrices[i])->address)
            RT_TRY(check_weight(b, layer, matrices[i], err));
    return RT_OK;
}

/* The first layer's work is built once more than needed: it asks the device what it holds. */
static enum rt_status resolve(const struct recipe *b, struct rt_variant *variant,
                              struct rt_error *err)
{
    struct rt_work work;
    RT_TRY(rt_whole_block_resolve(b->s->blueprint, b->spec, variant, err));
    for (uint32_t layer = 0; layer < config_of(b)->geometry.layers; layer++)
        RT_TRY(check_weights(b, layer, err));
    const struct rt_mla_block_params first = params_of(b, 0);
    return rt_op_build(b->s->kernels, variant, &first, sizeof(first), &work, err);
}

/* A plan's ranks are nobody who could be asked. */
static bool has_others(const struct recipe *b)
{
    return b->s->comm && b->s->comm->ranks > 1 && b->s->comm->exchange;
}

enum rt_status rt_recipe_choose_whole(struct recipe *b)
{
    struct rt_error why_not = {.status = RT_OK};
    enum rt_status status = resolve(b, &b->whole_block, &why_not);
    if (has_others(b))
        status = rt_rank_agree(b->s->comm, status, &why_not);
    b->is_whole = status == RT_OK;
    if (status != RT_OK && status != RT_ERR_UNSUPPORTED)
        return rt_fail(b->err, status, "%s", why_not.message);
    (void)snprintf(b->p->form, sizeof(b->p->form), "%s: %.*s",
                   b->is_whole ? "a block is one kernel" : "a block is a chain of kernels",
                   (int)sizeof(b->p->form) - 40,
                   b->is_whole ? b->whole_block.reason : why_not.message);
    return RT_OK;
}

enum rt_status rt_recipe_add_whole(struct recipe *b, uint32_t layer)
{
    struct rt_mla_block_params p = params_of(b, layer);
    struct rt_work work;
    bool normed = false;
    if (config_of(b)->input_norm)
        RT_TRY(rt_recipe_norm_sum(b, layer, &normed));
    if (normed) {
        p.input_norm = (struct rt_norm_view){.weight = NULL};
        p.residual = NULL;
    }
    RT_TRY(rt_op_build(b->s->kernels, &b->whole_block, &p, sizeof(p), &work, b->err));
    RT_TRY(rt_recipe_add(b, rt_op_name(RT_OP_MLA_BLOCK), layer, &work));
    return rt_recipe_add_sum(b, layer);
}
