/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_MMA_CUH
#define RT_KERNELS_DEVICE_PTX_MMA_CUH

#include <stdint.h>

/*
 * d += a b on a warp, a [16][16] and b [16][8] bf16, d [16][8] float: PTX ISA, "mma.sync m16n8k16".
 * With g = lane / 4 and c = 2 * (lane % 4) a lane holds
 *   a[0] (g, c..c+1)   a[1] (g + 8, c..)   a[2] (g, c + 8..)   a[3] (g + 8, c + 8..)
 *   b0   (c..c+1, g)   b1   (c + 8.., g)
 *   d[0] d[1] (g, c..c+1)   d[2] d[3] (g + 8, c..)
 */
static __device__ __forceinline__ void rt_mma_bf16_16x8x16(float (&d)[4], const uint32_t (&a)[4],
                                                           uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
