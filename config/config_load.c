/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config.h"
#include "config/ladder.h"
#include "config/model.h"
#include "config/scalar.h"
#include "config/suggest.h"
#include "config/tree_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 80
#define NAMES_BYTES 200

struct reader {
    const struct rt_source *source;
    struct rt_config_draft *draft;
    struct rt_error *err;
};

/* ---- names ----------------------------------------------------------------------------------- */

/* "" or "graphs": the key's name there, which is a section's where it lies deeper; false where it
 * does not lie there, or in a section that the key before it has named. */
static bool name_in(enum rt_key_id id, const char *section, char out[PATH_BYTES])
{
    const char *path = rt_key_of(id)->path;
    size_t length = strlen(section);
    if (length > 0 && (strncmp(path, section, length) != 0 || path[length] != '.'))
        return false;
    if (length > 0)
        path += length + 1;
    size_t bytes = strcspn(path, ".");
    if (path[bytes] == '.' && id > 0 &&
        strncmp(rt_key_of((enum rt_key_id)(id - 1))->path, path, bytes + 1) == 0)
        return false;
    (void)snprintf(out, PATH_BYTES, "%.*s", (int)bytes, path);
    return true;
}

static void list_names(const char *section, char out[NAMES_BYTES])
{
    char name[PATH_BYTES];
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t id = 0; id < RT_KEY_COUNT && used < NAMES_BYTES; id++) {
        if (!name_in((enum rt_key_id)id, section, name))
            continue;
        int wrote = snprintf(out + used, NAMES_BYTES - used, "%s%s", used ? ", " : "", name);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

static bool is_section(const char *name)
{
    char first[PATH_BYTES];
    for (uint32_t id = 0; id < RT_KEY_COUNT; id++)
        if (name_in((enum rt_key_id)id, name, first))
            return true;
    return false;
}

/* The key of exactly this name one level down: it was written one level too high, or with a dot in
 * place of the section. Else the nearest name of the same mapping, if near enough to be a slip of
 * the finger. "": neither. */
static void suggest(const char *section, const char *key, char out[PATH_BYTES])
{
    char name[PATH_BYTES];
    uint32_t nearest = (uint32_t)strlen(key) / 3 + 2;
    out[0] = '\0';
    for (uint32_t id = 0; id < RT_KEY_COUNT; id++) {
        const char *path = rt_key_of((enum rt_key_id)id)->path;
        const char *dot = strchr(path, '.');
        if (section[0] == '\0' && dot && (strcmp(dot + 1, key) == 0 || strcmp(path, key) == 0)) {
            (void)snprintf(out, PATH_BYTES, "%.*s: {%s: ...}", (int)(dot - path), path, dot + 1);
            return;
        }
        if (!name_in((enum rt_key_id)id, section, name) || rt_edit_distance(key, name) >= nearest)
            continue;
        nearest = rt_edit_distance(key, name);
        (void)snprintf(out, PATH_BYTES, "%s", name);
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

/* About the value at `line`. */
static enum rt_status fail_value(const struct rt_source *source, uint32_t line, const char *path,
                                 const struct rt_key_fault *fault, struct rt_error *err)
{
    char element[16] = "";
    if (fault->element >= 0)
        (void)snprintf(element, sizeof(element), "[%d]", fault->element);
    if (line == 0)
        return rt_fail(err, fault->status, "%s: %s%s is %s: must be %s", source->name, path,
                       element, fault->value, fault->must);
    return rt_fail(err, fault->status, "%s:%u: %s%s is %s: must be %s", source->name, line, path,
                   element, fault->value, fault->must);
}

/* In the line of the value, or of its element; without one where the file does not give it. */
static enum rt_status fail_fault(const struct rt_source *source,
                                 const struct rt_config_draft *draft,
                                 const struct rt_key_fault *fault, struct rt_error *err)
{
    const struct rt_node *node = draft->given[fault->id];
    const struct rt_node *child = node ? node->first : NULL;
    for (int32_t i = 0; child && i < fault->element; i++)
        child = child->next;
    if (child && fault->element >= 0)
        node = child;
    return fail_value(source, node ? node->line : 0, rt_key_of(fault->id)->path, fault, err);
}

static enum rt_status fail_unknown(const struct reader *r, const char *section,
                                   const struct rt_node *member)
{
    char key[RT_NODE_SHOWN_BYTES], names[NAMES_BYTES], near[PATH_BYTES];
    rt_text_show(member->key, member->key_bytes, key);
    list_names(section, names);
    suggest(section, key, near);
    return rt_fail(r->err, RT_ERR_CONFIG, "%s:%u: unknown key %s%s%s%s%s%s: valid here are %s",
                   r->source->name, member->key_line, section, section[0] ? "." : "", key,
                   near[0] ? " (did you mean " : "", near, near[0] ? "?)" : "", names);
}

static enum rt_status read_mapping(const struct reader *r, const struct rt_node *mapping,
                                   const char *section);

static enum rt_status read_section(const struct reader *r, const struct rt_node *node)
{
    struct rt_key_fault fault = {.status = RT_ERR_CONFIG, .element = -1};
    char names[NAMES_BYTES];
    if (node->kind == RT_NODE_MAPPING)
        return read_mapping(r, node, node->key);
    list_names(node->key, names);
    rt_node_show(node, fault.value);
    (void)snprintf(fault.must, sizeof(fault.must), "a mapping of %s", names);
    return fail_value(r->source, node->line, node->key, &fault, r->err);
}

static enum rt_status read_member(const struct reader *r, const char *section,
                                  const struct rt_node *mapping, const struct rt_node *member)
{
    char path[PATH_BYTES];
    struct rt_key_fault fault = {.element = -1};
    int length =
        snprintf(path, sizeof(path), "%s%s%s", section, section[0] ? "." : "", member->key);
    bool is_word = strlen(member->key) == member->key_bytes && !strchr(member->key, '.') &&
                   length < PATH_BYTES;
    uint32_t id = 0;
    while (id < RT_KEY_COUNT && strcmp(rt_key_of((enum rt_key_id)id)->path, path) != 0)
        id++;
    bool is_known = id < RT_KEY_COUNT || (section[0] == '\0' && path[0] && is_section(path));
    if (!is_word || !is_known)
        return fail_unknown(r, section, member);
    const struct rt_node *first = rt_node_member(mapping, member->key);
    RT_REQUIRE(first == member, r->err, RT_ERR_CONFIG, "%s:%u: %s is given twice, first in line %u",
               r->source->name, member->key_line, path, first->key_line);
    if (id == RT_KEY_COUNT)
        return read_section(r, member);
    r->draft->given[id] = member;
    if (!rt_key_read((enum rt_key_id)id, member, r->draft, &fault))
        return fail_fault(r->source, r->draft, &fault, r->err);
    return RT_OK;
}

static enum rt_status read_mapping(const struct reader *r, const struct rt_node *mapping,
                                   const char *section)
{
    char name[PATH_BYTES];
    for (const struct rt_node *member = mapping->first; member; member = member->next)
        RT_TRY(read_member(r, section, mapping, member));
    for (uint32_t id = 0; section[0] && id < RT_KEY_COUNT; id++) {
        const struct rt_key *key = rt_key_of((enum rt_key_id)id);
        RT_REQUIRE(!key->required || r->draft->given[id] ||
                       !name_in((enum rt_key_id)id, section, name),
                   r->err, RT_ERR_CONFIG, "%s:%u: %s is missing: must be %s", r->source->name,
                   mapping->line, key->path, key->must);
    }
    return RT_OK;
}

/* What a block has around attention comes from the model where there is one, and means nothing
 * where no layers are wanted. */
static enum rt_status check_block_keys(const struct reader *r, const struct rt_node *model)
{
    static const char *const sections[] = {"block", "rope"};
    static const enum rt_key_id with_layer[] = {RT_KEY_INPUT_NORM, RT_KEY_PROJECTIONS};
    const bool layer = r->draft->config.layer;
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        const struct rt_node *section = rt_node_member(r->draft->tree.root, sections[i]);
        RT_REQUIRE(!section || !model, r->err, RT_ERR_CONFIG,
                   "%s:%u: %s is given beside model (line %u): must be one of them",
                   r->source->name, section ? section->line : 0, sections[i],
                   model ? model->line : 0);
        RT_REQUIRE(!section || layer, r->err, RT_ERR_CONFIG,
                   "%s:%u: %s is given without layer: true, must go with it", r->source->name,
                   section ? section->line : 0, sections[i]);
    }
    for (size_t i = 0; i < sizeof(with_layer) / sizeof(with_layer[0]); i++) {
        const struct rt_node *node = r->draft->given[with_layer[i]];
        RT_REQUIRE(!node || layer, r->err, RT_ERR_CONFIG,
                   "%s:%u: %s is given without layer: true, must go with it", r->source->name,
                   node ? node->line : 0, rt_key_of(with_layer[i])->path);
    }
    return RT_OK;
}

/* Keys that exclude or need one another. */
static enum rt_status check_keys(const struct reader *r)
{
    const struct rt_node *const *given = r->draft->given;
    const struct rt_node *geometry = rt_node_member(r->draft->tree.root, "geometry");
    const struct rt_node *model = given[RT_KEY_MODEL], *parallel = given[RT_KEY_TENSOR_PARALLEL];
    const struct rt_node *sizes = given[RT_KEY_BATCH_SIZES], *max_batch = given[RT_KEY_MAX_BATCH];
    const struct rt_node *pages = given[RT_KEY_PAGES];
    const char *name = r->source->name;
    bool automatic = sizes && sizes->kind == RT_NODE_SCALAR;
    RT_REQUIRE(model || geometry, r->err, RT_ERR_CONFIG,
               "%s: neither model nor geometry is given: must be one of them", name);
    RT_TRY(check_block_keys(r, model));
    RT_REQUIRE(!model || !geometry, r->err, RT_ERR_CONFIG,
               "%s:%u: geometry is given beside model (line %u): must be one of them", name,
               geometry ? geometry->line : 0, model ? model->line : 0);
    RT_REQUIRE(model || !parallel, r->err, RT_ERR_CONFIG,
               "%s:%u: tensor_parallel is %s without model: geometry.heads are one GPU's already",
               name, parallel ? parallel->line : 0, parallel ? parallel->text : "");
    RT_REQUIRE(!automatic || max_batch, r->err, RT_ERR_CONFIG,
               "%s:%u: graphs.batch_sizes is auto without graphs.max_batch: must have it, %s", name,
               sizes ? sizes->line : 0, rt_key_of(RT_KEY_MAX_BATCH)->must);
    RT_REQUIRE(automatic || !max_batch, r->err, RT_ERR_CONFIG,
               "%s:%u: graphs.max_batch is %s without graphs.batch_sizes: auto, must go with it",
               name, max_batch ? max_batch->line : 0, max_batch ? max_batch->text : "");
    RT_REQUIRE(!pages || !given[RT_KEY_MEMORY], r->err, RT_ERR_CONFIG,
               "%s:%u: kv_cache.pages is %s beside kv_cache.memory: must be one of them", name,
               pages ? pages->line : 0, pages ? pages->text : "");
    return RT_OK;
}

/* ---- draft ----------------------------------------------------------------------------------- */

enum rt_status rt_config_draft_parse(const struct rt_source *source, struct rt_config_draft *draft,
                                     struct rt_error *err)
{
    enum rt_status status = RT_OK;
    struct rt_config *config = &draft->config;
    const struct reader reader = {.source = source, .draft = draft, .err = err};
    memset(draft, 0, sizeof(*draft));
    config->struct_size = sizeof(*config);
    for (uint32_t id = 0; id < RT_KEY_COUNT; id++)
        rt_key_reset((enum rt_key_id)id, draft);
    RT_TRY(rt_tree_read(source, &draft->tree, err));
    RT_TRY_GOTO(read_mapping(&reader, draft->tree.root, ""));
    RT_TRY_GOTO(check_keys(&reader));
    if (draft->max_batch) {
        memset(config->batch_sizes, 0, sizeof(config->batch_sizes));
        config->batch_size_count = rt_config_ladder(draft->max_batch, config->batch_sizes);
    }
    return RT_OK;
fail:
    rt_config_draft_free(draft);
    return status;
}

void rt_config_draft_free(struct rt_config_draft *draft)
{
    rt_tree_free(&draft->tree);
    draft->model_path = NULL;
}

/* One GPU's share of the model's heads. */
static enum rt_status split_heads(const struct rt_source *source,
                                  const struct rt_config_draft *draft, uint32_t heads,
                                  uint32_t *out, struct rt_error *err)
{
    const struct rt_node *node = draft->given[RT_KEY_TENSOR_PARALLEL];
    if (!node)
        node = draft->given[RT_KEY_MODEL];
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

enum rt_status rt_config_draft_finish(const struct rt_source *source,
                                      const struct rt_config_draft *draft,
                                      const struct rt_model_shape *model, struct rt_config *out,
                                      struct rt_error *err)
{
    struct rt_key_fault fault = {.element = -1};
    struct rt_config config = draft->config;
    if (model) {
        config.geometry = model->geometry;
        RT_TRY(split_heads(source, draft, model->geometry.heads, &config.geometry.heads, err));
        if (config.layer)
            config.block = model->block;
    }
    if (!rt_config_is_good(&config, &fault))
        return fail_fault(source, draft, &fault, err);
    *out = config;
    return RT_OK;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* The story of the model's file, told from the line that names it. */
static enum rt_status load_model(const char *path, const struct rt_source *source,
                                 const struct rt_config_draft *draft, struct rt_model_shape *out,
                                 struct rt_error *err)
{
    struct rt_error story = {.status = RT_OK};
    const struct rt_node *node = draft->given[RT_KEY_MODEL];
    char *model_path = rt_path_beside(path, draft->model_path);
    RT_REQUIRE(model_path, err, RT_ERR_NOMEM, "no memory to load %s", source->name);
    enum rt_status status =
        rt_model_load(model_path, &out->geometry, draft->config.layer ? &out->block : NULL, &story);
    free(model_path);
    if (status != RT_OK)
        return rt_fail(err, status, "%s:%u: model: %s", source->name, node ? node->line : 0,
                       story.message);
    return RT_OK;
}

static enum rt_status load_source(const char *path, const struct rt_source *source,
                                  struct rt_config *config, struct rt_error *err)
{
    struct rt_config_draft draft;
    struct rt_model_shape model = {.block = {.hidden_size = 0}};
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
    struct rt_source source = {.text = NULL};
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

enum rt_status rt_config_model(const char *path, struct rt_config *config, struct rt_error *error)
{
    struct rt_geometry geometry;
    struct rt_block block;
    RT_REQUIRE(path, error, RT_ERR_INVALID, "rt_config_model: path is null");
    RT_REQUIRE(config, error, RT_ERR_INVALID, "rt_config_model: config is null");
    RT_REQUIRE(config->struct_size == sizeof(*config), error, RT_ERR_INVALID,
               "rt_config_model: config->struct_size is %u: must be %zu", config->struct_size,
               sizeof(*config));
    RT_TRY(rt_model_load(path, &geometry, &block, error));
    config->geometry = geometry;
    config->block = block;
    return RT_OK;
}
