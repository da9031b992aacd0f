/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_CONFIG_H
#define RT_CONFIG_CONFIG_H

/* A configuration's inside: where it is wrong, and reading one from memory. */
#include "config/config_schema.h"

/* The first thing wrong with a configuration, fit for a message about the struct or the file. */
struct rt_config_fault {
    enum rt_status status; /* RT_ERR_GEOMETRY for the geometry, RT_ERR_CONFIG for the rest */
    enum rt_config_key key;
    int32_t element; /* of a list; -1: the value as a whole */
    char value[96];
    char must[160];
};

/* False where nothing is wrong; struct_size is not looked at. */
bool rt_config_find_fault(const struct rt_config *config, struct rt_config_fault *fault);

/* A file read as far as it goes by itself: its model is still to be read. */
struct rt_config_draft {
    struct rt_config config;
    char *model_path; /* owned, relative to the file's folder; null: the geometry is inline */
    uint32_t tensor_parallel;
    struct rt_yaml_index index;
};

/* On failure nothing is to be freed. */
enum rt_status rt_config_draft_parse(const struct rt_yaml_source *source,
                                     struct rt_config_draft *draft, struct rt_error *err);
void rt_config_draft_free(struct rt_config_draft *draft);

/* `model` is the whole model's geometry, null where the draft has none. Checks everything; *out is
 * written on success only. */
enum rt_status rt_config_draft_finish(const struct rt_yaml_source *source,
                                      const struct rt_config_draft *draft,
                                      const struct rt_geometry *model, struct rt_config *out,
                                      struct rt_error *err);

#endif
