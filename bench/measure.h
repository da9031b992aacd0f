/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_MEASURE_H
#define RT_BENCH_MEASURE_H

/*
 * What attention costs on a device: the kernels that the library would choose for a shape, timed in
 * CUDA graphs built as a runtime builds its own, and their output compared with another kernel's in
 * the same call. `replayrt bench attention` is a program of this header.
 *
 * The laws of rt.h hold here too, but structs carry no size: nobody links an older copy of this.
 * One rt_measure is used by one thread at a time. It borrows nothing: what it is given is copied,
 * and its device memory is its own.
 */
#include "replayrt/rt.h"

#include <stdbool.h>

typedef struct rt_measure rt_measure;

#define RT_MEASURE_MAX_REPLAYS 64
#define RT_MEASURE_MOST_SUSTAIN_MS 60000
#define RT_MEASURE_SUSTAIN_LAYERS 61u /* of a step; layers' pools are read in turn */
#define RT_MEASURE_KV_SCALE 0.0625f

struct rt_measure_params {
    const char *device; /* "auto", "host" or "cuda:N" */
    /* bf16 values that KV, queries and new rows are made of, by copying pieces of it; a quantised
     * KV is made of it as append makes one. Finite, such as a layer normally has. A multiple of 256
     * bytes, 4096 to 2^30; a repeat is farther apart the larger it is. Kept in pinned memory. */
    const uint16_t *noise;
    uint64_t noise_bytes;
};

/* Opens the device and loads the kernels. Blocks. On failure *out is null. */
enum rt_status rt_measure_create(const struct rt_measure_params *params, rt_measure **out,
                                 struct rt_error *error);
void rt_measure_destroy(rt_measure **measure);
/* The last failure on this handle; never null. */
const struct rt_error *rt_measure_last_error(const rt_measure *measure);

struct rt_measure_info {
    bool host;
    char device[64];         /* the device's own name */
    char opens[32];          /* "host" or "cuda:N": what opens the same device again */
    char device_reason[160]; /* why `auto` chose it */
    uint32_t sm_count;
    uint64_t l2_bytes; /* of its L2 cache; 0 on the host device */
};
enum rt_status rt_measure_get_info(const rt_measure *measure, struct rt_measure_info *out);

/*
 * The device memory that KV is read from, full of noise: of `bytes`, or of about 85 % of what is
 * free where that is less, unless there is as much already. rt_measure_attention asks for what it
 * needs. Whoever wants to lend it to rt_create as its pool, between two measurements and not on the
 * host device, asks here; growing it releases what was there before. Blocks.
 * RT_ERR_INVALID, RT_ERR_DEVICE_MEMORY, RT_ERR_DRIVER: a pool that was to grow may be gone.
 */
enum rt_status rt_measure_pool(rt_measure *measure, uint64_t bytes, struct rt_memory_region *out);

struct rt_measure_attention_params {
    uint32_t batch;         /* 1..RT_MAX_BATCH */
    const int32_t *lengths; /* [batch] KV lengths, new tokens included: query_len..RT_MAX_LENGTH */
    uint32_t query_len;     /* 1..8 */
    uint32_t heads;         /* 1..128 */
    uint32_t d_qk, d_v;     /* 576/512, 320/256, 288/256 or 512/512 */
    uint32_t page_size;     /* tokens: 16, 32, 64 or 128 */
    uint32_t causal;        /* as in struct rt_mla_shape */
    enum rt_backend backend;
    uint32_t invariant; /* 1: batch-invariant */
    bool small_tiles;   /* where a step of such lengths has them; else nowhere */
    /* 0: all keys that a token sees. Else a list names as many of them for it, at most, in place
     * of dense attention: 576/512 and 512/512. */
    uint32_t topk;
    enum rt_kv_layout kv_layout; /* one scale, where it has one, is RT_MEASURE_KV_SCALE */
    float softmax_scale;         /* > 0 */
    uint32_t replays;    /* measured, behind two that are not: 1..RT_MEASURE_MAX_REPLAYS; 0: 15 */
    uint32_t sustain_ms; /* 0: no sustained load; 1..RT_MEASURE_MOST_SUSTAIN_MS */
};

/*
 * Times are medians over the replays, each between two events around it. All layers share tables,
 * plan, q, out and partial buffers, and have a KV pool each: as many layers as make eight times the
 * L2 cache, so that no layer finds its KV there; at least 3, at most RT_MAX_LAYERS, and fewer where
 * the pool has no room. The pages of a request are scattered over its layer's pool.
 */
struct rt_measure_attention_result {
    enum rt_backend backend; /* never auto */
    const char *kernel;      /* attend's entry point; static storage, as is reduction */
    const char *reduction;   /* null: there is none */
    uint32_t parts;          /* of the schedule */
    uint32_t layers;         /* of the graphs below */
    uint64_t layer_bytes;    /* one layer's KV pool */

    double layer_ns; /* (attend, reduce) of every layer: graph time / layers */
    /* (append, attend, reduce) of every layer, of listed keys with a schedule behind the append, as
     * a layer of a step has it: graph time / layers */
    double append_attend_ns;
    double schedule_ns; /* 64 schedules in a chain: graph time / 64 */
    double append_ns;   /* 64 appends in a chain, to one layer after the other: likewise */
    /* With sustain_ms: (attend, reduce) of a layer in steps of RT_MEASURE_SUSTAIN_LAYERS, replayed
     * back to back for about so long; the mean of the second half. What such a step uses, by the
     * device's counter; 0: there is none, and why_no_energy says why. */
    double sustained_ns, sustained_step_mj;
    char why_no_energy[192];

    /* out and lse of layer 0, all elements, against the generic kernel on the same inputs (where
     * that is what is timed: against itself with the work cut elsewhere). Also the first layer's
     * output at the end of a timed chain, bitwise against a launch on its own. */
    uint64_t compared, wrong; /* elements */
    double worst_share;       /* of an element's bound that the worst one uses; above 1 is wrong */
    double cosine;            /* 1 - 2 x·y / (x·x + y·y) of out */
    char problem[192];        /* what is wrong with the output, in words; "" where nothing is */
};

/*
 * Measures one shape. Wrong output is not a failure of this call: see `problem`. Blocks, for
 * some 40 replays of all layers that make KV cold, 3 to 1024 of them (docs/bench_attention.md), and
 * the time to make their graphs. Returns RT_ERR_INVALID, RT_ERR_GEOMETRY, RT_ERR_UNSUPPORTED
 * (the backend cannot serve it), RT_ERR_DEVICE_MEMORY (a layer does not fit), RT_ERR_NOMEM,
 * RT_ERR_DRIVER.
 */
enum rt_status rt_measure_attention(rt_measure *measure,
                                    const struct rt_measure_attention_params *params,
                                    struct rt_measure_attention_result *out);

#endif
