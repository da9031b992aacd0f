/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"

#include <stdio.h>

#define MOST_HEAD 512

/* A dimension of what weights are multiplied by. What is not given is another's to miss. */
static enum rt_status check_eights(const struct rt_fields *f, const char *key, uint32_t least,
                                   uint32_t most, struct rt_error *err)
{
    char must[64];
    uint32_t value = 0;
    if (!rt_field_is_given(f, key))
        return RT_OK;
    RT_MODELS_TRY(rt_field_count(f, key, least, most, NULL, &value, err));
    (void)snprintf(must, sizeof(must), "a multiple of 8, from %u to %u", least, most);
    return value % 8 == 0 ? RT_OK : rt_field_refuse(f, key, must, err);
}

enum rt_status rt_family_attention(const struct rt_fields *f, struct rt_model *m,
                                   struct rt_error *err)
{
    static const uint32_t one = 1;
    static const bool no = false;
    uint32_t heads = 0;
    bool biased = false;
    RT_MODELS_TRY(rt_field_count(f, "num_attention_heads", 1, RT_MAX_HEADS, &one, &heads, err));
    RT_MODELS_TRY(check_eights(f, "hidden_size", 8, RT_MAX_HIDDEN, err));
    RT_MODELS_TRY(check_eights(f, "q_lora_rank", 0, RT_MAX_HIDDEN, err));
    RT_MODELS_TRY(check_eights(f, "qk_nope_head_dim", 8, MOST_HEAD, err));
    RT_MODELS_TRY(check_eights(f, "v_head_dim", 8, MOST_HEAD, err));
    RT_MODELS_TRY(rt_field_flag(f, "attention_bias", &no, &biased, err));
    m->attention_bias = biased;
    return RT_OK;
}
