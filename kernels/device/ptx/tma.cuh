/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_TMA_CUH
#define RT_KERNELS_DEVICE_PTX_TMA_CUH

/*
 * Boxes of a tensor, copied from global to shared memory by the copy engine: PTX ISA,
 * "cp.async.bulk.tensor". One thread asks; the bytes of the whole box, zeros for what lies outside
 * the tensor included, are counted at the barrier. `shared` is a multiple of 1024 bytes from where
 * the 128-byte swizzle starts. The map is a kernel parameter.
 * volatile, memory: the copy must not move across the waits that free its destination.
 */
#include "kernels/device/ptx/mbarrier.cuh"

/* Brings the map itself closer: PTX ISA, "prefetch.tensormap". */
static __device__ __forceinline__ void rt_tma_prefetch_map(const void *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* What is read once leaves L2 first: PTX ISA, "createpolicy". */
static __device__ __forceinline__ uint64_t rt_tma_evict_first(void)
{
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

/* What is there again before long leaves L2 last: PTX ISA, "createpolicy". */
static __device__ __forceinline__ uint64_t rt_tma_evict_last(void)
{
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

/* What others read again stays in L2 as it would without being asked: PTX ISA, "createpolicy". */
static __device__ __forceinline__ uint64_t rt_tma_evict_normal(void)
{
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

/* A box of a tensor with three dimensions. */
static __device__ __forceinline__ void rt_tma_load_3(void *shared, const void *map,
                                                     uint64_t *barrier, int x, int y, int z,
                                                     uint64_t policy)
{
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(rt_shared_address(shared)),
        "l"(map), "r"(rt_shared_address(barrier)), "r"(x), "r"(y), "r"(z), "l"(policy)
        : "memory");
}

/* With four. */
static __device__ __forceinline__ void rt_tma_load_4(void *shared, const void *map,
                                                     uint64_t *barrier, int x, int y, int z, int w,
                                                     uint64_t policy)
{
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(rt_shared_address(shared)),
        "l"(map), "r"(rt_shared_address(barrier)), "r"(x), "r"(y), "r"(z), "r"(w), "l"(policy)
        : "memory");
}

/* With five. */
static __device__ __forceinline__ void rt_tma_load_5(void *shared, const void *map,
                                                     uint64_t *barrier, int x, int y, int z, int w,
                                                     int v, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(
                     rt_shared_address(shared)),
                 "l"(map), "r"(rt_shared_address(barrier)), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v),
                 "l"(policy)
                 : "memory");
}

#endif
