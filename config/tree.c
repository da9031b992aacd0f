/* SPDX-License-Identifier: Apache-2.0 */
#include "config/tree.h"

#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BLOCK_BYTES ((size_t)64 << 10)

struct rt_tree_block {
    struct rt_tree_block *before;
    size_t used, bytes;
    alignas(struct rt_node) char memory[];
};

void *rt_tree_reserve(struct rt_tree *tree, size_t bytes)
{
    struct rt_tree_block *block = tree->blocks;
    const size_t align = alignof(struct rt_node);
    bytes = (bytes + align - 1) / align * align;
    if (!block || block->bytes - block->used < bytes) {
        size_t room = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        block = malloc(sizeof(*block) + room);
        if (!block)
            return NULL;
        block->before = tree->blocks;
        block->used = 0;
        block->bytes = room;
        tree->blocks = block;
    }
    void *memory = block->memory + block->used;
    block->used += bytes;
    return memory;
}

bool rt_source_is_json(const struct rt_source *source)
{
    size_t length = strlen(source->name);
    return length >= 5 && strcasecmp(source->name + length - 5, ".json") == 0;
}

const char *rt_source_language(const struct rt_source *source)
{
    return rt_source_is_json(source) ? "JSON" : "YAML";
}

void rt_tree_free(struct rt_tree *tree)
{
    while (tree->blocks) {
        struct rt_tree_block *before = tree->blocks->before;
        free(tree->blocks);
        tree->blocks = before;
    }
    *tree = (struct rt_tree){.root = NULL};
}

const struct rt_node *rt_node_member(const struct rt_node *mapping, const char *key)
{
    size_t length = strlen(key);
    for (const struct rt_node *n = mapping->first; n; n = n->next)
        if (n->key && n->key_bytes == length && memcmp(n->key, key, length) == 0)
            return n;
    return NULL;
}

/* ---- showing --------------------------------------------------------------------------------- */

void rt_text_show(const char *text, size_t bytes, char out[RT_NODE_SHOWN_BYTES])
{
    static const char mark[] = "...";
    size_t room = RT_NODE_SHOWN_BYTES - 1;
    size_t kept = bytes <= room ? bytes : room - (sizeof(mark) - 1);
    memcpy(out, text, kept);
    for (size_t i = 0; i < kept; i++)
        if (out[i] < ' ' || out[i] > '~')
            out[i] = '?';
    if (kept < bytes) {
        memcpy(out + kept, mark, sizeof(mark) - 1);
        kept += sizeof(mark) - 1;
    }
    out[kept] = '\0';
}

static void show_quoted(const struct rt_node *node, char out[RT_NODE_SHOWN_BYTES])
{
    rt_text_show(node->text, node->text_bytes, out);
    size_t length = strlen(out);
    if (length > RT_NODE_SHOWN_BYTES - 3)
        length = RT_NODE_SHOWN_BYTES - 3;
    memmove(out + 1, out, length);
    out[0] = '"';
    out[length + 1] = '"';
    out[length + 2] = '\0';
}

void rt_node_show(const struct rt_node *node, char out[RT_NODE_SHOWN_BYTES])
{
    if (node->kind != RT_NODE_SCALAR)
        (void)snprintf(out, RT_NODE_SHOWN_BYTES, "%s",
                       node->kind == RT_NODE_LIST ? "a list" : "a mapping");
    else if (node->quoted)
        show_quoted(node, out);
    else if (node->text_bytes == 0)
        (void)snprintf(out, RT_NODE_SHOWN_BYTES, "null");
    else
        rt_text_show(node->text, node->text_bytes, out);
}
