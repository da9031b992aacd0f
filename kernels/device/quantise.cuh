/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_QUANTISE_CUH
#define RT_KERNELS_DEVICE_QUANTISE_CUH

/*
 * bf16 -> e4m3 with the scales of kernels/abi/quant.h, as its rule has it.
 *
 * A token is a warp's: its 16-byte vectors of eight bf16 in turn, so that loads and stores are of
 * neighbours. What has scales is in the first two rounds.
 *
 *   vector   0  1  …  31 | 32  33  …  63 | 64  …      elements  8 v .. 8 v + 7
 *   lane     0  1  …  31 |  0   1  …  31 |  0  …
 *   round    0           |  1            |  2
 *
 * A tile of 64, 128 or 256 is 8, 16 or 32 lanes of a round, one of 512 all of two.
 */
#include "kernels/device/quant_row.cuh"
#include "kernels/device/scan.cuh"

#define RT_QUANT_ROUNDS 2u /* e4m3 numbers that have scales in the cache: 512 at most */

/* The largest magnitude of `most` and a word's two numbers; NaN is none, for fmaxf drops it. */
static __device__ __forceinline__ float rt_quant_most_of_word(float most, uint32_t word)
{
    return fmaxf(fmaxf(most, fabsf(rt_bf16_low(word))), fabsf(rt_bf16_high(word)));
}

static __device__ __forceinline__ float rt_quant_most(const uint4 &v)
{
    const float low = rt_quant_most_of_word(rt_quant_most_of_word(0.0f, v.x), v.y);
    return rt_quant_most_of_word(rt_quant_most_of_word(low, v.z), v.w);
}

/* Of a magnitude that is a number of bf16: the least k with it <= 448 * 2^k, 448 being 1.75 * 2^8.
 * What is beyond 1.75 carries into the exponent. */
static __device__ __forceinline__ int rt_quant_log2(float most)
{
    const int k = (int)((__float_as_uint(most) + 0x1fffffu) >> 23) - 127 - 8;
    return min(max(k, RT_QUANT_LEAST_LOG2), RT_QUANT_MOST_LOG2);
}

static __device__ __forceinline__ uint32_t rt_quant_four(uint32_t low, uint32_t high, float factor)
{
    return rt_bf16x2_e4m3x2(low, factor) | rt_bf16x2_e4m3x2(high, factor) << 16;
}

/* What a round's numbers are multiplied by, and the exponent of their tile's scale. */
struct rt_quant_factors {
    float factor[RT_QUANT_ROUNDS];
    int log2[RT_QUANT_ROUNDS]; /* of scales in the cache */
};

/* Every lane of the warp comes here; vectors that no scale is for are any numbers. */
static __device__ __forceinline__ struct rt_quant_factors
rt_quant_find_factors(const struct rt_quant_view &q, const uint4 (&x)[RT_QUANT_ROUNDS])
{
    struct rt_quant_factors found = {};
    if (q.scale_kind == RT_QUANT_SCALE_TENSOR) {
        found.factor[0] = found.factor[1] = 1.0f / q.tensor_scale;
        return found;
    }
    float most[RT_QUANT_ROUNDS] = {rt_quant_most(x[0]), rt_quant_most(x[1])};
    if (q.tile > RT_WARP_LANES * RT_QUANT_VECTOR)
        most[0] = most[1] = fmaxf(most[0], most[1]);
    const uint32_t lanes = min(q.tile / RT_QUANT_VECTOR, (uint32_t)RT_WARP_LANES);
    for (uint32_t distance = lanes / 2; distance > 0; distance /= 2)
#pragma unroll
        for (uint32_t i = 0; i < RT_QUANT_ROUNDS; i++)
            most[i] = fmaxf(most[i], __shfl_xor_sync(RT_FULL_WARP, most[i], (int)distance));
#pragma unroll
    for (uint32_t i = 0; i < RT_QUANT_ROUNDS; i++) {
        found.log2[i] = rt_quant_log2(most[i]);
        found.factor[i] = rt_power_of_2(-found.log2[i]);
    }
    return found;
}

/* Vector `vector` of the token's numbers, where it goes in the row. */
static __device__ __forceinline__ void rt_quant_put_vector(const struct rt_quant_view &q,
                                                           unsigned char *row, uint32_t vector,
                                                           const uint4 &x, float factor)
{
    const uint32_t first = vector * RT_QUANT_VECTOR;
    if (first < q.fp8)
        *reinterpret_cast<uint2 *>(row + first) =
            make_uint2(rt_quant_four(x.x, x.y, factor), rt_quant_four(x.z, x.w, factor));
    else
        *reinterpret_cast<uint4 *>(row + q.rest_offset_bytes + (first - q.fp8) * sizeof(uint16_t)) =
            x;
}

/* Lane i stores scale i of the token, which its tile's first lane has; behind the last is 0. */
static __device__ __forceinline__ void rt_quant_put_scales(const struct rt_quant_view &q,
                                                           unsigned char *scales,
                                                           const struct rt_quant_factors &of)
{
    if (q.scale_kind == RT_QUANT_SCALE_TENSOR)
        return;
    const uint32_t lane = rt_lane(), tiles = q.fp8 / q.tile;
    const uint32_t first = lane * (q.tile / RT_QUANT_VECTOR); /* the tile's first vector */
    const int low = __shfl_sync(RT_FULL_WARP, of.log2[0], (int)(first % RT_WARP_LANES));
    const int high = __shfl_sync(RT_FULL_WARP, of.log2[1], (int)(first % RT_WARP_LANES));
    const int log2 = first < RT_WARP_LANES ? low : high;
    const bool is_f32 = q.scale_kind == RT_QUANT_SCALE_F32;
    if (lane >= q.scale_bytes / (is_f32 ? 4u : 1u))
        return;
    if (is_f32)
        reinterpret_cast<float *>(scales)[lane] = lane < tiles ? rt_power_of_2(log2) : 0.0f;
    else
        scales[lane] = lane < tiles ? (unsigned char)(log2 + 127) : 0;
}

/* A lane's vectors of a whole token, which has 96 at most. */
struct rt_quant_token {
    uint4 x[RT_QUANT_ROUNDS], behind;
};

/* load(v) is vector v of so many. */
template <class LOAD>
static __device__ __forceinline__ struct rt_quant_token rt_quant_load_token(uint32_t vectors,
                                                                            const LOAD &load)
{
    struct rt_quant_token token = {};
#pragma unroll
    for (uint32_t i = 0; i < RT_QUANT_ROUNDS; i++)
        if (i * RT_WARP_LANES + rt_lane() < vectors)
            token.x[i] = load(i * RT_WARP_LANES + rt_lane());
    const uint32_t last = RT_QUANT_ROUNDS * RT_WARP_LANES + rt_lane();
    if (last < vectors)
        token.behind = load(last);
    return token;
}

/* Every lane comes here. */
static __device__ __forceinline__ void rt_quant_put_token(const struct rt_quant_view &q,
                                                          const struct rt_quant_row &to,
                                                          uint32_t vectors,
                                                          const struct rt_quant_token &token)
{
    const uint32_t last = RT_QUANT_ROUNDS * RT_WARP_LANES + rt_lane();
    /* Of e4m3 only where all numbers have one scale, so it need not wait for the others'. */
    if (last < vectors)
        rt_quant_put_vector(q, to.row, last, token.behind, 1.0f / q.tensor_scale);
    const struct rt_quant_factors of = rt_quant_find_factors(q, token.x);
#pragma unroll
    for (uint32_t i = 0; i < RT_QUANT_ROUNDS; i++)
        if (i * RT_WARP_LANES + rt_lane() < vectors)
            rt_quant_put_vector(q, to.row, i * RT_WARP_LANES + rt_lane(), token.x[i], of.factor[i]);
    rt_quant_put_scales(q, to.scales, of);
}

#endif
