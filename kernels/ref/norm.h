/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_NORM_H
#define RT_KERNELS_REF_NORM_H

#include "kernels/abi/norm.h"

/* kernels/abi/norm.h, in double: x and y [norm->width], bf16 or f32; they may be one. */
void rt_ref_norm(const struct rt_norm_view *norm, const void *x, void *y, bool is_f32);

#endif
