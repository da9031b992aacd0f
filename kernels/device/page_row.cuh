/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PAGE_ROW_CUH
#define RT_KERNELS_DEVICE_PAGE_ROW_CUH

#include "kernels/abi/views.h"
#include "kernels/device/divisor.cuh"

/* Where a token lies in its page; null where there is no such page. `slot` and `position` are not
 * negative. */
static __device__ __forceinline__ uint4 *page_row(const struct rt_kv_view &kv,
                                                  const rt_divisor<uint32_t> &page_size,
                                                  uint32_t slot, uint32_t position)
{
    const uint32_t column = page_size.quotient(position);
    if (column >= kv.max_blocks)
        return nullptr;
    const int32_t page = kv.table[(uint64_t)slot * kv.max_blocks + column];
    if (page < 0 || (uint32_t)page >= kv.pages)
        return nullptr;
    return reinterpret_cast<uint4 *>(kv.base + page * kv.page_stride_bytes +
                                     (int64_t)(position - column * kv.page_size) *
                                         kv.token_stride_bytes);
}

#endif
