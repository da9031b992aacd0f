/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_MAILBOX_CUH
#define RT_KERNELS_DEVICE_MAILBOX_CUH

/* A thread's 16 bytes of numbers in a slot of a mailbox, as kernels/abi/all_reduce.h lays it out:
 * four words, each with its epoch. */
#include "kernels/abi/all_reduce.h"
#include "kernels/device/bf16x8.cuh"
#include "kernels/device/ptx/mapped.cuh"
#include "kernels/device/ptx/peer.cuh"

#define RT_MAILBOX_PATIENCE 1024u

static __device__ __forceinline__ unsigned char *rt_mailbox_at(const void *mailbox, uint64_t offset)
{
    return const_cast<unsigned char *>(static_cast<const unsigned char *>(mailbox)) + offset;
}

/* Of the thread of that number in the slot's block, as below. */
static __device__ __forceinline__ void rt_mailbox_put(unsigned char *slot, uint32_t thread,
                                                      uint32_t epoch, const uint4 &numbers)
{
    const uint64_t mark = (uint64_t)epoch << 32;
    const struct rt_peer_pair low = {{mark | numbers.x, mark | numbers.y}};
    const struct rt_peer_pair high = {{mark | numbers.z, mark | numbers.w}};
    rt_peer_store(slot + rt_all_reduce_pair(thread, 0), low);
    rt_peer_store(slot + rt_all_reduce_pair(thread, 1), high);
}

static __device__ __forceinline__ bool rt_mailbox_is_of(const struct rt_peer_pair &pair,
                                                        uint32_t epoch)
{
    return (uint32_t)(pair.at[0] >> 32) == epoch && (uint32_t)(pair.at[1] >> 32) == epoch;
}

/* False: they have not all come. */
static __device__ __forceinline__ bool rt_mailbox_try(const unsigned char *slot, uint32_t thread,
                                                      uint32_t epoch, uint4 &numbers)
{
    const struct rt_peer_pair low = rt_peer_load(slot + rt_all_reduce_pair(thread, 0));
    const struct rt_peer_pair high = rt_peer_load(slot + rt_all_reduce_pair(thread, 1));
    numbers = make_uint4((uint32_t)low.at[0], (uint32_t)low.at[1], (uint32_t)high.at[0],
                         (uint32_t)high.at[1]);
    return rt_mailbox_is_of(low, epoch) && rt_mailbox_is_of(high, epoch);
}

/* Behind so many tries in vain: whether the host, asked once in RT_MAILBOX_PATIENCE of them, says
 * that nobody comes any more. */
static __device__ __forceinline__ bool rt_mailbox_is_over(const int32_t *stop, uint32_t tries)
{
    return tries % RT_MAILBOX_PATIENCE == 0 && rt_load_mapped_4(stop) != 0;
}

/* Waits for them. False: nobody comes any more. */
static __device__ __forceinline__ bool rt_mailbox_take(const unsigned char *slot, uint32_t thread,
                                                       uint32_t epoch, const int32_t *stop,
                                                       uint4 &numbers)
{
    for (uint32_t tries = 1;; tries++) {
        if (rt_mailbox_try(slot, thread, epoch, numbers))
            return true;
        if (rt_mailbox_is_over(stop, tries))
            return false;
    }
}

/* Bf16, to a sum, or as its first. */
static __device__ __forceinline__ void rt_mailbox_add(const uint4 &numbers, bool is_first,
                                                      struct rt_floats8 &sum)
{
    const struct rt_floats8 x = rt_unpack_bf16x8(numbers);
#pragma unroll
    for (int i = 0; i < 8; i++)
        sum.at[i] = is_first ? x.at[i] : sum.at[i] + x.at[i];
}

#endif
