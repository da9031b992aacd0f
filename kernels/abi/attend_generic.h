/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_ATTEND_GENERIC_H
#define RT_KERNELS_ABI_ATTEND_GENERIC_H

/*
 * What the launch of the generic attend and reduce kernels has to know of their insides. Read by
 * gcc and by nvcc; constant expressions for constant arguments.
 *
 * attend  grid (ceil(heads * q_len / tile_rows), parts), one tile of query rows and one part each
 * reduce  grid (x, 1): blocks share the work evenly, whatever x is. What there is of it only the
 * device knows; the launch takes rows * heads * q_len * d_v / RT_MLA_REDUCE_LEAST_COLUMNS blocks, a
 * block for the least that one works on, but not more than RT_MLA_REDUCE_MOST_BLOCKS
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

#define RT_MLA_REDUCE_THREADS 256u
#define RT_MLA_REDUCE_WARPS 8u
#define RT_MLA_REDUCE_LEAST_COLUMNS 32u
#define RT_MLA_REDUCE_BLOCKS_PER_SM 4u /* 64 registers: beside an sm90 attend of few rows */
/*
 * Blocks of reduce on an H100 or H200. Few query rows: one an SM, which finds room beside the sm90
 * attend in front of it, so that all are there when it ends. Many: enough to have all SMs read.
 */
#define RT_MLA_REDUCE_MOST_BLOCKS(query_rows) ((query_rows) <= 32u ? 132u : 528u)

#endif
