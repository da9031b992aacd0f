/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_OPS_CHECK_H
#define RT_RUNTIME_OPS_CHECK_H

/* What the arguments of all operators are held to: addresses and strides, refused by name. */
#include "common/check.h"

#include <stdbool.h>
#include <stdint.h>

/* Every pointer of an args struct, by name, for one check. */
struct rt_named_pointer {
    const char *name;
    uint64_t address;
    uint32_t align; /* of what kernels move at a time: an element, or a vector */
};
#define RT_ALIGN_VECTOR 16u
#define RT_ALIGN_INT32 4u
#define RT_ALIGN_FLOAT32 4u

/* None is null, all are aligned. */
enum rt_status rt_ops_check_pointers(const char *op, const struct rt_named_pointer *pointers,
                                     uint32_t count, struct rt_error *err);
#define RT_CHECK_POINTERS(op, list, err)                                                           \
    rt_ops_check_pointers((op), (list), (uint32_t)(sizeof(list) / sizeof((list)[0])), (err))

/* What is reserved is 0, so that it may one day ask for something. */
enum rt_status rt_ops_check_reserved(const char *op, const char *name, uint32_t value,
                                     struct rt_error *err);
#define RT_CHECK_RESERVED(op, args, name, err)                                                     \
    rt_ops_check_reserved((op), #name, (args)->name, (err))

/* What the copy engine can be told, 2^40 bytes; the same for all kernels, whether they use it. */
#define RT_STRIDE_END (INT64_C(1) << 39)

/* A given stride in elements, or the packed one for 0: not negative, a multiple, below 2^39. */
enum rt_status rt_ops_stride(const char *op, const char *name, int64_t given, int64_t packed,
                             int64_t multiple, int64_t *out, struct rt_error *err);
#define RT_STRIDE(op, args, name, packed, multiple, out, err)                                      \
    rt_ops_stride((op), #name, (args)->name, (packed), (multiple), (out), (err))

/* A story of what knows no operators gets the operator's name in front. */
enum rt_status rt_ops_named(const char *op, enum rt_status status, struct rt_error *err);

static inline void *rt_ops_pointer(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

#endif
