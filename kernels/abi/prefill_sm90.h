/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PREFILL_SM90_H
#define RT_KERNELS_ABI_PREFILL_SM90_H

/*
 * What the launch of the sm_90 prefill kernels has to know of their insides. Read by gcc and by
 * nvcc; constant expressions for constant arguments.
 */
#include "common/launch.h"
#include "kernels/abi/prefill.h"

/*
 * Tiles of 64 elements, one behind the other in shared memory, a box for all of a vector's; of the
 * rope part one tile, with zeros behind its elements.
 *   q_map        (64, tokens, nope_dim / 64, heads) by boxes of (64, QUERIES, nope_dim / 64, 1)
 *   k_map        (64, keys, nope_dim / 64, heads) by (64, block, nope_dim / 64, 1)
 *   v_map        (64, keys, v_dim / 64, heads) by (64, block, v_dim / 64, 1)
 *   *_rope_map   (rope_dim, tokens or keys, heads, or 1 where they share it) by (64, box rows, 1)
 * The addresses in them are those of attend's views, which the graph audit reads.
 */
struct rt_prefill_sm90_params {
    struct rt_prefill_attend_params attend;
    uint32_t group_heads; /* heads whose tiles are worked on before the next heads' */
    uint16_t q_rope_shared, k_rope_shared; /* 1: its map has one head */
    struct rt_tensor_map q_map, q_rope_map, k_map, k_rope_map, v_map;
};
RT_STATIC_ASSERT(sizeof(struct rt_prefill_sm90_params) == 896, "sm90 prefill ABI");

/* A warp group that loads, two that work on 64 queries each. */
#define RT_PREFILL_SM90_THREADS 384u
#define RT_PREFILL_SM90_QUERIES 128u

/* Tiles of 64 elements of a query or key. */
#define RT_PREFILL_SM90_TILES(d_qk) (((d_qk) + 63u) / 64u)

/* Keys of a block: what two stages have room for. */
#define RT_PREFILL_SM90_BLOCK(d_qk, d_v) ((d_qk) + (d_v) > 384u ? 64u : 128u)
#define RT_PREFILL_SM90_STAGES 2u

/* Barriers, an item, three words a row, and one of each thread that works. */
#define RT_PREFILL_SM90_DESK_BYTES (256u + 12u * RT_PREFILL_MOST_ROWS + 1024u)

#define RT_PREFILL_SM90_SMEM_BYTES(d_qk, d_v)                                                      \
    (128u * RT_PREFILL_SM90_TILES(d_qk) * RT_PREFILL_SM90_QUERIES +                                \
     RT_PREFILL_SM90_STAGES * RT_PREFILL_SM90_BLOCK(d_qk, d_v) *                                   \
         (128u * RT_PREFILL_SM90_TILES(d_qk) + 2u * (d_v)) +                                       \
     RT_PREFILL_SM90_DESK_BYTES)

#endif
