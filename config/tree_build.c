/* SPDX-License-Identifier: Apache-2.0 */
#include "config/tree_build.h"

void rt_build_key(struct rt_tree_build *b, const char *text, uint32_t bytes, uint32_t line)
{
    b->key = text;
    b->key_bytes = bytes;
    b->key_line = line;
}

enum rt_status rt_build_value(struct rt_tree_build *b, const struct rt_node *value)
{
    RT_REQUIRE(b->tree->nodes < RT_TREE_MAX_NODES, b->err, RT_ERR_CONFIG,
               "%s:%u: more than %u values: must be fewer", b->source->name, value->line,
               RT_TREE_MAX_NODES);
    RT_REQUIRE(value->kind == RT_NODE_SCALAR || b->depth < RT_TREE_MAX_DEPTH, b->err, RT_ERR_CONFIG,
               "%s:%u: nested deeper than %u levels", b->source->name, value->line,
               RT_TREE_MAX_DEPTH);
    struct rt_node *node = rt_tree_reserve(b->tree, sizeof(*node));
    RT_REQUIRE(node, b->err, RT_ERR_NOMEM, "no memory to read %s", b->source->name);
    b->tree->nodes++;
    *node = *value;
    node->key = b->key;
    node->key_bytes = b->key_bytes;
    node->key_line = b->key_line;
    rt_build_key(b, NULL, 0, 0);
    if (b->depth == 0) {
        b->tree->root = node;
    } else {
        struct rt_node **last = &b->last[b->depth - 1];
        *(*last ? &(*last)->next : &b->open[b->depth - 1]->first) = node;
        *last = node;
        b->open[b->depth - 1]->count++;
    }
    if (node->kind != RT_NODE_SCALAR) {
        b->open[b->depth] = node;
        b->last[b->depth] = NULL;
        b->depth++;
    }
    return RT_OK;
}

void rt_build_close(struct rt_tree_build *b)
{
    b->depth--;
}
