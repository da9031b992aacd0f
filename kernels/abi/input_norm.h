/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_INPUT_NORM_H
#define RT_KERNELS_ABI_INPUT_NORM_H

#include "kernels/abi/norm.h"

/* A block a token, which holds the token's numbers in registers. */
#define RT_INPUT_NORM_WARPS 16u
#define RT_INPUT_NORM_MOST_WIDTH 16384u

/*
 * input_norm: what stands in front of a block that adds its residual itself. Per token:
 *   residual = residual + hidden_scale * hidden   (rounded once; `first`: residual = hidden)
 *   normed   = norm(residual as stored; norm)
 * Tokens are tokens of rows 0..rows-1, packed; padding is computed like the rest. residual may be
 * hidden itself, or null, where `first` is set; otherwise no two of the three overlap.
 */
struct rt_input_norm_params {
    const uint16_t *hidden; /* [tokens, norm.width], rows `stride` apart like the other two;
                             * 16-byte aligned like them */
    uint16_t *residual, *normed;
    int64_t stride; /* in elements, a multiple of 8 */
    struct rt_norm_view norm;
    uint32_t tokens, first;
    uint32_t is_f32;    /* host device alone: the three are f32 */
    float hidden_scale; /* MiniCPM's models make less of what a sublayer adds; 1: as it is */
};
#define RT_INPUT_NORM_PARAMS_ADDRESSES(type, at)                                                   \
    (RT_ADDRESS(type, at hidden) | RT_ADDRESS(type, at residual) | RT_ADDRESS(type, at normed) |   \
     RT_NORM_ADDRESSES(type, at norm))
RT_STATIC_ASSERT(sizeof(struct rt_input_norm_params) == 72, "input_norm ABI");

#endif
