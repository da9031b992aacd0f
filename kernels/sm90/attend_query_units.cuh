/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_QUERY_UNITS_CUH
#define RT_KERNELS_SM90_ATTEND_QUERY_UNITS_CUH

/*
 * q where it lies, tiles in the copy engine's swizzle: what keys of f16 are multiplied by becomes
 * f16 in units of its query row (kernels/sm90/attend_units.cuh). A lane has every 32nd vector of a
 * query row, and a warp up to four query rows at a time, which wait for shared memory once.
 */
#include "kernels/device/attend_walk.cuh"
#include "kernels/device/ptx/opaque.cuh"
#include "kernels/sm90/attend_desk.cuh"

template <class SHAPE, int ROWS> struct rt_sm90_query_rows {
    static constexpr int WARPS = RT_SM90_WORKERS * RT_SM90_WORKER_WARPS;
    static constexpr int OF_LANE = (SHAPE::D_QK / 8 + 31) / 32, ROW_BYTES = WARPS * 128;
    static_assert(WARPS % 8 == 0, "rows that are so far apart have one swizzle");
    uint4 x[ROWS][OF_LANE];

    static __device__ __forceinline__ uint4 *vector(unsigned char *at, int row, int i)
    {
        return (uint4 *)(at + i * 4 * SHAPE::Q_TILE_BYTES + row * ROW_BYTES);
    }

    /* `at`: this lane's first vector of the first row; so many of them are converted. */
    __device__ __forceinline__ void load(unsigned char *at, int left)
    {
#pragma unroll
        for (int row = 0; row < ROWS; row++)
#pragma unroll
            for (int i = 0; i < OF_LANE; i++)
                x[row][i] = i * 32 < left ? *vector(at, row, i) : make_uint4(0, 0, 0, 0);
    }

    /* `unit`: the first row's. */
    __device__ __forceinline__ void store(unsigned char *at, int left, float *unit, bool tells)
    {
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
            uint32_t most = 0;
#pragma unroll
            for (int i = 0; i < OF_LANE; i++)
                most = max(most, rt_sm90_most_bf16(x[row][i]));
            const int log2 = rt_sm90_query_log2(__reduce_max_sync(RT_ATTEND_FULL_WARP, most));
            const float by = rt_sm90_power_of_2(-log2);
#pragma unroll
            for (int i = 0; i < OF_LANE; i++)
                if (i * 32 < left)
                    *vector(at, row, i) = rt_sm90_bf16_f16(x[row][i], by);
            if (tells)
                unit[row * WARPS] = rt_sm90_power_of_2(log2);
        }
    }
};

/* By warp `warp` of the workers', a query row's first `elements`. What follows from a lane is found
 * anew: registers are short where query rows are 64. */
template <class SHAPE>
static __device__ __forceinline__ void rt_sm90_convert_queries(const rt_sm90_room<SHAPE> &room,
                                                               int warp, int elements)
{
    constexpr int WARPS = RT_SM90_WORKERS * RT_SM90_WORKER_WARPS;
    constexpr int AT_ONCE = SHAPE::TILE_ROWS < 4 * WARPS ? SHAPE::TILE_ROWS / WARPS : 4;
#pragma unroll 1
    for (int row = warp; row < SHAPE::TILE_ROWS; row += WARPS * AT_ONCE) {
        const uint32_t lane = rt_opaque(threadIdx.x) % 32;
        const int left = elements / 8 - (int)lane;
        unsigned char *at =
            room.q + lane / 8 * SHAPE::Q_TILE_BYTES + row * 128 + (lane ^ (uint32_t)row) % 8 * 16;
        struct rt_sm90_query_rows<SHAPE, AT_ONCE> rows;
        rows.load(at, left);
        rows.store(at, left, &room.desk.query_unit[row], lane == 0);
    }
}

#endif
