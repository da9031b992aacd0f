/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"

/*
 * GLM-4.7-Flash: routed as DeepSeek-V3. Which layers are a mixture is a list of words, or as there;
 * a file that says neither means all but the first.
 */
enum rt_status rt_family_glm4_moe_lite(const struct rt_fields *f, struct rt_model *m,
                                       struct rt_error *err)
{
    static const uint32_t first = 1;
    RT_MODELS_TRY(rt_family_common(f, false, m, err));
    RT_MODELS_TRY(rt_family_noaux(f, &m->moe, err));
    if (rt_field_is_given(f, "mlp_layer_types"))
        RT_MODELS_TRY(rt_field_switches(f, "mlp_layer_types", "dense", "sparse", m->layers,
                                        m->moe_layers, err));
    else
        RT_MODELS_TRY(rt_family_layers(f, &first, m, err));
    return rt_family_dense(f, m, err);
}
