/* SPDX-License-Identifier: Apache-2.0 */
#include "config/model_text.h"

#include <math.h>
#include <string.h>

/* sqrt(hidden / rank) where the model multiplies the normalised vector of that rank by it. */
static double scale_of(const struct rt_model_text *text, enum rt_model_key key, uint32_t hidden,
                       uint32_t rank)
{
    const bool scaled = rt_pick_boolean(text->given[key], false) ||
                        rt_pick_boolean(text->given[RT_MODEL_SCALE_BOTH], false);
    return scaled && rank ? sqrt((double)hidden / rank) : 1.0;
}

static enum rt_status read_dimensions(const struct rt_model_text *text, struct rt_block *out,
                                      struct rt_error *err)
{
    const enum rt_model_key q_rank = rt_model_name_of(text, RT_MODEL_Q_RANK);
    RT_TRY(rt_model_need(text, RT_MODEL_HIDDEN_SIZE, &out->hidden_size, err));
    RT_TRY(rt_model_need(text, rt_model_name_of(text, RT_MODEL_NOPE_DIM), &out->qk_nope_head_dim,
                         err));
    RT_TRY(rt_model_need(text, rt_model_name_of(text, RT_MODEL_V_DIM), &out->v_head_dim, err));
    out->q_lora_rank = rt_pick_count(text->given[q_rank]);
    return RT_OK;
}

/* scale_depth / sqrt(num_hidden_layers); a file without scale_depth has the class's own, 1. */
static enum rt_status read_residual_scale(const struct rt_model_text *text, double *out,
                                          struct rt_error *err)
{
    const struct rt_node *depth = text->given[RT_MODEL_SCALE_DEPTH];
    uint32_t layers = 0;
    *out = 1.0;
    if (!text->family->scales_depth)
        return RT_OK;
    RT_TRY(rt_model_need(text, RT_MODEL_HIDDEN_LAYERS, &layers, err));
    *out = (rt_pick_is_given(depth) ? rt_pick_number(depth) : 1.0) / sqrt(layers);
    if (!(*out > 0.0) || !isfinite(*out))
        return rt_model_fail(text, depth, rt_model_key_name(RT_MODEL_SCALE_DEPTH),
                             "a number above 0", err);
    return RT_OK;
}

/* Kimi-K3's text model calls itself kimi_linear, and has a gate that Kimi-Linear has not. */
static enum rt_status check_served(const struct rt_model_text *text, struct rt_error *err)
{
    const bool is_k3 = strcmp(text->whole_type, "kimi_k3") == 0;
    const char *reason = is_k3 ? "a gate on its attention's output" : text->family->no_block;
    RT_REQUIRE(!reason, err, RT_ERR_CONFIG,
               "%s: the block of a %s model has %s: must be without layer: true, stages doing what "
               "is around attention",
               text->source->name, is_k3 ? text->whole_type : text->family->model_type, reason);
    return RT_OK;
}

enum rt_status rt_model_block(const struct rt_model_text *text, const struct rt_geometry *geometry,
                              struct rt_block *out, struct rt_error *err)
{
    /* The low-rank vectors' norms are made without the model's eps, and have their class's. */
    struct rt_block b = {.norm_eps = 1e-6, .input_norm_eps = 1e-6};
    RT_TRY(check_served(text, err));
    RT_TRY(rt_model_check_block(text, err));
    RT_TRY(read_dimensions(text, &b, err));
    if (rt_pick_is_given(text->given[RT_MODEL_NORM_EPS]))
        b.input_norm_eps = rt_pick_number(text->given[RT_MODEL_NORM_EPS]);
    b.q_a_scale = scale_of(text, RT_MODEL_SCALE_Q, b.hidden_size, b.q_lora_rank);
    b.kv_a_scale = scale_of(text, RT_MODEL_SCALE_KV, b.hidden_size, geometry->kv_lora_rank);
    RT_TRY(read_residual_scale(text, &b.residual_scale, err));
    RT_TRY(rt_model_rope(text, geometry->qk_rope_head_dim, &b.rope, err));
    *out = b;
    return RT_OK;
}
