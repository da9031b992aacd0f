/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_DECODE_TARGET_H
#define RT_TOOLS_DECODE_TARGET_H

/* Whether a file may be written over. */
#include <stdbool.h>

/* False after a message on stderr where `path` is, by whatever name, the configuration (may be
 * null) or a safetensors or JSON file of the checkpoint's folder: weights, their index, the model's
 * config.json. Reads none of them. */
bool decode_target_is_free(const char *path, const char *checkpoint, const char *config);

#endif
