/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_LAYER_STAGES_H
#define RT_BENCH_LAYER_STAGES_H

/*
 * What each stage of a block costs by itself: for every stage of a layer a chain of that stage's
 * work of all layers, as the captured step has it, with its weights, its KV and its edges, in a
 * graph of its own.
 *
 *   the step    qkv_a.0 ~> q_b.0 ~> preattend_absorb.0 ~> … ~> o_proj.0 ~> qkv_a.1 ~> q_b.1 ~> …
 *   chains      qkv_a.0 ~> qkv_a.1 ~> …      q_b.0 ~> q_b.1 ~> …      …
 *
 * A node of a chain overlaps its like where in the step it overlaps another stage, so their sum is
 * near a layer's time and not equal to it.
 */
#include "replayrt/rt.h"

/* A chunk of 16384 tokens has up to 64 pieces of a product of 32768 rows. */
#define LAYER_STAGES_MOST 256
#define LAYER_STAGE_NAME_BYTES 48
#define LAYER_STAGE_BY_BYTES 192

struct layer_stage {
    char name[LAYER_STAGE_NAME_BYTES]; /* "q_b"; "preattend 2": the layer's second of that name */
    char by[LAYER_STAGE_BY_BYTES];     /* the kernel; or the library, and how it multiplies */
    double ns;                         /* a layer's share of the chain: the median of its replays */
    uint64_t weight_bytes;             /* of a product, one layer's; else 0 */
};

struct layer_stages {
    uint32_t count;
    struct layer_stage stages[LAYER_STAGES_MOST];
};

/* The number of a captured graph, as rt_get_bucket_stats counts them: that of a step whose rows
 * have `length` keys each, its own tokens among them, or of a chunk of prompts without a past and
 * of rows that decode beside it. UINT32_MAX: there is none. */
uint32_t layer_graph_of_step(rt_runtime *rt, uint32_t batch, uint32_t query_len, uint32_t length);
uint32_t layer_graph_of_chunk(rt_runtime *rt, uint32_t chunk, uint32_t decode_rows);

/*
 * Of the captured graph of that number. Rows, lengths and the schedule are those of the last step,
 * which was this graph's and is complete. The data tensors and the KV of its
 * tokens are written again. Blocks. Failures are the runtime's last error.
 */
enum rt_status layer_stages_measure(rt_runtime *rt, uint32_t graph, uint32_t replays,
                                    struct layer_stages *out);

#endif
