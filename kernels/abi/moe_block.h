/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_MOE_BLOCK_H
#define RT_KERNELS_ABI_MOE_BLOCK_H

/*
 * moe_block: an MLP of a few tokens, norm to hidden, as one launch whose blocks are all resident at
 * the same time. What gate does, then what experts_up does with gate.norm.normed and what gate has
 * found, then experts_down; where there are no experts but shared ones, what input_norm does
 * instead of gate. But for gate.route.groups_of and gate.arrivals, which are left alone, all that
 * the three write is written. `out` may be gate.norm.hidden. Read by gcc and by nvcc.
 */
#include "kernels/abi/experts_sm90.h"
#include "kernels/abi/gate.h"

/*
 * What blocks hand to each other, but for h. Behind it logits [tokens, experts], each in 8 bytes
 * with the tag of its launch, so that no other word has to tell that it is there. `arrived` counts
 * blocks whose h is: numbers 0 .. 2 blocks - 1, over and over, so that which half it stands in
 * changes when all have arrived.
 */
struct rt_moe_block_exchange {
    uint32_t arrived, alone[31]; /* in a line of its own */
    uint32_t launches, too[31];  /* with experts, so far: the tag is one more */
};

struct rt_moe_block_params {
    struct rt_gate_params gate; /* of its route rows alone, where there are no experts */
    struct rt_pairs_view h;
    struct rt_expert_weight_view expert[2], expert_up[2], expert_down[2]; /* as in experts.h */
    uint16_t *out; /* bf16 [tokens, hidden], out_stride apart */
    int64_t out_stride;
    /* rt_moe_block_exchange_bytes, 8-byte aligned, 0 before the first launch. Launches of so many
     * blocks, of any shapes, one behind the other, leave what the next one needs. */
    struct rt_moe_block_exchange *exchange;
    uint32_t shared, width; /* as in experts.h */
};
#define RT_MOE_BLOCK_ADDRESSES(type, at)                                                           \
    (RT_GATE_PARAMS_ADDRESSES(type, at gate.) | RT_ADDRESS(type, at h.base) |                      \
     RT_ADDRESS(type, at expert[0].base) | RT_ADDRESS(type, at expert[1].base) |                   \
     RT_ADDRESS(type, at expert_up[0].base) | RT_ADDRESS(type, at expert_up[1].base) |             \
     RT_ADDRESS(type, at expert_down[0].base) | RT_ADDRESS(type, at expert_down[1].base) |         \
     RT_ADDRESS(type, at out) | RT_ADDRESS(type, at exchange))
RT_STATIC_ASSERT(sizeof(struct rt_moe_block_params) == 440, "moe_block ABI");

static inline uint64_t rt_moe_block_exchange_bytes(uint32_t tokens, uint32_t experts)
{
    return sizeof(struct rt_moe_block_exchange) + UINT64_C(8) * tokens * experts;
}

/* Warps that multiply, that bring weights, and that choose. */
#define RT_MOE_BLOCK_CHOOSERS 4u
#define RT_MOE_BLOCK_THREADS                                                                       \
    (32u * (RT_PROJECT_SM90_WARPS + RT_EXPERTS_SM90_FEW_BRINGERS + RT_MOE_BLOCK_CHOOSERS))

/* A thread that multiplies holds so many vectors of 8 numbers while it norms. */
#define RT_MOE_BLOCK_VECTORS 4u
/* Rows of out that a block has at most: what it keeps of the residual. */
#define RT_MOE_BLOCK_MOST_ROWS 128u

/* So much of shared memory is h given, all of it: were it read from memory, each piece would be
 * waited for while weights stream. */
#define RT_MOE_BLOCK_H_BYTES (72u * 1024u)

/* From a token of x to the next in shared memory, in bytes: eight lanes that read two tokens meet
 * all banks once. */
#define RT_MOE_BLOCK_X_BYTES(hidden) (2u * (hidden) + 64u)

/* Grid: as many blocks as SMs; RT_MOE_BLOCK_THREADS threads, cooperative. Shared memory: the ring's
 * barriers, the table of sums, the desk at ring.sums_at, a line of logits for each chooser, at x_at
 * weights of norm and router and x, and later h, the ring. */
struct rt_moe_block_sm90_params {
    struct rt_moe_block_params block;
    struct rt_experts_ring ring;
    uint32_t x_at, logits_at;
};
RT_STATIC_ASSERT(sizeof(struct rt_moe_block_sm90_params) == 472, "sm90 moe_block ABI");

/* Of shared memory what a block keeps for itself. */
#define RT_MOE_BLOCK_DESK_BYTES (RT_EXPERTS_SM90_FEW_BYTES + 2432u)
/* Rows of a stage. */
#define RT_MOE_BLOCK_TILE_ROWS RT_PROJECT_SM90_TILE_ROWS

/* Up to how many tokens of so many numbers it takes, each to `chosen` of so many experts and to all
 * shared ones, of `width`; 0: none. */
static inline uint32_t rt_moe_block_most_tokens(uint32_t hidden, uint32_t experts, uint32_t chosen,
                                                uint32_t shared, uint32_t width)
{
    const uint64_t bytes = UINT64_C(2) * ((uint64_t)chosen + shared) * width; /* of a token's h */
    uint64_t most = hidden > 0 ? RT_MOE_BLOCK_VECTORS / ((hidden + 2047u) / 2048u) : 0;
    if (experts > RT_GATE_MOST_EXPERTS || bytes == 0)
        return 0;
    if (most > RT_MOE_BLOCK_H_BYTES / bytes)
        most = RT_MOE_BLOCK_H_BYTES / bytes;
    if (chosen > 0 && most > RT_EXPERTS_SM90_FEW_PAIRS / chosen)
        most = RT_EXPERTS_SM90_FEW_PAIRS / chosen;
    return (uint32_t)most;
}

#endif
