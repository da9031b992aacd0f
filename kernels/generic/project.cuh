/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_PROJECT_CUH
#define RT_KERNELS_GENERIC_PROJECT_CUH

/*
 * project, for every shape and every device: kernels/abi/project.h has the formula.
 *
 * Grid: one line of blocks of RT_PROJECT_ROWS rows of the weight and RT_PROJECT_VECTORS vectors of
 * x; rows of the weight turn fastest, then vectors, then the batch.
 *
 *   weight lies along k   a warp has 8 rows one after the other; its lanes share a row's k numbers
 *                         and meet in shuffles
 *   weight lies across    a thread has a row and two vectors; neighbours read neighbours
 *
 * Of each vector that has a norm, a warp adds up the squares first.
 *
 *   shared memory   bytes
 *   inverse            32   a vector's (mean(x^2) + eps)^-1/2; one barrier makes it visible
 */
#include "kernels/abi/project.h"
#include "kernels/device/bf16.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/scan.cuh"

#define RT_PROJECT_WARPS (RT_PROJECT_THREADS / RT_WARP_LANES)
#define RT_PROJECT_WARP_ROWS (RT_PROJECT_ROWS / RT_PROJECT_WARPS)
#define RT_PROJECT_THREAD_VECTORS (RT_PROJECT_ROWS * RT_PROJECT_VECTORS / RT_PROJECT_THREADS)

RT_STATIC_ASSERT(RT_PROJECT_VECTORS == RT_PROJECT_WARPS, "a warp adds up a vector's squares");

/* What a block works on. */
struct rt_project_tile {
    uint32_t z, first_row, first_vector;
    uint32_t unread; /* bit i: its vector i is not looked at, and counts as zeros */
};

static __device__ __forceinline__ struct rt_project_tile
rt_project_find(const struct rt_project_params &p, uint32_t block)
{
    const uint32_t rows = rt_ceil_div_u32(p.w[0].rows + p.w[1].rows, RT_PROJECT_ROWS);
    const uint32_t vectors = rt_ceil_div_u32(p.m, RT_PROJECT_VECTORS);
    const uint32_t of_rows = block / rows;
    return {of_rows / vectors, (block - of_rows * rows) * RT_PROJECT_ROWS,
            of_rows % vectors * RT_PROJECT_VECTORS, 0};
}

/* The tile's vector i; null: zeros. */
static __device__ __forceinline__ const uint16_t *
rt_project_vector(const struct rt_project_params &p, const struct rt_project_tile &tile, uint32_t i)
{
    return tile.unread >> i & 1 ? nullptr
                                : (const uint16_t *)p.x.base + tile.z * p.x.batch_stride +
                                      (tile.first_vector + i) * p.x.row_stride;
}

/* By a whole warp. */
static __device__ __forceinline__ float rt_project_inverse(const struct rt_project_params &p,
                                                           const uint16_t *x)
{
    float sum = 0;
    for (uint32_t l = rt_lane(); l < p.k; l += RT_WARP_LANES)
        sum = fmaf(rt_bf16_float(x[l]), rt_bf16_float(x[l]), sum);
    return 1.0f / sqrtf(rt_warp_sum(sum) / (float)p.k + p.norm.eps);
}

/* x'[l]. */
static __device__ __forceinline__ float
rt_project_factor(const struct rt_project_params &p, const uint16_t *x, float inverse, uint32_t l)
{
    const float value = x ? rt_bf16_float(x[l]) : 0.0f;
    if (!p.norm.weight)
        return value;
    const float weight = (rt_bf16_float(p.norm.weight[l]) + p.norm.offset) * p.norm.scale;
    return rt_bf16_float(rt_float_bf16(value * inverse * weight));
}

/* A row of both weights, which follow each other. */
struct rt_project_row {
    const uint16_t *weight;
    int64_t column_stride;
    float bias;
};

static __device__ __forceinline__ struct rt_project_row
rt_project_find_row(const struct rt_project_params &p, uint32_t z, uint32_t row)
{
    const bool second = row >= p.w[0].rows;
    const struct rt_weight_view &w = p.w[second];
    const uint32_t j = second ? row - p.w[0].rows : row;
    return {w.base + z * w.batch_stride + j * w.row_stride, w.column_stride,
            w.bias ? rt_bf16_float(w.bias[j]) : 0.0f};
}

static __device__ __forceinline__ void rt_project_store(const struct rt_project_params &p,
                                                        uint32_t z, uint32_t i, uint32_t row,
                                                        float value)
{
    const int64_t at = z * p.y.batch_stride + i * p.y.row_stride + row;
    if (p.y_f32)
        ((float *)p.y.base)[at] = value;
    else
        ((uint16_t *)p.y.base)[at] = rt_float_bf16(value);
}

/* A row by a warp. */
static __device__ __forceinline__ void rt_project_along(const struct rt_project_params &p,
                                                        const struct rt_project_tile &tile,
                                                        const float *inverse, uint32_t row)
{
    const struct rt_project_row at = rt_project_find_row(p, tile.z, row);
    const uint32_t vectors = min(p.m - tile.first_vector, RT_PROJECT_VECTORS);
    float sum[RT_PROJECT_VECTORS] = {};
    for (uint32_t l = rt_lane(); l < p.k; l += RT_WARP_LANES) {
        const float weight = rt_bf16_float(at.weight[l * at.column_stride]);
#pragma unroll
        for (uint32_t i = 0; i < RT_PROJECT_VECTORS; i++)
            if (i < vectors)
                sum[i] = fmaf(rt_project_factor(p, rt_project_vector(p, tile, i), inverse[i], l),
                              weight, sum[i]);
    }
#pragma unroll
    for (uint32_t i = 0; i < RT_PROJECT_VECTORS; i++) {
        const float all = rt_warp_sum(sum[i]) + at.bias;
        if (i < vectors && rt_lane() == 0)
            rt_project_store(p, tile.z, tile.first_vector + i, row, all);
    }
}

/* A row and some vectors by a thread. */
static __device__ __forceinline__ void rt_project_across(const struct rt_project_params &p,
                                                         const struct rt_project_tile &tile,
                                                         const float *inverse, uint32_t row)
{
    const struct rt_project_row at = rt_project_find_row(p, tile.z, row);
    const uint32_t first = threadIdx.x / RT_PROJECT_ROWS * RT_PROJECT_THREAD_VECTORS;
    for (uint32_t i = first; i < first + RT_PROJECT_THREAD_VECTORS; i++) {
        const uint32_t vector = tile.first_vector + i;
        if (vector >= p.m)
            return;
        const uint16_t *x = rt_project_vector(p, tile, i);
        float sum = 0;
        for (uint32_t l = 0; l < p.k; l++)
            sum = fmaf(rt_project_factor(p, x, inverse[i], l),
                       rt_bf16_float(at.weight[l * at.column_stride]), sum);
        rt_project_store(p, tile.z, vector, row, sum + at.bias);
    }
}

/* Behind the wait, by all threads of a block. With a norm every vector is looked at. */
static __device__ __forceinline__ void rt_project_work(const struct rt_project_params &p,
                                                       const struct rt_project_tile &tile)
{
    __shared__ float inverse[RT_PROJECT_VECTORS];
    const uint32_t rows = p.w[0].rows + p.w[1].rows, warp = threadIdx.x / RT_WARP_LANES;
    if (p.norm.weight && tile.first_vector + warp < p.m) {
        const float mine = rt_project_inverse(p, rt_project_vector(p, tile, warp));
        if (rt_lane() == 0)
            inverse[warp] = mine;
    }
    __syncthreads();

    if (p.w[0].column_stride == 1) {
        const uint32_t first = tile.first_row + warp * RT_PROJECT_WARP_ROWS;
        for (uint32_t row = first; row < min(first + RT_PROJECT_WARP_ROWS, rows); row++)
            rt_project_along(p, tile, inverse, row);
    } else if (tile.first_row + threadIdx.x % RT_PROJECT_ROWS < rows) {
        rt_project_across(p, tile, inverse, tile.first_row + threadIdx.x % RT_PROJECT_ROWS);
    }
}

#endif
