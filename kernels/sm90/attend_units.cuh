/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_UNITS_CUH
#define RT_KERNELS_SM90_ATTEND_UNITS_CUH

/*
 * Keys of e4m3 in products of f16, which has every e4m3: what is in shared memory are numbers, and
 * what they are multiples of, their unit, stands beside them.
 *
 *   k = k' S   S of a key: its scale, or where it has several a power of two above them
 *   q = q' E   E of a query row, a power of two: the largest |q'| is from 2^14 up to 2^15
 *   score      S E (q' k'), and what is bf16 of both on top; x in exponents of 2
 *   y = x + L  L of a key, its lift: 2^L is above |S|. The maximum is one of y, so that a key of
 *              large values and no weight takes no other's digits
 *   weight     2^(y - top) (S / 2^L) 2^15, no more than 2^15, of 64 query rows, whose top may be
 *              late (attend_wide.cuh), below f16's largest number: of values k'
 *   sum        2^(y - top) / 2^L, as if x had been compared with top
 *
 * So f16 has weights down to 2^-39 of the largest, and q down to 2^-39 of the row's.
 */
#include "kernels/device/bf16.cuh"
#include "kernels/device/ptx/f16x2.cuh"

/* From 2^-90 on, or what has weight in sums and no values to speak of might be 0. */
#define RT_SM90_LEAST_LIFT (-90)
#define RT_SM90_MOST_LIFT 126
#define RT_SM90_WEIGHT_UNITS 0x1p15f

/* Beside the keys of a stage. */
template <bool F16, int STAGES, int TILE_ROWS> struct rt_sm90_units_desk {
};
template <int STAGES, int TILE_ROWS> struct rt_sm90_units_desk<true, STAGES, TILE_ROWS> {
    alignas(8) float unit[STAGES][64];      /* S */
    alignas(8) float lift[STAGES][64];      /* L */
    alignas(8) float lowered[STAGES][64];   /* 2^-L */
    alignas(8) float query_unit[TILE_ROWS]; /* E */
};

/* Likewise where numbers become f16 as they are read: what a weight is multiplied by,
 * (S / 2^L) 2^15, and scale / S in f16 of each D_V / 4 columns, in the order of products. */
template <bool BYTES, int STAGES> struct rt_sm90_bytes_desk {
};
template <int STAGES> struct rt_sm90_bytes_desk<true, STAGES> {
    alignas(8) float weight[STAGES][64];
    alignas(8) uint16_t factor[STAGES][4][64];
};

static __device__ __forceinline__ float rt_sm90_power_of_2(int log2)
{
    return __uint_as_float((uint32_t)(log2 + 127) << 23);
}

static __device__ __forceinline__ int rt_sm90_lift(float unit)
{
    const int log2 = (int)(__float_as_uint(unit) >> 23 & 255) - 126;
    return min(max(log2, RT_SM90_LEAST_LIFT), RT_SM90_MOST_LIFT);
}

/* E's exponent, from the largest magnitude of the row as a float's bits. */
static __device__ __forceinline__ int rt_sm90_query_log2(uint32_t most)
{
    return max((int)(most >> 23), 16) - 141;
}

/* Two bf16 times a power of two, as f16. */
static __device__ __forceinline__ uint32_t rt_sm90_bf16_f16_2(uint32_t pair, float by)
{
    return rt_pack_f16x2(rt_bf16_low(pair) * by, rt_bf16_high(pair) * by);
}

static __device__ __forceinline__ uint4 rt_sm90_bf16_f16(const uint4 &x, float by)
{
    return make_uint4(rt_sm90_bf16_f16_2(x.x, by), rt_sm90_bf16_f16_2(x.y, by),
                      rt_sm90_bf16_f16_2(x.z, by), rt_sm90_bf16_f16_2(x.w, by));
}

/* Of two bf16 the larger magnitude, as a float's bits. */
static __device__ __forceinline__ uint32_t rt_sm90_most_bf16(uint32_t pair)
{
    return max(pair << 16 & 0x7fff0000u, pair & 0x7fff0000u);
}

static __device__ __forceinline__ uint32_t rt_sm90_most_bf16(const uint4 &x)
{
    return max(max(rt_sm90_most_bf16(x.x), rt_sm90_most_bf16(x.y)),
               max(rt_sm90_most_bf16(x.z), rt_sm90_most_bf16(x.w)));
}

#endif
