/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_NUMBER_H
#define RT_KERNELS_REF_NUMBER_H

/* A number of a data tensor, bf16 or, in a configuration of that precision, f32. */
#include "common/bf16.h"

#include <stdbool.h>

static inline double rt_ref_load(const void *base, int64_t index, bool is_f32)
{
    return is_f32 ? (double)((const float *)base)[index]
                  : (double)rt_bf16_to_float(((const uint16_t *)base)[index]);
}

static inline void rt_ref_store(void *base, int64_t index, bool is_f32, double value)
{
    if (is_f32)
        ((float *)base)[index] = (float)value;
    else
        ((uint16_t *)base)[index] = rt_float_to_bf16((float)value);
}

#endif
