/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_LAYER_REPORT_H
#define RT_BENCH_LAYER_REPORT_H

/* What `bench layer` says: a table a graph, or one JSON object. */
#include "bench/layer_stages.h"
#include "runtime/sums.h"
#include "tools/json.h"

/* A captured graph that was measured. */
struct layer_row {
    uint32_t batch, query_len, layers;
    double step_ns;    /* step_begin's start to step_end's end: median by the device's clock */
    double hidden_rms; /* what the last layer left; finite, and what an eager step left, bitwise */
    struct layer_stages stages;
};

struct layer_report {
    struct rt_info device;
    struct rt_config config;
    uint64_t weight_bytes; /* of all layers */
    uint32_t length;
    const struct rt_sums *sums; /* for the head: over ranks, as chosen; null: there are none */
    cJSON *json;                /* the object; null: to people, on stdout */
};

/* What a JSON report of a model's layers begins with. */
void layer_json_head(cJSON *j, const struct rt_config *config, const char *device,
                     uint64_t weight_bytes);
void layer_report_head(struct layer_report *report);
/* The rows that follow are of this way to multiply: "auto", "own" or "cublaslt". */
void layer_report_begin(struct layer_report *report, enum rt_projections projections);
void layer_report_row(struct layer_report *report, const struct layer_row *row);
/* Instead of rows: why there are none. */
void layer_report_skip(struct layer_report *report, const char *why);
/* Writes the object, unless there was no head, and deletes it. */
void layer_report_end(struct layer_report *report);

#endif
