/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_GATHER_H
#define RT_KERNELS_ABI_GATHER_H

#include "kernels/abi/prefill.h"

#define RT_KV_GATHER_MOST_BYTES (1u << 16) /* of a token */

/* A block's share of out: vectors of 16 bytes, a few of each thread. */
#define RT_KV_GATHER_THREADS 256u
#define RT_KV_GATHER_DEPTH 4u
#define RT_KV_GATHER_VECTORS (RT_KV_GATHER_THREADS * RT_KV_GATHER_DEPTH)

/*
 * kv_gather: tokens of a paged cache, rows' one behind the other, bit for bit. They are counted
 * through all rows: row r has those from first[r] up to but not including first[r + 1], and the
 * first of them is at position[r] of its pages. Token begin + j, of row r, becomes out[j]:
 *
 *   out[j] = cache of row r at position[r] + begin + j - first[r]
 *
 * Zeros where the row's slot is negative, the position is outside of 0..INT32_MAX or in no column
 * of the table, or the page is none of 0..pages - 1. What is no row's, in front of first[0] or from
 * first[rows] on, is left alone.
 *
 * first does not fall. Where it does, a token is of any row that holds it, and nothing is read or
 * written outside of what is named here.
 */
struct rt_kv_gather_params {
    struct rt_kv_view kv;
    const int32_t *slot;     /* [rows] line of the table; or null: row r has line r */
    const int32_t *first;    /* [rows + 1] */
    const int32_t *position; /* [rows]; or null: 0 */
    void *out;               /* [count, kv.token_bytes], 16-byte aligned */
    uint32_t rows;           /* 1..RT_PREFILL_MOST_ROWS */
    uint32_t begin, count;   /* together up to INT32_MAX */
    uint32_t reserved;
};
#define RT_KV_GATHER_PARAMS_ADDRESSES(type, at)                                                    \
    (RT_KV_ADDRESSES(type, at kv) | RT_ADDRESS(type, at slot) | RT_ADDRESS(type, at first) |       \
     RT_ADDRESS(type, at position) | RT_ADDRESS(type, at out))
RT_STATIC_ASSERT(sizeof(struct rt_kv_gather_params) == 96, "kv_gather ABI");

/*
 * The row that holds a token of first[0] .. first[rows] - 1. The token is never in front of
 * first[low] nor behind first[high], whatever lies between: so it is in the row that is found, if
 * first falls too.
 */
static RT_HD inline uint32_t rt_kv_gather_row(const int32_t *first, uint32_t rows, int64_t token)
{
    uint32_t low = 0, high = rows;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (first[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

#endif
