/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PREATTEND_SUMS_H
#define RT_KERNELS_ABI_PREATTEND_SUMS_H

#include "kernels/abi/preattend.h"

/* What the product that made q_a and kv_a left where it was cut along k: f32, of each part as many
 * numbers as far apart as in the two views. */
struct rt_sums_view {
    const float *q_a, *kv_a; /* of the first part */
    int64_t stride;          /* numbers, from part to part */
    uint32_t parts, reserved;
};
#define RT_PREATTEND_MOST_PARTS 4u

/*
 * preattend_sums: preattend whose q_a and kv_a are the parts' sums, added in their order and
 * rounded to bf16. Of kv_a the view says no more than the strides; q_a, which has a norm, is
 * written alone. Not of f32.
 */
struct rt_preattend_sums_params {
    struct rt_preattend_params preattend;
    struct rt_sums_view sums;
};
#define RT_PREATTEND_SUMS_PARAMS_ADDRESSES(type, at)                                               \
    (RT_PREATTEND_PARAMS_ADDRESSES(type, at preattend.) | RT_ADDRESS(type, at sums.q_a) |          \
     RT_ADDRESS(type, at sums.kv_a))
RT_STATIC_ASSERT(sizeof(struct rt_preattend_sums_params) == 336, "preattend_sums ABI");

#endif
