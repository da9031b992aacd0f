/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_MEASURE_CHECK_H
#define RT_BENCH_MEASURE_CHECK_H

/* The timed kernel's output against the generic one's. */
#include "bench/measure_rig.h"

struct rt_measure_check {
    uint16_t *first; /* out of layer 0 from a launch on its own, for rt_measure_check_again */
};

/* Runs both on layer 0, the timed one in a graph, and fills the result's fields of the comparison.
 * Needs no plan and leaves one for each side. */
enum rt_status rt_measure_check_layer(const struct rt_rig *rig, struct rt_measure_check *check,
                                      struct rt_measure_attention_result *out);

/* Behind a chain that ended with layer 0: its out must be the same, bitwise. */
enum rt_status rt_measure_check_again(const struct rt_rig *rig,
                                      const struct rt_measure_check *check,
                                      struct rt_measure_attention_result *out);
void rt_measure_check_free(struct rt_measure_check *check);

#endif
