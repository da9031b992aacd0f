/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_ROOFLINE_H
#define RT_BENCH_ROOFLINE_H

/* The work of a shape's attention, and the least time that one device allows for it. */
#include "bench/shapes.h"
#include "replayrt/rt_config.h"

/* Measured on an NVIDIA H200: a bf16 GEMM of 8192 x 8192 x 8192, a read-only stream over 8 GiB. */
#define ROOFLINE_TFLOPS 784.0
#define ROOFLINE_GBPS 4559.0

enum roofline_class {
    ROOFLINE_LATENCY, /* a floor below 10 us: launches and waiting weigh as much as the work */
    ROOFLINE_MEMORY,
    ROOFLINE_COMPUTE,
    ROOFLINE_CLASSES
};

struct roofline {
    /* 2 (d_qk + d_v) for every pair of a query row and a key: masked ones too, or those listed */
    double flop;
    double bytes;    /* every KV row once, or every listed one of a token; q, out */
    double floor_us; /* the shape's own where it says one, else the larger of the two terms */
    enum roofline_class of;
};

/* topk 0: of dense attention. Of a layout that the shape cannot have as of bf16. */
struct roofline roofline_of(const struct shape *shape, uint32_t topk, enum rt_kv_layout layout);
const char *roofline_class_name(enum roofline_class of);

#endif
