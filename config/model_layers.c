/* SPDX-License-Identifier: Apache-2.0 */
#include "config/model_text.h"

#include <stdio.h>
#include <string.h>

/* A list that need not begin at one end of the layers: 0 and the number of layers cannot both be
 * the number of one, all else can. */
static enum rt_status count_listed(const struct rt_model_text *text, const struct rt_node *list,
                                   const char *path, uint32_t layers, uint32_t *out,
                                   struct rt_error *err)
{
    char key[80], must[80];
    enum rt_model_numbers numbers = text->family->numbers;
    uint64_t least = numbers == RT_NUMBERS_FROM_1 ? 1 : 0;
    uint64_t most = numbers == RT_NUMBERS_FROM_0 ? (uint64_t)layers - 1 : layers;
    uint32_t i = 0;
    if (list->count == 0)
        return rt_fail(err, RT_ERR_CONFIG,
                       "%s:%u: %s%s is an empty list: must be a list of at least one layer, from "
                       "%llu",
                       text->source->name, list->line, text->prefix, path,
                       (unsigned long long)least);
    for (const struct rt_node *n = list->first; n; n = n->next, i++) {
        uint32_t layer = rt_pick_count(n);
        if (i == 0 && layer == 0 && layers > 0)
            most = (uint64_t)layers - 1;
        (void)snprintf(key, sizeof(key), "%s[%u]", path, i);
        (void)snprintf(must, sizeof(must), "an integer from %llu to %llu, of num_hidden_layers %u",
                       (unsigned long long)least, (unsigned long long)most, layers);
        if (layer < least || layer > most || layers == 0)
            return rt_model_fail(text, n, key, must, err);
        least = (uint64_t)layer + 1;
    }
    *out = list->count;
    return RT_OK;
}

static bool is_latent(const struct rt_node *word)
{
    return strcmp(word->text, "full_attention") == 0 ||
           strcmp(word->text, "deepseek_sparse_attention") == 0;
}

/* All layers have MLA, and a list of their kinds may say so. */
static enum rt_status check_all(const struct rt_model_text *text, const struct rt_node *list,
                                struct rt_error *err)
{
    char key[32];
    uint32_t i = 0;
    for (const struct rt_node *n = list->first; n; n = n->next, i++) {
        (void)snprintf(key, sizeof(key), "layer_types[%u]", i);
        if (!is_latent(n))
            return rt_model_fail(text, n, key, "full_attention or deepseek_sparse_attention", err);
    }
    return RT_OK;
}

static enum rt_status count_typed(const struct rt_model_text *text, const struct rt_node *list,
                                  uint32_t layers, uint32_t *out, struct rt_error *err)
{
    char key[32];
    uint32_t i = 0;
    RT_REQUIRE(
        list->count == layers, err, RT_ERR_CONFIG,
        "%s:%u: %slayer_types is a list of %u: must be a list of num_hidden_layers, %u, words",
        text->source->name, list->line, text->prefix, list->count, layers);
    *out = 0;
    for (const struct rt_node *n = list->first; n; n = n->next, i++) {
        (void)snprintf(key, sizeof(key), "layer_types[%u]", i);
        if (!is_latent(n) && strcmp(n->text, "linear_attention") != 0)
            return rt_model_fail(
                text, n, key, "full_attention, deepseek_sparse_attention or linear_attention", err);
        *out += is_latent(n);
    }
    return RT_OK;
}

static enum rt_status count_grouped(const struct rt_model_text *text, uint32_t layers,
                                    uint32_t *out, struct rt_error *err)
{
    uint32_t size = 0;
    RT_TRY(rt_model_need(text, RT_MODEL_GROUP_SIZE, &size, err));
    if (size == 0)
        return rt_model_fail(text, text->given[RT_MODEL_GROUP_SIZE], "layer_group_size",
                             "an integer, above 0", err);
    *out = layers / size + layers % size;
    return RT_OK;
}

/* By a list of their numbers, else by the types of all. */
static enum rt_status count_full(const struct rt_model_text *text, uint32_t layers, uint32_t *out,
                                 struct rt_error *err)
{
    static const struct rt_pick key = {"full_attn_layers", RT_PICK_COUNTS};
    static const char inner[] = "linear_attn_config.full_attn_layers";
    const struct rt_node *linear = text->given[RT_MODEL_LINEAR], *below = NULL;
    const struct rt_node *list = text->given[RT_MODEL_FULL_LAYERS];
    const struct rt_node *type = text->given[RT_MODEL_LINEAR_TYPE];
    char path[64];
    if (type && !rt_pick_is_given(type))
        return RT_OK; /* GigaChat's word for a model that has no linear layers */
    if (rt_pick_is_given(linear)) {
        (void)snprintf(path, sizeof(path), "%slinear_attn_config.", text->prefix);
        RT_TRY(rt_pick(text->source, linear, path, &key, 1, &below, err));
    }
    if (rt_pick_is_given(below))
        return count_listed(text, below, inner, layers, out, err);
    if (rt_pick_is_given(list))
        return count_listed(text, list, list->key, layers, out, err);
    if (rt_pick_is_given(text->given[RT_MODEL_LAYER_TYPES]))
        return count_typed(text, text->given[RT_MODEL_LAYER_TYPES], layers, out, err);
    return rt_model_fail(text, NULL, inner,
                         "a list of at least one layer, or have full_attention_layers or "
                         "layer_types",
                         err);
}

static enum rt_status count_twice(const struct rt_model_text *text, uint32_t *out,
                                  struct rt_error *err)
{
    bool has_name = rt_pick_is_given(text->given[RT_MODEL_LAYERS]) ||
                    !rt_pick_is_given(text->given[RT_MODEL_HIDDEN_LAYERS]);
    enum rt_model_key id = has_name ? RT_MODEL_LAYERS : RT_MODEL_HIDDEN_LAYERS;
    uint32_t layers = 0;
    RT_TRY(rt_model_need(text, id, &layers, err));
    if (layers > UINT32_MAX / 2)
        return rt_model_fail(text, text->given[id], rt_model_key_name(id), "at most 2147483647",
                             err);
    *out = 2 * layers;
    return RT_OK;
}

enum rt_status rt_model_count_layers(const struct rt_model_text *text, uint32_t *out,
                                     struct rt_error *err)
{
    uint32_t layers = 0;
    if (text->family->layers == RT_LAYERS_TWICE)
        return count_twice(text, out, err);
    RT_TRY(rt_model_need(text, RT_MODEL_HIDDEN_LAYERS, &layers, err));
    *out = layers;
    if (text->family->layers == RT_LAYERS_FULL)
        return count_full(text, layers, out, err);
    if (text->family->layers == RT_LAYERS_GROUPED)
        return rt_pick_is_given(text->given[RT_MODEL_LAYER_TYPES])
                   ? count_typed(text, text->given[RT_MODEL_LAYER_TYPES], layers, out, err)
                   : count_grouped(text, layers, out, err);
    return rt_pick_is_given(text->given[RT_MODEL_LAYER_TYPES])
               ? check_all(text, text->given[RT_MODEL_LAYER_TYPES], err)
               : RT_OK;
}
