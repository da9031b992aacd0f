/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config.h"
#include "config/ladder.h"
#include "config/model.h"
#include "config/yaml_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct rt_yaml_node *node_of(const struct rt_yaml_index *index, enum rt_config_key key)
{
    return rt_yaml_find(index, rt_config_key_words(key)->key);
}

static bool is_given(const struct rt_yaml_index *index, enum rt_config_key key)
{
    return node_of(index, key) != NULL;
}

/* ---- a file's values into the configuration -------------------------------------------------- */

/* Keys that exclude or need one another. */
static enum rt_status check_keys(const struct rt_yaml_source *source,
                                 const struct rt_yaml_index *index, bool automatic,
                                 struct rt_error *err)
{
    const struct rt_yaml_node *model = node_of(index, RT_KEY_MODEL);
    const struct rt_yaml_node *geometry = node_of(index, RT_KEY_GEOMETRY);
    const struct rt_yaml_node *parallel = node_of(index, RT_KEY_TENSOR_PARALLEL);
    const struct rt_yaml_node *sizes = node_of(index, RT_KEY_BATCH_SIZES);
    const struct rt_yaml_node *max_batch = node_of(index, RT_KEY_MAX_BATCH);
    const struct rt_yaml_node *pages = node_of(index, RT_KEY_PAGES);
    RT_REQUIRE(model || geometry, err, RT_ERR_CONFIG,
               "%s: neither model nor geometry is given: must be one of them", source->name);
    RT_REQUIRE(!model || !geometry, err, RT_ERR_CONFIG,
               "%s:%u: geometry is given beside model (line %u): must be one of them", source->name,
               geometry ? geometry->line : 0, model ? model->line : 0);
    RT_REQUIRE(model || !parallel, err, RT_ERR_CONFIG,
               "%s:%u: tensor_parallel is %s without model: geometry.heads are one GPU's already",
               source->name, parallel ? parallel->line : 0, parallel ? parallel->value : "");
    RT_REQUIRE(!automatic || max_batch, err, RT_ERR_CONFIG,
               "%s:%u: graphs.batch_sizes is auto without graphs.max_batch: must have it, %s",
               source->name, sizes ? sizes->line : 0, rt_config_key_words(RT_KEY_MAX_BATCH)->must);
    RT_REQUIRE(automatic || !max_batch, err, RT_ERR_CONFIG,
               "%s:%u: graphs.max_batch is %s without graphs.batch_sizes: auto, must go with it",
               source->name, max_batch ? max_batch->line : 0, max_batch ? max_batch->value : "");
    RT_REQUIRE(!pages || !is_given(index, RT_KEY_MEMORY), err, RT_ERR_CONFIG,
               "%s:%u: kv_cache.pages is %s beside kv_cache.memory: must be one of them",
               source->name, pages ? pages->line : 0, pages ? pages->value : "");
    return RT_OK;
}

/* What struct rt_config cannot hold, so that rt_config_find_fault would not see it. */
static enum rt_status check_values(const struct rt_yaml_source *source,
                                   const struct rt_yaml_index *index,
                                   const struct rt_config_file *file, struct rt_error *err)
{
    const struct {
        enum rt_config_key key;
        bool fits;
    } checks[] = {
        {RT_KEY_DEVICE,
         !file->device || strlen(file->device) < sizeof(((struct rt_config *)0)->device)},
        {RT_KEY_TENSOR_PARALLEL, file->tensor_parallel >= 1 && file->tensor_parallel <= 1024},
        {RT_KEY_MAX_BATCH, file->graphs.max_batch >= 1 && file->graphs.max_batch <= RT_MAX_BATCH},
        {RT_KEY_PAGES, file->kv_cache.pages >= 1},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        const struct rt_yaml_node *node = node_of(index, checks[i].key);
        if (node && !checks[i].fits)
            return rt_yaml_fail(source, node, NULL, err);
    }
    return RT_OK;
}

/* The schema has bounded the lists' lengths. */
static void apply_graphs(const struct rt_config_graphs *graphs, const struct rt_yaml_index *index,
                         struct rt_config *config)
{
    if (graphs->batch_sizes) {
        config->batch_size_count = graphs->batch_sizes_count;
        memcpy(config->batch_sizes, graphs->batch_sizes,
               graphs->batch_sizes_count * sizeof(*graphs->batch_sizes));
    } else if (graphs->automatic) {
        config->batch_size_count = rt_config_ladder(graphs->max_batch, config->batch_sizes);
    }
    if (graphs->query_lens) {
        config->query_len_count = graphs->query_lens_count;
        memcpy(config->query_lens, graphs->query_lens,
               graphs->query_lens_count * sizeof(*graphs->query_lens));
    }
    if (is_given(index, RT_KEY_RING_DEPTH))
        config->ring_depth = graphs->ring_depth;
}

/* Only what is given: the rest keeps its default. */
static void apply(const struct rt_config_file *file, const struct rt_yaml_index *index,
                  struct rt_config *config)
{
    if (is_given(index, RT_KEY_GEOMETRY))
        config->geometry = file->geometry;
    if (file->device) {
        memset(config->device, 0, sizeof(config->device));
        memcpy(config->device, file->device, strlen(file->device));
    }
    apply_graphs(&file->graphs, index, config);
    if (is_given(index, RT_KEY_MAX_SEQUENCES))
        config->max_sequences = file->sequences.max;
    if (is_given(index, RT_KEY_MAX_LENGTH))
        config->max_length = file->sequences.max_length;
    if (is_given(index, RT_KEY_LAYOUT))
        config->kv_layout = file->kv_cache.layout;
    if (is_given(index, RT_KEY_PAGE_SIZE))
        config->page_size = file->kv_cache.page_size;
    if (is_given(index, RT_KEY_PAGES))
        config->pages = file->kv_cache.pages;
    if (is_given(index, RT_KEY_MEMORY))
        config->memory_fraction = file->kv_cache.memory;
    if (is_given(index, RT_KEY_BACKEND))
        config->backend = file->attention.backend;
    if (is_given(index, RT_KEY_TENSORS))
        config->tensors = file->attention.tensors;
}

/* ---- draft ----------------------------------------------------------------------------------- */

static enum rt_status fill_draft(const struct rt_yaml_source *source,
                                 const struct rt_config_file *file, bool automatic,
                                 struct rt_config_draft *draft, struct rt_error *err)
{
    RT_TRY(check_keys(source, &draft->index, automatic, err));
    RT_TRY(check_values(source, &draft->index, file, err));
    apply(file, &draft->index, &draft->config);
    if (is_given(&draft->index, RT_KEY_TENSOR_PARALLEL))
        draft->tensor_parallel = file->tensor_parallel;
    if (file->model) {
        draft->model_path = rt_path_beside("", file->model);
        RT_REQUIRE(draft->model_path, err, RT_ERR_NOMEM, "no memory to load %s", source->name);
    }
    return RT_OK;
}

enum rt_status rt_config_draft_parse(const struct rt_yaml_source *source,
                                     struct rt_config_draft *draft, struct rt_error *err)
{
    enum rt_status status = RT_OK;
    void *file = NULL;
    *draft = (struct rt_config_draft){.tensor_parallel = 1};
    rt_config_default(&draft->config);
    RT_TRY(rt_yaml_index_build(source, rt_config_rules(false), &draft->index, err));
    const struct rt_yaml_node *sizes = node_of(&draft->index, RT_KEY_BATCH_SIZES);
    bool automatic = sizes && sizes->kind == RT_YAML_SCALAR;
    const struct rt_yaml_rules *rules = rt_config_rules(automatic);
    RT_TRY_GOTO(rt_yaml_load(source, rules, &draft->index, &file, err));
    RT_TRY_GOTO(fill_draft(source, file, automatic, draft, err));
    rt_yaml_unload(rules, file);
    return RT_OK;
fail:
    rt_yaml_unload(rules, file);
    rt_config_draft_free(draft);
    return status;
}

void rt_config_draft_free(struct rt_config_draft *draft)
{
    free(draft->model_path);
    draft->model_path = NULL;
    rt_yaml_index_free(&draft->index);
}

static enum rt_status fail_fault(const struct rt_yaml_source *source,
                                 const struct rt_yaml_index *index,
                                 const struct rt_config_fault *fault, struct rt_error *err)
{
    char path[RT_YAML_PATH_BYTES];
    const char *key = rt_config_key_words(fault->key)->key;
    int length = snprintf(path, sizeof(path), "%s", key);
    if (fault->element >= 0 && length > 0 && (size_t)length < sizeof(path))
        (void)snprintf(path + length, sizeof(path) - (size_t)length, "[%d]", fault->element);
    const struct rt_yaml_node *node = rt_yaml_find(index, path);
    if (!node)
        return rt_fail(err, fault->status, "%s: %s is %s: must be %s", source->name, path,
                       fault->value, fault->must);
    return rt_fail(err, fault->status, "%s:%u: %s is %s: must be %s", source->name, node->line,
                   path, fault->value, fault->must);
}

/* One GPU's share of the model's heads. */
static enum rt_status split_heads(const struct rt_yaml_source *source,
                                  const struct rt_config_draft *draft, uint32_t heads,
                                  uint32_t *out, struct rt_error *err)
{
    const struct rt_yaml_node *node = node_of(&draft->index, RT_KEY_TENSOR_PARALLEL);
    if (!node)
        node = node_of(&draft->index, RT_KEY_MODEL);
    uint32_t line = node ? node->line : 0;
    uint32_t ways = draft->tensor_parallel;
    RT_REQUIRE(heads % ways == 0, err, RT_ERR_CONFIG,
               "%s:%u: tensor_parallel is %u: must divide the %u heads of the model", source->name,
               line, ways, heads);
    RT_REQUIRE(heads / ways <= RT_MAX_HEADS, err, RT_ERR_GEOMETRY,
               "%s:%u: the model's %u heads over tensor_parallel %u are %u on this GPU: must be at "
               "most %d",
               source->name, line, heads, ways, heads / ways, RT_MAX_HEADS);
    *out = heads / ways;
    return RT_OK;
}

enum rt_status rt_config_draft_finish(const struct rt_yaml_source *source,
                                      const struct rt_config_draft *draft,
                                      const struct rt_geometry *model, struct rt_config *out,
                                      struct rt_error *err)
{
    struct rt_config_fault fault = {.element = -1};
    struct rt_config config = draft->config;
    if (model) {
        config.geometry = *model;
        RT_TRY(split_heads(source, draft, model->heads, &config.geometry.heads, err));
    }
    if (rt_config_find_fault(&config, &fault))
        return fail_fault(source, &draft->index, &fault, err);
    *out = config;
    return RT_OK;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* The story of the model's file, told from the line that names it. */
static enum rt_status load_model(const char *path, const struct rt_yaml_source *source,
                                 const struct rt_config_draft *draft, struct rt_geometry *out,
                                 struct rt_error *err)
{
    struct rt_error story = {.status = RT_OK};
    const struct rt_yaml_node *node = node_of(&draft->index, RT_KEY_MODEL);
    char *model_path = rt_path_beside(path, draft->model_path);
    RT_REQUIRE(model_path, err, RT_ERR_NOMEM, "no memory to load %s", source->name);
    enum rt_status status = rt_model_load(model_path, out, &story);
    free(model_path);
    if (status != RT_OK)
        return rt_fail(err, status, "%s:%u: model: %s", source->name, node ? node->line : 0,
                       story.message);
    return RT_OK;
}

static enum rt_status load_source(const char *path, const struct rt_yaml_source *source,
                                  struct rt_config *config, struct rt_error *err)
{
    struct rt_config_draft draft;
    struct rt_geometry model;
    enum rt_status status = RT_OK;
    RT_TRY(rt_config_draft_parse(source, &draft, err));
    if (draft.model_path)
        RT_TRY_GOTO(load_model(path, source, &draft, &model, err));
    RT_TRY_GOTO(
        rt_config_draft_finish(source, &draft, draft.model_path ? &model : NULL, config, err));
fail:
    rt_config_draft_free(&draft);
    return status;
}

enum rt_status rt_config_load(const char *path, struct rt_config *config, struct rt_error *error)
{
    struct rt_yaml_source source = {.text = NULL};
    char *text = NULL;
    RT_REQUIRE(path, error, RT_ERR_INVALID, "path is null: must name a configuration file");
    RT_REQUIRE(config, error, RT_ERR_INVALID, "config is null: must point to a struct rt_config");
    RT_TRY(rt_text_file_read(path, &text, &source.bytes, error));
    source.text = text;
    rt_file_name(path, source.name);
    enum rt_status status = load_source(path, &source, config, error);
    free(text);
    return status;
}
