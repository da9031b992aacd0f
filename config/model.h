/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_MODEL_H
#define RT_CONFIG_MODEL_H

/* A Hugging Face config.json -> the geometry of its MLA attention, and the rest of its block. */
#include "config/tree.h"
#include "replayrt/rt.h"

/*
 * The whole model's geometry: `heads` are all heads, not yet one GPU's; and its block, where that
 * is wanted: a null `block` is not read, and nothing that it would need is missed.
 * RT_ERR_CONFIG (a key missing, null or of the wrong type, an unknown family, no MLA),
 * RT_ERR_GEOMETRY (no kernel serves it), RT_ERR_NOMEM; each names file, line and key.
 */
enum rt_status rt_model_parse(const struct rt_source *source, struct rt_geometry *out,
                              struct rt_block *block, struct rt_error *err);

/* The same from a file; also RT_ERR_FILE. Blocks. */
enum rt_status rt_model_load(const char *path, struct rt_geometry *out, struct rt_block *block,
                             struct rt_error *err);

#endif
