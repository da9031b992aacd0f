/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_BULK_CUH
#define RT_KERNELS_DEVICE_PTX_BULK_CUH

/*
 * A piece of memory as it lies, copied from global to shared memory by the copy engine: PTX ISA,
 * "cp.async.bulk". One thread asks; the bytes are counted at the barrier. Both addresses and the
 * count are multiples of 16 bytes. `policy` as in tma.cuh.
 */
#include "kernels/device/ptx/tma.cuh"

/* volatile, memory: the copy must not move across the waits that free its destination. */
static __device__ __forceinline__ void
rt_bulk_load(void *shared, const void *global, uint32_t bytes, uint64_t *barrier, uint64_t policy)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1], %2, [%3], %4;" ::"r"(rt_shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(rt_shared_address(barrier)), "l"(policy)
                 : "memory");
}

/* A piece that will be copied later, brought as far as L2: PTX ISA, "cp.async.bulk.prefetch.L2". */
static __device__ __forceinline__ void rt_bulk_prefetch(const void *global, uint32_t bytes)
{
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes) : "memory");
}

#endif
