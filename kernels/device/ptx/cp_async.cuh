/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_CP_ASYNC_CUH
#define RT_KERNELS_DEVICE_PTX_CP_ASYNC_CUH

/*
 * Copies from global to shared memory that run behind the thread's back: PTX ISA, "cp.async".
 * A thread's copies are committed in groups that complete in order. A wait makes the thread's own
 * copies visible to itself; a barrier after it makes them visible to the block.
 */
#include <stdint.h>

/*
 * 16 bytes through L2 only (never a stale line of L1). Both addresses 16-byte aligned. `valid`
 * false reads nothing and writes zeros; `global` is then not dereferenced.
 */
static __device__ __forceinline__ void rt_cp_async_16(void *shared, const void *global, bool valid)
{
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    const uint32_t source_bytes = valid ? 16u : 0u;
    /* volatile, memory: it writes what other statements read, and must stay before its commit. */
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
                 "r"(source_bytes)
                 : "memory");
}

/* 4 bytes, by way of L1: what a grid before has written must not be asked for before this thread
 * has waited for it (kernels/device/ptx/pdl.cuh). Both addresses 4-byte aligned. */
static __device__ __forceinline__ void rt_cp_async_4(void *shared, const void *global)
{
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    /* volatile, memory: likewise. */
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(global) : "memory");
}

/* Arrives at a barrier in shared memory, as one of those it counts, once all copies that this
 * thread has asked for so far have landed: PTX ISA, "cp.async.mbarrier.arrive". Nothing is said
 * about the thread's other stores. */
static __device__ __forceinline__ void rt_cp_async_arrive(uint64_t *barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(barrier))
                 : "memory");
}

/* Closes the thread's current group; a group without copies is allowed and counts. */
static __device__ __forceinline__ void rt_cp_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most the PENDING newest groups of this thread are unfinished. */
template <int PENDING> static __device__ __forceinline__ void rt_cp_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#endif
