/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts_down_sum, for every device: kernels/abi/experts_many.h has the formula.
 *
 *   products [tokens, chosen + (shared > 0), hidden], weights [tokens, chosen]
 *     -> out [tokens, hidden]
 *
 * Grid: a block RT_EXPERTS_SUM_NUMBERS numbers of a token, four a thread, which reads one line of
 * products after the other: the order of a sum is the same whoever else is there. No shared memory.
 */
#include "common/math.h"
#include "kernels/abi/experts_many.h"
#include "kernels/device/experts.cuh"
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/pdl.cuh"

static __device__ __forceinline__ float4
rt_experts_sum(const struct rt_experts_down_pairs_params &p, uint32_t token, uint32_t column)
{
    const struct rt_experts_view &work = p.down.work;
    const uint32_t chosen = work.experts > 0 ? work.chosen : 0;
    const uint64_t first = (uint64_t)token * rt_experts_products(&work);
    const float *line = p.products + first * p.down.hidden + column;
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    if (work.shared > 0)
        sum = *(const float4 *)(line + (uint64_t)work.chosen * p.down.hidden);
#pragma unroll 4
    for (uint32_t s = 0; s < chosen; s++, line += p.down.hidden) {
        const float4 one = *(const float4 *)line;
        const float weight = p.down.weights[token * chosen + s];
        sum.x = fmaf(weight, one.x, sum.x);
        sum.y = fmaf(weight, one.y, sum.y);
        sum.z = fmaf(weight, one.z, sum.z);
        sum.w = fmaf(weight, one.w, sum.w);
    }
    return sum;
}

extern "C" __global__ void __launch_bounds__(RT_EXPERTS_SUM_THREADS)
    rt_experts_down_sum(const __grid_constant__ struct rt_experts_down_pairs_params p)
{
    const uint32_t across = rt_ceil_div_u32(p.down.hidden, RT_EXPERTS_SUM_NUMBERS);
    const uint32_t token = blockIdx.x / across;
    const uint32_t column =
        (blockIdx.x - token * across) * RT_EXPERTS_SUM_NUMBERS + 4 * threadIdx.x;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (column >= p.down.hidden)
        return;
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    if (rt_row_is_live(&p.down.rows, token / p.down.rows.q_len))
        sum = rt_experts_sum(p, token, column);
    *(uint2 *)(p.down.out + token * p.down.out_stride + column) = {rt_pack_bf16x2(sum.x, sum.y),
                                                                   rt_pack_bf16x2(sum.z, sum.w)};
}
