/* SPDX-License-Identifier: Apache-2.0 */
/*
 * all_reduce_norm: the sum of ranks in one shot, and the residual and norm behind it, by the rule
 * of kernels/abi/all_reduce_norm.h.
 *
 *   hidden [tokens, width] of every rank, residual -> hidden, residual, normed
 *
 * Two launches whose second waits for all of the first, and reads what that has just had in
 * registers, are one. A block a token, a thread VECTORS vectors of 8 numbers, as input_norm; each
 * is sent and awaited as all_reduce does it.
 *
 *   weights │ wait │ epochs, hidden, residual │ vectors to every rank │ those of rank 0, sum │
 *   rank 1, … │ hidden, residual, sum of squares │ A │ normed, epochs
 *
 *   shared memory   bytes
 *   sums               64   of the warps
 *
 *   barrier   makes visible
 *   A         sums; that all threads have read the epochs, which are counted behind it
 */
#include "kernels/abi/all_reduce_norm.h"
#include "kernels/device/input_norm.cuh"
#include "kernels/device/mailbox.cuh"

RT_STATIC_ASSERT(RT_INPUT_NORM_THREADS == 2 * RT_ALL_REDUCE_THREADS, "a thread's slots: 2 apart");

/* A thread's i-th vector: its block of all_reduce, and its thread there. */
static __device__ __forceinline__ uint32_t
rt_sum_norm_block(const struct rt_all_reduce_norm_params &p, uint32_t i)
{
    return blockIdx.x * RT_ALL_REDUCE_NORM_SLOTS(p.norm.norm.width) + 2 * i +
           threadIdx.x / RT_ALL_REDUCE_THREADS;
}

static __device__ __forceinline__ void rt_sum_norm_send(const struct rt_all_reduce_params &p,
                                                        uint32_t block, uint32_t epoch,
                                                        const uint4 &numbers)
{
    const uint64_t slot = rt_all_reduce_slot(p.ranks, block, epoch, p.rank);
#pragma unroll
    for (uint32_t r = 0; r < RT_ALL_REDUCE_MOST_RANKS; r++)
        if (r < p.ranks && r != p.rank)
            rt_mailbox_put(rt_mailbox_at(p.mailbox[r], slot), threadIdx.x % RT_ALL_REDUCE_THREADS,
                           epoch, numbers);
}

/* The sum over all ranks of `numbers`, rounded. False: nobody comes any more. */
static __device__ __forceinline__ bool rt_sum_norm_take(const struct rt_all_reduce_params &p,
                                                        uint32_t block, uint32_t epoch,
                                                        uint4 &numbers)
{
    const uint4 mine = numbers;
    struct rt_floats8 sum = {};
    for (uint32_t r = 0; r < p.ranks; r++) {
        uint4 theirs = mine;
        if (r != p.rank &&
            !rt_mailbox_take(
                rt_mailbox_at(p.mailbox[p.rank], rt_all_reduce_slot(p.ranks, block, epoch, r)),
                threadIdx.x % RT_ALL_REDUCE_THREADS, epoch, p.stop, theirs))
            return false;
        rt_mailbox_add(theirs, r == 0, sum);
    }
    numbers = rt_pack_bf16x8(sum);
    return true;
}

template <uint32_t VECTORS>
static __device__ __forceinline__ void rt_sum_norm_token(const struct rt_all_reduce_norm_params &p,
                                                         float (&sums)[RT_INPUT_NORM_WARPS])
{
    const uint32_t vectors = p.norm.norm.width / RT_VECTOR_ELEMENTS;
    uint4 *const hidden = static_cast<uint4 *>(p.sum.to) + (uint64_t)blockIdx.x * vectors;
    uint32_t *const counted = static_cast<uint32_t *>(p.sum.mailbox[p.sum.rank]);
    struct rt_input_norm_vectors<VECTORS> v;
    uint32_t epoch[VECTORS];
    rt_input_norm_weights(p.norm, v);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    rt_input_norm_load(p.norm, v);
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        epoch[i] = 0;
        if (i * RT_INPUT_NORM_THREADS + threadIdx.x < vectors) {
            epoch[i] = counted[rt_sum_norm_block(p, i)] + 1;
            rt_sum_norm_send(p.sum, rt_sum_norm_block(p, i), epoch[i], v.x[i]);
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t vector = i * RT_INPUT_NORM_THREADS + threadIdx.x;
        if (vector < vectors && rt_sum_norm_take(p.sum, rt_sum_norm_block(p, i), epoch[i], v.x[i]))
            hidden[vector] = v.x[i];
    }
    rt_input_norm_finish(p.norm, v, sums); /* A */
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++)
        if (threadIdx.x % RT_ALL_REDUCE_THREADS == 0 &&
            i * RT_INPUT_NORM_THREADS + threadIdx.x < vectors)
            counted[rt_sum_norm_block(p, i)] = epoch[i];
}

extern "C" __global__ void __launch_bounds__(RT_INPUT_NORM_THREADS)
    rt_all_reduce_norm(const __grid_constant__ struct rt_all_reduce_norm_params p)
{
    __shared__ float sums[RT_INPUT_NORM_WARPS];
    if (p.norm.norm.width <= RT_INPUT_NORM_ONE)
        rt_sum_norm_token<1>(p, sums);
    else if (p.norm.norm.width <= 2 * RT_INPUT_NORM_ONE)
        rt_sum_norm_token<2>(p, sums);
    else
        rt_sum_norm_token<4>(p, sums);
}
