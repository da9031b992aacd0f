/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_QUANT_SM90_H
#define RT_KERNELS_ABI_QUANT_SM90_H

/*
 * What the launch of the sm_90 kernels over caches of e4m3 has to know of their insides: threads,
 * tiles and shared memory are those of kernels/abi/attend_sm90.h, and so are grids.
 *
 * Their parameters are those of the operators, and the tensors that the copy engine reads: queries,
 * as in struct rt_attend_sm90_params and struct rt_sparse_sm90_params, and of kernels with three
 * workers keys, whose bytes are taken two by two, as what a map has elements of:
 *   kv_map       (64, 8, d_v / 128, page_size / 8, pages) by boxes of (64, 8, d_v / 256,
 *                tokens / 8, 1)
 *   kv_rest_map  (d_qk - d_v, or half of it, page_size, pages) by (64, tokens, 1): what is no
 *                value, as bf16 or as e4m3
 * with tokens = min(page_size, 64). Others' keys are brought by threads.
 */
#include "common/launch.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/quant.h"

/* What the numbers of a stage's keys are multiples of: three floats a key. */
#define RT_ATTEND_SM90_UNITS_BYTES(d_qk) (RT_ATTEND_SM90_STAGES(d_qk) * 64u * 12u)

/* Dynamic shared memory: of few query rows keys on their way, and a staging of 128 columns a
 * worker; else as without converting. */
#define RT_ATTEND_CONVERTED_SM90_SMEM_BYTES(tile_rows, d_qk, d_v)                                  \
    (RT_ATTEND_SM90_UNITS_BYTES(d_qk) +                                                            \
     ((tile_rows) <= 16u                                                                           \
          ? RT_ATTEND_SM90_STAGES(d_qk) * RT_ATTEND_SM90_STAGE_TILES(d_qk, d_v) *                  \
                    RT_ATTEND_SM90_TILE_BYTES +                                                    \
                RT_ATTEND_SM90_TILES(d_qk) * 128u * (tile_rows) + 4u * (tile_rows)*260u +          \
                RT_ATTEND_SM90_DESK_BYTES(tile_rows) + RT_ATTEND_SM90_AHEAD_BYTES(tile_rows, d_v)  \
          : RT_ATTEND_SM90_SMEM_BYTES(tile_rows, d_qk, d_v)))
#define RT_ATTEND_QUANT_SM90_SMEM_BYTES(tile_rows, d_qk, d_v)                                      \
    ((d_qk) > (d_v) && (tile_rows) < 64u                                                           \
         ? RT_ATTEND_BYTES_SM90_SMEM_BYTES(tile_rows, d_qk, d_v)                                   \
         : RT_ATTEND_CONVERTED_SM90_SMEM_BYTES(tile_rows, d_qk, d_v))

/* Of 64 query rows two warp groups convert, and two compute. */
#define RT_ATTEND_QUANT_SM90_THREADS(tile_rows) ((tile_rows) == 64u ? 512u : RT_ATTEND_SM90_THREADS)

/*
 * Where a key has elements that are no value, and query rows are fewer than 64, its bytes stay as
 * they are until a worker reads them: a stage is 64 rows, 32 bytes longer than what a row can hold
 * so that threads read from different banks, and weights, [query row][key] f16. No staging, but of
 * a key a float more and four factors, f16, and a block's scores, f32.
 */
#define RT_ATTEND_BYTES_SM90_ROW(d_qk, d_v) ((d_v) + 2u * ((d_qk) - (d_v)) + 32u)
#define RT_ATTEND_BYTES_SM90_STAGE(tile_rows, d_qk, d_v)                                           \
    (64u * RT_ATTEND_BYTES_SM90_ROW(d_qk, d_v) + 128u * (tile_rows))
#define RT_ATTEND_BYTES_SM90_STAGES(tile_rows, d_qk)                                               \
    ((d_qk) <= 320u || (tile_rows) <= 16u ? 4u : 3u)
#define RT_ATTEND_BYTES_SM90_DESK_BYTES(tile_rows, d_qk)                                           \
    (RT_ATTEND_SM90_DESK_BYTES(tile_rows) + RT_ATTEND_BYTES_SM90_STAGES(tile_rows, d_qk) * 1536u)
#define RT_ATTEND_BYTES_SM90_SMEM_BYTES(tile_rows, d_qk, d_v)                                      \
    (RT_ATTEND_BYTES_SM90_STAGES(tile_rows, d_qk) *                                                \
         RT_ATTEND_BYTES_SM90_STAGE(tile_rows, d_qk, d_v) +                                        \
     RT_ATTEND_SM90_TILES(d_qk) * 128u * (tile_rows) +                                             \
     RT_ATTEND_BYTES_SM90_DESK_BYTES(tile_rows, d_qk) + 256u * (tile_rows))

/*
 * Of 8 and 16 query rows and long rows of keys there are three workers, each with blocks of its own
 * (kernels/sm90/attend_apart.cuh), so the desk has maxima, sums and marks of a worker more, and
 * marks of all columns; no block's scores are found by two. Boxes bring their keys: a stage is
 * tiles of 128 bytes in the copy engine's swizzle, d_v / 128 of values and one of what is no value,
 * and weights; of 8 query rows there is room for a fifth. Scales of two blocks are on their way to
 * the desk, two words a loading thread each.
 */
#define RT_ATTEND_APART_SM90_WORKERS 3u
#define RT_ATTEND_APART_SM90_THREADS 512u
#define RT_ATTEND_APART_SM90_STAGE(tile_rows, d_v)                                                 \
    (64u * (d_v) + RT_ATTEND_SM90_TILE_BYTES + 128u * (tile_rows))
#define RT_ATTEND_APART_SM90_STAGES(tile_rows) ((tile_rows) == 8u ? 5u : 4u)
#define RT_ATTEND_APART_SM90_DESK_BYTES(tile_rows, d_qk, d_v)                                      \
    (RT_ATTEND_SM90_DESK_BYTES(tile_rows) + RT_ATTEND_APART_SM90_STAGES(tile_rows) * 1536u +       \
     36u * (tile_rows) + (d_v) + 2048u)
#define RT_ATTEND_APART_SM90_SMEM_BYTES(tile_rows, d_qk, d_v)                                      \
    (RT_ATTEND_APART_SM90_STAGES(tile_rows) * RT_ATTEND_APART_SM90_STAGE(tile_rows, d_v) +         \
     RT_ATTEND_SM90_TILES(d_qk) * 128u * (tile_rows) +                                             \
     RT_ATTEND_APART_SM90_DESK_BYTES(tile_rows, d_qk, d_v))

/* What the kernels read of a key at most, from its row's beginning and from its scales'. */
#define RT_SM90_ROW_BYTES 768u

/*
 * What numbers are multiples of, where a kernel is of one kind, which its name ends with: `one`, a
 * scale a token or of all tokens; `tiles`, several a token, and then what is no value is bf16. A
 * kernel of both has machine code for either.
 */
enum rt_attend_scales { RT_ATTEND_SCALES_any, RT_ATTEND_SCALES_one, RT_ATTEND_SCALES_tiles };

struct rt_attend_quant_sm90_params {
    struct rt_attend_params attend;
    struct rt_quant_view quant;
    uint32_t q_even;
    uint32_t reserved[9];
    struct rt_tensor_map q_map, q_rest_map, kv_map, kv_rest_map;
};
RT_STATIC_ASSERT(sizeof(struct rt_attend_quant_sm90_params) == 896, "sm90 attend_quant ABI");

struct rt_sparse_quant_sm90_params {
    struct rt_sparse_attend_params sparse;
    struct rt_quant_view quant, extra_quant;
    uint32_t q_even;
    uint32_t reserved[11];
    struct rt_tensor_map q_map, q_rest_map;
};
RT_STATIC_ASSERT(sizeof(struct rt_sparse_quant_sm90_params) == 896, "sm90 sparse_attend_quant ABI");

#endif
