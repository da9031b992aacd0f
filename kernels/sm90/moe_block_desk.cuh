/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MOE_BLOCK_DESK_CUH
#define RT_KERNELS_SM90_MOE_BLOCK_DESK_CUH

/*
 * moe_block for Hopper: what a block keeps in shared memory, and how blocks wait for each other.
 *
 *   shared memory   bytes
 *   barriers        1024            of the ring
 *   table           32 tokens 68    [warp][token][row]: sums
 *   desk            4784
 *   logits          16 experts      [chooser][expert]
 *   norm's weight   2 hidden
 *   router          2 hidden        a row
 *   x               tokens (2 hidden + 64)
 *   h               tokens places 2 width, from the norm's weight on, when x is no longer needed
 *   ring            stages 17408    16 rows of 512 numbers
 */
#include "kernels/abi/moe_block.h"
#include "kernels/device/ptx/tagged.cuh"
#include "kernels/device/ptx/ticket.cuh"
#include "kernels/sm90/experts_few.cuh"

/* Named barriers, beside those of experts. */
enum { RT_MOE_BAR_WORKERS = 4, RT_MOE_BAR_CHOOSERS = 5 };

#define RT_MOE_CHOOSER_THREADS (32u * RT_MOE_BLOCK_CHOOSERS)

/* Others arrive within microseconds; after so many questions something is wrong, and a kernel that
 * ends tells more than one that does not. */
#define RT_MOE_MOST_TRIES (1u << 22)

struct alignas(16) rt_moe_desk {
    struct rt_experts_few few; /* in front: rt_experts_few_worker finds it by the ring's sums_at */
    /* Each warp's, of squares of a thread's i-th vectors, then of a token's products. */
    float sums[RT_MOE_BLOCK_VECTORS][RT_PROJECT_SM90_WARPS];
    uint16_t residual[RT_EXPERTS_SM90_FEW_TOKENS][RT_MOE_BLOCK_MOST_ROWS]; /* the block's rows */
    uint64_t sent;   /* the block's logits: to its choosers, who need not ask before */
    uint64_t chosen; /* all of `few`, but for `live`: to who brings and who multiplies */
};
static_assert(sizeof(struct rt_moe_desk) <= RT_MOE_BLOCK_DESK_BYTES, "the desk's formula");

/* Where the blocks' logits are. */
static __device__ __forceinline__ uint64_t *rt_moe_logits(const struct rt_moe_block_params &p,
                                                          uint32_t token)
{
    return (uint64_t *)(p.exchange + 1) + token * p.gate.route.experts;
}

/* This launch's. Behind the wait, and until the block has arrived. */
static __device__ __forceinline__ uint32_t rt_moe_tag(const struct rt_moe_block_params &p)
{
    return p.exchange->launches + 1;
}

/* This block's h is there: the last one's number in its half says that all are, and it goes on to
 * the next launch's tag, for nobody asks any more for this one's. By one thread, behind a barrier
 * of those whose writes others are to see. */
static __device__ __forceinline__ uint32_t rt_moe_arrive(const struct rt_moe_block_params &p)
{
    const uint32_t before = rt_ticket_draw_round(&p.exchange->arrived, 2 * gridDim.x - 1);
    if (p.gate.route.experts > 0 && before % gridDim.x == gridDim.x - 1)
        p.exchange->launches = rt_moe_tag(p);
    return before;
}

/* Until all have arrived: the count is in the other half than this block's number. By one thread,
 * and then a barrier tells the others. */
static __device__ __forceinline__ void rt_moe_await(const struct rt_moe_block_params &p,
                                                    uint32_t before)
{
    const bool half = before >= gridDim.x;
    uint32_t tries = 0;
    while ((rt_ticket_look(&p.exchange->arrived) >= gridDim.x) == half)
        if (++tries > RT_MOE_MOST_TRIES)
            __trap();
}

#endif
