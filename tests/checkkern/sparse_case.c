/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/sparse_case.h"

#include "common/bf16.h"
#include "common/math.h"
#include "kernels/counted_view.h"
#include "kernels/quant_view.h"
#include "kernels/ref/quant.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/attend_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define POISON 0xff
#define POISON_BITS 0xffff          /* of an element that nobody has filled */
#define SPARE_PAGES 3u              /* of nobody: what stands behind counts names them */
#define TENSOR_SCALE (0.8125f / 64) /* of four bits: bf16 has its products with e4m3 */

static uint32_t columns_of(const struct ck_sparse_list *l)
{
    return rt_ceil_div_u32(l->tokens, l->page_size);
}

static uint32_t lines_of(const struct ck_sparse *c)
{
    return c->rows + 2;
}

static uint32_t line_of(const struct ck_sparse *c, uint32_t row)
{
    return c->slots ? c->rows + 1 - row : row;
}

static uint32_t pages_of(const struct ck_sparse *c, const struct ck_sparse_list *l)
{
    return columns_of(l) * (l->by_position ? c->rows : 1) + SPARE_PAGES;
}

static uint32_t tokens_of(const struct ck_sparse *c)
{
    return (c->row_base + c->rows) * c->q_len;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static struct rt_kv_view kv_shape(const struct ck_sparse *c, const struct ck_sparse_list *l)
{
    const int64_t token = 2 * (int64_t)(c->d_qk + (c->strided ? 8 : 0));
    return (struct rt_kv_view){.token_stride_bytes = token,
                               .page_stride_bytes = token * l->page_size + (c->strided ? 80 : 0),
                               .page_size = l->page_size,
                               .max_blocks = l->by_position ? columns_of(l) : 0,
                               .pages = pages_of(c, l),
                               .token_bytes = 2 * c->d_qk};
}

static struct rt_sparse_view list_shape(const struct ck_sparse *c, const struct ck_sparse_list *l)
{
    return (struct rt_sparse_view){.token_stride = l->topk + (c->strided ? 3 : 0),
                                   .topk = l->topk,
                                   .count_tokens = l->counts == 2 ? c->q_len : 1,
                                   .by_position = l->by_position};
}

static struct rt_heads_view heads_shape(const struct ck_sparse *c, uint32_t width, int64_t gap)
{
    const int64_t head = width + gap, token = c->heads * head + 2 * gap;
    return (struct rt_heads_view){NULL, c->q_len * token + gap, token, head};
}

static struct rt_attend_params attend_shape(const struct ck_sparse *c)
{
    const int64_t gap = c->strided ? 8 : 0;
    struct rt_attend_params p = {.q = heads_shape(c, c->q_rope ? c->d_v : c->d_qk, gap),
                                 .out = heads_shape(c, c->d_v, gap),
                                 .lse = heads_shape(c, 1, 0),
                                 .kv = kv_shape(c, &c->keys),
                                 .rows = {.count = c->rows * c->q_len, .q_len = 1},
                                 .scale = c->scale,
                                 .heads = c->heads,
                                 .d_qk = c->d_qk,
                                 .d_v = c->d_v,
                                 .lse_base2 = c->lse_base2};
    if (c->strided) { /* [row, head, token] */
        p.lse.head_stride = c->q_len;
        p.lse.token_stride = 1;
    }
    if (c->q_rope)
        p.q_rope = heads_shape(c, c->d_qk - c->d_v, gap);
    return p;
}

static struct rt_kv_format format_of(const struct ck_sparse *c)
{
    struct rt_kv_format format;
    (void)rt_kv_format_make(c->layout, RT_PRECISION_BF16, c->d_qk, c->d_v, &format);
    return format;
}

/* Likewise of what is quantised. */
static struct rt_kv_view quant_shape(const struct ck_sparse *c, const struct ck_sparse_list *l)
{
    const struct rt_kv_format format = format_of(c);
    struct rt_kv_view kv = kv_shape(c, l);
    kv.token_bytes = format.row_bytes;
    kv.token_stride_bytes = format.row_bytes + (c->strided ? 16 : 0);
    kv.page_stride_bytes = (int64_t)rt_align_up_u64(
        l->page_size * ((uint64_t)kv.token_stride_bytes + format.token_bytes - format.row_bytes),
        16);
    return kv;
}

/* ---- contents -------------------------------------------------------------------------------- */

static uint16_t value(struct ck_random *random)
{
    const double x = ck_random_normal(random) / 10;
    return rt_float_to_bf16((float)(x > 1 ? 1 : x < -1 ? -1 : x));
}

/* Every row's pages are scattered over the pool; some columns lead nowhere. */
static void fill_table(struct ck *ck, const struct ck_sparse *c, const struct ck_sparse_list *l,
                       struct ck_random *random, struct ck_buffer *b)
{
    const uint32_t columns = columns_of(l), pages = pages_of(c, l) - SPARE_PAGES;
    const int32_t bad[] = {-1, (int32_t)pages_of(c, l), INT32_MIN, INT32_MAX};
    int32_t *table = ck_at(b, CK_REF), *ids = ck_new(ck, pages * sizeof(*ids));
    for (uint32_t i = 0; i < pages; i++) {
        const uint32_t j = ck_random_below(random, i + 1);
        ids[i] = ids[j];
        ids[j] = (int32_t)i;
    }
    for (uint32_t i = 0; i < lines_of(c) * columns; i++)
        table[i] = INT32_MAX;
    for (uint32_t r = 0; r < c->rows; r++)
        for (uint32_t i = 0; i < columns; i++)
            table[line_of(c, r) * columns + i] = ck_random_below(random, 20) == 0
                                                     ? bad[ck_random_below(random, 4)]
                                                     : ids[r * columns + i];
    free(ids);
}

/* The token of the pool that an entry leads to; null: none. */
static uint16_t *key_at(const struct ck_sparse *c, const struct ck_sparse_list *l,
                        const struct ck_sparse_list_rig *rig, uint32_t row, int32_t entry)
{
    const struct rt_kv_view kv = kv_shape(c, l);
    int64_t page = entry / (int32_t)l->page_size;
    if (entry < 0 || page >= (l->by_position ? columns_of(l) : pages_of(c, l)))
        return NULL;
    if (l->by_position)
        page =
            ((const int32_t *)ck_at(&rig->table, CK_REF))[line_of(c, row) * columns_of(l) + page];
    if (page < 0 || page >= pages_of(c, l))
        return NULL;
    return (uint16_t *)(rig->kv.ref + page * kv.page_stride_bytes +
                        entry % (int32_t)l->page_size * kv.token_stride_bytes);
}

static int32_t draw_entry(const struct ck_sparse *c, const struct ck_sparse_list *l,
                          struct ck_random *random, const int32_t *list, uint32_t i)
{
    const uint32_t pool = pages_of(c, l) * l->page_size;
    const int32_t nowhere[] = {-1, INT32_MIN, INT32_MAX,
                               l->by_position ? (int32_t)(columns_of(l) * l->page_size)
                                              : (int32_t)pool};
    const uint32_t kind = ck_random_below(random, 16);
    if (kind == 0)
        return -1;
    if (kind == 1)
        return nowhere[ck_random_below(random, 4)];
    if (kind < 4 && i > 0)
        return list[ck_random_below(random, i)];
    return (int32_t)ck_random_below(random, l->tokens);
}

/* Behind its count a list names tokens of nobody, all of them NaN, or what may be anything. */
static int32_t behind_count(const struct ck_sparse *c, const struct ck_sparse_list *l,
                            struct ck_random *random)
{
    const uint32_t first = (pages_of(c, l) - SPARE_PAGES) * l->page_size;
    if (l->by_position || ck_random_below(random, 2))
        return INT32_MAX;
    return (int32_t)(first + ck_random_below(random, SPARE_PAGES * l->page_size));
}

static uint32_t entries_of(const struct ck_sparse *c, const struct ck_sparse_list *l,
                           const struct ck_sparse_list_rig *rig, uint32_t token)
{
    if (!l->counts)
        return l->topk;
    const int32_t count =
        ((const int32_t *)ck_at(&rig->count, CK_REF))[l->counts == 2 ? token / c->q_len : token];
    return count < 0 ? 0 : rt_min_u32((uint32_t)count, l->topk);
}

static void fill_counts(const struct ck_sparse *c, const struct ck_sparse_list *l,
                        struct ck_random *random, struct ck_buffer *b)
{
    const int32_t edges[] = {0, -7, 1, (int32_t)l->topk, (int32_t)l->topk + 1, INT32_MAX, 64, 65};
    int32_t *count = ck_at(b, CK_REF);
    for (uint32_t i = 0; i < tokens_of(c); i++)
        count[i] = ck_random_below(random, 3) == 0 ? edges[ck_random_below(random, 8)]
                                                   : (int32_t)ck_random_below(random, l->topk + 1);
}

static void fill_list(struct ck *ck, const struct ck_sparse *c, const struct ck_sparse_list *l,
                      struct ck_random *random, struct ck_sparse_list_rig *rig)
{
    const int64_t stride = list_shape(c, l).token_stride;
    if (l->by_position)
        fill_table(ck, c, l, random, &rig->table);
    fill_counts(c, l, random, &rig->count);
    for (uint32_t t = c->row_base * c->q_len; t < tokens_of(c); t++) {
        int32_t *list = (int32_t *)ck_at(&rig->index, CK_REF) + t * stride;
        const uint32_t holds = entries_of(c, l, rig, t), row = t / c->q_len - c->row_base;
        for (uint32_t i = 0; i < l->topk; i++) {
            list[i] = i < holds ? draw_entry(c, l, random, list, i) : behind_count(c, l, random);
            if (c->nothing && row % 2 == 0 && i < holds)
                list[i] = -1;
            uint16_t *key = i < holds && !c->blank ? key_at(c, l, rig, row, list[i]) : NULL;
            for (uint32_t d = 0; key && d < c->d_qk && key[c->d_qk - 1] == POISON_BITS; d++)
                key[d] = value(random);
        }
    }
}

/* The filled keys of kv become what their quantised rows hold. */
static struct rt_quant_view quantise(struct ck *ck, const struct ck_sparse *c,
                                     const struct ck_sparse_list *l, struct ck_sparse_list_rig *rig)
{
    const struct rt_kv_format format = format_of(c);
    const struct rt_kv_view plain = kv_shape(c, l);
    struct rt_kv_view kv = quant_shape(c, l);
    const struct rt_quant_view view = rt_quant_view_make(&format, &kv, TENSOR_SCALE);
    rig->quant = ck_alloc(ck, "quantised kv", kv.pages * (uint64_t)kv.page_stride_bytes, POISON);
    kv.base = ck_at(&rig->quant, CK_REF);
    for (int64_t page = 0; page < kv.pages; page++)
        for (int64_t row = 0; row < kv.page_size; row++) {
            uint16_t *key = (uint16_t *)(rig->kv.ref + page * plain.page_stride_bytes +
                                         row * plain.token_stride_bytes);
            const struct rt_ref_quant_row to = rt_ref_quant_row(&kv, &view, page, row);
            if (key[c->d_qk - 1] == POISON_BITS)
                continue;
            rt_ref_quantise(&view, key, c->d_qk, to);
            rt_ref_dequantise(&view, to, c->d_qk, key);
        }
    ck_upload(ck, &rig->quant);
    return view;
}

static void fill_rest(const struct ck_sparse *c, struct ck_random *random,
                      struct ck_sparse_rig *rig)
{
    int32_t *slot = ck_at(&rig->slot, CK_REF), *length = ck_at(&rig->row_length, CK_REF);
    uint16_t *q = ck_at(&rig->q, CK_REF), *rope = ck_at(&rig->q_rope, CK_REF);
    float *sink = ck_at(&rig->sink, CK_REF);
    for (uint32_t r = 0; r < c->rows; r++) {
        const bool live = r < c->rows - c->padded;
        slot[r] = live ? (int32_t)line_of(c, r) : -1;
        length[r] = live ? 5 : 0;
    }
    for (uint64_t i = 0; i < rig->q.bytes / 2; i++)
        q[i] = value(random);
    for (uint64_t i = 0; i < rig->q_rope.bytes / 2; i++)
        rope[i] = value(random);
    for (uint32_t h = 0; h < c->heads; h++) {
        const float kinds[] = {-INFINITY, INFINITY, 90, -90};
        const uint32_t kind = ck_random_below(random, 8);
        sink[h] = kind < 4 ? kinds[kind] : 3 + 3 * (float)ck_random_normal(random);
    }
    *(struct rt_ctrl *)ck_at(&rig->ctrl, CK_REF) = (struct rt_ctrl){.row_base = c->row_base};
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void alloc_list(struct ck *ck, const struct ck_sparse *c, const struct ck_sparse_list *l,
                       struct ck_sparse_list_rig *rig)
{
    const struct rt_kv_view kv = kv_shape(c, l);
    const uint64_t table = l->by_position ? (uint64_t)lines_of(c) * columns_of(l) : 1;
    rig->kv = ck_alloc(ck, "kv", kv.pages * (uint64_t)kv.page_stride_bytes, POISON);
    rig->table = ck_alloc(ck, "table", table * 4, POISON);
    rig->index =
        ck_alloc(ck, "index", tokens_of(c) * (uint64_t)list_shape(c, l).token_stride * 4, POISON);
    rig->count = ck_alloc(ck, "count", tokens_of(c) * 4, POISON);
}

static void alloc_inputs(struct ck *ck, const struct ck_sparse *c, struct ck_sparse_rig *rig)
{
    const struct rt_attend_params p = attend_shape(c);
    const uint64_t rows = c->row_base + c->rows;
    rig->q = ck_alloc(ck, "q", rows * (uint64_t)p.q.row_stride * 2, POISON);
    rig->q_rope =
        ck_alloc(ck, "q_rope", c->q_rope ? rows * (uint64_t)p.q_rope.row_stride * 2 : 2, POISON);
    rig->slot = ck_alloc(ck, "slot", c->rows * 4, POISON);
    rig->row_length = ck_alloc(ck, "row_length", c->rows * 4, POISON);
    rig->ctrl = ck_alloc(ck, "ctrl", sizeof(struct rt_ctrl), 0);
    rig->sink = ck_alloc(ck, "sink", c->heads * 4, POISON);
    rig->out = ck_alloc(ck, "out", rows * (uint64_t)p.out.row_stride * 2, POISON);
    rig->lse = ck_alloc(ck, "lse", rows * (uint64_t)p.lse.row_stride * 4, POISON);
    rig->length = ck_alloc(ck, "length", c->rows * c->q_len * 4, POISON);
    rig->parts = ck_alloc(ck, "parts", rig->choice.parts * sizeof(struct rt_part), POISON);
    rig->num_splits = ck_alloc(ck, "num_splits", (c->rows * c->q_len + 1) * 4, POISON);
}

static void point_list(const struct ck_sparse *c, const struct ck_sparse_list *l,
                       const struct ck_sparse_list_rig *rig, enum ck_side side,
                       struct rt_sparse_view *view, struct rt_kv_view *kv)
{
    *view = (struct rt_sparse_view){0};
    *kv = (struct rt_kv_view){0};
    if (!l->topk)
        return;
    *view = list_shape(c, l);
    *kv = kv_shape(c, l);
    view->index = ck_at(&rig->index, side);
    view->count = l->counts ? ck_at(&rig->count, side) : NULL;
    kv->base = ck_at(&rig->kv, side);
    if (side == CK_DEVICE && c->layout != RT_KV_BF16) {
        *kv = quant_shape(c, l);
        kv->base = ck_at(&rig->quant, side);
    }
    kv->table = l->by_position ? ck_at(&rig->table, side) : NULL;
}

static void point(const struct ck_sparse *c, struct ck_sparse_rig *rig, enum ck_side side)
{
    struct rt_sparse_attend_params *a = &rig->attend[side];
    struct rt_sparse_schedule_params *s = &rig->schedule[side];
    *a = (struct rt_sparse_attend_params){.attend = attend_shape(c), .q_len = c->q_len};
    a->attend.q.base = ck_at(&rig->q, side);
    a->attend.q_rope.base = c->q_rope ? ck_at(&rig->q_rope, side) : NULL;
    a->attend.out.base = ck_at(&rig->out, side);
    a->attend.lse.base = ck_at(&rig->lse, side);
    a->attend.rows.length = ck_at(&rig->length, side);
    a->attend.rows.ctrl = c->row_base ? ck_at(&rig->ctrl, side) : NULL;
    a->attend.schedule = (struct rt_schedule_view){
        ck_at(&rig->parts, side), ck_at(&rig->num_splits, side), rig->choice.parts, 0};
    a->attend.sink = c->sink ? ck_at(&rig->sink, side) : NULL;
    a->slot = c->slots ? ck_at(&rig->slot, side) : NULL;
    point_list(c, &c->keys, &rig->keys, side, &a->keys, &a->attend.kv);
    point_list(c, &c->extra, &rig->extra, side, &a->extra, &a->extra_kv);
    *s = (struct rt_sparse_schedule_params){
        .schedule = {.schedule = a->attend.schedule,
                     .overhead_blocks = rig->choice.overhead_blocks,
                     .min_blocks = rig->choice.min_blocks,
                     .rows = a->attend.rows},
        .keys = a->keys,
        .extra = a->extra,
        .length = ck_at(&rig->length, side),
        .row_length = c->padded ? ck_at(&rig->row_length, side) : NULL,
        .q_len = c->q_len,
    };
}

/* Partial buffers of exactly the slots that the reference's schedule has; what is measured may have
 * another. */
static void plan(struct ck *ck, const struct ck_sparse *c, struct ck_sparse_rig *rig)
{
    rt_ref_sparse_schedule(&rig->schedule[CK_REF]);
    const int32_t *splits = ck_at(&rig->num_splits, CK_REF);
    const uint32_t planned = rt_max_u32((uint32_t)splits[c->rows * c->q_len], 1);
    const uint64_t slots =
        c->blank ? rt_max_split_slots(&rig->choice, c->rows * c->q_len, UINT32_MAX) : planned;
    const uint64_t rows = slots * c->heads;
    rig->partial_out = ck_alloc(ck, "partial_out", rows * c->d_v * 4, POISON);
    rig->partial_lse = ck_alloc(ck, "partial_lse", rows * 4, POISON);
    struct rt_attend_params *a = &rig->attend[CK_DEVICE].attend;
    a->partials.out = ck_at(&rig->partial_out, CK_DEVICE);
    a->partials.lse = ck_at(&rig->partial_lse, CK_DEVICE);
    rig->reduce = (struct rt_reduce_params){.partials = a->partials,
                                            .schedule = a->schedule,
                                            .rows = a->rows,
                                            .out = a->out,
                                            .lse = a->lse,
                                            .heads = a->heads,
                                            .d_v = a->d_v,
                                            .lse_base2 = a->lse_base2,
                                            .sink = a->sink,
                                            .row_tokens = c->q_len};
}

static bool resolve(struct ck *ck, const struct ck_sparse *c, struct rt_variant *out)
{
    struct rt_kv_format kv;
    struct rt_error err = {0};
    const enum rt_op_id op =
        c->layout == RT_KV_BF16 ? RT_OP_SPARSE_ATTEND : RT_OP_SPARSE_ATTEND_QUANT;
    kv = format_of(c);
    const struct rt_op_request request = {.caps = &ck->driver.caps,
                                          .kv = &kv,
                                          .heads = c->heads,
                                          .q_len = c->q_len,
                                          .page_size = c->keys.page_size,
                                          .backend = c->backend};
    const enum rt_status status = rt_op_resolve(op, &request, out, &err);
    if (status == RT_ERR_UNSUPPORTED)
        return false;
    ck_must(ck, status, &err);
    if (c->parts) {
        out->parts = c->parts;
        out->overhead_blocks = c->overhead_blocks;
        out->min_blocks = c->min_blocks;
    }
    const uint32_t d[] = {c->d_qk, c->d_v};
    return c->tile_rows == 0 || out->backend != RT_BACKEND_GENERIC ||
           ck_choose_tile(ck, op == RT_OP_SPARSE_ATTEND ? "sparse" : "sparse_quant", d, c->heads,
                          c->tile_rows, out);
}

void ck_sparse_attend(struct ck *ck, const struct ck_sparse_rig *rig, struct rt_launch *out)
{
    const struct rt_sparse_attend_quant_params p = {
        .sparse = rig->attend[CK_DEVICE], .quant = rig->quant, .extra_quant = rig->extra_quant};
    const bool quantised = rig->choice.op == RT_OP_SPARSE_ATTEND_QUANT;
    struct rt_error err = {0};
    ck_must(
        ck,
        ck_build_variant(ck, &rig->choice, &p, quantised ? sizeof(p) : sizeof(p.sparse), out, &err),
        &err);
}

void ck_sparse_count(const struct ck_sparse *c, struct ck_sparse_rig *rig)
{
    struct rt_sparse_attend_params *p = &rig->attend[CK_DEVICE];
    p->counted = rt_counted_view_make(&rig->choice, &p->keys, &p->extra,
                                      rig->schedule[CK_DEVICE].row_length, c->q_len);
    p->attend.rows.length = NULL;
    p->attend.schedule.parts = NULL;
    p->attend.schedule.num_splits = NULL;
    rig->reduce.rows = p->attend.rows;
    rig->reduce.schedule = p->attend.schedule;
    rig->reduce.counted = p->counted;
}

bool ck_sparse_make(struct ck *ck, const struct ck_sparse *c, struct ck_sparse_rig *rig)
{
    struct ck_random random = {.state = c->seed};
    *rig = (struct ck_sparse_rig){0};
    if (!resolve(ck, c, &rig->choice))
        return false;
    alloc_inputs(ck, c, rig);
    fill_rest(c, &random, rig);
    alloc_list(ck, c, &c->keys, &rig->keys);
    fill_list(ck, c, &c->keys, &random, &rig->keys);
    if (c->extra.topk) {
        alloc_list(ck, c, &c->extra, &rig->extra);
        fill_list(ck, c, &c->extra, &random, &rig->extra);
    }
    if (c->layout != RT_KV_BF16)
        rig->quant = quantise(ck, c, &c->keys, &rig->keys);
    if (c->layout != RT_KV_BF16 && c->extra.topk)
        rig->extra_quant = quantise(ck, c, &c->extra, &rig->extra);
    const struct ck_buffer *all[] = {
        &rig->q,        &rig->q_rope,      &rig->slot,        &rig->row_length, &rig->ctrl,
        &rig->sink,     &rig->keys.kv,     &rig->keys.table,  &rig->keys.index, &rig->keys.count,
        &rig->extra.kv, &rig->extra.table, &rig->extra.index, &rig->extra.count};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (all[i]->ref)
            ck_upload(ck, all[i]);
    point(c, rig, CK_REF);
    point(c, rig, CK_DEVICE);
    plan(ck, c, rig);
    return true;
}

void ck_sparse_free(struct ck *ck, struct ck_sparse_rig *rig)
{
    struct ck_buffer *all[] = {
        &rig->q,        &rig->q_rope,      &rig->slot,        &rig->row_length,  &rig->ctrl,
        &rig->sink,     &rig->keys.kv,     &rig->keys.table,  &rig->keys.index,  &rig->keys.count,
        &rig->extra.kv, &rig->extra.table, &rig->extra.index, &rig->extra.count, &rig->length,
        &rig->parts,    &rig->num_splits,  &rig->partial_out, &rig->partial_lse, &rig->out,
        &rig->lse,      &rig->keys.quant,  &rig->extra.quant};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (all[i]->ref)
            ck_free(ck, all[i]);
}
