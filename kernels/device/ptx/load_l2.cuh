/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_LOAD_L2_CUH
#define RT_KERNELS_DEVICE_PTX_LOAD_L2_CUH

/*
 * Loads from global memory through L2 only, never of a stale line of L1: PTX ISA, "ld.global.cg".
 * volatile, memory: a load that others are to overlap stays where it is. And what brings a line as
 * far as L2, "prefetch.global.L2".
 */
#include <stdint.h>

static __device__ __forceinline__ uint4 rt_load_l2_16(const void *from)
{
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

static __device__ __forceinline__ uint32_t rt_load_l2_4(const void *from)
{
    uint32_t v;
    asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
    return v;
}

static __device__ __forceinline__ void rt_prefetch_l2(const void *line)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(line) : "memory");
}

#endif
