/* SPDX-License-Identifier: Apache-2.0 */
/*
 * route: the experts of every token, and the tokens of every expert, by the rule of
 * kernels/abi/route.h.
 *
 *   logits [tokens, experts] f32 -> choices, weights [tokens, chosen]; offsets, pairs, active
 *
 * One block, so that no other node and no counter in memory has to tell when all tokens have
 * chosen. Tokens are taken in tiles of 128:
 *
 *   a warp a token   values of its experts, lane + 32 i, as keys ▸ (groups) ▸ place after place
 *                    the largest key of the warp ▸ the tile's bit of each expert chosen
 *   a thread an expert   its bits, counted, tile after tile ▸ sums over the experts
 *   a thread a pair  its expert's first pair + the tile's bits of the tokens before
 *
 *   shared memory   bytes
 *   tile            16384   [expert][4 words]: a token's bit
 *   start            4096   [expert]: where its next tile's pairs begin
 *   sums              256   of the experts of a warp
 *
 *   barrier   makes visible              and frees
 *   A         the tile, empty            -
 *   B         the tile                   -
 *   C         the tile, empty again      -
 *   D         sums of the warps          -
 *   E         start, the tile            -
 *   F         -                          the tile and start
 *
 * A to C once for every tile, then D, then E and F once for every tile, whose bits are set a second
 * time where there is more than one.
 */
#include "common/math.h"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/generic/route.cuh"

#define RT_ROUTE_WARPS (RT_ROUTE_THREADS / RT_WARP_LANES)
#define RT_ROUTE_WORDS 4u
#define RT_ROUTE_TILE (RT_ROUTE_WORDS * 32u) /* tokens */

RT_STATIC_ASSERT(RT_ROUTE_MOST_EXPERTS <= RT_ROUTE_THREADS, "a thread an expert");
RT_STATIC_ASSERT(RT_ROUTE_MOST_CHOSEN <= RT_WARP_LANES, "a lane a place");
RT_STATIC_ASSERT(RT_ROUTE_MOST_GROUPS <= RT_WARP_LANES, "a lane a group");
RT_STATIC_ASSERT(RT_ROUTE_WARPS <= RT_WARP_LANES, "a lane a warp's sum");

struct rt_route_room {
    uint32_t tile[RT_ROUTE_MOST_EXPERTS][RT_ROUTE_WORDS];
    uint32_t start[RT_ROUTE_MOST_EXPERTS];
    struct rt_route_sums<RT_ROUTE_THREADS> sums;
};

/* By a warp. */
template <uint32_t EACH>
static __device__ __forceinline__ void rt_route_mark(const struct rt_route_params &p,
                                                     uint32_t token, struct rt_route_room &room)
{
    const uint32_t mine = rt_route_token<EACH>(p, token);
    if (mine != RT_ROUTE_NOBODY)
        atomicOr(&room.tile[mine][token % RT_ROUTE_TILE / 32u], 1u << token % 32u);
}

/* Of the tile, what thread `expert` is for. */
static __device__ __forceinline__ uint32_t rt_route_count(const struct rt_route_room &room)
{
    uint32_t count = 0;
    for (uint32_t word = 0; word < RT_ROUTE_WORDS; word++)
        count += __popc(room.tile[threadIdx.x][word]);
    return count;
}

static __device__ __forceinline__ void rt_route_clear(struct rt_route_room &room)
{
#pragma unroll
    for (uint32_t word = 0; word < RT_ROUTE_WORDS; word++)
        room.tile[threadIdx.x][word] = 0;
}

/* All tokens choose. This thread's expert's tokens; the bits of a single tile stay. */
template <uint32_t EACH>
static __device__ __forceinline__ uint32_t rt_route_choose(const struct rt_route_params &p,
                                                           uint32_t tokens,
                                                           struct rt_route_room &room)
{
    uint32_t count = 0;
    for (uint32_t first = 0; first < tokens; first += RT_ROUTE_TILE) {
        const uint32_t end = min(first + RT_ROUTE_TILE, tokens);
        for (uint32_t token = first + threadIdx.x / RT_WARP_LANES; token < end;
             token += RT_ROUTE_WARPS)
            rt_route_mark<EACH>(p, token, room);
        __syncthreads(); /* B */
        count += rt_route_count(room);
        if (tokens > RT_ROUTE_TILE) {
            rt_route_clear(room);
            __syncthreads(); /* C */
        }
    }
    return count;
}

/* The bits of a tile once more, from what its tokens have chosen. */
static __device__ __forceinline__ void rt_route_set_tile(const struct rt_route_params &p,
                                                         uint32_t first, uint32_t end,
                                                         struct rt_route_room &room)
{
    for (uint32_t pair = first * p.chosen + threadIdx.x; pair < end * p.chosen;
         pair += RT_ROUTE_THREADS) {
        const uint32_t token = pair / p.chosen;
        const int32_t expert = p.choices[pair];
        if (expert >= 0)
            atomicOr(&room.tile[expert][token % RT_ROUTE_TILE / 32u], 1u << token % 32u);
    }
}

static __device__ __forceinline__ void rt_route_place_tile(const struct rt_route_params &p,
                                                           uint32_t first, uint32_t end,
                                                           const struct rt_route_room &room)
{
    for (uint32_t pair = first * p.chosen + threadIdx.x; pair < end * p.chosen;
         pair += RT_ROUTE_THREADS) {
        const uint32_t token = pair / p.chosen, word = token % RT_ROUTE_TILE / 32u;
        const int32_t expert = p.choices[pair];
        if (expert < 0)
            continue;
        uint32_t at = room.start[expert];
        for (uint32_t before = 0; before < word; before++)
            at += __popc(room.tile[expert][before]);
        at += __popc(room.tile[expert][word] & ((1u << token % 32u) - 1u));
        p.groups_of.pairs[at] = (int32_t)pair;
    }
}

static __device__ __forceinline__ void rt_route_place(const struct rt_route_params &p,
                                                      uint32_t tokens, struct rt_route_room &room)
{
    for (uint32_t first = 0; first < tokens; first += RT_ROUTE_TILE) {
        const uint32_t end = min(first + RT_ROUTE_TILE, tokens);
        if (tokens > RT_ROUTE_TILE)
            rt_route_set_tile(p, first, end, room);
        __syncthreads(); /* E */
        rt_route_place_tile(p, first, end, room);
        if (end == tokens)
            return;
        const uint32_t count = rt_route_count(room);
        __syncthreads(); /* F */
        room.start[threadIdx.x] += count;
        rt_route_clear(room);
        __syncthreads(); /* A, of the next tile */
    }
}

extern "C" __global__ void __launch_bounds__(RT_ROUTE_THREADS)
    rt_route(const __grid_constant__ struct rt_route_params p)
{
    __shared__ struct rt_route_room room;
    const uint32_t tokens = p.rows.count * p.rows.q_len;
    /* As in append: what the kernel behind it reads before its own wait is constant. */
    rt_pdl_launch_dependents();
    rt_route_clear(room);
    __syncthreads(); /* A */
    rt_pdl_wait();
    uint32_t count;
    if (p.experts <= 2 * RT_WARP_LANES)
        count = rt_route_choose<2>(p, tokens, room);
    else if (p.experts <= 8 * RT_WARP_LANES)
        count = rt_route_choose<8>(p, tokens, room);
    else
        count = rt_route_choose<RT_ROUTE_MOST_EXPERTS / RT_WARP_LANES>(p, tokens, room);
    room.start[threadIdx.x] = rt_route_sum<RT_ROUTE_THREADS>(p, count, room.sums); /* D */
    rt_route_place(p, tokens, room);
}
