/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_BENCH_WHOLE_STEP_H
#define RT_BENCH_BENCH_WHOLE_STEP_H

/* A whole step of a model whose attention is one shape, as rt_step runs it. */
#include "bench/measure.h"
#include "bench/shapes.h"

#include <stdbool.h>

#define WHOLE_STEP_LAYERS 61u /* of DeepSeek-V3 */

struct whole_step {
    uint32_t layers; /* fewer where the KV of all has no room; 0: not measured, see why_not */
    double ns;       /* step_begin's start to step_end's end: median by the device's clock */
    char why_not[560];
};

struct whole_step_setup {
    const char *device;        /* "host" or "cuda:N" */
    struct rt_measure *lender; /* of the pool, on a GPU */
    bool host;
    const uint16_t *noise;
    uint64_t noise_bytes;
    enum rt_backend backend;
    bool invariant;
    enum rt_small_tiles small_tiles;
    double softmax_scale;
};

/* Bytes of KV for all layers of the shape's step. */
uint64_t whole_step_pool_bytes(const struct shape *shape);

/* RT_ERR_DEVICE_MEMORY: not one layer has room. Every failure is told in *out too. Blocks. */
enum rt_status whole_step_measure(const struct whole_step_setup *setup, const struct shape *shape,
                                  struct whole_step *out);

#endif
