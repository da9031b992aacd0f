/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_BF16X8_CUH
#define RT_KERNELS_DEVICE_BF16X8_CUH

/* Eight bf16, as 16 bytes of memory have them, and as floats. */
#include "kernels/device/bf16.cuh"

struct rt_floats8 {
    float at[8];
};

static __device__ __forceinline__ struct rt_floats8 rt_unpack_bf16x8(const uint4 &packed)
{
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
    struct rt_floats8 x;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x.at[2 * i] = rt_bf16_low(words[i]);
        x.at[2 * i + 1] = rt_bf16_high(words[i]);
    }
    return x;
}

/* Each rounded to nearest even. */
static __device__ __forceinline__ uint4 rt_pack_bf16x8(const struct rt_floats8 &x)
{
    return make_uint4(rt_pack_bf16x2(x.at[0], x.at[1]), rt_pack_bf16x2(x.at[2], x.at[3]),
                      rt_pack_bf16x2(x.at[4], x.at[5]), rt_pack_bf16x2(x.at[6], x.at[7]));
}

#endif
