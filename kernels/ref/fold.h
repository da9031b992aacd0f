/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_FOLD_H
#define RT_KERNELS_REF_FOLD_H

/*
 * What leaves and groups of batch-invariant attention have left, added up one after the other, as
 * kernels/device/fold.cuh does. What is added and what comes out are single precision, so that it
 * makes no difference whether it has been in memory in between.
 */
#include "kernels/ref/keys.h"

#include <stdint.h>

struct rt_ref_fold {
    double top, total;
    double out[RT_REF_MAX_D];
};

void rt_ref_fold_begin(struct rt_ref_fold *sum);
/* lse of base 2, -inf: no key; x [d_v]. */
void rt_ref_fold_add(struct rt_ref_fold *sum, float lse, const float *x, uint32_t d_v);
/* The sum as a piece: x [d_v] normalised, and its lse. */
float rt_ref_fold_end(const struct rt_ref_fold *sum, float *x, uint32_t d_v);

#endif
