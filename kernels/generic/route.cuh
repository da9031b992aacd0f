/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_ROUTE_CUH
#define RT_KERNELS_GENERIC_ROUTE_CUH

/* The rule of kernels/abi/route.h: a warp chooses for a token, and a block, a thread an expert,
 * says where each one's pairs begin. */
#include "kernels/abi/route.h"
#include "kernels/device/order.cuh"
#include "kernels/device/scan.cuh"

#define RT_ROUTE_NOBODY UINT32_MAX

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

    /* Lane i gets the expert of place i, and all others none; what they count is written. */
    __device__ __forceinline__ uint32_t run(uint32_t token)
    {
        find_keys();
        if (p.groups > 1)
            keep_groups();
        const uint32_t mine = choose();
        const bool has_place = rt_lane() < p.chosen;
        const float of_mine = has_place ? score(logits[mine]) : 0.0f;
        const float all = rt_warp_sum(of_mine);
        if (!has_place)
            return RT_ROUTE_NOBODY;
        const uint32_t pair = token * p.chosen + rt_lane();
        p.choices[pair] = (int32_t)mine;
        p.weights[pair] = (p.normalise ? of_mine / (all + RT_ROUTE_LEAST_SUM) : of_mine) * p.scale;
        return mine;
    }
};

/* By a warp: lane i gets the expert of the token's place i, RT_ROUTE_NOBODY where there is none. */
template <uint32_t EACH>
static __device__ __forceinline__ uint32_t rt_route_token(const struct rt_route_params &p,
                                                          uint32_t token)
{
    if (rt_row_is_live(&p.rows, token / p.rows.q_len))
        return rt_route_chooser<EACH>(p, token).run(token);
    if (rt_lane() < p.chosen) {
        p.choices[token * p.chosen + rt_lane()] = -1;
        p.weights[token * p.chosen + rt_lane()] = 0.0f;
    }
    return RT_ROUTE_NOBODY;
}

/* What the warps of a block have, of pairs and of experts with any. */
template <uint32_t THREADS> struct rt_route_sums {
    uint32_t pairs[THREADS / RT_WARP_LANES], active[THREADS / RT_WARP_LANES];
};

/* A thread's expert has `count` pairs: where they begin, which is returned, and its place among
 * those with any. A barrier stands in it. */
template <uint32_t THREADS>
static __device__ __forceinline__ uint32_t rt_route_sum(const struct rt_route_params &p,
                                                        uint32_t count,
                                                        struct rt_route_sums<THREADS> &sums)
{
    const uint32_t expert = threadIdx.x, warp = threadIdx.x / RT_WARP_LANES;
    const uint32_t is_active = count > 0;
    const uint32_t pairs = rt_warp_inclusive_sum(count), active = rt_warp_inclusive_sum(is_active);
    if (rt_lane() == RT_WARP_LANES - 1) {
        sums.pairs[warp] = pairs;
        sums.active[warp] = active;
    }
    __syncthreads();
    const uint32_t of_pairs = rt_lane() < warp ? sums.pairs[rt_lane()] : 0;
    const uint32_t of_active = rt_lane() < warp ? sums.active[rt_lane()] : 0;
    const uint32_t first = rt_warp_sum(of_pairs) + pairs - count;
    const uint32_t place = rt_warp_sum(of_active) + active - is_active;
    if (expert <= p.experts)
        p.groups_of.offsets[expert] = (int32_t)first;
    if (expert == THREADS - 1) {
        if (p.experts == THREADS)
            p.groups_of.offsets[THREADS] = (int32_t)(first + count);
        *p.groups_of.active_count = (int32_t)(place + is_active);
    }
    if (is_active)
        p.groups_of.active[place] = {(int32_t)expert, (int32_t)first, (int32_t)count, 0};
    return first;
}

#endif
