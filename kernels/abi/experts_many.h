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

/* up and down_pairs: so many pairs of an expert by twice 64 rows, which are 64 of gate and the same
 * of up, or 128 of down. */
#define RT_EXPERTS_MANY_TILE_PAIRS 128u
#define RT_EXPERTS_MANY_TILE_SMEM_BYTES                                                            \
    (RT_EXPERTS_MANY_STAGES * RT_EXPERTS_MANY_ROW_BYTES *                                          \
     (RT_EXPERTS_MANY_TILE_PAIRS + 2u * RT_EXPERTS_MANY_ROWS))
#define RT_EXPERTS_MANY_DOWN_ROWS (2u * RT_EXPERTS_MANY_ROWS)

/* down_many: so many pairs of an expert by 64 rows; a block has a group of tokens, whose sums lie
 * in shared memory, and a table of what each expert has of them. */
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

/*
 * experts_down in two launches, whose results lie between them, one line a place of a token:
 *
 *   down_pairs   products[t, s]       = h[t, s] . down[choices[t, s]]               s < chosen
 *                products[t, chosen]  = sum over the shared experts e of h[t, chosen + e] . down[e]
 *   down_sum     out[t] = products[t, chosen] + sum over s of weights[t, s] * products[t, s]
 *
 * Lines of places that nobody has chosen are left alone; without shared experts there is no last
 * one. down_sum adds in this order, in float, and rounds once.
 */
struct rt_experts_down_pairs_params {
    struct rt_experts_down_params down; /* hidden is a multiple of 8; early is not looked at */
    float *products;                    /* [tokens, rt_experts_products(work), hidden], packed */
};
RT_STATIC_ASSERT(sizeof(struct rt_experts_down_pairs_params) == 216, "experts_down_pairs ABI");
#define RT_EXPERTS_DOWN_PAIRS_PARAMS_ADDRESSES(type, at)                                           \
    (RT_EXPERTS_DOWN_PARAMS_ADDRESSES(type, at down.) | RT_ADDRESS(type, at products))

/* Threads of a block of down_sum, each of which has four numbers of a token. */
#define RT_EXPERTS_SUM_THREADS 256u
#define RT_EXPERTS_SUM_NUMBERS (4u * RT_EXPERTS_SUM_THREADS)

/* Lines of products that a token has. */
static RT_HD inline uint32_t rt_experts_products(const struct rt_experts_view *work)
{
    return work->chosen + (work->shared > 0);
}

#endif
