/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/norm.h"

#include "kernels/ref/number.h"

#include <math.h>
#include <string.h>

void rt_ref_norm(const struct rt_norm_view *norm, const void *x, void *y, bool is_f32)
{
    if (!norm->weight) {
        memmove(y, x, (size_t)norm->width * (is_f32 ? 4 : 2));
        return;
    }
    double squares = 0;
    for (uint32_t i = 0; i < norm->width; i++) {
        const double number = rt_ref_load(x, i, is_f32);
        squares += number * number;
    }
    const double factor = (double)norm->scale / sqrt(squares / norm->width + (double)norm->eps);
    for (uint32_t i = 0; i < norm->width; i++) {
        const double weight = (double)rt_bf16_to_float(norm->weight[i]) + (double)norm->offset;
        rt_ref_store(y, i, is_f32, rt_ref_load(x, i, is_f32) * factor * weight);
    }
}
