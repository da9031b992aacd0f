/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_ATTEND_GENERIC_H
#define RT_KERNELS_ABI_ATTEND_GENERIC_H

/*
 * What the launch of the generic attend kernels has to know of their insides. Read by
 * gcc and by nvcc; constant expressions for constant arguments.
 *
 * attend  grid (ceil(heads * q_len / tile_rows), parts), one tile of query rows and one part each
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

/* Copies of the scores: warps that share a score's sum over d_qk each leave a part of it. */
#define RT_ATTEND_GENERIC_SCORE_COPIES(tile_rows) ((tile_rows) == 64u ? 1u : 2u)

#define RT_ATTEND_GENERIC_STEPS 4u        /* steps known at a time */
#define RT_ATTEND_GENERIC_WALK_BYTES 128u /* of the part and of those steps */

/* Dynamic shared memory of a block: q and two buffers of kv, scores, three words a query row. */
#define RT_ATTEND_GENERIC_SMEM_BYTES(tile_rows, d_qk)                                              \
    (((tile_rows) + RT_ATTEND_GENERIC_BUFFERS * RT_ATTEND_GENERIC_KEYS) *                          \
         RT_ATTEND_GENERIC_STRIDE(d_qk) * 2u +                                                     \
     RT_ATTEND_GENERIC_SCORE_COPIES(tile_rows) * RT_ATTEND_GENERIC_SCORE_STRIDE * 4u *             \
         (tile_rows) +                                                                             \
     12u * (tile_rows) + RT_ATTEND_GENERIC_WALK_BYTES)

/*
 * Blocks that one SM holds at most: what the register budget is set for. Half of the largest SM's
 * 228 KiB, less 1 KiB that each block costs besides, decides; on a smaller SM, of smem_optin_bytes
 * + 1 KiB, shared memory may allow fewer.
 */
#define RT_ATTEND_GENERIC_BLOCKS_PER_SM(tile_rows, d_qk)                                           \
    (RT_ATTEND_GENERIC_SMEM_BYTES(tile_rows, d_qk) <= 113u * 1024u ? 2u : 1u)

/* The kernels of batch-invariant attention have a second accumulator, and six words more a query
 * row: what their sums are multiplied by, and what those of a group and of a row are. */
#define RT_ATTEND_FOLD_SMEM_BYTES(tile_rows, d_qk)                                                 \
    (RT_ATTEND_GENERIC_SMEM_BYTES(tile_rows, d_qk) + 24u * (tile_rows))
#define RT_ATTEND_FOLD_BLOCKS_PER_SM(tile_rows, d_qk)                                              \
    ((tile_rows) == 16u ? RT_ATTEND_GENERIC_BLOCKS_PER_SM(tile_rows, d_qk) : 1u)

#endif
