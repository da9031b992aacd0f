/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_ROUTE_H
#define RT_KERNELS_ABI_ROUTE_H

#include "kernels/abi/views.h"

/* One block: a warp chooses for a token, and then the block groups. */
#define RT_ROUTE_THREADS 1024u
#define RT_ROUTE_MOST_EXPERTS 1024u
#define RT_ROUTE_MOST_CHOSEN 32u
#define RT_ROUTE_MOST_GROUPS 32u

/* What the sum of a token's weights is divided by is never less: where all of them are 0. */
#define RT_ROUTE_LEAST_SUM 1e-20f

enum rt_route_scoring { RT_ROUTE_SOFTMAX, RT_ROUTE_SIGMOID };
enum rt_route_group_value { RT_ROUTE_GROUP_MAX, RT_ROUTE_GROUP_TOP2 };

/* An expert that has tokens: its pairs are pairs[first .. first + count). */
struct rt_expert_group {
    int32_t expert, first, count, reserved;
};
RT_STATIC_ASSERT(sizeof(struct rt_expert_group) == 16, "a group is read at once");

/* Which tokens each expert has. A pair is a token and the place of the expert among those that it
 * has chosen: number token * chosen + place. */
struct rt_groups_view {
    int32_t *offsets;               /* [experts + 1]: expert e has pairs[offsets[e]..[e + 1]) */
    int32_t *pairs;                 /* [tokens * chosen], of each expert rising */
    struct rt_expert_group *active; /* [experts], of those with pairs, rising; 16-byte aligned */
    int32_t *active_count;          /* [1] */
};
#define RT_GROUPS_ADDRESSES(type, member)                                                          \
    (RT_ADDRESS(type, member.offsets) | RT_ADDRESS(type, member.pairs) |                           \
     RT_ADDRESS(type, member.active) | RT_ADDRESS(type, member.active_count))

/*
 * route: which experts a token goes to, how much each counts, and which tokens an expert has.
 *
 *   s[e]   softmax of the token's logits over the experts, or sigmoid of a logit
 *   v[e]   what an expert is chosen by: its logit where there is no bias and no group is valued by
 *          two, since s rises with it; else s[e] + bias[e]
 *   group  with groups > 1: the experts are `groups` runs of equal length, each of the value of its
 *          largest v, or of the sum of its two largest. The experts of the groups_kept groups of
 *          the largest values are left to be chosen.
 *   place  0..chosen-1: the experts of the largest v, falling
 *   weight s[e], with `normalise` divided by (sum over the places + RT_ROUTE_LEAST_SUM), times
 *          scale
 *
 * Of equal ones the lower index is the larger, among experts and among groups. NaN is less than any
 * number, and equal to NaN; weights are what the formula makes of it: with softmax a NaN or an
 * infinite logit makes all weights of its token NaN, with sigmoid a NaN only where it is chosen.
 *
 * A row with a slot below 0 or a length of 0 and less, where these are given, is padding: its
 * tokens' choices are -1, their weights 0, and no expert has them.
 */
struct rt_route_params {
    struct rt_rows_view rows; /* tokens: rows.count * rows.q_len. position and ctrl are not read */
    const float *logits;      /* [tokens, experts], logit_stride apart */
    const float *bias;        /* [experts], or null */
    int32_t *choices;         /* [tokens, chosen] */
    float *weights;           /* [tokens, chosen] */
    struct rt_groups_view groups_of;
    int64_t logit_stride;
    uint32_t experts, chosen;
    uint32_t groups, groups_kept; /* groups 0 and 1: none */
    uint32_t scoring;             /* enum rt_route_scoring */
    uint32_t group_value;         /* enum rt_route_group_value */
    uint32_t normalise;
    float scale;
};
#define RT_ROUTE_PARAMS_ADDRESSES(type, at)                                                        \
    (RT_ROWS_ADDRESSES(type, at rows) | RT_ADDRESS(type, at logits) | RT_ADDRESS(type, at bias) |  \
     RT_ADDRESS(type, at choices) | RT_ADDRESS(type, at weights) |                                 \
     RT_GROUPS_ADDRESSES(type, at groups_of))
RT_STATIC_ASSERT(sizeof(struct rt_route_params) == 144, "route ABI");

/* Whether experts are chosen by their scores instead of by their logits. */
static RT_HD inline bool rt_route_by_score(const struct rt_route_params *p)
{
    return p->bias || (p->groups > 1 && p->group_value == RT_ROUTE_GROUP_TOP2);
}

/* Whether a row is padding: of all kernels that leave its tokens out, or make them 0. */
static RT_HD inline bool rt_row_is_live(const struct rt_rows_view *rows, uint32_t row)
{
    return (!rows->slot || rows->slot[row] >= 0) && (!rows->length || rows->length[row] > 0);
}

#endif
