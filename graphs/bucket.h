/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_GRAPHS_BUCKET_H
#define RT_GRAPHS_BUCKET_H

/* Pure: live rows -> which captured graphs serve them. */
#include "common/check.h"

#include <stdint.h>

struct rt_buckets {
    const uint32_t *sizes; /* ascending, unique; borrowed */
    uint32_t count;
    uint16_t *by_rows; /* [sizes[count-1] + 1]: index of the smallest size >= rows */
};

enum rt_status rt_buckets_init(struct rt_buckets *b, const uint32_t *sizes, uint32_t count,
                               struct rt_error *err);
void rt_buckets_free(struct rt_buckets *b);

/* Rows of the next replay when `rows` remain, and its bucket's index: at most the largest size. */
static inline uint32_t rt_bucket_take(const struct rt_buckets *b, uint32_t rows, uint32_t *index)
{
    uint32_t largest = b->sizes[b->count - 1];
    uint32_t take = rows < largest ? rows : largest;
    *index = b->by_rows[take];
    return take;
}

/* Replays that `rows` rows need. */
uint32_t rt_bucket_replays(const struct rt_buckets *b, uint32_t rows);

/* Rows the data tensors must have so that row_base + bucket stays inside for any live count up to
 * max_rows; at least the largest size, whose graph may be replayed without a live row. */
uint64_t rt_bucket_capacity(const uint32_t *sizes, uint32_t count, uint32_t max_rows);

#endif
