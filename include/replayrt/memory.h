/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_MEMORY_H
#define REPLAYRT_MEMORY_H

/*
 * Device memory for programs that have no CUDA of their own: weights, and what stages read. It is
 * of the device's primary context, as all of replayrt is and the CUDA runtime too. The laws of rt.h
 * hold here.
 */
#include "replayrt/rt.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rt_memory rt_memory;

/*
 * Allocates `bytes` on a device, named as in a configuration, contents undefined. *address is
 * 256-byte aligned; on the host device a host pointer. Blocks. The caller owns it until
 * rt_memory_destroy, which must come behind rt_destroy of what reads it.
 * RT_ERR_DEVICE_MEMORY says how much is free.
 */
RT_API enum rt_status rt_memory_create(const char *device, uint64_t bytes, rt_memory **out,
                                       uint64_t *address, struct rt_error *error);
RT_API void rt_memory_destroy(rt_memory **memory);

/* Copies to or from host memory, and waits: done on return. In no order with any stream of the
 * caller's or a runtime's. RT_ERR_INVALID past the end. */
RT_API enum rt_status rt_memory_write(rt_memory *memory, uint64_t offset_bytes, const void *data,
                                      uint64_t bytes, struct rt_error *error);
RT_API enum rt_status rt_memory_read(rt_memory *memory, uint64_t offset_bytes, void *data,
                                     uint64_t bytes, struct rt_error *error);

#ifdef __cplusplus
}
#endif
#endif
