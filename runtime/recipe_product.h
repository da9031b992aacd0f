/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_RECIPE_PRODUCT_H
#define RT_RUNTIME_RECIPE_PRODUCT_H

/* Products of a block as stages: who multiplies, and by which kernel. */
#include "kernels/abi/project.h"
#include "runtime/recipe_parts.h"

/* Where vectors lie: [batch, m, k], k packed. */
struct recipe_vectors {
    void *base;
    int64_t batch_stride, row_stride;
};

/* One product, y = norm(x) w^T + bias; w[1].rows 0: there is one weight. */
struct recipe_product {
    const char *name;
    struct recipe_vectors x, y;
    struct rt_weight_view w[2];
    struct rt_norm_view norm;
    uint32_t batch, k;
    uint32_t vectors; /* 0: the span's tokens */
    bool y_f32;
};

static inline bool rt_recipe_lies_along_k(const struct rt_weight_view *w)
{
    return w->column_stride == 1;
}

/* More vectors of the span than our kernels for few take. */
bool rt_recipe_are_many(const struct recipe *b);
/* As our kernels get it. */
struct rt_project_params rt_recipe_project(const struct recipe *b, const struct recipe_product *p);
/* Whether a kernel of ours that is tuned for the device takes it. Those for many vectors take no
 * norm: it is a node in front, as a library's is. */
bool rt_recipe_streams(const struct recipe *b, const struct recipe_product *p);
/* It does, and its norm is such a node. */
bool rt_recipe_norms_apart(const struct recipe *b, const struct recipe_product *p);
/* *reason: why, in static storage or the refusals'. */
bool rt_recipe_by_library(const struct recipe *b, const struct recipe_product *p,
                          const char **reason);
/* By whom rt_recipe_by_library says, with the reason. */
enum rt_status rt_recipe_add_product(struct recipe *b, uint32_t layer,
                                     const struct recipe_product *p);

/* Of the last stage: why this kernel, until the other puts in front why a kernel at all. */
void rt_recipe_note_kernel(const struct recipe *b, const struct rt_variant *variant);
void rt_recipe_put_in_front(const char *reason, char text[RT_STAGE_REASON_BYTES]);

#endif
