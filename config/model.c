/* SPDX-License-Identifier: Apache-2.0 */
#include "config/model.h"

#include "config/geometry.h"
#include "config/model_schema.h"
#include "config/yaml_load.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Which layers have MLA. */
enum layers_rule {
    LAYERS_ALL = 0,  /* num_hidden_layers */
    LAYERS_TWICE,    /* two attentions in each of num_layers */
    LAYERS_FULL_ONLY /* a hybrid: the others are linear attention */
};

struct family {
    const char *model_type;
    enum layers_rule layers;
};

/* deepseek_v32 and glm_moe_dsa choose tokens by an indexer; here every token is attended. */
static const struct family families[] = {
    {"deepseek_v2", LAYERS_ALL},
    {"deepseek_v3", LAYERS_ALL},
    {"deepseek_v32", LAYERS_ALL},
    {"glm4_moe_lite", LAYERS_ALL},
    {"glm_moe_dsa", LAYERS_ALL},
    {"kimi_k2", LAYERS_ALL},
    {"kimi_linear", LAYERS_FULL_ONLY},
    {"longcat_flash", LAYERS_TWICE},
    {"minicpm3", LAYERS_ALL},
    {"mistral4", LAYERS_ALL},
    {"youtu", LAYERS_ALL},
    {"youtu_llm", LAYERS_ALL},
};
#define FAMILY_COUNT (sizeof(families) / sizeof(families[0]))

/* What the readers below share. */
struct reader {
    const struct rt_yaml_source *source;
    const struct rt_yaml_index *index;
    const struct rt_model_text *text;
    const struct family *family;
    const char *prefix; /* "" or "text_config." */
    struct rt_error *err;
};

/* ---- errors ---------------------------------------------------------------------------------- */

static const struct rt_yaml_node *node_of(const struct reader *r, const char *key)
{
    char path[RT_YAML_PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s%s", r->prefix, key);
    return rt_yaml_find(r->index, path);
}

/* The key is missing, null, or has a value that is not what it must be. */
static enum rt_status fail_key(const struct reader *r, const char *key, const char *must)
{
    const struct rt_yaml_node *node = node_of(r, key);
    const char *type = r->family ? r->family->model_type : "MLA";
    if (!node)
        return rt_fail(r->err, RT_ERR_CONFIG, "%s: %s%s is missing: a %s model must have it, %s",
                       r->source->name, r->prefix, key, type, must);
    return rt_yaml_fail(r->source, node, must, r->err);
}

static enum rt_status need(const struct reader *r, const char *key, const uint32_t *value,
                           uint32_t *out)
{
    if (!value)
        return fail_key(r, key, "an integer, not negative");
    *out = *value;
    return RT_OK;
}

/* ---- family ---------------------------------------------------------------------------------- */

static const struct family *find_family(const struct rt_model_text *text)
{
    for (size_t i = 0; text->model_type && i < FAMILY_COUNT; i++)
        if (strcmp(text->model_type, families[i].model_type) == 0)
            return &families[i];
    return NULL;
}

static enum rt_status fail_family(const struct reader *r)
{
    char must[300] = "one of";
    size_t used = strlen(must);
    for (size_t i = 0; i < FAMILY_COUNT && used < sizeof(must); i++) {
        int wrote = snprintf(must + used, sizeof(must) - used, "%s %s", i ? "," : "",
                             families[i].model_type);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    return fail_key(r, "model_type", must);
}

/* A multimodal model has another type at the top, and its text model below. */
static enum rt_status choose_text(struct reader *r, const struct rt_model_file *file)
{
    r->text = &file->top;
    r->family = find_family(r->text);
    if (!r->family && file->text_config) {
        r->text = file->text_config;
        r->prefix = "text_config.";
        r->family = find_family(r->text);
    }
    return r->family ? RT_OK : fail_family(r);
}

/* ---- layers ---------------------------------------------------------------------------------- */

static enum rt_status count_listed(const struct reader *r, const struct rt_model_linear *linear,
                                   uint32_t layers, uint32_t *out)
{
    char key[64], must[64];
    uint32_t before = 0;
    for (uint32_t i = 0; i < linear->full_attn_layers_count; i++) {
        uint32_t layer = linear->full_attn_layers[i];
        (void)snprintf(key, sizeof(key), "linear_attn_config.full_attn_layers[%u]", i);
        (void)snprintf(must, sizeof(must), "an integer from %llu to num_hidden_layers, %u",
                       (unsigned long long)before + 1, layers);
        if (layer <= before || layer > layers)
            return fail_key(r, key, must);
        before = layer;
    }
    *out = linear->full_attn_layers_count;
    return RT_OK;
}

static enum rt_status count_typed(const struct reader *r, uint32_t layers, uint32_t *out)
{
    char must[64];
    (void)snprintf(must, sizeof(must), "a list of num_hidden_layers, %u, words", layers);
    if (r->text->layer_types_count != layers)
        return fail_key(r, "layer_types", must);
    *out = 0;
    for (uint32_t i = 0; i < layers; i++)
        *out += strcmp(r->text->layer_types[i], "full_attention") == 0;
    return RT_OK;
}

static enum rt_status count_layers(const struct reader *r, uint32_t *out)
{
    const struct rt_model_text *text = r->text;
    uint32_t layers = 0;
    if (r->family->layers == LAYERS_TWICE) {
        RT_TRY(need(r, "num_layers", text->num_layers, &layers));
        if (layers > UINT32_MAX / 2)
            return fail_key(r, "num_layers", "at most 2147483647");
        *out = 2 * layers;
        return RT_OK;
    }
    RT_TRY(need(r, "num_hidden_layers", text->num_hidden_layers, &layers));
    *out = layers;
    if (r->family->layers == LAYERS_ALL)
        return RT_OK;
    if (text->linear_attn_config && text->linear_attn_config->full_attn_layers)
        return count_listed(r, text->linear_attn_config, layers, out);
    if (text->layer_types)
        return count_typed(r, layers, out);
    return fail_key(r, "linear_attn_config.full_attn_layers",
                    "a list of at least one layer, from 1");
}

/* ---- softmax scale --------------------------------------------------------------------------- */

static enum rt_status read_mscale(const struct reader *r, const struct rt_model_rope *rope,
                                  const char *name, double *out)
{
    char key[64];
    const char *type = rope && rope->rope_type ? rope->rope_type : rope ? rope->type : NULL;
    *out = 1.0;
    if (!rope || !rope->mscale_all_dim || *rope->mscale_all_dim == 0.0)
        return RT_OK;
    if (!type) {
        (void)snprintf(key, sizeof(key), "%s.rope_type", name);
        return fail_key(r, key, "the kind of scaling that mscale_all_dim belongs to");
    }
    if (strcmp(type, "default") == 0 || (rope->apply_yarn_scaling && !*rope->apply_yarn_scaling))
        return RT_OK;
    if (!rope->factor || *rope->factor <= 0.0) {
        (void)snprintf(key, sizeof(key), "%s.factor", name);
        return fail_key(r, key, "a number above 0");
    }
    if (*rope->factor > 1.0)
        *out = 0.1 * *rope->mscale_all_dim * log(*rope->factor) + 1.0;
    return RT_OK;
}

static enum rt_status read_scale(const struct reader *r, double *out)
{
    const struct rt_model_text *text = r->text;
    uint32_t nope = 0, rope = 0;
    double mscale = 1.0, older = 1.0;
    RT_TRY(need(r, "qk_nope_head_dim", text->qk_nope_head_dim, &nope));
    RT_TRY(need(r, "qk_rope_head_dim", text->qk_rope_head_dim, &rope));
    RT_TRY(read_mscale(r, text->rope_parameters, "rope_parameters", &mscale));
    RT_TRY(read_mscale(r, text->rope_scaling, "rope_scaling", &older));
    if (text->rope_parameters && text->rope_scaling)
        RT_REQUIRE(mscale == older, r->err, RT_ERR_CONFIG,
                   "%s: %srope_parameters gives the mscale %g and rope_scaling %g: must agree",
                   r->source->name, r->prefix, mscale, older);
    if (!text->rope_parameters)
        mscale = older;
    *out = mscale * mscale / sqrt((double)nope + (double)rope);
    RT_REQUIRE(isfinite(*out) && *out > 0.0, r->err, RT_ERR_GEOMETRY,
               "%s: qk_nope_head_dim %u, qk_rope_head_dim %u and mscale %g give the softmax scale "
               "%g: must be above 0",
               r->source->name, nope, rope, mscale, *out);
    return RT_OK;
}

/* ---- geometry -------------------------------------------------------------------------------- */

static enum rt_status read_geometry(const struct reader *r, struct rt_geometry *out)
{
    const struct rt_yaml_node *rank = node_of(r, "kv_lora_rank");
    struct rt_geometry g = {.heads = 0};
    RT_TRY(need(r, "num_attention_heads", r->text->num_attention_heads, &g.heads));
    RT_TRY(need(r, "kv_lora_rank", r->text->kv_lora_rank, &g.kv_lora_rank));
    RT_TRY(need(r, "qk_rope_head_dim", r->text->qk_rope_head_dim, &g.qk_rope_head_dim));
    RT_TRY(count_layers(r, &g.layers));
    RT_TRY(read_scale(r, &g.softmax_scale));
    RT_REQUIRE(rt_geometry_is_served(g.kv_lora_rank, g.qk_rope_head_dim), r->err, RT_ERR_GEOMETRY,
               "%s:%u: %skv_lora_rank %u with qk_rope_head_dim %u is d_qk/d_v %llu/%u: must be "
               "one of " RT_SERVED_GEOMETRIES,
               r->source->name, rank ? rank->line : 0, r->prefix, g.kv_lora_rank,
               g.qk_rope_head_dim, (unsigned long long)g.kv_lora_rank + g.qk_rope_head_dim,
               g.kv_lora_rank);
    RT_REQUIRE(g.heads >= 1 && g.layers >= 1, r->err, RT_ERR_GEOMETRY,
               "%s: %u heads in %u layers of attention: must be at least 1 of each",
               r->source->name, g.heads, g.layers);
    *out = g;
    return RT_OK;
}

/*
 * JSON writes characters beyond U+FFFF as two escapes, which libyaml refuses one by one. They can
 * only be in texts that nobody looks at here: each becomes the replacement character, in place, so
 * that lines and columns stay.
 */
static void replace_surrogates(char *text, size_t bytes)
{
    bool in_string = false;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '"')
            in_string = !in_string;
        if (!in_string || text[i] != '\\')
            continue;
        if (bytes - i >= 6 && text[i + 1] == 'u' && (text[i + 2] | 0x20) == 'd' &&
            strchr("89abcdefABCDEF", text[i + 3]) && text[i + 3] != '\0')
            memcpy(text + i + 2, "FFFD", 4);
        i++;
    }
}

static enum rt_status parse_clean(const struct rt_yaml_source *source, struct rt_geometry *out,
                                  struct rt_error *err)
{
    enum rt_status status = RT_OK;
    struct rt_yaml_index index;
    void *data = NULL;
    RT_TRY(rt_yaml_index_build(source, rt_model_rules(), &index, err));
    struct reader reader = {.source = source, .index = &index, .prefix = "", .err = err};
    RT_TRY_GOTO(rt_yaml_load(source, rt_model_rules(), &index, &data, err));
    RT_TRY_GOTO(choose_text(&reader, data));
    RT_TRY_GOTO(read_geometry(&reader, out));
fail:
    rt_yaml_unload(rt_model_rules(), data);
    rt_yaml_index_free(&index);
    return status;
}

enum rt_status rt_model_parse(const struct rt_yaml_source *source, struct rt_geometry *out,
                              struct rt_error *err)
{
    char *text = malloc(source->bytes + 1);
    RT_REQUIRE(text, err, RT_ERR_NOMEM, "no memory to load %s", source->name);
    if (source->bytes)
        memcpy(text, source->text, source->bytes);
    replace_surrogates(text, source->bytes);
    struct rt_yaml_source clean = *source;
    clean.text = text;
    enum rt_status status = parse_clean(&clean, out, err);
    free(text);
    return status;
}

enum rt_status rt_model_load(const char *path, struct rt_geometry *out, struct rt_error *err)
{
    struct rt_yaml_source source = {.text = NULL};
    char *text = NULL;
    RT_TRY(rt_text_file_read(path, &text, &source.bytes, err));
    source.text = text;
    rt_file_name(path, source.name);
    enum rt_status status = rt_model_parse(&source, out, err);
    free(text);
    return status;
}
