/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/bucket.h"

#include "common/math.h"
#include "replayrt/rt.h"

#include <stdlib.h>

static enum rt_status check_sizes(const uint32_t *sizes, uint32_t count, struct rt_error *err)
{
    RT_REQUIRE(sizes && count >= 1 && count <= RT_MAX_BUCKETS, err, RT_ERR_INVALID,
               "%u batch sizes, valid are 1 to %d", count, RT_MAX_BUCKETS);
    uint32_t before = 0;
    for (uint32_t i = 0; i < count; i++) {
        RT_REQUIRE(sizes[i] > before, err, RT_ERR_INVALID,
                   "batch size %u at place %u must be greater than %u", sizes[i], i, before);
        before = sizes[i];
    }
    RT_REQUIRE(before <= RT_MAX_BATCH, err, RT_ERR_INVALID, "batch size %u is above %d", before,
               RT_MAX_BATCH);
    return RT_OK;
}

enum rt_status rt_buckets_init(struct rt_buckets *b, const uint32_t *sizes, uint32_t count,
                               struct rt_error *err)
{
    *b = (struct rt_buckets){0};
    RT_TRY(check_sizes(sizes, count, err));
    const uint32_t largest = sizes[count - 1];
    uint16_t *const by_rows = malloc(((size_t)largest + 1) * sizeof(*by_rows));
    RT_REQUIRE(by_rows, err, RT_ERR_NOMEM, "no memory for a table of %u batch sizes", largest);
    uint16_t index = 0;
    for (uint32_t rows = 0; rows <= largest; rows++) {
        if (rows > sizes[index])
            index++;
        by_rows[rows] = index;
    }
    *b = (struct rt_buckets){.sizes = sizes, .count = count, .by_rows = by_rows};
    return RT_OK;
}

void rt_buckets_free(struct rt_buckets *b)
{
    free(b->by_rows);
    *b = (struct rt_buckets){0};
}

uint32_t rt_bucket_replays(const struct rt_buckets *b, uint32_t rows)
{
    return rt_ceil_div_u32(rows, b->sizes[b->count - 1]);
}

/* The last replay starts behind the full ones and may be padded. One live row more never needs
 * fewer tensor rows, so the worst live count is max_rows itself. */
uint64_t rt_bucket_capacity(const uint32_t *sizes, uint32_t count, uint32_t max_rows)
{
    const uint32_t largest = sizes[count - 1];
    if (max_rows <= largest)
        return largest;
    const uint32_t row_base = (max_rows - 1) / largest * largest;
    uint32_t index = 0;
    while (sizes[index] < max_rows - row_base)
        index++;
    return (uint64_t)row_base + sizes[index];
}
