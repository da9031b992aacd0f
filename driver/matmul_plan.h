/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_DRIVER_MATMUL_PLAN_H
#define RT_DRIVER_MATMUL_PLAN_H

/*
 * What products and their plans must be like. One test for both back ends, so that what a GPU
 * refuses is refused on the host device too.
 */
#include "common/work.h"

#include <stdbool.h>

/* Largest alignment that a plan is told of. */
#define RT_MATMUL_MAX_ALIGN 256u

/* Bytes, a power of two, on which every row of every matrix of the operand begins. */
struct rt_matmul_alignment {
    uint32_t a, b, bias, d;
};
struct rt_matmul_alignment rt_matmul_alignment(const struct rt_matmul *m);

/* b [n, k] lies in memory as n rows of k; else as k rows of n. Of a plannable product. */
static inline bool rt_matmul_b_has_rows_of_k(const struct rt_matmul *m)
{
    return m->b_column_stride == 1;
}

/* The distance from row to row of a matrix whose rows have `width` elements. Of a single row it may
 * be anything in struct rt_matmul, and is at least the width here. */
static inline int64_t rt_matmul_pitch(uint32_t rows, uint32_t width, int64_t row_stride)
{
    return rows == 1 && row_stride < (int64_t)width ? (int64_t)width : row_stride;
}

/* Which operands are named by words of a kernel's parameters: bits of RT_OPERAND_. */
uint32_t rt_matmul_named(const struct rt_matmul *m, const uint64_t *words, uint32_t count);

/* There is work, dtypes are floats, operands lie as struct rt_matmul says, rows do not overlap, and
 * sizes are within INT32_MAX. */
bool rt_matmul_plannable(const struct rt_matmul *m);

/* Equal but for the addresses. */
bool rt_matmul_same_shape(const struct rt_matmul *a, const struct rt_matmul *b);

/* And whose alignments are equal: one has a plan where the other has. */
bool rt_matmul_alike(const struct rt_matmul *a, const struct rt_matmul *b);

/* m->plan, made of `planned` (a plannable product), does m too: all but the addresses is equal,
 * these are aligned no worse, and the workspace is enough. */
bool rt_matmul_plan_serves(const struct rt_matmul *planned, const struct rt_matmul *m);

#endif
