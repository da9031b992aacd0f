/* SPDX-License-Identifier: Apache-2.0 */
/* What a config.json may ask of attention that nobody here computes: said aloud, for a model that
 * is read without it gives other tokens and no error. */
#include "config/model_text.h"

#include <stdio.h>

static enum rt_status refuse(const struct rt_model_text *text, enum rt_model_key id,
                             const char *must, struct rt_error *err)
{
    return rt_model_fail(text, text->given[id], rt_model_key_name(id), must, err);
}

/* A window as wide as the model's longest text hides nothing. */
static enum rt_status check_window(const struct rt_model_text *text, struct rt_error *err)
{
    const struct rt_node *window = text->given[RT_MODEL_WINDOW];
    const struct rt_node *longest = text->given[RT_MODEL_MAX_POSITIONS];
    const bool all =
        rt_pick_is_given(longest) && rt_pick_number(window) >= (double)rt_pick_count(longest);
    if (!rt_pick_is_given(window) || all ||
        !rt_pick_boolean(text->given[RT_MODEL_USE_WINDOW], true))
        return RT_OK;
    return refuse(text, RT_MODEL_WINDOW, "null: every token sees all before it here", err);
}

enum rt_status rt_model_check_attention(const struct rt_model_text *text, uint64_t head,
                                        struct rt_error *err)
{
    char must[96];
    const struct rt_node *given = text->given[RT_MODEL_HEAD_DIM];
    RT_TRY(check_window(text, err));
    if (rt_pick_number(text->given[RT_MODEL_SOFTCAP]) != 0.0)
        return refuse(text, RT_MODEL_SOFTCAP, "null: scores have no cap here", err);
    if (!rt_pick_is_given(given) || rt_pick_count(given) == head)
        return RT_OK;
    (void)snprintf(must, sizeof(must), "%llu, the sum of qk_nope_head_dim and qk_rope_head_dim",
                   (unsigned long long)head);
    return refuse(text, RT_MODEL_HEAD_DIM, must, err);
}

enum rt_status rt_model_check_block(const struct rt_model_text *text, struct rt_error *err)
{
    static const enum rt_model_key norms[] = {RT_MODEL_QK_NORM, RT_MODEL_QK_LAYERNORM};
    for (size_t i = 0; i < sizeof(norms) / sizeof(norms[0]); i++)
        if (rt_pick_boolean(text->given[norms[i]], false))
            return refuse(text, norms[i], "false: heads of q and k have no norms here", err);
    return RT_OK;
}
