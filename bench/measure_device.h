/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_MEASURE_DEVICE_H
#define RT_BENCH_MEASURE_DEVICE_H

/* What all shapes are measured on: a device, its kernels, and memory full of noise. */
#include "bench/measure.h"
#include "driver/energy.h"
#include "kernels/registry.h"
#include "replayrt/ops.h"

struct rt_measure {
    struct rt_driver driver;
    struct rt_kernels kernels;
    rt_dstream stream;
    rt_devent events[2 * RT_MEASURE_MAX_REPLAYS]; /* around each measured replay */
    void *noise;                                  /* bf16, pinned */
    uint64_t noise_bytes;
    rt_addr pool; /* 0: none yet */
    uint64_t pool_bytes;
    struct rt_mla_shape pool_shape; /* of the cache that was last there; of no pages: of none */
    struct rt_energy_meter *energy; /* null: none wanted yet, or there is none */
    char device_reason[160];
    struct rt_error error;
};

/* Copies noise to the device, piece by piece from varying places. Waits for the copies. */
enum rt_status rt_measure_fill(struct rt_measure *m, rt_addr to, uint64_t bytes);

/* The pool as a cache of the shape: of bf16, noise; of another layout, pages of quantised noise
 * from its beginning on (measure_pages.h). What a cache of another shape has left there goes. */
enum rt_status rt_measure_renew(struct rt_measure *m, const struct rt_mla_shape *shape);

#endif
