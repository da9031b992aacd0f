/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_RT_TENSORS_H
#define REPLAYRT_RT_TENSORS_H

/*
 * Tensors that a runtime's graphs read and write, found by name. Part of replayrt/rt.h, whose laws
 * and words hold here.
 */
#include "replayrt/rt_sequences.h"

#ifdef __cplusplus
extern "C" {
#endif

enum rt_dtype { RT_DTYPE_BF16 = 1, RT_DTYPE_F32, RT_DTYPE_I32, RT_DTYPE_U8 };

/*
 * A tensor with a fixed address for the runtime's life. Rows of data tensors are packed for the
 * step's query length q: row r, token t, head h is at ((r * q + t) * heads + h) * width. A step of
 * several replays walks rows [row_base, row_base + live) each, see `row_base` and `live_rows`.
 *
 *   q            bf16 [rows, q, heads, d_qk]  in: absorbed query [q_nope·W_UK | q_pe]
 *   latent       bf16 [rows, q, d_qk]         in: new KV rows [normalised latent | rotated k_pe]
 *   out          bf16 [rows, q, heads, d_v]   out: attention output in latent space; padding: 0
 *   lse          f32  [rows, q, heads]        out: natural-log LSE; no key seen, padding: +inf
 *   tokens       i32  [rows, q]               out of step_begin: the step's tokens; -1 in columns
 *                                             that a ragged row has no token for
 *   accepted     i32  [rows]                  in by a step-end stage; counts where accept is -1
 *   sampled      i32  [rows]                  in by a step-end stage: the slot's next last token
 *   drafts       i32  [rows, longest q - 1]   in by a step-end stage: the slot's next drafts, that
 *                                             for column 1 first; -1, as it begins: none
 * and, by row of the current replay (not offset by row_base):
 *   slots        i32  [bucket]                slot, -1 for padding
 *   positions    i32  [bucket]                position of the row's first new token
 *   lengths      i32  [bucket]                KV length with the new tokens; 0 for padding
 *   accept       i32  [bucket]                the step's; -1, RT_ACCEPT_DEVICE; 0 for padding
 *   live_rows    i32  [1]     row_base  i32 [1]
 * and by slot:
 *   slot_lengths i32  [slots]                 block_table i32 [slots, max_blocks]
 *   slot_drafts  i32  [slots, longest q - 1]
 * and where rt_config.topk is set, by row as q is:
 *   sparse_indices i32 [rows, q, topk]        in: the keys that a token attends to, as positions of
 *                                             its sequence; -1, or what is in no page of it: none
 *   sparse_counts  i32 [rows, q]              in: how many of those hold, from the first on; 0 and
 *                                             less: none, more than topk: topk
 * and where rt_config.sinks is:
 *   attn_sink    f32  [heads]                 per layer, in: a score, as sink of rt_mla_decode; 0
 *                                             until it is written
 * and how the keys are shared out:
 *   parts        i32  [parts, 8]              num_splits  i32 [bucket + 1], with topk
 *                                                         [bucket * longest q + 1]
 *   kv           bf16 [pages, page_size, d_qk]   per layer; of a quantised kv_layout bytes of
 *                                                [pages, page_size, rt_info.kv_token_bytes], page
 *                                                by page as docs/kv_formats.md has them
 * and of a chunk's graph, where rt_config.chunks are configured, whose tokens are those of prompts,
 * one row's behind the other's, and from stage_context.chunk on query_len of each row that decodes.
 * Of a row of prompts the tensors above have the last token alone, in column 0, as if it were all
 * it has; data tensors are [tokens, ...], with row_base 0:
 *   chunk_tokens i32 [tokens]                 padding: -1, as is that of
 *   token_slots  i32 [tokens]                 token_positions  i32 [tokens], of which it is 0
 *   token_lengths  i32 [tokens]               KV length that the token sees; 0 for padding
 *   row_last       i32 [rows, q]              for each column the token among them that it is, so
 *                                             of prompts [0] is the last; -1: there is none
 * and with rt_config.context_parallel above 1 token_slots and token_positions in steps too, for
 * every query token; out and lse have the heads of the rank behind attention alone.
 * and where rt_config.layer is set, by row of the current replay, as q, out and lse are then too:
 *   hidden       bf16 [bucket, q, hidden_size]  in and out of every block, see replayrt/layer.h
 *   residual     bf16 [bucket, q, hidden_size]  with input_norm: the sum that blocks add to
 *   normed       bf16 [bucket, q, hidden_size]  with input_norm: what projections get, until the
 *                                               next block
 * There is no latent then. With rt_config.precision f32, what is bf16 here is f32.
 */
struct rt_tensor {
    uint32_t struct_size;
    enum rt_dtype dtype;
    uint32_t rank, reserved;
    uint64_t shape[4]; /* capacity, outermost first */
    uint64_t bytes;
    uint64_t address; /* device address; a host pointer on the host device */
};
/* layer: for q, latent, out, lse, kv and attn_sink alone. RT_ERR_INVALID lists the names. */
RT_API enum rt_status rt_tensor(rt_runtime *runtime, const char *name, uint32_t layer,
                                struct rt_tensor *out);

/* Copies to or from a static tensor, in order with the steps. Blocks. For tests, tools and inputs
 * that come from the host; decode loops write tensors on the stream themselves. */
RT_API enum rt_status rt_tensor_write(rt_runtime *runtime, const char *name, uint32_t layer,
                                      uint64_t offset_bytes, const void *data, uint64_t bytes);
RT_API enum rt_status rt_tensor_read(rt_runtime *runtime, const char *name, uint32_t layer,
                                     uint64_t offset_bytes, void *data, uint64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
