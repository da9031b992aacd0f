/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MOE_BLOCK_FRONT_CUH
#define RT_KERNELS_SM90_MOE_BLOCK_FRONT_CUH

/*
 * moe_block: what its eight warps that multiply do in front of that: the residual, x, and logits of
 * the block's rows of the router. Every block norms all tokens for itself, so x is in shared memory
 * before others could hand it over.
 *
 * A chain of latencies, and of instructions that a block runs once each and fetches cold: all that
 * is asked for is asked at once, weights in front of the wait, and SLOTS, the vectors of 8 numbers
 * that a thread has of all tokens, is 1 where that is enough.
 */
#include "kernels/device/norm.cuh"
#include "kernels/device/residual.cuh"
#include "kernels/sm90/moe_block_desk.cuh"

/* Which of its vectors a thread looks at: of a token it has `each`. */
struct rt_moe_slot {
    uint32_t token, vector; /* vector: of the token's */
    uint32_t of_token;      /* of the thread's */

    __device__ __forceinline__ rt_moe_slot(void) : token(0), vector(threadIdx.x), of_token(0)
    {
    }

    __device__ __forceinline__ void advance(uint32_t each)
    {
        of_token++;
        vector += RT_STREAM_WORKERS;
        if (of_token < each)
            return;
        of_token = 0;
        vector = threadIdx.x;
        token++;
    }
};

template <uint32_t SLOTS> struct rt_moe_front {
    const struct rt_moe_block_params &p;
    const struct rt_input_norm_params &norm;
    struct rt_moe_desk &desk;
    const uint32_t warp;
    const uint32_t vectors, each;         /* of 8 numbers to a token; of them to a thread */
    const uint32_t first_expert, experts; /* the block's rows of the router */
    const uint32_t first_row, rows;       /* its numbers of out */
    unsigned char *const weight, *const router, *const x;

    __device__ __forceinline__ rt_moe_front(const struct rt_moe_block_params &p_,
                                            struct rt_moe_desk &desk_, unsigned char *x_,
                                            uint32_t warp_)
        : p(p_), norm(p_.gate.norm), desk(desk_), warp(warp_), vectors(norm.norm.width / 8),
          each(SLOTS == 1 ? 1 : rt_ceil_div_u32(vectors, RT_STREAM_WORKERS)),
          first_expert(rt_stream_share(p_.gate.route.experts, blockIdx.x)),
          experts(rt_stream_share(p_.gate.route.experts, blockIdx.x + 1) - first_expert),
          first_row(rt_stream_share(norm.norm.width, blockIdx.x)),
          rows(rt_stream_share(norm.norm.width, blockIdx.x + 1) - first_row), weight(x_),
          router(x_ + 2 * norm.norm.width), x(x_ + 4 * norm.norm.width)
    {
    }

    static __device__ __forceinline__ void meet(void)
    {
        rt_bar_sync(RT_MOE_BAR_WORKERS, RT_STREAM_WORKERS);
    }

    __device__ __forceinline__ bool have(const struct rt_moe_slot &slot) const
    {
        return (SLOTS == 1 || slot.token < norm.tokens) && slot.vector < vectors;
    }

    /* A line that all threads have a part of, and nobody another's: no barrier is needed. */
    __device__ __forceinline__ void keep(unsigned char *to, const uint16_t *from) const
    {
        for (uint32_t v = threadIdx.x; v < vectors; v += RT_STREAM_WORKERS)
            ((uint4 *)to)[v] = from ? ((const uint4 *)from)[v] : make_uint4(0, 0, 0, 0);
    }

    /* In front of the wait. */
    __device__ __forceinline__ void keep_weights(void) const
    {
        keep(weight, norm.norm.weight);
        if (experts > 0)
            keep(router, p.gate.router + first_expert * p.gate.router_stride);
    }

    /* ---- the norm ---- */

    __device__ __forceinline__ uint4 load(const uint16_t *from, bool is_there,
                                          const struct rt_moe_slot &slot) const
    {
        return is_there ? *(const uint4 *)(from + slot.token * norm.stride + slot.vector * 8)
                        : make_uint4(0, 0, 0, 0);
    }

    __device__ __forceinline__ void add_residual(uint4 (&v)[SLOTS]) const
    {
        const bool has_old = norm.residual && !norm.first;
        uint4 old[SLOTS];
        struct rt_moe_slot slot;
#pragma unroll
        for (uint32_t i = 0; i < SLOTS; i++, slot.advance(each)) {
            v[i] = load(norm.hidden, have(slot), slot);
            old[i] = load(norm.residual, have(slot) && has_old, slot);
        }
#pragma unroll
        for (uint32_t i = 0; i < SLOTS; i++) {
            if (!norm.first)
                v[i] = rt_residual_sum(old[i], v[i], norm.hidden_scale);
            const float sum = rt_warp_sum(rt_squares(v[i]));
            if (rt_lane() == 0)
                desk.sums[i][warp] = sum;
        }
    }

    __device__ __forceinline__ float factor_of(uint32_t token) const
    {
        float sum = 0;
        for (uint32_t i = token * each; i < (token + 1) * each; i++)
            sum += rt_sum_of_warps(desk.sums[i]);
        return rt_norm_factor(norm.norm, sum);
    }

    /* Of the new residual the block's rows, until others have read the old one. */
    __device__ __forceinline__ void keep_residual(const struct rt_moe_slot &slot,
                                                  const uint4 &v) const
    {
        const uint32_t row = slot.vector * 8, words[4] = {v.x, v.y, v.z, v.w};
        if (row + 8 <= first_row || row >= first_row + rows)
            return;
#pragma unroll
        for (uint32_t j = 0; j < 8; j++)
            if (row + j >= first_row && row + j < first_row + rows)
                desk.residual[slot.token][row + j - first_row] =
                    (uint16_t)(words[j / 2] >> 16 * (j % 2));
    }

    __device__ __forceinline__ void store_residual(void) const
    {
        if (!norm.residual)
            return;
        for (uint32_t token = warp; token < norm.tokens; token += RT_PROJECT_SM90_WARPS)
            for (uint32_t row = rt_lane(); row < rows; row += 32)
                norm.residual[token * norm.stride + first_row + row] = desk.residual[token][row];
    }

    /* What is normed of a token is written by one block. */
    __device__ __forceinline__ uint4 put(const struct rt_moe_slot &slot, const uint4 &v,
                                         float factor) const
    {
        const uint4 normed =
            norm.norm.weight ? rt_normed(norm.norm, v, ((const uint4 *)weight)[slot.vector], factor)
                             : v;
        ((uint4 *)(x + slot.token * RT_MOE_BLOCK_X_BYTES(norm.norm.width)))[slot.vector] = normed;
        if (blockIdx.x == slot.token % gridDim.x)
            *(uint4 *)(norm.normed + slot.token * norm.stride + slot.vector * 8) = normed;
        return normed;
    }

    /* Behind it v is normed. */
    __device__ __forceinline__ void make_x(uint4 (&v)[SLOTS]) const
    {
        float factor = 1;
        struct rt_moe_slot slot;
        add_residual(v);
        meet();
#pragma unroll
        for (uint32_t i = 0; i < SLOTS; i++, slot.advance(each)) {
            if (slot.token >= norm.tokens)
                break;
            if (slot.of_token == 0)
                factor = factor_of(slot.token);
            if (!have(slot))
                continue;
            keep_residual(slot, v[i]);
            v[i] = put(slot, v[i], factor);
        }
        meet();
    }

    /* ---- the router ---- */

    static __device__ __forceinline__ float dot(const uint4 &a, const uint4 &b)
    {
        const struct rt_floats8 u = rt_unpack_bf16x8(a), w = rt_unpack_bf16x8(b);
        float sum = 0;
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum = fmaf(u.at[i], w.at[i], sum);
        return sum;
    }

    /* The warps' sums of every token, for the row that is kept. */
    __device__ __forceinline__ void multiply(const uint4 (&v)[SLOTS]) const
    {
        struct rt_moe_slot slot;
        float sum = 0;
#pragma unroll
        for (uint32_t i = 0; i < SLOTS; i++, slot.advance(each)) {
            if (slot.token >= norm.tokens)
                break;
            if (have(slot))
                sum += dot(v[i], ((const uint4 *)router)[slot.vector]);
            if (slot.of_token + 1 < each)
                continue;
            sum = rt_warp_sum(sum);
            if (rt_lane() == 0)
                desk.sums[slot.token][warp] = sum;
            sum = 0;
        }
    }

    /* The block's logits. */
    __device__ __forceinline__ void send(const uint4 (&v)[SLOTS], uint32_t tag) const
    {
#pragma unroll 1
        for (uint32_t i = 0; i < experts; i++) {
            if (i > 0)
                keep(router, p.gate.router + (first_expert + i) * p.gate.router_stride);
            multiply(v);
            meet();
            if (threadIdx.x < norm.tokens)
                rt_tagged_store(rt_moe_logits(p, threadIdx.x) + first_expert + i,
                                rt_sum_of_warps(desk.sums[threadIdx.x]), tag);
            if (i + 1 < experts)
                meet(); /* the sums have been read */
        }
        if (threadIdx.x == 0)
            rt_mbarrier_arrive(&desk.sent);
    }

    __device__ __forceinline__ void run(void) const
    {
        keep_weights();
        rt_pdl_wait();
        /* Not before: who comes next may count on everything in front of this to be complete. */
        rt_pdl_launch_dependents();
        uint4 v[SLOTS];
        const uint32_t tag = p.gate.route.experts > 0 ? rt_moe_tag(p) : 0;
        make_x(v);
        if (p.gate.route.experts > 0)
            send(v, tag);
    }
};

#endif
