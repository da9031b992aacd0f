/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/attend_case.h"

#include "common/math.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/parallel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POISON 0xff /* as bf16 and as float: NaN */
#define POISON_PAGE 2147480000
#define SPARE_PAGES 5u
#define SPARE_COLUMNS 2u
#define FAR_STRIDE (INT64_C(1) << 25) /* elements */
#define FAR_PAGES 80u
#define VALUES 4096u /* of a case, from which all its elements are drawn */
#define SLICES 16u   /* that a row's keys are filled in */
#define MOST_ROPE 64u
#define FAR 40 /* of 2 */

static uint32_t row_tokens(const struct ck_attend *c, uint32_t row)
{
    return row < c->rows - c->padded && c->lengths[row] > 0 ? (uint32_t)c->lengths[row] : 0;
}

static uint32_t row_pages(const struct ck_attend *c, uint32_t row)
{
    return rt_ceil_div_u32(row_tokens(c, row), c->page_size);
}

static uint32_t pool_pages(const struct ck_attend *c)
{
    uint32_t pages = SPARE_PAGES;
    for (uint32_t r = 0; r < c->rows; r++)
        pages += row_pages(c, r);
    return c->far ? FAR_PAGES : pages;
}

static uint32_t table_columns(const struct ck_attend *c)
{
    uint32_t columns = 0;
    for (uint32_t r = 0; r < c->rows; r++)
        columns = rt_max_u32(columns, row_pages(c, r));
    return columns + SPARE_COLUMNS;
}

static uint32_t table_line(const struct ck_attend *c, uint32_t row)
{
    return c->slots ? c->rows + 1 - row : row;
}

static uint32_t table_lines(const struct ck_attend *c)
{
    return c->rows + 2;
}

/* Of all columns alike, as a quantised token must be; of halves; of some next to others. What is no
 * value is as large as the largest value, so that all of these count in scores. */
int ck_attend_exponent(const struct ck_attend *c, uint32_t column)
{
    static const int halves[][2] = {{FAR, FAR}, {-FAR, -FAR}, {FAR, -FAR}, {0, -FAR}};
    const uint32_t kind = (uint32_t)(c->seed % (c->layout == RT_KV_BF16 ? 5 : 2));
    if (c->flavour != CK_FAR)
        return 0;
    if (kind == 4)
        return column < c->d_v && column / 4 % 8 == 5 ? -FAR : FAR;
    return halves[kind][column >= c->d_v / 2 && column < c->d_v];
}

static struct rt_attend_params shape_of(const struct ck_attend *c)
{
    int64_t gap = c->strided ? 8 : 0;
    int64_t q_head = c->d_qk + gap, q_token = c->heads * q_head + 2 * gap;
    int64_t out_head = c->d_v + gap, out_token = c->heads * out_head + gap;
    int64_t kv_token = c->d_qk + gap, kv_page = c->page_size * kv_token + 5 * gap;
    return (struct rt_attend_params){.q.head_stride = q_head,
                                     .q.token_stride = q_token,
                                     .q.row_stride = c->q_len * q_token + 4 * gap,
                                     .out.head_stride = out_head,
                                     .out.token_stride = out_token,
                                     .out.row_stride = c->q_len * out_token + 3 * gap,
                                     .lse.head_stride = c->strided ? c->q_len : 1,
                                     .lse.token_stride = c->strided ? 1 : c->heads,
                                     .lse.row_stride = c->q_len * c->heads + gap,
                                     .kv.token_stride_bytes = 2 * kv_token,
                                     .kv.page_stride_bytes = 2 * (c->far ? FAR_STRIDE : kv_page),
                                     .scale = ldexpf(c->scale, -ck_attend_exponent(c, c->d_qk)),
                                     .rows.count = c->rows,
                                     .rows.q_len = c->q_len,
                                     .heads = c->heads,
                                     .d_qk = c->d_qk,
                                     .d_v = c->d_v,
                                     .kv.page_size = c->page_size,
                                     .kv.max_blocks = table_columns(c),
                                     .causal = c->causal,
                                     .lse_base2 = c->lse_base2,
                                     .kv.pages = pool_pages(c)};
}

bool ck_attend_has_q_rope(const struct ck_attend *c)
{
    return c->seed % 3 == 0 && c->d_qk > c->d_v;
}

/* Heads, tokens and rows with gaps or without, whatever q has. */
static struct rt_heads_view q_rope_of(const struct ck_attend *c, void *base)
{
    const int64_t head = c->d_qk - c->d_v + 8 * (int64_t)(c->seed / 3 % 2);
    const int64_t token = c->heads * head + 24 * (int64_t)(c->seed / 6 % 2);
    return (struct rt_heads_view){base, c->q_len * token + 8 * (int64_t)(c->seed / 12 % 3), token,
                                  head};
}

static double value_of(const struct ck_attend *c, struct ck_random *random)
{
    double x = ck_random_normal(random) / 10;
    x = x > 1 ? 1 : x < -1 ? -1 : x;
    if (c->flavour == CK_EQUAL)
        return 0.125;
    return c->flavour == CK_HUGE ? round(x * 16) / 16 : x;
}

/* What is filled by many hands: queries or keys. */
struct filling {
    const struct ck_attend *c;
    const struct rt_attend_params *p;
    uint16_t values[VALUES];
    uint16_t *to;
    const int32_t *table;
};

static void start_filling(struct ck_random *random, struct filling *f)
{
    for (uint32_t i = 0; i < VALUES; i++)
        f->values[i] = rt_float_to_bf16((float)value_of(f->c, random));
}

/* A stream of its own for each hand, so that the outcome does not depend on who comes first. */
static struct ck_random random_of(const struct ck_attend *c, uint32_t kind, uint32_t row,
                                  uint32_t slice)
{
    struct ck_random mix = {.state =
                                c->seed ^ ((uint64_t)kind << 60 | (uint64_t)slice << 32 | row)};
    return (struct ck_random){.state = ck_random_u64(&mix)};
}

static void fill_row(const struct filling *f, struct ck_random *random, uint16_t *to)
{
    for (uint32_t d = 0; d < f->c->d_qk; d += 4) {
        uint64_t z = ck_random_u64(random);
        for (uint32_t i = 0; i < 4; i++)
            to[d + i] = f->values[(z >> 16 * i) % VALUES];
    }
}

static void move_key(const struct ck_attend *c, uint16_t *key)
{
    for (uint32_t d = 0; c->flavour == CK_FAR && d < c->d_qk; d++)
        key[d] = rt_float_to_bf16(ldexpf(rt_bf16_to_float(key[d]), ck_attend_exponent(c, d)));
}

/* The last element of q and k is 1 and +-inf: in the part that is not a value, if there is one. */
static void spoil_key(const struct ck_attend *c, uint32_t row, uint32_t position, uint16_t *key)
{
    uint16_t *last = &key[c->d_qk - 1];
    if (c->flavour == CK_MINUS_INF && (row % 2 || position % 3 == 0))
        *last = rt_float_to_bf16(-INFINITY);
    if (c->flavour == CK_PLUS_INF && row % 2 == 0 && position == 0)
        *last = rt_float_to_bf16(INFINITY);
    if (c->flavour == CK_NAN_KEY && row % 2 == 0 && position == 0)
        key[7] = rt_float_to_bf16(NAN);
}

/*
 * A piece whose only score is -inf is empty, whatever 0 times the value is, so infinity is no value
 * of the first key of a block. Nor of a key with several scales, where it would make one of 2^119:
 * the other tiles' numbers are off by 2^-30 of the largest at most, which is then anything.
 */
static bool may_be_infinite(const struct ck_attend *c, uint32_t position)
{
    const bool has_tiles =
        c->layout == RT_KV_V32 || c->layout == RT_KV_V32_NO_ROPE || c->layout == RT_KV_V4;
    return position % RT_BLOCK_TOKENS != 0 && !has_tiles;
}

/*
 * One of the keys that the row's first token does not see: three kinds of element, as a value or in
 * the rope part, sometimes two of them.
 */
static void spoil_draft(const struct ck_attend *c, uint32_t row, uint32_t position, uint16_t *key)
{
    const bool alone = !may_be_infinite(c, position);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const uint32_t from_end = row_tokens(c, row) - 1 - position, rope = c->d_qk - c->d_v;
    if (c->flavour != CK_BAD_DRAFT || c->q_len == 1 || from_end != row / 2 % (c->q_len - 1))
        return;
    if (row / 3 % 2 && rope)
        key[c->d_v + row * 7 % rope] = rt_float_to_bf16(bad[row % 3]);
    else
        key[row * 97 % c->d_v] = rt_float_to_bf16(alone ? NAN : bad[row % 3]);
    if (row % 4 == 3)
        key[row * 31 % c->d_v] = rt_float_to_bf16(alone ? NAN : bad[(row + 1) % 3]);
}

static uint16_t *query_at(const struct ck_attend *c, const struct rt_heads_view *view,
                          uint16_t *base, uint32_t row, uint32_t query)
{
    return base + (c->row_base + (int64_t)row) * view->row_stride +
           query / c->heads * view->token_stride + query % c->heads * view->head_stride;
}

static void fill_queries(void *arg, uint32_t row)
{
    const struct filling *f = arg;
    const struct ck_attend *c = f->c;
    struct ck_random random = random_of(c, 1, row, 0);
    bool infinite = c->flavour == CK_MINUS_INF || c->flavour == CK_PLUS_INF;
    uint32_t marked = ck_random_below(&random, c->q_len * c->heads);
    for (uint32_t i = 0; i < c->q_len * c->heads; i++) {
        uint16_t *to = query_at(c, &f->p->q, f->to, row, i);
        fill_row(f, &random, to);
        if (infinite)
            to[c->d_qk - 1] = rt_float_to_bf16(1);
        if (c->flavour == CK_NAN_QUERY && i == marked)
            to[ck_random_below(&random, c->d_qk)] = rt_float_to_bf16(NAN);
    }
}

/* Every row's pages are scattered over the pool; what is behind them in its line is poison. */
static void fill_table(const struct ck_attend *c, struct ck_random *random, int32_t *table)
{
    uint32_t columns = table_columns(c), pages = pool_pages(c);
    int32_t *ids = calloc(pages, sizeof(*ids));
    for (uint32_t i = 0; ids && i < pages; i++) {
        uint32_t j = ck_random_below(random, i + 1);
        ids[i] = ids[j];
        ids[j] = (int32_t)i;
    }
    uint32_t next = 0;
    for (uint32_t i = 0; i < table_lines(c) * columns; i++)
        table[i] = POISON_PAGE;
    for (uint32_t r = 0; ids && r < c->rows; r++)
        for (uint32_t i = 0; i < row_pages(c, r); i++)
            table[table_line(c, r) * columns + i] = ids[next++];
    free(ids);
}

static uint16_t *key_at(const struct filling *f, uint32_t row, uint32_t position)
{
    const struct ck_attend *c = f->c;
    int64_t page = f->table[table_line(c, row) * f->p->kv.max_blocks + position / c->page_size];
    return f->to + page * f->p->kv.page_stride_bytes / 2 +
           position % c->page_size * f->p->kv.token_stride_bytes / 2;
}

static void fill_keys(void *arg, uint32_t i)
{
    const struct filling *f = arg;
    uint32_t row = i / SLICES, slice = i % SLICES;
    struct ck_random random = random_of(f->c, 2, row, slice);
    uint64_t tokens = row_tokens(f->c, row);
    for (uint64_t t = tokens * slice / SLICES; t < tokens * (slice + 1) / SLICES; t++) {
        uint16_t *key = key_at(f, row, (uint32_t)t);
        fill_row(f, &random, key);
        move_key(f->c, key);
        spoil_key(f->c, row, (uint32_t)t, key);
        spoil_draft(f->c, row, (uint32_t)t, key);
    }
}

/* Far pages are mostly holes: only their keys travel. */
static void upload_far(struct ck *ck, const struct filling *f, const struct ck_buffer *kv)
{
    for (uint32_t r = 0; r < f->c->rows; r++)
        for (uint32_t i = 0; i < row_tokens(f->c, r); i++) {
            unsigned char *key = (unsigned char *)key_at(f, r, i);
            CK_DRV(ck, copy_in,
                   (&ck->driver, kv->device + (uint64_t)(key - kv->ref), key,
                    f->c->d_qk * sizeof(uint16_t), ck->stream));
        }
}

static void spoil_table(const struct ck_attend *c, const struct rt_attend_params *p, int32_t *table)
{
    const int32_t bad[] = {-1, (int32_t)p->kv.pages, INT32_MIN, INT32_MAX};
    for (uint32_t r = 0; c->flavour == CK_BAD_PAGES && r < c->rows; r++)
        for (uint32_t i = r % 2; i < row_pages(c, r); i += 3)
            table[table_line(c, r) * p->kv.max_blocks + i] = bad[(r + i) % 4];
}

static struct ck_buffer alloc_far(struct ck *ck, uint64_t bytes)
{
    struct ck_buffer b = {.name = "kv", .bytes = bytes, .ref = ck_new(ck, bytes)};
    CK_DRV(ck, mem_alloc, (&ck->driver, bytes, &b.device));
    CK_DRV(ck, fill, (&ck->driver, b.device, POISON, bytes, ck->stream));
    return b;
}

/* The rope parts of q against what q_rope has in their place. */
static void swap_rope(const struct ck_attend *c, const struct ck_attend_rig *rig)
{
    const size_t bytes = (c->d_qk - c->d_v) * sizeof(uint16_t);
    const struct rt_heads_view rope = q_rope_of(c, NULL);
    uint16_t *q = ck_at(&rig->q, CK_REF), *to = ck_at(&rig->q_rope, CK_REF), kept[MOST_ROPE];
    for (uint32_t row = 0; row < c->rows - c->padded; row++)
        for (uint32_t i = 0; i < c->q_len * c->heads; i++) {
            uint16_t *of_q = query_at(c, &rig->ref.q, q, row, i) + c->d_v;
            uint16_t *of_rope = query_at(c, &rope, to, row, i);
            memcpy(kept, of_q, bytes);
            memcpy(of_q, of_rope, bytes);
            memcpy(of_rope, kept, bytes);
        }
}

/* Where kernels have two tensors, the rope part of their q is poison. */
static void upload_queries(struct ck *ck, const struct ck_attend *c,
                           const struct ck_attend_rig *rig)
{
    if (!ck_attend_has_q_rope(c)) {
        ck_upload(ck, &rig->q);
        return;
    }
    swap_rope(c, rig);
    ck_upload(ck, &rig->q);
    ck_upload(ck, &rig->q_rope);
    swap_rope(c, rig);
}

static void alloc_inputs(struct ck *ck, const struct ck_attend *c, struct ck_attend_rig *rig)
{
    const struct rt_attend_params *p = &rig->ref;
    uint64_t data_rows = c->row_base + c->rows + 1;
    uint64_t kv_bytes = p->kv.pages * (uint64_t)p->kv.page_stride_bytes;
    uint64_t table_bytes = (uint64_t)table_lines(c) * p->kv.max_blocks * 4;
    rig->q = ck_alloc_later(ck, "q", data_rows * (uint64_t)p->q.row_stride * 2, POISON);
    if (ck_attend_has_q_rope(c))
        rig->q_rope = ck_alloc_later(
            ck, "q_rope", data_rows * (uint64_t)q_rope_of(c, NULL).row_stride * 2, POISON);
    rig->kv = c->far ? alloc_far(ck, kv_bytes) : ck_alloc_later(ck, "kv", kv_bytes, POISON);
    rig->table = ck_alloc_later(ck, "table", table_bytes, POISON);
    rig->slot = ck_alloc_later(ck, "row_slot", c->rows * 4, POISON);
    rig->length = ck_alloc_later(ck, "row_length", c->rows * 4, 0);
    rig->ctrl = ck_alloc_later(ck, "ctrl", sizeof(struct rt_ctrl), 0);
    rig->sink = ck_alloc_later(ck, "sink", c->heads * sizeof(float), POISON);
}

/* Half of them such that keys and sink weigh about the same. */
static void fill_sinks(const struct ck_attend *c, struct ck_attend_rig *rig)
{
    struct ck_random random = {.state = c->seed ^ 0x51a4u};
    float *sink = ck_at(&rig->sink, CK_REF);
    for (uint32_t h = 0; c->sink && h < c->heads; h++) {
        const float kinds[] = {-INFINITY, INFINITY, 100, -100}; /* beyond 2^128 of any sum */
        const uint32_t kind = ck_random_below(&random, 8);
        sink[h] = kind < 4 ? kinds[kind] : 3 + 3 * (float)ck_random_normal(&random);
    }
}

/* Lengths, slots and ctrl. */
static void fill_rows(const struct ck_attend *c, struct ck_attend_rig *rig)
{
    int32_t *slot = ck_at(&rig->slot, CK_REF), *length = ck_at(&rig->length, CK_REF);
    struct rt_ctrl *ctrl = ck_at(&rig->ctrl, CK_REF);
    for (uint32_t r = 0; r < c->rows; r++) {
        bool live = r < c->rows - c->padded;
        slot[r] = live ? (int32_t)table_line(c, r) : -1;
        length[r] = live ? c->lengths[r] : 0;
    }
    *ctrl = (struct rt_ctrl){.row_base = c->row_base, .live_rows = c->rows - c->padded};
}

static void point_inputs(const struct ck_attend *c, const struct ck_attend_rig *rig,
                         enum ck_side side, struct rt_attend_params *p)
{
    p->q.base = ck_at(&rig->q, side);
    p->kv.base = ck_at(&rig->kv, side);
    p->kv.table = ck_at(&rig->table, side);
    p->rows.slot = c->slots ? ck_at(&rig->slot, side) : NULL;
    p->rows.length = ck_at(&rig->length, side);
    p->rows.ctrl = c->row_base > 0 || c->padded > 0 ? ck_at(&rig->ctrl, side) : NULL;
    p->sink = c->sink ? ck_at(&rig->sink, side) : NULL;
}

static struct rt_reduce_params reduce_of(const struct rt_attend_params *p)
{
    return (struct rt_reduce_params){.partials = p->partials,
                                     .schedule = p->schedule,
                                     .rows = p->rows,
                                     .out = p->out,
                                     .lse = p->lse,
                                     .heads = p->heads,
                                     .d_v = p->d_v,
                                     .lse_base2 = p->lse_base2,
                                     .sink = p->sink};
}

void ck_attend_inputs(struct ck *ck, const struct ck_attend *c, struct ck_attend_rig *rig)
{
    struct ck_random random = {.state = c->seed};
    *rig = (struct ck_attend_rig){.ref = shape_of(c)};
    alloc_inputs(ck, c, rig);
    fill_rows(c, rig);
    fill_sinks(c, rig);
    fill_table(c, &random, ck_at(&rig->table, CK_REF));
    struct filling *f = ck_new(ck, sizeof(*f));
    *f = (struct filling){.c = c, .p = &rig->ref, .table = ck_at(&rig->table, CK_REF)};
    start_filling(&random, f);
    f->to = ck_at(&rig->q, CK_REF);
    ck_parallel(c->rows - c->padded, fill_queries, f);
    f->to = ck_at(&rig->kv, CK_REF);
    ck_parallel(c->rows * SLICES, fill_keys, f);
    if (c->far)
        upload_far(ck, f, &rig->kv);
    free(f);
    if (c->layout != RT_KV_BF16)
        ck_attend_quantise(ck, c, rig);
    spoil_table(c, &rig->ref, ck_at(&rig->table, CK_REF));
    upload_queries(ck, c, rig);
    const struct ck_buffer *inputs[] = {&rig->table, &rig->slot, &rig->length,
                                        &rig->ctrl,  &rig->sink, &rig->kv};
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]) - c->far; i++)
        ck_upload(ck, inputs[i]);
    point_inputs(c, rig, CK_REF, &rig->ref);
}

/* The schedule, and partial buffers of exactly its slots. */
static void fill_plan(struct ck *ck, const struct ck_attend *c, struct ck_attend_rig *rig)
{
    struct rt_schedule_params plan = {.rows.length = ck_at(&rig->length, CK_REF),
                                      .schedule.parts = ck_at(&rig->tiles, CK_REF),
                                      .schedule.num_splits = ck_at(&rig->num_splits, CK_REF),
                                      .rows.count = c->rows,
                                      .schedule.part_count = rig->choice.parts,
                                      .schedule.invariant = rig->choice.invariant,
                                      .overhead_blocks = rig->choice.overhead_blocks,
                                      .min_blocks = rig->choice.min_blocks};
    rt_ref_schedule(&plan);
    uint64_t rows =
        (uint64_t)rt_max_u32((uint32_t)plan.schedule.num_splits[c->rows], 1) * c->heads * c->q_len;
    rig->partial_out = ck_alloc(ck, "partial_out", rows * c->d_v * 4, POISON);
    rig->partial_lse = ck_alloc(ck, "partial_lse", rows * 4, POISON);
    ck_upload(ck, &rig->tiles);
    ck_upload(ck, &rig->num_splits);
}

void ck_attend_plan(struct ck *ck, const struct ck_attend *c, const struct rt_variant *choice,
                    struct ck_attend_rig *rig)
{
    uint64_t data_rows = c->row_base + c->rows + 1;
    uint64_t tiles_bytes = choice->parts * sizeof(struct rt_part);
    uint64_t splits_bytes = (c->rows + 1) * 4u;
    rig->choice = *choice;
    rig->ref.schedule.part_count = choice->parts;
    rig->ref.schedule.invariant = choice->invariant;
    rig->tiles = ck_alloc_later(ck, "tiles", tiles_bytes, 0);
    rig->num_splits = ck_alloc_later(ck, "num_splits", splits_bytes, 0);
    rig->stamps = ck_alloc(ck, "stamps", 2 * sizeof(uint64_t), 0);
    rig->out = ck_alloc(ck, "out", data_rows * (uint64_t)rig->ref.out.row_stride * 2, POISON);
    rig->lse = ck_alloc(ck, "lse", data_rows * (uint64_t)rig->ref.lse.row_stride * 4, POISON);
    fill_plan(ck, c, rig);
    rig->attend = rig->ref;
    point_inputs(c, rig, CK_DEVICE, &rig->attend);
    if (c->layout != RT_KV_BF16)
        rig->attend.kv = ck_attend_quant_kv(c, rig);
    rig->attend.schedule.parts = ck_at(&rig->tiles, CK_DEVICE);
    rig->attend.schedule.num_splits = ck_at(&rig->num_splits, CK_DEVICE);
    rig->attend.out.base = ck_at(&rig->out, CK_DEVICE);
    rig->attend.lse.base = ck_at(&rig->lse, CK_DEVICE);
    rig->attend.partials.out = ck_at(&rig->partial_out, CK_DEVICE);
    rig->attend.partials.lse = ck_at(&rig->partial_lse, CK_DEVICE);
    rig->reduce = reduce_of(&rig->attend);
    uint64_t *stamps = ck_at(&rig->stamps, CK_DEVICE);
    rig->attend.stamp_first = &stamps[0];
    /* Nothing is in flight here: blocks without work may leave, and keys come before the wait. */
    rig->attend.early = c->seed % 2;
    if (ck_attend_has_q_rope(c))
        rig->attend.q_rope = q_rope_of(c, ck_at(&rig->q_rope, CK_DEVICE));
    rig->reduce.stamp_last = &stamps[1];
}

static void free_all(struct ck *ck, struct ck_buffer *const *all, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ck_free(ck, all[i]);
}

void ck_attend_unplan(struct ck *ck, struct ck_attend_rig *rig)
{
    struct ck_buffer *all[] = {&rig->tiles,       &rig->num_splits,  &rig->out,   &rig->lse,
                               &rig->partial_out, &rig->partial_lse, &rig->stamps};
    free_all(ck, all, sizeof(all) / sizeof(all[0]));
}

void ck_attend_free(struct ck *ck, struct ck_attend_rig *rig)
{
    struct ck_buffer *all[] = {&rig->q,      &rig->q_rope, &rig->kv,   &rig->table, &rig->slot,
                               &rig->length, &rig->ctrl,   &rig->sink, &rig->quant, &rig->plain};
    /* The last two are there with quantised layouts. */
    free_all(ck, all, sizeof(all) / sizeof(all[0]) - (rig->quant.bytes ? 0 : 2));
}

void ck_attend_launches(struct ck *ck, const struct ck_attend_rig *rig, struct rt_launch *attend,
                        struct rt_launch *reduce)
{
    struct rt_error err = {0};
    const struct rt_attend_quant_params quant = {.attend = rig->attend, .quant = rig->quant_view};
    const bool quantised = rig->choice.op == RT_OP_ATTEND_QUANT;
    const size_t bytes = quantised ? sizeof(quant) : sizeof(quant.attend);
    ck_must(ck, ck_build_variant(ck, &rig->choice, &quant, bytes, attend, &err), &err);
    const struct rt_op_request request = {.caps = &ck->driver.caps};
    struct rt_variant variant;
    ck_must(ck, rt_op_resolve(RT_OP_REDUCE, &request, &variant, &err), &err);
    variant.invariant = rig->choice.invariant; /* what the case's attention leaves */
    ck_must(ck, ck_build_variant(ck, &variant, &rig->reduce, sizeof(rig->reduce), reduce, &err),
            &err);
}

bool ck_choose_tile(struct ck *ck, const char *kind, const uint32_t d[2], uint32_t query_rows,
                    uint32_t tile_rows, struct rt_variant *choice)
{
    char name[RT_LAUNCH_NAME_BYTES];
    uint32_t count;
    const struct rt_kernel_entry *entries = rt_kernel_entries(&count);
    (void)snprintf(name, sizeof(name), "rt_mla_%s_%ux%u_r%u", kind, d[0], d[1], tile_rows);
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(entries[i].entry, name) != 0)
            continue;
        choice->entry = entries[i].entry;
        choice->tile_rows = tile_rows;
        choice->m_tiles = rt_ceil_div_u32(query_rows, tile_rows);
        choice->smem_bytes = entries[i].smem_bytes;
        return !ck_is_cuda(ck) || choice->smem_bytes <= ck->driver.caps.smem_optin_bytes;
    }
    return false;
}

bool ck_attend_resolve(struct ck *ck, const struct ck_attend *c, enum rt_backend backend,
                       uint32_t invariant, struct rt_variant *out)
{
    struct rt_kv_format kv;
    const enum rt_op_id op = c->layout == RT_KV_BF16 ? RT_OP_ATTEND : RT_OP_ATTEND_QUANT;
    (void)ck_attend_format(c, &kv);
    const struct rt_op_request request = {.caps = &ck->driver.caps,
                                          .kv = &kv,
                                          .heads = c->heads,
                                          .q_len = c->q_len,
                                          .page_size = c->page_size,
                                          .backend = backend,
                                          .invariant = invariant};
    struct rt_error err = {0};
    enum rt_status status = rt_op_resolve(op, &request, out, &err);
    if (status == RT_ERR_UNSUPPORTED)
        return false;
    ck_must(ck, status, &err);
    if (c->parts > 0) {
        out->parts = c->parts;
        out->overhead_blocks = invariant ? 0 : c->overhead_blocks;
        out->min_blocks = invariant ? 1 : c->min_blocks;
    }
    if (c->is_many)
        out->many_rows = 1;
    const uint32_t d[] = {c->d_qk, c->d_v};
    return c->tile_rows == 0 || ck_choose_tile(ck, op == RT_OP_ATTEND ? "attend" : "attend_quant",
                                               d, c->heads * c->q_len, c->tile_rows, out);
}
