/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_TICKET_CUH
#define RT_KERNELS_DEVICE_PTX_TICKET_CUH

/*
 * How the blocks of a grid find out which of them is the last: PTX ISA, "atom.acq_rel.gpu". What
 * this thread has written or seen written, through a barrier too, is seen by whoever draws a later
 * number. One of these is less than the two fences of __threadfence around a relaxed one, which
 * have an order among all fences besides.
 * volatile, memory: accesses on either side stay there.
 */
#include <stdint.h>

/* The number of those that have drawn before. */
static __device__ __forceinline__ uint32_t rt_ticket_draw(uint32_t *counter)
{
    uint32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
    return before;
}

/* Likewise, of numbers that begin again behind `last`: PTX ISA, "atom.inc". */
static __device__ __forceinline__ uint32_t rt_ticket_draw_round(uint32_t *counter, uint32_t last)
{
    uint32_t before;
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(counter), "r"(last)
                 : "memory");
    return before;
}

/* How many there are, and what they who drew have written is seen: PTX ISA, "ld.acquire.gpu". */
static __device__ __forceinline__ uint32_t rt_ticket_look(const uint32_t *counter)
{
    uint32_t count;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(count) : "l"(counter) : "memory");
    return count;
}

#endif
