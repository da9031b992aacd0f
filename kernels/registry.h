/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REGISTRY_H
#define RT_KERNELS_REGISTRY_H

/* Which kernels exist, and their loading. */
#include "driver/driver.h"

/* One device entry point: a line of kernels.inc. */
struct rt_kernel_entry {
    const char *entry;
    uint32_t image; /* index into the images of kernels/images.h */
    uint32_t param_bytes;
    uint64_t address_mask; /* see rt_launch */
    uint32_t smem_bytes;   /* dynamic shared memory it is always launched with */
    bool waits;            /* see rt_launch.waits */
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

/* Of a cooperative launch, with the device's context current: RT_ERR_UNSUPPORTED where the device,
 * or the part of it that this process has, does not hold all of its blocks at the same time. */
enum rt_status rt_kernels_check_resident(const struct rt_kernels *k, const struct rt_launch *l,
                                         struct rt_error *err);

#endif
