/* SPDX-License-Identifier: Apache-2.0 */
/* Where a smaller tile of query rows is faster: few blocks of keys, which leave multiprocessors
 * idle that more tiles put to work. docs/small_tiles.md has the measurements. */
#include "common/math.h"
#include "kernels/ops/op_build.h"

#include <assert.h>

/* What the limits were measured on. */
#define MEASURED_SMS 132u
#define MEASURED_D_QK 576u
#define MEASURED_D_V 512u

/* By rising query rows of a batch row, then rising blocks; more query rows have no smaller tile. */
static const struct small_tile {
    uint32_t query_rows; /* for so many at most; 0: the list is over */
    uint32_t tile_rows;
    uint32_t blocks; /* with so many of all rows at most, on MEASURED_SMS multiprocessors */
} of_bf16[] = {{16, 8, 48},   {32, 8, 16}, {32, 16, 512}, {64, 8, 8}, {64, 16, 132},
               {128, 16, 72}, {0}},
  /* e4m3, a token's latent with one scale */
    of_one_scale[] = {{16, 8, 256},  {32, 8, 32}, {32, 16, 512}, {64, 8, 16},
                      {64, 16, 128}, {128, 8, 8}, {128, 16, 64}, {0}},
  /* with one for each tile of it, whose numbers cost a small tile more */
    of_tile_scales[] = {{16, 8, 128}, {32, 8, 32}, {32, 16, 384}, {64, 8, 16},
                        {64, 16, 64}, {128, 8, 8}, {128, 16, 32}, {0}};

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

/* The first of those for so many query rows; null: there is none. */
static const struct small_tile *find(enum rt_op_id op, const struct rt_op_request *request)
{
    const uint32_t query_rows = request->heads * request->q_len;
    if (!is_measured(op, request))
        return NULL;
    const struct small_tile *small = of_layout(request->kv->layout);
    if (query_rows <= small->tile_rows)
        return NULL;
    while (small->query_rows && small->query_rows < query_rows)
        small++;
    return small->query_rows ? small : NULL;
}

/* No more rows than parts: rows that one part has one behind the other are quicker by large tiles,
 * which have more parts. */
static struct rt_small_tile_limit limit_of(const struct rt_op_request *request,
                                           const struct small_tile *small)
{
    const uint32_t sms = request->caps->sm_count;
    const uint32_t tiles = rt_ceil_div_u32(request->heads * request->q_len, small->tile_rows);
    return (struct rt_small_tile_limit){.tile_rows = small->tile_rows,
                                        .rows = rt_max_u32(1, sms / tiles),
                                        .blocks = small->blocks * sms / MEASURED_SMS};
}

/* Of few multiprocessors a limit may be no block, which no step has, or the next tile's too. */
struct rt_small_tile_limits rt_small_tiles_of(enum rt_op_id op, const struct rt_op_request *request)
{
    struct rt_small_tile_limits out = {.count = 0};
    const struct small_tile *const first = find(op, request);
    for (const struct small_tile *small = first; small && small->query_rows == first->query_rows;
         small++) {
        const struct rt_small_tile_limit limit = limit_of(request, small);
        const uint32_t below = out.count ? out.tiles[out.count - 1].blocks : 0;
        assert(out.count < RT_MOST_SMALL_TILES);
        if (limit.blocks > below)
            out.tiles[out.count++] = limit;
    }
    return out;
}

/* Null: the request asks for none that there is. */
static const struct small_tile *find_asked(enum rt_op_id op, const struct rt_op_request *request)
{
    const struct small_tile *const first = request->small_tile_rows ? find(op, request) : NULL;
    for (const struct small_tile *small = first; small && small->query_rows == first->query_rows;
         small++)
        if (small->tile_rows == request->small_tile_rows)
            return small;
    return NULL;
}

uint32_t rt_small_tile_rows(enum rt_op_id op, const struct rt_op_request *request)
{
    const struct small_tile *const small = find_asked(op, request);
    return small ? small->tile_rows : 0;
}

struct rt_small_tile_limit rt_small_tile_limit_of(enum rt_op_id op,
                                                  const struct rt_op_request *request)
{
    const struct small_tile *const small = find_asked(op, request);
    return small ? limit_of(request, small) : (struct rt_small_tile_limit){0};
}
