/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_CONVERT_E4M3_CUH
#define RT_KERNELS_DEVICE_PTX_CONVERT_E4M3_CUH

/* Conversions from e4m3, of sm_89 and later: kernels/device/e4m3.cuh has them for GPUs of any age.
 */
#include <stdint.h>

/* Two e4m3 as f16, which has them all; NaN stays NaN: PTX ISA, "cvt.rn.f16x2.e4m3x2". */
static __device__ __forceinline__ uint32_t rt_e4m3x2_f16x2(uint16_t two)
{
    uint32_t pair;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(two));
    return pair;
}

/* One f16 as float: PTX ISA, "cvt.f32.f16". */
static __device__ __forceinline__ float rt_f16_float(uint16_t half)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

#endif
