/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_SCAN_CUH
#define RT_KERNELS_DEVICE_SCAN_CUH

/* Sums over the lanes of a full warp: every lane calls. uint32_t is the fast type. */
#include <stdint.h>

#define RT_WARP_LANES 32u
#define RT_FULL_WARP 0xffffffffu

static __device__ __forceinline__ uint32_t rt_lane(void)
{
    return threadIdx.x % RT_WARP_LANES;
}

/* All lanes' values: one instruction for 32 bits. */
static __device__ __forceinline__ uint32_t rt_warp_sum(uint32_t value)
{
    return __reduce_add_sync(RT_FULL_WARP, value);
}

static __device__ __forceinline__ uint64_t rt_warp_sum(uint64_t value)
{
#pragma unroll
    for (uint32_t distance = 1; distance < RT_WARP_LANES; distance *= 2)
        value += __shfl_xor_sync(RT_FULL_WARP, value, distance);
    return value;
}

/* In one order, so that two runs agree. */
/* The same bits in every lane. */
static __device__ __forceinline__ float rt_warp_sum(float value)
{
#pragma unroll
    for (uint32_t distance = 1; distance < RT_WARP_LANES; distance *= 2)
        value += __shfl_xor_sync(RT_FULL_WARP, value, distance);
    return value;
}

/* The values of the lanes up to and including this one. */
template <typename Sum> static __device__ __forceinline__ Sum rt_warp_inclusive_sum(Sum value)
{
#pragma unroll
    for (uint32_t distance = 1; distance < RT_WARP_LANES; distance *= 2) {
        const Sum below = __shfl_up_sync(RT_FULL_WARP, value, distance);
        value += rt_lane() >= distance ? below : 0;
    }
    return value;
}

#endif
