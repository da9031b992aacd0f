/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_MEASURE_TIME_H
#define RT_BENCH_MEASURE_TIME_H

/* A program as a graph, built as a step is, and the device's time for a replay of it. */
#include "bench/measure_device.h"
#include "graphs/program.h"

/* Replays once, waits. */
enum rt_status rt_measure_replay(struct rt_measure *m, const struct rt_program *p);

/* Median time of `replays` replays behind some that are not measured. */
enum rt_status rt_measure_replays(struct rt_measure *m, const struct rt_program *p,
                                  uint32_t replays, double *median_ns);

#endif
