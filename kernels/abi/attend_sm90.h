/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_ATTEND_SM90_H
#define RT_KERNELS_ABI_ATTEND_SM90_H

/*
 * What the launch of the sm_90 attend kernels has to know of their insides. Read by gcc and by
 * nvcc; constant expressions for constant arguments.
 *
 * attend  grid (ceil(heads * q_len / tile_rows), parts), one tile of query rows and one part each
 */
#include "common/launch.h"
#include "kernels/abi/attend.h"

/*
 * attend's parameters, and the tensors that the copy engine reads. A copy costs its thread more
 * than a hundred cycles whatever its size, so they are few: the elements of a token or query row
 * are taken as tiles of 64, and a box has many tiles. Of keys it has 8 of each tile, and then the
 * next 8: so a box is a page, however small, and all have the same places in shared memory.
 *   kv_map       (64, 8, d_v / 64, page_size / 8, pages) by boxes of (64, 8, d_v / 128, piece / 8,
 *                1)
 *   kv_rest_map  (d_qk - d_v, page_size, pages) by (64, tokens, 1): what is no value
 *   q_map        (64, hq, d_v / 64, batch rows) by (64, tile_rows, d_v / 64, 1)
 *   q_rest_map   (d_qk - d_v, hq, batch rows) by (64, tile_rows, 1)
 * with tokens = min(page_size, 64), piece = min(page_size, RT_ATTEND_SM90_PIECE). q_rest_map is of
 * q_rope where that is given. The maps of q are only there where the query rows of a batch row are
 * evenly spaced in q and in q_rope, q_even: other queries a warp copies. Those of the rest are only
 * there where there is one. The addresses in them are inside what attend's pointers, which the
 * graph audit reads, point at.
 */
struct rt_attend_sm90_params {
    struct rt_attend_params attend;
    uint32_t q_even;
    uint32_t reserved[3];
    struct rt_tensor_map kv_map, kv_rest_map, q_map, q_rest_map;
};
RT_STATIC_ASSERT(sizeof(struct rt_attend_sm90_params) == 832, "sm90 attend ABI");

/* A warp group that loads, two that compute. */
#define RT_ATTEND_SM90_THREADS 384u

/* A tile of shared memory: 64 keys, or 64 query rows, times 64 elements. */
#define RT_ATTEND_SM90_TILE_BYTES 8192u
#define RT_ATTEND_SM90_TILES(d_qk) (((d_qk) + 63u) / 64u)

/* Tiles of a stage: a block's keys, and room for its probabilities. Those go where the part of the
 * keys was that is no value, once the scores are done; a geometry without such a part gets a tile.
 */
#define RT_ATTEND_SM90_STAGE_TILES(d_qk, d_v)                                                      \
    (RT_ATTEND_SM90_TILES(d_qk) + ((d_qk) == (d_v) ? 1u : 0u))
#define RT_ATTEND_SM90_STAGES(d_qk) ((d_qk) > 320u ? 2u : 4u)

/* Keys of a half that are given back and brought together. Of 64 query rows and two stages half of
 * a block's, so that copies begin while the other half is still added. */
#define RT_ATTEND_SM90_PIECE(tile_rows, d_qk)                                                      \
    ((tile_rows) == 64u && RT_ATTEND_SM90_STAGES(d_qk) == 2u ? 32u : 64u)

/* Barriers, segments, maxima, sums. */
#define RT_ATTEND_SM90_DESK_BYTES(tile_rows) (512u + 120u * (tile_rows))

/*
 * Few query rows' output is put in order here, [query row][worker][column], before it leaves in
 * whole lines; of 32 query rows half of the columns at a time. Rows are 16 bytes longer than their
 * content so that threads write to different banks. 64 query rows leave from registers.
 */
#define RT_ATTEND_SM90_STAGING_COLUMNS(tile_rows, d_v) ((tile_rows) <= 16u ? (d_v) / 2u : 128u)
#define RT_ATTEND_SM90_STAGING_STRIDE(tile_rows, d_v)                                              \
    (2u * RT_ATTEND_SM90_STAGING_COLUMNS(tile_rows, d_v) + 4u)
#define RT_ATTEND_SM90_STAGING_BYTES(tile_rows, d_v)                                               \
    ((tile_rows) < 64u ? 4u * (tile_rows)*RT_ATTEND_SM90_STAGING_STRIDE(tile_rows, d_v) : 0u)

/* Keys as they lie, on their way to be converted (kernels/abi/quant_sm90.h), where there is room:
 * 64 of d_v bytes, and of 128 what is no value. */
#define RT_ATTEND_SM90_AHEAD_BYTES(tile_rows, d_v) ((tile_rows) <= 16u ? 64u * ((d_v) + 128u) : 0u)

/* Dynamic shared memory: stages, q, staging, desk. */
#define RT_ATTEND_SM90_SMEM_BYTES(tile_rows, d_qk, d_v)                                            \
    (RT_ATTEND_SM90_STAGES(d_qk) * RT_ATTEND_SM90_STAGE_TILES(d_qk, d_v) *                         \
         RT_ATTEND_SM90_TILE_BYTES +                                                               \
     RT_ATTEND_SM90_TILES(d_qk) * 128u * (tile_rows) +                                             \
     RT_ATTEND_SM90_STAGING_BYTES(tile_rows, d_v) + RT_ATTEND_SM90_DESK_BYTES(tile_rows))

#endif
