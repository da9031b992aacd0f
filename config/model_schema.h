/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_MODEL_SCHEMA_H
#define RT_CONFIG_MODEL_SCHEMA_H

/* The few keys of a Hugging Face config.json that decide the geometry; null where missing or null.
 */
#include "config/yaml_index.h"

struct rt_model_rope {
    char *rope_type;
    char *type; /* the older spelling of rope_type */
    double *factor;
    double *mscale_all_dim;
    bool *apply_yarn_scaling;
};

struct rt_model_linear {
    uint32_t *full_attn_layers; /* from 1 */
    uint32_t full_attn_layers_count;
};

/* A text model, at the top or under text_config. */
struct rt_model_text {
    char *model_type;
    uint32_t *num_attention_heads;
    uint32_t *kv_lora_rank;
    uint32_t *qk_nope_head_dim;
    uint32_t *qk_rope_head_dim;
    uint32_t *num_hidden_layers;
    uint32_t *num_layers;
    char **layer_types;
    uint32_t layer_types_count;
    struct rt_model_linear *linear_attn_config;
    struct rt_model_rope *rope_parameters;
    struct rt_model_rope *rope_scaling; /* the older spelling of rope_parameters */
};

struct rt_model_file {
    struct rt_model_text top; /* first: the schema's offsets are the same for both */
    struct rt_model_text *text_config;
};

/* Loads a struct rt_model_file. Static storage. */
const struct rt_yaml_rules *rt_model_rules(void);

#endif
