/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_MEASURE_LISTS_H
#define RT_BENCH_MEASURE_LISTS_H

/* Lists of keys for a shape that is measured over those: its launches, and what the lists hold. */
#include "bench/measure_rig.h"

/* What serves the shape over lists of params->topk entries, in place of dense attention. */
enum rt_status rt_lists_choose(struct rt_rig *rig, enum rt_rig_side side, enum rt_backend backend);

/* Bytes of each list, of their counts, and of the lengths that a side's schedule writes. */
uint64_t rt_lists_index_bytes(const struct rt_rig *rig);
uint64_t rt_lists_count_bytes(const struct rt_rig *rig);

/* Distinct positions that the token sees, scattered over all of them: as many as there are, at
 * most topk. Uploaded. */
enum rt_status rt_lists_fill(const struct rt_rig *rig);

/* Whether attention has a schedule in front of it; else it makes its plan itself. */
bool rt_lists_have_schedule(const struct rt_rig *rig, enum rt_rig_side side);

enum rt_status rt_lists_schedule_work(const struct rt_rig *rig, enum rt_rig_side side,
                                      struct rt_work *out);
enum rt_status rt_lists_decode_work(const struct rt_rig *rig, enum rt_rig_side side, uint32_t layer,
                                    struct rt_sparse_decode_work *out);

#endif
