/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_SETTLE_CUH
#define RT_KERNELS_DEVICE_PTX_SETTLE_CUH

/*
 * Work in front of griddepcontrol.wait is free, but ptxas (13.0, seen in the machine code) moves
 * all arithmetic behind it, onto the critical path. These two hold a value where it was computed.
 */
#include <stdint.h>

/*
 * Computes `value`, never 0, here: PTX ISA, "trap". A value that a conditional trap looks at must
 * be there first, and a trap does not move across the wait.
 */
static __device__ __forceinline__ void rt_settle(uint32_t value)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    /* volatile: it has no outputs, and keeps its place in front of the wait, which is volatile too.
     */
    asm volatile("{\n"
                 ".reg .pred never;\n"
                 "setp.eq.u32 never, %0, 0;\n"
                 "@never trap;\n"
                 "}" ::"r"(value));
#else
    (void)value;
#endif
}

/* Likewise an address, which may be null. */
static __device__ __forceinline__ void rt_settle(const void *address)
{
    rt_settle((uint32_t) reinterpret_cast<uintptr_t>(address) | 1u);
}

/*
 * The address of shared memory, kept in a register: PTX ISA, "shfl.sync". From sm_90 on the address
 * of a shared variable depends on the block's rank in its cluster, and ptxas reads that special
 * register again in front of every group of accesses, about 20 cycles each time. A shuffle of the
 * address (the same in all lanes) is opaque to it. Every lane calls.
 */
static __device__ __forceinline__ void *rt_settle_shared(void *shared)
{
    uint32_t address = (uint32_t)__cvta_generic_to_shared(shared);
    /* volatile: the same instruction in every lane of the warp, at this place. */
    asm volatile("shfl.sync.idx.b32 %0, %0, 0, 31, 0xffffffff;" : "+r"(address));
    return __cvta_shared_to_generic(address);
}

#endif
