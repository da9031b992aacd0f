/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_COMPARE_H
#define RT_TESTS_CHECKKERN_COMPARE_H

/*
 * Floats against the truth. An element is right where it is within the absolute or the relative
 * bound, or infinite or NaN exactly where the truth is; a tensor also by the cosine between the
 * two.
 */
#include "tests/checkkern/harness.h"

#define CK_OUT_ABS 8e-4
#define CK_OUT_REL (2.01 / 128)
#define CK_OUT_COS 5e-6
#define CK_LSE_ABS 1e-6
#define CK_LSE_REL (8.01 / 65536)

/* Of keys that the truth has rounded to bf16 and the kernel has not: 2^-8 of each product of a
 * score, which are 1.22 in all where all elements are the same, and that in base 2. */
#define CK_LSE_UNROUNDED_ABS 7e-3

/* Of keys with units of 2^40, whose exponents a kernel of f16 adds to scores: what a float of that
 * size loses, twice. */
#define CK_LSE_FAR_ABS (40.0 / (1 << 23))

/*
 * What e4m3 may change. Of numbers up to 1, each off by a sixteenth of itself at most, 2^-4, and as
 * much again as bf16 rounds: out is a mean of them. Their mean square error is (2^-4)^2 / 6 of
 * theirs or so, hence the cosine; scores differ by a few times that of their deviation.
 */
#define CK_E4M3_OUT_ABS 0.067
#define CK_E4M3_OUT_COS 1e-3
#define CK_E4M3_LSE_ABS 0.02

struct ck_place {
    uint32_t row, token, head, d;
};

/* The element that came nearest to its bound, or went farthest beyond. */
struct ck_worst {
    double share; /* of the bound; above 1 is wrong */
    double found, truth;
    struct ck_place place;
};

struct ck_floats {
    const char *name;
    double abs_bound, rel_bound;
    struct ck_worst worst;
    uint64_t count, wrong;
    double dot, found_norm, truth_norm; /* for the cosine, finite elements */
};

struct ck_floats ck_floats_out(void);
struct ck_floats ck_floats_lse(void);
/* Of caches in e4m3 against what was quantised. */
struct ck_floats ck_floats_e4m3_out(void);
struct ck_floats ck_floats_e4m3_lse(void);
void ck_floats_add(struct ck_floats *f, double found, double truth, struct ck_place place);
/* 1 - 2 x·y / (x·x + y·y); 0 where there is nothing to compare, or next to nothing. */
double ck_floats_cosine(const struct ck_floats *f);
/* Reports what is wrong; cos_bound 0: the cosine is not looked at. */
void ck_floats_end(struct ck *ck, const struct ck_floats *f, double cos_bound);

/* Each number against a bound of its own, `at` which of them. */
struct ck_bounded {
    uint64_t wrong, worst_at;
    double worst; /* of its bound; above 1 is wrong */
    double found, difference;
};
void ck_bounded_add(struct ck_bounded *b, uint64_t at, double found, double truth, double bound);

#endif
