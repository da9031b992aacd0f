/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MLA_BLOCK_WORDS_CUH
#define RT_KERNELS_SM90_MLA_BLOCK_WORDS_CUH

/*
 * Words of an exchange. Each says for itself that it is there, so none has to come in front of
 * another, and a vector is as good as its words.
 */
#include "kernels/abi/mla_block.h"
#include "kernels/device/bf16.cuh"
#include "kernels/device/ptx/bf16x2.cuh"
#include "kernels/device/ptx/relaxed.cuh"

/* A word comes within microseconds; after so many questions something is wrong, and a kernel that
 * ends tells more than one that does not. */
#define RT_BLOCK_MOST_TRIES (1u << 22)

static __device__ __forceinline__ bool rt_is_blank(uint32_t v)
{
    return v == RT_MLA_BLOCK_BLANK;
}

static __device__ __forceinline__ bool rt_is_blank(const uint2 &v)
{
    return rt_is_blank(v.x) | rt_is_blank(v.y);
}

static __device__ __forceinline__ bool rt_is_blank(const uint4 &v)
{
    return rt_is_blank(v.x) | rt_is_blank(v.y) | rt_is_blank(v.z) | rt_is_blank(v.w);
}

static __device__ __forceinline__ void rt_set_blank(uint32_t &v)
{
    v = RT_MLA_BLOCK_BLANK;
}

static __device__ __forceinline__ void rt_set_blank(uint2 &v)
{
    v = make_uint2(RT_MLA_BLOCK_BLANK, RT_MLA_BLOCK_BLANK);
}

static __device__ __forceinline__ void rt_set_blank(uint4 &v)
{
    v = make_uint4(RT_MLA_BLOCK_BLANK, RT_MLA_BLOCK_BLANK, RT_MLA_BLOCK_BLANK, RT_MLA_BLOCK_BLANK);
}

/* N words or vectors that other blocks write, asked for together, and again what was not there;
 * zero where `at` gives none. */
template <int N, class V, class AT>
static __device__ __forceinline__ void rt_block_gather(V (&v)[N], AT at)
{
    bool is_missing;
    uint32_t tries = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = V{};
        if (at(i))
            rt_set_blank(v[i]);
    }
#pragma unroll 1
    do {
        is_missing = false;
#pragma unroll
        for (int i = 0; i < N; i++)
            if (rt_is_blank(v[i]))
                rt_load_relaxed(v[i], at(i));
#pragma unroll
        for (int i = 0; i < N; i++)
            is_missing |= rt_is_blank(v[i]);
        if (++tries > RT_BLOCK_MOST_TRIES)
            __trap();
    } while (is_missing);
}

/* ---- bf16 ---- */

static __device__ __forceinline__ float rt_add_squares(float sum, const uint4 &v)
{
    const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sum = fmaf(rt_bf16_low(pairs[i]), rt_bf16_low(pairs[i]), sum);
        sum = fmaf(rt_bf16_high(pairs[i]), rt_bf16_high(pairs[i]), sum);
    }
    return sum;
}

static __device__ __forceinline__ uint32_t rt_scale_pair(uint32_t pair, uint32_t weight, float by)
{
    return rt_pack_bf16x2(rt_bf16_low(pair) * by * rt_bf16_low(weight),
                          rt_bf16_high(pair) * by * rt_bf16_high(weight));
}

static __device__ __forceinline__ uint4 rt_scale_pairs(const uint4 &v, const uint4 &weight,
                                                       float by)
{
    return make_uint4(rt_scale_pair(v.x, weight.x, by), rt_scale_pair(v.y, weight.y, by),
                      rt_scale_pair(v.z, weight.z, by), rt_scale_pair(v.w, weight.w, by));
}

/* Each rounded once. */
static __device__ __forceinline__ uint4 rt_multiply_pairs(const uint4 &a, const uint4 &b)
{
    return make_uint4(rt_multiply_bf16x2(a.x, b.x), rt_multiply_bf16x2(a.y, b.y),
                      rt_multiply_bf16x2(a.z, b.z), rt_multiply_bf16x2(a.w, b.w));
}

static __device__ __forceinline__ uint32_t rt_add_scaled_pair(uint32_t to, uint32_t pair, float by)
{
    return rt_pack_bf16x2(fmaf(rt_bf16_low(pair), by, rt_bf16_low(to)),
                          fmaf(rt_bf16_high(pair), by, rt_bf16_high(to)));
}

static __device__ __forceinline__ uint4 rt_add_scaled_pairs(const uint4 &to, const uint4 &v,
                                                            float by)
{
    return make_uint4(rt_add_scaled_pair(to.x, v.x, by), rt_add_scaled_pair(to.y, v.y, by),
                      rt_add_scaled_pair(to.z, v.z, by), rt_add_scaled_pair(to.w, v.w, by));
}

#endif
