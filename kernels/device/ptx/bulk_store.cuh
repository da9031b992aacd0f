/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_BULK_STORE_CUH
#define RT_KERNELS_DEVICE_PTX_BULK_STORE_CUH

/*
 * Contiguous bytes from shared to global memory by the copy engine: PTX ISA, "cp.async.bulk". Both
 * addresses and the size are multiples of 16. What threads stored to shared memory needs
 * rt_fence_async by each of them, and a barrier, before. Groups are per thread.
 * volatile, memory: the source must be complete before, and is free only behind a wait.
 */
#include <stdint.h>

static __device__ __forceinline__ void rt_bulk_store(void *global, const void *shared,
                                                     uint32_t bytes)
{
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global),
                 "r"((uint32_t)__cvta_generic_to_shared(shared)), "r"(bytes)
                 : "memory");
}

static __device__ __forceinline__ void rt_bulk_store_commit(void)
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* All of this thread's stores have read their source. */
static __device__ __forceinline__ void rt_bulk_store_wait_read(void)
{
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/* All of this thread's stores have been made. */
static __device__ __forceinline__ void rt_bulk_store_wait(void)
{
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

#endif
