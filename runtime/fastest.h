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

/*
 * Selects plan's fastest way that captures as kernels alone, and runs each for it: `layers` are the
 * same product, that the plan was made for, with `count` sets of operands, whose memory is there
 * and whose results are written. A single way is tried too: a library loads its code at the first
 * use, not in a capture. Blocks. RT_ERR_UNSUPPORTED where there is no such way.
 */
enum rt_status rt_fastest_select(struct rt_driver *d, rt_dstream stream,
                                 const struct rt_matmul *const *layers, uint32_t count,
                                 struct rt_matmul_plan *plan, struct rt_error *err);

#endif
