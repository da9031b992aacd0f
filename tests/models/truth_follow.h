/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_MODELS_TRUTH_FOLLOW_H
#define RT_TESTS_MODELS_TRUTH_FOLLOW_H

/*
 * The truth along a text beside a decoder of less precision. Where two experts' scores are nearer
 * to each other than the decoder's are exact, it may choose the other one, and its logits are then
 * another function's, that follows from the other expert: the truth takes it too, and goes on with
 * what comes of it. Where no such choice explains the logits they are wrong.
 */
#include "tests/models/decoder_truth.h"

struct truth_followed {
    uint32_t vectors, otherwise; /* compared; of them, those of another choice of experts */
    double cosine;               /* the least */
};

/* logits: [count, vocab], of every position of the text. `near`: a cosine that needs no other
 * choice; `doubt`: how far off scores may be. Adds to *sum. */
void truth_follow(struct truth *t, const int32_t *text, uint32_t count, const float *logits,
                  double near, double doubt, struct truth_followed *sum);

#endif
