/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_YAML_INDEX_H
#define RT_CONFIG_YAML_INDEX_H

/*
 * A YAML or JSON text read twice: first event by event alongside its libcyaml schema, which gives
 * an index of where each value stands and how it is written; then by libcyaml itself, which gives
 * typed values (yaml_load.h). The first pass exists because every error must name line, key and
 * value, also one found long after loading, and because libcyaml is lenient where a configuration
 * must not be: it takes 64.5 for 64, -18446744073709551615 for 1, and 010 for 8.
 */
#include "common/check.h"
#include "config/text_file.h"

#include <cyaml/cyaml.h>
#include <stdbool.h>
#include <stdint.h>

#define RT_YAML_PATH_BYTES 80
#define RT_YAML_VALUE_BYTES 48
/* Deeper texts are refused: libyaml's work grows with the square of the depth. */
#define RT_YAML_MAX_DEPTH 64u
/* Elements of one list that get a node; later ones are checked and counted only. */
#define RT_YAML_MAX_ELEMENTS 512u

struct rt_yaml_source {
    const char *text; /* borrowed, not NUL-terminated */
    size_t bytes;
    char name[RT_FILE_NAME_BYTES]; /* for messages */
};

struct rt_yaml_rules {
    const cyaml_schema_value_t *root; /* the only truth about keys and types */
    const char *language;             /* "YAML", "JSON": for messages */
    bool skip_unknown;                /* unknown keys are skipped, not errors */
    /* What the value at a path must be ("an integer from 2 to 64"); null: only its type. */
    const char *(*must)(const char *path);
};

enum rt_yaml_kind { RT_YAML_SCALAR = 0, RT_YAML_LIST, RT_YAML_MAPPING };

/* One value under a key of the schema, or one element of a list. */
struct rt_yaml_node {
    char path[RT_YAML_PATH_BYTES];   /* "graphs.batch_sizes[2]" */
    char value[RT_YAML_VALUE_BYTES]; /* as written, printable, shortened */
    const char *must;                /* static storage */
    uint32_t line, column;           /* of the value, from 1 */
    enum rt_yaml_kind kind;
};

struct rt_yaml_index {
    struct rt_yaml_node *nodes; /* in the order of the text */
    uint32_t count, capacity;
};

/*
 * Reads the text alongside the schema. RT_ERR_CONFIG: not YAML, empty, no mapping, several
 * documents, an alias, an unknown, repeated or missing key, a number that is not one.
 * On failure *out is zeroed.
 */
enum rt_status rt_yaml_index_build(const struct rt_yaml_source *source,
                                   const struct rt_yaml_rules *rules, struct rt_yaml_index *out,
                                   struct rt_error *err);
void rt_yaml_index_free(struct rt_yaml_index *index);

/* The node at a path, or null. */
const struct rt_yaml_node *rt_yaml_find(const struct rt_yaml_index *index, const char *path);

/* RT_ERR_CONFIG: "NAME:LINE: PATH is VALUE: must be MUST"; must null: the node's own. */
enum rt_status rt_yaml_fail(const struct rt_yaml_source *source, const struct rt_yaml_node *node,
                            const char *must, struct rt_error *err);

#endif
