/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

enum rt_status rt_take_build(const struct rt_kernels *k, const struct rt_variant *variant,
                             const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_take_params *p = params;
    RT_REQUIRE(p->rows >= 1 && p->rows <= RT_TAKE_MOST_ROWS, err, RT_ERR_INVALID,
               "%u rows to take, not 1 to %u", p->rows, RT_TAKE_MOST_ROWS);
    RT_REQUIRE(p->x_rows >= 1 && p->x_rows <= INT32_MAX, err, RT_ERR_INVALID,
               "%u rows to take from, not 1 to %d", p->x_rows, INT32_MAX);
    RT_REQUIRE(p->width >= 8 && p->width % 8 == 0, err, RT_ERR_INVALID,
               "rows of %u numbers to take, not a multiple of 8", p->width);
    RT_TRY(rt_check_pointer("x", p->x, err));
    RT_TRY(rt_check_pointer("out", p->out, err));
    RT_TRY(rt_check_stride("x stride in elements", p->x_stride, sizeof(uint16_t), err));
    RT_TRY(rt_check_stride("out stride in elements", p->out_stride, sizeof(uint16_t), err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), p->rows, 1, RT_TAKE_THREADS, out, err);
}
