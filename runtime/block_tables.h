/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_BLOCK_TABLES_H
#define RT_RUNTIME_BLOCK_TABLES_H

/* What blocks look up by position, made on the host once. */
#include "buffers/arena.h"
#include "replayrt/rt.h"

/* Fills rope_table and query_scale, where the placement has them. Blocks. */
enum rt_status rt_block_tables_fill(const struct rt_config *config, const struct rt_arena *arena,
                                    struct rt_driver *d, rt_dstream stream, struct rt_error *err);

#endif
