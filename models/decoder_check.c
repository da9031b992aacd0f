/* SPDX-License-Identifier: Apache-2.0 */
/* What a decoder asks of a model, before anything is read: what its operators serve, and numbers
 * that mean the same to all of them. */
#include "models/decoder_impl.h"
#include "models/fail.h"
#include "models/places.h"

#include <inttypes.h>
#include <math.h>

/* As replayrt/model_ops.h has them. */
#define MOST_VOCAB (1u << 18)
#define MOST_EXPERTS 1024u
#define MOST_CHOSEN 32u
#define MOST_GROUPS 32u
#define WIDTH_MULTIPLE 8u

static enum rt_status at_most(const char *name, uint32_t value, uint32_t most, struct rt_error *err)
{
    RT_MODELS_REQUIRE(value <= most, err, RT_ERR_UNSUPPORTED,
                      "decoders take a %s of up to %" PRIu32 ", not %" PRIu32, name, most, value);
    return RT_OK;
}

static enum rt_status check_width(const char *name, uint32_t value, struct rt_error *err)
{
    RT_MODELS_REQUIRE(value % WIDTH_MULTIPLE == 0, err, RT_ERR_UNSUPPORTED,
                      "decoders take a %s that is a multiple of %u, not %" PRIu32, name,
                      WIDTH_MULTIPLE, value);
    return RT_OK;
}

static enum rt_status check_moe(const struct rt_moe *moe, struct rt_error *err)
{
    RT_MODELS_TRY(at_most("moe.experts", moe->experts, MOST_EXPERTS, err));
    RT_MODELS_TRY(at_most("moe.experts_per_token", moe->experts_per_token, MOST_CHOSEN, err));
    RT_MODELS_TRY(at_most("moe.groups", moe->groups, MOST_GROUPS, err));
    RT_MODELS_TRY(check_width("moe.intermediate_size", moe->intermediate_size, err));
    const uint32_t left = moe->experts / moe->groups * moe->groups_per_token;
    RT_MODELS_REQUIRE(moe->experts_per_token <= left, err, RT_ERR_INVALID,
                      "model->moe.experts_per_token is %" PRIu32 ", but %" PRIu32 " of %" PRIu32
                      " groups have %" PRIu32 " experts",
                      moe->experts_per_token, moe->groups_per_token, moe->groups, left);
    RT_MODELS_REQUIRE(
        moe->shared_intermediate_size % moe->intermediate_size == 0, err, RT_ERR_UNSUPPORTED,
        "shared experts of %" PRIu32 " numbers are not a multiple of an expert's %" PRIu32,
        moe->shared_intermediate_size, moe->intermediate_size);
    return at_most("number of shared experts",
                   moe->shared_intermediate_size / moe->intermediate_size, MOST_EXPERTS, err);
}

/* Operators take 0 for 1, so a factor of 0 would be none. */
static enum rt_status check_factors(const struct rt_model *m, struct rt_error *err)
{
    const struct {
        const char *name;
        double value;
    } factors[] = {{"embedding_scale", m->embedding_scale},
                   {"residual_scale", m->residual_scale},
                   {"logits_scale", m->logits_scale},
                   {"moe.scale", m->moe.experts ? m->moe.scale : 1}};
    for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]); i++)
        RT_MODELS_REQUIRE(isfinite((float)factors[i].value) && (float)factors[i].value != 0.0f, err,
                          RT_ERR_INVALID, "model->%s is %g: must be a finite number that is not 0",
                          factors[i].name, factors[i].value);
    RT_MODELS_REQUIRE(isfinite((float)m->norm_eps) && m->norm_eps >= 0, err, RT_ERR_INVALID,
                      "model->norm_eps is %g: must be a finite number, 0 or above", m->norm_eps);
    return RT_OK;
}

/* What the model says twice, once for the block. */
static enum rt_status check_block(const struct rt_model *m, struct rt_error *err)
{
    const struct rt_block *b = &m->block;
    RT_MODELS_REQUIRE(m->residual_scale == b->residual_scale, err, RT_ERR_INVALID,
                      "model->residual_scale is %g, block.residual_scale %g: must be the same",
                      m->residual_scale, b->residual_scale);
    RT_MODELS_REQUIRE(m->norm_eps == b->input_norm_eps, err, RT_ERR_INVALID,
                      "model->norm_eps is %g, block.input_norm_eps %g: must be the same",
                      m->norm_eps, b->input_norm_eps);
    RT_MODELS_REQUIRE(m->layers == m->geometry.layers, err, RT_ERR_INVALID,
                      "model->layers is %" PRIu32 ", geometry.layers %" PRIu32 ": must be the same",
                      m->layers, m->geometry.layers);
    return RT_OK;
}

enum rt_status rt_decoder_check_model(const struct rt_model *m, struct rt_error *err)
{
    RT_MODELS_TRY(rt_places_check_model(m, err));
    RT_MODELS_TRY(check_block(m, err));
    RT_MODELS_TRY(check_factors(m, err));
    RT_MODELS_TRY(at_most("vocab_size", m->vocab_size, MOST_VOCAB, err));
    RT_MODELS_TRY(check_width("hidden_size", m->hidden_size, err));
    RT_MODELS_TRY(check_width("intermediate_size", m->intermediate_size, err));
    return m->moe.experts ? check_moe(&m->moe, err) : RT_OK;
}
