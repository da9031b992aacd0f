/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_BF16_CUH
#define RT_KERNELS_DEVICE_BF16_CUH

/* bf16 <-> float of single numbers and of pairs: exact one way, round to nearest even the other. */
#include "kernels/device/ptx/convert.cuh"

static __device__ __forceinline__ float rt_bf16_float(uint32_t bits)
{
    return __uint_as_float(bits << 16);
}

/* Of two that lie one behind the other: the first is the low half. */
static __device__ __forceinline__ float rt_bf16_low(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

static __device__ __forceinline__ float rt_bf16_high(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

static __device__ __forceinline__ uint16_t rt_float_bf16(float value)
{
    return (uint16_t)rt_pack_bf16x2(value, value);
}

#endif
