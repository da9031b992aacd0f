/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/mla.h"

#include "common/math.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"

#include <string.h>

#define WARP_THREADS 32u

/* Rows are read and written sixteen bytes at a time. */
#define VECTOR_BYTES 16u
#define VECTOR_ELEMENTS 8

/* Of a tile that the copy engine brings: 128 bytes, its swizzle. */
#define TILE_ELEMENTS 64u

/* Batch rows that q has at most: row_base is known to the device only. */
#define MOST_Q_ROWS (1u << 24)

static enum rt_status launch(const struct rt_kernels *k, const char *entry, const void *params,
                             uint32_t param_bytes, const uint32_t grid[2], uint32_t threads,
                             struct rt_launch *out, struct rt_error *err)
{
    RT_TRY(rt_kernels_launch(k, entry, params, param_bytes, out, err));
    out->grid[0] = grid[0];
    out->grid[1] = grid[1];
    out->grid[2] = 1;
    out->block[0] = threads;
    out->block[1] = 1;
    out->block[2] = 1;
    return RT_OK;
}

static enum rt_status check_rows(uint32_t rows, uint32_t q_len, struct rt_error *err)
{
    RT_REQUIRE(rows >= 1 && rows <= RT_MAX_BATCH, err, RT_ERR_INVALID, "%u rows, not 1 to %u", rows,
               RT_MAX_BATCH);
    RT_REQUIRE(q_len >= 1 && q_len <= RT_MAX_QUERY_LEN, err, RT_ERR_INVALID,
               "query length %u, not 1 to %u", q_len, RT_MAX_QUERY_LEN);
    return RT_OK;
}

static enum rt_status check_pointer(const char *name, const void *pointer, struct rt_error *err)
{
    RT_REQUIRE((uintptr_t)pointer % VECTOR_BYTES == 0, err, RT_ERR_INVALID,
               "%s is at %p, not 16-byte aligned", name, pointer);
    return RT_OK;
}

static enum rt_status check_stride(const char *name, int64_t stride, struct rt_error *err)
{
    RT_REQUIRE(stride % VECTOR_ELEMENTS == 0, err, RT_ERR_INVALID,
               "%s is %lld elements, not a multiple of 8", name, (long long)stride);
    return RT_OK;
}

/* Everything that step_begin reads of a record lies inside it. */
static enum rt_status check_record(const struct rt_step_begin_params *p, struct rt_error *err)
{
    uint64_t rows_end = p->rows_offset + (uint64_t)p->bucket * sizeof(struct rt_record_row);
    uint64_t tokens_end = p->tokens_offset + (uint64_t)p->bucket * p->query_len * sizeof(int32_t);
    RT_REQUIRE(p->record_bytes % 64 == 0 && p->ring_depth >= 1, err, RT_ERR_INVALID,
               "%u records of %u bytes: at least 1, of a multiple of 64 bytes", p->ring_depth,
               p->record_bytes);
    RT_REQUIRE(p->rows_offset >= sizeof(struct rt_record) && rows_end <= p->record_bytes &&
                   tokens_end <= p->record_bytes && p->ops_offset <= p->record_bytes,
               err, RT_ERR_INVALID,
               "rows at %u, tokens at %u, ops at %u do not fit a record of %u bytes for %u rows",
               p->rows_offset, p->tokens_offset, p->ops_offset, p->record_bytes, p->bucket);
    RT_REQUIRE((p->rows_offset | p->tokens_offset | p->ops_offset) % VECTOR_BYTES == 0, err,
               RT_ERR_INVALID, "rows at %u, tokens at %u, ops at %u: not all multiples of 16",
               p->rows_offset, p->tokens_offset, p->ops_offset);
    return RT_OK;
}

enum rt_status rt_step_begin_launch(const struct rt_kernels *k,
                                    const struct rt_step_begin_params *p, struct rt_launch *out,
                                    struct rt_error *err)
{
    if (p->bucket > 0)
        RT_TRY(check_rows(p->bucket, p->query_len, err));
    RT_TRY(check_record(p, err));
    const uint32_t grid[2] = {1, 1};
    return launch(k, "rt_step_begin", p, sizeof(*p), grid, RT_STEP_BEGIN_THREADS, out, err);
}

enum rt_status rt_step_end_launch(const struct rt_kernels *k, const struct rt_step_end_params *p,
                                  struct rt_launch *out, struct rt_error *err)
{
    uint64_t bytes = sizeof(struct rt_completion) + p->bucket * sizeof(struct rt_row_outcome);
    if (p->bucket > 0)
        RT_TRY(check_rows(p->bucket, p->query_len, err));
    RT_REQUIRE(
        p->ring_depth >= 1 && p->completion_bytes % 64 == 0 && bytes <= p->completion_bytes, err,
        RT_ERR_INVALID,
        "%u completions of %u bytes: at least 1, of a multiple of 64 bytes, %llu for %u rows",
        p->ring_depth, p->completion_bytes, (unsigned long long)bytes, p->bucket);
    const uint32_t grid[2] = {1, 1};
    return launch(k, "rt_step_end", p, sizeof(*p), grid, RT_STEP_END_THREADS, out, err);
}

enum rt_status rt_page_copy_launch(const struct rt_kernels *k, const struct rt_page_copy_params *p,
                                   struct rt_launch *out, struct rt_error *err)
{
    RT_REQUIRE(p->layers >= 1, err, RT_ERR_INVALID, "0 layers to copy pages in");
    RT_TRY(check_pointer("kv", p->kv, err));
    RT_TRY(check_stride("kv layer stride", p->layer_stride, err));
    RT_TRY(check_stride("kv page stride", p->page_stride, err));
    RT_TRY(check_stride("kv token stride", p->token_stride, err));
    const uint32_t grid[2] = {p->layers, RT_MAX_PAGE_COPIES};
    return launch(k, "rt_page_copy", p, sizeof(*p), grid, RT_PAGE_COPY_THREADS, out, err);
}

static enum rt_status check_schedule(const struct rt_schedule_params *p, struct rt_error *err)
{
    RT_TRY(check_rows(p->rows, 1, err));
    RT_REQUIRE(p->parts >= 1 && p->parts <= UINT16_MAX && p->min_blocks >= 1, err, RT_ERR_INVALID,
               "a schedule of %u parts with at least %u blocks: 1 to 65535 parts, 1 block or more",
               p->parts, p->min_blocks);
    return RT_OK;
}

enum rt_status rt_schedule_launch(const struct rt_kernels *k, const struct rt_schedule_params *p,
                                  struct rt_launch *out, struct rt_error *err)
{
    RT_TRY(check_schedule(p, err));
    const uint32_t grid[2] = {1, 1};
    return launch(k, "rt_schedule", p, sizeof(*p), grid, RT_SCHEDULE_THREADS, out, err);
}

static enum rt_status check_append(const struct rt_mla_append_params *p, struct rt_error *err)
{
    RT_TRY(check_rows(p->rows, p->q_len, err));
    RT_TRY(check_pointer("latent", p->latent, err));
    RT_TRY(check_pointer("kv", p->kv, err));
    RT_TRY(check_stride("latent row stride", p->latent_row_stride, err));
    RT_TRY(check_stride("latent token stride", p->latent_token_stride, err));
    RT_TRY(check_stride("kv page stride", p->kv_page_stride, err));
    return check_stride("kv token stride", p->kv_token_stride, err);
}

enum rt_status rt_mla_append_launch(const struct rt_kernels *k,
                                    const struct rt_mla_append_params *p, struct rt_launch *out,
                                    struct rt_error *err)
{
    RT_TRY(check_append(p, err));
    const uint32_t grid[2] = {rt_ceil_div_u32(p->rows * p->q_len, RT_APPEND_WARPS), 1};
    return launch(k, "rt_mla_append", p, sizeof(*p), grid, RT_APPEND_WARPS * WARP_THREADS, out,
                  err);
}

enum rt_status rt_schedule_append_launch(const struct rt_kernels *k,
                                         const struct rt_schedule_append_params *p,
                                         struct rt_launch *out, struct rt_error *err)
{
    const struct rt_schedule_params schedule = rt_schedule_half(p);
    const struct rt_mla_append_params append = rt_append_half(p);
    RT_TRY(check_schedule(&schedule, err));
    RT_TRY(check_append(&append, err));
    const uint32_t warps = RT_SCHEDULE_THREADS / WARP_THREADS;
    const uint32_t grid[2] = {1 + rt_ceil_div_u32(p->rows * p->q_len, warps), 1};
    return launch(k, "rt_schedule_append", p, sizeof(*p), grid, RT_SCHEDULE_THREADS, out, err);
}

static enum rt_status check_attend(const struct rt_attend_choice *c,
                                   const struct rt_mla_attend_params *p, struct rt_error *err)
{
    RT_TRY(check_rows(p->rows, p->q_len, err));
    RT_REQUIRE(p->heads >= 1 && p->heads <= RT_MAX_HEADS, err, RT_ERR_INVALID,
               "%u heads, not 1 to %u", p->heads, RT_MAX_HEADS);
    RT_REQUIRE(p->parts == c->parts && c->m_tiles * c->tile_rows >= p->heads * p->q_len, err,
               RT_ERR_INTERNAL,
               "%u parts and %u query rows were planned as %u parts, %u tiles of %u", p->parts,
               p->heads * p->q_len, c->parts, c->m_tiles, c->tile_rows);
    /* Written so that NaN fails too. */
    RT_REQUIRE(p->scale > 0, err, RT_ERR_INVALID, "softmax scale %g is not above 0",
               (double)p->scale);
    RT_TRY(check_pointer("q", p->q, err));
    RT_TRY(check_pointer("kv", p->kv, err));
    RT_TRY(check_pointer("out", p->out, err));
    RT_TRY(check_stride("q row stride", p->q_row_stride, err));
    RT_TRY(check_stride("q token stride", p->q_token_stride, err));
    RT_TRY(check_stride("q head stride", p->q_head_stride, err));
    RT_TRY(check_stride("out row stride", p->out_row_stride, err));
    RT_TRY(check_stride("out token stride", p->out_token_stride, err));
    RT_TRY(check_stride("out head stride", p->out_head_stride, err));
    RT_TRY(check_stride("kv page stride", p->kv_page_stride, err));
    RT_TRY(check_stride("kv token stride", p->kv_token_stride, err));
    return RT_OK;
}

/*
 * Rows of `d_v` elements in tiles, `box_tiles` of them to a box, and what is behind them: rows are
 * `row_bytes` apart, `rows` to a group, groups `group_bytes` apart.
 */
struct rows_of_tiles {
    const uint16_t *address;
    uint64_t rows, row_bytes, groups, group_bytes;
    uint32_t box_rows, box_tiles;
};

static enum rt_status make_map(const struct rt_kernels *k, const struct rt_mla_attend_params *p,
                               const struct rows_of_tiles *r, struct rt_tensor_map *map,
                               struct rt_tensor_map *rest_map, struct rt_error *err)
{
    const uint64_t tile_bytes = TILE_ELEMENTS * sizeof(uint16_t);
    const struct rt_tensor_map_spec tiles = {
        .address = (uintptr_t)r->address,
        .dims = 4,
        .size = {TILE_ELEMENTS, r->rows, p->d_v / TILE_ELEMENTS, r->groups},
        .stride_bytes = {0, r->row_bytes, tile_bytes, r->group_bytes},
        .box = {TILE_ELEMENTS, r->box_rows, r->box_tiles, 1},
    };
    const struct rt_tensor_map_spec rest = {
        .address = (uintptr_t)(r->address + p->d_v),
        .dims = 3,
        .size = {p->d_qk - p->d_v, r->rows, r->groups},
        .stride_bytes = {0, r->row_bytes, r->group_bytes},
        .box = {TILE_ELEMENTS, r->box_rows, 1},
    };
    RT_TRY(RT_DRV(k->driver, err, tensor_map, (k->driver, &tiles, map)));
    if (p->d_qk == p->d_v)
        return RT_OK;
    return RT_DRV(k->driver, err, tensor_map, (k->driver, &rest, rest_map));
}

/* The tensors that the copy engine reads, as kernels/abi/attend_sm90.h has them. */
static enum rt_status make_maps(const struct rt_kernels *k, const struct rt_attend_choice *c,
                                struct rt_attend_sm90_params *sm90, struct rt_error *err)
{
    const struct rt_mla_attend_params *p = &sm90->attend;
    const uint64_t element = sizeof(uint16_t);
    const int64_t spacing = p->heads == 1 ? p->q_token_stride : p->q_head_stride;
    const struct rows_of_tiles kv = {
        .address = p->kv,
        .rows = p->page_size,
        .row_bytes = (uint64_t)p->kv_token_stride * element,
        .groups = p->pages,
        .group_bytes = (uint64_t)p->kv_page_stride * element,
        .box_rows = rt_min_u32(p->page_size, RT_BLOCK_TOKENS),
        /* A box puts its tiles one behind the other; those of a block have 64 rows. */
        .box_tiles = p->page_size >= RT_BLOCK_TOKENS ? p->d_v / TILE_ELEMENTS / 2 : 1,
    };
    const struct rows_of_tiles q = {
        .address = p->q,
        .rows = (uint64_t)p->heads * p->q_len,
        .row_bytes = (uint64_t)spacing * element,
        .groups = MOST_Q_ROWS,
        .group_bytes = (uint64_t)p->q_row_stride * element,
        .box_rows = c->tile_rows,
        .box_tiles = p->d_v / TILE_ELEMENTS,
    };
    sm90->q_even = p->q_len == 1 || p->q_token_stride == p->heads * spacing;
    RT_TRY(make_map(k, p, &kv, &sm90->kv_map, &sm90->kv_rest_map, err));
    return sm90->q_even ? make_map(k, p, &q, &sm90->q_map, &sm90->q_rest_map, err) : RT_OK;
}

enum rt_status rt_mla_attend_launch(const struct rt_kernels *k, const struct rt_attend_choice *c,
                                    const struct rt_mla_attend_params *p, struct rt_launch *out,
                                    struct rt_error *err)
{
    RT_TRY(check_attend(c, p, err));
    const uint32_t grid[2] = {c->m_tiles, c->parts};
    if (c->backend != RT_BACKEND_SM90)
        return launch(k, c->entry, p, sizeof(*p), grid, c->threads, out, err);
    struct rt_attend_sm90_params sm90 = {.attend = *p};
    if (k->driver)
        RT_TRY(make_maps(k, c, &sm90, err));
    return launch(k, c->entry, &sm90, sizeof(sm90), grid, c->threads, out, err);
}

enum rt_status rt_mla_reduce_launch(const struct rt_kernels *k, const struct rt_attend_choice *c,
                                    const struct rt_mla_reduce_params *p, struct rt_launch *out,
                                    struct rt_error *err)
{
    RT_TRY(check_rows(p->rows, p->q_len, err));
    RT_TRY(check_pointer("partial_out", p->partial_out, err));
    RT_TRY(check_pointer("out", p->out, err));
    RT_TRY(check_stride("out row stride", p->out_row_stride, err));
    RT_TRY(check_stride("out token stride", p->out_token_stride, err));
    RT_TRY(check_stride("out head stride", p->out_head_stride, err));
    const uint32_t items = p->rows * p->heads * p->q_len * (p->d_v / RT_MLA_REDUCE_LEAST_COLUMNS);
    const uint32_t grid[2] = {rt_min_u32(items, RT_MLA_REDUCE_MOST_BLOCKS(p->heads * p->q_len)), 1};
    return launch(k, c->reduce_entry, p, sizeof(*p), grid, RT_MLA_REDUCE_THREADS, out, err);
}
