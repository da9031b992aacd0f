/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gate: input_norm, the router and route of a few tokens, by the rule of kernels/abi/gate.h.
 *
 *   hidden, residual [tokens, width] -> residual, normed; logits [tokens, experts] -> routing
 *
 * Three nodes of some microseconds each, of which most is waiting, are one. A block has two
 * experts, so that their weights are few enough to be in registers before the wait, and norms all
 * tokens for itself: a thread has one vector of 8 numbers of each, or two, a block of them apart.
 * What is normed has the bits that input_norm gives it, in every block. The block that arrives last
 * does what all the others must have come so far for: it writes the residual, which they read, and
 * routes, for which it needs their logits.
 *
 *   weights │ wait │ x, squares │ A │ normed, products │ C │ logits, ticket │ D │
 *   the last: residual, choose │ E │ groups
 *
 * A chain of latencies: two sums over a block, three trips to L2 (x, the ticket, logits) and a
 * choice. So sums of several values share their shuffles, and groups are made by one warp, a lane a
 * pair, which needs no sum over the experts.
 *
 *   shared memory   bytes
 *   squares           256   [token][warp]
 *   logits            512   [token][expert][warp]
 *   chosen            128   [pair]: its expert
 *   is_last             4
 *
 *   barrier   makes visible
 *   A         squares
 *   C         the warps' sums of logits, to warp 0
 *   D         is_last, and what the others have written
 *   E         chosen
 */
#include "kernels/abi/gate.h"
#include "kernels/device/copy.cuh"
#include "kernels/device/norm.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/ticket.cuh"
#include "kernels/device/residual.cuh"
#include "kernels/generic/route.cuh"

#define RT_GATE_THREADS (RT_GATE_WARPS * RT_WARP_LANES)

RT_STATIC_ASSERT(RT_GATE_MOST_PAIRS <= RT_WARP_LANES, "a lane a pair");
RT_STATIC_ASSERT(RT_GATE_MOST_TOKENS < RT_GATE_WARPS, "a warp a token");
RT_STATIC_ASSERT(RT_GATE_NARROW_WIDTH / RT_VECTOR_ELEMENTS == RT_GATE_THREADS, "a vector a thread");
RT_STATIC_ASSERT(RT_GATE_WARPS == RT_INPUT_NORM_WARPS, "sums are input_norm's, bit for bit");

struct rt_gate_room {
    float squares[RT_GATE_MOST_TOKENS][RT_GATE_WARPS];
    float logits[RT_GATE_MOST_TOKENS * RT_GATE_EXPERTS][RT_GATE_WARPS];
    uint32_t chosen[RT_GATE_MOST_PAIRS];
    uint32_t is_last;
};

/* Sums over a warp of COUNT values, a power of two: lane i gets that of value i % COUNT, with the
 * bits that rt_warp_sum gives it. Each step halves how many values a lane still has. */
template <uint32_t COUNT>
static __device__ __forceinline__ float rt_gate_warp_sums(const float (&values)[COUNT])
{
    float left[COUNT];
#pragma unroll
    for (uint32_t i = 0; i < COUNT; i++)
        left[i] = values[i];
    uint32_t distance = 1;
#pragma unroll
    for (uint32_t count = COUNT / 2; count > 0; count /= 2, distance *= 2) {
        const bool odd = (rt_lane() & distance) != 0;
#pragma unroll
        for (uint32_t i = 0; i < count; i++) {
            const float mine = odd ? left[2 * i + 1] : left[2 * i];
            const float theirs = odd ? left[2 * i] : left[2 * i + 1];
            left[i] = mine + __shfl_xor_sync(RT_FULL_WARP, theirs, distance);
        }
    }
#pragma unroll
    for (; distance < RT_WARP_LANES; distance *= 2)
        left[0] += __shfl_xor_sync(RT_FULL_WARP, left[0], distance);
    return left[0];
}

/* Of each value its warps' sums. */
template <uint32_t COUNT>
static __device__ __forceinline__ void rt_gate_put_sums(const float (&values)[COUNT],
                                                        float (*sums)[RT_GATE_WARPS])
{
    const float sum = rt_gate_warp_sums(values);
    if (rt_lane() < COUNT)
        sums[rt_lane()][threadIdx.x / RT_WARP_LANES] = sum;
}

/* By a whole warp what rt_sum_of_warps gives one thread, in a register instead of 16. */
static __device__ __forceinline__ float rt_gate_sum_of_warps(const float (&sums)[RT_GATE_WARPS])
{
    float sum = sums[rt_lane() % RT_GATE_WARPS];
#pragma unroll
    for (uint32_t distance = RT_GATE_WARPS / 2; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(RT_FULL_WARP, sum, distance);
    return sum;
}

static __device__ __forceinline__ float rt_gate_dot(const uint4 &a, const uint4 &b, float sum)
{
    const struct rt_floats8 x = rt_unpack_bf16x8(a), y = rt_unpack_bf16x8(b);
#pragma unroll
    for (int i = 0; i < 8; i++)
        sum = fmaf(x.at[i], y.at[i], sum);
    return sum;
}

/* A thread's part of up to TOKENS tokens and of the block's experts: VECTORS vectors of each. */
template <uint32_t TOKENS, uint32_t VECTORS> struct rt_gate_worker {
    const struct rt_gate_params &p;
    struct rt_gate_room &room;
    uint4 weight[VECTORS], router[RT_GATE_EXPERTS][VECTORS];
    uint4 x[TOKENS][VECTORS]; /* the new residual; zeros where there is none */

    static __device__ __forceinline__ uint32_t vector(uint32_t i)
    {
        return i * RT_GATE_THREADS + threadIdx.x;
    }

    __device__ __forceinline__ bool have(uint32_t i) const
    {
        return vector(i) < p.norm.norm.width / RT_VECTOR_ELEMENTS;
    }

    __device__ __forceinline__ bool is_token(uint32_t t) const
    {
        return TOKENS == 1 || t < p.norm.tokens;
    }

    __device__ __forceinline__ int64_t at(uint32_t t, uint32_t i) const
    {
        return t * p.norm.stride + vector(i) * (int64_t)RT_VECTOR_ELEMENTS;
    }

    static __device__ __forceinline__ uint32_t first_expert(void)
    {
        return blockIdx.x * RT_GATE_EXPERTS;
    }

    /* Asks for weights: in front of the wait. */
    __device__ __forceinline__ rt_gate_worker(const struct rt_gate_params &p_,
                                              struct rt_gate_room &room_)
        : p(p_), room(room_)
    {
#pragma unroll
        for (uint32_t i = 0; i < VECTORS; i++) {
            weight[i] = rt_norm_weight(p.norm.norm, vector(i));
#pragma unroll
            for (uint32_t e = 0; e < RT_GATE_EXPERTS; e++) {
                const uint32_t expert = first_expert() + e;
                router[e][i] = have(i) && expert < p.route.experts
                                   ? reinterpret_cast<const uint4 *>(
                                         p.router + expert * p.router_stride)[vector(i)]
                                   : make_uint4(0, 0, 0, 0);
            }
        }
    }

    __device__ __forceinline__ uint4 load(const uint16_t *from, bool is_there, uint32_t t,
                                          uint32_t i) const
    {
        return is_there ? *reinterpret_cast<const uint4 *>(from + at(t, i))
                        : make_uint4(0, 0, 0, 0);
    }

    /* All that is asked for is on its way before the first of it is waited for. */
    __device__ __forceinline__ void add_residual(void)
    {
        float squares[TOKENS] = {};
#pragma unroll
        for (uint32_t i = 0; i < VECTORS; i++) {
            uint4 old[TOKENS];
#pragma unroll
            for (uint32_t t = 0; t < TOKENS; t++) {
                const bool is_there = have(i) && is_token(t);
                x[t][i] = load(p.norm.hidden, is_there, t, i);
                old[t] = load(p.norm.residual, is_there && !p.norm.first, t, i);
            }
#pragma unroll
            for (uint32_t t = 0; t < TOKENS; t++) {
                const uint4 sum = rt_residual_sum(old[t], x[t][i], p.norm.hidden_scale);
                x[t][i] = p.norm.first ? x[t][i] : sum;
                squares[t] += rt_squares(x[t][i]);
            }
        }
        rt_gate_put_sums(squares, room.squares);
    }

    /* What is normed of a token is written by one block. */
    __device__ __forceinline__ void multiply_token(uint32_t t, float (&sums)[RT_GATE_EXPERTS]) const
    {
        const struct rt_norm_view &norm = p.norm.norm;
        const float factor = rt_norm_factor(norm, rt_gate_sum_of_warps(room.squares[t]));
#pragma unroll
        for (uint32_t i = 0; i < VECTORS; i++) {
            const uint4 normed =
                norm.weight ? rt_normed(norm, x[t][i], weight[i], factor) : x[t][i];
            if (blockIdx.x == t % gridDim.x && have(i))
                *reinterpret_cast<uint4 *>(p.norm.normed + at(t, i)) = normed;
#pragma unroll
            for (uint32_t e = 0; e < RT_GATE_EXPERTS; e++)
                sums[e] = rt_gate_dot(normed, router[e][i], sums[e]);
        }
    }

    __device__ __forceinline__ void multiply(void) const
    {
        float sums[TOKENS][RT_GATE_EXPERTS] = {};
        float all[TOKENS * RT_GATE_EXPERTS];
#pragma unroll
        for (uint32_t t = 0; t < TOKENS; t++) {
            if (is_token(t))
                multiply_token(t, sums[t]);
#pragma unroll
            for (uint32_t e = 0; e < RT_GATE_EXPERTS; e++)
                all[t * RT_GATE_EXPERTS + e] = sums[t][e];
        }
        rt_gate_put_sums(all, room.logits);
    }

    /* By warp 0: the block's logits, and then its arrival. */
    __device__ __forceinline__ void arrive(void) const
    {
        const uint32_t t = rt_lane() / RT_GATE_EXPERTS;
        const uint32_t expert = first_expert() + rt_lane() % RT_GATE_EXPERTS;
        if (rt_lane() < TOKENS * RT_GATE_EXPERTS && is_token(t) && expert < p.route.experts)
            const_cast<float *>(p.route.logits)[t * p.route.logit_stride + expert] =
                rt_sum_of_warps(room.logits[rt_lane()]);
        __syncwarp();
        if (rt_lane() != 0)
            return;
        room.is_last = rt_ticket_draw(p.arrivals) == gridDim.x - 1;
        if (room.is_last)
            *p.arrivals = 0;
    }

    __device__ __forceinline__ void store_residual(void) const
    {
#pragma unroll
        for (uint32_t t = 0; t < TOKENS; t++)
#pragma unroll
            for (uint32_t i = 0; i < VECTORS; i++)
                if (have(i) && is_token(t))
                    *reinterpret_cast<uint4 *>(p.norm.residual + at(t, i)) = x[t][i];
    }

    /* Whether this is the block that routes. */
    __device__ __forceinline__ bool run(void)
    {
        rt_pdl_wait();
        add_residual();
        __syncthreads(); /* A */
        multiply();
        __syncthreads(); /* C */
        if (threadIdx.x < RT_WARP_LANES)
            arrive();
        __syncthreads(); /* D */
        if (room.is_last && p.norm.residual)
            store_residual();
        return room.is_last != 0;
    }
};

/* By a warp for every token. */
static __device__ __forceinline__ void rt_gate_choose(const struct rt_route_params &p,
                                                      uint32_t token, struct rt_gate_room &room)
{
    uint32_t mine;
    if (p.experts <= 2 * RT_WARP_LANES)
        mine = rt_route_token<2>(p, token);
    else if (p.experts <= 8 * RT_WARP_LANES)
        mine = rt_route_token<8>(p, token);
    else
        mine = rt_route_token<RT_GATE_MOST_EXPERTS / RT_WARP_LANES>(p, token);
    if (rt_lane() < p.chosen)
        room.chosen[token * p.chosen + rt_lane()] = mine;
}

/* By one warp, a lane a pair: a bit of `less` and `same` is a pair of an expert before this lane's,
 * or of the same. Nobody is behind all experts. */
static __device__ __forceinline__ void
rt_gate_group(const struct rt_route_params &p, uint32_t pairs, const struct rt_gate_room &room)
{
    const uint32_t mine = rt_lane() < pairs ? room.chosen[rt_lane()] : RT_ROUTE_NOBODY;
    uint32_t less = 0, same = 0;
#pragma unroll 4
    for (uint32_t i = 0; i < pairs; i++) {
        const uint32_t other = room.chosen[i];
        less |= (uint32_t)(other < mine) << i;
        same |= (uint32_t)(other == mine) << i;
    }
    const uint32_t before = same & ((1u << rt_lane()) - 1u);
    const bool is_pair = mine != RT_ROUTE_NOBODY;
    const uint32_t firsts = __ballot_sync(RT_FULL_WARP, is_pair && before == 0);
    if (rt_lane() == 0)
        *p.groups_of.active_count = __popc(firsts);
    if (!is_pair)
        return;
    p.groups_of.pairs[__popc(less) + __popc(before)] = (int32_t)rt_lane();
    if (before == 0)
        p.groups_of.active[__popc(less & firsts)] = {(int32_t)mine, (int32_t)__popc(less),
                                                     (int32_t)__popc(same), 0};
}

/* By all other warps. */
static __device__ __forceinline__ void
rt_gate_offsets(const struct rt_route_params &p, uint32_t pairs, const struct rt_gate_room &room)
{
    for (uint32_t expert = threadIdx.x - RT_WARP_LANES; expert <= p.experts;
         expert += RT_GATE_THREADS - RT_WARP_LANES) {
        int32_t before = 0;
        for (uint32_t i = 0; i < pairs; i++)
            before += room.chosen[i] < expert;
        p.groups_of.offsets[expert] = before;
    }
}

/* By the last block. */
static __device__ __forceinline__ void rt_gate_route(const struct rt_route_params &p,
                                                     uint32_t tokens, struct rt_gate_room &room)
{
    const uint32_t warp = threadIdx.x / RT_WARP_LANES;
    if (warp < tokens)
        rt_gate_choose(p, warp, room);
    __syncthreads(); /* E */
    if (warp == 0)
        rt_gate_group(p, tokens * p.chosen, room);
    else
        rt_gate_offsets(p, tokens * p.chosen, room);
}

/* As many tokens as there are registers for. */
static __device__ __forceinline__ bool rt_gate_find(const struct rt_gate_params &p,
                                                    struct rt_gate_room &room)
{
    const bool is_narrow = p.norm.norm.width <= RT_GATE_NARROW_WIDTH;
    if (p.norm.tokens == 1)
        return is_narrow ? rt_gate_worker<1, 1>(p, room).run()
                         : rt_gate_worker<1, 2>(p, room).run();
    return is_narrow ? rt_gate_worker<RT_GATE_MOST_TOKENS, 1>(p, room).run()
                     : rt_gate_worker<RT_GATE_MOST_TOKENS / 2, 2>(p, room).run();
}

extern "C" __global__ void __launch_bounds__(RT_GATE_THREADS, 2)
    rt_gate(const __grid_constant__ struct rt_gate_params p)
{
    __shared__ struct rt_gate_room room;
    /* As in input_norm: what the kernel behind it reads before its own wait is constant. */
    rt_pdl_launch_dependents();
    if (rt_gate_find(p, room))
        rt_gate_route(p.route, p.norm.tokens, room);
}
