/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_BF16X2_CUH
#define RT_KERNELS_DEVICE_PTX_BF16X2_CUH

#include <stdint.h>

/* Two products of two bf16 each, rounded to nearest even: PTX ISA, "mul.rn.bf16x2", of sm_90. */
static __device__ __forceinline__ uint32_t rt_multiply_bf16x2(uint32_t a, uint32_t b)
{
    uint32_t product;
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

/* Of two pairs of bf16 the larger numbers; of a number and NaN the number: PTX ISA, "max.bf16x2",
 * of sm_80. */
static __device__ __forceinline__ uint32_t rt_max_bf16x2(uint32_t a, uint32_t b)
{
    uint32_t most;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(most) : "r"(a), "r"(b));
    return most;
}

#endif
