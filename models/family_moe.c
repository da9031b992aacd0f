/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"

#define MAX_SHARED 1024

enum rt_status rt_family_experts(const struct rt_fields *f, struct rt_moe *moe,
                                 struct rt_error *err)
{
    static const uint32_t none = 0;
    uint32_t shared = 0;
    RT_MODELS_TRY(
        rt_field_count(f, "n_routed_experts", 1, RT_MODEL_MAX_EXPERTS, NULL, &moe->experts, err));
    RT_MODELS_TRY(rt_field_count(f, "num_experts_per_tok", 1, moe->experts, NULL,
                                 &moe->experts_per_token, err));
    RT_MODELS_TRY(rt_field_count(f, "moe_intermediate_size", 1, RT_FAMILY_MAX_WIDTH, NULL,
                                 &moe->intermediate_size, err));
    RT_MODELS_TRY(rt_field_count(f, "n_shared_experts", 0, MAX_SHARED, &none, &shared, err));
    RT_MODELS_TRY(rt_field_number(f, "routed_scaling_factor", NULL, &moe->scale, err));
    moe->shared_intermediate_size = shared * moe->intermediate_size;
    moe->groups = moe->groups_per_token = 1;
    return RT_OK;
}

enum rt_status rt_family_groups(const struct rt_fields *f, struct rt_moe *moe, struct rt_error *err)
{
    RT_MODELS_TRY(rt_field_count(f, "n_group", 1, moe->experts, NULL, &moe->groups, err));
    RT_MODELS_TRY(
        rt_field_count(f, "topk_group", 1, moe->groups, NULL, &moe->groups_per_token, err));
    RT_MODELS_REQUIRE(moe->experts % moe->groups == 0, err, RT_ERR_CONFIG,
                      "%s: %sn_group is %u: must divide n_routed_experts, %u", f->label, f->prefix,
                      moe->groups, moe->experts);
    const uint32_t eligible = moe->experts / moe->groups * moe->groups_per_token;
    RT_MODELS_REQUIRE(
        moe->experts_per_token <= eligible, err, RT_ERR_CONFIG,
        "%s: %snum_experts_per_tok is %u: must be at most %u, the experts of topk_group "
        "%u groups",
        f->label, f->prefix, moe->experts_per_token, eligible, moe->groups_per_token);
    return RT_OK;
}

enum rt_status rt_family_layers(const struct rt_fields *f, const uint32_t *first,
                                struct rt_model *m, struct rt_error *err)
{
    static const uint32_t every = 1;
    uint32_t from = 0, each = 1;
    RT_MODELS_TRY(rt_field_count(f, "first_k_dense_replace", 0, m->layers, first, &from, err));
    RT_MODELS_TRY(rt_field_count(f, "moe_layer_freq", 1, m->layers, &every, &each, err));
    for (uint32_t layer = from; layer < m->layers; layer++)
        m->moe_layers[layer] = layer % each == 0;
    return RT_OK;
}

enum rt_status rt_family_noaux(const struct rt_fields *f, struct rt_moe *moe, struct rt_error *err)
{
    static const bool yes = true;
    bool normalise = false;
    RT_MODELS_TRY(rt_family_experts(f, moe, err));
    RT_MODELS_TRY(rt_family_groups(f, moe, err));
    RT_MODELS_TRY(rt_family_only(f, "scoring_func", "sigmoid", err));
    RT_MODELS_TRY(rt_family_only(f, "topk_method", "noaux_tc", err));
    RT_MODELS_TRY(rt_field_flag(f, "norm_topk_prob", &yes, &normalise, err));
    moe->scoring = RT_SCORING_SIGMOID;
    moe->group_score = RT_GROUP_SCORE_TOP2;
    moe->bias = 1;
    moe->normalise = normalise;
    return RT_OK;
}
