/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PIECE_CUH
#define RT_KERNELS_DEVICE_PIECE_CUH

/*
 * A piece's numbers as kernels/abi/piece.h has them. What stores them first stores all as f16,
 * which costs a conversion and a maximum for two, and then, in code behind the usual one, those
 * that do not fit once more.
 */
#include "kernels/abi/piece.h"
#include "kernels/abi/views.h"
#include "kernels/device/ptx/f16x2.cuh"
#include "kernels/device/ptx/permute.cuh"
#include "kernels/device/scan.cuh"

/* A query row's halves; its rests are rt_piece_rest elements behind them. */
static __device__ __forceinline__ uint16_t *
rt_piece_row(const struct rt_partials_view &partials, int slot, int query_rows, int query, int d_v)
{
    return (uint16_t *)(partials.out + (int64_t)slot * query_rows * d_v) + query * d_v;
}

static __device__ __forceinline__ int rt_piece_rest(int query_rows, int d_v)
{
    return query_rows * d_v;
}

/* Two columns' halves, as f16. `most` are the largest magnitudes up to now, with some sign; NaN
 * raises none. */
static __device__ __forceinline__ uint32_t rt_piece_halves(float a, float b, uint32_t &most)
{
    const uint32_t halves = rt_pack_f16x2(a, b);
    most = rt_max_magnitude_f16x2(most, halves);
    return halves;
}

static __device__ __forceinline__ uint32_t rt_piece_larger(uint32_t most)
{
    return max(most & 0x7fffu, most >> 16 & 0x7fffu);
}

/* Whether f16 does for numbers of which these are the largest. */
static __device__ __forceinline__ bool rt_piece_fits(uint32_t most)
{
    return rt_piece_larger(most) - RT_PIECE_LEAST < RT_PIECE_LIMIT - RT_PIECE_LEAST;
}

/* By a whole warp: of lanes that differ in bits FROM to END / 2 of their numbers, which share a
 * query row, the largest magnitude of all, and all their bits. */
template <uint32_t FROM, uint32_t END>
static __device__ __forceinline__ uint32_t rt_piece_most(uint32_t most)
{
    most = rt_piece_larger(most);
#pragma unroll
    for (uint32_t distance = FROM; distance < END; distance *= 2)
        most = max(most, __shfl_xor_sync(RT_FULL_WARP, most, distance));
    return most;
}

template <uint32_t FROM, uint32_t END>
static __device__ __forceinline__ uint32_t rt_piece_all(uint32_t bits)
{
#pragma unroll
    for (uint32_t distance = FROM; distance < END; distance *= 2)
        bits |= __shfl_xor_sync(RT_FULL_WARP, bits, distance);
    return bits;
}

/* 0 where both are 0, of either sign. */
static __device__ __forceinline__ uint32_t rt_piece_bits(float a, float b)
{
    return (__float_as_uint(a) | __float_as_uint(b)) & 0x7fffffffu;
}

/* Two columns wide: `to` is their word of halves. */
static __device__ __forceinline__ void rt_piece_store_wide(uint16_t *to, int rest, float a, float b)
{
    const uint32_t x = __float_as_uint(a), y = __float_as_uint(b);
    *(uint32_t *)to = (rt_permute_bytes(x, y, 0x5100) & 0xffff0000u) | RT_PIECE_MARK;
    *(uint32_t *)(to + rest) = rt_permute_bytes(x, y, 0x7632);
}

/* rt_piece_bits of what this thread has stored wide. */
static __device__ __forceinline__ uint32_t rt_piece_bits_of_wide(const uint16_t *at, int rest)
{
    return *(const uint32_t *)at >> 16 | (*(const uint32_t *)(at + rest) & 0x7fff7fffu);
}

/* A word of halves as numbers, where they are f16. */
static __device__ __forceinline__ float2 rt_piece_of_halves(uint32_t halves)
{
    return make_float2(rt_f16_float((uint16_t)halves), rt_f16_float((uint16_t)(halves >> 16)));
}

/* Either. */
static __device__ __forceinline__ float2 rt_piece_read(const uint16_t *at, int rest)
{
    const uint32_t halves = *(const uint32_t *)at;
    if ((halves & 0xffffu) != RT_PIECE_MARK)
        return rt_piece_of_halves(halves);
    const uint32_t high = *(const uint32_t *)(at + rest);
    return make_float2(__uint_as_float(rt_permute_bytes(halves, high, 0x5424) & 0xffffff00u),
                       __uint_as_float(rt_permute_bytes(halves, high, 0x7634) & 0xffffff00u));
}

/* A number of a query row that has been stored becomes NaN. */
static __device__ __forceinline__ void rt_piece_spoil(uint16_t *row, int rest, int column)
{
    const int at = RT_PIECE_AT(column);
    if (row[at & ~1] == RT_PIECE_MARK)
        row[rest + at] = RT_PIECE_NAN_REST;
    else
        row[at] = RT_PIECE_NAN;
}

#endif
