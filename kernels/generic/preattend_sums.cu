/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preattend behind a product that was cut along k: preattend.cuh, whose eight numbers of q_a or
 * kv_a are eight sums of the parts' numbers, rounded to bf16 as the product would have. All parts
 * of a vector are asked for before the first is added.
 */
#include "kernels/abi/preattend_sums.h"
#include "kernels/generic/preattend.cuh"

struct rt_preattend_sums_source {
    const struct rt_sums_view &sums;

    __device__ __forceinline__ uint4 read(const float *first, int64_t at) const
    {
        float4 part[RT_PREATTEND_MOST_PARTS][2];
#pragma unroll
        for (uint32_t i = 0; i < RT_PREATTEND_MOST_PARTS; i++) {
            const float4 *from = reinterpret_cast<const float4 *>(first + at + i * sums.stride);
#pragma unroll
            for (uint32_t half = 0; half < 2; half++)
                part[i][half] = i < sums.parts ? from[half] : make_float4(0, 0, 0, 0);
        }
        struct rt_floats8 x = {};
#pragma unroll
        for (uint32_t i = 0; i < RT_PREATTEND_MOST_PARTS; i++)
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                x.at[4 * half] += part[i][half].x;
                x.at[4 * half + 1] += part[i][half].y;
                x.at[4 * half + 2] += part[i][half].z;
                x.at[4 * half + 3] += part[i][half].w;
            }
        return rt_pack_bf16x8(x);
    }
    __device__ __forceinline__ uint4 q_a(const struct rt_preattend_params &p,
                                         const struct rt_preattend_token &of, uint32_t number) const
    {
        return read(sums.q_a, rt_preattend_index(p.q_a, of) + number);
    }
    __device__ __forceinline__ uint4 kv_a(const struct rt_preattend_params &p,
                                          const struct rt_preattend_token &of,
                                          uint32_t number) const
    {
        return read(sums.kv_a, rt_preattend_index(p.kv_a, of) + number);
    }
};

extern "C" __global__ void __launch_bounds__(RT_PREATTEND_WARPS *RT_WARP_LANES)
    rt_preattend_sums(const __grid_constant__ struct rt_preattend_sums_params p)
{
    const struct rt_preattend_sums_source source = {p.sums};
    rt_pdl_launch_dependents(); /* as in preattend.cu */
    rt_preattend_block<RT_PREATTEND_WARPS>(p.preattend, blockIdx.x, gridDim.x,
                                           rt_preattend_bf16_cache(), source);
}
