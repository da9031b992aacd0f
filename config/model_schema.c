/* SPDX-License-Identifier: Apache-2.0 */
#include "config/model_schema.h"

#include <assert.h>
#include <stddef.h>

#define MAYBE (CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER_NULL_STR)
#define MAYBE_NUMBER (MAYBE | CYAML_FLAG_STRICT)
/* Far above any model's; only keeps a hostile file from costing memory. */
#define MAX_LAYER_ENTRIES 4096

static_assert(offsetof(struct rt_model_file, top) == 0, "both mappings share TEXT_FIELDS");

static const cyaml_schema_value_t integer = {CYAML_VALUE_UINT(CYAML_FLAG_DEFAULT, uint32_t)};
static const cyaml_schema_value_t string = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, CYAML_UNLIMITED)};

static const cyaml_schema_field_t rope_fields[] = {
    CYAML_FIELD_STRING_PTR("rope_type", MAYBE, struct rt_model_rope, rope_type, 0, CYAML_UNLIMITED),
    CYAML_FIELD_STRING_PTR("type", MAYBE, struct rt_model_rope, type, 0, CYAML_UNLIMITED),
    CYAML_FIELD_FLOAT_PTR("factor", MAYBE_NUMBER, struct rt_model_rope, factor),
    CYAML_FIELD_FLOAT_PTR("mscale_all_dim", MAYBE_NUMBER, struct rt_model_rope, mscale_all_dim),
    CYAML_FIELD_BOOL_PTR("apply_yarn_scaling", MAYBE, struct rt_model_rope, apply_yarn_scaling),
    CYAML_FIELD_END};

static const cyaml_schema_field_t linear_fields[] = {
    CYAML_FIELD_SEQUENCE("full_attn_layers", MAYBE, struct rt_model_linear, full_attn_layers,
                         &integer, 0, MAX_LAYER_ENTRIES),
    CYAML_FIELD_END};

#define TEXT_FIELDS                                                                                \
    CYAML_FIELD_STRING_PTR("model_type", MAYBE, struct rt_model_text, model_type, 0,               \
                           CYAML_UNLIMITED),                                                       \
        CYAML_FIELD_UINT_PTR("num_attention_heads", MAYBE, struct rt_model_text,                   \
                             num_attention_heads),                                                 \
        CYAML_FIELD_UINT_PTR("kv_lora_rank", MAYBE, struct rt_model_text, kv_lora_rank),           \
        CYAML_FIELD_UINT_PTR("qk_nope_head_dim", MAYBE, struct rt_model_text, qk_nope_head_dim),   \
        CYAML_FIELD_UINT_PTR("qk_rope_head_dim", MAYBE, struct rt_model_text, qk_rope_head_dim),   \
        CYAML_FIELD_UINT_PTR("num_hidden_layers", MAYBE, struct rt_model_text, num_hidden_layers), \
        CYAML_FIELD_UINT_PTR("num_layers", MAYBE, struct rt_model_text, num_layers),               \
        CYAML_FIELD_SEQUENCE("layer_types", MAYBE, struct rt_model_text, layer_types, &string, 0,  \
                             MAX_LAYER_ENTRIES),                                                   \
        CYAML_FIELD_MAPPING_PTR("linear_attn_config", MAYBE, struct rt_model_text,                 \
                                linear_attn_config, linear_fields),                                \
        CYAML_FIELD_MAPPING_PTR("rope_parameters", MAYBE, struct rt_model_text, rope_parameters,   \
                                rope_fields),                                                      \
        CYAML_FIELD_MAPPING_PTR("rope_scaling", MAYBE, struct rt_model_text, rope_scaling,         \
                                rope_fields)

static const cyaml_schema_field_t text_fields[] = {TEXT_FIELDS, CYAML_FIELD_END};

static const cyaml_schema_field_t file_fields[] = {
    TEXT_FIELDS,
    CYAML_FIELD_MAPPING_PTR("text_config", MAYBE, struct rt_model_file, text_config, text_fields),
    CYAML_FIELD_END};

static const cyaml_schema_value_t root = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct rt_model_file, file_fields)};

static const struct rt_yaml_rules rules = {.root = &root, .language = "JSON", .skip_unknown = true};

const struct rt_yaml_rules *rt_model_rules(void)
{
    return &rules;
}
