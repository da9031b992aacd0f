/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_GATE_H
#define RT_KERNELS_ABI_GATE_H

#include "kernels/abi/input_norm.h"
#include "kernels/abi/route.h"

/* Experts of a block. Its threads have one vector of a token each, or two of a wide one, of all
 * tokens in registers, of which there are so many; and a pair is a lane's. */
#define RT_GATE_EXPERTS 2u
#define RT_GATE_WARPS 16u
#define RT_GATE_NARROW_WIDTH 4096u
#define RT_GATE_MOST_WIDTH (2u * RT_GATE_NARROW_WIDTH)
#define RT_GATE_MOST_TOKENS 4u
#define RT_GATE_MOST_PAIRS 32u
#define RT_GATE_MOST_EXPERTS 512u

/*
 * gate: a few tokens' way to their experts in one launch. What input_norm does; logits = normed .
 * router, summed in float; what route does with them. norm.tokens are route's rows.
 *
 * `arrivals` is 0 before and behind every launch: the blocks count in it which of them is the last.
 */
struct rt_gate_params {
    struct rt_input_norm_params norm;
    struct rt_route_params route; /* logits are written here: [tokens, experts] f32 */
    const uint16_t *router;       /* bf16 [experts, norm.width], router_stride apart */
    int64_t router_stride;        /* in elements, a multiple of 8 */
    uint32_t *arrivals;           /* [1] */
};
#define RT_GATE_PARAMS_ADDRESSES(type, at)                                                         \
    (RT_INPUT_NORM_PARAMS_ADDRESSES(type, at norm.) | RT_ROUTE_PARAMS_ADDRESSES(type, at route.) | \
     RT_ADDRESS(type, at router) | RT_ADDRESS(type, at arrivals))
RT_STATIC_ASSERT(sizeof(struct rt_gate_params) == 240, "gate ABI");

/* Up to how many tokens of so many numbers it takes, each to `chosen` of so many experts; 0: none.
 */
static inline uint32_t rt_gate_most_tokens(uint32_t width, uint32_t experts, uint32_t chosen)
{
    const uint32_t held =
        width <= RT_GATE_NARROW_WIDTH ? RT_GATE_MOST_TOKENS : RT_GATE_MOST_TOKENS / 2u;
    const uint32_t fit = chosen > 0 ? RT_GATE_MOST_PAIRS / chosen : 0;
    if (width > RT_GATE_MOST_WIDTH || experts > RT_GATE_MOST_EXPERTS)
        return 0;
    return fit < held ? fit : held;
}

#endif
