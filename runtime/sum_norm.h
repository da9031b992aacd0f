/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_SUM_NORM_H
#define RT_RUNTIME_SUM_NORM_H

/* A sum of hidden over ranks and the input norm of the next block behind it, which
 * rt_all_reduce_norm does in one launch. */
#include "buffers/arena.h"
#include "kernels/abi/input_norm.h"
#include "kernels/registry.h"
#include "runtime/blueprint.h"
#include "runtime/weights.h"

/* What stands in front of a layer's block, of so many tokens from the first on. */
struct rt_input_norm_params rt_input_norm_of(const struct rt_blueprint *b,
                                             const struct rt_arena *arena,
                                             const struct rt_weights *weights, uint32_t layer,
                                             uint32_t tokens);

/* False: one launch cannot do both; the sum alone goes in one shot. */
bool rt_sum_norm_serves(const struct rt_collective *sum, const struct rt_input_norm_params *norm);
/* The launch where it can. */
enum rt_status rt_sum_norm_work(const struct rt_kernels *k, const struct rt_collective *sum,
                                const struct rt_input_norm_params *norm, struct rt_work *out,
                                struct rt_error *err);

#endif
