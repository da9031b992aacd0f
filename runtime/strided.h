/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_STRIDED_H
#define RT_RUNTIME_STRIDED_H

/* Where a tensor's vectors lie, and whether they lie apart: by arithmetic on strides alone, however
 * many there are. */
#include "common/check.h"

#include <stdbool.h>
#include <stdint.h>

#define RT_STRIDED_DIMS 3
#define RT_STRIDED_MOST 24 /* tensors of one check */

/* count[0] x count[1] x count[2] vectors of `bytes`, each dimension's `stride` bytes apart. One of
 * count 1, whose stride nobody goes, is as good as none. */
struct rt_strided {
    const char *name;
    uint64_t address, bytes;
    uint32_t count[RT_STRIDED_DIMS];
    uint64_t stride[RT_STRIDED_DIMS];
    const char *stride_name[RT_STRIDED_DIMS];
};

/* RT_ERR_INVALID, with the stride's name, where vectors overlap, or with the tensor's where they
 * lead out of all memory: each dimension leaves room for what is within it, in any order of
 * dimensions. */
enum rt_status rt_strided_check(const char *op, const struct rt_strided *s, struct rt_error *err);

/*
 * RT_ERR_INVALID, with both ranges, where two of the tensors have a byte in common. Vectors of one
 * may lie between those of another, as columns of one buffer do: only tensors that interlock in
 * thousands of ways, which no two strides alike do, are taken to overlap where their ranges do.
 */
enum rt_status rt_strided_check_apart(const char *op, const struct rt_strided *tensors,
                                      uint32_t count, struct rt_error *err);
/* Likewise of those pairs of which one is among the first `written`: what is only read may be the
 * same, and lie in itself as it likes. */
enum rt_status rt_strided_check_written(const char *op, const struct rt_strided *tensors,
                                        uint32_t written, uint32_t count, struct rt_error *err);

#endif
