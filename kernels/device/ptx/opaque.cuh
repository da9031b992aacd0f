/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_OPAQUE_CUH
#define RT_KERNELS_DEVICE_PTX_OPAQUE_CUH

#include <stdint.h>

/*
 * No instruction at all: the compiler must take the value as new from here on. What it derives from
 * it, addresses above all, is then derived again where it is used, instead of being kept in
 * registers through a loop that has better use for them.
 */
static __device__ __forceinline__ uint32_t rt_opaque(uint32_t value)
{
    asm volatile("" : "+r"(value));
    return value;
}

#endif
