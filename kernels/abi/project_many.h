/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PROJECT_MANY_H
#define RT_KERNELS_ABI_PROJECT_MANY_H

/*
 * What the launch of the sm_90 project kernels for many vectors has to know of their insides. Read
 * by gcc and by nvcc; constant expressions for constant arguments.
 */
#include "common/launch.h"
#include "kernels/abi/project.h"

/*
 * Rows are cut into tiles of as many as the kernel has, each of one weight. Of x and of weights
 * that lie along k a box is 64 numbers of each vector or row, of weights that lie across 64 rows of
 * each of 64 numbers.
 *   x_map      (k, m, batch) by boxes of (64, m, 1)
 *   w_map[i]   along: (k, rows, batch) by (64, tile, 1); across: (rows, k, batch) by (64, 64, 1)
 * The addresses in them are those of the product's views, which the graph audit reads.
 */
struct rt_project_many_params {
    struct rt_project_params project;
    uint32_t tiles[2];  /* of each weight */
    uint32_t stages[2]; /* of the rings of weights and of x */
    uint32_t early;     /* stages of weights on their way at once while their ring first fills */
    uint32_t reserved[11];
    struct rt_tensor_map x_map, w_map[2];
};
RT_STATIC_ASSERT(sizeof(struct rt_project_many_params) == 640, "sm90 many project ABI");
RT_STATIC_ASSERT(offsetof(struct rt_project_many_params, x_map) % 64 == 0, "a map's alignment");

#define RT_PROJECT_MANY_BOX 64u  /* numbers of k of a box */
#define RT_PROJECT_MANY_BOXES 2u /* of a stage */
#define RT_PROJECT_MANY_CHUNK (RT_PROJECT_MANY_BOXES * RT_PROJECT_MANY_BOX)
#define RT_PROJECT_MANY_LINE (2u * RT_PROJECT_MANY_BOX)
#define RT_PROJECT_MANY_VECTORS 64u /* rows of the tensor cores */

/* A warp group that multiplies, and a warp each that brings weights and x. */
#define RT_PROJECT_MANY_WORKERS 4u
#define RT_PROJECT_MANY_THREADS (32u * RT_PROJECT_MANY_WORKERS + 64u)

#define RT_PROJECT_MANY_MOST_STAGES 16u
#define RT_PROJECT_MANY_LEAST_STAGES 2u

/* Barriers. */
#define RT_PROJECT_MANY_DESK_BYTES 1024u

/* A stage of weights of a kernel for tiles of `rows` rows, and one of x. */
#define RT_PROJECT_MANY_W_BYTES(rows) (RT_PROJECT_MANY_BOXES * RT_PROJECT_MANY_LINE * (rows))
#define RT_PROJECT_MANY_X_BYTES RT_PROJECT_MANY_W_BYTES(RT_PROJECT_MANY_VECTORS)

#endif
