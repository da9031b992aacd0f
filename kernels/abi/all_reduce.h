/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_ALL_REDUCE_H
#define RT_KERNELS_ABI_ALL_REDUCE_H

#include "kernels/abi/views.h"

#define RT_ALL_REDUCE_MOST_RANKS 8u
#define RT_ALL_REDUCE_THREADS 256u
#define RT_ALL_REDUCE_MOST_BLOCKS 64u
#define RT_ALL_REDUCE_VECTOR_BYTES 16u /* of numbers, that a thread has */
#define RT_ALL_REDUCE_BLOCK_BYTES (RT_ALL_REDUCE_THREADS * RT_ALL_REDUCE_VECTOR_BYTES)
#define RT_ALL_REDUCE_MOST_BYTES (RT_ALL_REDUCE_MOST_BLOCKS * RT_ALL_REDUCE_BLOCK_BYTES)

/*
 * all_reduce: to[i] = the sum over all ranks of from[i], in the order of ranks, so that every rank
 * has the same bits; summed in f32 or better and rounded once. One shot: each rank writes what it
 * has into every other's mailbox, and sums what has come into its own.
 *
 * A mailbox is memory of one rank that all have mapped:
 *
 *   epochs [RT_ALL_REDUCE_MOST_BLOCKS] u32 | slots [blocks][2][ranks][words], of u64
 *           the owner's alone                       the last by who wrote it
 *
 * A word is 4 bytes of numbers, low, and the epoch in which they were sent: what has come is known
 * by the words themselves, each of which is one access, and nothing is said about any other. A
 * block counts its exchanges, in `epochs`, and takes the two slots in turn. That is enough: a rank
 * begins exchange n + 2 when its n + 1 is complete, for which it had to have what the others send
 * in n + 1, and they send that when their n is complete, and so read. Zeros at first, for the first
 * epoch is 1; what is left of an earlier one is of another number, after 2^32 exchanges too.
 *
 * A thread has a vector of 16 bytes, and so 4 words: 2 of them in each half of its block's slot,
 * [2][RT_ALL_REDUCE_THREADS][2], so that what a warp writes at a time lies together.
 *
 * All ranks make the same exchanges in the same order. *stop, which the host may set at any time:
 * nobody comes any more; what has not come then is not waited for, `to` is left as it is there.
 *
 * Bound, of the CUDA kernel against the truth: with two ranks none; else one unit of bf16 of the
 * sum and 2^-20 of the largest number that is summed.
 *
 * all_gather: to[r] = rank r's from, bit for bit, by the same exchange through the same mailboxes,
 * which count both kinds as one.
 */
struct rt_all_reduce_params {
    const void
        *from; /* [bytes] bf16, 16-byte aligned, as all here; what is gathered: any numbers */
    void *to;  /* likewise; may be `from` itself. all_gather: [ranks][bytes], apart from it */
    void *mailbox[RT_ALL_REDUCE_MOST_RANKS]; /* of every rank, null from `ranks` on */
    const int32_t *stop;                     /* [1], mapped memory of the host */
    uint32_t rank, ranks;
    uint32_t bytes;  /* a multiple of 16, at most RT_ALL_REDUCE_MOST_BYTES */
    uint32_t is_f32; /* host device alone, of sums: numbers are f32 */
};
#define RT_ALL_REDUCE_PARAMS_ADDRESSES(type, at)                                                   \
    (RT_ADDRESS(type, at from) | RT_ADDRESS(type, at to) |                                         \
     RT_ADDRESS(type, at mailbox[0]) * ((1u << RT_ALL_REDUCE_MOST_RANKS) - 1u) |                   \
     RT_ADDRESS(type, at stop))
RT_STATIC_ASSERT(sizeof(struct rt_all_reduce_params) == 104, "all_reduce ABI");

#define RT_ALL_REDUCE_EPOCH_BYTES (RT_ALL_REDUCE_MOST_BLOCKS * 4u)
#define RT_ALL_REDUCE_SLOT_BYTES (2u * RT_ALL_REDUCE_BLOCK_BYTES)

/* Bytes in front of the slot that `source` writes for a block in an epoch. */
static RT_HD inline uint64_t rt_all_reduce_slot(uint32_t ranks, uint32_t block, uint32_t epoch,
                                                uint32_t source)
{
    return RT_ALL_REDUCE_EPOCH_BYTES +
           (uint64_t)((block * 2 + epoch % 2) * ranks + source) * RT_ALL_REDUCE_SLOT_BYTES;
}

/* Of a mailbox for exchanges of so many blocks. */
static RT_HD inline uint64_t rt_all_reduce_mailbox_bytes(uint32_t ranks, uint32_t blocks)
{
    return rt_all_reduce_slot(ranks, blocks, 0, 0);
}

/* Behind a slot's begin: of the pair of words that a thread has in either half. */
static RT_HD inline uint32_t rt_all_reduce_pair(uint32_t thread, uint32_t half)
{
    return (half * RT_ALL_REDUCE_THREADS + thread) * 16u;
}

#endif
