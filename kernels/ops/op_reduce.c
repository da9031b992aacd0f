/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

#include "common/math.h"

/* Behind attention's tiles of so many query rows. */
static const char *entry_of(uint32_t tile_rows, uint32_t invariant)
{
    if (invariant)
        return RT_INVARIANT_FOLDS(invariant) ? "rt_reduce_fold" : "rt_reduce_own";
    return tile_rows <= RT_REDUCE_BESIDE_ROWS ? "rt_reduce_beside" : "rt_reduce";
}

enum rt_status rt_reduce_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                 struct rt_error *err)
{
    RT_TRY(rt_plain_resolve(request, out, err));
    if (request->small_tile_rows)
        out->tile_rows = rt_small_tile_rows(
            rt_kv_is_quantised(request->kv) ? RT_OP_ATTEND_QUANT : RT_OP_ATTEND, request);
    if (request->invariant) {
        struct rt_variant attend = {.op = RT_OP_ATTEND};
        RT_TRY(rt_attend_resolve(request, &attend, err));
        out->invariant = attend.invariant;
    }
    out->entry =
        entry_of(out->tile_rows ? out->tile_rows : request->heads * request->q_len, out->invariant);
    return RT_OK;
}

/* Behind an attention that makes its plan itself, of so many rows. */
static enum rt_status check_counted(const struct rt_reduce_params *p, uint32_t tile_rows,
                                    struct rt_error *err)
{
    RT_REQUIRE(tile_rows <= RT_REDUCE_BESIDE_ROWS && p->rows.count <= RT_COUNTED_ROWS &&
                   p->schedule.part_count <= RT_COUNTED_PARTS && !p->schedule.invariant &&
                   p->rows.q_len == 1 && p->row_tokens == p->counted.q_len,
               err, RT_ERR_INTERNAL, "a reduce of %u counted rows behind tiles of %u query rows",
               p->rows.count, tile_rows);
    return RT_OK;
}

static uint32_t most_blocks(const struct rt_reduce_params *p, uint32_t tile_rows)
{
    if (!p->schedule.invariant)
        return RT_REDUCE_MOST_BLOCKS(tile_rows);
    return rt_min_u32(rt_max_u32(p->rows.count * RT_REDUCE_BLOCKS_PER_ROW, RT_REDUCE_FEW_BLOCKS),
                      RT_REDUCE_MANY_BLOCKS);
}

enum rt_status rt_reduce_build(const struct rt_kernels *k, const struct rt_variant *variant,
                               const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_reduce_params *p = params;
    const uint32_t query_rows = p->heads * p->rows.q_len;
    const uint32_t tile_rows = variant->tile_rows ? variant->tile_rows : query_rows;
    RT_TRY(rt_check_rows(p->rows.count, p->rows.q_len, err));
    RT_REQUIRE(variant->invariant == p->schedule.invariant, err, RT_ERR_INTERNAL,
               "%s of a schedule whose invariant is %u", variant->entry, p->schedule.invariant);
    RT_TRY(rt_check_pointer("partials.out", p->partials.out, err));
    RT_TRY(rt_check_heads("out", &p->out, err));
    const bool counts = p->counted.min_blocks > 0;
    if (counts)
        RT_TRY(check_counted(p, tile_rows, err));
    const uint32_t items = p->rows.count * query_rows * (p->d_v / RT_REDUCE_LEAST_COLUMNS);
    return rt_launch_grid(k, counts ? "rt_reduce_counted" : entry_of(tile_rows, variant->invariant),
                          p, sizeof(*p), rt_min_u32(items, most_blocks(p, tile_rows)), 1,
                          RT_REDUCE_THREADS, out, err);
}
