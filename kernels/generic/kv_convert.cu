/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_convert: tokens of one cache into another of any layout, by the rule of kernels/abi/convert.h.
 *
 *   from [pages, page_size] rows, to [pages, page_size] rows, tables [rows, max_blocks], length
 *   [rows]
 *
 * A warp a token, as append has it, shared among its lanes as kernels/device/quantise.cuh says; no
 * shared memory, no barrier. bf16 is a row that has no e4m3, so there is one way from any layout to
 * any other:
 *
 *   wait │ length │ both tables' entries │ vectors, scales │ largest magnitudes │ stores
 */
#include "kernels/abi/convert.h"
#include "kernels/device/dequantise.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/quantise.cuh"

/* A row as it is, and scales that lie apart from it. */
static __device__ __forceinline__ void rt_kv_convert_copy(const struct rt_kv_convert_params &p,
                                                          const struct rt_quant_row &from,
                                                          const struct rt_quant_row &to)
{
    for (uint32_t i = rt_lane(); i < p.from.token_bytes / sizeof(uint4); i += RT_WARP_LANES)
        reinterpret_cast<uint4 *>(to.row)[i] = reinterpret_cast<const uint4 *>(from.row)[i];
    const bool apart = p.from_quant.scale_stride_bytes != p.from.token_stride_bytes;
    if (apart && rt_lane() < p.from_quant.scale_bytes)
        to.scales[rt_lane()] = from.scales[rt_lane()];
}

/* What attention reads of a row, written as append writes it. */
static __device__ __forceinline__ void rt_kv_convert_numbers(const struct rt_kv_convert_params &p,
                                                             const struct rt_quant_row &from,
                                                             const struct rt_quant_row &to)
{
    const uint32_t vectors = p.d_qk / RT_QUANT_VECTOR;
    const struct rt_quant_token token = rt_quant_load_token(
        vectors, [&](uint32_t vector) { return rt_dequant_vector(p.from_quant, from, vector); });
    rt_quant_put_token(p.to_quant, to, vectors, token);
}

extern "C" __global__ void __launch_bounds__(RT_APPEND_WARPS *RT_WARP_LANES)
    rt_kv_convert(const __grid_constant__ struct rt_kv_convert_params p)
{
    const uint32_t row = blockIdx.y;
    const uint32_t position = blockIdx.x * RT_APPEND_WARPS + threadIdx.x / RT_WARP_LANES;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (position >= p.max_length || (int64_t)position >= p.length[row])
        return;
    const struct rt_page_row from_at =
        find_page_row(p.from, rt_divisor<uint32_t>(p.from.page_size), row, position);
    const struct rt_page_row to_at =
        find_page_row(p.to, rt_divisor<uint32_t>(p.to.page_size), row, position);
    if (!from_at.page || !to_at.page)
        return;
    const struct rt_quant_row from = rt_quant_row_at(p.from, p.from_quant, from_at);
    const struct rt_quant_row to = rt_quant_row_at(p.to, p.to_quant, to_at);
    if (p.copies)
        rt_kv_convert_copy(p, from, to);
    else
        rt_kv_convert_numbers(p, from, to);
}
