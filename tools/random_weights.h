/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_RANDOM_WEIGHTS_H
#define RT_TOOLS_RANDOM_WEIGHTS_H

/*
 * Weights for a configuration with `layer` and no checkpoint: random ones, every layer its own in
 * memory. A product leaves about the size of numbers that it was given, and norms multiply by
 * numbers around 1, so that what goes through any number of layers stays finite and does not
 * vanish. Biases are left out. Of several ranks (replayrt/ranks.h) each has heads of its own: other
 * numbers in the weights that are cut, the same in all others.
 */
#include "replayrt/layer.h"
#include "replayrt/memory.h"

/* Zeroed is empty. */
struct random_weights {
    rt_weights *table;
    rt_memory *memory; /* of all of them, on the configured device */
    uint64_t bytes;
};

/* The same numbers for the same configuration, seed and rank; without ranks that is 0. Blocks. On
 * failure *out is empty. */
enum rt_status random_weights_create(const struct rt_config *config, uint64_t seed, uint32_t rank,
                                     struct random_weights *out, struct rt_error *error);
/* Behind the rt_destroy of what reads them. */
void random_weights_destroy(struct random_weights *weights);

#endif
