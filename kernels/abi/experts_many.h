/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_EXPERTS_MANY_H
#define RT_KERNELS_ABI_EXPERTS_MANY_H

/*
 * What the launch of the kernels for many tokens, which multiply by tensor cores, has to know of
 * their insides. Read by gcc and by nvcc.
 */
#include "kernels/abi/experts.h"

/* Of fewer tokens an expert has so few that its weights are all that matters. */
#define RT_EXPERTS_MANY_LEAST_TOKENS 33u

#define RT_EXPERTS_MANY_THREADS 256u
#define RT_EXPERTS_MANY_STAGES 3u

/* Numbers of a vector and of a row of a weight that a stage has, and bytes of them. */
#define RT_EXPERTS_MANY_K 64u
#define RT_EXPERTS_MANY_ROW_BYTES (2u * RT_EXPERTS_MANY_K)

/* Rows of a weight that a tile has, columns of what comes out. */
#define RT_EXPERTS_MANY_ROWS 64u

/* up: so many pairs of an expert by 64 rows of gate and the same of up. */
#define RT_EXPERTS_MANY_UP_PAIRS 128u
#define RT_EXPERTS_MANY_UP_SMEM_BYTES                                                              \
    (RT_EXPERTS_MANY_STAGES * RT_EXPERTS_MANY_ROW_BYTES *                                          \
     (RT_EXPERTS_MANY_UP_PAIRS + 2u * RT_EXPERTS_MANY_ROWS))

/* down: so many pairs of an expert by 64 rows; a block has a group of tokens, whose sums lie in
 * shared memory, and a table of what each expert has of them. */
#define RT_EXPERTS_MANY_DOWN_PAIRS 64u
#define RT_EXPERTS_MANY_DOWN_STAGES_BYTES                                                          \
    (RT_EXPERTS_MANY_STAGES * RT_EXPERTS_MANY_ROW_BYTES *                                          \
     (RT_EXPERTS_MANY_DOWN_PAIRS + RT_EXPERTS_MANY_ROWS))
#define RT_EXPERTS_MANY_DOWN_SUMS_BYTES(group) (4u * RT_EXPERTS_MANY_ROWS * (group))
#define RT_EXPERTS_MANY_DOWN_TABLE_BYTES(experts) (12u * (experts))
#define RT_EXPERTS_MANY_DOWN_SMEM_BYTES(group, experts)                                            \
    (RT_EXPERTS_MANY_DOWN_STAGES_BYTES + RT_EXPERTS_MANY_DOWN_SUMS_BYTES(group) +                  \
     RT_EXPERTS_MANY_DOWN_TABLE_BYTES(experts))

struct rt_experts_down_many_params {
    struct rt_experts_down_params down;
    uint32_t group; /* tokens of a block, a multiple of 8 */
    uint32_t reserved;
};
RT_STATIC_ASSERT(sizeof(struct rt_experts_down_many_params) == 216, "experts_down_many ABI");

#endif
