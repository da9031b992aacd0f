/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_CONVERT_E4M3_CUH
#define RT_KERNELS_DEVICE_PTX_CONVERT_E4M3_CUH

/* Conversions to and from e4m3, of sm_89 and later: kernels/device/e4m3.cuh has them for GPUs of
 * any age, and says by this which a device gets. */
#include <stdint.h>

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define RT_HAS_CONVERT_E4M3 1
#else
#define RT_HAS_CONVERT_E4M3 0
#endif

/* Of four e4m3 the low two, or the high two, as f16, which has them all; NaN stays NaN: PTX ISA,
 * "cvt.rn.f16x2.e4m3x2". */
template <int HIGH> static __device__ __forceinline__ uint32_t rt_e4m3x2_f16x2(uint32_t four)
{
    uint32_t pair;
    if constexpr (HIGH)
        asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\n"
            "cvt.rn.f16x2.e4m3x2 %0, high;\n}"
            : "=r"(pair)
            : "r"(four));
    else
        asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\n"
            "cvt.rn.f16x2.e4m3x2 %0, low;\n}"
            : "=r"(pair)
            : "r"(four));
    return pair;
}

/* Two floats as e4m3, round to nearest even, `low` in the low byte: PTX ISA,
 * "cvt.rn.satfinite.e4m3x2.f32". What is beyond 448, infinity too, is 448 with its sign. */
static __device__ __forceinline__ uint32_t rt_pack_e4m3x2(float low, float high)
{
    uint16_t packed;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
    return packed;
}

/* Two f16 as e4m3, likewise: PTX ISA, "cvt.rn.satfinite.e4m3x2.f16x2". */
static __device__ __forceinline__ uint32_t rt_f16x2_e4m3x2(uint32_t pair)
{
    uint16_t packed;
    asm("cvt.rn.satfinite.e4m3x2.f16x2 %0, %1;" : "=h"(packed) : "r"(pair));
    return packed;
}

#endif
