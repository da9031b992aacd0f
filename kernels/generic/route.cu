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
 *   warp_pairs        128   of the experts of a warp; likewise
 *   warp_active       128
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
#include "kernels/abi/route.h"
#include "kernels/device/order.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/scan.cuh"

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
    uint32_t warp_pairs[RT_ROUTE_WARPS], warp_active[RT_ROUTE_WARPS];
};

/* A warp's choice for one token: up to 32 EACH experts. */
template <uint32_t EACH> struct rt_route_chooser {
    const struct rt_route_params &p;
    const float *logits;
    float largest, sum;      /* of softmax */
    uint32_t key[EACH];      /* of expert lane + 32 i */
    uint32_t best_key, best; /* of this lane, the first */

    __device__ __forceinline__ rt_route_chooser(const struct rt_route_params &p_, uint32_t token)
        : p(p_), logits(p_.logits + token * p_.logit_stride)
    {
    }

    static __device__ __forceinline__ uint32_t expert(uint32_t i)
    {
        return i * RT_WARP_LANES + rt_lane();
    }

    __device__ __forceinline__ float score(float logit) const
    {
        return p.scoring == RT_ROUTE_SIGMOID ? 1.0f / (1.0f + expf(-logit))
                                             : expf(logit - largest) / sum;
    }

    __device__ __forceinline__ void find_softmax(const float (&x)[EACH])
    {
        uint32_t most = RT_ORDER_OUT;
        float mine = 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++)
            if (expert(i) < p.experts)
                most = max(most, rt_order_key(x[i]));
        largest = rt_order_float(__reduce_max_sync(RT_FULL_WARP, most));
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++)
            if (expert(i) < p.experts)
                mine += expf(x[i] - largest);
        sum = rt_warp_sum(mine);
    }

    __device__ __forceinline__ void find_keys(void)
    {
        const bool by_score = rt_route_by_score(&p);
        float x[EACH];
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++)
            x[i] = expert(i) < p.experts ? logits[expert(i)] : 0.0f;
        if (p.scoring == RT_ROUTE_SOFTMAX)
            find_softmax(x);
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++) {
            key[i] = RT_ORDER_OUT;
            if (expert(i) >= p.experts)
                continue;
            const float bias = p.bias ? p.bias[expert(i)] : 0.0f;
            key[i] = rt_order_key(by_score ? score(x[i]) + bias : x[i]);
        }
    }

    /* Of a group, by the whole warp: its largest key, or that of the sum of two. */
    __device__ __forceinline__ uint32_t group_key(uint32_t first, uint32_t end) const
    {
        uint32_t most = RT_ORDER_OUT, next = RT_ORDER_OUT;
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++)
            if (expert(i) >= first && expert(i) < end) {
                next = max(next, min(most, key[i]));
                most = max(most, key[i]);
            }
        const uint32_t largest_key = __reduce_max_sync(RT_FULL_WARP, most);
        if (p.group_value == RT_ROUTE_GROUP_MAX)
            return largest_key;
        /* The lane that has the largest brings its second. */
        const uint32_t owners = __ballot_sync(RT_FULL_WARP, most == largest_key);
        const bool is_owner = rt_lane() == (uint32_t)__ffs((int)owners) - 1;
        const uint32_t second = __reduce_max_sync(RT_FULL_WARP, is_owner ? next : most);
        return rt_order_key(rt_order_float(largest_key) + rt_order_float(second));
    }

    __device__ __forceinline__ void keep_groups(void)
    {
        const uint32_t each = p.experts / p.groups;
        uint32_t mine = RT_ORDER_OUT, kept = 0; /* a lane's group; a group's bit */
        for (uint32_t g = 0; g < p.groups; g++) {
            const uint32_t of_group = group_key(g * each, (g + 1) * each);
            mine = rt_lane() == g ? of_group : mine;
        }
        for (uint32_t i = 0; i < p.groups_kept; i++) {
            const uint32_t most = __reduce_max_sync(RT_FULL_WARP, mine);
            const uint32_t first =
                (uint32_t)__ffs((int)__ballot_sync(RT_FULL_WARP, mine == most)) - 1;
            kept |= 1u << first;
            mine = rt_lane() == first ? RT_ORDER_OUT : mine;
        }
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++)
            if (expert(i) < p.experts && (kept >> expert(i) / each & 1u) == 0)
                key[i] = RT_ORDER_OUT;
    }

    __device__ __forceinline__ void find_best(void)
    {
        best_key = RT_ORDER_OUT;
        best = UINT32_MAX;
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++)
            if (key[i] > best_key) {
                best_key = key[i];
                best = expert(i);
            }
    }

    /* Lane i gets the expert of place i. */
    __device__ __forceinline__ uint32_t choose(void)
    {
        uint32_t chosen = 0;
        find_best();
        for (uint32_t place = 0; place < p.chosen; place++) {
            const uint32_t most = __reduce_max_sync(RT_FULL_WARP, best_key);
            const uint32_t found =
                __reduce_min_sync(RT_FULL_WARP, best_key == most ? best : UINT32_MAX);
            chosen = rt_lane() == place ? found : chosen;
            if (best != found)
                continue;
#pragma unroll
            for (uint32_t i = 0; i < EACH; i++)
                key[i] = expert(i) == found ? RT_ORDER_OUT : key[i];
            find_best();
        }
        return chosen;
    }

    __device__ __forceinline__ void run(uint32_t token, struct rt_route_room &room)
    {
        find_keys();
        if (p.groups > 1)
            keep_groups();
        const uint32_t mine = choose();
        const bool has_place = rt_lane() < p.chosen;
        const float of_mine = has_place ? score(logits[mine]) : 0.0f;
        const float all = rt_warp_sum(of_mine);
        if (!has_place)
            return;
        const uint32_t pair = token * p.chosen + rt_lane();
        p.choices[pair] = (int32_t)mine;
        p.weights[pair] = (p.normalise ? of_mine / (all + RT_ROUTE_LEAST_SUM) : of_mine) * p.scale;
        atomicOr(&room.tile[mine][token % RT_ROUTE_TILE / 32u], 1u << token % 32u);
    }
};

/* By a warp. */
template <uint32_t EACH>
static __device__ __forceinline__ void rt_route_token(const struct rt_route_params &p,
                                                      uint32_t token, struct rt_route_room &room)
{
    if (rt_row_is_live(&p.rows, token / p.rows.q_len)) {
        rt_route_chooser<EACH>(p, token).run(token, room);
    } else if (rt_lane() < p.chosen) {
        p.choices[token * p.chosen + rt_lane()] = -1;
        p.weights[token * p.chosen + rt_lane()] = 0.0f;
    }
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
            rt_route_token<EACH>(p, token, room);
        __syncthreads(); /* B */
        count += rt_route_count(room);
        if (tokens > RT_ROUTE_TILE) {
            rt_route_clear(room);
            __syncthreads(); /* C */
        }
    }
    return count;
}

/* A thread's expert has `count` pairs: where they begin, and its place among those with any. */
static __device__ __forceinline__ void rt_route_sum(const struct rt_route_params &p, uint32_t count,
                                                    struct rt_route_room &room)
{
    const uint32_t expert = threadIdx.x, warp = threadIdx.x / RT_WARP_LANES;
    const uint32_t is_active = count > 0;
    const uint32_t pairs = rt_warp_inclusive_sum(count), active = rt_warp_inclusive_sum(is_active);
    if (rt_lane() == RT_WARP_LANES - 1) {
        room.warp_pairs[warp] = pairs;
        room.warp_active[warp] = active;
    }
    __syncthreads(); /* D */
    const uint32_t of_pairs = rt_lane() < warp ? room.warp_pairs[rt_lane()] : 0;
    const uint32_t of_active = rt_lane() < warp ? room.warp_active[rt_lane()] : 0;
    const uint32_t first = rt_warp_sum(of_pairs) + pairs - count;
    const uint32_t place = rt_warp_sum(of_active) + active - is_active;
    room.start[expert] = first;
    if (expert <= p.experts)
        p.groups_of.offsets[expert] = (int32_t)first;
    if (expert == RT_ROUTE_THREADS - 1) {
        if (p.experts == RT_ROUTE_THREADS)
            p.groups_of.offsets[RT_ROUTE_THREADS] = (int32_t)(first + count);
        *p.groups_of.active_count = (int32_t)(place + is_active);
    }
    if (is_active)
        p.groups_of.active[place] = {(int32_t)expert, (int32_t)first, (int32_t)count, 0};
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
    rt_route_sum(p, count, room);
    rt_route_place(p, tokens, room);
}
