/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_WEIGHTS_H
#define RT_RUNTIME_WEIGHTS_H

/* The caller's weights, by layer and name. */
#include "driver/driver.h"
#include "replayrt/layer.h"

enum rt_weight_id {
#define RT_WEIGHT(id, ...) RT_WEIGHT_##id,
#include "runtime/weights.inc"
    RT_WEIGHT_COUNT
};

/* Zeroed: not bound. */
struct rt_bound_weight {
    rt_addr address;
    uint64_t rows, columns;
    int64_t row_stride, column_stride;
};

struct rt_weights {
    struct rt_config config;
    struct rt_bound_weight *bound; /* [layers, RT_WEIGHT_COUNT] */
};

/* As if all that is needed were bound, one weight behind the other at addresses that nobody reads:
 * for plans. RT_ERR_NOMEM. */
enum rt_status rt_weights_assume(const struct rt_config *config, struct rt_weights *out,
                                 struct rt_error *err);
/* A whole table for this configuration, checked: what is missing or was made for other dimensions
 * is refused. *out is the caller's copy. */
enum rt_status rt_weights_take(const struct rt_weights *given, const struct rt_config *config,
                               struct rt_weights *out, struct rt_error *err);
/* Each lies whole in memory of this device, which the host device takes note of; its context is
 * current. RT_ERR_INVALID by name. */
enum rt_status rt_weights_on_device(const struct rt_weights *w, struct rt_driver *d,
                                    struct rt_error *err);
/* The same later on, on CUDA: what was freed since is named. */
enum rt_status rt_weights_still_there(const struct rt_weights *w, struct rt_driver *d,
                                      struct rt_error *err);
void rt_weights_free(struct rt_weights *w);

static inline const struct rt_bound_weight *rt_weight_of(const struct rt_weights *w, uint32_t layer,
                                                         enum rt_weight_id id)
{
    return &w->bound[(size_t)layer * RT_WEIGHT_COUNT + id];
}

/* Of all layers, bound or not; 0 for a zeroed table. */
static inline uint64_t rt_weights_slots(const struct rt_weights *w)
{
    return w->bound ? (uint64_t)w->config.geometry.layers * RT_WEIGHT_COUNT : 0;
}

/* From its first byte to behind its last. */
uint64_t rt_bound_weight_bytes(const struct rt_bound_weight *b);
const char *rt_weight_name(enum rt_weight_id id);

#endif
