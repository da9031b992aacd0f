/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/attend_sm90.h"
#include "kernels/ops/op_build.h"

#include "common/math.h"

/* Of a tile that the copy engine brings: 128 bytes, its swizzle. */
#define TILE_ELEMENTS 64u

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

/* Rows of elements: `row_bytes` apart within a group, groups `group_bytes` apart. */
struct spaced_rows {
    rt_addr address;
    uint64_t row_bytes, group_bytes;
};

/*
 * Rows of `d_v` elements in tiles, `box_tiles` of them to a box, and what stands behind those in a
 * row, or elsewhere: `rows` to a group.
 */
struct rows_of_tiles {
    struct spaced_rows values, rest;
    uint64_t rows, groups;
    uint32_t box_rows, box_tiles;
};

static struct spaced_rows behind(struct spaced_rows values, uint32_t d_v)
{
    values.address += d_v * sizeof(uint16_t);
    return values;
}

static enum rt_status make_map(const struct rt_kernels *k, const struct rt_attend_params *p,
                               const struct rows_of_tiles *r, struct rt_tensor_map *map,
                               struct rt_tensor_map *rest_map, struct rt_error *err)
{
    const uint64_t tile_bytes = TILE_ELEMENTS * sizeof(uint16_t);
    const struct rt_tensor_map_spec tiles = {
        .address = r->values.address,
        .dims = 4,
        .size = {TILE_ELEMENTS, r->rows, p->d_v / TILE_ELEMENTS, r->groups},
        .stride_bytes = {0, r->values.row_bytes, tile_bytes, r->values.group_bytes},
        .box = {TILE_ELEMENTS, r->box_rows, r->box_tiles, 1},
    };
    const struct rt_tensor_map_spec rest = {
        .address = r->rest.address,
        .dims = 3,
        .size = {p->d_qk - p->d_v, r->rows, r->groups},
        .stride_bytes = {0, r->rest.row_bytes, r->rest.group_bytes},
        .box = {TILE_ELEMENTS, r->box_rows, 1},
    };
    RT_TRY(RT_DRV(k->driver, err, tensor_map, (k->driver, &tiles, map)));
    if (p->d_qk == p->d_v)
        return RT_OK;
    return RT_DRV(k->driver, err, tensor_map, (k->driver, &rest, rest_map));
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

enum rt_status rt_attend_query_maps(const struct rt_kernels *k, const struct rt_variant *v,
                                    const struct rt_attend_params *p, uint32_t *even,
                                    struct rt_tensor_map *map, struct rt_tensor_map *rest_map,
                                    struct rt_error *err)
{
    const struct spaced_rows queries = query_rows(p, &p->q);
    const struct rows_of_tiles q = {
        .values = queries,
        .rest = p->q_rope.base ? query_rows(p, &p->q_rope) : behind(queries, p->d_v),
        .rows = (uint64_t)p->heads * p->rows.q_len,
        .groups = MOST_Q_ROWS,
        .box_rows = v->tile_rows,
        .box_tiles = p->d_v / TILE_ELEMENTS,
    };
    *even = is_even(p, &p->q) && (!p->q_rope.base || is_even(p, &p->q_rope));
    return *even ? make_map(k, p, &q, map, rest_map, err) : RT_OK;
}

/* The tensors that the copy engine reads, as kernels/abi/attend_sm90.h has them. */
static enum rt_status make_maps(const struct rt_kernels *k, const struct rt_variant *v,
                                struct rt_attend_sm90_params *sm90, struct rt_error *err)
{
    const struct rt_attend_params *p = &sm90->attend;
    const struct spaced_rows keys = {.address = (uintptr_t)p->kv.base,
                                     .row_bytes = (uint64_t)p->kv.token_stride_bytes,
                                     .group_bytes = (uint64_t)p->kv.page_stride_bytes};
    const struct rows_of_tiles kv = {
        .values = keys,
        .rest = behind(keys, p->d_v),
        .rows = p->kv.page_size,
        .groups = p->kv.pages,
        .box_rows = rt_min_u32(p->kv.page_size, RT_BLOCK_TOKENS),
        /* A box puts its tiles one behind the other; those of a block have 64 rows. */
        .box_tiles = p->kv.page_size >= RT_BLOCK_TOKENS ? p->d_v / TILE_ELEMENTS / 2 : 1,
    };
    RT_TRY(make_map(k, p, &kv, &sm90->kv_map, &sm90->kv_rest_map, err));
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
    return rt_launch_grid(k, variant->entry, &sm90, sizeof(sm90), variant->m_tiles, variant->parts,
                          variant->threads, out, err);
}
