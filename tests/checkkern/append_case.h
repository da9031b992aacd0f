/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_APPEND_CASE_H
#define RT_TESTS_CHECKKERN_APPEND_CASE_H

/* One problem for append_general, or where the layout is quantised for append_quant. */
#include "tests/checkkern/harness.h"

struct ck_append {
    uint32_t rows, q_len, d_qk, d_v, page_size, row_base;
    bool by_slots, rope, strided;
    bool ragged;              /* rows have a length, of any number of tokens; not by slots */
    enum rt_kv_layout layout; /* one that the geometry has */
};

/* Everything drawn but layout and geometry: the i-th case. */
struct ck_append ck_append_draw(struct ck_random *random, uint32_t i, uint32_t d_qk, uint32_t d_v);

/* The kernel against the reference, bit for bit. */
void ck_append_check(struct ck *ck, struct ck_random *random, const struct ck_append *c);

/* Nanoseconds of a launch, of some in a chain; by slots, which are good ones. */
double ck_append_time_ns(struct ck *ck, struct ck_random *random, const struct ck_append *c);

#endif
