/* SPDX-License-Identifier: Apache-2.0 */
#include "config/tree_build.h"

#include <string.h>
#include <yaml.h>

/* libyaml compares each %TAG of a document with all before it: megabytes of them would take
 * minutes. */
#define MAX_TAG_DIRECTIVES 16u

struct yaml {
    struct rt_tree_build *build;
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
};

static uint32_t line_of(const yaml_mark_t *mark)
{
    return (uint32_t)mark->line + 1;
}

static uint32_t line_at(const struct rt_source *source, size_t end)
{
    uint32_t line = 1;
    for (size_t i = 0; i < end; i++)
        line += source->text[i] == '\n';
    return line;
}

/* ---- before libyaml -------------------------------------------------------------------------- */

/* Wherever they stand: a text that only quotes so many of them is none of ours either. */
static enum rt_status check_directives(const struct rt_tree_build *b)
{
    static const char word[] = "%TAG";
    const char *text = b->source->text, *end = text + b->source->bytes;
    uint32_t count = 0;
    while (text < end && (text = memchr(text, word[0], (size_t)(end - text))) != NULL) {
        count += (size_t)(end - text) >= strlen(word) && memcmp(text, word, strlen(word)) == 0;
        RT_REQUIRE(count <= MAX_TAG_DIRECTIVES, b->err, RT_ERR_CONFIG,
                   "%s:%u: more than %u %s directives: must be fewer", b->source->name,
                   line_at(b->source, (size_t)(text - b->source->text)), MAX_TAG_DIRECTIVES, word);
        text++;
    }
    return RT_OK;
}

/* libyaml would read UTF-16 too, of which nothing here could tell the lines. */
static enum rt_status check_encoding(const struct rt_tree_build *b)
{
    const char *text = b->source->text;
    bool is_utf16 = b->source->bytes >= 2 &&
                    (memcmp(text, "\xFF\xFE", 2) == 0 || memcmp(text, "\xFE\xFF", 2) == 0);
    RT_REQUIRE(!is_utf16, b->err, RT_ERR_CONFIG, "%s:1: not YAML: it is UTF-16, must be UTF-8",
               b->source->name);
    return RT_OK;
}

/* ---- events ---------------------------------------------------------------------------------- */

/* libyaml's reader knows a byte offset only, its scanner and parser know a line. */
static enum rt_status fail_syntax(const struct yaml *y)
{
    const struct rt_tree_build *b = y->build;
    const yaml_parser_t *p = &y->parser;
    const char *problem = p->problem ? p->problem : "unknown problem";
    if (p->error == YAML_MEMORY_ERROR)
        return rt_fail(b->err, RT_ERR_NOMEM, "no memory to parse %s", b->source->name);
    if (p->error == YAML_READER_ERROR) {
        size_t end = p->problem_offset < b->source->bytes ? p->problem_offset : b->source->bytes;
        return rt_fail(b->err, RT_ERR_CONFIG, "%s:%u: not YAML: %s (byte %zu)", b->source->name,
                       line_at(b->source, end), problem, end);
    }
    if (p->context)
        return rt_fail(b->err, RT_ERR_CONFIG, "%s:%u: not YAML: %s %s from line %u",
                       b->source->name, line_of(&p->problem_mark), problem, p->context,
                       line_of(&p->context_mark));
    return rt_fail(b->err, RT_ERR_CONFIG, "%s:%u: not YAML: %s", b->source->name,
                   line_of(&p->problem_mark), problem);
}

static enum rt_status advance(struct yaml *y)
{
    if (y->has_event)
        yaml_event_delete(&y->event);
    y->has_event = yaml_parser_parse(&y->parser, &y->event) != 0;
    return y->has_event ? RT_OK : fail_syntax(y);
}

/* A tag says what a value is, which here the key alone says; !!str says no more than quotes do. */
static enum rt_status check_tag(const struct yaml *y, const yaml_char_t *tag, bool is_scalar)
{
    const char *text = (const char *)tag;
    bool is_string =
        text && is_scalar && (strcmp(text, YAML_STR_TAG) == 0 || strcmp(text, "!") == 0);
    char shown[RT_NODE_SHOWN_BYTES] = "";
    if (text)
        rt_text_show(text, strlen(text), shown);
    RT_REQUIRE(!text || is_string, y->build->err, RT_ERR_CONFIG,
               "%s:%u: the tag %s is not allowed: must be the value alone, or !!str",
               y->build->source->name, line_of(&y->event.start_mark), shown);
    return RT_OK;
}

static enum rt_status take_scalar(struct yaml *y)
{
    struct rt_tree_build *b = y->build;
    const yaml_char_t *tag = y->event.data.scalar.tag;
    size_t bytes = y->event.data.scalar.length;
    uint32_t line = line_of(&y->event.start_mark);
    RT_TRY(check_tag(y, tag, true));
    char *text = rt_tree_reserve(b->tree, bytes + 1);
    RT_REQUIRE(text, b->err, RT_ERR_NOMEM, "no memory to read %s", b->source->name);
    memcpy(text, y->event.data.scalar.value, bytes);
    text[bytes] = '\0';
    if (rt_build_wants_key(b)) {
        rt_build_key(b, text, (uint32_t)bytes, line);
        return RT_OK;
    }
    const struct rt_node node = {
        .kind = RT_NODE_SCALAR,
        .text = text,
        .text_bytes = (uint32_t)bytes,
        .quoted = tag || y->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE,
        .line = line,
    };
    return rt_build_value(b, &node);
}

static enum rt_status take_opening(struct yaml *y, enum rt_node_kind kind, const yaml_char_t *tag)
{
    struct rt_tree_build *b = y->build;
    const struct rt_node node = {.kind = kind, .line = line_of(&y->event.start_mark)};
    RT_TRY(check_tag(y, tag, false));
    RT_REQUIRE(!rt_build_wants_key(b), b->err, RT_ERR_CONFIG, "%s:%u: a key must be a word",
               b->source->name, node.line);
    return rt_build_value(b, &node);
}

static enum rt_status take_event(struct yaml *y)
{
    switch (y->event.type) {
    case YAML_SCALAR_EVENT:
        return take_scalar(y);
    case YAML_SEQUENCE_START_EVENT:
        return take_opening(y, RT_NODE_LIST, y->event.data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return take_opening(y, RT_NODE_MAPPING, y->event.data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        rt_build_close(y->build);
        return RT_OK;
    default: /* within a document only an alias is left */
        return rt_fail(y->build->err, RT_ERR_CONFIG,
                       "%s:%u: aliases are not allowed: write the value out",
                       y->build->source->name, line_of(&y->event.start_mark));
    }
}

static enum rt_status read_stream(struct yaml *y)
{
    RT_TRY(advance(y)); /* the stream's start */
    RT_TRY(advance(y));
    if (y->event.type == YAML_STREAM_END_EVENT)
        return RT_OK;
    RT_TRY(advance(y)); /* past the document's start */
    while (y->event.type != YAML_DOCUMENT_END_EVENT) {
        RT_TRY(take_event(y));
        RT_TRY(advance(y));
    }
    RT_TRY(advance(y));
    RT_REQUIRE(y->event.type == YAML_STREAM_END_EVENT, y->build->err, RT_ERR_CONFIG,
               "%s:%u: a second document begins: must be one", y->build->source->name,
               line_of(&y->event.start_mark));
    return RT_OK;
}

enum rt_status rt_build_yaml(struct rt_tree_build *b)
{
    struct yaml y = {.build = b};
    RT_TRY(check_encoding(b));
    RT_TRY(check_directives(b));
    RT_REQUIRE(yaml_parser_initialize(&y.parser), b->err, RT_ERR_NOMEM, "no memory to parse %s",
               b->source->name);
    yaml_parser_set_input_string(&y.parser, (const unsigned char *)b->source->text,
                                 b->source->bytes);
    enum rt_status status = read_stream(&y);
    if (y.has_event)
        yaml_event_delete(&y.event);
    yaml_parser_delete(&y.parser);
    return status;
}
