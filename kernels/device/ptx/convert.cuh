/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_CONVERT_CUH
#define RT_KERNELS_DEVICE_PTX_CONVERT_CUH

#include <stdint.h>

/* Two floats as bf16, round to nearest even, `low` in the low half: PTX ISA, "cvt.rn.bf16x2.f32".
 */
static __device__ __forceinline__ uint32_t rt_pack_bf16x2(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

#endif
