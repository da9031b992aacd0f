/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/models/logits_compare.h"

#include <math.h>

double logits_cosine(const float *a, const float *b)
{
    double product = 0, length_a = 0, length_b = 0;
    for (uint32_t i = 0; i < RECORDING_VOCAB; i++) {
        product += (double)a[i] * (double)b[i];
        length_a += (double)a[i] * (double)a[i];
        length_b += (double)b[i] * (double)b[i];
    }
    return product / sqrt(length_a * length_b);
}

/* The one that is not a number, if one of them is. */
static double larger(double a, double b)
{
    return !(b <= a) && !isnan(a) ? b : a;
}

double logits_worst(const float *a, const float *b)
{
    double worst = 0;
    for (uint32_t i = 0; i < RECORDING_VOCAB; i++)
        worst = larger(worst, fabs((double)a[i] - (double)b[i]));
    return worst;
}

struct logits_distance logits_compare(const struct recorded_logits *got,
                                      const struct recorded_logits *want)
{
    const double count = (double)RECORDING_PROMPTS * RECORDING_STEPS * RECORDING_VOCAB;
    struct logits_distance d = {.cosine = 1};
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++)
        for (uint32_t s = 0; s < RECORDING_STEPS; s++) {
            d.worst = larger(d.worst, logits_worst(got->of[p][s], want->of[p][s]));
            d.cosine = -larger(-d.cosine, -logits_cosine(got->of[p][s], want->of[p][s]));
            for (uint32_t i = 0; i < RECORDING_VOCAB; i++) {
                const double value = (double)want->of[p][s][i];
                d.mean += fabs((double)got->of[p][s][i] - value) / count;
                d.deviation += value * value / count;
            }
        }
    d.deviation = sqrt(d.deviation);
    return d;
}

uint32_t logits_best(const float *logits)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < RECORDING_VOCAB; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

double logits_gap(const float *logits)
{
    const uint32_t best = logits_best(logits);
    double gap = INFINITY;
    for (uint32_t i = 0; i < RECORDING_VOCAB; i++)
        if (i != best && (double)(logits[best] - logits[i]) < gap)
            gap = (double)(logits[best] - logits[i]);
    return gap;
}
