/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_PRODUCT_H
#define RT_RUNTIME_PRODUCT_H

/* A product of replayrt/block_ops.h: what was decided for its shape. */
#include "kernels/abi/project.h"
#include "kernels/op.h"
#include "replayrt/block_ops.h"

#define RT_PRODUCT_TEXT 320

struct rt_product {
    struct rt_ops *ops;
    struct rt_project_params params; /* the shape in whole, without an address */
    bool biased[2];
    enum rt_projections projections; /* as asked for, likewise */
    enum rt_backend backend;
    struct rt_variant variant; /* our kernel; of input_norm where the library multiplies */
    bool by_library;
    /* By the library: one for each weight. */
    struct rt_matmul matmuls[2];
    struct rt_matmul_plan *plans[2];
    uint64_t product_bytes; /* of the workspace; behind them x', where there is a norm */
    uint64_t workspace_bytes;
    char reason[RT_PRODUCT_TEXT];
};

/* From the shape to its parameters, strides of 0 packed, and no addresses; out->ops is set. A norm
 * has a weight's address all the same, which stands for any. RT_ERR_INVALID by name. */
enum rt_status rt_product_take_shape(const struct rt_product_shape *shape, struct rt_product *out,
                                     struct rt_error *err);

/* What is to be done as `like` is of its shape, on its device. RT_ERR_INVALID where it is not. */
enum rt_status rt_product_check_like(const struct rt_product *p, const struct rt_product *like,
                                     struct rt_error *err);

/* Why the library cannot do all of it; null: it can. */
const char *rt_product_only_own(const struct rt_product *p);
/* Plans of the library's, its ways tried, of which those of `like` are taken where it is not null;
 * the device's context is current. RT_ERR_UNSUPPORTED: it has no way, or not those. What was made
 * is given back by rt_product_release_library, also behind a failure. */
enum rt_status rt_product_plan_library(struct rt_product *p, const struct rt_product *like,
                                       struct rt_error *err);
void rt_product_release_library(struct rt_product *p);
/* The norm, where there is one, and the products. */
enum rt_status rt_product_put_library(const struct rt_product *p,
                                      const struct rt_product_args *args, void *stream);

static inline uint32_t rt_product_weight_count(const struct rt_product *p)
{
    return p->params.w[1].rows > 0 ? 2 : 1;
}

#endif
