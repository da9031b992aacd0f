/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"

/*
 * DeepSeek-V3, R1, V3.1: a sigmoid of each expert, which is chosen by its score and a learned bias
 * (noaux_tc), out of the groups whose two best ones have the largest sum. The layers for predicting
 * further tokens, which checkpoints have behind the last one, are no part of the model.
 */
enum rt_status rt_family_deepseek_v3(const struct rt_fields *f, struct rt_model *m,
                                     struct rt_error *err)
{
    RT_MODELS_TRY(rt_family_common(f, false, m, err));
    RT_MODELS_TRY(rt_family_noaux(f, &m->moe, err));
    RT_MODELS_TRY(rt_family_layers(f, NULL, m, err));
    return rt_family_dense(f, m, err);
}
