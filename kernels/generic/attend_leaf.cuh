/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_ATTEND_LEAF_CUH
#define RT_KERNELS_GENERIC_ATTEND_LEAF_CUH

/* Of the generic attend kernels, what batch-invariant ones do at the end of a leaf. */
#include "kernels/device/attend_walk.cuh"
#include "kernels/device/fold.cuh"

/* In shared memory, of each query row: what a leaf's values and the group's sums are multiplied by;
 * at the group's end its inverse; and where it is all of its batch row, the same two of that. */
template <int TILE_ROWS, bool FOLD> struct rt_attend_fold_desk {
};
template <int TILE_ROWS> struct rt_attend_fold_desk<TILE_ROWS, true> {
    struct rt_fold_step leaf_step[TILE_ROWS], group_step[TILE_ROWS];
    float group_inverse[TILE_ROWS], row_inverse[TILE_ROWS];
};
static_assert(sizeof(rt_attend_fold_desk<16, true>) ==
                  RT_ATTEND_FOLD_SMEM_BYTES(16u, 0u) - RT_ATTEND_GENERIC_SMEM_BYTES(16u, 0u),
              "shared memory formula");

/* One more leaf of the group, by the query row's thread, which keeps `sum`. Behind the last one the
 * state of the batch row, of which there is no other group; and the group is in `sum`. */
template <class DESK>
static __device__ __forceinline__ struct rt_fold
rt_attend_fold_leaf(DESK &desk, struct rt_fold &sum, const struct rt_attend_piece &piece, int row,
                    float lse, const float *sink, int head)
{
    struct rt_fold whole = rt_fold_none();
    if (piece.opens)
        sum = rt_fold_none();
    desk.leaf_step[row] = rt_fold_add(sum, lse);
    if (!piece.closes)
        return whole;
    desk.group_inverse[row] = rt_fold_inverse(sum.total);
    desk.group_step[row] = rt_fold_add(whole, rt_fold_lse(sum));
    desk.row_inverse[row] = rt_fold_row_inverse(whole, sink, head);
    return whole;
}

/* A number of the group as it is stored: of a piece, or where it has no slot, of the row. */
template <class DESK>
static __device__ __forceinline__ float rt_attend_fold_end(const DESK &desk, int row, float sum,
                                                           int slot)
{
    const float x = rt_fold_scaled(sum, desk.group_inverse[row]);
    return slot >= 0 ? x
                     : rt_fold_scaled(rt_fold_number(0.0f, desk.group_step[row], x),
                                      desk.row_inverse[row]);
}

#endif
