/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts_up, for every shape and every device: kernels/abi/experts.h has the formula.
 *
 *   x [tokens, hidden], gate and up [experts, width, hidden] -> h [tokens, chosen + shared, width]
 *
 * Grid: any number of blocks. An item is an expert that has work, the shared ones first, and
 * RT_EXPERTS_ROWS rows of its weights; how many there are is known on the device alone, so blocks
 * take them in turn. A warp has 8 rows one after the other, of gate and of up, and of up to 8
 * vectors at once; its lanes share the row's numbers and meet in shuffles. No shared memory.
 */
#include "common/math.h"
#include "kernels/device/experts.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/scan.cuh"

#define RT_EXPERTS_UP_VECTORS 8u
#define RT_EXPERTS_UP_WARP_ROWS (RT_EXPERTS_ROWS * RT_WARP_LANES / RT_EXPERTS_THREADS)

/* Up to 8 vectors of a job. */
struct rt_experts_up_slice {
    const uint16_t *x[RT_EXPERTS_UP_VECTORS];
    uint16_t *h[RT_EXPERTS_UP_VECTORS]; /* null: there is none */
};

static __device__ __forceinline__ struct rt_experts_up_slice
rt_experts_up_find(const struct rt_experts_up_params &p, const struct rt_expert_job &job,
                   uint32_t first)
{
    struct rt_experts_up_slice slice;
#pragma unroll
    for (uint32_t i = 0; i < RT_EXPERTS_UP_VECTORS; i++) {
        const bool have = first + i < job.count;
        const struct rt_expert_pair pair = rt_expert_pair_of(p.work, job, have ? first + i : first);
        slice.x[i] = p.x + pair.token * p.x_stride;
        slice.h[i] = have ? rt_expert_h(p.h, pair) : nullptr;
    }
    return slice;
}

/* By a warp: a row of h of each vector. */
static __device__ __forceinline__ void rt_experts_up_row(const struct rt_experts_up_params &p,
                                                         const struct rt_expert_job &job,
                                                         const struct rt_experts_up_slice &slice,
                                                         uint32_t row)
{
    const uint16_t *gate = rt_expert_row(p.gate[job.shared], job.expert, row);
    const uint16_t *up = rt_expert_row(p.up[job.shared], job.expert, row);
    float of_gate[RT_EXPERTS_UP_VECTORS] = {}, of_up[RT_EXPERTS_UP_VECTORS] = {};
    for (uint32_t l = rt_lane(); l < p.hidden; l += RT_WARP_LANES) {
        const float a = rt_bf16_float(gate[l]), b = rt_bf16_float(up[l]);
#pragma unroll
        for (uint32_t i = 0; i < RT_EXPERTS_UP_VECTORS; i++) {
            const float x = slice.h[i] ? rt_bf16_float(slice.x[i][l]) : 0.0f;
            of_gate[i] = fmaf(x, a, of_gate[i]);
            of_up[i] = fmaf(x, b, of_up[i]);
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < RT_EXPERTS_UP_VECTORS; i++) {
        const float value = rt_expert_gated(rt_warp_sum(of_gate[i]), rt_warp_sum(of_up[i]));
        if (slice.h[i] && rt_lane() == 0)
            slice.h[i][row] = rt_float_bf16(value);
    }
}

extern "C" __global__ void __launch_bounds__(RT_EXPERTS_THREADS)
    rt_experts_up(const __grid_constant__ struct rt_experts_up_params p)
{
    const uint32_t warp = threadIdx.x / RT_WARP_LANES;
    const uint32_t tiles = rt_ceil_div_u32(p.width, RT_EXPERTS_ROWS);
    rt_pdl_wait();
    rt_pdl_launch_dependents(); /* not before: see `early` of experts_down */
    const uint32_t jobs = p.work.shared + rt_expert_active(p.work);
    for (uint32_t item = blockIdx.x; item < jobs * tiles; item += gridDim.x) {
        const uint32_t index = item / tiles;
        const struct rt_expert_job job = index < p.work.shared
                                             ? rt_expert_job_shared(p.work, index)
                                             : rt_expert_job_routed(p.work, index - p.work.shared);
        const uint32_t first =
            (item - index * tiles) * RT_EXPERTS_ROWS + warp * RT_EXPERTS_UP_WARP_ROWS;
        for (uint32_t i = 0; i < job.count; i += RT_EXPERTS_UP_VECTORS) {
            const struct rt_experts_up_slice slice = rt_experts_up_find(p, job, i);
            for (uint32_t row = first; row < min(first + RT_EXPERTS_UP_WARP_ROWS, p.width); row++)
                rt_experts_up_row(p, job, slice, row);
        }
    }
}
