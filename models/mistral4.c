/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"

/*
 * Mistral Small 4: softmax over all experts and no bias, else routed as DeepSeek-V3. Checkpoints
 * have all experts of a layer in one tensor.
 */
enum rt_status rt_family_mistral4(const struct rt_fields *f, struct rt_model *m,
                                  struct rt_error *err)
{
    static const uint32_t first = 0;
    static const bool yes = true;
    bool normalise = false;
    RT_MODELS_TRY(rt_family_common(f, false, m, err));
    RT_MODELS_TRY(rt_family_experts(f, &m->moe, err));
    RT_MODELS_TRY(rt_family_groups(f, &m->moe, err));
    RT_MODELS_TRY(rt_field_flag(f, "norm_topk_prob", &yes, &normalise, err));
    m->moe.scoring = RT_SCORING_SOFTMAX;
    m->moe.group_score = RT_GROUP_SCORE_TOP2;
    m->moe.normalise = normalise;
    RT_MODELS_TRY(rt_family_layers(f, &first, m, err));
    return rt_family_dense(f, m, err);
}
