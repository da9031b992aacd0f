/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_QUAD_COLUMNS_CUH
#define RT_KERNELS_SM90_QUAD_COLUMNS_CUH

#include "kernels/device/scan.cuh"

/*
 * Of four groups of eight columns each lane of four has two columns, packed; after two exchanges
 * lane c has the eight columns of group c, 16 bytes to write at once.
 */
static __device__ __forceinline__ void rt_quad_columns(uint32_t (&r)[4], int c)
{
    const uint32_t a = __shfl_xor_sync(RT_FULL_WARP, c & 1 ? r[0] : r[1], 1);
    const uint32_t b = __shfl_xor_sync(RT_FULL_WARP, c & 1 ? r[2] : r[3], 1);
    if (c & 1) {
        r[0] = a;
        r[2] = b;
    } else {
        r[1] = a;
        r[3] = b;
    }
    const uint32_t d = __shfl_xor_sync(RT_FULL_WARP, c & 2 ? r[0] : r[2], 2);
    const uint32_t e = __shfl_xor_sync(RT_FULL_WARP, c & 2 ? r[1] : r[3], 2);
    if (c & 2) {
        r[0] = d;
        r[1] = e;
    } else {
        r[2] = d;
        r[3] = e;
    }
}

#endif
