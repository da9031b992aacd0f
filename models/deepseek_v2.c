/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"

/*
 * DeepSeek-V2, V2-Lite, Coder-V2: softmax over all experts, of which the best are taken as they
 * are (greedy, V2-Lite), or out of the groups that have the best single ones
 * (group_limited_greedy, V2). Their weights are not normalised: of what norm_topk_prob would mean
 * beside routed_scaling_factor, implementations think differently, and no published model has it.
 */
enum rt_status rt_family_deepseek_v2(const struct rt_fields *f, struct rt_model *m,
                                     struct rt_error *err)
{
    static const char *const methods[] = {"greedy", "group_limited_greedy"};
    static const uint32_t greedy = 0, first = 0;
    static const bool no = false;
    uint32_t method = 0;
    bool normalise = false;
    RT_MODELS_TRY(rt_family_common(f, false, m, err));
    if (!rt_field_is_given(f, "n_routed_experts"))
        return rt_family_dense(f, m, err);
    RT_MODELS_TRY(rt_family_experts(f, &m->moe, err));
    RT_MODELS_TRY(rt_family_only(f, "scoring_func", "softmax", err));
    RT_MODELS_TRY(rt_field_choice(f, "topk_method", methods, 2, &greedy, &method, err));
    RT_MODELS_TRY(rt_field_flag(f, "norm_topk_prob", &no, &normalise, err));
    if (normalise)
        return rt_field_refuse(f, "norm_topk_prob", "false in a deepseek_v2 model", err);
    m->moe.scoring = RT_SCORING_SOFTMAX;
    m->moe.group_score = RT_GROUP_SCORE_MAX;
    if (method != greedy)
        RT_MODELS_TRY(rt_family_groups(f, &m->moe, err));
    RT_MODELS_TRY(rt_family_layers(f, &first, m, err));
    return rt_family_dense(f, m, err);
}
