/* SPDX-License-Identifier: Apache-2.0 */
#include "config/pick.h"

#include <string.h>

static bool fits(const struct rt_node *node, enum rt_pick_type type)
{
    uint64_t integer = 0;
    double number = 0.0;
    bool boolean = false;
    switch (type) {
    case RT_PICK_TEXT:
        return rt_scalar_is_text(node);
    case RT_PICK_COUNT:
        return rt_scalar_integer(node, &integer) && integer <= UINT32_MAX;
    case RT_PICK_NUMBER:
        return rt_scalar_number(node, &number);
    case RT_PICK_BOOLEAN:
        return rt_scalar_boolean(node, &boolean);
    case RT_PICK_MAPPING:
        return node->kind == RT_NODE_MAPPING;
    default:
        return node->kind == RT_NODE_LIST;
    }
}

static const char *words_of(enum rt_pick_type type)
{
    static const char *const words[] = {
        [RT_PICK_TEXT] = "a string",
        [RT_PICK_COUNT] = "an integer, not negative",
        [RT_PICK_NUMBER] = "a number",
        [RT_PICK_BOOLEAN] = "true or false",
        [RT_PICK_MAPPING] = "a mapping",
        [RT_PICK_TEXTS] = "a list of strings",
        [RT_PICK_COUNTS] = "a list of integers",
        [RT_PICK_NUMBERS] = "a list of numbers",
    };
    return words[type];
}

static enum rt_status check_elements(const struct rt_source *source, const struct rt_node *list,
                                     const char *path, enum rt_pick_type type, struct rt_error *err)
{
    char shown[RT_NODE_SHOWN_BYTES];
    uint32_t i = 0;
    for (const struct rt_node *n = list->first; n; n = n->next, i++) {
        if (fits(n, type))
            continue;
        rt_node_show(n, shown);
        return rt_fail(err, RT_ERR_CONFIG, "%s:%u: %s%s[%u] is %s: must be %s", source->name,
                       n->line, path, list->key, i, shown, words_of(type));
    }
    return RT_OK;
}

static enum rt_status check_type(const struct rt_source *source, const struct rt_node *node,
                                 const char *path, enum rt_pick_type type, struct rt_error *err)
{
    char shown[RT_NODE_SHOWN_BYTES];
    if (rt_scalar_is_null(node))
        return RT_OK;
    rt_node_show(node, shown);
    RT_REQUIRE(fits(node, type), err, RT_ERR_CONFIG, "%s:%u: %s%s is %s: must be %s", source->name,
               node->line, path, node->key, shown, words_of(type));
    if (type == RT_PICK_TEXTS)
        return check_elements(source, node, path, RT_PICK_TEXT, err);
    if (type == RT_PICK_COUNTS)
        return check_elements(source, node, path, RT_PICK_COUNT, err);
    if (type == RT_PICK_NUMBERS)
        return check_elements(source, node, path, RT_PICK_NUMBER, err);
    return RT_OK;
}

enum rt_status rt_pick(const struct rt_source *source, const struct rt_node *mapping,
                       const char *path, const struct rt_pick *wanted, uint32_t count,
                       const struct rt_node **given, struct rt_error *err)
{
    for (uint32_t i = 0; i < count; i++)
        given[i] = NULL;
    for (const struct rt_node *n = mapping->first; n; n = n->next) {
        uint32_t i = 0;
        RT_REQUIRE(strlen(n->key) == n->key_bytes, err, RT_ERR_CONFIG,
                   "%s:%u: a key has a NUL in it", source->name, n->key_line);
        while (i < count && strcmp(wanted[i].key, n->key) != 0)
            i++;
        if (i == count)
            continue;
        RT_REQUIRE(!given[i], err, RT_ERR_CONFIG, "%s:%u: %s%s is given twice, first in line %u",
                   source->name, n->key_line, path, n->key, given[i] ? given[i]->key_line : 0);
        given[i] = n;
        RT_TRY(check_type(source, n, path, wanted[i].type, err));
    }
    return RT_OK;
}

const char *rt_pick_text(const struct rt_node *node)
{
    return rt_pick_is_given(node) ? node->text : "";
}

uint32_t rt_pick_count(const struct rt_node *node)
{
    uint64_t value = 0;
    if (node)
        (void)rt_scalar_integer(node, &value);
    return (uint32_t)value;
}

double rt_pick_number(const struct rt_node *node)
{
    double value = 0.0;
    if (node)
        (void)rt_scalar_number(node, &value);
    return value;
}

bool rt_pick_boolean(const struct rt_node *node, bool otherwise)
{
    bool value = otherwise;
    if (node)
        (void)rt_scalar_boolean(node, &value);
    return value;
}
