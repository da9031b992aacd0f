/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MOE_BLOCK_CHOOSE_CUH
#define RT_KERNELS_SM90_MOE_BLOCK_CHOOSE_CUH

/*
 * moe_block: the four warps of a block that choose, each block for itself, so that nobody waits for
 * one that does it for all: a warp a token, and then one of them says who has which pairs.
 */
#include "kernels/generic/route.cuh"
#include "kernels/sm90/moe_block_desk.cuh"

struct rt_moe_chooser {
    static constexpr uint32_t AT_ONCE = 4; /* logits of a lane on their way */

    const struct rt_moe_block_params &p;
    struct rt_moe_desk &desk;
    struct rt_experts_few &few;
    float *const logits; /* of the token that this warp chooses for */
    const uint32_t which;
    const uint32_t pairs;

    __device__ __forceinline__ rt_moe_chooser(const struct rt_moe_block_params &p_,
                                              struct rt_moe_desk &desk_, float *logits_,
                                              uint32_t which_)
        : p(p_), desk(desk_), few(desk_.few), logits(logits_ + which_ * p_.gate.route.experts),
          which(which_), pairs(p_.gate.norm.tokens * p_.gate.route.chosen)
    {
    }

    static __device__ __forceinline__ void meet(void)
    {
        rt_bar_sync(RT_MOE_BAR_CHOOSERS, RT_MOE_CHOOSER_THREADS);
    }

    /* Nobody has any place yet. */
    __device__ __forceinline__ void clear_places(void)
    {
        uint32_t *const to = (uint32_t *)few.place;
        for (uint32_t i = which * 32 + rt_lane(); i < sizeof(few.place) / sizeof(*to);
             i += RT_MOE_CHOOSER_THREADS)
            to[i] = 0xffffffffu;
    }

    /* One logit, once its block has stored it. */
    __device__ __forceinline__ float await(const uint64_t *from, uint32_t tag) const
    {
        float logit;
        uint32_t tries = 0;
        while (rt_tagged_load(from, logit) != tag)
            if (++tries > RT_MOE_MOST_TRIES)
                __trap();
        return logit;
    }

    /* A token's logits, for this warp; for the caller one block writes them down. */
    __device__ __forceinline__ void gather(uint32_t token, uint32_t tag)
    {
        const struct rt_route_params &route = p.gate.route;
        const uint64_t *const from = rt_moe_logits(p, token);
        for (uint32_t first = rt_lane(); first < route.experts; first += 32 * AT_ONCE) {
            float logit[AT_ONCE];
            uint32_t is_there = 0;
#pragma unroll
            for (uint32_t i = 0; i < AT_ONCE; i++)
                if (first + 32 * i < route.experts)
                    is_there |= (uint32_t)(rt_tagged_load(from + first + 32 * i, logit[i]) == tag)
                                << i;
#pragma unroll
            for (uint32_t i = 0; i < AT_ONCE; i++) {
                const uint32_t expert = first + 32 * i;
                if (expert >= route.experts)
                    continue;
                if ((is_there >> i & 1) == 0)
                    logit[i] = await(from + expert, tag);
                logits[expert] = logit[i];
                if (blockIdx.x == 0)
                    const_cast<float *>(route.logits)[token * route.logit_stride + expert] =
                        logit[i];
            }
        }
        __syncwarp();
    }

    __device__ __forceinline__ void choose(uint32_t token) const
    {
        struct rt_route_params route = p.gate.route;
        route.choices = few.choices;
        route.weights = few.weights;
        route.logits = logits;
        route.logit_stride = 0;
        if (route.experts <= 2 * RT_WARP_LANES)
            (void)rt_route_token<2>(route, token);
        else if (route.experts <= 8 * RT_WARP_LANES)
            (void)rt_route_token<8>(route, token);
        else
            (void)rt_route_token<RT_GATE_MOST_EXPERTS / RT_WARP_LANES>(route, token);
        __syncwarp();
    }

    /* By one warp, a lane two pairs: bit i of `less` and `same` is pair i, of an expert before this
     * pair's, or of the same. */
    __device__ __forceinline__ void group(void)
    {
        int32_t mine[2];
        uint64_t less[2] = {}, before[2] = {}, firsts = 0;
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t pair = half * 32 + rt_lane();
            mine[half] = pair < pairs ? few.choices[pair] : -1;
            for (uint32_t i = 0; i < pairs; i++) {
                const int32_t other = few.choices[i];
                less[half] |= (uint64_t)(other >= 0 && other < mine[half]) << i;
                before[half] |= (uint64_t)(other == mine[half] && i < pair) << i;
            }
            const bool is_first = mine[half] >= 0 && before[half] == 0;
            firsts |= (uint64_t)__ballot_sync(RT_FULL_WARP, is_first) << 32 * half;
        }
        if (rt_lane() == 0)
            few.active_count = __popcll(firsts);
#pragma unroll
        for (uint32_t half = 0; half < 2; half++)
            if (mine[half] >= 0)
                put(half * 32 + rt_lane(), mine[half], less[half], before[half], firsts);
    }

    __device__ __forceinline__ void put(uint32_t pair, int32_t expert, uint64_t less,
                                        uint64_t before, uint64_t firsts)
    {
        const uint32_t first = (uint32_t)__popcll(less), index = (uint32_t)__popcll(less & firsts);
        const uint32_t token = pair / p.gate.route.chosen;
        few.pairs[first + (uint32_t)__popcll(before)] = (int32_t)pair;
        few.place[index][token] = (int8_t)(pair - token * p.gate.route.chosen);
        if (before != 0)
            return;
        int32_t count = 0;
        for (uint32_t i = pair; i < pairs; i++)
            count += few.choices[i] == expert;
        few.active[index] = {expert, (int32_t)first, count, 0};
    }

    /* For the caller, by one block. */
    __device__ __forceinline__ void publish(void) const
    {
        for (uint32_t i = rt_lane(); i < pairs; i += 32) {
            p.gate.route.choices[i] = few.choices[i];
            p.gate.route.weights[i] = few.weights[i];
        }
    }

    __device__ __forceinline__ void run(void)
    {
        clear_places();
        rt_pdl_wait();
        const uint32_t tag = rt_moe_tag(p);
        rt_mbarrier_wait(&desk.sent, 0);
        for (uint32_t token = which; token < p.gate.norm.tokens; token += RT_MOE_BLOCK_CHOOSERS) {
            gather(token, tag);
            choose(token);
        }
        meet();
        if (which == 0) {
            group();
            __syncwarp();
            if (rt_elected())
                rt_mbarrier_arrive(&desk.chosen);
        } else if (which == 1 && blockIdx.x == 0) {
            publish();
        }
    }
};

#endif
