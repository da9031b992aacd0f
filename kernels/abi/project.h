/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PROJECT_H
#define RT_KERNELS_ABI_PROJECT_H

#include "kernels/abi/norm.h"

/*
 * The generic kernel's grid is one line: a block for RT_PROJECT_ROWS rows of the weight, for
 * RT_PROJECT_VECTORS vectors of x, and for one z.
 */
#define RT_PROJECT_THREADS 256u
#define RT_PROJECT_ROWS 64u
#define RT_PROJECT_VECTORS 8u

/* [batch, rows, columns]: columns packed, strides in elements. */
struct rt_matrix_view {
    void *base;
    int64_t batch_stride, row_stride;
};

/* A weight as a checkpoint has it: bf16 [batch, rows, k], of the last two strides one is 1. */
struct rt_weight_view {
    const uint16_t *base;
    const uint16_t *bias; /* bf16 [rows], or null; none where batch > 1 */
    int64_t batch_stride, row_stride, column_stride;
    uint32_t rows, reserved;
};
#define RT_WEIGHT_ADDRESSES(type, member)                                                          \
    (RT_ADDRESS(type, member.base) | RT_ADDRESS(type, member.bias))

/*
 * project: y[z, i, j] = bias[j] + sum over l < k of x'[z, i, l] * w[z, j, l], summed in float and
 * rounded once to bf16, or with y_f32 not at all. x' is x, or its norm rounded to bf16. The weight
 * may be two, whose rows follow each other in y: q_a and kv_a are one product. Every number of y is
 * summed in an order that depends on the shapes and the device alone, so that two runs agree
 * bitwise.
 */
struct rt_project_params {
    struct rt_matrix_view x; /* bf16 [batch, m, k] */
    struct rt_matrix_view y; /* bf16 or f32 [batch, m, w[0].rows + w[1].rows]: no overlap with x */
    struct rt_weight_view w[2];
    struct rt_norm_view norm; /* width: k */
    uint32_t batch, m, k;
    uint32_t is_f32; /* host device alone: x and y are f32, x' is not rounded */
    uint32_t y_f32;  /* y is f32, as a model's logits are wanted */
    uint32_t reserved;
};
#define RT_PROJECT_PARAMS_ADDRESSES(type, at)                                                      \
    (RT_ADDRESS(type, at x.base) | RT_ADDRESS(type, at y.base) |                                   \
     RT_WEIGHT_ADDRESSES(type, at w[0]) | RT_WEIGHT_ADDRESSES(type, at w[1]) |                     \
     RT_NORM_ADDRESSES(type, at norm))
RT_STATIC_ASSERT(sizeof(struct rt_project_params) == 192, "project ABI");

#endif
