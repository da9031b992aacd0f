/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_ORDER_CUH
#define RT_KERNELS_DEVICE_ORDER_CUH

/*
 * Floats as unsigned numbers of the same order, which a warp compares in one instruction: NaN is
 * the least, the two zeros are equal. 0 is no float's: what is out of the competition.
 */
#include <stdint.h>

#define RT_ORDER_OUT 0u
#define RT_ORDER_NAN 1u
#define RT_ORDER_SIGN 0x80000000u

static __device__ __forceinline__ uint32_t rt_order_key(float value)
{
    const uint32_t bits = __float_as_uint(value + 0.0f); /* -0 becomes 0 */
    const uint32_t key = bits & RT_ORDER_SIGN ? ~bits : bits | RT_ORDER_SIGN;
    return value == value ? key : RT_ORDER_NAN;
}

static __device__ __forceinline__ float rt_order_float(uint32_t key)
{
    const uint32_t bits = key & RT_ORDER_SIGN ? key ^ RT_ORDER_SIGN : ~key;
    return __uint_as_float(key == RT_ORDER_NAN ? 0x7fc00000u : bits);
}

#endif
