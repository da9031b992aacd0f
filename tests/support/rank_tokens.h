/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_RANK_TOKENS_H
#define RT_TESTS_SUPPORT_RANK_TOKENS_H

/* For stages of ranks in f32 whose hidden states, RANKS_HIDDEN wide, follow from tokens' ids, in
 * steps and chunks. */
#include "tests/support/rank_fixture.h"

/* A stage in front of the first layer: what each token's id makes of hidden. */
int rank_tokens_embed(void *user, const struct rt_stage_context *context);
/* What a row's last token has in hidden, of a row that has some; else null. */
const float *rank_tokens_last(const struct rt_stage_context *context, uint32_t row);

#endif
