/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_LDMATRIX_CUH
#define RT_KERNELS_DEVICE_PTX_LDMATRIX_CUH

/*
 * A warp loads 8x8 matrices of 16-bit elements from shared memory: PTX ISA, "ldmatrix". Lane i
 * gives the 16-byte aligned address of row i % 8 of matrix i / 8. Lane i receives, of each matrix,
 * the elements (row i / 4, columns 2 * (i % 4) and the next), or of the transposed one with _trans.
 * volatile, memory: shared memory written before must be seen, and the buffer is reused after.
 */
#include <stdint.h>

static __device__ __forceinline__ void rt_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    const uint32_t from = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

static __device__ __forceinline__ void rt_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    const uint32_t from = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

/* Two matrices; only the addresses of lanes 0 to 15 are used. */
static __device__ __forceinline__ void rt_ldmatrix_x2(uint32_t (&r)[2], const void *row)
{
    const uint32_t from = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(from)
                 : "memory");
}

#endif
