/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_PROJECT_CASE_H
#define RT_TESTS_CHECKKERN_PROJECT_CASE_H

/* A product, its buffers on both sides, and what it must come to. */
#include "kernels/abi/project.h"
#include "tests/checkkern/harness.h"

enum ck_project_trouble {
    CK_PROJECT_PLAIN,
    CK_PROJECT_HUGE, /* numbers near the largest whose sums are still floats */
    CK_PROJECT_NAN,  /* in the middle vector of x */
    CK_PROJECT_INFINITE,
    CK_PROJECT_ZERO, /* the last vector of x */
    CK_PROJECT_TROUBLES
};

struct ck_project {
    uint32_t batch, m, k;
    uint32_t rows[2]; /* of the weights; [1] 0: one weight */
    bool transposed;  /* weights lie across: row_stride 1 */
    bool bias;
    bool norm;
    bool inside; /* x and y: [m, batch, width], as heads lie; else [batch, m, width] */
    bool gaps;   /* between rows and between batches */
    bool y_f32;
    enum ck_project_trouble trouble;
    uint64_t seed;
};

struct ck_project_rig {
    struct ck_buffer x, y, w[2], bias[2], norm;
};

/* "2 x [8, 7168] by 1536 + 576 …", for ck_case. */
void ck_project_describe(const struct ck_project *c, char *text, size_t bytes);

/* x and weights random, all between rows and behind them NaN, y filled with CK_PROJECT_FILL. */
#define CK_PROJECT_FILL 0xff
struct ck_project_rig ck_project_make(struct ck *ck, const struct ck_project *c);
void ck_project_free(struct ck *ck, struct ck_project_rig *rig);
struct rt_project_params ck_project_params(const struct ck_project *c,
                                           const struct ck_project_rig *rig, enum ck_side side);

/* [batch, m, rows] in double, and how far a right answer may be from it. */
struct ck_project_truth {
    double *value, *bound;
};
struct ck_project_truth ck_project_truth(struct ck *ck, const struct ck_project *c,
                                         const struct ck_project_rig *rig);
void ck_project_forget(struct ck_project_truth *truth);
/* The device's y, and that nothing around it has changed. */
void ck_project_compare(struct ck *ck, const struct ck_project *c, const struct ck_project_rig *rig,
                        const struct ck_project_truth *truth);

#endif
