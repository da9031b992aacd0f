/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_DECODE_AGREE_H
#define RT_TOOLS_DECODE_AGREE_H

/* Whether a configuration is of the model that is decoded. */
#include "replayrt/models.h"

#include <stdbool.h>

/* False after a message on stderr that names the first key in which they differ. A block is looked
 * at where the configuration has one, numbers to three digits. `path`: of the configuration. */
bool decode_agree(const char *path, const struct rt_config *file, const struct rt_model *model);

#endif
