/* SPDX-License-Identifier: Apache-2.0 */
#include "config/model.h"

#include "config/geometry.h"
#include "config/model_text.h"
#include "config/tree_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* deepseek_v32, glm_moe_dsa, glm5_next and hy_v4 choose tokens by an indexer; here every token is
 * attended. Models of several kinds of input have one of these inside. */
static const struct rt_model_family families[] = {
    {"deepseek_v2", .architecture = "DeepseekV2For"},
    {"deepseek_v3", .architecture = "DeepseekV3For"},
    {"deepseek_v32", .architecture = "DeepseekV32For"},
    {"AXK1"},
    {"axk1"},
    {"bailing_hybrid", .layers = RT_LAYERS_GROUPED},
    {"gigachat3_5", .layers = RT_LAYERS_FULL, .numbers = RT_NUMBERS_FROM_0,
     .mscale = RT_MSCALE_YARN, .no_block = "a gate on its attention's output"},
    {"glm4_moe_lite"},
    {"glm5_next", .layers = RT_LAYERS_FULL, .numbers = RT_NUMBERS_FROM_ANY},
    {"glm5_next_text", .layers = RT_LAYERS_FULL, .numbers = RT_NUMBERS_FROM_ANY},
    {"glm_moe_dsa"},
    {"hy_v4", .mscale = RT_MSCALE_NEVER, .no_block = "a sink and a gate on its attention's output"},
    {"joyai_llm_flash"},
    {"kimi_k2"},
    {"kimi_linear", .layers = RT_LAYERS_FULL},
    {"longcat_flash", .architecture = "Longcat", .layers = RT_LAYERS_TWICE},
    {"longcat_flash_ngram", .layers = RT_LAYERS_TWICE},
    {"longcat_flash_sparse", .layers = RT_LAYERS_TWICE},
    {"longcat_next", .layers = RT_LAYERS_TWICE},
    {"minicpm3", .is_half = true, .scales_depth = true},
    {"mistral4"},
    {"pangu_ultra_moe"},
    {"sarvam_mla"},
    {"youtu"},
    {"youtu_llm"},
};
#define FAMILY_COUNT (sizeof(families) / sizeof(families[0]))

/* ---- family ---------------------------------------------------------------------------------- */

enum outer_key { MODEL_TYPE = 0, ARCHITECTURES, TEXT_CONFIG, LANGUAGE_CONFIG, OUTER_KEY_COUNT };

static const struct rt_pick outer_keys[OUTER_KEY_COUNT] = {
    [MODEL_TYPE] = {"model_type", RT_PICK_TEXT},
    [ARCHITECTURES] = {"architectures", RT_PICK_TEXTS},
    [TEXT_CONFIG] = {"text_config", RT_PICK_MAPPING},
    [LANGUAGE_CONFIG] = {"language_config", RT_PICK_MAPPING},
};

static const struct rt_model_family *find_family(const struct rt_node *const *given)
{
    const struct rt_node *list = given[ARCHITECTURES];
    const char *type = rt_pick_text(given[MODEL_TYPE]);
    const char *class = rt_pick_is_given(list) && list->first ? list->first->text : "";
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        const char *start = families[i].architecture;
        if (strcmp(type, families[i].model_type) == 0 ||
            (!rt_pick_is_given(given[MODEL_TYPE]) && start &&
             strncmp(class, start, strlen(start)) == 0))
            return &families[i];
    }
    return NULL;
}

/* The way out comes first: behind long paths the end of so long a list would be cut off. */
static enum rt_status fail_family(const struct rt_model_text *text, const struct rt_node *node,
                                  struct rt_error *err)
{
    char must[480] = "one of those known (another MLA model is given by geometry: in place of "
                     "model:), which are";
    size_t used = strlen(must);
    for (size_t i = 0; i < FAMILY_COUNT && used < sizeof(must); i++) {
        int wrote = snprintf(must + used, sizeof(must) - used, "%s %s", i ? "," : "",
                             families[i].model_type);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    return rt_model_fail(text, node, outer_keys[MODEL_TYPE].key, must, err);
}

/* A model of several kinds of input has a type of its own at the top, and its text model below. */
static enum rt_status choose_text(struct rt_model_text *text, const struct rt_node *root,
                                  const struct rt_node **chosen, struct rt_error *err)
{
    const struct rt_node *outer[OUTER_KEY_COUNT], *inner[OUTER_KEY_COUNT];
    text->prefix = "";
    RT_TRY(rt_pick(text->source, root, "", outer_keys, OUTER_KEY_COUNT, outer, err));
    bool is_language = !rt_pick_is_given(outer[TEXT_CONFIG]);
    const struct rt_node *below = outer[is_language ? LANGUAGE_CONFIG : TEXT_CONFIG];
    const struct rt_node *type = outer[MODEL_TYPE];
    text->family = find_family(outer);
    text->whole_type = rt_pick_text(type);
    *chosen = root;
    if (rt_pick_is_given(below)) {
        const char *prefix = is_language ? "language_config." : "text_config.";
        RT_TRY(rt_pick(text->source, below, prefix, outer_keys, OUTER_KEY_COUNT, inner, err));
        const struct rt_model_family *family = find_family(inner);
        if (family || !text->family) {
            text->prefix = prefix;
            text->family = family;
            type = inner[MODEL_TYPE];
            *chosen = below;
        }
    }
    return text->family ? RT_OK : fail_family(text, type, err);
}

/* ---- geometry -------------------------------------------------------------------------------- */

static enum rt_status read_geometry(const struct rt_model_text *text, struct rt_geometry *out,
                                    struct rt_error *err)
{
    struct rt_geometry g = {.heads = 0};
    uint32_t nope = 0;
    const struct rt_node *rank = text->given[rt_model_name_of(text, RT_MODEL_RANK)];
    RT_TRY(rt_model_need(text, RT_MODEL_HEADS, &g.heads, err));
    RT_TRY(rt_model_need(text, rt_model_name_of(text, RT_MODEL_RANK), &g.kv_lora_rank, err));
    RT_TRY(
        rt_model_need(text, rt_model_name_of(text, RT_MODEL_ROPE_DIM), &g.qk_rope_head_dim, err));
    RT_TRY(rt_model_count_layers(text, &g.layers, err));
    RT_TRY(rt_model_need(text, rt_model_name_of(text, RT_MODEL_NOPE_DIM), &nope, err));
    RT_TRY(rt_model_scale(text, nope, g.qk_rope_head_dim, &g.softmax_scale, err));
    RT_TRY(rt_model_check_attention(text, (uint64_t)nope + g.qk_rope_head_dim, err));
    RT_REQUIRE(
        rt_geometry_is_served(g.kv_lora_rank, g.qk_rope_head_dim), err, RT_ERR_GEOMETRY,
        "%s:%u: %s%s %u with %s %u is d_qk/d_v %llu/%u: must be one of " RT_SERVED_GEOMETRIES,
        text->source->name, rank ? rank->line : 0, text->prefix, rank ? rank->key : "",
        g.kv_lora_rank, rt_model_keys[rt_model_name_of(text, RT_MODEL_ROPE_DIM)].key,
        g.qk_rope_head_dim, (unsigned long long)g.kv_lora_rank + g.qk_rope_head_dim,
        g.kv_lora_rank);
    RT_REQUIRE(g.heads >= 1 && g.layers >= 1, err, RT_ERR_GEOMETRY,
               "%s: %u heads in %u layers of attention: must be at least 1 of each",
               text->source->name, g.heads, g.layers);
    *out = g;
    return RT_OK;
}

static enum rt_status read_root(const struct rt_source *source, const struct rt_node *root,
                                struct rt_geometry *out, struct rt_block *block,
                                struct rt_error *err)
{
    struct rt_model_text text = {.source = source};
    const struct rt_node *chosen = NULL;
    RT_TRY(choose_text(&text, root, &chosen, err));
    RT_TRY(
        rt_pick(source, chosen, text.prefix, rt_model_keys, RT_MODEL_KEY_COUNT, text.given, err));
    if (!rt_pick_boolean(text.given[RT_MODEL_USE_MLA], true))
        return rt_model_fail(&text, text.given[RT_MODEL_USE_MLA],
                             rt_model_keys[RT_MODEL_USE_MLA].key,
                             "true: without it the attention is not MLA", err);
    struct rt_geometry g = {.heads = 0};
    RT_TRY(read_geometry(&text, &g, err));
    if (block)
        RT_TRY(rt_model_block(&text, &g, block, err));
    *out = g;
    return RT_OK;
}

enum rt_status rt_model_parse(const struct rt_source *source, struct rt_geometry *out,
                              struct rt_block *block, struct rt_error *err)
{
    struct rt_tree tree;
    RT_TRY(rt_tree_read(source, &tree, err));
    enum rt_status status = read_root(source, tree.root, out, block, err);
    rt_tree_free(&tree);
    return status;
}

enum rt_status rt_model_load(const char *path, struct rt_geometry *out, struct rt_block *block,
                             struct rt_error *err)
{
    struct rt_source source = {.text = NULL};
    char *text = NULL;
    char *file = rt_path_within(path, "config.json");
    RT_REQUIRE(file, err, RT_ERR_NOMEM, "no memory for the path of a model");
    rt_file_name(file, source.name);
    enum rt_status status = rt_text_file_read(file, &text, &source.bytes, err);
    source.text = text;
    if (status == RT_OK)
        status = rt_model_parse(&source, out, block, err);
    free(text);
    free(file);
    return status;
}
