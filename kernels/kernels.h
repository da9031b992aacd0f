/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_KERNELS_H
#define RT_KERNELS_KERNELS_H

/* Which kernels exist (registry), which one serves a request (resolver), and their loading. */
#include "driver/driver.h"
#include "replayrt/rt.h"

/* One device entry point: a line of kernels.inc. */
struct rt_kernel_entry {
    const char *entry;
    uint32_t image; /* index into the images of kernels/images.h */
    uint32_t param_bytes;
    uint32_t pointer_count;
    uint32_t smem_bytes; /* dynamic shared memory it is always launched with */
    bool waits;          /* see rt_launch.waits */
};

/* All entries, in the order of kernels.inc. */
const struct rt_kernel_entry *rt_kernel_entries(uint32_t *count);

/* The kernels of one device. Zeroed = nothing loaded, which is what plans without a device use. */
struct rt_kernels {
    struct rt_driver *driver;
    uint32_t cc; /* of the device; kernels wait (rt_launch.waits) from 90 on and on the host, 0 */
    rt_dlibrary *libraries; /* one per image */
    rt_dkernel *kernels;    /* one per entry; null where the device cannot run it */
};

/* Loads every image that the device can run and checks each kernel's parameter size against its ABI
 * struct. The device's context is current. On failure *out is zeroed. */
enum rt_status rt_kernels_load(struct rt_driver *d, struct rt_kernels *out, struct rt_error *err);
void rt_kernels_unload(struct rt_kernels *k);

/* Fills a launch's kernel, entry, smem, waits, and parameters for `entry`. RT_ERR_INTERNAL if the
 * entry is unknown or the size differs; RT_ERR_UNSUPPORTED where k is loaded but lacks it. */
enum rt_status rt_kernels_launch(const struct rt_kernels *k, const char *entry, const void *params,
                                 uint32_t param_bytes, struct rt_launch *out, struct rt_error *err);

/* What the attention of one graph needs. */
struct rt_attend_request {
    uint32_t heads, d_qk, d_v, q_len, page_size;
    enum rt_kv_layout kv_layout;
    enum rt_backend backend; /* AUTO: the fastest that serves it */
};

#define RT_REASON_BYTES 192
struct rt_attend_choice {
    enum rt_backend backend; /* never AUTO */
    const char *entry;       /* attend's entry point, static storage */
    const char *reduce_entry;
    uint32_t tile_rows; /* query rows of a tile */
    uint32_t m_tiles;   /* ceil(heads * q_len / tile_rows) */
    uint32_t parts;     /* parts of the schedule: max(1, concurrent blocks / m_tiles) */
    uint32_t threads;
    uint32_t smem_bytes;
    uint32_t overhead_blocks, min_blocks; /* schedule constants measured for this kernel */
    char reason[RT_REASON_BYTES];         /* one sentence */
};

/*
 * Pure: capabilities and request -> the kernel, or the first predicate that fails, in words.
 * An explicit backend is served or refused (RT_ERR_UNSUPPORTED), never replaced.
 * RT_ERR_GEOMETRY: no kernel anywhere serves the geometry; the message lists those that are served.
 */
enum rt_status rt_kernels_resolve_attend(const struct rt_device_caps *caps,
                                         const struct rt_attend_request *request,
                                         struct rt_attend_choice *out, struct rt_error *err);

/* "generic" or "sm90". */
const char *rt_backend_name(enum rt_backend backend);

#endif
