/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/attend_sm90.h"
#include "kernels/ops/op_build.h"

#include "common/math.h"

/* Of a tile that the copy engine brings: 128 bytes, its swizzle. */
#define TILE_ELEMENTS 64u
/* Keys that a box has of each tile before it goes on with the next 8: the swizzle's period. */
#define GROUP_ROWS 8u

/* Batch rows that q has at most: row_base is known to the device only. */
#define MOST_Q_ROWS (1u << 24)

RT_STATIC_ASSERT(RT_MAX_QUERY_LEN <= 8, "sm90 attend notes a draft's place in three bits");

enum rt_status rt_check_attend(const struct rt_variant *v, const struct rt_attend_params *p,
                               struct rt_error *err)
{
    const uint32_t query_rows = p->heads * p->rows.q_len;
    RT_TRY(rt_check_rows(p->rows.count, p->rows.q_len, err));
    RT_REQUIRE(p->heads >= 1 && p->heads <= RT_MAX_HEADS, err, RT_ERR_INVALID,
               "%u heads, not 1 to %u", p->heads, RT_MAX_HEADS);
    RT_REQUIRE(p->schedule.part_count == v->parts && v->m_tiles * v->tile_rows >= query_rows, err,
               RT_ERR_INTERNAL,
               "%u parts and %u query rows were planned as %u parts, %u tiles of %u",
               p->schedule.part_count, query_rows, v->parts, v->m_tiles, v->tile_rows);
    RT_REQUIRE(v->invariant == p->schedule.invariant, err, RT_ERR_INTERNAL,
               "%s by a schedule whose invariant is %u", v->entry, p->schedule.invariant);
    /* Written so that NaN fails too. */
    RT_REQUIRE(p->scale > 0, err, RT_ERR_INVALID, "softmax scale %g is not above 0",
               (double)p->scale);
    RT_TRY(rt_check_heads("q", &p->q, err));
    RT_TRY(rt_check_heads("q_rope", &p->q_rope, err));
    RT_REQUIRE(!p->q_rope.base || p->d_qk > p->d_v, err, RT_ERR_INVALID,
               "q_rope is at %p, but all %u elements are q's, d_v", p->q_rope.base, p->d_v);
    RT_TRY(rt_check_heads("out", &p->out, err));
    return rt_check_kv(&p->kv, err);
}

static enum rt_status encode(const struct rt_kernels *k, const struct rt_tensor_map_spec *spec,
                             struct rt_tensor_map *out, struct rt_error *err)
{
    return RT_DRV(k->driver, err, tensor_map, (k->driver, spec, out));
}

/* Rows of elements: `row_bytes` apart within a group, groups `group_bytes` apart. */
struct spaced_rows {
    rt_addr address;
    uint64_t row_bytes, group_bytes;
};

static struct spaced_rows behind(struct spaced_rows values, uint32_t d_v)
{
    values.address += d_v * sizeof(uint16_t);
    return values;
}

/* `rows` to a group, `box_rows` to a box: their first `elements`, at most a tile of them. */
static struct rt_tensor_map_spec tile_of(struct spaced_rows rows, uint32_t elements, uint64_t count,
                                         uint64_t groups, uint32_t box_rows)
{
    return (struct rt_tensor_map_spec){
        .address = rows.address,
        .dims = 3,
        .size = {elements, count, groups},
        .stride_bytes = {0, rows.row_bytes, rows.group_bytes},
        .box = {TILE_ELEMENTS, box_rows, 1},
    };
}

/* Query rows that are evenly spaced can be rows of a map. */
static int64_t spacing(const struct rt_attend_params *p, const struct rt_heads_view *q)
{
    return p->heads == 1 ? q->token_stride : q->head_stride;
}

static bool is_even(const struct rt_attend_params *p, const struct rt_heads_view *q)
{
    return p->rows.q_len == 1 || q->token_stride == p->heads * spacing(p, q);
}

static struct spaced_rows query_rows(const struct rt_attend_params *p,
                                     const struct rt_heads_view *q)
{
    return (struct spaced_rows){.address = (uintptr_t)q->base,
                                .row_bytes = (uint64_t)spacing(p, q) * sizeof(uint16_t),
                                .group_bytes = (uint64_t)q->row_stride * sizeof(uint16_t)};
}

static enum rt_status make_key_maps(const struct rt_kernels *k, const struct rt_variant *v,
                                    struct rt_attend_sm90_params *sm90, struct rt_error *err)
{
    const struct rt_attend_params *p = &sm90->attend;
    const struct rt_kv_view *kv = &p->kv;
    const struct spaced_rows keys = {.address = (uintptr_t)kv->base,
                                     .row_bytes = (uint64_t)kv->token_stride_bytes,
                                     .group_bytes = (uint64_t)kv->page_stride_bytes};
    const uint32_t tokens = rt_min_u32(kv->page_size, RT_BLOCK_TOKENS);
    const uint32_t piece = rt_min_u32(kv->page_size, RT_ATTEND_SM90_PIECE(v->tile_rows, p->d_qk));
    const uint32_t tiles = p->d_v / TILE_ELEMENTS;
    const struct rt_tensor_map_spec values = {
        .address = keys.address,
        .dims = 5,
        .size = {TILE_ELEMENTS, GROUP_ROWS, tiles, kv->page_size / GROUP_ROWS, kv->pages},
        .stride_bytes = {0, keys.row_bytes, TILE_ELEMENTS * sizeof(uint16_t),
                         GROUP_ROWS * keys.row_bytes, keys.group_bytes},
        .box = {TILE_ELEMENTS, GROUP_ROWS, tiles / 2, piece / GROUP_ROWS, 1},
    };
    RT_TRY(encode(k, &values, &sm90->kv_map, err));
    if (p->d_qk == p->d_v)
        return RT_OK;
    const struct rt_tensor_map_spec rest =
        tile_of(behind(keys, p->d_v), p->d_qk - p->d_v, kv->page_size, kv->pages, tokens);
    return encode(k, &rest, &sm90->kv_rest_map, err);
}

enum rt_status rt_attend_query_maps(const struct rt_kernels *k, const struct rt_variant *v,
                                    const struct rt_attend_params *p, uint32_t *even,
                                    struct rt_tensor_map *map, struct rt_tensor_map *rest_map,
                                    struct rt_error *err)
{
    const struct spaced_rows q = query_rows(p, &p->q);
    const uint64_t rows = (uint64_t)p->heads * p->rows.q_len;
    const uint32_t tiles = p->d_v / TILE_ELEMENTS;
    const struct rt_tensor_map_spec values = {
        .address = q.address,
        .dims = 4,
        .size = {TILE_ELEMENTS, rows, tiles, MOST_Q_ROWS},
        .stride_bytes = {0, q.row_bytes, TILE_ELEMENTS * sizeof(uint16_t), q.group_bytes},
        .box = {TILE_ELEMENTS, v->tile_rows, tiles, 1},
    };
    *even = is_even(p, &p->q) && (!p->q_rope.base || is_even(p, &p->q_rope));
    if (!*even)
        return RT_OK;
    RT_TRY(encode(k, &values, map, err));
    if (p->d_qk == p->d_v)
        return RT_OK;
    const struct rt_tensor_map_spec rest =
        tile_of(p->q_rope.base ? query_rows(p, &p->q_rope) : behind(q, p->d_v), p->d_qk - p->d_v,
                rows, MOST_Q_ROWS, v->tile_rows);
    return encode(k, &rest, rest_map, err);
}

/* The tensors that the copy engine reads, as kernels/abi/attend_sm90.h has them. */
static enum rt_status make_maps(const struct rt_kernels *k, const struct rt_variant *v,
                                struct rt_attend_sm90_params *sm90, struct rt_error *err)
{
    const struct rt_attend_params *p = &sm90->attend;
    RT_TRY(make_key_maps(k, v, sm90, err));
    return rt_attend_query_maps(k, v, p, &sm90->q_even, &sm90->q_map, &sm90->q_rest_map, err);
}

enum rt_status rt_attend_build(const struct rt_kernels *k, const struct rt_variant *variant,
                               const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_attend_params *p = params;
    RT_TRY(rt_check_attend(variant, p, err));
    if (variant->backend != RT_BACKEND_SM90)
        return rt_launch_grid(k, variant->entry, p, sizeof(*p), variant->m_tiles, variant->parts,
                              variant->threads, out, err);
    struct rt_attend_sm90_params sm90 = {.attend = *p};
    if (k->driver)
        RT_TRY(make_maps(k, variant, &sm90, err));
    return rt_launch_attend(k, variant, p->rows.count, &sm90, sizeof(sm90), out, err);
}
