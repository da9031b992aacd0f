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
#include "buffers/layout.h"

#include "common/math.h"
#include "common/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* No served model is wider; keeps the arithmetic of one record inside 32 bits with room to spare.
 */
#define MAX_WIDTH 1024u
#define WIDTH_MULTIPLE 8u /* rows of bf16 then begin at multiples of 16 bytes */
#define TILE_WORDS 8u     /* a tile record is eight int32 */
#define PAGE_COPY_WORDS (sizeof(struct rt_page_copy) / sizeof(int32_t))
#define COMPLETED_BYTES 64u /* one word, alone in its cache line */
#define OPS_SPARE_BYTES UINT64_C(16384)

struct dims {
    uint32_t rank;
    uint64_t shape[4];
    bool layered;
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

static enum rt_status check_shape(const struct rt_shape *s, struct rt_error *err)
{
    RT_TRY(check_range(err, "heads", s->heads, 1, RT_MAX_HEADS));
    RT_TRY(check_width(err, "d_qk", s->d_qk, MAX_WIDTH));
    RT_TRY(check_width(err, "d_v", s->d_v, s->d_qk));
    RT_TRY(check_range(err, "layers", s->layers, 1, UINT32_MAX));
    RT_TRY(check_range(err, "slots", s->slots, 1, RT_MAX_SEQUENCES));
    RT_TRY(check_range(err, "max_length", s->max_length, 1, RT_MAX_LENGTH));
    RT_REQUIRE(s->page_size == 16 || s->page_size == 32 || s->page_size == 64 ||
                   s->page_size == 128,
               err, RT_ERR_INVALID, "page_size = %u, valid are 16, 32, 64 and 128", s->page_size);
    RT_TRY(check_range(err, "pages", s->pages, 1, INT32_MAX));
    RT_TRY(check_range(err, "bucket_max", s->bucket_max, 1, RT_MAX_BATCH));
    RT_TRY(check_range(err, "rows", s->rows, s->bucket_max, UINT32_MAX));
    RT_TRY(check_range(err, "q_max", s->q_max, 1, RT_MAX_QUERY_LEN));
    RT_TRY(check_range(err, "parts_max", s->parts_max, 1, INT32_MAX));
    RT_TRY(check_range(err, "partial_rows", s->partial_rows, 1, UINT64_MAX));
    return check_range(err, "ring_depth", s->ring_depth, 2, 64);
}

/* Bounded by check_shape: a record is below half a megabyte. */
static struct rt_record_format record_format(const struct rt_shape *s, uint32_t max_blocks)
{
    const uint64_t rows = sizeof(struct rt_record);
    const uint64_t tokens =
        rt_align_up_u64(rows + sizeof(struct rt_record_row) * (uint64_t)s->bucket_max, 16);
    const uint64_t ops =
        rt_align_up_u64(tokens + sizeof(int32_t) * (uint64_t)s->bucket_max * s->q_max, 16);
    const uint64_t line = rt_align_up_u64(sizeof(int32_t) * (uint64_t)max_blocks, 16);
    const uint64_t outcomes = sizeof(struct rt_row_outcome) * (uint64_t)s->bucket_max;
    return (struct rt_record_format){
        .rows_offset = (uint32_t)rows,
        .tokens_offset = (uint32_t)tokens,
        .ops_offset = (uint32_t)ops,
        .ops_capacity = (uint32_t)(line + OPS_SPARE_BYTES),
        .record_bytes = (uint32_t)rt_align_up_u64(ops + line + OPS_SPARE_BYTES, 64),
        .completion_bytes = (uint32_t)rt_align_up_u64(sizeof(struct rt_completion) + outcomes, 64),
    };
}

static void fill_dims(const struct rt_layout *l, struct dims out[RT_BUF_COUNT])
{
    const struct rt_shape *s = &l->shape;
    const struct rt_record_format *f = &l->record;
    const struct dims table[RT_BUF_COUNT] = {
        [RT_BUF_CTRL] = {1, {sizeof(struct rt_ctrl)}, false},
        [RT_BUF_SLOT_LENGTH] = {1, {s->slots}, false},
        [RT_BUF_SLOT_TOKEN] = {1, {s->slots}, false},
        [RT_BUF_BLOCK_TABLE] = {2, {s->slots, l->max_blocks}, false},
        [RT_BUF_ROW_SLOT] = {1, {s->bucket_max}, false},
        [RT_BUF_ROW_POSITION] = {1, {s->bucket_max}, false},
        [RT_BUF_ROW_LENGTH] = {1, {s->bucket_max}, false},
        [RT_BUF_TOKENS] = {2, {s->rows, s->q_max}, false},
        [RT_BUF_ACCEPTED] = {1, {s->rows}, false},
        [RT_BUF_SAMPLED] = {1, {s->rows}, false},
        [RT_BUF_PAGE_COPIES] = {2, {RT_MAX_PAGE_COPIES, PAGE_COPY_WORDS}, false},
        [RT_BUF_TILES] = {2, {s->parts_max, TILE_WORDS}, false},
        [RT_BUF_NUM_SPLITS] = {1, {s->bucket_max + UINT64_C(1)}, false},
        [RT_BUF_Q] = {4, {s->rows, s->q_max, s->heads, s->d_qk}, s->per_layer},
        [RT_BUF_LATENT] = {3, {s->rows, s->q_max, s->d_qk}, s->per_layer},
        [RT_BUF_OUT] = {4, {s->rows, s->q_max, s->heads, s->d_v}, s->per_layer},
        [RT_BUF_LSE] = {3, {s->rows, s->q_max, s->heads}, s->per_layer},
        [RT_BUF_PARTIAL_LSE] = {1, {s->partial_rows}, false},
        [RT_BUF_PARTIAL_OUT] = {2, {s->partial_rows, s->d_v}, false},
        [RT_BUF_RECORDS] = {2, {s->ring_depth, f->record_bytes}, false},
        [RT_BUF_COMPLETIONS] = {2, {s->ring_depth, f->completion_bytes}, false},
        [RT_BUF_COMPLETED] = {1, {COMPLETED_BYTES}, false},
        [RT_BUF_KV] = {3, {s->pages, s->page_size, s->d_qk}, true},
    };
    memcpy(out, table, sizeof(table));
}

static bool align_up(uint64_t value, uint64_t *out)
{
    uint64_t room;
    if (!rt_add_u64(value, RT_BUFFER_ALIGN - 1, &room))
        return false;
    *out = rt_align_up_u64(value, RT_BUFFER_ALIGN);
    return true;
}

/* Puts the buffer at *end and moves *end behind it; false where a size does not fit 64 bits. */
static bool place(struct rt_buffer *b, bool layered, uint32_t layers, uint64_t *end)
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

static enum rt_status too_large(const struct rt_buffer *b, uint32_t layers, struct rt_error *err)
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

static enum rt_status place_all(struct rt_layout *l, struct rt_error *err)
{
    static const struct rt_buffer names[RT_BUF_COUNT] = {
#define RT_BUFFER_NAME(id, text, where, type)                                                      \
    [RT_BUF_##id] = {.name = text, .region = where, .dtype = type},
        RT_BUFFER_LIST(RT_BUFFER_NAME)
#undef RT_BUFFER_NAME
    };
    struct dims dims[RT_BUF_COUNT];
    fill_dims(l, dims);
    uint64_t end[] = {[RT_REGION_ARENA] = 0, [RT_REGION_MAPPED] = 0, [RT_REGION_POOL] = 0};
    for (uint32_t id = 0; id < RT_BUF_COUNT; id++) {
        struct rt_buffer *const b = &l->buffers[id];
        *b = names[id];
        b->rank = dims[id].rank;
        memcpy(b->shape, dims[id].shape, sizeof(b->shape));
        if (!place(b, dims[id].layered, l->shape.layers, &end[b->region]))
            return too_large(b, l->shape.layers, err);
    }
    l->arena_bytes = end[RT_REGION_ARENA];
    l->mapped_bytes = end[RT_REGION_MAPPED];
    l->pool_bytes = end[RT_REGION_POOL];
    return RT_OK;
}

enum rt_status rt_layout_compute(const struct rt_shape *shape, struct rt_layout *out,
                                 struct rt_error *err)
{
    enum rt_status status;
    RT_TRY_GOTO(check_shape(shape, err));
    const uint32_t max_blocks = rt_ceil_div_u32(shape->max_length, shape->page_size);
    *out = (struct rt_layout){
        .shape = *shape,
        .max_blocks = max_blocks,
        .record = record_format(shape, max_blocks),
    };
    RT_TRY_GOTO(place_all(out, err));
    return RT_OK;
fail:
    *out = (struct rt_layout){0};
    return status;
}

uint64_t rt_layout_page_bytes(const struct rt_shape *shape)
{
    uint64_t bytes = rt_dtype_bytes(RT_DTYPE_BF16);
    if (!rt_mul_u64(bytes, shape->page_size, &bytes) || !rt_mul_u64(bytes, shape->d_qk, &bytes) ||
        !rt_mul_u64(bytes, shape->layers, &bytes))
        return 0;
    return bytes;
}

uint32_t rt_dtype_bytes(enum rt_dtype dtype)
{
    switch (dtype) {
    case RT_DTYPE_U8:
        return 1;
    case RT_DTYPE_BF16:
        return 2;
    case RT_DTYPE_F32:
    case RT_DTYPE_I32:
        return 4;
    }
    return 0;
}

enum rt_buffer_id rt_layout_find(const struct rt_layout *layout, const char *name)
{
    uint32_t id = 0;
    while (id < RT_BUF_COUNT && strcmp(layout->buffers[id].name, name) != 0)
        id++;
    return (enum rt_buffer_id)id;
}
