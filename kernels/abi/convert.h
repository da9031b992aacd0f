/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_CONVERT_H
#define RT_KERNELS_ABI_CONVERT_H

#include "kernels/abi/quant.h"

#define RT_KV_CONVERT_THREADS 256u
#define RT_KV_CONVERT_TOKENS(lanes) (RT_KV_CONVERT_THREADS / (lanes)) /* of a block */
#define RT_KV_CONVERT_LANES 8u                                        /* of a token */
#define RT_KV_COPY_LANES 16u
#define RT_KV_CONVERT_MOST_WIDTH (5u * 16u * RT_KV_CONVERT_LANES)  /* five vectors of a lane */
#define RT_KV_CONVERT_MOST_SCALED (4u * 16u * RT_KV_CONVERT_LANES) /* by scales of the cache */

/*
 * kv_convert: tokens of one layer's cache into another's, of any layout, page size and table:
 *
 *   to's cache of row r at position p = from's cache of row r at position p,   p < length[r]
 *
 * with `copies` byte for byte, what a row has and its scales; else what attention reads of it, in
 * bf16, written as append writes it: exact where `to` is bf16, or bf16 was there and its numbers
 * are e4m3 times the scale that the rule finds. A cache of bf16 has the view of rt_quant_view that
 * has no e4m3: fp8 0, rest_offset_bytes 0, RT_QUANT_SCALE_TENSOR with tensor_scale 1.
 *
 * Nothing is written for a position from max_length on, without a column in a table, or whose page
 * either pool has not. Row r is line r of both tables. The pools are apart.
 *
 * rt_kv_copy serves `copies`, RT_KV_COPY_LANES threads a token, rt_kv_convert any others,
 * RT_KV_CONVERT_LANES. rt_kv_convert_even is faster where of the first RT_KV_CONVERT_MOST_SCALED
 * elements the same are e4m3 on both sides, and no more than a vector of a lane lies behind those.
 *
 * Grid: ceil(max_length / RT_KV_CONVERT_TOKENS(threads of a token)) x rows blocks.
 */
struct rt_kv_convert_params {
    struct rt_kv_view from, to; /* `to` is written */
    struct rt_quant_view from_quant, to_quant;
    const int32_t *length; /* [rows]; 0 and less: none */
    uint32_t rows, max_length;
    uint32_t d_qk;
    uint32_t copies; /* 1: both are of one layout, and of RT_QUANT_SCALE_TENSOR of one scale */
};
#define RT_KV_CONVERT_PARAMS_ADDRESSES(type, at)                                                   \
    (RT_KV_ADDRESSES(type, at from) | RT_KV_ADDRESSES(type, at to) | RT_ADDRESS(type, at length))
RT_STATIC_ASSERT(sizeof(struct rt_kv_convert_params) == 200, "kv_convert ABI");

#endif
