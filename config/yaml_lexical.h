/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_YAML_LEXICAL_H
#define RT_CONFIG_YAML_LEXICAL_H

/* How a scalar is written, and whether that fits its type in the schema. */
#include "config/yaml_index.h"

#include <yaml.h>

struct rt_yaml_scalar {
    const char *text; /* borrowed from the event, NUL-terminated at [length] */
    size_t length;    /* a NUL inside makes it longer than strlen */
    bool quoted;      /* or written as a block: a string whatever is in it */
};

/* Of a scalar event. */
struct rt_yaml_scalar rt_yaml_scalar_of(const yaml_event_t *event);

/*
 * Numbers are plain decimals, without sign where the schema's type has none, without leading zeros
 * and without a fraction where it is an integer; a boolean is true or false (libcyaml takes any
 * other word for true); a null only where the schema allows one; no NUL anywhere. Other types are
 * left to libcyaml.
 */
bool rt_yaml_scalar_fits(const struct rt_yaml_scalar *scalar, const cyaml_schema_value_t *schema);

/* Copies for a message: unprintable characters become '?', a long text ends in "...". */
void rt_yaml_show(const char *text, size_t length, char out[RT_YAML_VALUE_BYTES]);
/* The same with quotes where it was quoted, and "null" for nothing. */
void rt_yaml_show_scalar(const struct rt_yaml_scalar *scalar, char out[RT_YAML_VALUE_BYTES]);

/* "an integer", "a list", ...: static storage. */
const char *rt_yaml_type_name(cyaml_type_e type);

#endif
