/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_TIMER_CUH
#define RT_KERNELS_DEVICE_PTX_TIMER_CUH

#include <stdint.h>

/*
 * PTX ISA, "%globaltimer": nanoseconds, the same clock on every SM. Its step depends on the device
 * (1 us and 32 ns are both seen), so differences below a few microseconds say little.
 */
static __device__ __forceinline__ uint64_t rt_globaltimer_ns(void)
{
    uint64_t ns;
    /* volatile, memory: it is read where it stands, between the accesses around it. */
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns)::"memory");
    return ns;
}

#endif
