/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_EXPERT_TILE_CUH
#define RT_KERNELS_DEVICE_EXPERT_TILE_CUH

/*
 * A tile of the products of many tokens, by tensor cores: 64 * FRAGMENTS vectors by 64 rows of each
 * of WEIGHTS weights. RT_EXPERTS_MANY_K numbers of all of them are a stage of shared memory,
 *
 *   [64 * FRAGMENTS vectors, WEIGHTS * 64 rows][128 bytes], 16 bytes at `piece ^ row % 8`
 *
 * so that eight rows of one column, which an ldmatrix reads, lie in eight groups of banks, as do
 * the eight pieces of a row, which eight threads write.
 *
 * Eight warps: four by vectors, two by 32 rows of each weight. A warp's fragments of 16 vectors lie
 * 64 apart, so that of a tile that is not full all warps have their share.
 */
#include "common/math.h"
#include "kernels/abi/experts_many.h"
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/cp_async.cuh"
#include "kernels/device/ptx/ldmatrix.cuh"
#include "kernels/device/ptx/mma.cuh"

/* How long a tile's products are: `parts` of `count` numbers each, which lie `vector_step` and
 * `weight_step` numbers apart, as the vectors and rows of several shared experts do. */
struct rt_expert_depth {
    uint32_t count, parts;
    int64_t vector_step, weight_step;
};

/* The 16 bytes of a row at a column, a multiple of 8. */
static __device__ __forceinline__ unsigned char *rt_expert_tile_at(unsigned char *stage,
                                                                   uint32_t row, uint32_t column)
{
    return stage + row * RT_EXPERTS_MANY_ROW_BYTES + ((column / 8) ^ (row % 8)) * 16;
}

template <int FRAGMENTS, int WEIGHTS> struct rt_expert_tile {
    static constexpr uint32_t VECTORS = 64 * FRAGMENTS;
    static constexpr uint32_t STAGE_BYTES =
        (VECTORS + RT_EXPERTS_MANY_ROWS * WEIGHTS) * RT_EXPERTS_MANY_ROW_BYTES;
    static constexpr int LOADS = 2 * (FRAGMENTS + WEIGHTS); /* of a thread, a stage */

    const uint16_t *from[LOADS]; /* rows of this thread's loads; null: zeros */
    float sum[WEIGHTS][FRAGMENTS][4][4];

    /* The row of a stage that the i-th load of this thread belongs to. */
    static __device__ __forceinline__ uint32_t load_row(int i)
    {
        return threadIdx.x / 8 + 32 * (uint32_t)i;
    }

    static __device__ __forceinline__ bool is_vector(int i)
    {
        return i < 2 * FRAGMENTS;
    }

    __device__ __forceinline__ void clear(void)
    {
#pragma unroll
        for (int w = 0; w < WEIGHTS; w++)
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
                for (int n = 0; n < 4; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        sum[w][f][n][i] = 0.0f;
    }

    /* Numbers k and on of all rows, of `count`; zeros behind the last. */
    __device__ __forceinline__ void load(unsigned char *stage, uint32_t k, uint32_t count)
    {
        const uint32_t column = threadIdx.x % 8 * 8;
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const bool valid = from[i] != nullptr && k + column < count;
            rt_cp_async_16(rt_expert_tile_at(stage, load_row(i), column),
                           valid ? from[i] + k + column : nullptr, valid);
        }
    }

    /* On to the next part's numbers. */
    __device__ __forceinline__ void next_part(const struct rt_expert_depth &depth)
    {
#pragma unroll
        for (int i = 0; i < LOADS; i++)
            if (from[i])
                from[i] += is_vector(i) ? depth.vector_step : depth.weight_step;
    }

    static __device__ __forceinline__ uint32_t warp_vector(void)
    {
        return threadIdx.x / 32 % 4 * 16;
    }

    static __device__ __forceinline__ uint32_t warp_row(void)
    {
        return threadIdx.x / 128 * 32;
    }

    /* By a warp: its part of a stage, of a tile that has `vectors`. */
    __device__ __forceinline__ void multiply(unsigned char *stage, uint32_t vectors)
    {
        const uint32_t lane = threadIdx.x % 32;
        if (warp_vector() >= vectors)
            return;
#pragma unroll
        for (uint32_t k = 0; k < RT_EXPERTS_MANY_K; k += 16) {
            uint32_t b[WEIGHTS][2][4];
#pragma unroll
            for (int i = 0; i < 2 * WEIGHTS; i++) {
                const uint32_t row = VECTORS + (uint32_t)(i / 2) * RT_EXPERTS_MANY_ROWS +
                                     warp_row() + (uint32_t)(i % 2) * 16 + lane / 16 * 8 + lane % 8;
                rt_ldmatrix_x4(b[i / 2][i % 2],
                               rt_expert_tile_at(stage, row, k + lane / 8 % 2 * 8));
            }
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++) {
                const uint32_t vector = warp_vector() + 64 * (uint32_t)f;
                if (vector >= vectors)
                    continue;
                uint32_t a[4];
                rt_ldmatrix_x4(a, rt_expert_tile_at(stage, vector + lane % 16, k + lane / 16 * 8));
#pragma unroll
                for (int i = 0; i < 4 * WEIGHTS; i++)
                    rt_mma_bf16_16x8x16(sum[i / 4][f][i % 4], a, b[i / 4][i % 4 / 2][i % 2 * 2],
                                        b[i / 4][i % 4 / 2][i % 2 * 2 + 1]);
            }
        }
    }

    /*
     * All products of a tile that has `vectors`, of what `from` points to. RT_EXPERTS_MANY_STAGES
     * stages lie from `stages` on.
     *
     *   step   A   stage s has landed      B   load stage s + 2, multiply stage s
     *
     *   barrier   makes visible             and frees
     *   A         stage s of all threads    stage s + 2, which is s - 1's place, in all warps
     */
    __device__ __forceinline__ void run(unsigned char *stages, const struct rt_expert_depth &depth,
                                        uint32_t vectors)
    {
        constexpr uint32_t AHEAD = RT_EXPERTS_MANY_STAGES - 1;
        const uint32_t steps = depth.parts * rt_ceil_div_u32(depth.count, RT_EXPERTS_MANY_K);
        uint32_t k = 0;
        clear();
        for (uint32_t s = 0; s < steps + AHEAD; s++) {
            if (s >= AHEAD) {
                rt_cp_async_wait<AHEAD - 1>();
                __syncthreads();
            }
            if (s < steps) {
                load(stages + s % RT_EXPERTS_MANY_STAGES * STAGE_BYTES, k, depth.count);
                k += RT_EXPERTS_MANY_K;
                if (k >= depth.count) {
                    next_part(depth);
                    k = 0;
                }
            }
            rt_cp_async_commit();
            if (s >= AHEAD)
                multiply(stages + (s - AHEAD) % RT_EXPERTS_MANY_STAGES * STAGE_BYTES, vectors);
        }
    }

    /* Which vector and which rows, the first of two, this thread's sums belong to: numbers 2 * i
     * and 2 * i + 1 of sum[.][f][n]. */
    static __device__ __forceinline__ uint32_t sum_vector(int f, int i)
    {
        return warp_vector() + 64 * (uint32_t)f + threadIdx.x % 32 / 4 + 8 * (uint32_t)i;
    }

    static __device__ __forceinline__ uint32_t sum_row(int n)
    {
        return warp_row() + 8 * (uint32_t)n + threadIdx.x % 4 * 2;
    }
};

/* Of experts_up and experts_down_pairs. */
using rt_expert_wide_tile = rt_expert_tile<2, 2>;

RT_STATIC_ASSERT(rt_expert_wide_tile::VECTORS == RT_EXPERTS_MANY_TILE_PAIRS, "a tile's pairs");
RT_STATIC_ASSERT(rt_expert_wide_tile::STAGE_BYTES *RT_EXPERTS_MANY_STAGES ==
                     RT_EXPERTS_MANY_TILE_SMEM_BYTES,
                 "formula");

/* Two numbers of a row of `width`, at an even column; the second may lie behind its end. */
static __device__ __forceinline__ void rt_expert_store(uint16_t *row, uint32_t column,
                                                       uint32_t width, float one, float two)
{
    const uint32_t both = rt_pack_bf16x2(one, two);
    if (column + 1 < width)
        *(uint32_t *)(row + column) = both;
    else if (column < width)
        row[column] = (uint16_t)both;
}

#endif
