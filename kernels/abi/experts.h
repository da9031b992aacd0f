/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_EXPERTS_H
#define RT_KERNELS_ABI_EXPERTS_H

#include "kernels/abi/route.h"

/* Of the generic kernels: rows of a weight that a block takes. */
#define RT_EXPERTS_THREADS 256u
#define RT_EXPERTS_ROWS 64u

/* bf16 [experts, rows, columns]: columns packed, strides in elements. */
struct rt_expert_weight_view {
    const uint16_t *base;
    int64_t expert_stride, row_stride;
};

/* [tokens, chosen + shared, width]: bf16, strides in elements. */
struct rt_pairs_view {
    void *base;
    int64_t token_stride, place_stride;
};

/*
 * Who has what to do: expert e, of `experts`, the pairs that route has found for it; a shared
 * expert every token, padding too, at place chosen + its number. A model's shared MLP of n times an
 * expert's width is n of them: rows, and columns of the second product, one behind the other. A
 * dense MLP is one shared expert and no others.
 */
struct rt_experts_view {
    struct rt_groups_view groups; /* not looked at where experts is 0; offsets never */
    uint32_t tokens, experts, chosen, shared;
};

/*
 * experts_up: h[t, s] = silu(x[t] . gate[e]) * (x[t] . up[e]) for all pairs (t, s) of an expert e,
 * summed in float, rounded once; silu(a) = a / (1 + exp(-a)). Other places of h are left alone.
 */
struct rt_experts_up_params {
    struct rt_experts_view work;
    const uint16_t *x; /* bf16 [tokens, hidden], x_stride apart */
    struct rt_pairs_view h;
    struct rt_expert_weight_view gate[2], up[2]; /* of experts; of shared ones. [width, hidden] */
    int64_t x_stride;
    uint32_t hidden, width;
    uint32_t is_f32; /* host device alone: x and h are f32 */
    uint32_t reserved;
};
#define RT_EXPERTS_UP_PARAMS_ADDRESSES(type, at)                                                   \
    (RT_GROUPS_ADDRESSES(type, at work.groups) | RT_ADDRESS(type, at x) |                          \
     RT_ADDRESS(type, at h.base) | RT_ADDRESS(type, at gate[0].base) |                             \
     RT_ADDRESS(type, at gate[1].base) | RT_ADDRESS(type, at up[0].base) |                         \
     RT_ADDRESS(type, at up[1].base))
RT_STATIC_ASSERT(sizeof(struct rt_experts_up_params) == 200, "experts_up ABI");

/*
 * experts_down: out[t] = sum over the shared experts of h[t, s] . down[e], plus the sum over the
 * places s < chosen of weights[t, s] * (h[t, s] . down[choices[t, s]]), in float, rounded once. The
 * order of the sum depends on the token's choices, the shapes and the device alone. Padding is 0.
 */
struct rt_experts_down_params {
    struct rt_experts_view work;
    struct rt_rows_view rows; /* as route has them: rows.count * rows.q_len tokens */
    const int32_t *choices;   /* [tokens, chosen] of route */
    const float *weights;
    struct rt_pairs_view h;
    uint16_t *out;                        /* bf16 [tokens, hidden], out_stride apart */
    struct rt_expert_weight_view down[2]; /* of experts; of shared ones. [hidden, width] */
    int64_t out_stride;
    uint32_t hidden, width;
    uint32_t is_f32; /* host device alone: h and out are f32 */
    /* 1: what route writes was complete before the launch in front of this one began, so it may be
     * read before the wait. It is where that one is experts_up, which lets nobody begin before its
     * own wait is over; but for few tokens on sm_90 it does, and down there reads nothing early. */
    uint32_t early;
};
#define RT_EXPERTS_DOWN_PARAMS_ADDRESSES(type, at)                                                 \
    (RT_GROUPS_ADDRESSES(type, at work.groups) | RT_ROWS_ADDRESSES(type, at rows) |                \
     RT_ADDRESS(type, at choices) | RT_ADDRESS(type, at weights) | RT_ADDRESS(type, at h.base) |   \
     RT_ADDRESS(type, at out) | RT_ADDRESS(type, at down[0].base) |                                \
     RT_ADDRESS(type, at down[1].base))
RT_STATIC_ASSERT(sizeof(struct rt_experts_down_params) == 208, "experts_down ABI");

#endif
