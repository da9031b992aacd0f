/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/refusals.h"

#include "driver/matmul_plan.h"

#include <stdio.h>
#include <stdlib.h>

static enum rt_status add(struct rt_refusals *refusals, const struct rt_matmul *product,
                          const char *intro, const char *why, struct rt_error *err)
{
    const uint32_t count = refusals->count + 1; /* few, if any */
    struct rt_refusal *items = realloc(refusals->items, count * sizeof(*items));
    RT_REQUIRE(items, err, RT_ERR_NOMEM, "out of host memory for %u products without a way", count);
    struct rt_refusal *const last = &items[refusals->count];
    last->product = *product;
    (void)snprintf(last->why, sizeof(last->why), "%s: %.190s", intro, why);
    refusals->items = items;
    refusals->count = count;
    return RT_OK;
}

enum rt_status rt_refusals_add(struct rt_refusals *refusals, const struct rt_matmul *product,
                               const char *why, struct rt_error *err)
{
    return add(refusals, product, "the library has no way", why, err);
}

enum rt_status rt_refusals_follow(struct rt_refusals *refusals, const struct rt_refusals *liked,
                                  struct rt_error *err)
{
    for (uint32_t i = 0; i < liked->count; i++)
        RT_TRY(add(refusals, &liked->items[i].product, "as the runtime that this one is like",
                   liked->items[i].why, err));
    return RT_OK;
}

const char *rt_refusals_find(const struct rt_refusals *refusals, const struct rt_matmul *product)
{
    for (uint32_t i = 0; i < refusals->count; i++) {
        const struct rt_matmul *const refused = &refusals->items[i].product;
        if (refusals->any_alignment ? rt_matmul_same_shape(refused, product)
                                    : rt_matmul_alike(refused, product))
            return refusals->items[i].why;
    }
    return NULL;
}

void rt_refusals_free(struct rt_refusals *refusals)
{
    free(refusals->items);
    *refusals = (struct rt_refusals){.items = NULL};
}
