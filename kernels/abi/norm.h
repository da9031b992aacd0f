/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_NORM_H
#define RT_KERNELS_ABI_NORM_H

#include "kernels/abi/views.h"

/*
 * RMSNorm of a vector x of `width` numbers: y = x * (mean(x^2) + eps)^-1/2 * (weight + offset) *
 * scale, in float or better, rounded once. offset is 1 where a model's weights are zero-centred,
 * scale what longcat and gigachat multiply the low-rank vectors by. A number that is not finite
 * makes all of its y NaN or 0; so may squares whose sum is beyond float's range.
 */
struct rt_norm_view {
    const uint16_t *weight; /* bf16 [width], 16-byte aligned, constant; null: no norm, y = x */
    float eps, offset, scale;
    uint32_t width; /* a multiple of 8 */
};
#define RT_NORM_ADDRESSES(type, member) RT_ADDRESS(type, member.weight)

#endif
