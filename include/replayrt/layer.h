/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_LAYER_H
#define REPLAYRT_LAYER_H

/*
 * Whole MLA blocks in the step: rt_config.layer. Between the caller's two stages of a layer then
 * stands the block, hidden to hidden, with the caller's weights:
 *
 *   [stage]  writes hidden: what the block's projections get, normalised by the model's input norm
 *            (with rt_config.input_norm: what the sublayer before gave, not normalised)
 *   residual += s hidden, hidden = norm(residual)          with input_norm only; layer 0 sets it;
 *                                                          s is block.residual_scale, 1
 *   q_a, kv_a   = hidden · W_qa, hidden · W_kva            without q_lora_rank: q = hidden · W_q
 *   q           = norm(q_a) · W_qb                         per head [nope P | rope R]
 *   kv cache   <- [norm(kv_a latent) | rope(kv_a key)]
 *   q absorbed  = [q nope · W_UK | rope(q rope)]
 *   [stage]  RT_STAGE_INDEXER, with rt_config.topk: lists the keys that attention is over
 *   out         = attention of q over the cache, in latent space
 *   hidden      = (out · W_UV) · W_o
 *   [stage]  reads hidden
 *
 * A step of several replays works at rows 0..bucket - 1 of all these in each of them: a stage finds
 * its replay's rows there, not at row_base. Padding rows have hidden 0 plus o_proj's bias.
 *
 * Where one kernel does all of a block it writes hidden, residual and the cache alone: tensors q,
 * normed, out and lse stay as they are. rt_config.split_blocks keeps the chain, which writes them.
 *
 * Weights are device memory of the caller's, host memory on the host device, read where they lie
 * and never copied: borrowed until rt_destroy. The laws of rt.h hold here too.
 */
#include "replayrt/rt.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One weight: rows x columns as a checkpoint has it, a vector as 1 row. */
struct rt_weight {
    uint32_t struct_size;
    enum rt_dtype dtype; /* RT_DTYPE_BF16, with precision f32 too: that is of cache and data */
    uint64_t address;    /* a multiple of 16 */
    uint64_t rows, columns;
    /* In elements; both 0: packed. One of them is 1, the other a multiple of 8 that leaves rows, or
     * columns, apart. */
    int64_t row_stride, column_stride;
};

/*
 * A table of weights for a configuration with layer set, to be filled before rt_create. The caller
 * owns it until rt_weights_destroy; rt_create copies it, so that it may be destroyed behind that.
 */
RT_API enum rt_status rt_weights_create(const struct rt_config *config, rt_weights **out,
                                        struct rt_error *error);
RT_API void rt_weights_destroy(rt_weights **weights);

/*
 * Binds one weight of one layer; again: the new one counts. Names are a checkpoint's, whatever
 * stands in front of them ("model.layers.3.self_attn.q_a_proj.weight"); but for a number behind
 * "layers.", which must be `layer`. Where layers count otherwise, as in a part of a model, the end
 * alone will do:
 *
 *   q_a_proj.weight            [q_lora_rank, hidden]            q_a_layernorm.weight  [q_lora_rank]
 *   q_b_proj.weight            [heads * (P + R), q_lora_rank]
 *   q_proj.weight              [heads * (P + R), hidden]        without q_lora_rank, for these
 *   kv_a_proj_with_mqa.weight  [L + R, hidden]                  kv_a_layernorm.weight [L]
 *   kv_b_proj.weight           [heads * (P + V), L]             per head W_UK [P, L], W_UV [V, L]
 *   o_proj.weight              [hidden, heads * V]
 *   input_layernorm.weight     [hidden]                         with input_norm
 *
 * and, where the model has one, NAME.bias [rows] of q_a_proj, q_proj, q_b_proj, kv_a_proj_with_mqa
 * and o_proj. Heads are this GPU's: a shard of q_b_proj, kv_b_proj and o_proj; of o_proj that is
 * heads / rt_config.context_parallel of them.
 * RT_ERR_INVALID: no such layer, another one's name, no such name, dtype, shape, alignment or
 * stride; the table is as before.
 */
RT_API enum rt_status rt_weights_bind(rt_weights *weights, uint32_t layer, const char *name,
                                      const struct rt_weight *weight, struct rt_error *error);

/* A weight that the configuration has a place for: what a loader walks. */
struct rt_weight_place {
    uint32_t struct_size;
    uint32_t layer;
    const char *name; /* static storage: what a checkpoint's name ends in */
    uint64_t rows, columns;
    uint32_t needed; /* 0: a bias, which a model may lack */
    uint32_t bound;
};
/* How many there are, layer after layer. 0 for null. */
RT_API uint32_t rt_weights_count(const rt_weights *weights);
/* RT_ERR_INVALID past the last. */
RT_API enum rt_status rt_weights_place(const rt_weights *weights, uint32_t index,
                                       struct rt_weight_place *out, struct rt_error *error);

/* RT_ERR_INVALID names the first weight that is missing, and how many are. rt_create asks too. */
RT_API enum rt_status rt_weights_check(const rt_weights *weights, struct rt_error *error);

#ifdef __cplusplus
}
#endif
#endif
