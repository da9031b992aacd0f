/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_PRODUCTS_H
#define RT_RUNTIME_PRODUCTS_H

/*
 * The library's products of all graphs: one plan for every shape, with the way of doing it that was
 * the fastest here, measured over the layers' own weights, which no cache holds all of.
 */
#include "graphs/program.h"

struct rt_planned {
    struct rt_matmul first; /* that the plan was made for */
    struct rt_matmul_plan *plan;
};

/* Zeroed: none yet. */
struct rt_products {
    struct rt_planned *items;
    uint32_t count, capacity;
};

/*
 * Gives every product of the program its plan. Runs products on the stream, so it writes their
 * results; the operands' memory is there. Blocks. RT_ERR_UNSUPPORTED names the product that the
 * library has no way for, or none that is kernels alone.
 */
enum rt_status rt_products_plan(struct rt_products *products, struct rt_program *program,
                                struct rt_driver *d, rt_dstream stream, struct rt_error *err);
/* The graphs built of the programs are gone. */
void rt_products_free(struct rt_products *products, struct rt_driver *d);

#endif
