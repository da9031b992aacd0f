/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_ROPE_H
#define RT_COMMON_ROPE_H

/*
 * From the settings of a rotary embedding to what kernels look up (kernels/abi/preattend.h): speeds
 * of the pairs, then cosines and sines of positions, all in double and rounded once. Pure; the
 * settings are trusted (struct rt_rope says what its fields may be).
 */
#include "replayrt/rt_config.h"

/*
 * Radians a position for each of the rope_dim / 2 pairs, into `speeds`: 0 where nothing turns.
 * rope_dim is even and at most 2 * RT_MAX_ROPE_PAIRS. max_length, the runtime's, decides between
 * longrope's two lists for all positions alike.
 */
void rt_rope_speeds(const struct rt_rope *rope, uint32_t rope_dim, uint32_t max_length,
                    double speeds[RT_MAX_ROPE_PAIRS]);

/* Rows first..first + count - 1 of the table: `rows` is [count, pairs, 2], cosine and sine of each
 * pair, times the attention factor. */
void rt_rope_rows(const struct rt_rope *rope, const double *speeds, uint32_t pairs, uint32_t first,
                  uint32_t count, float *rows);

/* What a query at this position is multiplied by; 1 where query_scale_beta is 0. */
double rt_rope_query_scale(const struct rt_rope *rope, uint32_t position);

#endif
