/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_ATTEND_GENERIC_H
#define RT_KERNELS_ABI_ATTEND_GENERIC_H

/*
 * What the launch of the generic attend and reduce kernels has to know of their insides. Read by
 * gcc and by nvcc; constant expressions for constant arguments.
 *
 * attend  grid (ceil(heads * q_len / tile_rows), parts), one tile of query rows and one part each
 * reduce  grid (rows, y), y from 1 to ceil(heads * q_len / RT_MLA_REDUCE_WARPS): a block takes
 * every y-th group of query rows, so any y is right
 */

#define RT_ATTEND_GENERIC_THREADS 256u
#define RT_ATTEND_GENERIC_WARPS 8u
#define RT_ATTEND_GENERIC_KEYS 32u /* keys of a step: the half of a schedule block */
#define RT_ATTEND_GENERIC_BUFFERS 2u

/*
 * Shared rows are longer than their content so that the eight rows that an ldmatrix reads at once
 * lie in different banks: any stride of 16 * odd bytes does that.
 */
#define RT_ATTEND_GENERIC_STRIDE(d_qk) ((d_qk) + 8u) /* bf16 */
#define RT_ATTEND_GENERIC_SCORE_STRIDE 36u           /* floats; of a row of probabilities, half */

/* Copies of the scores: the warps that share a score's sum over d_qk leave their parts side by
 * side. */
#define RT_ATTEND_GENERIC_SCORE_COPIES(tile_rows) ((tile_rows) == 64u ? 1u : 2u)

/* Dynamic shared memory of a block: q, kv, scores, three words for each query row. */
#define RT_ATTEND_GENERIC_SMEM(d_qk, tile_rows)                                                    \
    (((tile_rows) + RT_ATTEND_GENERIC_BUFFERS * RT_ATTEND_GENERIC_KEYS) *                          \
         RT_ATTEND_GENERIC_STRIDE(d_qk) * 2u +                                                     \
     RT_ATTEND_GENERIC_SCORE_COPIES(tile_rows) * (tile_rows)*RT_ATTEND_GENERIC_SCORE_STRIDE * 4u + \
     (tile_rows)*12u)

/*
 * Blocks that the registers of one SM hold. Shared memory may allow fewer: each block costs its
 * dynamic bytes and 1 KiB of an SM that has smem_optin_bytes + 1 KiB.
 */
#define RT_ATTEND_GENERIC_BLOCKS_PER_SM(d_v, tile_rows) ((d_v) * (tile_rows) <= 16384u ? 2u : 1u)

#define RT_MLA_REDUCE_THREADS 256u
#define RT_MLA_REDUCE_WARPS 8u /* query rows of a block at a time */

#endif
