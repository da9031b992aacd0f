/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_SPARSE_SM90_H
#define RT_KERNELS_ABI_SPARSE_SM90_H

/*
 * What the launch of the sm_90 kernels of sparse attention has to know of their insides: threads,
 * tiles and shared memory are those of kernels/abi/attend_sm90.h.
 *
 * sparse_attend  grid (ceil(heads / tile_rows), parts), one tile of query rows and one part each
 */
#include "common/launch.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/sparse.h"

/*
 * sparse_attend's parameters, and the tensors that the copy engine reads: queries alone, since keys
 * lie anywhere. As in struct rt_attend_sm90_params, but that a batch row is a query token:
 *   q_map        (64, heads, d_v / 64, tokens) by boxes of (64, tile_rows, d_v / 64, 1)
 *   q_rest_map   (d_qk - d_v, heads, tokens) by (64, tile_rows, 1)
 * They are only there where tokens are evenly spaced too, q_even.
 */
struct rt_sparse_sm90_params {
    struct rt_sparse_attend_params sparse;
    uint32_t q_even;
    uint32_t reserved[15];
    struct rt_tensor_map q_map, q_rest_map;
};
RT_STATIC_ASSERT(sizeof(struct rt_sparse_sm90_params) == 832, "sm90 sparse ABI");

/*
 * Of few query tokens a row is whole: the blocks of a cluster have it together, and there are
 * neither parts nor pieces in memory.
 *
 * sparse_attend  grid (RT_SPARSE_WHOLE_BLOCKS * ceil(heads / tile_rows), tokens), clusters along x
 */
#define RT_SPARSE_WHOLE_BLOCKS 8u

/* Beside the others': of every block of the cluster maxima and sums, and a barrier. What they send
 * of values comes where other kernels put output in order. */
#define RT_SPARSE_WHOLE_SM90_DESK_BYTES(tile_rows) (16u + 8u * RT_SPARSE_WHOLE_BLOCKS * (tile_rows))
#define RT_SPARSE_WHOLE_SM90_SMEM_BYTES(tile_rows, d_qk, d_v)                                      \
    (RT_ATTEND_SM90_SMEM_BYTES(tile_rows, d_qk, d_v) + RT_SPARSE_WHOLE_SM90_DESK_BYTES(tile_rows))

#endif
