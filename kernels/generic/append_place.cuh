/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_APPEND_PLACE_CUH
#define RT_KERNELS_GENERIC_APPEND_PLACE_CUH

/* Where append_general and append_quant put a token, and where they take its pieces from. */
#include "kernels/abi/append.h"
#include "kernels/device/page_row.cuh"

/* 64-bit: a slot is any number, also one whose page does not fit 32 bits. */
template <class AHEAD>
static __device__ __forceinline__ struct rt_page_row slot_place(const struct rt_kv_view &kv,
                                                                int64_t slot, const AHEAD &ahead)
{
    struct rt_page_row at = {};
    if (slot < 0 || (uint64_t)slot >= (uint64_t)kv.pages * kv.page_size)
        return at;
    ahead();
    const uint64_t page = (uint64_t)slot / kv.page_size;
    at.page = kv.base + (int64_t)page * kv.page_stride_bytes;
    at.row = (uint32_t)((uint64_t)slot - page * kv.page_size);
    return at;
}

/* By the table, as append does it. */
template <class AHEAD>
static __device__ __forceinline__ struct rt_page_row
table_place(const struct rt_append_params &p, const rt_divisor<uint32_t> &page_size, uint32_t row,
            uint32_t token, const AHEAD &ahead)
{
    const int32_t slot = p.rows.slot ? p.rows.slot[row] : (int32_t)row;
    const int32_t position = p.rows.position[row];
    if (slot < 0 || position < 0 || !rt_row_has(&p.rows, row, token))
        return {};
    ahead();
    return find_page_row(p.kv, page_size, (uint32_t)slot, (uint32_t)position + token);
}

/* Of token `token` of row `row`, the index-th of all. ahead() is called of one that is no padding,
 * in front of the trip to the table. */
template <class AHEAD>
static __device__ __forceinline__ struct rt_page_row
append_place(const struct rt_append_general_params &p, const rt_divisor<uint32_t> &page_size,
             uint32_t row, uint32_t token, uint32_t index, const AHEAD &ahead)
{
    return p.slots ? slot_place(p.append.kv, p.slots[index], ahead)
                   : table_place(p.append, page_size, row, token, ahead);
}

static __device__ __forceinline__ const uint4 *token_piece(const struct rt_tokens_view &view,
                                                           int64_t row, uint32_t token)
{
    return reinterpret_cast<const uint4 *>(view.base + row * view.row_stride +
                                           token * view.token_stride);
}

#endif
