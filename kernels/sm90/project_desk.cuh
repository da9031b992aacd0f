/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_PROJECT_DESK_CUH
#define RT_KERNELS_SM90_PROJECT_DESK_CUH

/*
 * What the two kinds of sm_90 project kernels share. Eight warps multiply: each takes its piece of
 * k of all rows, on the tensor cores, the weights on the side of 16 rows and up to 8 or 16 vectors
 * on the other; then a thread adds up the eight sums of an element of y, in one order.
 *
 *   g = lane / 4, t = lane % 4     the order of k inside a sum is free: a lane brings 16 bytes of
 *   it as they lie, and both sides take the same
 */
#include "kernels/abi/project_sm90.h"
#include "kernels/device/bf16.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/sm90/stream.cuh"

#define RT_PROJECT_WARPS ((int)RT_PROJECT_SM90_WARPS)
#define RT_PROJECT_FULL_WARP 0xffffffffu

static __device__ __forceinline__ void rt_project_trigger(const struct rt_project_sm90_params &p,
                                                          uint32_t now)
{
    if (p.trigger == now)
        rt_pdl_launch_dependents();
}

/* The weight that a row of y belongs to, and its row there. */
struct rt_project_weight_row {
    const struct rt_weight_view &weight;
    uint32_t j;

    __device__ __forceinline__ rt_project_weight_row(const struct rt_project_params &p,
                                                     uint32_t row)
        : weight(p.w[row >= p.w[0].rows]), j(row >= p.w[0].rows ? row - p.w[0].rows : row)
    {
    }

    __device__ __forceinline__ float bias(void) const
    {
        return weight.bias ? rt_bf16_float(weight.bias[j]) : 0.0f;
    }
};

/* 64 threads take a vector: this one the row of y whose sums stand at `place`. */
static __device__ __forceinline__ void rt_project_add_sums(const struct rt_project_sm90_params &p,
                                                           const float *sums, uint32_t thread,
                                                           uint32_t place, uint32_t z, uint32_t row,
                                                           float first)
{
    const struct rt_matrix_view &y = p.project.y;
#pragma unroll 1
    for (uint32_t i = thread / 64; i < p.project.m; i += RT_PROJECT_SM90_WARPS / 2) {
        float sum = first;
#pragma unroll
        for (int warp = 0; warp < RT_PROJECT_WARPS; warp++)
            sum += sums[(warp * p.project.m + i) * p.sums_stride + place];
        const int64_t at = z * y.batch_stride + i * y.row_stride + row;
        if (p.project.y_f32)
            ((float *)y.base)[at] = sum;
        else
            ((uint16_t *)y.base)[at] = rt_float_bf16(sum);
    }
}

#endif
