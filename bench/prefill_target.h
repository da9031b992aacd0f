/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_PREFILL_TARGET_H
#define RT_BENCH_PREFILL_TARGET_H

/* What prompts are measured in: blocks alone, with random weights, or a whole model. */
#include "replayrt/decoder.h"
#include "tools/random_weights.h"

#include <stdbool.h>

struct prefill_source {
    const char *checkpoint; /* the model's folder; null: blocks alone */
    bool is_random;         /* of the folder config.json alone is read */
    uint64_t seed;          /* of random weights */
    struct rt_model model;  /* with a checkpoint, by prefill_source_read */
};

/* Zeroed is closed. */
struct prefill_target {
    rt_runtime *rt;
    rt_decoder *decoder;           /* owns rt; null: blocks alone */
    struct random_weights weights; /* of blocks alone */
    uint64_t weight_bytes;
};

/* The model, whose dimensions become the configuration's. Without a checkpoint nothing is done. */
enum rt_status prefill_source_read(struct prefill_source *source, struct rt_config *config,
                                   struct rt_error *error);

/* Blocks, as long as making or loading weights takes. On failure `out` is to be closed too. */
enum rt_status prefill_target_open(const struct prefill_source *source,
                                   const struct rt_config *config, struct prefill_target *out,
                                   struct rt_error *error);
void prefill_target_close(struct prefill_target *target);

#endif
