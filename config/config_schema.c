/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config_schema.h"

#include <stddef.h>
#include <string.h>

static const struct rt_config_key_words key_words[RT_KEY_COUNT] = {
#define RT_CONFIG_KEY_WORDS(id, key, field, must) [RT_KEY_##id] = {key, field, must},
    RT_CONFIG_KEY_LIST(RT_CONFIG_KEY_WORDS)
#undef RT_CONFIG_KEY_WORDS
};

const struct rt_config_key_words *rt_config_key_words(enum rt_config_key key)
{
    return &key_words[key];
}

static const char *must_of(const char *path)
{
    for (size_t i = 0; i < RT_KEY_COUNT; i++)
        if (strcmp(key_words[i].key, path) == 0)
            return key_words[i].must;
    return NULL;
}

#define REQUIRED CYAML_FLAG_DEFAULT
#define OPTIONAL CYAML_FLAG_OPTIONAL
#define WORD (CYAML_FLAG_OPTIONAL | CYAML_FLAG_STRICT)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const cyaml_strval_t automatic_words[] = {{"auto", 1}};
static const cyaml_strval_t layout_words[] = {{"bf16", RT_KV_BF16}};
static const cyaml_strval_t backend_words[] = {
    {"auto", RT_BACKEND_AUTO}, {"generic", RT_BACKEND_GENERIC}, {"sm90", RT_BACKEND_SM90}};
static const cyaml_strval_t tensors_words[] = {{"shared", RT_TENSORS_SHARED},
                                               {"per_layer", RT_TENSORS_PER_LAYER}};

static const cyaml_schema_value_t integer = {CYAML_VALUE_UINT(CYAML_FLAG_DEFAULT, uint32_t)};

static const cyaml_schema_field_t geometry_fields[] = {
    CYAML_FIELD_UINT("heads", REQUIRED, struct rt_geometry, heads),
    CYAML_FIELD_UINT("kv_lora_rank", REQUIRED, struct rt_geometry, kv_lora_rank),
    CYAML_FIELD_UINT("qk_rope_head_dim", REQUIRED, struct rt_geometry, qk_rope_head_dim),
    CYAML_FIELD_UINT("layers", REQUIRED, struct rt_geometry, layers),
    CYAML_FIELD_FLOAT("softmax_scale", CYAML_FLAG_STRICT, struct rt_geometry, softmax_scale),
    CYAML_FIELD_END};

/* The two schemas differ in this one field. */
#define GRAPHS_FIELDS(batch_sizes_field)                                                           \
    batch_sizes_field,                                                                             \
        CYAML_FIELD_SEQUENCE("query_lens", OPTIONAL | CYAML_FLAG_POINTER, struct rt_config_graphs, \
                             query_lens, &integer, 1, RT_MAX_QUERY_LENS),                          \
        CYAML_FIELD_UINT("max_batch", OPTIONAL, struct rt_config_graphs, max_batch),               \
        CYAML_FIELD_UINT("ring_depth", OPTIONAL, struct rt_config_graphs, ring_depth),             \
        CYAML_FIELD_END

#define BATCH_SIZES_LIST                                                                           \
    CYAML_FIELD_SEQUENCE("batch_sizes", OPTIONAL | CYAML_FLAG_POINTER, struct rt_config_graphs,    \
                         batch_sizes, &integer, 1, RT_MAX_BUCKETS)
#define BATCH_SIZES_WORD                                                                           \
    CYAML_FIELD_ENUM("batch_sizes", WORD, struct rt_config_graphs, automatic, automatic_words,     \
                     COUNT(automatic_words))

static const cyaml_schema_field_t graphs_fields[] = {GRAPHS_FIELDS(BATCH_SIZES_LIST)};
static const cyaml_schema_field_t automatic_graphs_fields[] = {GRAPHS_FIELDS(BATCH_SIZES_WORD)};

static const cyaml_schema_field_t sequences_fields[] = {
    CYAML_FIELD_UINT("max", OPTIONAL, struct rt_config_sequences, max),
    CYAML_FIELD_UINT("max_length", OPTIONAL, struct rt_config_sequences, max_length),
    CYAML_FIELD_END};

static const cyaml_schema_field_t kv_cache_fields[] = {
    CYAML_FIELD_ENUM("layout", WORD, struct rt_config_kv_cache, layout, layout_words,
                     COUNT(layout_words)),
    CYAML_FIELD_UINT("page_size", OPTIONAL, struct rt_config_kv_cache, page_size),
    CYAML_FIELD_UINT("pages", OPTIONAL, struct rt_config_kv_cache, pages),
    CYAML_FIELD_FLOAT("memory", WORD, struct rt_config_kv_cache, memory), CYAML_FIELD_END};

static const cyaml_schema_field_t attention_fields[] = {
    CYAML_FIELD_ENUM("backend", WORD, struct rt_config_attention, backend, backend_words,
                     COUNT(backend_words)),
    CYAML_FIELD_ENUM("tensors", WORD, struct rt_config_attention, tensors, tensors_words,
                     COUNT(tensors_words)),
    CYAML_FIELD_END};

#define FILE_FIELDS(fields_of_graphs)                                                              \
    CYAML_FIELD_STRING_PTR("model", OPTIONAL | CYAML_FLAG_POINTER, struct rt_config_file, model,   \
                           1, 4095),                                                               \
        CYAML_FIELD_UINT("tensor_parallel", OPTIONAL, struct rt_config_file, tensor_parallel),     \
        CYAML_FIELD_MAPPING("geometry", OPTIONAL, struct rt_config_file, geometry,                 \
                            geometry_fields),                                                      \
        CYAML_FIELD_STRING_PTR("device", OPTIONAL | CYAML_FLAG_POINTER, struct rt_config_file,     \
                               device, 1, CYAML_UNLIMITED),                                        \
        CYAML_FIELD_MAPPING("graphs", OPTIONAL, struct rt_config_file, graphs, fields_of_graphs),  \
        CYAML_FIELD_MAPPING("sequences", OPTIONAL, struct rt_config_file, sequences,               \
                            sequences_fields),                                                     \
        CYAML_FIELD_MAPPING("kv_cache", OPTIONAL, struct rt_config_file, kv_cache,                 \
                            kv_cache_fields),                                                      \
        CYAML_FIELD_MAPPING("attention", OPTIONAL, struct rt_config_file, attention,               \
                            attention_fields),                                                     \
        CYAML_FIELD_END

static const cyaml_schema_field_t file_fields[] = {FILE_FIELDS(graphs_fields)};
static const cyaml_schema_field_t automatic_file_fields[] = {FILE_FIELDS(automatic_graphs_fields)};

static const cyaml_schema_value_t root = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct rt_config_file, file_fields)};
static const cyaml_schema_value_t automatic_root = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct rt_config_file, automatic_file_fields)};

static const struct rt_yaml_rules rules = {.root = &root, .language = "YAML", .must = must_of};
static const struct rt_yaml_rules automatic_rules = {
    .root = &automatic_root, .language = "YAML", .must = must_of};

const struct rt_yaml_rules *rt_config_rules(bool automatic_batch_sizes)
{
    return automatic_batch_sizes ? &automatic_rules : &rules;
}
