/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_F16X2_CUH
#define RT_KERNELS_DEVICE_PTX_F16X2_CUH

#include <stdint.h>

/* Two floats as f16, round to nearest even, `low` in the low half; beyond 65504 infinite: PTX ISA,
 * "cvt.rn.f16x2.f32". */
static __device__ __forceinline__ uint32_t rt_pack_f16x2(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

/* One f16 as float: PTX ISA, "cvt.f32.f16". */
static __device__ __forceinline__ float rt_f16_float(uint16_t half)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

/* Two products of two f16 each, rounded to nearest even, subnormals too: PTX ISA, "mul.rn.f16x2".
 */
static __device__ __forceinline__ uint32_t rt_multiply_f16x2(uint32_t a, uint32_t b)
{
    uint32_t product;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

/* Of two pairs of f16 the larger numbers; of a number and NaN the number: PTX ISA, "max.f16x2", of
 * sm_80. */
static __device__ __forceinline__ uint32_t rt_max_f16x2(uint32_t a, uint32_t b)
{
    uint32_t most;
    asm("max.f16x2 %0, %1, %2;" : "=r"(most) : "r"(a), "r"(b));
    return most;
}

/* Likewise the larger magnitudes; a sign is that of the product: PTX ISA, "max.xorsign.abs.f16x2",
 * of sm_86. */
static __device__ __forceinline__ uint32_t rt_max_magnitude_f16x2(uint32_t a, uint32_t b)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 860
    return rt_max_f16x2(a & 0x7fff7fffu, b & 0x7fff7fffu);
#else
    uint32_t most;
    asm("max.xorsign.abs.f16x2 %0, %1, %2;" : "=r"(most) : "r"(a), "r"(b));
    return most;
#endif
}

#endif
