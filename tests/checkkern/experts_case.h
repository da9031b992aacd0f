/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_EXPERTS_CASE_H
#define RT_TESTS_CHECKKERN_EXPERTS_CASE_H

/* Experts with tokens, their buffers on both sides, and what the two products must come to. */
#include "kernels/abi/experts_many.h"
#include "tests/checkkern/harness.h"

enum ck_experts_trouble {
    CK_EXPERTS_PLAIN,
    CK_EXPERTS_NAN, /* in the middle token */
    CK_EXPERTS_INFINITE,
    CK_EXPERTS_ZERO, /* the last token */
    CK_EXPERTS_TROUBLES
};

enum ck_experts_choice {
    CK_EXPERTS_RANDOM,
    CK_EXPERTS_SAME,   /* every token chooses the same */
    CK_EXPERTS_SKEWED, /* some experts have most of the tokens */
    CK_EXPERTS_CHOICES
};

struct ck_experts {
    uint32_t rows, q_len, hidden, width;
    uint32_t experts, chosen, shared;
    enum ck_experts_choice choice;
    enum ck_experts_trouble trouble;
    uint32_t live_rows;
    bool gaps;     /* between rows of everything */
    bool together; /* gate and up are one tensor, [experts, 2 width, hidden] */
    uint64_t seed;
};

struct ck_experts_rig {
    struct ck_buffer x, h, out, products, gate_up[2], down[2];
    struct ck_buffer logits, choices, weights, offsets, pairs, active, count, slot;
};

void ck_experts_describe(const struct ck_experts *c, char *text, size_t bytes);

/* Inputs random, all that is not read NaN; grouped by route's reference. */
struct ck_experts_rig ck_experts_make(struct ck *ck, const struct ck_experts *c);
void ck_experts_free(struct ck *ck, struct ck_experts_rig *rig);
struct rt_experts_up_params ck_experts_up_params(const struct ck_experts *c,
                                                 const struct ck_experts_rig *rig,
                                                 enum ck_side side);
struct rt_experts_down_params ck_experts_down_params(const struct ck_experts *c,
                                                     const struct ck_experts_rig *rig,
                                                     enum ck_side side);

struct rt_experts_down_pairs_params ck_experts_pairs_params(const struct ck_experts *c,
                                                            const struct ck_experts_rig *rig,
                                                            enum ck_side side);

/* In double, and how far a right answer may be from it. */
struct ck_experts_truth {
    double *value, *bound; /* NaN bound: nobody writes it */
};

/* Of h, [tokens, chosen + shared, width]. The reference's h is filled with it, rounded. */
struct ck_experts_truth ck_experts_truth_up(struct ck *ck, const struct ck_experts *c,
                                            const struct ck_experts_rig *rig);
/* Of products, [tokens, chosen + (shared > 0), hidden], for the reference's h. The reference's
 * products are filled with it, rounded. */
struct ck_experts_truth ck_experts_truth_pairs(struct ck *ck, const struct ck_experts *c,
                                               const struct ck_experts_rig *rig);
/* Of out, [tokens, hidden], for the reference's h. */
struct ck_experts_truth ck_experts_truth_down(struct ck *ck, const struct ck_experts *c,
                                              const struct ck_experts_rig *rig);
void ck_experts_forget(struct ck_experts_truth *truth);

/* The device's h, products and out, and that nothing around them has changed. */
void ck_experts_compare_up(struct ck *ck, const struct ck_experts *c,
                           const struct ck_experts_rig *rig, const struct ck_experts_truth *truth);
void ck_experts_compare_pairs(struct ck *ck, const struct ck_experts *c,
                              const struct ck_experts_rig *rig,
                              const struct ck_experts_truth *truth);
void ck_experts_compare_down(struct ck *ck, const struct ck_experts *c,
                             const struct ck_experts_rig *rig,
                             const struct ck_experts_truth *truth);

#endif
