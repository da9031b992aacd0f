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

struct rt_blueprint {
    struct rt_config config;
    struct rt_device_caps caps;
    uint32_t d_qk, d_v;
    struct rt_attend_choice choices[RT_MAX_QUERY_LENS]; /* by index into config.query_lens */
    struct rt_layout layout;
};

/*
 * free_bytes: device memory that memory_fraction is a fraction of; not read where pages are given.
 * RT_ERR_DEVICE_MEMORY where the budget holds no page.
 */
enum rt_status rt_blueprint_make(const struct rt_config *config, const struct rt_device_caps *caps,
                                 uint64_t free_bytes, struct rt_blueprint *out,
                                 struct rt_error *err);

#endif
