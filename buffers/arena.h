/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BUFFERS_ARENA_H
#define RT_BUFFERS_ARENA_H

/* The three allocations behind a placement, and the address of every tensor in them. */
#include "buffers/placement.h"
#include "driver/driver.h"

struct rt_arena {
    struct rt_driver *driver;
    rt_addr arena, pool; /* device */
    bool owns_arena, owns_pool;
    void *mapped;                         /* host view of the pinned block */
    rt_addr mapped_addr;                  /* the device's view of it */
    const struct rt_placement *placement; /* borrowed */
};

/* Memory of the caller; 0: allocate. */
struct rt_arena_given {
    rt_addr arena, pool;
    uint64_t arena_bytes, pool_bytes;
};

/*
 * Allocates (or adopts, after checking size and 256-byte alignment) and zeroes: the whole arena and
 * the mapped block; the pool is left as it is. Blocks until the fills on `stream` are done. On
 * failure *out is zeroed and nothing is left allocated.
 */
enum rt_status rt_arena_init(struct rt_arena *out, struct rt_driver *d,
                             const struct rt_placement *placement,
                             const struct rt_arena_given *given, rt_dstream stream,
                             struct rt_error *err);
void rt_arena_free(struct rt_arena *a);

/* Device address of a buffer; `layer` selects within per-layer buffers and is ignored otherwise. */
rt_addr rt_arena_addr(const struct rt_arena *a, enum rt_tensor_id id, uint32_t layer);

/* Host address of a buffer in the mapped region. */
void *rt_arena_host(const struct rt_arena *a, enum rt_tensor_id id);

#endif
