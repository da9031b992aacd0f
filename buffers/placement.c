/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three regions. Every buffer begins at a multiple of 256; gaps are never used.
 *
 *   arena   +------+--------------+-------------+-------------+-----+-----------------+
 *           | ctrl | slot_lengths | slot_tokens | block_table | row | tile_records    |
 *           |      | [slots]      | [slots]     | [slots,     | and | [parts, 8]      |
 *           |      |              |             |  blocks]    | op  | num_splits      |
 *           +------+--------------+-------------+-------------+-----+-----------------+
 *           | q | latent | out | lse      shared: one set        | partial_lse        |
 *           |   per layer: layers sets of each, layer_stride     | partial_out        |
 *           |   apart, all of q before the first of latent       | [partial_rows, d_v]|
 *           +----------------------------------------------------+--------------------+
 *
 *   mapped  +----------+----------+---+--------------+---+-----------+
 *           | record 0 | record 1 | … | completion 0 | … | completed |
 *           +----------+----------+---+--------------+---+-----------+
 *                 |
 *                 v  header 64 | rows 16 each | tokens | ops: one block-table line + 16 KiB |
 *
 *   pool    +-----------------------------+-----------------------------+---+
 *           | layer 0: page 0, page 1, …  | layer 1: page 0, page 1, …  | … |
 *           +-----------------------------+-----------------------------+---+
 *            <------- layer_stride ------->
 */
#include "buffers/placement.h"

#include "common/math.h"
#include "common/work.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* No served model is wider; keeps the arithmetic of one record inside 32 bits with room to spare.
 */
#define MAX_WIDTH 1024u
#define WIDTH_MULTIPLE 8u /* rows of bf16 then begin at multiples of 16 bytes */
#define OPS_SPARE_BYTES UINT64_C(16384)

enum dim {
    DIM_NONE, /* behind a tensor's last */
#define DIM_ENUM(name, value) DIM_##name,
    RT_DIM_LIST(DIM_ENUM)
#undef DIM_ENUM
};

/* Of the table alone: as the configuration's precision is, and as its cache's layout. */
#define RT_DTYPE_DATA ((enum rt_dtype)0)
#define RT_DTYPE_CACHE ((enum rt_dtype)INT32_MAX)

static const struct line {
    struct rt_placed tensor; /* what does not depend on dimensions */
    enum dim dims[4];
} lines[RT_TENSOR_COUNT] = {
#define D(name) DIM_##name
#define RT_TENSOR(id, name_, dtype_, scope_, region_, access_, ...)                                \
    [RT_TENSOR_##id] = {.tensor = {.name = name_,                                                  \
                                   .region = RT_REGION_##region_,                                  \
                                   .dtype = RT_DTYPE_##dtype_,                                     \
                                   .scope = RT_SCOPE_##scope_,                                     \
                                   .is_public = ACCESS_##access_},                                 \
                        .dims = {__VA_ARGS__}},
#define ACCESS_PUBLIC true
#define ACCESS_PRIVATE false
#include "buffers/tensors.inc"
#undef D
};

static enum rt_status check_range(struct rt_error *err, const char *name, uint64_t value,
                                  uint64_t low, uint64_t high)
{
    RT_REQUIRE(value >= low && value <= high, err, RT_ERR_INVALID,
               "%s = %" PRIu64 " is outside %" PRIu64 "..%" PRIu64, name, value, low, high);
    return RT_OK;
}

static enum rt_status check_width(struct rt_error *err, const char *name, uint32_t width,
                                  uint32_t high)
{
    RT_TRY(check_range(err, name, width, WIDTH_MULTIPLE, high));
    RT_REQUIRE(width % WIDTH_MULTIPLE == 0, err, RT_ERR_INVALID, "%s = %u is no multiple of %u",
               name, width, WIDTH_MULTIPLE);
    return RT_OK;
}

static enum rt_status check_dims(const struct rt_dims *s, struct rt_error *err)
{
    RT_TRY(check_range(err, "heads", s->heads, 1, RT_MAX_HEADS));
    RT_TRY(check_width(err, "d_qk", s->kv.d_qk, MAX_WIDTH));
    RT_TRY(check_width(err, "d_v", s->kv.d_v, s->kv.d_qk));
    RT_TRY(check_range(err, "layers", s->layers, 1, UINT32_MAX));
    RT_TRY(check_range(err, "slots", s->slots, 1, RT_MAX_SEQUENCES));
    RT_TRY(check_range(err, "max_length", s->max_length, 1, RT_MAX_LENGTH));
    RT_REQUIRE(s->page_size == 16 || s->page_size == 32 || s->page_size == 64 ||
                   s->page_size == 128,
               err, RT_ERR_INVALID, "page_size = %u, valid are 16, 32, 64 and 128", s->page_size);
    RT_TRY(check_range(err, "context", s->context, 1, RT_MAX_CONTEXT_RANKS));
    RT_TRY(check_range(err, "pages", s->pages, 1, INT32_MAX));
    RT_TRY(check_range(err, "bucket_max", s->bucket_max, 1, RT_MAX_BATCH));
    RT_TRY(check_range(err, "rows", s->rows, s->bucket_max, UINT32_MAX));
    RT_TRY(check_range(err, "q_max", s->q_max, 1, RT_MAX_QUERY_LEN));
    RT_TRY(check_range(err, "parts_max", s->parts_max, 1, INT32_MAX));
    RT_TRY(check_range(err, "partial_rows", s->partial_rows, 1, UINT64_MAX));
    RT_TRY(check_range(err, "ring_depth", s->ring_depth, 2, 64));
    RT_TRY(check_range(err, "chunk", s->chunk, 0, RT_MAX_CHUNK));
    RT_TRY(check_range(err, "prefill_rows", s->prefill_rows, 0, RT_MAX_PREFILL_ROWS));
    RT_TRY(check_range(err, "chunk_rows", s->chunk_rows, s->prefill_rows, s->bucket_max));
    return check_range(err, "chunk_tokens", s->chunk_tokens, s->chunk,
                       RT_MAX_CHUNK + RT_MAX_MIXED_ROWS * RT_MAX_QUERY_LEN);
}

/* Of a chunk: every row's columns, how many every prompt's row has, and all of the prompts'. */
static uint64_t record_tokens(const struct rt_dims *s)
{
    const uint64_t steps = (uint64_t)s->bucket_max * s->q_max;
    const uint64_t chunks = (uint64_t)s->chunk_rows * s->q_max + s->prefill_rows + s->chunk;
    return steps > chunks ? steps : chunks;
}

/* Bounded by check_dims: a record is below half a megabyte. */
static struct rt_record_format record_format(const struct rt_dims *s, uint32_t max_blocks)
{
    const uint64_t rows = sizeof(struct rt_record);
    const uint64_t tokens =
        rt_align_up_u64(rows + sizeof(struct rt_record_row) * (uint64_t)s->bucket_max, 16);
    const uint64_t ops = rt_align_up_u64(tokens + sizeof(int32_t) * record_tokens(s), 16);
    const uint64_t line = rt_align_up_u64(sizeof(int32_t) * (uint64_t)max_blocks, 16);
    const uint64_t outcome_tokens = rt_align_up_u64(
        sizeof(struct rt_completion) + sizeof(struct rt_row_outcome) * (uint64_t)s->bucket_max, 16);
    const uint64_t completion =
        outcome_tokens + sizeof(int32_t) * (uint64_t)s->bucket_max * s->q_max;
    return (struct rt_record_format){
        .rows_offset = (uint32_t)rows,
        .tokens_offset = (uint32_t)tokens,
        .ops_offset = (uint32_t)ops,
        .ops_capacity = (uint32_t)(line + OPS_SPARE_BYTES),
        .record_bytes = (uint32_t)rt_align_up_u64(ops + line + OPS_SPARE_BYTES, 64),
        .outcome_tokens_offset = (uint32_t)outcome_tokens,
        .completion_bytes = (uint32_t)rt_align_up_u64(completion, 64),
    };
}

static uint64_t dim_value(const struct rt_placement *p, enum dim dim)
{
    const uint64_t values[] = {[DIM_NONE] = 0,
#define DIM_VALUE(name, value) [DIM_##name] = (value),
                               RT_DIM_LIST(DIM_VALUE)
#undef DIM_VALUE
    };
    return values[dim];
}

static bool align_up(uint64_t value, uint64_t *out)
{
    uint64_t room;
    if (!rt_add_u64(value, RT_TENSOR_ALIGN - 1, &room))
        return false;
    *out = rt_align_up_u64(value, RT_TENSOR_ALIGN);
    return true;
}

/* Puts the buffer at *end and moves *end behind it; false where a size does not fit 64 bits. */
static bool place(struct rt_placed *b, bool layered, uint32_t layers, uint64_t *end)
{
    uint64_t bytes = rt_dtype_bytes(b->dtype);
    for (uint32_t i = 0; i < b->rank; i++)
        if (!rt_mul_u64(bytes, b->shape[i], &bytes))
            return false;
    if (layered &&
        (!align_up(bytes, &b->layer_stride) || !rt_mul_u64(b->layer_stride, layers, &bytes)))
        return false;
    b->bytes = bytes;
    b->offset = *end;
    uint64_t behind;
    return rt_add_u64(b->offset, b->bytes, &behind) && align_up(behind, end);
}

static enum rt_status too_large(const struct rt_placed *b, uint32_t layers, struct rt_error *err)
{
    char shape[4 * 24] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < b->rank; i++)
        used += (size_t)snprintf(shape + used, sizeof(shape) - used, "%s%" PRIu64, i ? ", " : "",
                                 b->shape[i]);
    return rt_fail(err, RT_ERR_INVALID,
                   "%s [%s] of %u bytes an element, %u layers, ends beyond 64-bit sizes", b->name,
                   shape, rt_dtype_bytes(b->dtype), layers);
}

static enum rt_dtype dtype_of(const struct rt_dims *d, enum rt_dtype dtype)
{
    if (dtype == RT_DTYPE_CACHE && rt_kv_is_quantised(&d->kv))
        return RT_DTYPE_U8;
    if (dtype == RT_DTYPE_CACHE || dtype == RT_DTYPE_DATA)
        return d->is_f32 ? RT_DTYPE_F32 : RT_DTYPE_BF16;
    return dtype;
}

static bool layered(const struct rt_dims *d, enum rt_tensor_scope scope)
{
    return scope == RT_SCOPE_LAYER || (scope == RT_SCOPE_DATA && d->per_layer);
}

static enum rt_status place_all(struct rt_placement *p, struct rt_error *err)
{
    uint64_t end[] = {[RT_REGION_ARENA] = 0, [RT_REGION_MAPPED] = 0, [RT_REGION_POOL] = 0};
    for (uint32_t id = 0; id < RT_TENSOR_COUNT; id++) {
        struct rt_placed *const t = &p->tensors[id];
        *t = lines[id].tensor;
        t->dtype = dtype_of(&p->dims, t->dtype);
        while (t->rank < 4 && lines[id].dims[t->rank] != DIM_NONE) {
            t->shape[t->rank] = dim_value(p, lines[id].dims[t->rank]);
            t->rank++;
        }
        if (!place(t, layered(&p->dims, t->scope), p->dims.layers, &end[t->region]))
            return too_large(t, p->dims.layers, err);
    }
    p->arena_bytes = end[RT_REGION_ARENA];
    p->mapped_bytes = end[RT_REGION_MAPPED];
    p->pool_bytes = end[RT_REGION_POOL];
    return RT_OK;
}

enum rt_status rt_placement_make(const struct rt_dims *dims, struct rt_placement *out,
                                 struct rt_error *err)
{
    enum rt_status status;
    RT_TRY_GOTO(check_dims(dims, err));
    const uint32_t max_blocks = rt_ceil_div_u32(dims->max_length, dims->page_size * dims->context);
    *out = (struct rt_placement){
        .dims = *dims,
        .max_blocks = max_blocks,
        .record = record_format(dims, max_blocks),
    };
    RT_TRY_GOTO(place_all(out, err));
    return RT_OK;
fail:
    *out = (struct rt_placement){0};
    return status;
}

uint64_t rt_placement_page_bytes(const struct rt_dims *dims)
{
    uint64_t bytes;
    if (!rt_mul_u64(rt_kv_page_bytes(&dims->kv, dims->page_size), dims->layers, &bytes))
        return 0;
    return bytes;
}

enum rt_tensor_id rt_tensor_find(const struct rt_placement *placement, const char *name)
{
    uint32_t id = 0;
    while (id < RT_TENSOR_COUNT && strcmp(placement->tensors[id].name, name) != 0)
        id++;
    return (enum rt_tensor_id)id;
}
