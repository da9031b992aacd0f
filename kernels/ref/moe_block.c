/* SPDX-License-Identifier: Apache-2.0 */
/* The three that it is made of, one behind the other, with groups of its own. */
#include "kernels/abi/moe_block.h"
#include "kernels/ref/ref.h"

/* As many as the kernel takes: RT_EXPERTS_SM90_FEW_PAIRS of them, of up to RT_GATE_MOST_EXPERTS. */
struct groups {
    int32_t offsets[RT_GATE_MOST_EXPERTS + 1];
    int32_t pairs[RT_EXPERTS_SM90_FEW_PAIRS];
    struct rt_expert_group active[RT_GATE_MOST_EXPERTS];
    int32_t active_count;
};

static struct rt_groups_view groups_view(struct groups *g)
{
    return (struct rt_groups_view){g->offsets, g->pairs, g->active, &g->active_count};
}

static struct rt_experts_view work_of(const struct rt_moe_block_params *p, struct groups *g)
{
    return (struct rt_experts_view){.groups = groups_view(g),
                                    .tokens = p->gate.norm.tokens,
                                    .experts = p->gate.route.experts,
                                    .chosen = p->gate.route.chosen,
                                    .shared = p->shared};
}

static void up(const struct rt_moe_block_params *p, struct groups *g)
{
    const struct rt_experts_up_params params = {
        .work = work_of(p, g),
        .x = p->gate.norm.normed,
        .h = p->h,
        .gate = {p->expert[0], p->expert[1]},
        .up = {p->expert_up[0], p->expert_up[1]},
        .x_stride = p->gate.norm.stride,
        .hidden = p->gate.norm.norm.width,
        .width = p->width,
    };
    rt_ref_experts_up(&params);
}

static void down(const struct rt_moe_block_params *p, struct groups *g)
{
    const struct rt_experts_down_params params = {
        .work = work_of(p, g),
        .rows = p->gate.route.rows,
        .choices = p->gate.route.choices,
        .weights = p->gate.route.weights,
        .h = p->h,
        .out = p->out,
        .down = {p->expert_down[0], p->expert_down[1]},
        .out_stride = p->out_stride,
        .hidden = p->gate.norm.norm.width,
        .width = p->width,
    };
    rt_ref_experts_down(&params);
}

void rt_ref_moe_block(const void *params)
{
    const struct rt_moe_block_params *p = params;
    struct rt_gate_params gate = p->gate;
    struct groups groups = {.active_count = 0};
    gate.route.groups_of = groups_view(&groups);
    if (gate.route.experts > 0)
        rt_ref_gate(&gate);
    else
        rt_ref_input_norm(&gate.norm);
    up(p, &groups);
    down(p, &groups);
}
