/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/decode_agree.h"

#include "tools/complain.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

/* A geometry written by hand has a few digits of the scale that a model's is computed from. */
#define AGREES 1e-3

/* Who reads a key; what nobody reads may be anything. */
enum reader { ANYBODY, LAYER, INPUT_NORM, FREQUENCIES, YARN, LONGROPE, FIRST_LENGTH, QUERY_SCALE };

static const char *const types[] = {
    [RT_ROPE_DEFAULT] = "default",
    [RT_ROPE_NONE] = "none",
    [RT_ROPE_YARN] = "yarn",
    [RT_ROPE_LONGROPE] = "longrope",
};
static const char *const orders[] = {
    [RT_ROPE_INTERLEAVED] = "interleaved",
    [RT_ROPE_HALF] = "half",
};
_Static_assert(sizeof(enum rt_rope_type) == sizeof(uint32_t), "words are read as counts");

static const struct key {
    const char *name;
    enum reader reader;
    size_t at; /* in struct rt_config */
    enum { COUNT, NUMBER, FACTOR, FACTORS } kind;
    const char *const *words; /* of a COUNT that stands for one */
} keys[] = {
#define KEY(name, field, reader, kind)                                                             \
    {                                                                                              \
        name, reader, offsetof(struct rt_config, field), kind, NULL                                \
    }
#define WORD(name, field, reader, words)                                                           \
    {                                                                                              \
        name, reader, offsetof(struct rt_config, field), COUNT, words                              \
    }
    KEY("geometry.heads", geometry.heads, ANYBODY, COUNT),
    KEY("geometry.kv_lora_rank", geometry.kv_lora_rank, ANYBODY, COUNT),
    KEY("geometry.qk_rope_head_dim", geometry.qk_rope_head_dim, ANYBODY, COUNT),
    KEY("geometry.layers", geometry.layers, ANYBODY, COUNT),
    KEY("geometry.softmax_scale", geometry.softmax_scale, ANYBODY, NUMBER),
    KEY("block.hidden_size", block.hidden_size, LAYER, COUNT),
    KEY("block.q_lora_rank", block.q_lora_rank, LAYER, COUNT),
    KEY("block.qk_nope_head_dim", block.qk_nope_head_dim, LAYER, COUNT),
    KEY("block.v_head_dim", block.v_head_dim, LAYER, COUNT),
    KEY("block.norm_eps", block.norm_eps, LAYER, NUMBER),
    KEY("block.input_norm_eps", block.input_norm_eps, INPUT_NORM, NUMBER),
    KEY("block.norm_one_plus", block.norm_one_plus, LAYER, COUNT),
    KEY("block.q_a_scale", block.q_a_scale, LAYER, NUMBER),
    KEY("block.kv_a_scale", block.kv_a_scale, LAYER, NUMBER),
    KEY("block.residual_scale", block.residual_scale, INPUT_NORM, NUMBER),
    WORD("rope.type", block.rope.type, LAYER, types),
    WORD("rope.order", block.rope.order, LAYER, orders),
    KEY("rope.theta", block.rope.theta, FREQUENCIES, NUMBER),
    KEY("rope.factor", block.rope.factor, YARN, NUMBER),
    KEY("rope.truncate", block.rope.truncate, YARN, COUNT),
    KEY("rope.beta_fast", block.rope.beta_fast, YARN, NUMBER),
    KEY("rope.beta_slow", block.rope.beta_slow, YARN, NUMBER),
    KEY("rope.attention_factor", block.rope.attention_factor, FREQUENCIES, FACTOR),
    KEY("rope.query_scale_beta", block.rope.query_scale_beta, LAYER, NUMBER),
    KEY("rope.original_max_length", block.rope.original_max_length, FIRST_LENGTH, COUNT),
    KEY("rope.short_factor", block.rope.short_factor, LONGROPE, FACTORS),
    KEY("rope.long_factor", block.rope.long_factor, LONGROPE, FACTORS),
#undef KEY
#undef WORD
};

/* By the model, with which the file agrees in all keys above. */
static bool is_read(enum reader reader, const struct rt_config *file, const struct rt_config *model)
{
    const struct rt_rope *rope = &model->block.rope;
    if (reader == ANYBODY || !file->layer)
        return reader == ANYBODY;
    switch (reader) {
    case INPUT_NORM:
        return file->input_norm;
    case FREQUENCIES:
        return rope->type != RT_ROPE_NONE;
    case YARN:
        return rope->type == RT_ROPE_YARN;
    case LONGROPE:
        return rope->type == RT_ROPE_LONGROPE;
    case FIRST_LENGTH:
        return rope->type == RT_ROPE_YARN || rope->type == RT_ROPE_LONGROPE ||
               rope->query_scale_beta > 0;
    default:
        return true;
    }
}

static uint32_t count_at(const struct rt_config *c, const struct key *key)
{
    return *(const uint32_t *)(const void *)((const char *)c + key->at);
}

/* A factor of 0 is 1. */
static double number_at(const struct rt_config *c, const struct key *key, uint32_t i)
{
    const double value = ((const double *)(const void *)((const char *)c + key->at))[i];
    return key->kind == FACTOR && value == 0 ? 1 : value;
}

static bool agree_in_count(const char *path, const struct key *key, uint32_t file, uint32_t model)
{
    if (file == model)
        return true;
    if (key->words)
        complain("%s: %s is %s, the checkpoint's model has %s: name its config.json by model:",
                 path, key->name, key->words[file], key->words[model]);
    else
        complain("%s: %s is %u, the checkpoint's model has %u: name its config.json by model:",
                 path, key->name, file, model);
    return false;
}

static bool agree_in_number(const char *path, const struct key *key, double file, double model)
{
    if (fabs(file - model) <= AGREES * fabs(model))
        return true;
    complain("%s: %s is %.7g, the checkpoint's model has %.7g: name its config.json by model:",
             path, key->name, file, model);
    return false;
}

static bool agree_in(const char *path, const struct key *key, const struct rt_config *file,
                     const struct rt_config *model)
{
    if (key->kind == COUNT)
        return agree_in_count(path, key, count_at(file, key), count_at(model, key));
    const uint32_t count = key->kind == FACTORS ? model->geometry.qk_rope_head_dim / 2 : 1;
    for (uint32_t i = 0; i < count; i++)
        if (!agree_in_number(path, key, number_at(file, key, i), number_at(model, key, i)))
            return false;
    return true;
}

/* What tensor_parallel: makes of a model's heads. */
static bool has_all_heads(const char *path, uint32_t file, uint32_t model)
{
    if (!file || file >= model || model % file)
        return true;
    complain("%s: it has %u of the %u heads of the checkpoint's model, as tensor_parallel: %u "
             "gives: decode serves a whole model on one device, and no share of one",
             path, file, model, model / file);
    return false;
}

bool decode_agree(const char *path, const struct rt_config *file, const struct rt_model *model)
{
    const struct rt_config mine = {.geometry = model->geometry, .block = model->block};
    if (!has_all_heads(path, file->geometry.heads, mine.geometry.heads))
        return false;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (is_read(keys[i].reader, file, &mine) && !agree_in(path, &keys[i], file, &mine))
            return false;
    return true;
}
