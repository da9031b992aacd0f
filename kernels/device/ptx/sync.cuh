/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_SYNC_CUH
#define RT_KERNELS_DEVICE_PTX_SYNC_CUH

/*
 * Named barriers, proxies, clusters and register budgets of sm_90.
 * volatile, memory: accesses on either side stay there.
 */
#include <stdint.h>

/* Waits until `threads` threads have come to barrier `id`, 1..15: PTX ISA, "bar.sync". */
static __device__ __forceinline__ void rt_bar_sync(uint32_t id, uint32_t threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* Comes to the barrier and goes on: PTX ISA, "bar.arrive". */
static __device__ __forceinline__ void rt_bar_arrive(uint32_t id, uint32_t threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* This thread's stores to shared memory are seen by the tensor cores and the copy engine once a
 * barrier has told: PTX ISA, "fence.proxy.async". */
static __device__ __forceinline__ void rt_fence_async(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ uint32_t rt_cluster_rank(void)
{
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* The address, in the cluster's shared memory, of this block's `shared` in block `rank`: PTX ISA,
 * "mapa". */
static __device__ __forceinline__ uint32_t rt_cluster_address(const void *shared, uint32_t rank)
{
    uint32_t address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(address)
        : "r"((uint32_t)__cvta_generic_to_shared(shared)), "r"(rank));
    return address;
}

/* From another block's shared memory: PTX ISA, "ld.shared::cluster". */
static __device__ __forceinline__ float4 rt_cluster_load_4(uint32_t address)
{
    float4 v;
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}

static __device__ __forceinline__ float2 rt_cluster_load_2(uint32_t address)
{
    float2 v;
    asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
                 : "=f"(v.x), "=f"(v.y)
                 : "r"(address)
                 : "memory");
    return v;
}

/* All threads of all blocks of the cluster: PTX ISA, "barrier.cluster". */
static __device__ __forceinline__ void rt_cluster_arrive(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

static __device__ __forceinline__ void rt_cluster_wait(void)
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* Registers of each thread of this warp group from here on: PTX ISA, "setmaxnreg". */
template <int REGISTERS> static __device__ __forceinline__ void rt_registers_up(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS> static __device__ __forceinline__ void rt_registers_down(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

/* The warp's one thread that asks for copies; the choice is the same every time. */
static __device__ __forceinline__ bool rt_elected(void)
{
    return threadIdx.x % 32 == 0;
}

#endif
