/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_OUTCOME_H
#define RT_EXAMPLES_OUTCOME_H

#include <stdint.h>

/*
 * The bounds. mla_expected_error says how far, in the root mean square, rounding to bf16 moves one
 * attention output, relative to its norm. An output of hundreds of elements stays within four times
 * that, and each of its elements within eight times what it gives one element. The layer's input is
 * computed here in double and was recorded in float: a dozen roundings of 2^-24 lie between.
 */
#define OUTCOME_NORM_LIMIT 4.0
#define OUTCOME_ELEMENT_LIMIT 8.0
#define OUTCOME_INPUT_LIMIT 1e-6

/* What the comparison of one position found, or the worst of several. */
struct outcome {
    uint32_t compared; /* positions */
    double absolute;   /* largest |difference| of an element of the output */
    double norm;       /* largest |difference| / |recorded| by norm */
    double cosine;     /* smallest */
    double input;      /* largest relative difference of an element of the input */
    double of_limit;   /* largest share of a limit that was used: above 1 is a mismatch, NaN too */
};

struct outcome outcome_none(void);

/* Holds x and y [count] against what was recorded; `expected` from mla_expected_error. */
struct outcome outcome_compare(const double *x, const float *recorded_x, const double *y,
                               const float *recorded_y, uint32_t count, double expected);

/* Keeps the worse of each. */
void outcome_merge(struct outcome *worst, const struct outcome *other);

#endif
