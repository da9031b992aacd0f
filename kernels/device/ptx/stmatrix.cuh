/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_STMATRIX_CUH
#define RT_KERNELS_DEVICE_PTX_STMATRIX_CUH

/*
 * A warp stores 8x8 matrices of 16-bit elements to shared memory: PTX ISA, "stmatrix". Lane i gives
 * the 16-byte aligned address of row i % 8 of matrix i / 8. Lane i holds, of each matrix, the
 * elements (row i / 4, columns 2 * (i % 4) and the next); with _trans it is the transposed matrix
 * that is stored.
 */
#include <stdint.h>

static __device__ __forceinline__ void rt_stmatrix_x4(void *row, uint32_t a, uint32_t b, uint32_t c,
                                                      uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(row)),
                 "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
}

static __device__ __forceinline__ void rt_stmatrix_x4_trans(void *row, uint32_t a, uint32_t b,
                                                            uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(row)),
                 "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
}

/* Two matrices; only the addresses of lanes 0 to 15 are used. */
static __device__ __forceinline__ void rt_stmatrix_x2_trans(void *row, uint32_t a, uint32_t b)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(row)),
                 "r"(a), "r"(b)
                 : "memory");
}

#endif
