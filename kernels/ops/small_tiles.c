/* SPDX-License-Identifier: Apache-2.0 */
/* Where a smaller tile of query rows is faster: few blocks of keys, which leave multiprocessors
 * idle that more tiles put to work. docs/small_tiles.md has the measurements. */
#include "common/math.h"
#include "kernels/ops/op_build.h"

/* What the limits were measured on. */
#define MEASURED_SMS 132u
#define MEASURED_D_QK 576u
#define MEASURED_D_V 512u

#define SMALL_TILE_COUNT 4

/* By rising query rows of a batch row; more of them have no smaller tile. */
static const struct small_tile {
    uint32_t query_rows; /* for so many at most */
    uint32_t tile_rows;
    uint32_t blocks; /* with so many of all rows at most, on MEASURED_SMS multiprocessors */
} of_bf16[SMALL_TILE_COUNT] = {{16, 8, 48}, {32, 16, 512}, {64, 16, 132}, {128, 16, 72}},
  /* e4m3, a token's latent with one scale */
    of_one_scale[SMALL_TILE_COUNT] = {{16, 8, 128}, {32, 16, 512}, {64, 16, 128}, {128, 16, 64}},
  /* with one for each tile of it, whose numbers cost a small tile more */
    of_tile_scales[SMALL_TILE_COUNT] = {{16, 8, 128}, {32, 16, 384}, {64, 16, 64}, {128, 16, 32}};

/* Pages of fewer tokens than a block were not measured, nor other geometries. */
static bool is_measured(enum rt_op_id op, const struct rt_op_request *request)
{
    return (op == RT_OP_ATTEND || op == RT_OP_ATTEND_QUANT) && !request->invariant &&
           request->backend != RT_BACKEND_GENERIC && request->kv->d_qk == MEASURED_D_QK &&
           request->kv->d_v == MEASURED_D_V && request->page_size >= RT_BLOCK_TOKENS &&
           rt_check_sm90(request->caps, NULL) == RT_OK;
}

static const struct small_tile *of_layout(enum rt_kv_layout layout)
{
    switch (layout) {
    case RT_KV_BF16:
        return of_bf16;
    case RT_KV_FP8_TENSOR:
    case RT_KV_FP8_TOKEN:
        return of_one_scale;
    default:
        return of_tile_scales;
    }
}

static const struct small_tile *find(enum rt_op_id op, const struct rt_op_request *request)
{
    const uint32_t query_rows = request->heads * request->q_len;
    if (!is_measured(op, request))
        return NULL;
    const struct small_tile *const small_tiles = of_layout(request->kv->layout);
    if (query_rows <= small_tiles[0].tile_rows)
        return NULL;
    for (size_t i = 0; i < SMALL_TILE_COUNT; i++)
        if (query_rows <= small_tiles[i].query_rows)
            return &small_tiles[i];
    return NULL;
}

/* No more rows than parts: rows that one part has one behind the other are quicker by large tiles,
 * which have more parts. */
struct rt_small_tile_limit rt_small_tiles_of(enum rt_op_id op, const struct rt_op_request *request)
{
    const struct small_tile *small = find(op, request);
    if (!small)
        return (struct rt_small_tile_limit){0};
    const uint32_t sms = request->caps->sm_count;
    const uint32_t tiles = rt_ceil_div_u32(request->heads * request->q_len, small->tile_rows);
    return (struct rt_small_tile_limit){.rows = rt_max_u32(1, sms / tiles),
                                        .blocks = small->blocks * sms / MEASURED_SMS};
}

uint32_t rt_small_tile_rows(enum rt_op_id op, const struct rt_op_request *request)
{
    const struct small_tile *small = request->small_tiles ? find(op, request) : NULL;
    return small ? small->tile_rows : 0;
}
