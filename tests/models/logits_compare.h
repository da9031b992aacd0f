/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_MODELS_LOGITS_COMPARE_H
#define RT_TESTS_MODELS_LOGITS_COMPARE_H

/* How far logits are from what was recorded, all of six prompts' at once. */
#include "tests/models/recording.h"

struct logits_distance {
    double cosine;    /* least of all vectors' */
    double worst;     /* largest difference of two logits */
    double mean;      /* of all differences */
    double deviation; /* of what was recorded, around 0 */
};

/* A NaN in `got` makes cosine, worst and mean NaN. */
struct logits_distance logits_compare(const struct recorded_logits *got,
                                      const struct recorded_logits *want);

/* Of two vectors. */
double logits_cosine(const float *a, const float *b);
double logits_worst(const float *a, const float *b);
/* The first of the largest. */
uint32_t logits_best(const float *logits);
/* How far the largest is above the second. */
double logits_gap(const float *logits);

#endif
