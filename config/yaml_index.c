/* SPDX-License-Identifier: Apache-2.0 */
#include "config/yaml_index.h"

#include "common/math.h"
#include "config/suggest.h"
#include "config/yaml_lexical.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* The event at hand is the one that the next decision is about; advance() moves on. */
struct walk {
    const struct rt_yaml_source *source;
    const struct rt_yaml_rules *rules;
    struct rt_yaml_index *index;
    struct rt_error *err;
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    uint32_t depth;
};

static uint32_t line_of(const yaml_mark_t *mark)
{
    return (uint32_t)mark->line + 1;
}

/* ---- errors ---------------------------------------------------------------------------------- */

enum rt_status rt_yaml_fail(const struct rt_yaml_source *source, const struct rt_yaml_node *node,
                            const char *must, struct rt_error *err)
{
    return rt_fail(err, RT_ERR_CONFIG, "%s:%u: %s is %s: must be %s", source->name, node->line,
                   node->path, node->value, must ? must : node->must);
}

/* libyaml's reader knows a byte offset only, its scanner and parser know a line. */
static enum rt_status fail_syntax(const struct walk *w)
{
    const yaml_parser_t *p = &w->parser;
    const char *problem = p->problem ? p->problem : "unknown problem";
    if (p->error == YAML_MEMORY_ERROR)
        return rt_fail(w->err, RT_ERR_NOMEM, "no memory to parse %s", w->source->name);
    if (p->error == YAML_READER_ERROR) {
        size_t end = p->problem_offset < w->source->bytes ? p->problem_offset : w->source->bytes;
        uint32_t line = 1;
        for (size_t i = 0; i < end; i++)
            line += w->source->text[i] == '\n';
        return rt_fail(w->err, RT_ERR_CONFIG, "%s:%u: not %s: %s (byte %zu)", w->source->name, line,
                       w->rules->language, problem, end);
    }
    if (p->context)
        return rt_fail(w->err, RT_ERR_CONFIG, "%s:%u: not %s: %s %s from line %u", w->source->name,
                       line_of(&p->problem_mark), w->rules->language, problem, p->context,
                       line_of(&p->context_mark));
    return rt_fail(w->err, RT_ERR_CONFIG, "%s:%u: not %s: %s", w->source->name,
                   line_of(&p->problem_mark), w->rules->language, problem);
}

static void list_keys(const cyaml_schema_field_t *fields, char *out, size_t capacity)
{
    size_t used = 0;
    out[0] = '\0';
    for (const cyaml_schema_field_t *f = fields; f->key && used < capacity; f++) {
        int wrote = snprintf(out + used, capacity - used, "%s%s", used ? ", " : "", f->key);
        if (wrote < 0)
            return;
        used += (size_t)wrote;
    }
}

/* The nearest key of the same mapping, if near enough to be a slip of the finger. */
static const char *nearest_key(const cyaml_schema_field_t *fields, const char *key)
{
    const char *best = NULL;
    uint32_t best_distance = (uint32_t)strlen(key) / 3 + 1;
    for (const cyaml_schema_field_t *f = fields; f->key; f++) {
        uint32_t distance = rt_edit_distance(key, f->key);
        if (distance <= best_distance && (!best || distance < best_distance)) {
            best = f->key;
            best_distance = distance;
        }
    }
    return best;
}

/* A mapping one level down that has exactly this key: it was written one level too high. */
static const char *parent_of_key(const cyaml_schema_field_t *fields, const char *key)
{
    for (const cyaml_schema_field_t *f = fields; f->key; f++) {
        if (f->value.type != CYAML_MAPPING)
            continue;
        for (const cyaml_schema_field_t *g = f->value.mapping.fields; g->key; g++)
            if (strcmp(g->key, key) == 0)
                return f->key;
    }
    return NULL;
}

static enum rt_status fail_unknown(const struct walk *w, const cyaml_schema_field_t *fields,
                                   const char *path)
{
    char key[RT_YAML_VALUE_BYTES], keys[200], hint[120] = "";
    rt_yaml_show((const char *)w->event.data.scalar.value, w->event.data.scalar.length, key);
    list_keys(fields, keys, sizeof(keys));
    const char *parent = parent_of_key(fields, key);
    const char *near = nearest_key(fields, key);
    if (parent)
        (void)snprintf(hint, sizeof(hint), " (did you mean %s.%s?)", parent, key);
    else if (near)
        (void)snprintf(hint, sizeof(hint), " (did you mean %s?)", near);
    return rt_fail(w->err, RT_ERR_CONFIG, "%s:%u: unknown key %s%s%s%s: valid here are %s",
                   w->source->name, line_of(&w->event.start_mark), path, path[0] ? "." : "", key,
                   hint, keys);
}

/* ---- events ---------------------------------------------------------------------------------- */

static enum rt_status advance(struct walk *w)
{
    if (w->has_event)
        yaml_event_delete(&w->event);
    w->has_event = yaml_parser_parse(&w->parser, &w->event) != 0;
    if (!w->has_event)
        return fail_syntax(w);
    uint32_t line = line_of(&w->event.start_mark);
    yaml_event_type_t type = w->event.type;
    w->depth += type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT;
    w->depth -= type == YAML_SEQUENCE_END_EVENT || type == YAML_MAPPING_END_EVENT;
    RT_REQUIRE(w->depth <= RT_YAML_MAX_DEPTH, w->err, RT_ERR_CONFIG,
               "%s:%u: nested deeper than %u levels", w->source->name, line, RT_YAML_MAX_DEPTH);
    RT_REQUIRE(type != YAML_ALIAS_EVENT, w->err, RT_ERR_CONFIG,
               "%s:%u: aliases are not allowed: write the value out", w->source->name, line);
    return RT_OK;
}

/* From the first event of a value to its last. */
static enum rt_status skip_value(struct walk *w)
{
    uint32_t outside = w->depth;
    if (w->event.type == YAML_SEQUENCE_START_EVENT || w->event.type == YAML_MAPPING_START_EVENT)
        outside--;
    while (w->depth > outside)
        RT_TRY(advance(w));
    return RT_OK;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static struct rt_yaml_node *grow(struct rt_yaml_index *index)
{
    if (index->count == index->capacity) {
        uint32_t capacity = index->capacity ? 2 * index->capacity : 32;
        struct rt_yaml_node *nodes = realloc(index->nodes, capacity * sizeof(*nodes));
        if (!nodes)
            return NULL;
        index->nodes = nodes;
        index->capacity = capacity;
    }
    return &index->nodes[index->count++];
}

static void describe_event(const yaml_event_t *event, struct rt_yaml_node *node)
{
    node->line = line_of(&event->start_mark);
    node->column = (uint32_t)event->start_mark.column + 1;
    node->kind = RT_YAML_SCALAR;
    if (event->type == YAML_SEQUENCE_START_EVENT) {
        node->kind = RT_YAML_LIST;
        (void)snprintf(node->value, sizeof(node->value), "a list");
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        node->kind = RT_YAML_MAPPING;
        (void)snprintf(node->value, sizeof(node->value), "a mapping");
    } else {
        struct rt_yaml_scalar scalar = rt_yaml_scalar_of(event);
        rt_yaml_show_scalar(&scalar, node->value);
    }
}

static enum rt_status add_node(struct walk *w, const char *path, const cyaml_schema_value_t *schema,
                               struct rt_yaml_node *out)
{
    char base[RT_YAML_PATH_BYTES + 2];
    struct rt_yaml_node *node = grow(w->index);
    RT_REQUIRE(node, w->err, RT_ERR_NOMEM, "no memory to index %s", w->source->name);
    memset(node, 0, sizeof(*node));
    memcpy(node->path, path, strlen(path) + 1);
    describe_event(&w->event, node);
    /* All elements of a list must be alike: their words stand under "list[]". */
    size_t length = strcspn(path, "[");
    (void)snprintf(base, sizeof(base), "%.*s%s", (int)length, path, path[length] ? "[]" : "");
    node->must = w->rules->must ? w->rules->must(base) : NULL;
    if (!node->must)
        node->must = rt_yaml_type_name(schema->type);
    *out = *node;
    return RT_OK;
}

/* ---- values ---------------------------------------------------------------------------------- */

static enum rt_status walk_value(struct walk *w, const cyaml_schema_value_t *schema,
                                 const char *path);

static const cyaml_schema_field_t *find_field(const cyaml_schema_field_t *fields,
                                              const yaml_event_t *key)
{
    const char *text = (const char *)key->data.scalar.value;
    if (strlen(text) != key->data.scalar.length)
        return NULL;
    for (const cyaml_schema_field_t *f = fields; f->key; f++)
        if (strcmp(f->key, text) == 0)
            return f;
    return NULL;
}

static enum rt_status join(const struct walk *w, const char *path, const char *key,
                           char out[RT_YAML_PATH_BYTES])
{
    int length = snprintf(out, RT_YAML_PATH_BYTES, "%s%s%s", path, path[0] ? "." : "", key);
    RT_REQUIRE(length > 0 && length < RT_YAML_PATH_BYTES, w->err, RT_ERR_INTERNAL,
               "%s: the path of key %s is too long", w->source->name, key);
    return RT_OK;
}

static enum rt_status check_missing(const struct walk *w, const cyaml_schema_field_t *fields,
                                    const char *path, uint32_t line)
{
    char child[RT_YAML_PATH_BYTES];
    for (const cyaml_schema_field_t *f = fields; f->key; f++) {
        if (f->value.flags & CYAML_FLAG_OPTIONAL)
            continue;
        RT_TRY(join(w, path, f->key, child));
        const char *must = w->rules->must ? w->rules->must(child) : NULL;
        RT_REQUIRE(rt_yaml_find(w->index, child), w->err, RT_ERR_CONFIG,
                   "%s:%u: %s is missing: must be %s", w->source->name, line, child,
                   must ? must : rt_yaml_type_name(f->value.type));
    }
    return RT_OK;
}

/* At the key's event; ends at the last event of its value. */
static enum rt_status walk_pair(struct walk *w, const cyaml_schema_field_t *fields,
                                const char *path)
{
    char child[RT_YAML_PATH_BYTES];
    uint32_t line = line_of(&w->event.start_mark);
    bool is_word = w->event.type == YAML_SCALAR_EVENT;
    const cyaml_schema_field_t *field = is_word ? find_field(fields, &w->event) : NULL;
    if (!field && !w->rules->skip_unknown) {
        RT_REQUIRE(is_word, w->err, RT_ERR_CONFIG, "%s:%u: a key must be a word", w->source->name,
                   line);
        return fail_unknown(w, fields, path);
    }
    if (!field) {
        RT_REQUIRE(!is_word || !memchr(w->event.data.scalar.value, 0, w->event.data.scalar.length),
                   w->err, RT_ERR_CONFIG, "%s:%u: a key has a NUL in it", w->source->name, line);
        RT_TRY(skip_value(w));
        RT_TRY(advance(w));
        return skip_value(w);
    }
    RT_TRY(join(w, path, field->key, child));
    const struct rt_yaml_node *first = rt_yaml_find(w->index, child);
    RT_REQUIRE(!first, w->err, RT_ERR_CONFIG, "%s:%u: %s is given twice, first in line %u",
               w->source->name, line, child, first ? first->line : 0);
    RT_TRY(advance(w));
    return walk_value(w, &field->value, child);
}

static enum rt_status walk_mapping(struct walk *w, const cyaml_schema_field_t *fields,
                                   const char *path)
{
    uint32_t line = line_of(&w->event.start_mark);
    RT_TRY(advance(w));
    while (w->event.type != YAML_MAPPING_END_EVENT) {
        RT_TRY(walk_pair(w, fields, path));
        RT_TRY(advance(w));
    }
    return check_missing(w, fields, path, line);
}

/* `list` is the number of the list's own node, which learns how long it is. */
static enum rt_status walk_list(struct walk *w, const cyaml_schema_value_t *entry, const char *path,
                                uint32_t list)
{
    char child[RT_YAML_PATH_BYTES];
    uint32_t element = 0;
    RT_TRY(advance(w));
    for (; w->event.type != YAML_SEQUENCE_END_EVENT; element++) {
        int length = snprintf(child, sizeof(child), "%s[%u]", path, element);
        RT_REQUIRE(length > 0 && length < RT_YAML_PATH_BYTES, w->err, RT_ERR_INTERNAL,
                   "%s: the path of element %u of %s is too long", w->source->name, element, path);
        RT_TRY(walk_value(w, entry, child));
        RT_TRY(advance(w));
    }
    struct rt_yaml_node *node = &w->index->nodes[list];
    (void)snprintf(node->value, sizeof(node->value), element ? "a list of %u" : "an empty list",
                   element);
    return RT_OK;
}

/* At the first event of the value; ends at its last. What libcyaml checks well is left to it. */
static enum rt_status walk_value(struct walk *w, const cyaml_schema_value_t *schema,
                                 const char *path)
{
    struct rt_yaml_node node;
    RT_TRY(add_node(w, path, schema, &node));
    if (w->index->count > RT_YAML_MAX_ELEMENTS && strchr(path, '['))
        w->index->count--;
    if (w->event.type == YAML_SCALAR_EVENT) {
        struct rt_yaml_scalar scalar = rt_yaml_scalar_of(&w->event);
        return rt_yaml_scalar_fits(&scalar, schema) ? RT_OK
                                                    : rt_yaml_fail(w->source, &node, NULL, w->err);
    }
    if (w->event.type == YAML_MAPPING_START_EVENT && schema->type == CYAML_MAPPING)
        return walk_mapping(w, schema->mapping.fields, path);
    if (w->event.type == YAML_SEQUENCE_START_EVENT && schema->type == CYAML_SEQUENCE)
        return walk_list(w, schema->sequence.entry, path, w->index->count - 1);
    return skip_value(w);
}

/* ---- the document ---------------------------------------------------------------------------- */

static enum rt_status walk_document(struct walk *w)
{
    const struct rt_yaml_source *source = w->source;
    const cyaml_schema_field_t *fields = w->rules->root->mapping.fields;
    RT_TRY(advance(w)); /* the stream's start */
    RT_TRY(advance(w));
    RT_REQUIRE(w->event.type == YAML_DOCUMENT_START_EVENT, w->err, RT_ERR_CONFIG,
               "%s: is empty: must be %s with keys", source->name, w->rules->language);
    RT_TRY(advance(w));
    if (w->event.type != YAML_MAPPING_START_EVENT) {
        struct rt_yaml_node node = {.kind = RT_YAML_SCALAR};
        describe_event(&w->event, &node);
        return rt_fail(w->err, RT_ERR_CONFIG, "%s:%u: the document is %s: must be a mapping",
                       source->name, node.line, node.value);
    }
    RT_TRY(walk_mapping(w, fields, ""));
    RT_TRY(advance(w)); /* the document's end */
    RT_TRY(advance(w));
    RT_REQUIRE(w->event.type == YAML_STREAM_END_EVENT, w->err, RT_ERR_CONFIG,
               "%s:%u: a second document begins: must be one", source->name,
               line_of(&w->event.start_mark));
    return RT_OK;
}

enum rt_status rt_yaml_index_build(const struct rt_yaml_source *source,
                                   const struct rt_yaml_rules *rules, struct rt_yaml_index *out,
                                   struct rt_error *err)
{
    struct walk w = {.source = source, .rules = rules, .index = out, .err = err};
    *out = (struct rt_yaml_index){.count = 0};
    RT_REQUIRE(yaml_parser_initialize(&w.parser), err, RT_ERR_NOMEM, "no memory to parse %s",
               source->name);
    yaml_parser_set_input_string(&w.parser, (const unsigned char *)source->text, source->bytes);
    enum rt_status status = walk_document(&w);
    if (w.has_event)
        yaml_event_delete(&w.event);
    yaml_parser_delete(&w.parser);
    if (status != RT_OK)
        rt_yaml_index_free(out);
    return status;
}

void rt_yaml_index_free(struct rt_yaml_index *index)
{
    free(index->nodes);
    *index = (struct rt_yaml_index){.count = 0};
}

const struct rt_yaml_node *rt_yaml_find(const struct rt_yaml_index *index, const char *path)
{
    for (uint32_t i = 0; i < index->count; i++)
        if (strcmp(index->nodes[i].path, path) == 0)
            return &index->nodes[i];
    return NULL;
}
