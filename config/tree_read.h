/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_TREE_READ_H
#define RT_CONFIG_TREE_READ_H

/* A text into its tree, by the front end that its name asks for. */
#include "config/tree.h"

/*
 * RT_ERR_CONFIG: not YAML or not JSON, empty, no mapping, several documents, an alias, a tag other
 * than !!str, a key that is no word, too deep, too many values. RT_ERR_NOMEM. On failure *out is
 * zeroed.
 */
enum rt_status rt_tree_read(const struct rt_source *source, struct rt_tree *out,
                            struct rt_error *err);

#endif
