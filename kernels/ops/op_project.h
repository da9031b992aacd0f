/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_OPS_OP_PROJECT_H
#define RT_KERNELS_OPS_OP_PROJECT_H

/* What the two files of the Hopper kernels for products have of each other: op_project.c those for
 * few vectors and whatever all take, op_project_many.c those for more. */
#include "kernels/abi/project_sm90.h"
#include "kernels/ops/op_build.h"

/* What a block takes of shared memory: two of them share an SM. */
#define RT_PROJECT_SM90_HALF_SMEM_BYTES ((RT_PROJECT_SM90_SMEM_BYTES + 1024u) / 2u - 1024u)

/* Weights of a block on their way while its ring fills first. */
#define RT_PROJECT_SM90_EARLY_BYTES (32u * 1024u)

static inline bool rt_project_lies_across(const struct rt_project_params *p)
{
    return p->w[0].column_stride != 1;
}

/* Why the kernels for many vectors do not take a product that is one at all, of bf16, aligned. */
enum rt_status rt_project_many_check(const struct rt_project_params *p, struct rt_error *err);

/* What they then make of it; parts: blocks, each with tiles of its own. */
enum rt_status rt_project_many_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                       struct rt_error *err);
enum rt_status rt_project_many_build(const struct rt_kernels *k, const struct rt_variant *v,
                                     const struct rt_project_params *p, struct rt_launch *out,
                                     struct rt_error *err);

#endif
