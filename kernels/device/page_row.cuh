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

/* A token's entry of a table, asked for and not looked at: -1 where there is no column for it. */
struct rt_page_entry {
    int32_t page;
    uint32_t row;
};

/* `slot` and `position` are not negative; column: position / kv.page_size. */
static __device__ __forceinline__ struct rt_page_entry
ask_page_entry(const struct rt_kv_view &kv, uint32_t column, uint32_t slot, uint32_t position)
{
    int32_t page = -1;
    if (column < kv.max_blocks)
        page = kv.table[(uint64_t)slot * kv.max_blocks + column];
    return {page, position - column * kv.page_size};
}

static __device__ __forceinline__ struct rt_page_row page_row_of(const struct rt_kv_view &kv,
                                                                 const struct rt_page_entry &entry)
{
    if (entry.page < 0 || (uint32_t)entry.page >= kv.pages)
        return {};
    return {kv.base + entry.page * kv.page_stride_bytes, entry.row};
}

/* Where a token lies, likewise. */
static __device__ __forceinline__ struct rt_page_row
find_page_row(const struct rt_kv_view &kv, const rt_divisor<uint32_t> &page_size, uint32_t slot,
              uint32_t position)
{
    return page_row_of(kv, ask_page_entry(kv, page_size.quotient(position), slot, position));
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
