/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

#include "common/math.h"

#include <stdio.h>

enum rt_status rt_project_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                  struct rt_error *err)
{
    RT_TRY(rt_plain_resolve(request, out, err));
    (void)snprintf(out->reason, sizeof(out->reason), "generic, %u vectors of %u", request->m,
                   request->k);
    return RT_OK;
}

static enum rt_status check_project(const struct rt_project_params *p, struct rt_error *err)
{
    RT_REQUIRE(p->batch >= 1 && p->m >= 1 && p->k >= 1 && p->w[0].rows >= 1, err, RT_ERR_INVALID,
               "a product of %u times %u vectors of %u with %u rows: at least 1 of each", p->batch,
               p->m, p->k, p->w[0].rows);
    const bool along = p->w[0].column_stride == 1;
    for (int i = 0; i < 2 && p->w[i].rows > 0; i++) {
        const struct rt_weight_view *w = &p->w[i];
        RT_REQUIRE(
            along ? w->column_stride == 1 : w->row_stride == 1, err, RT_ERR_INVALID,
            "weight %d has row stride %lld, column stride %lld: one of the two is 1, and the "
            "same one in both weights",
            i, (long long)w->row_stride, (long long)w->column_stride);
        RT_REQUIRE(!w->bias || p->batch == 1, err, RT_ERR_INVALID, "a bias in a batch of %u",
                   p->batch);
    }
    RT_REQUIRE(!p->norm.weight || p->norm.width == p->k, err, RT_ERR_INVALID,
               "a norm of %u numbers for vectors of %u", p->norm.width, p->k);
    return RT_OK;
}

static enum rt_status build_generic(const struct rt_kernels *k, const struct rt_project_params *p,
                                    const char *entry, struct rt_launch *out, struct rt_error *err)
{
    const uint64_t blocks =
        (uint64_t)rt_ceil_div_u32(p->w[0].rows + p->w[1].rows, RT_PROJECT_ROWS) *
        rt_ceil_div_u32(p->m, RT_PROJECT_VECTORS) * p->batch;
    RT_REQUIRE(blocks <= INT32_MAX, err, RT_ERR_INVALID, "a product of %llu blocks is too large",
               (unsigned long long)blocks);
    return rt_launch_grid(k, entry, p, sizeof(*p), (uint32_t)blocks, 1, RT_PROJECT_THREADS, out,
                          err);
}

enum rt_status rt_project_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_project_params *p = params;
    RT_TRY(check_project(p, err));
    return build_generic(k, p, variant->entry, out, err);
}
