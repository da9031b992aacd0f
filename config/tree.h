/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_TREE_H
#define RT_CONFIG_TREE_H

/*
 * A text as a tree of values, read once (tree_read.h): YAML by libyaml's events (tree_yaml.c), JSON
 * by a strict reader of our own (tree_json.c). What a value means is for others to say: here a
 * scalar is the characters of it, and every value knows its line, because every error must name it.
 */
#include "config/text_file.h"

#include <stdbool.h>
#include <stdint.h>

#define RT_NODE_SHOWN_BYTES 48
/* Deeper texts are refused: libyaml's work grows with the square of the depth. */
#define RT_TREE_MAX_DEPTH 64u
/* More than any file of 4 MiB has that means something; a hostile one costs some 80 MiB. */
#define RT_TREE_MAX_NODES (1u << 20)

struct rt_source {
    const char *text; /* borrowed, not NUL-terminated */
    size_t bytes;
    char name[RT_FILE_NAME_BYTES]; /* for messages; JSON where it ends in .json, else YAML */
};

enum rt_node_kind { RT_NODE_SCALAR = 0, RT_NODE_LIST, RT_NODE_MAPPING };

struct rt_node {
    const char *key;  /* of a mapping's member; NUL-terminated at [key_bytes]; else null */
    const char *text; /* of a scalar; NUL-terminated at [text_bytes] */
    struct rt_node *first, *next;   /* the first child; the next child of the same parent */
    uint32_t key_bytes, text_bytes; /* a NUL inside makes them longer than strlen */
    uint32_t key_line, line;        /* from 1 */
    uint32_t count;                 /* children */
    enum rt_node_kind kind;
    bool quoted; /* or written as a block, or tagged !!str: a string whatever is in it */
};

struct rt_tree {
    struct rt_node *root; /* a mapping */
    struct rt_tree_block *blocks;
    uint32_t nodes;
};

/* Memory of the tree, released with it; null: out of memory. */
void *rt_tree_reserve(struct rt_tree *tree, size_t bytes);
void rt_tree_free(struct rt_tree *tree);

/* By the source's name; "YAML" or "JSON". */
bool rt_source_is_json(const struct rt_source *source);
const char *rt_source_language(const struct rt_source *source);

/* The first member of that key, or null. */
const struct rt_node *rt_node_member(const struct rt_node *mapping, const char *key);

/* Text for a message: unprintable characters become '?', a long text ends in "...". */
void rt_text_show(const char *text, size_t bytes, char out[RT_NODE_SHOWN_BYTES]);
/* A value for a message: "a list", "a mapping", or the scalar, with quotes where it has them. */
void rt_node_show(const struct rt_node *node, char out[RT_NODE_SHOWN_BYTES]);

#endif
