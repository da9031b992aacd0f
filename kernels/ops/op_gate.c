/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

#include "common/math.h"

enum rt_status rt_gate_build(const struct rt_kernels *k, const struct rt_variant *variant,
                             const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_gate_params *p = params;
    const struct rt_input_norm_params *norm = &p->norm;
    const uint32_t tokens = p->route.rows.count * p->route.rows.q_len;
    RT_TRY(rt_check_input_norm(norm, err));
    RT_TRY(rt_check_route(&p->route, err));
    RT_REQUIRE(norm->tokens == tokens, err, RT_ERR_INVALID,
               "%u rows of %u tokens are not %u tokens", p->route.rows.count, p->route.rows.q_len,
               norm->tokens);
    const uint32_t most = rt_gate_most_tokens(norm->norm.width, p->route.experts, p->route.chosen);
    RT_REQUIRE(tokens <= most, err, RT_ERR_UNSUPPORTED,
               "%u tokens of %u numbers, each to %u of %u experts, are more than the %u that go in "
               "one launch",
               tokens, norm->norm.width, p->route.chosen, p->route.experts, most);
    RT_TRY(rt_check_pointer("router", p->router, err));
    RT_TRY(rt_check_stride("router stride in elements", p->router_stride, sizeof(uint16_t), err));
    RT_TRY(rt_check_f32(k, variant, norm->is_f32, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          rt_ceil_div_u32(p->route.experts, RT_GATE_EXPERTS), 1,
                          RT_GATE_WARPS * RT_WARP_THREADS, out, err);
}
