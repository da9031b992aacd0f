/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_TMA_PREFETCH_CUH
#define RT_KERNELS_DEVICE_PTX_TMA_PREFETCH_CUH

/*
 * A box that will be copied later, as kernels/device/ptx/tma.cuh has them, brought as far as L2:
 * PTX ISA, "cp.async.bulk.prefetch.tensor". volatile, memory: in front of what it is to overlap.
 */
#include <stdint.h>

static __device__ __forceinline__ void rt_tma_prefetch_3(const void *map, int x, int y, int z)
{
    asm volatile("cp.async.bulk.prefetch.tensor.3d.L2.global [%0, {%1, %2, %3}];" ::"l"(map),
                 "r"(x), "r"(y), "r"(z)
                 : "memory");
}

static __device__ __forceinline__ void rt_tma_prefetch_5(const void *map, int x, int y, int z,
                                                         int w, int v)
{
    asm volatile(
        "cp.async.bulk.prefetch.tensor.5d.L2.global [%0, {%1, %2, %3, %4, %5}];" ::"l"(map), "r"(x),
        "r"(y), "r"(z), "r"(w), "r"(v)
        : "memory");
}

#endif
