/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_BENCH_REPORT_H
#define RT_BENCH_BENCH_REPORT_H

/* What `bench attention` says: a line a shape, a summary by class, an object a line for programs.
 */
#include "bench/bench_whole_step.h"
#include "bench/measure.h"
#include "bench/roofline.h"

#include <stdbool.h>
#include <stdio.h>

struct bench_row {
    const struct shape *shape;
    struct roofline roofline;
    struct rt_measure_attention_result r;
    struct whole_step step;
    bool failed;       /* wrong output, or could not be measured */
    char problem[560]; /* in words where failed */
    bool measured;     /* r is there */
};

struct bench_report {
    struct rt_measure_info device;
    double softmax_scale;
    uint32_t topk;      /* keys of a list; 0: dense attention */
    const char *layout; /* of the KV cache, not owned */
    FILE *lines;        /* objects, one a line; null: none wanted */
    uint32_t shapes, failures;
    struct {
        uint32_t shapes, compared; /* compared: with another implementation's time */
        double log_sum, least;
        char least_label[SHAPE_LABEL_BYTES];
        double floor_log_sum;
    } classes[ROOFLINE_CLASSES];
};

void bench_report_head(const struct bench_report *report);
void bench_report_row(struct bench_report *report, const struct bench_row *row);
void bench_report_end(const struct bench_report *report);

#endif
