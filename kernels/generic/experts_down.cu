/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts_down, for every shape and every device: kernels/abi/experts.h has the formula.
 *
 *   h [tokens, chosen + shared, width], down [experts, hidden, width] -> out [tokens, hidden]
 *
 * Grid: one line of blocks of RT_EXPERTS_ROWS rows of out for one token. Tokens turn fastest, so
 * that those which have chosen the same expert meet at its rows at the same time. A warp has 8 rows
 * one after the other; its lanes share the numbers of a row, go through the token's experts, the
 * shared ones first, and meet in shuffles at the end. No shared memory.
 */
#include "common/math.h"
#include "kernels/device/experts.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/scan.cuh"

#define RT_EXPERTS_DOWN_WARP_ROWS (RT_EXPERTS_ROWS * RT_WARP_LANES / RT_EXPERTS_THREADS)

/* This lane's part of h . a row. */
static __device__ __forceinline__ float rt_experts_down_part(const uint16_t *h,
                                                             const uint16_t *weight, uint32_t width)
{
    float sum = 0.0f;
    for (uint32_t l = rt_lane(); l < width; l += RT_WARP_LANES)
        sum = fmaf(rt_bf16_float(h[l]), rt_bf16_float(weight[l]), sum);
    return sum;
}

/* By a warp. */
static __device__ __forceinline__ float rt_experts_down_row(const struct rt_experts_down_params &p,
                                                            uint32_t token, uint32_t row)
{
    float sum = 0.0f;
    for (uint32_t e = 0; e < p.work.shared; e++)
        sum += rt_experts_down_part(rt_expert_h(p.h, {token, p.work.chosen + e}),
                                    rt_expert_row(p.down[1], e, row), p.width);
    const uint32_t places = p.work.experts > 0 ? p.work.chosen : 0;
    for (uint32_t place = 0; place < places; place++) {
        const uint32_t pair = token * p.work.chosen + place;
        const uint16_t *weight = rt_expert_row(p.down[0], (uint32_t)p.choices[pair], row);
        sum = fmaf(p.weights[pair],
                   rt_experts_down_part(rt_expert_h(p.h, {token, place}), weight, p.width), sum);
    }
    return rt_warp_sum(sum);
}

extern "C" __global__ void __launch_bounds__(RT_EXPERTS_THREADS)
    rt_experts_down(const __grid_constant__ struct rt_experts_down_params p)
{
    const uint32_t tile = blockIdx.x / p.work.tokens, token = blockIdx.x - tile * p.work.tokens;
    const uint32_t first =
        tile * RT_EXPERTS_ROWS + threadIdx.x / RT_WARP_LANES * RT_EXPERTS_DOWN_WARP_ROWS;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const bool live = rt_row_is_live(&p.rows, token / p.rows.q_len);
    for (uint32_t row = first; row < min(first + RT_EXPERTS_DOWN_WARP_ROWS, p.hidden); row++) {
        const float value = live ? rt_experts_down_row(p, token, row) : 0.0f;
        if (rt_lane() == 0)
            p.out[token * p.out_stride + row] = rt_float_bf16(value);
    }
}
