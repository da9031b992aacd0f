/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

#include "common/math.h"

enum rt_status rt_check_input_norm(const struct rt_input_norm_params *p, struct rt_error *err)
{
    const uint32_t most = RT_MAX_BATCH * RT_MAX_QUERY_LEN;
    RT_REQUIRE(p->tokens >= 1 && p->tokens <= most, err, RT_ERR_INVALID, "%u tokens, not 1 to %u",
               p->tokens, most);
    RT_TRY(rt_check_pointer("hidden", p->hidden, err));
    RT_TRY(rt_check_pointer("residual", p->residual, err));
    RT_TRY(rt_check_pointer("normed", p->normed, err));
    RT_TRY(rt_check_stride("stride in elements", p->stride, sizeof(uint16_t), err));
    return rt_check_norm("input norm", &p->norm, RT_INPUT_NORM_MOST_WIDTH, err);
}

enum rt_status rt_input_norm_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                   const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_input_norm_params *p = params;
    RT_TRY(rt_check_input_norm(p, err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), p->tokens, 1,
                          RT_INPUT_NORM_WARPS * RT_WARP_THREADS, out, err);
}
