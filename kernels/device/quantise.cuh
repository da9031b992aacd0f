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

/* The larger magnitude of a word's two numbers, as bits; NaN is none. */
static __device__ __forceinline__ uint32_t rt_quant_most_of_word(uint32_t word)
{
    const uint32_t low = word & 0x7fffu, high = word >> 16 & 0x7fffu;
    const uint32_t of_low = low > 0x7f80u ? 0 : low, of_high = high > 0x7f80u ? 0 : high;
    return of_low > of_high ? of_low : of_high;
}

static __device__ __forceinline__ uint32_t rt_quant_most(const uint4 &v)
{
    const uint32_t a = max(rt_quant_most_of_word(v.x), rt_quant_most_of_word(v.y));
    return max(a, max(rt_quant_most_of_word(v.z), rt_quant_most_of_word(v.w)));
}

/* Of the bits of a magnitude in bf16: the least k with it <= 448 * 2^k, 448 being 1.75 * 2^8. */
static __device__ __forceinline__ int rt_quant_log2(uint32_t most)
{
    const int k = (int)(most >> 7) - 127 - 8 + ((most & 0x7fu) > 0x60u ? 1 : 0);
    return min(max(k, RT_QUANT_LEAST_LOG2), RT_QUANT_MOST_LOG2);
}

static __device__ __forceinline__ uint32_t rt_quant_four(uint32_t low, uint32_t high, float factor)
{
    return rt_float_e4m3(rt_bf16_low(low) * factor) |
           rt_float_e4m3(rt_bf16_high(low) * factor) << 8 |
           rt_float_e4m3(rt_bf16_low(high) * factor) << 16 |
           rt_float_e4m3(rt_bf16_high(high) * factor) << 24;
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
    uint32_t most[RT_QUANT_ROUNDS] = {rt_quant_most(x[0]), rt_quant_most(x[1])};
    if (q.tile > RT_WARP_LANES * RT_QUANT_VECTOR)
        most[0] = most[1] = max(most[0], most[1]);
    const uint32_t lanes = min(q.tile / RT_QUANT_VECTOR, (uint32_t)RT_WARP_LANES);
    for (uint32_t distance = lanes / 2; distance > 0; distance /= 2)
#pragma unroll
        for (uint32_t i = 0; i < RT_QUANT_ROUNDS; i++)
            most[i] = max(most[i], __shfl_xor_sync(RT_FULL_WARP, most[i], (int)distance));
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

/* A whole token of so many vectors, 96 at most; load(v) is vector v. Every lane comes here. */
template <class LOAD>
static __device__ __forceinline__ void rt_quant_token(const struct rt_quant_view &q,
                                                      const struct rt_quant_row &to,
                                                      uint32_t vectors, const LOAD &load)
{
    uint4 x[RT_QUANT_ROUNDS] = {}, behind = {};
#pragma unroll
    for (uint32_t i = 0; i < RT_QUANT_ROUNDS; i++)
        if (i * RT_WARP_LANES + rt_lane() < vectors)
            x[i] = load(i * RT_WARP_LANES + rt_lane());
    const uint32_t last = RT_QUANT_ROUNDS * RT_WARP_LANES + rt_lane();
    if (last < vectors)
        behind = load(last);
    const struct rt_quant_factors of = rt_quant_find_factors(q, x);
#pragma unroll
    for (uint32_t i = 0; i < RT_QUANT_ROUNDS; i++)
        if (i * RT_WARP_LANES + rt_lane() < vectors)
            rt_quant_put_vector(q, to.row, i * RT_WARP_LANES + rt_lane(), x[i], of.factor[i]);
    if (last < vectors)
        rt_quant_put_vector(q, to.row, last, behind, of.factor[0]);
    rt_quant_put_scales(q, to.scales, of);
}

#endif
