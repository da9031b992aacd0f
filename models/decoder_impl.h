/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_DECODER_IMPL_H
#define RT_MODELS_DECODER_IMPL_H

/* A decoder: a runtime, the weights, and what the stages between its blocks work with. */
#include "models/decoder_weights.h"
#include "replayrt/ranks.h"

#include <stdbool.h>

/* Products with weights for so many vectors: made before the runtime, for their ways are tried. */
struct rt_decoder_products {
    uint32_t vectors; /* a graph's tokens, or of a chunk's graph, for the head, its rows */
    rt_product *router,
        *lm_head; /* null where no graph has so many; no router where rt_gate has it, no head where
                     the rank has no part of the vocabulary */
    uint64_t order; /* i32 [vectors, ranks]: which of the gathered lines are a vector's logits */
};

/* Of one allocation, for the largest graph: addresses, 0 where the model has no use for it. */
struct rt_decoder_scratch {
    rt_memory *memory;
    uint64_t address, bytes;
    uint64_t normed; /* [tokens, hidden] */
    /* [rows, hidden]: of a chunk the rows' last tokens, of hidden and residual. */
    uint64_t last_hidden, last_residual;
    uint64_t scores; /* f32 [tokens, experts] */
    struct rt_routing routing;
    uint64_t arrivals; /* [1], of rt_gate */
    uint64_t exchange; /* of rt_moe_block */
    uint64_t between;  /* [tokens, places, width] of an MLP */
    uint64_t pairs;    /* what rt_experts_down works in */
    uint64_t part;     /* f32 [vectors, slice]: with ranks, of this one's part of the vocabulary */
    uint64_t gathered; /* f32 [ranks, vectors, slice], of all */
    uint64_t orders;   /* of products, one behind the other */
    uint64_t logits;   /* f32 [tokens, line] */
    uint64_t lines;    /* struct rt_sampling [max_sequences] */
    uint64_t sampling; /* what rt_sample works in */
    uint64_t products; /* likewise rt_product_run */
};

/* Static tensors of the runtime: looked up by the first stage that runs. */
struct rt_decoder_tensors {
    uint64_t hidden, residual, tokens, accepted, sampled, slots, positions, lengths, accept,
        row_base;
    /* With chunks alone. */
    uint64_t chunk_tokens, token_slots, token_positions, token_lengths, row_last;
};

struct rt_decoder {
    struct rt_model model;
    struct rt_config config; /* the runtime's */
    char device[32];         /* that is not auto where it became the host */
    uint32_t rank, ranks;    /* 0 of 1 without a group */
    rt_ops *ops;
    struct rt_decoder_weights weights;
    struct rt_decoder_scratch scratch;
    struct rt_decoder_products *products;
    uint32_t product_count;
    /* Up to how many tokens rt_moe_block takes through a dense MLP, and through a mixture, on all
     * ranks. */
    uint32_t block_tokens[2];
    struct rt_decoder_tensors tensors;
    rt_runtime *runtime;
    struct rt_sampling *lines; /* [max_sequences] as the device has them, by slot */
    uint64_t loading_ns, creating_ns;
    struct rt_error error;
};

/* Shared experts of a mixture, each as wide as the others; 0 without a mixture. */
static inline uint32_t rt_decoder_shared(const struct rt_model *m)
{
    return m->moe.experts ? m->moe.shared_intermediate_size / m->moe.intermediate_size : 0;
}

/* ---- decoder_share.c ---- */

/* Ids of a rank's part of the vocabulary, at most, as many as lie from one rank's logits to the
 * next one's; and those that it has, of rows from `first` on. */
uint32_t rt_decoder_slice(const struct rt_decoder *d);
uint32_t rt_decoder_own_ids(const struct rt_decoder *d, uint32_t *first);
/* From one vector's logits to the next one's: the vocabulary, and what all ranks' slices have more
 * than it. */
uint64_t rt_decoder_line(const struct rt_decoder *d);
/* Of a layer's MLP what the rank has. */
uint32_t rt_decoder_width(const struct rt_decoder *d, bool mixture);
/* What stages leave for other ranks: returns how many; none without. */
uint32_t rt_decoder_exchanges(const struct rt_decoder *d,
                              struct rt_stage_exchange out[RT_MODEL_EXCHANGES]);

/* ---- decoder_check.c ---- */

/* RT_ERR_INVALID for numbers out of range, RT_ERR_UNSUPPORTED for what no operator serves. */
enum rt_status rt_decoder_check_model(const struct rt_model *m, struct rt_error *err);

/* ---- decoder_scratch.c ---- */

/* Products and scratch memory for all graphs of the configuration; rt_decoder_scratch_free gives
 * them back, also behind a failure. All ranks of the group, which may be null, come here. */
enum rt_status rt_decoder_scratch_make(struct rt_decoder *d, rt_ranks *ranks, struct rt_error *err);
void rt_decoder_scratch_free(struct rt_decoder *d);
/* The longest query of the configuration. */
uint32_t rt_decoder_longest_query(const struct rt_decoder *d);
/* Whether rt_gate takes a graph's tokens to their experts. */
bool rt_decoder_gates(const struct rt_decoder *d, uint32_t tokens);
/* For so many vectors; never null for those of a graph of the configuration. */
const struct rt_decoder_products *rt_decoder_products_of(const struct rt_decoder *d,
                                                         uint32_t vectors);
/* What a layer's MLP is to the operators: a mixture, or dense. */
struct rt_experts_shape rt_decoder_mlp_shape(const struct rt_decoder *d, bool mixture,
                                             uint32_t tokens);
/* Most rows of a graph, times its tokens a row: whose logits there is room for. */
uint32_t rt_decoder_most_rows(const struct rt_decoder *d);

/* ---- decoder_stages.c ---- */

/* rt_stage_fn of the points that a decoder has stages at; user is the decoder. */
int rt_decoder_begin(void *user, const struct rt_stage_context *context);
int rt_decoder_mlp(void *user, const struct rt_stage_context *context);
int rt_decoder_end(void *user, const struct rt_stage_context *context);

#endif
