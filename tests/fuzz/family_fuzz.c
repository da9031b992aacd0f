/* SPDX-License-Identifier: Apache-2.0 */
/* A config.json of any bytes is refused with a sentence, or describes a model whose numbers agree
 * with each other. */
#include "models/family.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

static int is_scale(double value)
{
    return isfinite(value) && value > 0;
}

static void expect_moe(const struct rt_model *m)
{
    const struct rt_moe *moe = &m->moe;
    fuzz_expect(moe->experts <= RT_MODEL_MAX_EXPERTS && moe->groups >= 1, "there is a group");
    fuzz_expect(moe->experts % moe->groups == 0, "groups are of equal size");
    fuzz_expect(moe->groups_per_token >= 1 && moe->groups_per_token <= moe->groups,
                "groups are chosen out of all");
    fuzz_expect(moe->experts_per_token >= 1 &&
                    moe->experts_per_token <= moe->experts / moe->groups * moe->groups_per_token,
                "experts are chosen out of those");
    fuzz_expect(moe->intermediate_size >= 1 && is_scale(moe->scale), "an expert has a size");
    fuzz_expect(moe->shared_intermediate_size % moe->intermediate_size == 0, "whole shared ones");
}

static void expect_model(const struct rt_model *m)
{
    uint32_t mixtures = 0;
    fuzz_expect(m->layers >= 1 && m->layers <= RT_MAX_LAYERS, "layers have room");
    fuzz_expect(m->vocab_size >= 1 && m->hidden_size >= 1, "it has a size");
    fuzz_expect(is_scale(m->norm_eps) && is_scale(m->embedding_scale) &&
                    is_scale(m->residual_scale) && is_scale(m->logits_scale),
                "scales are scales");
    fuzz_expect(m->bos >= -1 && m->bos < (int32_t)m->vocab_size, "bos is a token");
    fuzz_expect(m->eos_count <= RT_MODEL_MAX_EOS, "eos ids have room");
    for (uint32_t i = 0; i < m->eos_count; i++)
        fuzz_expect(m->eos[i] >= 0 && m->eos[i] < (int32_t)m->vocab_size, "eos is a token");
    for (uint32_t i = 0; i < RT_MAX_LAYERS; i++) {
        fuzz_expect(i < m->layers || !m->moe_layers[i], "no layer behind the last");
        mixtures += m->moe_layers[i];
    }
    fuzz_expect(mixtures == m->layers || m->intermediate_size, "a dense layer has a size");
    fuzz_expect(mixtures == 0 || m->moe.experts, "a mixture has experts");
    if (m->moe.experts)
        expect_moe(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rt_model m;
    struct rt_error err = {.message = ""};
    memset(&m, FUZZ_FILL, sizeof(m));
    const enum rt_status status = rt_family_parse("fuzz", data, bytes, &m, &err);
    if (status == RT_OK) {
        expect_model(&m);
    } else {
        fuzz_expect_refusal(status, &err);
        fuzz_expect_untouched(&m, sizeof(m));
    }
    return 0;
}
