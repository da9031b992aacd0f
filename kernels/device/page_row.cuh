/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PAGE_ROW_CUH
#define RT_KERNELS_DEVICE_PAGE_ROW_CUH

#include "kernels/abi/views.h"
#include "kernels/device/divisor.cuh"

/* A token's page, and its row there; page is null where there is none. */
struct rt_page_row {
    unsigned char *page;
    uint32_t row;
};

/* Where a token lies. `slot` and `position` are not negative. */
static __device__ __forceinline__ struct rt_page_row
find_page_row(const struct rt_kv_view &kv, const rt_divisor<uint32_t> &page_size, uint32_t slot,
              uint32_t position)
{
    struct rt_page_row at = {};
    const uint32_t column = page_size.quotient(position);
    if (column >= kv.max_blocks)
        return at;
    const int32_t page = kv.table[(uint64_t)slot * kv.max_blocks + column];
    if (page < 0 || (uint32_t)page >= kv.pages)
        return at;
    at.page = kv.base + page * kv.page_stride_bytes;
    at.row = position - column * kv.page_size;
    return at;
}

static __device__ __forceinline__ uint4 *row_address(const struct rt_kv_view &kv,
                                                     const struct rt_page_row &at)
{
    return at.page ? reinterpret_cast<uint4 *>(at.page + (int64_t)at.row * kv.token_stride_bytes)
                   : nullptr;
}

static __device__ __forceinline__ uint4 *page_row(const struct rt_kv_view &kv,
                                                  const rt_divisor<uint32_t> &page_size,
                                                  uint32_t slot, uint32_t position)
{
    return row_address(kv, find_page_row(kv, page_size, slot, position));
}

#endif
