/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_TAGGED_CUH
#define RT_KERNELS_DEVICE_PTX_TAGGED_CUH

/*
 * Numbers that blocks of one grid hand to each other, each with a tag that says of which launch it
 * is, in one access of 8 bytes: PTX ISA, "ld.relaxed.gpu", "st.relaxed.gpu". So none has to come in
 * front of another. They go to L2 every time, never to a stale line of L1.
 * volatile, memory: a load that is tried again is made again.
 */
#include <stdint.h>

static __device__ __forceinline__ void rt_tagged_store(uint64_t *to, float number, uint32_t tag)
{
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to),
                 "l"((uint64_t)tag << 32 | __float_as_uint(number))
                 : "memory");
}

/* The tag; the number is there where the tag is the launch's. */
static __device__ __forceinline__ uint32_t rt_tagged_load(const uint64_t *from, float &number)
{
    uint64_t both;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(both) : "l"(from) : "memory");
    number = __uint_as_float((uint32_t)both);
    return (uint32_t)(both >> 32);
}

#endif
