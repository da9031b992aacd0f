/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_REDUCE_H
#define RT_KERNELS_ABI_REDUCE_H

#include "kernels/abi/counted.h"
#include "kernels/abi/views.h"

/*
 * reduce  grid (x, 1): blocks share the work evenly, whatever x is. What there is of it only the
 * device knows; the launch takes rows * heads * q_len * d_v / RT_REDUCE_LEAST_COLUMNS blocks, a
 * block for the least that one works on, but not more than RT_REDUCE_MOST_BLOCKS
 */
#define RT_REDUCE_THREADS 256u
#define RT_REDUCE_WARPS 8u
#define RT_REDUCE_LEAST_COLUMNS 32u
#define RT_REDUCE_BLOCKS_PER_SM 4u /* 64 registers: beside an sm90 attend of few rows */
/*
 * Blocks of reduce on an H100 or H200, by the query rows of attention's tile. Few: one an SM, which
 * finds room beside the sm90 attend in front of it, so that all are there when it ends, and the
 * next attend begins to load behind it. Many: enough to have all SMs read.
 */
#define RT_REDUCE_FEW_BLOCKS 132u
#define RT_REDUCE_MANY_BLOCKS 528u
#define RT_REDUCE_MOST_BLOCKS(tile_rows)                                                           \
    ((tile_rows) <= RT_REDUCE_BESIDE_ROWS ? RT_REDUCE_FEW_BLOCKS : RT_REDUCE_MANY_BLOCKS)
/* Of a batch-invariant row, between the two: its pieces are many, whatever the tile. */
#define RT_REDUCE_BLOCKS_PER_ROW 66u
#define RT_REDUCE_BESIDE_ROWS 32u

/*
 * reduce: for split rows, per query row: m = max of the pieces' lse (0 if all are -inf),
 * g = m + log2(sum 2^(lse_i - m)), out = sum 2^(lse_i - g) partial_i, lse = g * ln 2, or with
 * lse_base2 g; no key seen: out 0, lse +inf. Rows of length <= 0, padding included: out 0, lse
 * +inf. Rows that are not split and not empty are left alone. A sink divides out by
 * 1 + 2^(sink * log2(e) - g) and leaves lse alone; infinities, NaN and no key are as attend has
 * them. The order of the sums follows from the shapes, the grid, the lengths and num_splits, so
 * that two runs agree bitwise.
 * Where counted.min_blocks is not 0, lengths and num_splits are not looked at: rt_reduce_counted, a
 * kernel of its own, makes them of the counts before it waits.
 * stamp_last becomes at least the time, by globaltimer, at which the last output was written; where
 * there was none to write, a time at which attend was complete.
 */
struct rt_reduce_params {
    struct rt_partials_view partials;
    struct rt_schedule_view schedule; /* num_splits */
    struct rt_rows_view rows;         /* length */
    struct rt_heads_view out;         /* [row_base + rows, q_len, heads, d_v] bf16 */
    struct rt_heads_view lse;         /* [row_base + rows, q_len, heads] f32 */
    uint64_t *stamp_last;             /* or null: see above */
    uint32_t heads, d_v;
    uint32_t lse_base2; /* 1: lse is of base 2; 0: natural */
    uint32_t is_f32;    /* host device alone: out is f32 */
    const float *sink;  /* [heads], as attend has it; or null */
    /* 0: a row is a row of the data. Else it is a query token, this many are a row of the data, and
     * rows.q_len is 1. */
    uint32_t row_tokens;
    uint32_t reserved;
    struct rt_counted_view counted; /* as attend's */
};
#define RT_REDUCE_PARAMS_ADDRESSES(type, at)                                                       \
    (RT_PARTIALS_ADDRESSES(type, at partials) | RT_SCHEDULE_ADDRESSES(type, at schedule) |         \
     RT_ROWS_ADDRESSES(type, at rows) | RT_ADDRESS(type, at out.base) |                            \
     RT_ADDRESS(type, at lse.base) | RT_ADDRESS(type, at stamp_last) | RT_ADDRESS(type, at sink) | \
     RT_COUNTED_ADDRESSES(type, at counted))
RT_STATIC_ASSERT(sizeof(struct rt_reduce_params) == 240, "reduce ABI");

#endif
