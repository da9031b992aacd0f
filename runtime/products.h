/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_PRODUCTS_H
#define RT_RUNTIME_PRODUCTS_H

/*
 * The library's products of all graphs: one plan for every shape, with the way of doing it that was
 * the fastest here, measured over the layers' own weights, which no cache holds all of.
 */
#include "runtime/recipe.h"
#include "runtime/refusals.h"

struct rt_planned {
    struct rt_matmul first; /* that the plan was made for, with alignments for addresses */
    uint32_t bias_align;    /* of all ranks' biases; 0: none has one */
    struct rt_matmul_plan *plan;
};

/* Zeroed: none yet. */
struct rt_products {
    struct rt_planned *items;
    uint32_t count, capacity;
    bool may_refuse; /* nobody has asked for the library by name */
    /* Another runtime's, whose ways are taken for what it has plans for; null: nobody's. Set by
     * rt_products_follow, looked at by rt_products_make alone. */
    const struct rt_products *like;
    struct rt_refusals refusals;
};

/* Before anything is made: what `like` has plans for is done by the same ways, and what it refused
 * the library is refused, where that may be, for what stood in the way there may be gone. */
enum rt_status rt_products_follow(struct rt_products *products, const struct rt_products *like,
                                  struct rt_error *err);

/*
 * Makes a graph's program and gives every product of it its plan. Runs products on the stream, so
 * it writes their results; the operands' memory is there. What the library has no way for, or none
 * that is kernels alone, goes to our kernels where it may be refused, and the recipe is made anew:
 * s->refusals is &products->refusals. RT_ERR_UNSUPPORTED names the product where it may not be. The
 * program is to be freed also then. Blocks.
 *
 * All ranks of s->comm that have blocks come here with the same graphs, and do each product by one
 * way that all have; where there is none, all by our kernels. RT_ERR_RANKS.
 */
enum rt_status rt_products_make(struct rt_products *products, const struct rt_recipe_source *s,
                                const struct rt_graph_spec *spec, struct rt_stage_binding *bindings,
                                struct rt_driver *d, rt_dstream stream, struct rt_program *program,
                                struct rt_error *err);
/* The graphs built of the programs are gone. */
void rt_products_free(struct rt_products *products, struct rt_driver *d);

#endif
