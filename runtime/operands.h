/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_OPERANDS_H
#define RT_RUNTIME_OPERANDS_H

/* The memory of an operator's call: tensors that it writes, and tensors that it reads. */
#include "runtime/strided.h"

struct rt_operands {
    struct rt_strided all[RT_STRIDED_MOST]; /* those that are written stand first */
    uint32_t count, written;
};

/* What has no address or no bytes is not there. */
void rt_operands_writes(struct rt_operands *o, struct rt_strided one);
void rt_operands_reads(struct rt_operands *o, struct rt_strided one);

/* One vector. */
static inline struct rt_strided rt_strided_flat(const char *name, uint64_t address, uint64_t bytes)
{
    return (struct rt_strided){.name = name, .address = address, .bytes = bytes};
}

/* `count` vectors of `width` elements, `stride` elements apart. */
static inline struct rt_strided rt_strided_vectors(const char *name, uint64_t address,
                                                   uint32_t count, uint64_t width, int64_t stride,
                                                   uint64_t element_bytes, const char *stride_name)
{
    return (struct rt_strided){.name = name,
                               .address = address,
                               .bytes = width * element_bytes,
                               .count = {count},
                               .stride = {(uint64_t)stride * element_bytes},
                               .stride_name = {stride_name}};
}

/* RT_ERR_INVALID, by name: what is written shares a byte with itself or anything else. */
enum rt_status rt_operands_check_written(const char *op, const struct rt_operands *o,
                                         struct rt_error *err);
/* Likewise; nor do vectors of a tensor that is only read lie in each other. */
enum rt_status rt_operands_check(const char *op, const struct rt_operands *o, struct rt_error *err);

#endif
