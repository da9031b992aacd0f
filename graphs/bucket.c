/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/bucket.h"

#include "replayrt/rt.h"

static uint32_t ladder_step(uint32_t size)
{
    if (size < 8)
        return size < 4 ? size : 4;
    if (size < 64)
        return 8;
    if (size < 256)
        return 16;
    return size < 512 ? 32 : 64;
}

uint32_t rt_bucket_ladder(uint32_t max_batch, uint32_t *sizes)
{
    if (max_batch == 0)
        return 0;
    uint32_t count = 0;
    for (uint32_t size = 1; size < max_batch && count < RT_MAX_BUCKETS - 1;
         size += ladder_step(size))
        sizes[count++] = size;
    sizes[count++] = max_batch;
    return count;
}
