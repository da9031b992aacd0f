/* SPDX-License-Identifier: Apache-2.0 */
/* The two products of experts and of a dense MLP. */
#include "kernels/ops/op_build.h"

#include "common/math.h"

/* Blocks of the generic kernel for each multiprocessor: as many as there is room for at once. */
#define GENERIC_BLOCKS 2u

enum rt_status rt_experts_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                  struct rt_error *err)
{
    RT_TRY(rt_plain_resolve(request, out, err));
    RT_REQUIRE(request->backend != RT_BACKEND_SM90, err, RT_ERR_UNSUPPORTED,
               "backend sm90 has no kernel for experts");
    out->parts = GENERIC_BLOCKS * request->caps->sm_count;
    return RT_OK;
}

static enum rt_status check_work(const struct rt_experts_view *work, uint32_t hidden,
                                 uint32_t width, struct rt_error *err)
{
    RT_REQUIRE(work->tokens >= 1 && hidden >= 1 && width >= 1, err, RT_ERR_INVALID,
               "%u tokens of %u numbers, experts of %u: at least 1 of each", work->tokens, hidden,
               width);
    RT_REQUIRE(work->experts + work->shared >= 1 && work->experts <= RT_ROUTE_MOST_EXPERTS &&
                   work->shared <= RT_ROUTE_MOST_EXPERTS,
               err, RT_ERR_INVALID, "%u experts and %u shared ones: up to %u, and one at least",
               work->experts, work->shared, RT_ROUTE_MOST_EXPERTS);
    RT_REQUIRE(work->chosen <= RT_ROUTE_MOST_CHOSEN && (work->experts == 0 || work->chosen >= 1),
               err, RT_ERR_INVALID, "%u of %u experts chosen, not 1 to %u", work->chosen,
               work->experts, RT_ROUTE_MOST_CHOSEN);
    RT_REQUIRE(work->tokens <= RT_MAX_BATCH * RT_MAX_QUERY_LEN, err, RT_ERR_INVALID,
               "%u tokens, not up to %u", work->tokens, RT_MAX_BATCH * RT_MAX_QUERY_LEN);
    return rt_check_pointer("active", work->groups.active, err);
}

enum rt_status rt_experts_up_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                   const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_experts_up_params *p = params;
    RT_TRY(check_work(&p->work, p->hidden, p->width, err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    const uint64_t jobs =
        p->work.shared + rt_min_u32(p->work.experts, p->work.tokens * p->work.chosen);
    const uint64_t items = jobs * rt_ceil_div_u32(p->width, RT_EXPERTS_ROWS);
    RT_REQUIRE(items <= INT32_MAX, err, RT_ERR_INVALID,
               "%llu experts of %u rows are too many for one launch", (unsigned long long)jobs,
               p->width);
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          rt_min_u32((uint32_t)items, rt_max_u32(variant->parts, 1)), 1,
                          RT_EXPERTS_THREADS, out, err);
}

enum rt_status rt_experts_down_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                     const void *params, struct rt_launch *out,
                                     struct rt_error *err)
{
    const struct rt_experts_down_params *p = params;
    RT_TRY(check_work(&p->work, p->hidden, p->width, err));
    RT_TRY(rt_check_rows(p->rows.count, p->rows.q_len, err));
    RT_REQUIRE(p->rows.count * p->rows.q_len == p->work.tokens, err, RT_ERR_INVALID,
               "%u rows of %u tokens are not %u tokens", p->rows.count, p->rows.q_len,
               p->work.tokens);
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    const uint64_t blocks = (uint64_t)rt_ceil_div_u32(p->hidden, RT_EXPERTS_ROWS) * p->work.tokens;
    RT_REQUIRE(blocks <= INT32_MAX, err, RT_ERR_INVALID,
               "%u tokens of %u numbers are too many for one launch", p->work.tokens, p->hidden);
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), (uint32_t)blocks, 1, RT_EXPERTS_THREADS,
                          out, err);
}
