/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/gate.h"
#include "kernels/abi/project.h"
#include "kernels/ref/ref.h"

void rt_ref_gate(const void *params)
{
    const struct rt_gate_params *p = params;
    const struct rt_project_params product = {
        .x = {.base = p->norm.normed, .row_stride = p->norm.stride},
        .y = {.base = (void *)(uintptr_t)p->route.logits, .row_stride = p->route.logit_stride},
        .w = {{.base = p->router,
               .row_stride = p->router_stride,
               .column_stride = 1,
               .rows = p->route.experts}},
        .batch = 1,
        .m = p->norm.tokens,
        .k = p->norm.norm.width,
        .is_f32 = p->norm.is_f32,
        .y_f32 = 1,
    };
    rt_ref_input_norm(&p->norm);
    rt_ref_project(&product);
    rt_ref_route(&p->route);
}
