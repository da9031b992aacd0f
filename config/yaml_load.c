/* SPDX-License-Identifier: Apache-2.0 */
#include "config/yaml_load.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Places that libcyaml's backtrace names, innermost first. */
#define MAX_PLACES 8

struct place {
    unsigned long line, column;
};

struct capture {
    struct place places[MAX_PLACES];
    uint32_t count;
};

/*
 * libcyaml says where it is only in its log:
 *     in mapping field 'page_size' (line: 9, column: 14)
 * Lines with a value in them, which the text could forge, begin with another word.
 */
static void capture_log(cyaml_log_t level, void *context, const char *fmt, va_list args)
{
    static const char line_word[] = "(line: ", column_word[] = ", column: ";
    struct capture *capture = context;
    char text[256];
    (void)level;
    if (vsnprintf(text, sizeof(text), fmt, args) < 0 || capture->count == MAX_PLACES ||
        strncmp(text, "  in ", 5) != 0)
        return;
    const char *at = strstr(text, line_word);
    if (!at)
        return;
    char *end = NULL;
    unsigned long line = strtoul(at + sizeof(line_word) - 1, &end, 10);
    if (strncmp(end, column_word, sizeof(column_word) - 1) != 0)
        return;
    unsigned long column = strtoul(end + sizeof(column_word) - 1, NULL, 10);
    capture->places[capture->count++] = (struct place){.line = line, .column = column};
}

static cyaml_config_t cyaml_config_of(const struct rt_yaml_rules *rules, struct capture *capture)
{
    return (cyaml_config_t){
        .log_fn = capture ? capture_log : NULL,
        .log_ctx = capture,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_ERROR,
        .flags = rules->skip_unknown ? CYAML_CFG_IGNORE_UNKNOWN_KEYS | CYAML_CFG_NO_ALIAS
                                     : CYAML_CFG_NO_ALIAS,
    };
}

/* The innermost place that is a value of the index: later nodes lie deeper than earlier ones. Of a
 * list with a wrong number of elements, the list and not the element is at fault. */
static const struct rt_yaml_node *find_place(const struct rt_yaml_index *index,
                                             const struct capture *capture, cyaml_err_t error)
{
    bool is_count =
        error == CYAML_ERR_SEQUENCE_ENTRIES_MIN || error == CYAML_ERR_SEQUENCE_ENTRIES_MAX;
    for (uint32_t p = is_count ? 1 : 0; p < capture->count; p++)
        for (uint32_t n = index->count; n-- > 0;)
            if (index->nodes[n].line == capture->places[p].line &&
                index->nodes[n].column == capture->places[p].column)
                return &index->nodes[n];
    return NULL;
}

/* libcyaml reads floats with strtod, which in some locales of the host program takes 0.85 for 0.
 * The locale of this thread alone is changed, and changed back. */
static cyaml_err_t load_in_c_locale(const struct rt_yaml_source *source,
                                    const cyaml_config_t *config,
                                    const cyaml_schema_value_t *schema, void **out)
{
    locale_t numeric = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    if (numeric == (locale_t)0)
        return CYAML_ERR_OOM;
    locale_t before = uselocale(numeric);
    cyaml_err_t result =
        cyaml_load_data((const uint8_t *)source->text, source->bytes, config, schema, out, NULL);
    (void)uselocale(before);
    freelocale(numeric);
    return result;
}

enum rt_status rt_yaml_load(const struct rt_yaml_source *source, const struct rt_yaml_rules *rules,
                            const struct rt_yaml_index *index, void **out, struct rt_error *err)
{
    struct capture capture = {.count = 0};
    const cyaml_config_t config = cyaml_config_of(rules, &capture);
    *out = NULL;
    cyaml_err_t result = load_in_c_locale(source, &config, rules->root, out);
    if (result == CYAML_OK && *out)
        return RT_OK;
    *out = NULL;
    /* The index was built from the same text, so its syntax is good: what fails here is memory. */
    if (result == CYAML_ERR_OOM || result == CYAML_ERR_LIBYAML_PARSER_INIT ||
        result == CYAML_ERR_LIBYAML_PARSER)
        return rt_fail(err, RT_ERR_NOMEM, "no memory to load %s", source->name);
    const struct rt_yaml_node *node = find_place(index, &capture, result);
    if (node)
        return rt_yaml_fail(source, node, NULL, err);
    return rt_fail(err, RT_ERR_CONFIG, "%s:%lu: %s", source->name,
                   capture.count ? capture.places[0].line : 1UL, cyaml_strerror(result));
}

void rt_yaml_unload(const struct rt_yaml_rules *rules, void *data)
{
    const cyaml_config_t config = cyaml_config_of(rules, NULL);
    if (data)
        (void)cyaml_free(&config, rules->root, data, 0);
}
