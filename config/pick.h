/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_PICK_H
#define RT_CONFIG_PICK_H

/* The few members of a mapping that matter, out of many that do not. */
#include "config/scalar.h"

enum rt_pick_type {
    RT_PICK_TEXT = 0,
    RT_PICK_COUNT, /* fits uint32_t */
    RT_PICK_NUMBER,
    RT_PICK_BOOLEAN,
    RT_PICK_MAPPING,
    RT_PICK_TEXTS, /* lists */
    RT_PICK_COUNTS,
    RT_PICK_NUMBERS
};

struct rt_pick {
    const char *key;
    enum rt_pick_type type;
};

/*
 * given[i] is the member of wanted[i], or null: a member that is null counts as not given, but
 * keeps its node. `path` is the mapping's own for messages, with a dot behind it, or "".
 * RT_ERR_CONFIG: a wanted member is given twice or has another type, a key has a NUL in it.
 */
enum rt_status rt_pick(const struct rt_source *source, const struct rt_node *mapping,
                       const char *path, const struct rt_pick *wanted, uint32_t count,
                       const struct rt_node **given, struct rt_error *err);

static inline bool rt_pick_is_given(const struct rt_node *node)
{
    return node && !rt_scalar_is_null(node);
}

/* The values of nodes that rt_pick has let pass; a default where the node is null or says null. */
const char *rt_pick_text(const struct rt_node *node);
uint32_t rt_pick_count(const struct rt_node *node);
double rt_pick_number(const struct rt_node *node);
bool rt_pick_boolean(const struct rt_node *node, bool otherwise);
#endif
