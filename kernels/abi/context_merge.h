/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_CONTEXT_MERGE_H
#define RT_KERNELS_ABI_CONTEXT_MERGE_H

#include "kernels/abi/all_reduce.h"
#include "kernels/abi/merge.h"

/*
 * context_merge: attention of ranks that have the keys of a sequence between them becomes attention
 * over all keys. A rank has attended with the heads of all to its own keys, and gets of every other
 * what that one has of the heads that are its own: an exchange of packed vectors and lse, and the
 * merge of merge.h over them, pieces being ranks, in their order.
 *
 *   given [ranks][heads] of head_bytes:  out [tokens, v_dim] bf16 | lse [tokens] f32 | to 32 bytes
 *   out [tokens, heads, v_dim] bf16, out_lse [tokens, heads] f32
 *
 * One shot, by mailboxes of the kind and with the laws of all_reduce.h, but of their own: ranks
 * that share no context exchange nothing here, and count apart. `rank` and `ranks` are of those
 * that do.
 *
 *   epochs [RT_ALL_REDUCE_MOST_BLOCKS] u32 | slots [blocks][2][ranks], of SLOT_BYTES
 *
 * A slot is one of all_reduce and behind it a pair of words for every warp of a block, both of
 * which have the lse of the token and head that the warp's vectors are of.
 *
 * *stop set: a token and head of which something has not come is left as it is.
 *
 * Bound, of the CUDA kernel against the truth: that of merge. It is bit for bit what rt_merge makes
 * of the same pieces.
 */
struct rt_context_merge_params {
    const void *given;                       /* 16-byte aligned, as all here */
    void *out, *out_lse;                     /* written, apart from given */
    void *mailbox[RT_ALL_REDUCE_MOST_RANKS]; /* of every rank, null from `ranks` on */
    const int32_t *stop;                     /* [1], mapped memory of the host */
    uint32_t rank, ranks;
    uint32_t tokens, heads;
    uint32_t v_dim; /* a multiple of RT_CONTEXT_MERGE_DIM_UNIT, at most RT_MERGE_MOST_DIM */
    uint32_t head_bytes;
};
#define RT_CONTEXT_MERGE_PARAMS_ADDRESSES(type, at)                                                \
    (RT_ADDRESS(type, at given) | RT_ADDRESS(type, at out) | RT_ADDRESS(type, at out_lse) |        \
     RT_ADDRESS(type, at mailbox[0]) * ((1u << RT_ALL_REDUCE_MOST_RANKS) - 1u) |                   \
     RT_ADDRESS(type, at stop))
RT_STATIC_ASSERT(sizeof(struct rt_context_merge_params) == 120, "context_merge ABI");

#define RT_CONTEXT_MERGE_DIM_UNIT 256u /* of which a warp has a token and head's vectors alone */
#define RT_CONTEXT_MERGE_WARPS (RT_ALL_REDUCE_THREADS / 32u)
#define RT_CONTEXT_MERGE_SLOT_BYTES (RT_ALL_REDUCE_SLOT_BYTES + RT_CONTEXT_MERGE_WARPS * 16u)

/* Vectors of 16 bytes that a rank gets of each other, one a thread. */
static RT_HD inline uint32_t rt_context_merge_vectors(const struct rt_context_merge_params *p)
{
    return p->tokens * p->heads * (p->v_dim / 8);
}

/* Bytes in front of the slot that `source` writes for a block in an epoch. */
static RT_HD inline uint64_t rt_context_merge_slot(uint32_t ranks, uint32_t block, uint32_t epoch,
                                                   uint32_t source)
{
    return RT_ALL_REDUCE_EPOCH_BYTES +
           (uint64_t)((block * 2 + epoch % 2) * ranks + source) * RT_CONTEXT_MERGE_SLOT_BYTES;
}

/* Of a mailbox for exchanges of so many blocks. */
static RT_HD inline uint64_t rt_context_merge_mailbox_bytes(uint32_t ranks, uint32_t blocks)
{
    return rt_context_merge_slot(ranks, blocks, 0, 0);
}

/* Behind a slot's begin: of a warp's pair. */
static RT_HD inline uint32_t rt_context_merge_lse_pair(uint32_t warp)
{
    return RT_ALL_REDUCE_SLOT_BYTES + warp * 16u;
}

#endif
