/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_RELAXED_CUH
#define RT_KERNELS_DEVICE_PTX_RELAXED_CUH

/*
 * Words that blocks of one grid hand to each other: PTX ISA, "ld.relaxed.gpu", "st.relaxed.gpu".
 * They go to L2 every time, never to a stale line of L1. A vector is no one access: each of its
 * words arrives by itself, and says nothing about any other.
 * volatile, memory: a load that is tried again is made again.
 */
#include <stdint.h>

static __device__ __forceinline__ void rt_load_relaxed(uint32_t &v, const void *from)
{
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
}

static __device__ __forceinline__ void rt_load_relaxed(uint2 &v, const void *from)
{
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];"
                 : "=r"(v.x), "=r"(v.y)
                 : "l"(from)
                 : "memory");
}

static __device__ __forceinline__ void rt_load_relaxed(uint4 &v, const void *from)
{
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from)
                 : "memory");
}

static __device__ __forceinline__ void rt_store_relaxed(void *to, uint32_t v)
{
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(v) : "memory");
}

static __device__ __forceinline__ void rt_store_relaxed(void *to, const uint2 &v)
{
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(v.x), "r"(v.y)
                 : "memory");
}

static __device__ __forceinline__ void rt_store_relaxed(void *to, const uint4 &v)
{
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x),
                 "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

#endif
