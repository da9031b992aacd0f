/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_TREE_BUILD_H
#define RT_CONFIG_TREE_BUILD_H

/* How the two front ends make a tree: value after value in the order of the text. */
#include "config/tree.h"

struct rt_tree_build {
    const struct rt_source *source;
    struct rt_tree *tree;
    struct rt_error *err;
    struct rt_node *open[RT_TREE_MAX_DEPTH]; /* mappings and lists not yet closed, outer first */
    struct rt_node *last[RT_TREE_MAX_DEPTH]; /* their last children so far */
    uint32_t depth;
    const char *key; /* of the member whose value comes next; null: none */
    uint32_t key_bytes, key_line;
};

/* Within a mapping: the next value is a key's. */
static inline bool rt_build_wants_key(const struct rt_tree_build *b)
{
    return b->depth > 0 && b->open[b->depth - 1]->kind == RT_NODE_MAPPING && !b->key;
}

/* The text is the tree's own (rt_tree_reserve). */
void rt_build_key(struct rt_tree_build *b, const char *text, uint32_t bytes, uint32_t line);

/* Adds a value; a mapping or a list is then open until rt_build_close. Of `value` kind, text,
 * text_bytes, quoted and line are taken. */
enum rt_status rt_build_value(struct rt_tree_build *b, const struct rt_node *value);
void rt_build_close(struct rt_tree_build *b);

/* The front ends: from the text to a root of any kind. */
enum rt_status rt_build_yaml(struct rt_tree_build *b);
enum rt_status rt_build_json(struct rt_tree_build *b);

#endif
