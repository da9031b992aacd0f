/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_MEASURE_TIME_H
#define RT_BENCH_MEASURE_TIME_H

/* A program as a graph, built as a step is, and the device's time for a replay of it. */
#include "bench/measure_device.h"
#include "graphs/program.h"

/* Whose time is taken, and with what; all borrowed. The device's context is current. */
struct rt_stopwatch {
    struct rt_driver *driver;
    rt_dstream stream;
    rt_devent *events; /* [2 * RT_MEASURE_MAX_REPLAYS] */
    struct rt_error *error;
};

static inline struct rt_stopwatch rt_measure_stopwatch(struct rt_measure *m)
{
    return (struct rt_stopwatch){
        .driver = &m->driver, .stream = m->stream, .events = m->events, .error = &m->error};
}

/* Replays once, waits. */
enum rt_status rt_stopwatch_replay(const struct rt_stopwatch *w, const struct rt_program *p);

/* Median time of `replays` replays behind some that are not measured. */
enum rt_status rt_stopwatch_replays(const struct rt_stopwatch *w, const struct rt_program *p,
                                    uint32_t replays, double *median_ns);

/* As many replays back to back, twice: the first ones heat the device, of the second ones the mean
 * time and, where there is a meter, what they use. */
struct rt_sustained {
    double replay_ns, replay_mj;
};
enum rt_status rt_stopwatch_sustain(const struct rt_stopwatch *w, const struct rt_program *p,
                                    uint64_t replays, struct rt_energy_meter *meter,
                                    struct rt_sustained *out);

#endif
