/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_SYNC_CUH
#define RT_KERNELS_DEVICE_PTX_SYNC_CUH

/*
 * Named barriers, proxies and register budgets of sm_90.
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

/* Registers of each thread of this warp group from here on: PTX ISA, "setmaxnreg". */
template <int REGISTERS> static __device__ __forceinline__ void rt_registers_up(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS> static __device__ __forceinline__ void rt_registers_down(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

/* True for one thread of a warp that is here as a whole, and known to be one: PTX ISA,
 * "elect.sync". Copies that it asks for are an instruction each, where the compiler makes a loop
 * over the threads that may be there out of any other condition, 80 cycles a copy. */
static __device__ __forceinline__ bool rt_elect_one(void)
{
    uint32_t is_one;
    asm volatile("{\n.reg .pred one;\nelect.sync _|one, 0xffffffff;\n"
                 "selp.u32 %0, 1, 0, one;\n}"
                 : "=r"(is_one)::"memory");
    return is_one > 0;
}

/* The warp's one thread that asks for copies; the choice is the same every time. */
static __device__ __forceinline__ bool rt_elected(void)
{
    return threadIdx.x % 32 == 0;
}

#endif
