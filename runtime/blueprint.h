/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_BLUEPRINT_H
#define RT_RUNTIME_BLUEPRINT_H

/*
 * Configuration and device capabilities -> everything that has a shape. Pure: the same function
 * serves rt_create, rt_sizes and plans for machines that are elsewhere.
 */
#include "buffers/layout.h"
#include "kernels/kernels.h"
#include "replayrt/rt.h"

/* Ranges of batches that a resolver may tell apart. */
#define RT_BLUEPRINT_RANGES 4

struct rt_blueprint {
    struct rt_config config;
    struct rt_device_caps caps;
    uint32_t d_qk, d_v;
    /* By index into config.query_lens, then rising batch, each up to its most_batch. */
    struct rt_attend_choice choices[RT_MAX_QUERY_LENS][RT_BLUEPRINT_RANGES];
    struct rt_layout layout;
};

/* What a graph's attention is. */
const struct rt_attend_choice *rt_blueprint_choice(const struct rt_blueprint *b, uint32_t batch,
                                                   uint32_t query_index);

/*
 * free_bytes: device memory that memory_fraction is a fraction of; not read where pages are given.
 * RT_ERR_DEVICE_MEMORY where the budget holds no page.
 */
enum rt_status rt_blueprint_make(const struct rt_config *config, const struct rt_device_caps *caps,
                                 uint64_t free_bytes, struct rt_blueprint *out,
                                 struct rt_error *err);

#endif
