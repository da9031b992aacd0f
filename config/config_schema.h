/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_CONFIG_SCHEMA_H
#define RT_CONFIG_CONFIG_SCHEMA_H

/* The keys of a configuration file: their names, what they must be, and libcyaml's schema. */
#include "config/geometry.h"
#include "config/yaml_index.h"
#include "replayrt/rt.h"

#define RT_TEXT_(x) #x
#define RT_TEXT(x) RT_TEXT_(x)

/* id, key in the file, field of struct rt_config, what it must be */
#define RT_CONFIG_KEY_LIST(X)                                                                      \
    X(MODEL, "model", "model", "the path of a Hugging Face config.json")                           \
    X(TENSOR_PARALLEL, "tensor_parallel", "tensor_parallel",                                       \
      "an integer from 1 to 1024 that divides the model's heads")                                  \
    X(GEOMETRY, "geometry", "geometry",                                                            \
      "a mapping of heads, kv_lora_rank, qk_rope_head_dim, layers and softmax_scale")              \
    X(HEADS, "geometry.heads", "geometry.heads", "an integer from 1 to " RT_TEXT(RT_MAX_HEADS))    \
    X(RANK, "geometry.kv_lora_rank", "geometry.kv_lora_rank",                                      \
      "512 or 256, and with qk_rope_head_dim give " RT_SERVED_GEOMETRIES)                          \
    X(ROPE_DIM, "geometry.qk_rope_head_dim", "geometry.qk_rope_head_dim", "64, 32 or 0")           \
    X(LAYERS, "geometry.layers", "geometry.layers",                                                \
      "an integer from 1 to " RT_TEXT(RT_MAX_LAYERS))                                              \
    X(SOFTMAX_SCALE, "geometry.softmax_scale", "geometry.softmax_scale", "a number above 0")       \
    X(DEVICE, "device", "device", "auto, host or cuda:N with N from 0 to 9999")                    \
    X(GRAPHS, "graphs", "graphs", "a mapping of batch_sizes, query_lens, max_batch, ring_depth")   \
    X(BATCH_SIZES, "graphs.batch_sizes", "batch_sizes",                                            \
      "auto, or a list of 1 to " RT_TEXT(RT_MAX_BUCKETS) " integers from 1 to " RT_TEXT(           \
          RT_MAX_BATCH) ", ascending")                                                             \
    X(BATCH_SIZE, "graphs.batch_sizes[]", "batch_sizes[]",                                         \
      "an integer from 1 to " RT_TEXT(RT_MAX_BATCH))                                               \
    X(MAX_BATCH, "graphs.max_batch", "max_batch", "an integer from 1 to " RT_TEXT(RT_MAX_BATCH))   \
    X(QUERY_LENS, "graphs.query_lens", "query_lens",                                               \
      "a list of 1 to " RT_TEXT(RT_MAX_QUERY_LENS) " integers from 1 to " RT_TEXT(                 \
          RT_MAX_QUERY_LEN) ", ascending")                                                         \
    X(QUERY_LEN, "graphs.query_lens[]", "query_lens[]",                                            \
      "an integer from 1 to " RT_TEXT(RT_MAX_QUERY_LEN))                                           \
    X(RING_DEPTH, "graphs.ring_depth", "ring_depth", "an integer from 2 to 64")                    \
    X(SEQUENCES, "sequences", "sequences", "a mapping of max and max_length")                      \
    X(MAX_SEQUENCES, "sequences.max", "max_sequences",                                             \
      "an integer from 1 to " RT_TEXT(RT_MAX_SEQUENCES))                                           \
    X(MAX_LENGTH, "sequences.max_length", "max_length",                                            \
      "an integer from 1 to " RT_TEXT(RT_MAX_LENGTH))                                              \
    X(KV_CACHE, "kv_cache", "kv_cache", "a mapping of layout, page_size, and pages or memory")     \
    X(LAYOUT, "kv_cache.layout", "kv_layout", "bf16")                                              \
    X(PAGE_SIZE, "kv_cache.page_size", "page_size", "16, 32, 64 or 128")                           \
    X(PAGES, "kv_cache.pages", "pages", "an integer from 1 to 2147483647")                         \
    X(MEMORY, "kv_cache.memory", "memory_fraction", "a number above 0, at most 1")                 \
    X(ATTENTION, "attention", "attention", "a mapping of backend and tensors")                     \
    X(BACKEND, "attention.backend", "backend", "auto, generic or sm90")                            \
    X(TENSORS, "attention.tensors", "tensors", "shared or per_layer")

enum rt_config_key {
#define RT_CONFIG_KEY_ENUM(id, key, field, must) RT_KEY_##id,
    RT_CONFIG_KEY_LIST(RT_CONFIG_KEY_ENUM)
#undef RT_CONFIG_KEY_ENUM
        RT_KEY_COUNT
};

struct rt_config_key_words {
    const char *key, *field, *must;
};
/* Static storage. */
const struct rt_config_key_words *rt_config_key_words(enum rt_config_key key);

/* A file as it stands; which keys were given is known from the index. */
struct rt_config_graphs {
    uint32_t automatic; /* batch_sizes: auto, in the schema that takes the word */
    uint32_t *batch_sizes;
    uint32_t batch_sizes_count;
    uint32_t *query_lens;
    uint32_t query_lens_count;
    uint32_t max_batch;
    uint32_t ring_depth;
};
struct rt_config_sequences {
    uint32_t max;
    uint32_t max_length;
};
struct rt_config_kv_cache {
    enum rt_kv_layout layout;
    uint32_t page_size;
    uint64_t pages;
    double memory;
};
struct rt_config_attention {
    enum rt_backend backend;
    enum rt_tensor_sharing tensors;
};
struct rt_config_file {
    char *model;
    uint32_t tensor_parallel;
    struct rt_geometry geometry;
    char *device;
    struct rt_config_graphs graphs;
    struct rt_config_sequences sequences;
    struct rt_config_kv_cache kv_cache;
    struct rt_config_attention attention;
};

/* libcyaml has no unions, so batch_sizes has two schemas: a list, and the word auto. Both load a
 * struct rt_config_file; an index is built with the list's. Static storage. */
const struct rt_yaml_rules *rt_config_rules(bool automatic_batch_sizes);

#endif
