/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_ATTEND_TRUTH_H
#define RT_TESTS_CHECKKERN_ATTEND_TRUTH_H

/*
 * What a case should give, in double, for some of its query rows or for all. The truth of a query
 * row takes half a microsecond a key, so of cases with more work than a device's threads make up
 * for, a sample is taken: first and last query row of every batch row, and as many others as the
 * budget has, half of them beside the edges of tiles. The seed decides.
 */
#include "tests/checkkern/attend_case.h"

struct ck_query {
    uint32_t row, query; /* token * heads + head */
};

struct ck_truth {
    uint32_t count;
    struct ck_query *at; /* rising */
    double *out;         /* [count, d_v] */
    double *lse;         /* [count] */
};

/* `p`: of the reference side, with everything that ck_attend_inputs fills. Ended by ck_truth_free.
 */
struct ck_truth ck_truth_make(struct ck *ck, const struct ck_attend *c,
                              const struct rt_attend_params *p);
void ck_truth_free(struct ck_truth *truth);

#endif
