/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/models/truth_follow.h"

#include <math.h>
#include <stdlib.h>

/* Of a text's position. */
struct place {
    int32_t token;
    uint32_t position;
    const float *logits; /* the decoder's */
    double *truth;       /* [vocab], scratch */
};

static uint32_t count_mixtures(const struct rt_model *model)
{
    uint32_t count = 0;
    for (uint32_t layer = 0; layer < model->layers; layer++)
        count += model->moe_layers[layer];
    return count;
}

/* The truth where the layers of these bits, of those with a mixture, choose otherwise. */
static double cosine_by(struct truth *t, const struct place *at, uint32_t layers, double doubt)
{
    double product = 0, a = 0, b = 0;
    uint32_t mixture = 0;
    for (uint32_t layer = 0; layer < t->model.layers; layer++) {
        t->doubt[layer] = 0;
        if (t->model.moe_layers[layer])
            t->doubt[layer] = layers >> mixture++ & 1 ? doubt : 0;
    }
    truth_step(t, at->token, at->position, at->truth);
    for (uint32_t i = 0; i < t->model.vocab_size; i++) {
        product += at->truth[i] * (double)at->logits[i];
        a += at->truth[i] * at->truth[i];
        b += (double)at->logits[i] * (double)at->logits[i];
    }
    return product / sqrt(a * b);
}

/* The last step is the one whose keys and values stay. */
static double follow(struct truth *t, const struct place *at, double near, double doubt,
                     bool *otherwise)
{
    const uint32_t ways = 1u << count_mixtures(&t->model);
    uint32_t best = 0;
    double cosine = cosine_by(t, at, 0, doubt);
    for (uint32_t way = 1; way < ways && !(cosine >= near); way++) {
        const double other = cosine_by(t, at, way, doubt);
        if (!(other > cosine))
            continue;
        cosine = other;
        best = way;
    }
    *otherwise = best != 0;
    return cosine_by(t, at, best, doubt);
}

void truth_follow(struct truth *t, const int32_t *text, uint32_t count, const float *logits,
                  double near, double doubt, struct truth_followed *sum)
{
    const uint32_t vocab = t->model.vocab_size;
    double *truth = calloc(vocab, sizeof(*truth));
    if (!truth)
        abort();
    for (uint32_t i = 0; i < count; i++) {
        const struct place at = {
            .token = text[i], .position = i, .logits = logits + (size_t)i * vocab, .truth = truth};
        bool otherwise;
        const double cosine = follow(t, &at, near, doubt, &otherwise);
        sum->otherwise += otherwise;
        if (sum->vectors == 0 || (!(cosine >= sum->cosine) && !isnan(sum->cosine)))
            sum->cosine = cosine;
        sum->vectors++;
    }
    free(truth);
}
