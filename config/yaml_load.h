/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_YAML_LOAD_H
#define RT_CONFIG_YAML_LOAD_H

/* An indexed text into typed values, by libcyaml. */
#include "config/yaml_index.h"

/*
 * Loads the text by its schema. `rules` may hold another variant of the schema than the index was
 * built with. *out is released by rt_yaml_unload with the same rules. libcyaml's errors are turned
 * into RT_ERR_CONFIG with line, key and value by way of the index.
 */
enum rt_status rt_yaml_load(const struct rt_yaml_source *source, const struct rt_yaml_rules *rules,
                            const struct rt_yaml_index *index, void **out, struct rt_error *err);
/* data may be null. */
void rt_yaml_unload(const struct rt_yaml_rules *rules, void *data);

#endif
