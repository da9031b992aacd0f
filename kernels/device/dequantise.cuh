/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_DEQUANTISE_CUH
#define RT_KERNELS_DEVICE_DEQUANTISE_CUH

/* e4m3 -> bf16, a vector of 16 bytes at a time. */
#include "kernels/device/quant_row.cuh"

/* Elements 8 v .. 8 v + 7 of a token, which has them. */
static __device__ __forceinline__ uint4 rt_dequant_vector(const struct rt_quant_view &q,
                                                          const struct rt_quant_row &from,
                                                          uint32_t vector)
{
    const uint32_t first = vector * RT_QUANT_VECTOR;
    if (first >= q.fp8)
        return *reinterpret_cast<const uint4 *>(from.row + q.rest_offset_bytes +
                                                (first - q.fp8) * sizeof(uint16_t));
    const uint2 x = *reinterpret_cast<const uint2 *>(from.row + first);
    return rt_e4m3x8_bf16x8(x.x, x.y, rt_quant_scale(q, from.scales, first / q.tile));
}

#endif
