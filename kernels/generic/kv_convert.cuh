/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_KV_CONVERT_CUH
#define RT_KERNELS_GENERIC_KV_CONVERT_CUH

/*
 * A token of kv_convert as numbers: what attention reads of a row in bf16, and that written as
 * append writes it. bf16 is a row that has no e4m3, so there is one way from any layout to any.
 *
 * A token is eight neighbouring lanes', so four share an instruction wherever a place, a scale or a
 * maximum is found. A lane has vectors of 16 numbers, 16 bytes of e4m3 or 32 of bf16, in turn:
 *
 *   vector   0  …   7 |  8  …  15 | 16  …  23 | 24  …  31 | 32  …      elements  16 v .. 16 v + 15
 *   lane     0  …   7 |  0  …   7 |  0  …   7 |  0  …   7 |  0  …
 *   round    0        |  1        |  2        |  3        | behind: no scale of the cache
 *
 * A tile of 64 or 128 is four or eight lanes of a round, one of 256 or 512 all of two or four.
 */
#include "kernels/abi/convert.h"
#include "kernels/device/ptx/bf16x2.cuh"
#include "kernels/device/quantise.cuh"

#define RT_CONVERT_VECTOR 16u
#define RT_CONVERT_ROUNDS (512u / RT_CONVERT_VECTOR / RT_KV_CONVERT_LANES)

/* A lane's vectors, and what numbers of e4m3 in them are multiples of. */
struct rt_convert_token {
    uint32_t x[RT_CONVERT_ROUNDS + 1][8]; /* pairs of bf16; as it lies e4m3 is the first four */
    float scale[RT_CONVERT_ROUNDS];
};

static __device__ __forceinline__ uint32_t rt_convert_lane(void)
{
    return threadIdx.x % RT_KV_CONVERT_LANES;
}

/* First element of this lane's vector of a round. */
static __device__ __forceinline__ uint32_t rt_convert_first(uint32_t round)
{
    return (round * RT_KV_CONVERT_LANES + rt_convert_lane()) * RT_CONVERT_VECTOR;
}

/* Where elements are that are bf16. */
static __device__ __forceinline__ int64_t rt_convert_rest(const struct rt_quant_view &q,
                                                          uint32_t first)
{
    return q.rest_offset_bytes + (first - q.fp8) * (int64_t)sizeof(uint16_t);
}

/* 16 numbers as they lie in a row of d_qk: e4m3 in the first four words; of none, as x was. Both
 * kinds by predicates: a branch between them would hold up what is asked for behind it. */
static __device__ __forceinline__ void rt_convert_load_vector(const struct rt_quant_view &q,
                                                              const unsigned char *row,
                                                              uint32_t first, uint32_t d_qk,
                                                              uint32_t (&x)[8])
{
    uint4 *const words = reinterpret_cast<uint4 *>(x);
    if (first < q.fp8)
        words[0] = *reinterpret_cast<const uint4 *>(row + first);
    if (first >= q.fp8 && first < d_qk) {
        const uint4 *const rest = reinterpret_cast<const uint4 *>(row + rt_convert_rest(q, first));
        words[0] = rest[0];
        words[1] = rest[1];
    }
}

static __device__ __forceinline__ void rt_convert_load_scales(const struct rt_quant_view &q,
                                                              const unsigned char *scales,
                                                              float (&scale)[RT_CONVERT_ROUNDS])
{
    const uint32_t tile_log2 = (uint32_t)__ffs((int)q.tile) - 1;
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
        if (rt_convert_first(i) < q.fp8)
            scale[i] = rt_quant_scale(q, scales, rt_convert_first(i) >> tile_log2);
}

/* A row as it lies, all of it asked for before any is looked at. */
static __device__ __forceinline__ void rt_convert_load(const struct rt_quant_view &q,
                                                       const struct rt_quant_row &from,
                                                       uint32_t d_qk,
                                                       struct rt_convert_token &token)
{
#pragma unroll
    for (uint32_t i = 0; i <= RT_CONVERT_ROUNDS; i++)
        rt_convert_load_vector(q, from.row, rt_convert_first(i), d_qk, token.x[i]);
    rt_convert_load_scales(q, from.scales, token.scale);
}

/* 16 numbers of e4m3 as bf16. */
static __device__ __forceinline__ void rt_convert_widen(const uint32_t *fp8, float scale,
                                                        uint32_t (&x)[8])
{
    const uint32_t four[4] = {fp8[0], fp8[1], fp8[2], fp8[3]}; /* may be the first of x */
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = rt_e4m3x2_bf16x2(four[i], scale);
        x[2 * i + 1] = rt_e4m3x2_bf16x2(four[i] >> 16, scale);
    }
}

/* The largest magnitude; NaN is none, for the maximum with a number is the number. */
static __device__ __forceinline__ float rt_convert_most(const uint32_t (&x)[8])
{
    uint32_t most = 0;
#pragma unroll
    for (int i = 0; i < 8; i++)
        most = rt_max_bf16x2(most, x[i] & 0x7fff7fffu);
    return fmaxf(rt_bf16_low(most), rt_bf16_high(most));
}

/* Of tiles of four lanes, whose maximum each of them finds. */
static __device__ __forceinline__ void rt_convert_log2_of_few(float (&most)[RT_CONVERT_ROUNDS],
                                                              int (&log2)[RT_CONVERT_ROUNDS])
{
#pragma unroll
    for (int distance = 2; distance > 0; distance /= 2)
#pragma unroll
        for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
            most[i] = fmaxf(most[i], __shfl_xor_sync(RT_FULL_WARP, most[i], distance));
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
        log2[i] = rt_quant_log2(most[i]);
}

/* What a lane keeps of two, for what the lane `distance` away keeps of the other. */
static __device__ __forceinline__ float rt_convert_most_of(float low, float high, int distance)
{
    const bool is_high = (rt_convert_lane() & (uint32_t)distance) != 0;
    const float given = __shfl_xor_sync(RT_FULL_WARP, is_high ? low : high, distance);
    return fmaxf(is_high ? high : low, given);
}

/* Of tiles of all eight lanes: lanes 2 i and 2 i + 1 find round i's, with as many shuffles for four
 * as one would take. */
static __device__ __forceinline__ void
rt_convert_log2_of_many(const float (&most)[RT_CONVERT_ROUNDS], int (&log2)[RT_CONVERT_ROUNDS])
{
    static_assert(RT_CONVERT_ROUNDS == 4 && RT_KV_CONVERT_LANES == 8, "two lanes a round");
    const float even = rt_convert_most_of(most[0], most[2], 4);
    const float odd = rt_convert_most_of(most[1], most[3], 4);
    float mine = rt_convert_most_of(even, odd, 2);
    mine = fmaxf(mine, __shfl_xor_sync(RT_FULL_WARP, mine, 1));
    const int found = rt_quant_log2(mine);
    const int group = (int)(rt_lane() - rt_convert_lane());
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
        log2[i] = __shfl_sync(RT_FULL_WARP, found, group + (int)(2 * i));
}

static __device__ __forceinline__ bool rt_convert_tile_is_few(uint32_t tile)
{
    return tile < RT_KV_CONVERT_LANES * RT_CONVERT_VECTOR;
}

/* Of each round's magnitude the exponent of its tile's scale. Every lane comes here. */
static __device__ __forceinline__ void
rt_convert_log2(uint32_t tile, float (&most)[RT_CONVERT_ROUNDS], int (&log2)[RT_CONVERT_ROUNDS])
{
    if (rt_convert_tile_is_few(tile)) {
        rt_convert_log2_of_few(most, log2);
        return;
    }
#pragma unroll
    for (uint32_t apart = 1; apart < RT_CONVERT_ROUNDS; apart *= 2)
        if (tile / RT_CONVERT_VECTOR > apart * RT_KV_CONVERT_LANES)
#pragma unroll
            for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
                if (!(i & apart))
                    most[i] = most[i + apart] = fmaxf(most[i], most[i + apart]);
    rt_convert_log2_of_many(most, log2);
}

/* Lane i stores scale i of the token, which its tile's first lane has; behind the last is 0. Every
 * lane comes here; where nothing is to be written `scales` is null. */
static __device__ __forceinline__ void rt_convert_put_scales(const struct rt_quant_view &q,
                                                             unsigned char *scales,
                                                             const int (&log2)[RT_CONVERT_ROUNDS])
{
    const uint32_t lane = rt_convert_lane(), group = rt_lane() - lane;
    const uint32_t first = lane * (q.tile / RT_CONVERT_VECTOR); /* the tile's first vector */
    const bool few = rt_convert_tile_is_few(q.tile);
    int mine = 0;
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++) {
        int of_round = log2[i];
        if (few)
            of_round =
                __shfl_sync(RT_FULL_WARP, of_round, (int)(group + first % RT_KV_CONVERT_LANES));
        mine = first / RT_KV_CONVERT_LANES == i ? of_round : mine;
    }
    const bool is_f32 = q.scale_kind == RT_QUANT_SCALE_F32;
    const bool is_tile = first * RT_CONVERT_VECTOR < q.fp8;
    if (!scales || lane >= q.scale_bytes / (is_f32 ? 4u : 1u))
        return;
    if (is_f32)
        reinterpret_cast<float *>(scales)[lane] = is_tile ? rt_power_of_2(mine) : 0.0f;
    else
        scales[lane] = is_tile ? (unsigned char)(mine + 127) : 0;
}

/* A vector of bf16, where it goes in the row. */
static __device__ __forceinline__ void rt_convert_put(const struct rt_quant_view &q,
                                                      unsigned char *row, uint32_t first,
                                                      const uint32_t (&x)[8], float factor)
{
    if (first < q.fp8) {
        *reinterpret_cast<uint4 *>(row + first) =
            make_uint4(rt_quant_four(x[0], x[1], factor), rt_quant_four(x[2], x[3], factor),
                       rt_quant_four(x[4], x[5], factor), rt_quant_four(x[6], x[7], factor));
        return;
    }
    uint4 *const rest = reinterpret_cast<uint4 *>(row + rt_convert_rest(q, first));
    rest[0] = make_uint4(x[0], x[1], x[2], x[3]);
    rest[1] = make_uint4(x[4], x[5], x[6], x[7]);
}

/* All of the rounds by way of bf16. Every lane comes here; where nothing is to be written both of
 * `to` are null. */
static __device__ __forceinline__ void rt_convert_by_bf16(const struct rt_kv_convert_params &p,
                                                          const struct rt_quant_row &to,
                                                          struct rt_convert_token &token)
{
    const struct rt_quant_view &q = p.to_quant;
    const bool by_tensor = q.scale_kind == RT_QUANT_SCALE_TENSOR;
    const float of_tensor = by_tensor ? 1.0f / q.tensor_scale : 0.0f;
    int log2[RT_CONVERT_ROUNDS] = {};
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
        if (rt_convert_first(i) < p.from_quant.fp8)
            rt_convert_widen(token.x[i], token.scale[i], token.x[i]);
    if (!by_tensor) {
        float most[RT_CONVERT_ROUNDS];
#pragma unroll
        for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
            most[i] = rt_convert_most(token.x[i]);
        rt_convert_log2(q.tile, most, log2);
        rt_convert_put_scales(q, to.scales, log2);
    }
#pragma unroll
    for (uint32_t i = 0; i < RT_CONVERT_ROUNDS; i++)
        if (to.row && rt_convert_first(i) < p.d_qk)
            rt_convert_put(q, to.row, rt_convert_first(i), token.x[i],
                           by_tensor ? of_tensor : rt_power_of_2(-log2[i]));
}

/* A vector that has no scale of the cache on either side. */
static __device__ __forceinline__ void rt_convert_behind(const struct rt_kv_convert_params &p,
                                                         const struct rt_quant_row &to,
                                                         uint32_t first, uint32_t (&x)[8])
{
    if (!to.row || first >= p.d_qk)
        return;
    if (first < p.from_quant.fp8)
        rt_convert_widen(x, p.from_quant.tensor_scale, x);
    rt_convert_put(p.to_quant, to.row, first, x, 1.0f / p.to_quant.tensor_scale);
}

#endif
