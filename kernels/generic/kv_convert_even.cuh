/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_KV_CONVERT_EVEN_CUH
#define RT_KERNELS_GENERIC_KV_CONVERT_EVEN_CUH

/*
 * From e4m3 to e4m3: both sides have the same numbers with scales (kernels/abi/convert.h), so a
 * lane keeps them as bytes, in half the registers that bf16 takes, and more tokens are on their way
 * at once. One vector of a lane lies behind them, of either kind.
 *
 * Where all scales are powers of two, as append's are, bf16 rounds nothing, and a number is to be
 * multiplied by 2^d, old scale over new. f16 does that for two at once, with the same bits: it has
 * every e4m3, and four digits times 2^d are exact in it down to 2^-20 of the new scale, where e4m3
 * has 0 since 2^-10; what is too large becomes infinite, and that 448. 2^d itself is f16 up to
 * 2^15, and below 2^-24 everything is 0. Other tokens go by way of bf16, a vector after the other.
 */
#include "kernels/device/ptx/convert_e4m3.cuh"
#include "kernels/device/ptx/f16x2.cuh"
#include "kernels/generic/kv_convert.cuh"

struct rt_convert_even_token {
    uint32_t x[RT_CONVERT_ROUNDS][4]; /* e4m3 */
    uint32_t rest[8];                 /* pairs of bf16; of e4m3 the first four */
    float scale[RT_CONVERT_ROUNDS];
};

/* Elements of the rounds that are e4m3, on both sides. */
static __device__ __forceinline__ uint32_t rt_convert_even(const struct rt_kv_convert_params &p)
{
    return min(p.from_quant.fp8, RT_KV_CONVERT_MOST_SCALED);
}

/* First element of this lane's vector behind those. */
static __device__ __forceinline__ uint32_t
rt_convert_first_behind(const struct rt_kv_convert_params &p)
{
    const uint32_t end = rt_convert_even(p) / RT_CONVERT_VECTOR;
    return (end + (rt_convert_lane() - end) % RT_KV_CONVERT_LANES) * RT_CONVERT_VECTOR;
}

static __device__ __forceinline__ void rt_convert_even_load(const struct rt_kv_convert_params &p,
                                                            const struct rt_quant_row &from,
                                                            struct rt_convert_even_token &token)
{
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
        if (rt_convert_first(i) < rt_convert_even(p))
            *reinterpret_cast<uint4 *>(token.x[i]) =
                *reinterpret_cast<const uint4 *>(from.row + rt_convert_first(i));
    rt_convert_load_vector(p.from_quant, from.row, rt_convert_first_behind(p), p.d_qk, token.rest);
    rt_convert_load_scales(p.from_quant, from.scales, token.scale);
}

/* ---- by way of bf16 ---- */

static __device__ __forceinline__ void
rt_convert_even_by_bf16(const struct rt_kv_convert_params &p, const struct rt_quant_row &to,
                        const struct rt_convert_even_token &token)
{
    const struct rt_quant_view &q = p.to_quant;
    const bool by_tensor = q.scale_kind == RT_QUANT_SCALE_TENSOR;
    const float of_tensor = by_tensor ? 1.0f / q.tensor_scale : 0.0f;
    int log2[RT_CONVERT_ROUNDS] = {};
    uint32_t x[8];
    if (!by_tensor) {
        float most[RT_CONVERT_ROUNDS];
#pragma unroll
        for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++) {
            rt_convert_widen(token.x[i], token.scale[i], x);
            most[i] = rt_convert_most(x);
        }
        rt_convert_log2(q.tile, most, log2);
        rt_convert_put_scales(q, to.scales, log2);
    }
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++) {
        if (!to.row || rt_convert_first(i) >= rt_convert_even(p))
            continue;
        rt_convert_widen(token.x[i], token.scale[i], x);
        rt_convert_put(q, to.row, rt_convert_first(i), x,
                       by_tensor ? of_tensor : rt_power_of_2(-log2[i]));
    }
}

/* ---- by f16 ---- */

#if RT_HAS_CONVERT_E4M3

#define RT_CONVERT_MOST_F16_LOG2 15
#define RT_CONVERT_LEAST_F16_LOG2 (-25)

static __device__ __forceinline__ int rt_convert_exponent(float power)
{
    return (int)(__float_as_uint(power) >> 23) - 127;
}

/* A positive power of two for which bf16 has all that it makes of e4m3. */
static __device__ __forceinline__ bool rt_convert_is_power(float scale)
{
    const uint32_t bits = __float_as_uint(scale);
    return (bits & 0x807fffffu) == 0 && rt_convert_exponent(scale) >= RT_QUANT_LEAST_LOG2 &&
           rt_convert_exponent(scale) <= RT_QUANT_MOST_LOG2;
}

/* 16 numbers of e4m3 as pairs of f16. */
static __device__ __forceinline__ void rt_convert_f16(const uint32_t (&x)[4], uint32_t (&h)[8])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        h[2 * i] = rt_e4m3x2_f16x2<0>(x[i]);
        h[2 * i + 1] = rt_e4m3x2_f16x2<1>(x[i]);
    }
}

/* The largest magnitude; NaN is none. */
static __device__ __forceinline__ float rt_convert_most_f16(const uint32_t (&h)[8])
{
    uint32_t most = 0;
#pragma unroll
    for (int i = 0; i < 8; i++)
        most = rt_max_magnitude_f16x2(most, h[i]);
    most &= 0x7fff7fffu;
    return fmaxf(rt_f16_float((uint16_t)most), rt_f16_float((uint16_t)(most >> 16)));
}

/* The new scales' exponents; whether f16 serves all tokens of the warp. Every lane comes here. */
static __device__ __forceinline__ bool
rt_convert_find_f16(const struct rt_kv_convert_params &p, const struct rt_convert_even_token &token,
                    int (&log2)[RT_CONVERT_ROUNDS])
{
    const bool by_tensor = p.to_quant.scale_kind == RT_QUANT_SCALE_TENSOR;
    bool serves = !by_tensor || rt_convert_is_power(p.to_quant.tensor_scale);
    float most[RT_CONVERT_ROUNDS] = {};
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++) {
        uint32_t h[8];
        log2[i] = rt_convert_exponent(p.to_quant.tensor_scale);
        if (rt_convert_first(i) >= rt_convert_even(p))
            continue;
        serves &= rt_convert_is_power(token.scale[i]);
        rt_convert_f16(token.x[i], h);
        most[i] = rt_convert_most_f16(h) * token.scale[i];
    }
    if (!by_tensor)
        rt_convert_log2(p.to_quant.tile, most, log2);
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++) /* zeros stay zeros */
        serves &= most[i] == 0.0f ||
                  rt_convert_exponent(token.scale[i]) - log2[i] <= RT_CONVERT_MOST_F16_LOG2;
    return !__any_sync(RT_FULL_WARP, !serves);
}

/* Pairs of f16 times 2^d, as e4m3. */
static __device__ __forceinline__ uint32_t rt_convert_four_f16(uint32_t low, uint32_t high,
                                                               uint32_t factor)
{
    return rt_f16x2_e4m3x2(rt_multiply_f16x2(low, factor)) |
           rt_f16x2_e4m3x2(rt_multiply_f16x2(high, factor)) << 16;
}

/* All of the rounds, or nothing: false. Every lane comes here; where nothing is to be written both
 * of `to` are null, and scales 1. */
static __device__ __forceinline__ bool
rt_convert_even_by_f16(const struct rt_kv_convert_params &p, const struct rt_quant_row &to,
                       const struct rt_convert_even_token &token)
{
    int log2[RT_CONVERT_ROUNDS];
    if (!rt_convert_find_f16(p, token, log2))
        return false;
    if (p.to_quant.scale_kind != RT_QUANT_SCALE_TENSOR)
        rt_convert_put_scales(p.to_quant, to.scales, log2);
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++) {
        const int d =
            min(max(rt_convert_exponent(token.scale[i]) - log2[i], RT_CONVERT_LEAST_F16_LOG2),
                RT_CONVERT_MOST_F16_LOG2);
        const float power = rt_power_of_2(d);
        const uint32_t factor = rt_pack_f16x2(power, power), first = rt_convert_first(i);
        uint32_t h[8];
        if (!to.row || first >= rt_convert_even(p))
            continue;
        rt_convert_f16(token.x[i], h);
        *reinterpret_cast<uint4 *>(to.row + first) = make_uint4(
            rt_convert_four_f16(h[0], h[1], factor), rt_convert_four_f16(h[2], h[3], factor),
            rt_convert_four_f16(h[4], h[5], factor), rt_convert_four_f16(h[6], h[7], factor));
    }
    return true;
}

#else

static __device__ __forceinline__ bool rt_convert_even_by_f16(const struct rt_kv_convert_params &,
                                                              const struct rt_quant_row &,
                                                              const struct rt_convert_even_token &)
{
    return false;
}

#endif

#endif
