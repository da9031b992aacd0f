/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_PREFILL_REPORT_H
#define RT_BENCH_PREFILL_REPORT_H

/* What `bench prefill` says: a line a prompt's length and its stages, then decode beside a chunk;
 * or one JSON object. */
#include "bench/layer_stages.h"
#include "replayrt/models.h"
#include "tools/json.h"

/* The least time that a device allows: the larger of two terms. */
struct prefill_floor {
    double flop;  /* of a layer: products by its weights, and what its tokens see of each other */
    double bytes; /* of its weights */
    double ns;
    bool by_flop; /* which term it is */
};

/* A prompt of `tokens`, in one chunk, without a past. */
struct prefill_row {
    uint32_t tokens;
    double step_ns;      /* step_begin's start to step_end's end: median by the device's clock */
    double attention_ns; /* of a layer, alone: stages that attend, reduce or merge */
    double attention_flop;
    double hidden_rms; /* what the last layer left; finite, and what an eager step left, bitwise */
    struct prefill_floor floor; /* of blocks alone */
    struct layer_stages stages;
    char form[192]; /* in which its tokens attend, and why */
};

/* A step of `batch` rows beside a chunk, and each of them alone. */
struct prefill_mix {
    uint32_t chunk, batch, length;
    double chunk_ns, decode_ns, mixed_ns;
    struct layer_stages stages; /* of both in one launch */
};

struct prefill_report {
    struct rt_info device;
    struct rt_config config;
    const struct rt_model *model; /* null: blocks alone. A model has no floors */
    uint64_t weight_bytes;        /* of all layers, or of the model */
    double tflops, gbps;          /* peaks that floors are of */
    uint32_t steps;               /* that medians are of */
    cJSON *json;                  /* the object; null: to people, on stdout */
};

/* Of one layer. weight_bytes are bf16's, so each token multiplies by as many numbers as they are
 * bytes / 2, twice counted. */
struct prefill_floor prefill_floor_of(const struct prefill_report *report,
                                      const struct prefill_row *row);

void prefill_report_head(struct prefill_report *report);
void prefill_report_row(struct prefill_report *report, const struct prefill_row *row);
void prefill_report_mix(struct prefill_report *report, const struct prefill_mix *mix);
/* Writes the object, unless there was no head, and deletes it. */
void prefill_report_end(struct prefill_report *report);

#endif
