/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

static enum rt_status check_groups(const struct rt_route_params *p, struct rt_error *err)
{
    const uint32_t each = p->experts / p->groups;
    RT_REQUIRE(p->groups <= RT_ROUTE_MOST_GROUPS && p->experts % p->groups == 0, err,
               RT_ERR_INVALID, "%u experts in %u groups: up to %u groups, of equal length",
               p->experts, p->groups, RT_ROUTE_MOST_GROUPS);
    RT_REQUIRE(p->groups_kept >= 1 && p->groups_kept <= p->groups, err, RT_ERR_INVALID,
               "%u of %u groups kept", p->groups_kept, p->groups);
    RT_REQUIRE(p->group_value <= RT_ROUTE_GROUP_TOP2, err, RT_ERR_INVALID,
               "group value %u is not known", p->group_value);
    RT_REQUIRE(p->group_value == RT_ROUTE_GROUP_MAX || each >= 2, err, RT_ERR_INVALID,
               "groups of %u experts have no two to be valued by", each);
    RT_REQUIRE(p->chosen <= p->groups_kept * each, err, RT_ERR_INVALID,
               "%u experts chosen of %u groups of %u", p->chosen, p->groups_kept, each);
    return RT_OK;
}

enum rt_status rt_check_route(const struct rt_route_params *p, struct rt_error *err)
{
    RT_TRY(rt_check_token_rows(p->rows.count, p->rows.q_len, err));
    RT_REQUIRE(p->experts >= 1 && p->experts <= RT_ROUTE_MOST_EXPERTS, err, RT_ERR_INVALID,
               "%u experts, not 1 to %u", p->experts, RT_ROUTE_MOST_EXPERTS);
    RT_REQUIRE(p->chosen >= 1 && p->chosen <= RT_ROUTE_MOST_CHOSEN && p->chosen <= p->experts, err,
               RT_ERR_INVALID, "%u of %u experts chosen, not 1 to %u", p->chosen, p->experts,
               RT_ROUTE_MOST_CHOSEN);
    RT_REQUIRE(p->scoring <= RT_ROUTE_SIGMOID, err, RT_ERR_INVALID, "scoring %u is not known",
               p->scoring);
    if (p->groups > 1)
        RT_TRY(check_groups(p, err));
    return rt_check_pointer("active", p->groups_of.active, err);
}

enum rt_status rt_route_build(const struct rt_kernels *k, const struct rt_variant *variant,
                              const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_route_params *p = params;
    RT_TRY(rt_check_route(p, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), 1, 1, RT_ROUTE_THREADS, out, err);
}
