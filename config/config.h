/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_CONFIG_H
#define RT_CONFIG_CONFIG_H

/* A configuration's inside: where it is wrong, and reading one from memory. */
#include "config/config_keys.h"

/* False, and the first thing that is wrong, where something is; struct_size is not looked at. */
bool rt_config_is_good(const struct rt_config *config, struct rt_key_fault *fault);

/* The caller's struct in this library's size, checked: what a shorter one lacks is the default. */
enum rt_status rt_config_take(const struct rt_config *given, struct rt_config *out,
                              struct rt_error *err);

/* A file read as far as it goes by itself: its model is still to be read. */
struct rt_config_draft {
    struct rt_config config; /* first: config_keys.h says why */
    const char *model_path;  /* relative to the file's folder; null: the geometry is inline */
    uint32_t tensor_parallel;
    uint32_t max_batch; /* 0: not given */
    const struct rt_node *given[RT_KEY_COUNT];
    struct rt_tree tree; /* owns the nodes and the path */
};

/* On failure nothing is to be freed. */
enum rt_status rt_config_draft_parse(const struct rt_source *source, struct rt_config_draft *draft,
                                     struct rt_error *err);
void rt_config_draft_free(struct rt_config_draft *draft);

/* What a config.json says. */
struct rt_model_shape {
    struct rt_geometry geometry; /* of the whole model */
    struct rt_block block;       /* zero where the draft does not want layers */
};

/* `model` is null where the draft has none. Checks everything; *out is written on success only. */
enum rt_status rt_config_draft_finish(const struct rt_source *source,
                                      const struct rt_config_draft *draft,
                                      const struct rt_model_shape *model, struct rt_config *out,
                                      struct rt_error *err);

#endif
