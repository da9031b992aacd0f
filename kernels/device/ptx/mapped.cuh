/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_MAPPED_CUH
#define RT_KERNELS_DEVICE_PTX_MAPPED_CUH

/*
 * Access to mapped host memory, which the host writes between two replays. Relaxed accesses of
 * system scope go to the host's memory every time: they never hit a line that L1 or L2 kept from an
 * earlier replay, and, unlike acquire or a fence, do not wait for each other, so any number may be
 * in flight. volatile: each is one bus transaction and stays where it is written.
 */
#include <stdint.h>

/* 16 bytes, 16-byte aligned: PTX ISA, "ld.relaxed.sys". Nobody on the device writes there. */
static __device__ __forceinline__ uint4 rt_load_mapped_16(const void *from)
{
    uint4 v;
    asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

/* 4 bytes, likewise. */
static __device__ __forceinline__ int32_t rt_load_mapped_4(const void *from)
{
    int32_t v;
    asm volatile("ld.relaxed.sys.global.s32 %0, [%1];" : "=r"(v) : "l"(from));
    return v;
}

/*
 * Everything that this thread has written or seen written is visible to the host before what it
 * writes behind: PTX ISA, "fence.acq_rel.sys". Weaker, and on the device cheaper, than
 * __threadfence_system, which also orders it among all fences of that kind. memory: no access moves
 * across.
 */
static __device__ __forceinline__ void rt_fence_mapped(void)
{
    asm volatile("fence.acq_rel.sys;" ::: "memory");
}

/* A word that the host polls: PTX ISA, "st.relaxed.sys". memory: stays behind the fence. */
static __device__ __forceinline__ void rt_store_mapped_8(void *to, uint64_t value)
{
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
}

#endif
