/* SPDX-License-Identifier: Apache-2.0 */
/*
 * context_merge: what ranks have of each other's heads, exchanged and merged in one kernel, by the
 * rule of kernels/abi/context_merge.h.
 *
 *   given [ranks][heads] of | out [tokens, v_dim] | lse [tokens] |  ->  out [tokens, heads, v_dim],
 *                                                                       out_lse [tokens, heads]
 *
 * A thread has 16 bytes of a token and head, a warp no more than one token and head's. It writes
 * what it has of them for every other rank into that one's mailbox, the first lane of each warp the
 * lse too, and takes what the others have of its own from its own, rank by rank; each lane asks for
 * the warp's lse itself, so that no lane waits for another. RT_MERGE_DEPTH ranks are summed at
 * once.
 *
 *   wait │ epoch, given │ words to every rank │ words of rank 0, 1, … │ sums │ out │ A │ epoch
 *
 * Grid: a block for every RT_ALL_REDUCE_THREADS vectors, which waits for the same block of the
 * others alone, after it has sent. No shared memory.
 *
 *   barrier   makes visible
 *   A         that all threads have read the epoch, which one now writes
 */
#include "kernels/abi/context_merge.h"
#include "kernels/device/divisor.cuh"
#include "kernels/device/mailbox.cuh"
#include "kernels/device/merge_sum.cuh"
#include "kernels/device/ptx/pdl.cuh"

/* A thread's vector: number `vector` of a token and head. */
struct rt_context_item {
    uint32_t token, head, vector;
};

static __device__ __forceinline__ struct rt_context_item
rt_context_item_of(const struct rt_context_merge_params &p, uint32_t at)
{
    const uint32_t vectors = p.v_dim / RT_MERGE_VECTOR; /* 32 or 64 */
    const rt_divisor<uint32_t> tokens(p.tokens);
    const uint32_t which = at / vectors, head = tokens.quotient(which);
    return {which - head * tokens.by, head, at % vectors};
}

/* What this rank has of it for `rank`. */
static __device__ __forceinline__ uint4 rt_context_given(const struct rt_context_merge_params &p,
                                                         const struct rt_context_item &item,
                                                         uint32_t rank, float &lse)
{
    const unsigned char *const head = static_cast<const unsigned char *>(p.given) +
                                      (uint64_t)(rank * p.heads + item.head) * p.head_bytes;
    const uint64_t vectors = (uint64_t)p.v_dim * 2;
    lse = *reinterpret_cast<const float *>(head + p.tokens * vectors + item.token * 4u);
    return *reinterpret_cast<const uint4 *>(head + item.token * vectors + item.vector * 16u);
}

static __device__ __forceinline__ void rt_context_send(const struct rt_context_merge_params &p,
                                                       const struct rt_context_item &item,
                                                       uint32_t epoch)
{
    const uint64_t slot = rt_context_merge_slot(p.ranks, blockIdx.x, epoch, p.rank);
#pragma unroll
    for (uint32_t r = 0; r < RT_ALL_REDUCE_MOST_RANKS; r++) {
        if (r >= p.ranks || r == p.rank)
            continue;
        float lse;
        const uint4 numbers = rt_context_given(p, item, r, lse);
        unsigned char *const to = rt_mailbox_at(p.mailbox[r], slot);
        rt_mailbox_put(to, threadIdx.x, epoch, numbers);
        const uint64_t word = (uint64_t)epoch << 32 | __float_as_uint(lse);
        const struct rt_peer_pair pair = {{word, word}};
        if (threadIdx.x % 32u == 0)
            rt_peer_store(to + rt_context_merge_lse_pair(threadIdx.x / 32u), pair);
    }
}

/* False: nobody comes any more. */
static __device__ __forceinline__ bool rt_context_take(const struct rt_context_merge_params &p,
                                                       uint32_t epoch, uint32_t source,
                                                       uint4 &numbers, float &lse)
{
    const unsigned char *const slot =
        rt_mailbox_at(p.mailbox[p.rank], rt_context_merge_slot(p.ranks, blockIdx.x, epoch, source));
    for (uint32_t tries = 1;; tries++) {
        const struct rt_peer_pair pair =
            rt_peer_load(slot + rt_context_merge_lse_pair(threadIdx.x / 32u));
        const bool come = rt_mailbox_try(slot, threadIdx.x, epoch, numbers);
        lse = __uint_as_float((uint32_t)pair.at[0]);
        if (come && rt_mailbox_is_of(pair, epoch))
            return true;
        if (rt_mailbox_is_over(p.stop, tries))
            return false;
    }
}

static __device__ __forceinline__ void rt_context_vector(const struct rt_context_merge_params &p,
                                                         uint32_t epoch, uint32_t at)
{
    const struct rt_context_item item = rt_context_item_of(p, at);
    struct rt_merge_sum sum = {};
    float own_lse, lse;
    const uint4 own = rt_context_given(p, item, p.rank, own_lse);
    sum.top = -RT_MERGE_INFINITY;
    rt_context_send(p, item, epoch);
    for (uint32_t first = 0; first < p.ranks; first += RT_MERGE_DEPTH) {
        struct rt_merge_pieces pieces;
#pragma unroll
        for (uint32_t i = 0; i < RT_MERGE_DEPTH; i++) {
            const uint32_t r = first + i;
            pieces.lse[i] = r == p.rank ? own_lse : RT_MERGE_INFINITY;
            pieces.packed[i] = own;
            if (r < p.ranks && r != p.rank &&
                !rt_context_take(p, epoch, r, pieces.packed[i], pieces.lse[i]))
                return;
        }
        rt_merge_add(pieces, RT_MERGE_LOG2_E, sum);
    }
    const uint64_t to = (uint64_t)item.token * p.heads + item.head;
    static_cast<uint4 *>(p.out)[to * (p.v_dim / RT_MERGE_VECTOR) + item.vector] =
        rt_merge_finish(sum, 0.0f, RT_MERGE_LN_2, lse);
    if (item.vector == 0)
        static_cast<float *>(p.out_lse)[to] = lse;
}

extern "C" __global__ void __launch_bounds__(RT_ALL_REDUCE_THREADS)
    rt_context_merge(const __grid_constant__ struct rt_context_merge_params p)
{
    const uint32_t at = blockIdx.x * RT_ALL_REDUCE_THREADS + threadIdx.x;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    uint32_t *const counted = static_cast<uint32_t *>(p.mailbox[p.rank]) + blockIdx.x;
    const uint32_t epoch = *counted + 1;
    if (at < rt_context_merge_vectors(&p))
        rt_context_vector(p, epoch, at);
    __syncthreads(); /* A */
    if (threadIdx.x == 0)
        *counted = epoch;
}
