/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_NORM_CUH
#define RT_KERNELS_DEVICE_NORM_CUH

/* RMSNorm by the formula of kernels/abi/norm.h: what a thread does with eight numbers of x, and the
 * sum of their squares over a warp or a block. */
#include "kernels/abi/norm.h"
#include "kernels/device/bf16x8.cuh"
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/ptx/rsqrt.cuh"
#include "kernels/device/scan.cuh"

/* Eight weights, which are constant: they may be asked for before the wait. Zeros where there is no
 * such vector, or no norm. */
static __device__ __forceinline__ uint4 rt_norm_weight(const struct rt_norm_view &norm,
                                                       uint32_t vector)
{
    const bool have = norm.weight && vector < norm.width / 8;
    return have ? reinterpret_cast<const uint4 *>(norm.weight)[vector] : make_uint4(0, 0, 0, 0);
}

static __device__ __forceinline__ float rt_squares(const uint4 &packed)
{
    const struct rt_floats8 x = rt_unpack_bf16x8(packed);
    float even = 0.0f, odd = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        even = fmaf(x.at[i], x.at[i], even);
        odd = fmaf(x.at[i + 1], x.at[i + 1], odd);
    }
    return even + odd;
}

/* What x is multiplied by besides its weight. */
static __device__ __forceinline__ float rt_norm_factor(const struct rt_norm_view &norm,
                                                       float squares)
{
    const float mean = squares * rt_reciprocal((float)norm.width);
    return rt_rsqrt(mean + norm.eps) * norm.scale;
}

static __device__ __forceinline__ uint4 rt_normed(const struct rt_norm_view &norm,
                                                  const uint4 &packed, const uint4 &weights,
                                                  float factor)
{
    struct rt_floats8 x = rt_unpack_bf16x8(packed);
    const struct rt_floats8 w = rt_unpack_bf16x8(weights);
#pragma unroll
    for (int i = 0; i < 8; i++)
        x.at[i] = x.at[i] * factor * (w.at[i] + norm.offset);
    return rt_pack_bf16x8(x);
}

/* The sum of every COUNT-th of WARPS numbers from `first` on, by halves. A loop over halves stays a
 * loop, and then its numbers lie in memory: nvcc 13.0. */
template <uint32_t WARPS, uint32_t COUNT = 1>
static __device__ __forceinline__ float rt_sum_of_warps(const float (&sums)[WARPS],
                                                        uint32_t first = 0)
{
    if constexpr (COUNT == WARPS)
        return sums[first];
    else
        return rt_sum_of_warps<WARPS, 2 * COUNT>(sums, first) +
               rt_sum_of_warps<WARPS, 2 * COUNT>(sums, first + COUNT);
}

/*
 * The sum over a block of WARPS warps, a power of two: the same bits in every thread. One barrier;
 * `sums` may be used again when every thread has come to another.
 */
template <uint32_t WARPS>
static __device__ __forceinline__ float rt_block_sum(float value, float (&sums)[WARPS])
{
    const float of_warp = rt_warp_sum(value);
    if (rt_lane() == 0)
        sums[threadIdx.x / RT_WARP_LANES] = of_warp;
    __syncthreads();
    return rt_sum_of_warps(sums);
}

#endif
