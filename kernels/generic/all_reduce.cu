/* SPDX-License-Identifier: Apache-2.0 */
/*
 * all_reduce, all_gather: exchanges of ranks through mailboxes, by the rule of
 * kernels/abi/all_reduce.h.
 *
 *   from [bytes] of every rank -> to [bytes], or [ranks][bytes]
 *
 * A chain of latencies: numbers out of L2, one trip to the other devices, the words' arrival in our
 * L2. A thread has 16 bytes of numbers, so that nothing is waited for twice. It writes them into
 * all mailboxes, with the epoch beside every 4 bytes: that costs twice the bytes on the link, which
 * up to MOST_BYTES is less than the fence and the second trip of a flag behind them. Then it asks
 * its own mailbox until the words of all have come, rank by rank, in whose order it sums, or puts
 * them where they are gathered.
 *
 *   wait │ epoch, from │ words to every rank │ words of rank 0, sum │ rank 1, … │ to │ A │ epoch
 *
 * Grid: a block for every RT_ALL_REDUCE_BLOCK_BYTES. It waits for the same block of the others
 * alone, after it has sent, so that no block waits for one that comes behind another that waits.
 * No shared memory.
 *
 *   barrier   makes visible
 *   A         that all threads have read the epoch, which one now writes
 *
 * The host is asked whether anybody comes at all (p.stop) once in RT_MAILBOX_PATIENCE tries.
 */
#include "kernels/abi/all_reduce.h"
#include "kernels/device/bf16x8.cuh"
#include "kernels/device/mailbox.cuh"
#include "kernels/device/ptx/pdl.cuh"

static __device__ __forceinline__ void rt_all_reduce_send(const struct rt_all_reduce_params &p,
                                                          uint32_t epoch, const uint4 &numbers)
{
    const uint64_t slot = rt_all_reduce_slot(p.ranks, blockIdx.x, epoch, p.rank);
#pragma unroll
    for (uint32_t r = 0; r < RT_ALL_REDUCE_MOST_RANKS; r++)
        if (r < p.ranks && r != p.rank)
            rt_mailbox_put(rt_mailbox_at(p.mailbox[r], slot), threadIdx.x, epoch, numbers);
}

/* False: nobody comes any more. */
static __device__ __forceinline__ bool rt_all_reduce_take(const struct rt_all_reduce_params &p,
                                                          uint32_t epoch, uint32_t source,
                                                          uint4 &numbers)
{
    const unsigned char *const slot =
        rt_mailbox_at(p.mailbox[p.rank], rt_all_reduce_slot(p.ranks, blockIdx.x, epoch, source));
    return rt_mailbox_take(slot, threadIdx.x, epoch, p.stop, numbers);
}

static __device__ __forceinline__ void rt_all_reduce_vector(const struct rt_all_reduce_params &p,
                                                            uint32_t epoch, uint32_t vector,
                                                            bool gathers)
{
    const uint4 mine = static_cast<const uint4 *>(p.from)[vector];
    const uint32_t vectors = p.bytes / RT_ALL_REDUCE_VECTOR_BYTES;
    uint4 *const to = static_cast<uint4 *>(p.to);
    struct rt_floats8 sum = {};
    rt_all_reduce_send(p, epoch, mine);
    for (uint32_t r = 0; r < p.ranks; r++) {
        uint4 numbers = mine;
        if (r != p.rank && !rt_all_reduce_take(p, epoch, r, numbers))
            return;
        if (gathers) {
            to[r * vectors + vector] = numbers;
            continue;
        }
        rt_mailbox_add(numbers, r == 0, sum);
    }
    if (!gathers)
        to[vector] = rt_pack_bf16x8(sum);
}

static __device__ __forceinline__ void rt_all_reduce_exchange(const struct rt_all_reduce_params &p,
                                                              bool gathers)
{
    const uint32_t vector = blockIdx.x * RT_ALL_REDUCE_THREADS + threadIdx.x;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    uint32_t *const counted = static_cast<uint32_t *>(p.mailbox[p.rank]) + blockIdx.x;
    const uint32_t epoch = *counted + 1;
    if (vector < p.bytes / RT_ALL_REDUCE_VECTOR_BYTES)
        rt_all_reduce_vector(p, epoch, vector, gathers);
    __syncthreads(); /* A */
    if (threadIdx.x == 0)
        *counted = epoch;
}

extern "C" __global__ void __launch_bounds__(RT_ALL_REDUCE_THREADS)
    rt_all_reduce(const __grid_constant__ struct rt_all_reduce_params p)
{
    rt_all_reduce_exchange(p, false);
}

extern "C" __global__ void __launch_bounds__(RT_ALL_REDUCE_THREADS)
    rt_all_gather(const __grid_constant__ struct rt_all_reduce_params p)
{
    rt_all_reduce_exchange(p, true);
}
