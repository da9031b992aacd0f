/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_ATTEND_SM90_H
#define RT_KERNELS_ABI_ATTEND_SM90_H

/*
 * What the launch of the sm_90 attend kernels has to know of their insides. Read by gcc and by
 * nvcc; constant expressions for constant arguments.
 *
 * attend  grid (ceil(heads * q_len / tile_rows) * team, parts), one tile of query rows and one part
 *         for each team: a cluster along x whose blocks share a part's keys among them. A team of
 *         1 leaves the pieces of split rows, and rows without keys, to reduce; a larger one does
 *         without it
 */
#include "common/launch.h"
#include "kernels/abi/mla.h"

/*
 * attend's parameters and the two tensors that the copy engine reads:
 *   kv_map  (d_qk, page_size, pages) by boxes of (64, min(page_size, 64), 1)
 *   q_map   (d_qk, hq, row_base + rows and more) by boxes of (64, tile_rows, 1); only where the
 *           query rows of a batch row are evenly spaced, q_even.
 * The address in each stands among attend's pointers, which the graph audit reads.
 */
struct rt_attend_sm90_params {
    struct rt_mla_attend_params attend;
    uint32_t q_even;
    uint32_t reserved;
    struct rt_tensor_map kv_map, q_map;
};
RT_STATIC_ASSERT(sizeof(struct rt_attend_sm90_params) == 512, "sm90 attend ABI");

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

/* Barriers, segments, maxima, sums. */
#define RT_ATTEND_SM90_DESK_BYTES(tile_rows) (512u + 120u * (tile_rows))

/* Blocks of a team that is more than one: the largest cluster that every device takes. */
#define RT_ATTEND_SM90_TEAM 8u

/*
 * Few query rows' partials are put in order here, [worker][query row][column], before they leave
 * in whole rows; of 32 query rows half of the columns at a time. Rows are 16 bytes longer than
 * their content so that threads write to different banks. 64 query rows leave from registers.
 */
#define RT_ATTEND_SM90_STAGING_COLUMNS(tile_rows, d_v) ((tile_rows) <= 16u ? (d_v) / 2u : 128u)
#define RT_ATTEND_SM90_STAGING_STRIDE(tile_rows, d_v)                                              \
    (RT_ATTEND_SM90_STAGING_COLUMNS(tile_rows, d_v) + 4u)
#define RT_ATTEND_SM90_STAGING_BYTES(tile_rows, d_v)                                               \
    ((tile_rows) < 64u ? 8u * (tile_rows)*RT_ATTEND_SM90_STAGING_STRIDE(tile_rows, d_v) : 0u)

/* Dynamic shared memory: stages, q, staging, desk. A team exchanges its sums where the keys were. */
#define RT_ATTEND_SM90_SMEM_BYTES(tile_rows, d_qk, d_v, team)                                      \
    (RT_ATTEND_SM90_STAGES(d_qk) * RT_ATTEND_SM90_STAGE_TILES(d_qk, d_v) *                         \
         RT_ATTEND_SM90_TILE_BYTES +                                                               \
     RT_ATTEND_SM90_TILES(d_qk) * 128u * (tile_rows) +                                             \
     ((team) > 1u ? 0u : RT_ATTEND_SM90_STAGING_BYTES(tile_rows, d_v)) +                           \
     RT_ATTEND_SM90_DESK_BYTES(tile_rows))

#endif
