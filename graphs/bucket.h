/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_GRAPHS_BUCKET_H
#define RT_GRAPHS_BUCKET_H

#include <stdint.h>

/* `batch_sizes: auto`: 1, 2, 4, then steps of 8 to 64, of 16 to 256, of 32 to 512, of 64 on, and
 * max_batch itself. Writes at most RT_MAX_BUCKETS ascending sizes, returns how many. */
uint32_t rt_bucket_ladder(uint32_t max_batch, uint32_t *sizes);

#endif
