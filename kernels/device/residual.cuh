/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_RESIDUAL_CUH
#define RT_KERNELS_DEVICE_RESIDUAL_CUH

/* What a residual becomes, by the rule of kernels/abi/input_norm.h: eight numbers of it. */
#include "kernels/device/bf16x8.cuh"

/* Of a factor of 1 the sum is what an addition gives, bit for bit. */
static __device__ __forceinline__ uint4 rt_residual_sum(const uint4 &residual, const uint4 &hidden,
                                                        float scale)
{
    struct rt_floats8 x = rt_unpack_bf16x8(residual);
    const struct rt_floats8 y = rt_unpack_bf16x8(hidden);
#pragma unroll
    for (int i = 0; i < 8; i++)
        x.at[i] = fmaf(scale, y.at[i], x.at[i]);
    return rt_pack_bf16x8(x);
}

#endif
