/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_MLA_CPU_H
#define RT_EXAMPLES_MLA_CPU_H

/*
 * What surrounds the runtime's attention in a layer, in plain C and double precision:
 *
 *   token ─ embedding ─ RMSNorm ─ x ─┬─ query path ─ rotate ─ absorb W_UK ─▶ q      [N, L + R]
 *                                    └─ kv path ─ normalise ─ rotate ──────▶ latent [L + R]
 *                                 runtime: attention over the cached latents
 *   y ◀─ o_proj ◀─ W_UV of each head ◀────────────────────────────────────── out    [N, L]
 *
 * Names of dimensions as in mla_model.h. Scratch comes from the caller: nothing here can
 * fail but a token that is not in the vocabulary.
 */
#include "examples/mla_model.h"

#include <stddef.h>

/* [R / 2] of config.rotation: radians that a pair turns by position, after YaRN. */
void mla_inverse_frequencies(const struct mla_config *config, double *out);

/* Doubles that the functions below need as scratch. */
size_t mla_scratch_count(const struct mla_config *config);

/* x [H]: the layer's attention input for a token. RT_ERR_FILE for a token outside the vocabulary.
 */
enum rt_status mla_attention_input(const struct mla_model *model, int32_t token, double *x,
                                   struct rt_error *error);

/* q [N, L + R]: the absorbed, rotated query of x at a position. */
void mla_query(const struct mla_model *model, const double *x, uint32_t position, double *q,
               double *scratch);

/* latent [L + R]: what the KV cache keeps of x at a position. */
void mla_latent(const struct mla_model *model, const double *x, uint32_t position, double *latent);

/*
 * How far, relative to its norm, an attention output is expected to be from an exact one (root mean
 * square) when q, the latents, the probabilities and the output are rounded to bf16, everything
 * else exact; docs/main_job.md derives it. q [N, L + R], keys [count, L + R], count >= 1.
 */
double mla_expected_error(const struct mla_config *config, const double *q, const double *keys,
                          size_t count, double softmax_scale);

/* y [H]: the attention block's output for out [N, L]. */
void mla_output(const struct mla_model *model, const double *out, double *y, double *scratch);

#endif
