/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"

/*
 * Youtu-LLM: dense. Transformers 5.17 clears the pad token's embedding when it loads a model of
 * this family, and of no other here: a text that goes on behind a generated pad token shows it. It
 * can go when a recording of a later version no longer has zeros as that token's input.
 */
enum rt_status rt_family_youtu(const struct rt_fields *f, struct rt_model *m, struct rt_error *err)
{
    uint32_t pad = 0;
    RT_MODELS_TRY(rt_family_common(f, true, m, err));
    RT_MODELS_TRY(
        rt_field_counts(f, "pad_token_id", m->vocab_size - 1, 1, &pad, &m->has_zero_token, err));
    m->zero_token = (int32_t)pad;
    return rt_family_dense(f, m, err);
}
