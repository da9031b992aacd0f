/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"

#include <string.h>

/* The ids a file may name: those that the embedding has. */
static enum rt_status read_tokens(const struct rt_fields *f, struct rt_model *m,
                                  struct rt_error *err)
{
    uint32_t ids[RT_MODEL_MAX_EOS], count = 0;
    RT_MODELS_TRY(rt_field_counts(f, "bos_token_id", m->vocab_size - 1, 1, ids, &count, err));
    m->bos = count ? (int32_t)ids[0] : -1;
    RT_MODELS_TRY(rt_field_counts(f, "eos_token_id", m->vocab_size - 1, RT_MODEL_MAX_EOS, ids,
                                  &m->eos_count, err));
    for (uint32_t i = 0; i < m->eos_count; i++)
        m->eos[i] = (int32_t)ids[i];
    return RT_OK;
}

/* 0 and null are both no cap. */
static enum rt_status check_logits(const struct rt_fields *f, struct rt_error *err)
{
    static const char key[] = "final_logit_softcapping";
    const bool capped = rt_field_is_given(f, key) && !rt_field_is_zero(f, key);
    return capped ? rt_field_refuse(f, key, "null: logits have no cap here", err) : RT_OK;
}

enum rt_status rt_family_common(const struct rt_fields *f, bool tied, struct rt_model *m,
                                struct rt_error *err)
{
    static const uint32_t unsaid = 0;
    static const bool no = false;
    bool mlp_bias = false;
    RT_MODELS_TRY(
        rt_field_count(f, "vocab_size", 1, RT_FAMILY_MAX_VOCAB, NULL, &m->vocab_size, err));
    RT_MODELS_TRY(rt_field_count(f, "hidden_size", 1, RT_MAX_HIDDEN, NULL, &m->hidden_size, err));
    RT_MODELS_TRY(rt_field_count(f, "num_hidden_layers", 1, RT_MAX_LAYERS, NULL, &m->layers, err));
    RT_MODELS_TRY(rt_field_count(f, "max_position_embeddings", 1, UINT32_MAX, &unsaid,
                                 &m->max_positions, err));
    RT_MODELS_TRY(rt_field_number(f, "rms_norm_eps", NULL, &m->norm_eps, err));
    RT_MODELS_TRY(rt_field_flag(f, "tie_word_embeddings", &tied, &tied, err));
    RT_MODELS_TRY(rt_field_flag(f, "mlp_bias", &no, &mlp_bias, err));
    if (mlp_bias)
        return rt_field_refuse(f, "mlp_bias", "false: an MLP has no biases here", err);
    RT_MODELS_TRY(rt_family_only(f, "hidden_act", "silu", err));
    RT_MODELS_TRY(check_logits(f, err));
    RT_MODELS_TRY(rt_family_attention(f, m, err));
    m->tied = tied;
    m->embedding_scale = m->residual_scale = m->logits_scale = 1.0;
    return read_tokens(f, m, err);
}

enum rt_status rt_family_dense(const struct rt_fields *f, struct rt_model *m, struct rt_error *err)
{
    if (!memchr(m->moe_layers, 0, m->layers))
        return RT_OK;
    return rt_field_count(f, "intermediate_size", 1, RT_FAMILY_MAX_WIDTH, NULL,
                          &m->intermediate_size, err);
}

enum rt_status rt_family_only(const struct rt_fields *f, const char *key, const char *word,
                              struct rt_error *err)
{
    static const uint32_t first = 0;
    uint32_t which = 0;
    return rt_field_choice(f, key, &word, 1, &first, &which, err);
}
