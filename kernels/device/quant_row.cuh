/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_QUANT_ROW_CUH
#define RT_KERNELS_DEVICE_QUANT_ROW_CUH

/* Rows of e4m3 as kernels/abi/quant.h has them: where a token's lie, and what its scales say. */
#include "kernels/abi/quant.h"
#include "kernels/device/e4m3.cuh"
#include "kernels/device/page_row.cuh"

#define RT_QUANT_VECTOR 8u /* numbers of 16 bytes of bf16 */

/* A row, and its scales, which are in it or behind the page's rows. */
struct rt_quant_row {
    unsigned char *row, *scales;
};

static __device__ __forceinline__ struct rt_quant_row rt_quant_row_at(const struct rt_kv_view &kv,
                                                                      const struct rt_quant_view &q,
                                                                      const struct rt_page_row &at)
{
    struct rt_quant_row found;
    found.row = at.page + at.row * kv.token_stride_bytes;
    found.scales = at.page + q.scale_offset_bytes + at.row * q.scale_stride_bytes;
    return found;
}

static __device__ __forceinline__ float rt_quant_scale(const struct rt_quant_view &q,
                                                       const unsigned char *scales, uint32_t tile)
{
    if (q.scale_kind == RT_QUANT_SCALE_TENSOR)
        return q.tensor_scale;
    if (q.scale_kind == RT_QUANT_SCALE_F32)
        return reinterpret_cast<const float *>(scales)[tile];
    const uint32_t code = scales[tile];
    return __uint_as_float(code == 0 ? 0x00400000u : code == 255 ? 0x7fffffffu : code << 23);
}

#endif
