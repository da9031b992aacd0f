/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"
#include "models/places.h"

#include <inttypes.h>
#include <string.h>

struct range {
    const char *field;
    uint32_t value, least, most;
};

static enum rt_status check_ranges(const struct range *ranges, size_t count, struct rt_error *err)
{
    for (size_t i = 0; i < count; i++)
        RT_MODELS_REQUIRE(ranges[i].value >= ranges[i].least && ranges[i].value <= ranges[i].most,
                          err, RT_ERR_INVALID,
                          "model->%s is %" PRIu32 ": must be %" PRIu32 " to %" PRIu32,
                          ranges[i].field, ranges[i].value, ranges[i].least, ranges[i].most);
    return RT_OK;
}
#define CHECK_RANGES(ranges, err) check_ranges((ranges), sizeof(ranges) / sizeof((ranges)[0]), err)

static enum rt_status check_mixture(const struct rt_moe *moe, struct rt_error *err)
{
    const struct range ranges[] = {
        {"moe.experts", moe->experts, 1, RT_MODEL_MAX_EXPERTS},
        {"moe.experts_per_token", moe->experts_per_token, 1, moe->experts},
        {"moe.groups", moe->groups, 1, moe->experts},
        {"moe.groups_per_token", moe->groups_per_token, 1, moe->groups},
        {"moe.scoring", (uint32_t)moe->scoring, RT_SCORING_SOFTMAX, RT_SCORING_SIGMOID},
        {"moe.group_score", (uint32_t)moe->group_score, RT_GROUP_SCORE_MAX, RT_GROUP_SCORE_TOP2},
        {"moe.bias", moe->bias, 0, 1},
        {"moe.normalise", moe->normalise, 0, 1},
        {"moe.intermediate_size", moe->intermediate_size, 1, RT_FAMILY_MAX_WIDTH},
        {"moe.shared_intermediate_size", moe->shared_intermediate_size, 0, RT_FAMILY_MAX_SHARED},
    };
    RT_MODELS_TRY(CHECK_RANGES(ranges, err));
    RT_MODELS_REQUIRE(moe->experts % moe->groups == 0, err, RT_ERR_INVALID,
                      "model->moe.groups is %" PRIu32 ": must divide moe.experts, %" PRIu32,
                      moe->groups, moe->experts);
    return RT_OK;
}

static enum rt_status check_layers(const struct rt_model *m, struct rt_error *err)
{
    uint64_t experts = 0;
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        const uint8_t kind = m->moe_layers[layer];
        RT_MODELS_REQUIRE(kind <= 1, err, RT_ERR_INVALID,
                          "model->moe_layers[%" PRIu32 "] is %u: must be 0 or 1", layer, kind);
        RT_MODELS_REQUIRE(kind ? m->moe.experts : m->intermediate_size, err, RT_ERR_INVALID,
                          "layer %" PRIu32 " of the model has an MLP of size 0", layer);
        experts += kind ? m->moe.experts : 0;
    }
    RT_MODELS_REQUIRE(experts <= RT_FAMILY_MAX_ALL_EXPERTS, err, RT_ERR_INVALID,
                      "model->moe.experts is %" PRIu32 ", %" PRIu64
                      " in all layers: must be at most %u there",
                      m->moe.experts, experts, RT_FAMILY_MAX_ALL_EXPERTS);
    return RT_OK;
}

static enum rt_status check_token(const struct rt_model *m, const char *field, int32_t id,
                                  int32_t least, struct rt_error *err)
{
    RT_MODELS_REQUIRE(id >= least && (id < 0 || (uint32_t)id < m->vocab_size), err, RT_ERR_INVALID,
                      "model->%s is %" PRId32 ": must be %" PRId32 " to %" PRIu32
                      ", below vocab_size",
                      field, id, least, m->vocab_size - 1);
    return RT_OK;
}

enum rt_status rt_places_check_model(const struct rt_model *m, struct rt_error *err)
{
    const struct range ranges[] = {
        {"layers", m->layers, 1, RT_MAX_LAYERS},
        {"vocab_size", m->vocab_size, 1, RT_FAMILY_MAX_VOCAB},
        {"hidden_size", m->hidden_size, 1, RT_MAX_HIDDEN},
        {"intermediate_size", m->intermediate_size, 0, RT_FAMILY_MAX_WIDTH},
        {"tied", m->tied, 0, 1},
        {"eos_count", m->eos_count, 0, RT_MODEL_MAX_EOS},
        {"has_zero_token", m->has_zero_token, 0, 1},
        {"attention_bias", m->attention_bias, 0, 1},
    };
    RT_MODELS_REQUIRE(memchr(m->family, 0, sizeof(m->family)), err, RT_ERR_INVALID,
                      "model->family has no NUL among its %zu characters", sizeof(m->family));
    RT_MODELS_TRY(CHECK_RANGES(ranges, err));
    RT_MODELS_REQUIRE(m->hidden_size == m->block.hidden_size, err, RT_ERR_INVALID,
                      "model->hidden_size is %" PRIu32 ": must be block.hidden_size, %" PRIu32,
                      m->hidden_size, m->block.hidden_size);
    if (m->moe.experts)
        RT_MODELS_TRY(check_mixture(&m->moe, err));
    for (uint32_t i = 0; i < m->eos_count; i++)
        RT_MODELS_TRY(check_token(m, "eos", m->eos[i], 0, err));
    RT_MODELS_TRY(check_token(m, "bos", m->bos, -1, err));
    if (m->has_zero_token)
        RT_MODELS_TRY(check_token(m, "zero_token", m->zero_token, 0, err));
    return check_layers(m, err);
}
