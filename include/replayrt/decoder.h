/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_DECODER_H
#define REPLAYRT_DECODER_H

/*
 * A whole model in the step: token in, token out. A decoder is a runtime whose blocks have a
 * checkpoint's weights and whose stages are all the rest of the model, embedding, MLPs, mixtures of
 * experts, LM head and the choice of the next token:
 *
 *   rt_decoder_create ── rt_decoder_runtime ── rt_seq_open, rt_decoder_sample, rt_step, rt_result
 *
 * Sequences, steps and results are those of rt.h. A step that names no token takes the one that the
 * sequence's last step has chosen, on the device, so that the host may run ahead by the ring's
 * depth; where there is none yet it is refused (RT_ERR_INVALID). With RT_ACCEPT_DEVICE a row that
 * has chosen one of its stop ids adds nothing to its cache and chooses that id again in every later
 * step: docs/stages.md, "A loop that needs no host". With a number of tokens in `accept`, what
 * stays is the host's to say, as in a prompt.
 *
 * A decoder makes no drafts, and judges the caller's: with a query_len above 1 they are the columns
 * of `tokens` behind a row's first, and query_lens has how many columns each row has. With
 * RT_ACCEPT_DEVICE those stay that the model chooses too, up to the first that it does not, by
 * rt_sample's rule (model_ops.h): a row's `accepted` counts them and the first column, `sampled` is
 * the token behind them. So a step brings columns 1 to accepted - 1 of rt_result_tokens and then
 * `sampled`, which is in the cache after the next step only.
 *
 * Ids are not held to the vocabulary, nor lengths to the model's max_positions: an id that is no
 * row of the embedding is a vector of zeros. A stage that fails, on the host device at a step, is
 * RT_ERR_CALLBACK there, and rt_decoder_last_error has the reason.
 *
 * docs/models.md has the families and what a decoder's memory is made of. The laws of rt.h hold
 * here too.
 */
#include "replayrt/model_ops.h"
#include "replayrt/models.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rt_decoder rt_decoder;

/* done bytes of weights of total are on the device. */
typedef void (*rt_loading_fn)(void *user, uint64_t done, uint64_t total);

struct rt_decoder_params {
    uint32_t struct_size;
    uint32_t reserved;
    /* Of the configuration everything but geometry and block, which are the model's, and layer and
     * input_norm, which are 1. */
    const struct rt_config *config;
    const struct rt_model *model;
    const rt_checkpoint *checkpoint; /* read in rt_decoder_create alone */
    rt_loading_fn loading;           /* may be null */
    rt_progress_fn capturing;        /* may be null */
    rt_log_fn log;                   /* may be null */
    void *user;                      /* of the three */
    /* replayrt/ranks.h: this rank's part of the model (rt_places_cut) is decoded here, hidden is
     * summed behind attention and behind MLPs, logits are gathered, and all ranks choose the same
     * tokens of them. Blocks multiply as the configuration says, by ways of the library that
     * all ranks have; routers, which all have whole, by our own kernels. Null: the only one.
     * Outlives the decoder. */
    rt_ranks *ranks;
};

/*
 * Copies all weights to the device, in bf16, then creates the runtime: the KV pool's size is a
 * fraction of the memory that is left then. Blocks, for as long as reading the checkpoint takes.
 * On failure *out is null, everything is released, and *error says what happened: rt_places_check's
 * and rt_create's errors, RT_ERR_DEVICE_MEMORY, RT_ERR_UNSUPPORTED for what no operator serves,
 * before anything is read: more than 1024 experts, 32 of them a token, 32 groups or 2^18 ids,
 * widths that are no multiple of 8.
 */
RT_API enum rt_status rt_decoder_create(const struct rt_decoder_params *params, rt_decoder **out,
                                        struct rt_error *error);
/* Waits for the steps in flight; the runtime is gone too. Writes null. Blocks. */
RT_API void rt_decoder_destroy(rt_decoder **decoder);

/* Owned by the decoder: not for rt_destroy. Null for null. */
RT_API rt_runtime *rt_decoder_runtime(const rt_decoder *decoder);

/* The last failure of the functions below on this decoder; valid until the next one; never null. */
RT_API const struct rt_error *rt_decoder_last_error(const rt_decoder *decoder);

/*
 * How a sequence's tokens are chosen from its next step on; null: greedily, stopping at the model's
 * end-of-sequence ids, as all slots begin. It is kept by slot: the caller says it for every
 * sequence that is opened or forked, for the slot has what its last one had. A fork with its
 * parent's goes its parent's way. Where the slot has exactly that already nothing happens; else it
 * waits until no step is in flight, since one may read the slot's, of its last sequence too, and
 * the copy is in no order with it. Blocks.
 * RT_ERR_SEQUENCE; RT_ERR_INVALID: a top_p not above 0 with a temperature, a stop that is no id;
 * RT_ERR_DRIVER.
 */
RT_API enum rt_status rt_decoder_sample(rt_decoder *decoder, rt_seq seq,
                                        const struct rt_sampling *sampling);

/*
 * The last step's logits, before the model's logits_scale, on the device: f32 [bucket, query_len,
 * vocab] of the step's last replay, by its own rows. The shape is the capacity; rows are packed for
 * the step's query length. With ranks the last dimension is as many times as large as their parts
 * of the vocabulary, which come to some more than it: numbers behind it mean nothing.
 */
RT_API enum rt_status rt_decoder_logits(rt_decoder *decoder, struct rt_tensor *out);

/* Logits of one row and token of that replay, whose query length the caller knows, times
 * logits_scale, into host memory: [vocab]. Of a chunk of prompts alone it is 1, and a prompt's row
 * has its last token's. Waits until no step is in flight. Blocks.
 * RT_ERR_INVALID: no such row, token or captured query length; RT_ERR_DRIVER. */
RT_API enum rt_status rt_decoder_read_logits(rt_decoder *decoder, uint32_t row, uint32_t query_len,
                                             uint32_t token, float *out);

struct rt_decoder_info {
    uint32_t struct_size;
    uint32_t host;          /* 1: on the host device */
    uint64_t weight_bytes;  /* on the device: of several ranks this one's */
    uint64_t scratch_bytes; /* what the stages work in */
    uint64_t loading_ns, creating_ns;
};
RT_API enum rt_status rt_decoder_get_info(rt_decoder *decoder, struct rt_decoder_info *out);

#ifdef __cplusplus
}
#endif
#endif
