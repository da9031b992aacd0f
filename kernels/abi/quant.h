/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_QUANT_H
#define RT_KERNELS_ABI_QUANT_H

/*
 * Caches of e4m3 numbers (docs/kv_formats.md): what their rows hold, appending to them, attention
 * over them.
 *
 * A number of e4m3 is sign, 4 bits of exponent, bias 7, and 3 of mantissa, with subnormals; 0x7f
 * and 0xff are NaN, 448 is the largest, there is no infinity. An element of a key is
 *
 *   bf16(float(e4m3) * scale)      product in float, rounded to nearest even twice
 *
 * exact where the scale is a power of two, and an e4m3 element times a scale that is NaN is NaN.
 * sm_90's attention takes e4m3 * scale and does not round it to bf16 (docs/kv_formats.md).
 */
#include "kernels/abi/append.h"
#include "kernels/abi/attend.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/gather.h"
#include "kernels/abi/preattend.h"
#include "kernels/abi/sparse.h"

/* Of struct rt_quant_view. */
#define RT_QUANT_SCALE_TENSOR 1u /* tensor_scale, and nothing in the cache */
#define RT_QUANT_SCALE_F32 2u    /* in the cache, one f32 a tile */
#define RT_QUANT_SCALE_UE8M0 3u  /* in the cache, a byte a tile: 2^(byte - 127); 255: NaN */

/* Powers of two that append takes for scales: so far apart that their products with e4m3 are bf16
 * numbers, and neither 0 nor infinite. */
#define RT_QUANT_LEAST_LOG2 (-100)
#define RT_QUANT_MOST_LOG2 119

/*
 * What a cache's row holds. The first `fp8` elements of a key are bytes at the row's beginning, the
 * other d_qk - fp8 are bf16 from rest_offset_bytes on. Element e < fp8 has scale e / tile of its
 * token; those of row r of a page begin at page + scale_offset_bytes + r * scale_stride_bytes.
 */
struct rt_quant_view {
    int64_t scale_offset_bytes, scale_stride_bytes;
    uint32_t scale_kind;        /* RT_QUANT_SCALE_* */
    uint32_t scale_bytes;       /* of a token: what tiles leave of it append makes 0 */
    uint32_t fp8;               /* a multiple of tile, and of 16 */
    uint32_t tile;              /* 64, 128, 256 or 512; of RT_QUANT_SCALE_TENSOR all */
    uint32_t rest_offset_bytes; /* a multiple of 16 */
    float tensor_scale;         /* above 0, finite */
};
RT_STATIC_ASSERT(sizeof(struct rt_quant_view) == 40, "quant view");

/*
 * append_quant: append_general of bf16 tokens, of d_qk elements in one piece or two, into a row of
 * the view's. Of each tile with the largest finite or infinite magnitude `most`
 *
 *   scale    the least power of two with most <= 448 * scale, 2^-100 at least, 2^119 at most
 *   element  e4m3(x / scale), to nearest even, saturated: what is beyond 448, and an infinity, is
 *            448 with its sign; NaN is 0x7f
 *
 * so a tile of zeros has a scale above 0. With RT_QUANT_SCALE_TENSOR element is
 * e4m3(x * (1 / tensor_scale)), both in float. The rest is copied bit for bit.
 * general.append.kv.token_bytes is what a row has, general.rope_bytes the bytes of a token's rope
 * piece as it comes, d_qk - d_v bf16.
 */
struct rt_append_quant_params {
    struct rt_append_general_params general;
    struct rt_quant_view quant;
    uint32_t d_qk, reserved;
};
#define RT_APPEND_QUANT_PARAMS_ADDRESSES(type, at)                                                 \
    RT_APPEND_GENERAL_PARAMS_ADDRESSES(type, at general.)
RT_STATIC_ASSERT(sizeof(struct rt_append_quant_params) == 200, "append_quant ABI");

/*
 * preattend_quant: preattend whose cache is of e4m3. Key and latent are rounded to bf16, as
 * preattend leaves them, and quantised as append_quant quantises those: d_qk is L + R, and
 * preattend.kv.token_bytes what a row has. Not of f32.
 */
struct rt_preattend_quant_params {
    struct rt_preattend_params preattend;
    struct rt_quant_view quant;
};
#define RT_PREATTEND_QUANT_PARAMS_ADDRESSES(type, at)                                              \
    RT_PREATTEND_PARAMS_ADDRESSES(type, at preattend.)
RT_STATIC_ASSERT(sizeof(struct rt_preattend_quant_params) == 344, "preattend_quant ABI");

/*
 * kv_gather_quant: kv_gather, where a token of out is the row's d_qk elements in bf16: gather.out
 * is [count, d_qk] bf16, gather.kv.token_bytes what a row has.
 */
struct rt_kv_gather_quant_params {
    struct rt_kv_gather_params gather;
    struct rt_quant_view quant;
    uint32_t d_qk; /* a multiple of 8, RT_KV_GATHER_QUANT_LEAST at least */
    uint32_t reserved;
};
#define RT_KV_GATHER_QUANT_PARAMS_ADDRESSES(type, at)                                              \
    RT_KV_GATHER_PARAMS_ADDRESSES(type, at gather.)
#define RT_KV_GATHER_QUANT_LEAST 256u
RT_STATIC_ASSERT(sizeof(struct rt_kv_gather_quant_params) == 144, "kv_gather_quant ABI");

/* attend_quant: attend over the keys that the view makes of the cache's rows. */
struct rt_attend_quant_params {
    struct rt_attend_params attend;
    struct rt_quant_view quant;
};
#define RT_ATTEND_QUANT_PARAMS_ADDRESSES(type, at) RT_ATTEND_PARAMS_ADDRESSES(type, at attend.)
RT_STATIC_ASSERT(sizeof(struct rt_attend_quant_params) == 344, "attend_quant ABI");

/* sparse_attend_quant: sparse_attend likewise; both caches are of one layout. */
struct rt_sparse_attend_quant_params {
    struct rt_sparse_attend_params sparse;
    struct rt_quant_view quant, extra_quant; /* of sparse.attend.kv and sparse.extra_kv */
};
#define RT_SPARSE_ATTEND_QUANT_PARAMS_ADDRESSES(type, at)                                          \
    RT_SPARSE_ATTEND_PARAMS_ADDRESSES(type, at sparse.)
RT_STATIC_ASSERT(sizeof(struct rt_sparse_attend_quant_params) == 592, "sparse_attend_quant ABI");

/* The generic kernels keep a step's keys in registers while they are on their way: with more than
 * a few accumulators beside them there is one block to an SM. */
#define RT_ATTEND_QUANT_BLOCKS_PER_SM(tile_rows, d_qk)                                             \
    ((tile_rows) == 16u ? RT_ATTEND_GENERIC_BLOCKS_PER_SM(tile_rows, d_qk) : 1u)

#endif
