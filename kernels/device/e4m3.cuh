/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_E4M3_CUH
#define RT_KERNELS_DEVICE_E4M3_CUH

/*
 * e4m3 <-> float, two at a time: by instructions where a device has them, else by integers, for
 * sm_80 has no conversion of its own. Both give the same bits.
 *
 *   float  s | eeeeeeee | mmm 20 more       e4m3  s | eeee | mmm
 */
#include "kernels/device/bf16.cuh"
#include "kernels/device/ptx/convert_e4m3.cuh"
#include "kernels/device/ptx/f16x2.cuh"

#define RT_E4M3_NAN 0x7fu
#define RT_E4M3_MOST 0x7eu               /* 448 */
#define RT_E4M3_MOST_FLOAT 0x43e00000u   /* 448 */
#define RT_E4M3_NORMAL_FLOAT 0x3c800000u /* 2^-6, from where on there is a leading one */
#define RT_E4M3_BIASES (120u << 3)       /* float's bias less e4m3's, where the exponent is */

/* To nearest even, saturated; NaN is 0x7f. */
static __device__ __forceinline__ uint32_t rt_float_e4m3(float value)
{
    const uint32_t bits = __float_as_uint(value), magnitude = bits & 0x7fffffffu;
    const uint32_t sign = bits >> 24 & 0x80u;
    if (magnitude > 0x7f800000u)
        return RT_E4M3_NAN;
    if (magnitude >= RT_E4M3_MOST_FLOAT)
        return sign | RT_E4M3_MOST;
    if (magnitude < RT_E4M3_NORMAL_FLOAT) {
        /* Floats from 2^14 on are 2^-9 apart, as subnormals are: the sum rounds. */
        const float shifted = __uint_as_float(magnitude) + 16384.0f;
        return sign | (__float_as_uint(shifted) - __float_as_uint(16384.0f));
    }
    const uint32_t half = 0x7ffffu + (magnitude >> 20 & 1u);
    return sign | (((magnitude + half) >> 20) - RT_E4M3_BIASES);
}

/* Exact; the byte's upper neighbours are not looked at. Exponent and mantissa in float's places are
 * the value times 2^-120, subnormals too. */
static __device__ __forceinline__ float rt_e4m3_float(uint32_t code)
{
    const uint32_t magnitude = code & 0x7fu;
    const float value = __uint_as_float((code & 0x80u) << 24 | magnitude << 20) * 0x1p120f;
    return magnitude == RT_E4M3_NAN ? __uint_as_float(0x7fffffffu) : value;
}

/* Two of a word's four, the low ones or the high ones, times scale, as bf16. f16 has every e4m3. */
static __device__ __forceinline__ uint32_t rt_e4m3x2_bf16x2(uint32_t two, float scale)
{
#if RT_HAS_CONVERT_E4M3
    const uint32_t pair = rt_e4m3x2_f16x2<0>(two);
    return rt_pack_bf16x2(rt_f16_float((uint16_t)pair) * scale,
                          rt_f16_float((uint16_t)(pair >> 16)) * scale);
#else
    return rt_pack_bf16x2(rt_e4m3_float(two) * scale, rt_e4m3_float(two >> 8) * scale);
#endif
}

/* Eight, the first in the lowest byte of `low`. */
static __device__ __forceinline__ uint4 rt_e4m3x8_bf16x8(uint32_t low, uint32_t high, float scale)
{
    return make_uint4(rt_e4m3x2_bf16x2(low, scale), rt_e4m3x2_bf16x2(low >> 16, scale),
                      rt_e4m3x2_bf16x2(high, scale), rt_e4m3x2_bf16x2(high >> 16, scale));
}

/* Two numbers of bf16 times factor, as e4m3. A product that is NaN has no sign on a GPU, whatever
 * NaN came in, and so the instruction's is 0x7f as well. */
static __device__ __forceinline__ uint32_t rt_bf16x2_e4m3x2(uint32_t two, float factor)
{
    const float low = rt_bf16_low(two) * factor, high = rt_bf16_high(two) * factor;
#if RT_HAS_CONVERT_E4M3
    return rt_pack_e4m3x2(low, high);
#else
    return rt_float_e4m3(low) | rt_float_e4m3(high) << 8;
#endif
}

/* 2^log2 for log2 -126..127. */
static __device__ __forceinline__ float rt_power_of_2(int log2)
{
    return __uint_as_float((uint32_t)(log2 + 127) << 23);
}

#endif
