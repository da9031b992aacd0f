/* SPDX-License-Identifier: Apache-2.0 */
#include "config/model_text.h"

#include <stdio.h>
#include <string.h>

const struct rt_pick rt_model_keys[RT_MODEL_KEY_COUNT] = {
    [RT_MODEL_HEADS] = {"num_attention_heads", RT_PICK_COUNT},
    [RT_MODEL_RANK] = {"kv_lora_rank", RT_PICK_COUNT},
    [RT_MODEL_NOPE_DIM] = {"qk_nope_head_dim", RT_PICK_COUNT},
    [RT_MODEL_ROPE_DIM] = {"qk_rope_head_dim", RT_PICK_COUNT},
    [RT_MODEL_PANGU_RANK] = {"attention_kv_lora_dim", RT_PICK_COUNT},
    [RT_MODEL_PANGU_NOPE_DIM] = {"attention_qk_dim", RT_PICK_COUNT},
    [RT_MODEL_PANGU_ROPE_DIM] = {"attention_qk_rope_dim", RT_PICK_COUNT},
    [RT_MODEL_HIDDEN_LAYERS] = {"num_hidden_layers", RT_PICK_COUNT},
    [RT_MODEL_LAYERS] = {"num_layers", RT_PICK_COUNT},
    [RT_MODEL_LAYER_TYPES] = {"layer_types", RT_PICK_TEXTS},
    [RT_MODEL_GROUP_SIZE] = {"layer_group_size", RT_PICK_COUNT},
    [RT_MODEL_FULL_LAYERS] = {"full_attention_layers", RT_PICK_COUNTS},
    [RT_MODEL_LINEAR_TYPE] = {"linear_attention_type", RT_PICK_TEXT},
    [RT_MODEL_LINEAR] = {"linear_attn_config", RT_PICK_MAPPING},
    [RT_MODEL_ROPE_PARAMETERS] = {"rope_parameters", RT_PICK_MAPPING},
    [RT_MODEL_ROPE_SCALING] = {"rope_scaling", RT_PICK_MAPPING},
    [RT_MODEL_USE_MLA] = {"use_mla", RT_PICK_BOOLEAN},
    [RT_MODEL_HIDDEN_SIZE] = {"hidden_size", RT_PICK_COUNT},
    [RT_MODEL_Q_RANK] = {"q_lora_rank", RT_PICK_COUNT},
    [RT_MODEL_V_DIM] = {"v_head_dim", RT_PICK_COUNT},
    [RT_MODEL_PANGU_Q_RANK] = {"attention_q_lora_dim", RT_PICK_COUNT},
    [RT_MODEL_PANGU_V_DIM] = {"attention_v_dim", RT_PICK_COUNT},
    [RT_MODEL_NORM_EPS] = {"rms_norm_eps", RT_PICK_NUMBER},
    [RT_MODEL_ROPE_THETA] = {"rope_theta", RT_PICK_NUMBER},
    [RT_MODEL_ROPE_INTERLEAVE] = {"rope_interleave", RT_PICK_BOOLEAN},
    [RT_MODEL_MAX_POSITIONS] = {"max_position_embeddings", RT_PICK_COUNT},
    [RT_MODEL_NO_ROPE] = {"mla_use_nope", RT_PICK_BOOLEAN},
    [RT_MODEL_SCALE_Q] = {"mla_scale_q_lora", RT_PICK_BOOLEAN},
    [RT_MODEL_SCALE_KV] = {"mla_scale_kv_lora", RT_PICK_BOOLEAN},
    [RT_MODEL_SCALE_BOTH] = {"use_mla_scaling_factor", RT_PICK_BOOLEAN},
    [RT_MODEL_SCALE_DEPTH] = {"scale_depth", RT_PICK_NUMBER},
    [RT_MODEL_WINDOW] = {"sliding_window", RT_PICK_NUMBER},
    [RT_MODEL_USE_WINDOW] = {"use_sliding_window", RT_PICK_BOOLEAN},
    [RT_MODEL_SOFTCAP] = {"attn_logit_softcapping", RT_PICK_NUMBER},
    [RT_MODEL_HEAD_DIM] = {"qk_head_dim", RT_PICK_COUNT},
    [RT_MODEL_QK_NORM] = {"use_qk_norm", RT_PICK_BOOLEAN},
    [RT_MODEL_QK_LAYERNORM] = {"qk_layernorm", RT_PICK_BOOLEAN},
};

/* openPangu alone has names of its own. */
enum rt_model_key rt_model_name_of(const struct rt_model_text *text, enum rt_model_key id)
{
    static const enum rt_model_key others[RT_MODEL_KEY_COUNT] = {
        [RT_MODEL_RANK] = RT_MODEL_PANGU_RANK,
        [RT_MODEL_NOPE_DIM] = RT_MODEL_PANGU_NOPE_DIM,
        [RT_MODEL_ROPE_DIM] = RT_MODEL_PANGU_ROPE_DIM,
        [RT_MODEL_Q_RANK] = RT_MODEL_PANGU_Q_RANK,
        [RT_MODEL_V_DIM] = RT_MODEL_PANGU_V_DIM,
    };
    bool is_pangu = strcmp(text->family->model_type, "pangu_ultra_moe") == 0;
    return is_pangu && others[id] && !text->given[id] ? others[id] : id;
}

const char *rt_model_key_name(enum rt_model_key id)
{
    return rt_model_keys[id].key;
}

enum rt_status rt_model_fail(const struct rt_model_text *text, const struct rt_node *node,
                             const char *key, const char *must, struct rt_error *err)
{
    char shown[RT_NODE_SHOWN_BYTES];
    char type[48] = "an MLA";
    if (text->family)
        (void)snprintf(type, sizeof(type), "a %s", text->family->model_type);
    if (!node)
        return rt_fail(err, RT_ERR_CONFIG, "%s: %s%s is missing: %s model must have it, %s",
                       text->source->name, text->prefix, key, type, must);
    rt_node_show(node, shown);
    return rt_fail(err, RT_ERR_CONFIG, "%s:%u: %s%s is %s: must be %s", text->source->name,
                   node->line, text->prefix, key, shown, must);
}

enum rt_status rt_model_need(const struct rt_model_text *text, enum rt_model_key id, uint32_t *out,
                             struct rt_error *err)
{
    if (!rt_pick_is_given(text->given[id]))
        return rt_model_fail(text, text->given[id], rt_model_keys[id].key,
                             "an integer, not negative", err);
    *out = rt_pick_count(text->given[id]);
    return RT_OK;
}
