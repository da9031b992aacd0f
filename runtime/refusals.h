/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_REFUSALS_H
#define RT_RUNTIME_REFUSALS_H

/*
 * Products that the library was asked for and has no way for, found out when graphs are made:
 * where the library is not asked for by name, a recipe gives them to our kernels.
 */
#include "driver/driver.h"

#define RT_REFUSAL_BYTES 240

struct rt_refusal {
    struct rt_matmul product;
    char why[RT_REFUSAL_BYTES];
};

/* Zeroed: none yet. */
struct rt_refusals {
    struct rt_refusal *items;
    uint32_t count;
    /* Of several ranks: what is refused on one is on all, and none knows how operands of the others
     * are aligned when it makes its recipe. So it is refused however they are. */
    bool any_alignment;
};

enum rt_status rt_refusals_add(struct rt_refusals *refusals, const struct rt_matmul *product,
                               const char *why, struct rt_error *err);
/* All of another runtime's, that this one is to be like. */
enum rt_status rt_refusals_follow(struct rt_refusals *refusals, const struct rt_refusals *liked,
                                  struct rt_error *err);
/* Why there is no way for a product of this shape and strides, and where it counts of this
 * alignment; null: none is known. */
const char *rt_refusals_find(const struct rt_refusals *refusals, const struct rt_matmul *product);
void rt_refusals_free(struct rt_refusals *refusals);

#endif
