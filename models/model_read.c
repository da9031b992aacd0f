/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"
#include "models/mapped_file.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *model_type, *family;
    rt_family_read *read;
} families[] = {
    {"deepseek_v2", "deepseek_v2", rt_family_deepseek_v2},
    {"deepseek_v3", "deepseek_v3", rt_family_deepseek_v3},
    {"glm4_moe_lite", "glm4_moe_lite", rt_family_glm4_moe_lite},
    {"minicpm3", "minicpm3", rt_family_minicpm3},
    {"mistral4", "mistral4", rt_family_mistral4},
    {"youtu", "youtu", rt_family_youtu},
    {"youtu_llm", "youtu", rt_family_youtu},
};
#define FAMILY_COUNT (sizeof(families) / sizeof(families[0]))

static size_t find_family(const char *type)
{
    size_t i = 0;
    while (i < FAMILY_COUNT && strcmp(type, families[i].model_type) != 0)
        i++;
    return i;
}

static enum rt_status fail_family(const struct rt_fields *f, struct rt_error *err)
{
    char must[256] = "one of those known:";
    size_t used = strlen(must);
    for (size_t i = 0; i < FAMILY_COUNT && used < sizeof(must); i++)
        used += (size_t)snprintf(must + used, sizeof(must) - used, "%s %s", i ? "," : "",
                                 families[i].model_type);
    return rt_field_refuse(f, "model_type", must, err);
}

/* A model of several kinds of input has its text model below, where that is of a family here. */
static enum rt_status choose(struct rt_fields *f, size_t *family, struct rt_error *err)
{
    static const struct {
        const char *key, *prefix;
    } places[] = {{"text_config", "text_config."}, {"language_config", "language_config."}};
    struct rt_fields below;
    char type[RT_FIELD_WORD_BYTES];
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        bool is_there = false;
        RT_MODELS_TRY(rt_fields_below(f, places[i].key, places[i].prefix, &below, &is_there, err));
        if (!is_there)
            continue;
        RT_MODELS_TRY(rt_field_word(&below, "model_type", "", type, err));
        *family = find_family(type);
        if (*family < FAMILY_COUNT) {
            *f = below;
            return RT_OK;
        }
    }
    RT_MODELS_TRY(rt_field_word(f, "model_type", "", type, err));
    *family = find_family(type);
    return *family < FAMILY_COUNT ? RT_OK : fail_family(f, err);
}

static enum rt_status check_experts(const struct rt_fields *f, const struct rt_model *m,
                                    struct rt_error *err)
{
    char must[96];
    uint32_t layers = 0;
    for (uint32_t layer = 0; layer < m->layers; layer++)
        layers += m->moe_layers[layer];
    if ((uint64_t)layers * m->moe.experts <= RT_FAMILY_MAX_ALL_EXPERTS)
        return RT_OK;
    (void)snprintf(must, sizeof(must), "at most %u in %u layers, %u in all",
                   RT_FAMILY_MAX_ALL_EXPERTS / layers, layers, RT_FAMILY_MAX_ALL_EXPERTS);
    return rt_field_refuse(f, "n_routed_experts", must, err);
}

enum rt_status rt_family_parse(const char *label, const void *text, size_t bytes,
                               struct rt_model *out, struct rt_error *err)
{
    struct rt_fields f;
    struct rt_model m = {.struct_size = sizeof(m)};
    size_t family = 0;
    RT_MODELS_TRY(rt_fields_open(&f, label, text, bytes, err));
    RT_MODELS_TRY(choose(&f, &family, err));
    (void)snprintf(m.family, sizeof(m.family), "%s", families[family].family);
    RT_MODELS_TRY(families[family].read(&f, &m, err));
    RT_MODELS_TRY(check_experts(&f, &m, err));
    *out = m;
    return RT_OK;
}

/* Attention is read from the same file by who knows all that is said of it. What the families have
 * not refused with its line, and no runtime takes, is refused here. */
static enum rt_status add_attention(const char *path, const char *label, struct rt_model *m,
                                    struct rt_error *err)
{
    struct rt_config config;
    struct rt_error story = {.status = RT_OK};
    rt_config_default(&config);
    RT_MODELS_TRY(rt_config_model(path, &config, err));
    RT_MODELS_REQUIRE(config.geometry.layers == m->layers &&
                          config.block.hidden_size == m->hidden_size,
                      err, RT_ERR_FILE, "%s was changed while it was read", path);
    config.layer = 1;
    (void)snprintf(config.device, sizeof(config.device), "host");
    const enum rt_status status = rt_config_check(&config, &story);
    RT_MODELS_REQUIRE(status == RT_OK, err, status, "%s: %s", label, story.message);
    m->geometry = config.geometry;
    m->block = config.block;
    return RT_OK;
}

enum rt_status rt_model_read(const char *path, struct rt_model *out, struct rt_error *error)
{
    char file[RT_PATH_BYTES], label[RT_PATH_LABEL_BYTES];
    struct rt_mapped_file text;
    struct rt_model m;
    RT_MODELS_REQUIRE(path, error, RT_ERR_INVALID, "rt_model_read: path is null");
    RT_MODELS_TRY(rt_models_check_struct(out, sizeof(*out), "rt_model_read", "out", error));
    if (rt_path_is_folder(path)) {
        RT_MODELS_TRY(rt_path_join(path, "config.json", file, error));
        path = file;
    }
    rt_path_label(path, label);
    RT_MODELS_TRY(rt_mapped_file_open(path, &text, error));
    const enum rt_status status = rt_family_parse(label, text.data, text.bytes, &m, error);
    rt_mapped_file_close(&text);
    if (status != RT_OK)
        return status;
    RT_MODELS_TRY(add_attention(path, label, &m, error));
    rt_models_write_struct(out, &m, sizeof(m));
    return RT_OK;
}
