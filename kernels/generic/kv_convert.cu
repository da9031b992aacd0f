/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_convert: tokens of one cache into another of any layout, by the rule of kernels/abi/convert.h.
 *
 *   from [pages, page_size] rows, to [pages, page_size] rows, tables [rows, max_blocks], length
 *   [rows]
 *
 * rt_kv_convert: a quarter of a warp a token (kernels/generic/kv_convert.cuh). rt_kv_convert_even:
 * likewise, from e4m3 to e4m3 (kv_convert_even.cuh). rt_kv_copy: half a warp a token, byte for
 * byte. No shared memory, no barrier:
 *
 *   wait │ length, both tables' entries │ vectors, scales │ largest magnitudes │ stores
 */
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/generic/kv_convert_even.cuh"

/* Where a token lies on both sides; null where it is not to be converted. */
struct rt_kv_convert_places {
    struct rt_quant_row from, to;
};

/* Pages of a power of two need no division. */
static __device__ __forceinline__ uint32_t rt_kv_convert_column(uint32_t position, uint32_t size)
{
    return (size & (size - 1)) == 0 ? position >> (__ffs((int)size) - 1) : position / size;
}

/* Length and entries are asked for together: an entry behind the length may be read, too. */
static __device__ __forceinline__ struct rt_kv_convert_places
rt_kv_convert_find(const struct rt_kv_convert_params &p, uint32_t row, uint32_t position)
{
    struct rt_kv_convert_places at = {};
    const int64_t length = p.length[row];
    const struct rt_page_entry from_entry =
        ask_page_entry(p.from, rt_kv_convert_column(position, p.from.page_size), row, position);
    const struct rt_page_entry to_entry =
        ask_page_entry(p.to, rt_kv_convert_column(position, p.to.page_size), row, position);
    if (position >= p.max_length || (int64_t)position >= length)
        return at;
    const struct rt_page_row from = page_row_of(p.from, from_entry);
    const struct rt_page_row to = page_row_of(p.to, to_entry);
    if (!from.page || !to.page)
        return at;
    at.from = rt_quant_row_at(p.from, p.from_quant, from);
    at.to = rt_quant_row_at(p.to, p.to_quant, to);
    return at;
}

/* A row as it is, and scales that lie apart from it. */
static __device__ __forceinline__ void rt_kv_convert_copy(const struct rt_kv_convert_params &p,
                                                          const struct rt_quant_row &from,
                                                          const struct rt_quant_row &to)
{
    constexpr uint32_t ROUNDS =
        RT_KV_CONVERT_MOST_WIDTH * sizeof(uint16_t) / sizeof(uint4) / RT_KV_COPY_LANES;
    const uint32_t lane = threadIdx.x % RT_KV_COPY_LANES;
    const uint32_t vectors = p.from.token_bytes / sizeof(uint4);
    uint4 x[ROUNDS];
#pragma unroll
    for (uint32_t i = 0; i < ROUNDS; i++)
        if (i * RT_KV_COPY_LANES + lane < vectors)
            x[i] = reinterpret_cast<const uint4 *>(from.row)[i * RT_KV_COPY_LANES + lane];
    const bool apart = p.from_quant.scale_stride_bytes != p.from.token_stride_bytes;
    if (apart && lane < p.from_quant.scale_bytes)
        to.scales[lane] = from.scales[lane];
#pragma unroll
    for (uint32_t i = 0; i < ROUNDS; i++)
        if (i * RT_KV_COPY_LANES + lane < vectors)
            reinterpret_cast<uint4 *>(to.row)[i * RT_KV_COPY_LANES + lane] = x[i];
}

#define RT_KV_CONVERT_EVEN_BLOCKS 5 /* of a multiprocessor: 48 registers */

/* The token of this thread's quarter of a warp. */
static __device__ __forceinline__ struct rt_kv_convert_places
rt_kv_convert_find_mine(const struct rt_kv_convert_params &p)
{
    constexpr uint32_t TOKENS = RT_KV_CONVERT_TOKENS(RT_KV_CONVERT_LANES);
    return rt_kv_convert_find(p, blockIdx.y,
                              blockIdx.x * TOKENS + threadIdx.x / RT_KV_CONVERT_LANES);
}

extern "C" __global__ void __launch_bounds__(RT_KV_CONVERT_THREADS, 4)
    rt_kv_convert(const __grid_constant__ struct rt_kv_convert_params p)
{
    struct rt_convert_token token = {};
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
        token.scale[i] = 1.0f;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const struct rt_kv_convert_places at = rt_kv_convert_find_mine(p);
    if (at.from.row)
        rt_convert_load(p.from_quant, at.from, p.d_qk, token);
    rt_convert_by_bf16(p, at.to, token);
    rt_convert_behind(p, at.to, rt_convert_first(RT_CONVERT_ROUNDS), token.x[RT_CONVERT_ROUNDS]);
}

extern "C" __global__ void __launch_bounds__(RT_KV_CONVERT_THREADS, RT_KV_CONVERT_EVEN_BLOCKS)
    rt_kv_convert_even(const __grid_constant__ struct rt_kv_convert_params p)
{
    struct rt_convert_even_token token = {};
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
        token.scale[i] = 1.0f;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const struct rt_kv_convert_places at = rt_kv_convert_find_mine(p);
    if (at.from.row)
        rt_convert_even_load(p, at.from, token);
    rt_convert_behind(p, at.to, rt_convert_first_behind(p), token.rest); /* eight registers less */
    if (!rt_convert_even_by_f16(p, at.to, token))
        rt_convert_even_by_bf16(p, at.to, token);
}

extern "C" __global__ void __launch_bounds__(RT_KV_CONVERT_THREADS)
    rt_kv_copy(const __grid_constant__ struct rt_kv_convert_params p)
{
    constexpr uint32_t TOKENS = RT_KV_CONVERT_TOKENS(RT_KV_COPY_LANES);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const struct rt_kv_convert_places at =
        rt_kv_convert_find(p, blockIdx.y, blockIdx.x * TOKENS + threadIdx.x / RT_KV_COPY_LANES);
    if (at.from.row)
        rt_kv_convert_copy(p, at.from, at.to);
}
