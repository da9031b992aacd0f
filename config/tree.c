/* SPDX-License-Identifier: Apache-2.0 */
#include "config/tree.h"

#include "config/tree_build.h"

#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)64 << 10)

struct rt_tree_block {
    struct rt_tree_block *before;
    size_t used, bytes;
    alignas(struct rt_node) char memory[];
};

/* ---- building -------------------------------------------------------------------------------- */

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

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_json(const struct rt_source *source)
{
    size_t length = strlen(source->name);
    return length >= 5 && strcmp(source->name + length - 5, ".json") == 0;
}

const char *rt_source_language(const struct rt_source *source)
{
    return is_json(source) ? "JSON" : "YAML";
}

static enum rt_status check_root(const struct rt_source *source, const struct rt_node *root,
                                 struct rt_error *err)
{
    char shown[RT_NODE_SHOWN_BYTES];
    RT_REQUIRE(root, err, RT_ERR_CONFIG, "%s: is empty: must be %s with keys", source->name,
               rt_source_language(source));
    rt_node_show(root, shown);
    RT_REQUIRE(root->kind == RT_NODE_MAPPING, err, RT_ERR_CONFIG,
               "%s:%u: the document is %s: must be a mapping", source->name, root->line, shown);
    return RT_OK;
}

enum rt_status rt_tree_read(const struct rt_source *source, struct rt_tree *out,
                            struct rt_error *err)
{
    enum rt_status status = RT_OK;
    struct rt_tree_build build = {.source = source, .tree = out, .err = err};
    *out = (struct rt_tree){.root = NULL};
    RT_TRY_GOTO(is_json(source) ? rt_build_json(&build) : rt_build_yaml(&build));
    RT_TRY_GOTO(check_root(source, out->root, err));
    return RT_OK;
fail:
    rt_tree_free(out);
    return status;
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
