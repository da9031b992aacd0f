/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_LAYER_LAYER_TRACE_H
#define RT_TESTS_LAYER_LAYER_TRACE_H

/*
 * A recorded trace of whole MLA blocks (tests/data/golden) through rt_step: what every layer's
 * block gets at every position is put into `hidden` by a stage, and what it gives is compared with
 * what another implementation computed.
 */
#include "driver/driver.h"
#include "replayrt/checkpoint.h"
#include "replayrt/layer.h"

#define LAYER_TRACE_PROMPTS 6u
#define LAYER_TRACE_STEPS 16u /* recorded outputs a prompt */
#define LAYER_TRACE_LAYERS 2u
#define LAYER_TRACE_MOST 130u /* tokens of the longest prompt */

struct layer_trace {
    struct rt_config config;
    uint32_t element_bytes;
    rt_checkpoint *model, *golden;
    int32_t lens[LAYER_TRACE_PROMPTS];
    struct rt_driver memory; /* the same device: for weights and what stages copy */
    rt_addr weights;
    uint64_t weights_bytes;
    /* [layers][bucket * q_max * hidden], pinned: what stages copy into hidden, and out of it */
    unsigned char *in, *out;
    rt_addr in_address, out_address;
    uint64_t layer_bytes;
    rt_runtime *runtime;
    rt_seq seqs[LAYER_TRACE_PROMPTS];
    /* |got - want|^2 and |want|^2 of all prompts, by layer and step */
    double error[LAYER_TRACE_LAYERS][LAYER_TRACE_STEPS],
        norm[LAYER_TRACE_LAYERS][LAYER_TRACE_STEPS];
    double worst_vector; /* relative error of one prompt's output, so far */
    uint32_t compared;
};

/* Prints what went wrong where it returns false. `t` was zeroed; close it either way. */
bool layer_trace_open(struct layer_trace *t, const char *folder, const struct rt_config *options);
/* All positions of all prompts, query_len at a time where a prompt has as many left. */
bool layer_trace_run(struct layer_trace *t, uint32_t query_len, bool eager);
/* The largest relative error of a layer and step, over all prompts' outputs. */
double layer_trace_worst(const struct layer_trace *t);
void layer_trace_close(struct layer_trace *t);

#endif
