/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_FASTEST_H
#define RT_RUNTIME_FASTEST_H

/* Which of a library's ways to do a product is the fastest here. */
#include "driver/driver.h"

/* Of the library's candidates, which it orders by its own estimate. */
#define RT_FASTEST_CANDIDATES 6u
/* Sets of weights that a measurement walks: eight of 30 MB are four times an H200's cache. */
#define RT_FASTEST_LAYERS 8u

/*
 * The library's ways to do a product: *out is to be released. RT_ERR_UNSUPPORTED where it has none,
 * which a library says like a driver that fails; memory alone is another matter.
 */
enum rt_status rt_fastest_prepare(struct rt_driver *d, const struct rt_matmul *product,
                                  struct rt_matmul_plan **out, struct rt_error *err);

/* A way that works, and what one product takes by it. */
struct rt_timed_way {
    uint32_t candidate; /* of the plan's */
    float us;
    uint32_t named; /* see struct rt_matmul_plan */
    uint32_t identity[RT_MATMUL_IDENTITY_WORDS];
};
struct rt_timed_ways {
    uint32_t count;
    struct rt_timed_way ways[RT_FASTEST_CANDIDATES];
};

/*
 * Times plan's ways that capture as kernels alone, and leaves one of them selected: `layers` are
 * the same product, that the plan was made for, with `count` sets of operands, whose memory is
 * there and whose results are written. A single way is tried too: a library loads its code at the
 * first use, not in a capture. Blocks. RT_ERR_UNSUPPORTED where there is no such way.
 */
enum rt_status rt_fastest_time(struct rt_driver *d, rt_dstream stream,
                               const struct rt_matmul *const *layers, uint32_t count,
                               struct rt_matmul_plan *plan, struct rt_timed_ways *out,
                               struct rt_error *err);

/* Selects one of them. */
enum rt_status rt_fastest_pick(struct rt_driver *d, struct rt_matmul_plan *plan,
                               const struct rt_timed_way *way, struct rt_error *err);
/* The way that `liked` has selected takes no time from here on, and of those that the library tells
 * by the same words the one in its place takes the least. False: it is none of them. */
bool rt_fastest_prefer(struct rt_timed_ways *timed, const struct rt_matmul_plan *liked);
/* Selects the fastest of them. */
enum rt_status rt_fastest_take(struct rt_driver *d, struct rt_matmul_plan *plan,
                               const struct rt_timed_ways *timed, struct rt_error *err);

/* Times, and selects the fastest; with liked not null its way, RT_ERR_UNSUPPORTED where that is
 * none here. */
enum rt_status rt_fastest_select(struct rt_driver *d, rt_dstream stream,
                                 const struct rt_matmul *const *layers, uint32_t count,
                                 const struct rt_matmul_plan *liked, struct rt_matmul_plan *plan,
                                 struct rt_error *err);

#endif
