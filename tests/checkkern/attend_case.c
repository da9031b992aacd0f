/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/attend_case.h"

#include "common/math.h"
#include "kernels/ref/ref.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POISON 0xff /* as bf16 and as float: NaN */
#define POISON_PAGE 2147480000
#define SPARE_PAGES 5u
#define SPARE_COLUMNS 2u
#define FAR_STRIDE (INT64_C(1) << 25) /* elements */
#define FAR_PAGES 80u

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

static struct rt_mla_attend_params shape_of(const struct ck_attend *c)
{
    int64_t gap = c->strided ? 8 : 0;
    int64_t q_head = c->d_qk + gap, q_token = c->heads * q_head + 2 * gap;
    int64_t out_head = c->d_v + gap, out_token = c->heads * out_head + gap;
    int64_t kv_token = c->d_qk + gap, kv_page = c->page_size * kv_token + 5 * gap;
    return (struct rt_mla_attend_params){.q_head_stride = q_head,
                                         .q_token_stride = q_token,
                                         .q_row_stride = c->q_len * q_token + 4 * gap,
                                         .out_head_stride = out_head,
                                         .out_token_stride = out_token,
                                         .out_row_stride = c->q_len * out_token + 3 * gap,
                                         .lse_head_stride = c->strided ? c->q_len : 1,
                                         .lse_token_stride = c->strided ? 1 : c->heads,
                                         .lse_row_stride = c->q_len * c->heads + gap,
                                         .kv_token_stride = kv_token,
                                         .kv_page_stride = c->far ? FAR_STRIDE : kv_page,
                                         .scale = c->scale,
                                         .rows = c->rows,
                                         .q_len = c->q_len,
                                         .heads = c->heads,
                                         .d_qk = c->d_qk,
                                         .d_v = c->d_v,
                                         .page_size = c->page_size,
                                         .max_blocks = table_columns(c),
                                         .causal = c->causal,
                                         .pages = pool_pages(c)};
}

static double value_of(const struct ck_attend *c, struct ck_random *random)
{
    double x = ck_random_normal(random) / 10;
    x = x > 1 ? 1 : x < -1 ? -1 : x;
    if (c->flavour == CK_EQUAL)
        return 0.125;
    return c->flavour == CK_HUGE ? round(x * 16) / 16 : x;
}

static void fill_row(const struct ck_attend *c, struct ck_random *random, uint16_t *to)
{
    for (uint32_t d = 0; d < c->d_qk; d++)
        to[d] = rt_float_to_bf16((float)value_of(c, random));
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

static void fill_queries(const struct ck_attend *c, struct ck_random *random,
                         const struct rt_mla_attend_params *p, uint16_t *q)
{
    bool infinite = c->flavour == CK_MINUS_INF || c->flavour == CK_PLUS_INF;
    for (uint32_t r = 0; r < c->rows - c->padded; r++) {
        uint32_t marked = ck_random_below(random, c->q_len * c->heads);
        for (uint32_t i = 0; i < c->q_len * c->heads; i++) {
            uint16_t *to = q + (c->row_base + (int64_t)r) * p->q_row_stride +
                           i / c->heads * p->q_token_stride + i % c->heads * p->q_head_stride;
            fill_row(c, random, to);
            if (infinite)
                to[c->d_qk - 1] = rt_float_to_bf16(1);
            if (c->flavour == CK_NAN_QUERY && i == marked)
                to[ck_random_below(random, c->d_qk)] = rt_float_to_bf16(NAN);
        }
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

static void fill_keys(struct ck *ck, const struct ck_attend *c, struct ck_random *random,
                      struct ck_attend_rig *rig)
{
    const struct rt_mla_attend_params *p = &rig->ref;
    int32_t *table = ck_at(&rig->table, CK_REF);
    uint16_t *kv = ck_at(&rig->kv, CK_REF);
    for (uint32_t r = 0; r < c->rows; r++)
        for (uint32_t i = 0; i < row_tokens(c, r); i++) {
            int64_t page = table[table_line(c, r) * p->max_blocks + i / c->page_size];
            uint16_t *key = kv + page * p->kv_page_stride + i % c->page_size * p->kv_token_stride;
            fill_row(c, random, key);
            spoil_key(c, r, i, key);
            if (c->far)
                CK_DRV(ck, copy_in,
                       (&ck->driver, rig->kv.device + (uint64_t)((char *)key - (char *)kv), key,
                        c->d_qk * sizeof(*key), ck->stream));
        }
    for (uint32_t r = 0; c->flavour == CK_BAD_PAGES && r < c->rows; r++)
        for (uint32_t i = r % 2; i < row_pages(c, r); i += 3)
            table[table_line(c, r) * p->max_blocks + i] = i % 2 ? (int32_t)p->pages : -1;
}

static struct ck_buffer alloc_far(struct ck *ck, uint64_t bytes)
{
    struct ck_buffer b = {.name = "kv", .bytes = bytes, .ref = ck_new(ck, bytes)};
    CK_DRV(ck, mem_alloc, (&ck->driver, bytes, &b.device));
    CK_DRV(ck, fill, (&ck->driver, b.device, POISON, bytes, ck->stream));
    return b;
}

static void alloc_inputs(struct ck *ck, const struct ck_attend *c, struct ck_attend_rig *rig)
{
    const struct rt_mla_attend_params *p = &rig->ref;
    uint64_t data_rows = c->row_base + c->rows + 1;
    uint64_t kv_bytes = p->pages * (uint64_t)p->kv_page_stride * 2;
    uint64_t table_bytes = (uint64_t)table_lines(c) * p->max_blocks * 4;
    rig->q = ck_alloc(ck, "q", data_rows * (uint64_t)p->q_row_stride * 2, POISON);
    rig->kv = c->far ? alloc_far(ck, kv_bytes) : ck_alloc(ck, "kv", kv_bytes, POISON);
    rig->table = ck_alloc(ck, "table", table_bytes, POISON);
    rig->slot = ck_alloc(ck, "row_slot", c->rows * 4, POISON);
    rig->length = ck_alloc(ck, "row_length", c->rows * 4, 0);
    rig->tiles = ck_alloc(ck, "tiles", p->parts * sizeof(struct rt_tile_record), 0);
    rig->num_splits =
        ck_alloc(ck, "num_splits", (rt_arrivals_at(c->rows) + rt_arrivals(&rig->choice)) * 4u, 0);
    rig->ctrl = ck_alloc(ck, "ctrl", sizeof(struct rt_ctrl), 0);
    rig->stamps = ck_alloc(ck, "stamps", 2 * sizeof(uint64_t), 0);
    rig->out = ck_alloc(ck, "out", data_rows * (uint64_t)p->out_row_stride * 2, POISON);
    rig->lse = ck_alloc(ck, "lse", data_rows * (uint64_t)p->lse_row_stride * 4, POISON);
}

/* Lengths, slots, ctrl and the plan; then the partial buffers, of exactly the plan's slots. */
static void fill_plan(struct ck *ck, const struct ck_attend *c, struct ck_attend_rig *rig)
{
    int32_t *slot = ck_at(&rig->slot, CK_REF), *length = ck_at(&rig->length, CK_REF);
    struct rt_ctrl *ctrl = ck_at(&rig->ctrl, CK_REF);
    for (uint32_t r = 0; r < c->rows; r++) {
        bool live = r < c->rows - c->padded;
        slot[r] = live ? (int32_t)table_line(c, r) : -1;
        length[r] = live ? c->lengths[r] : 0;
    }
    *ctrl = (struct rt_ctrl){.row_base = c->row_base, .live_rows = c->rows - c->padded};
    struct rt_schedule_params plan = {.row_length = length,
                                      .tiles = ck_at(&rig->tiles, CK_REF),
                                      .num_splits = ck_at(&rig->num_splits, CK_REF),
                                      .rows = c->rows,
                                      .parts = rig->choice.parts,
                                      .overhead_blocks = rig->choice.overhead_blocks,
                                      .min_blocks = rig->choice.min_blocks,
                                      .arrivals = rt_arrivals(&rig->choice)};
    rt_ref_schedule(&plan);
    uint64_t rows =
        (uint64_t)rt_max_u32((uint32_t)plan.num_splits[c->rows], 1) * c->heads * c->q_len;
    rig->partial_out = ck_alloc(ck, "partial_out", rows * c->d_v * 4, POISON);
    rig->partial_lse = ck_alloc(ck, "partial_lse", rows * rig->choice.team * 4, POISON);
}

static void point(const struct ck_attend *c, const struct ck_attend_rig *rig, enum ck_side side,
                  struct rt_mla_attend_params *p)
{
    p->q = ck_at(&rig->q, side);
    p->kv = ck_at(&rig->kv, side);
    p->block_table = ck_at(&rig->table, side);
    p->row_slot = c->slots ? ck_at(&rig->slot, side) : NULL;
    p->row_length = ck_at(&rig->length, side);
    p->tiles = ck_at(&rig->tiles, side);
    p->num_splits = ck_at(&rig->num_splits, side);
    p->out = ck_at(&rig->out, side);
    p->lse = ck_at(&rig->lse, side);
    p->partial_out = ck_at(&rig->partial_out, side);
    p->partial_lse = ck_at(&rig->partial_lse, side);
    p->ctrl = c->row_base > 0 || c->padded > 0 ? ck_at(&rig->ctrl, side) : NULL;
}

static struct rt_mla_reduce_params reduce_of(const struct rt_mla_attend_params *p)
{
    return (struct rt_mla_reduce_params){.partial_out = p->partial_out,
                                         .partial_lse = p->partial_lse,
                                         .num_splits = p->num_splits,
                                         .row_length = p->row_length,
                                         .out = p->out,
                                         .lse = p->lse,
                                         .ctrl = p->ctrl,
                                         .out_row_stride = p->out_row_stride,
                                         .out_token_stride = p->out_token_stride,
                                         .out_head_stride = p->out_head_stride,
                                         .lse_row_stride = p->lse_row_stride,
                                         .lse_token_stride = p->lse_token_stride,
                                         .lse_head_stride = p->lse_head_stride,
                                         .rows = p->rows,
                                         .q_len = p->q_len,
                                         .heads = p->heads,
                                         .d_v = p->d_v};
}

void ck_attend_make(struct ck *ck, const struct ck_attend *c, const struct rt_attend_choice *choice,
                    struct ck_attend_rig *rig)
{
    struct ck_random random = {.state = c->seed};
    *rig = (struct ck_attend_rig){.choice = *choice, .ref = shape_of(c)};
    rig->ref.parts = choice->parts;
    alloc_inputs(ck, c, rig);
    fill_plan(ck, c, rig);
    fill_table(c, &random, ck_at(&rig->table, CK_REF));
    fill_queries(c, &random, &rig->ref, ck_at(&rig->q, CK_REF));
    fill_keys(ck, c, &random, rig);
    const struct ck_buffer *inputs[] = {&rig->q,     &rig->table,      &rig->slot, &rig->length,
                                        &rig->tiles, &rig->num_splits, &rig->ctrl};
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++)
        ck_upload(ck, inputs[i]);
    if (!c->far)
        ck_upload(ck, &rig->kv);
    rig->attend = rig->ref;
    point(c, rig, CK_REF, &rig->ref);
    point(c, rig, CK_DEVICE, &rig->attend);
    rig->reduce = reduce_of(&rig->attend);
    uint64_t *stamps = ck_at(&rig->stamps, CK_DEVICE);
    rig->attend.stamp_first = &stamps[0];
    rig->attend.stamp_last = choice->reduce_entry ? NULL : &stamps[1];
    rig->reduce.stamp_last = &stamps[1];
}

void ck_attend_free(struct ck *ck, struct ck_attend_rig *rig)
{
    struct ck_buffer *all[] = {&rig->q,          &rig->kv,    &rig->table,       &rig->slot,
                               &rig->length,     &rig->tiles, &rig->out,         &rig->lse,
                               &rig->num_splits, &rig->ctrl,  &rig->partial_out, &rig->partial_lse,
                               &rig->stamps};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

void ck_attend_launches(struct ck *ck, const struct ck_attend_rig *rig, struct rt_launch *attend,
                        struct rt_launch *reduce)
{
    struct rt_error err = {0};
    ck_must(ck, rt_mla_attend_launch(&ck->kernels, &rig->choice, &rig->attend, attend, &err), &err);
    if (rig->choice.reduce_entry)
        ck_must(ck, rt_mla_reduce_launch(&ck->kernels, &rig->choice, &rig->reduce, reduce, &err),
                &err);
}

/* Another tile of the generic kernel: what a device with less shared memory would be given. */
static bool choose_tile(struct ck *ck, const struct ck_attend *c, struct rt_attend_choice *choice)
{
    char name[RT_LAUNCH_NAME_BYTES];
    uint32_t count;
    const struct rt_kernel_entry *entries = rt_kernel_entries(&count);
    (void)snprintf(name, sizeof(name), "rt_mla_attend_%ux%u_r%u", c->d_qk, c->d_v, c->tile_rows);
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(entries[i].entry, name) != 0)
            continue;
        choice->entry = entries[i].entry;
        choice->tile_rows = c->tile_rows;
        choice->m_tiles = rt_ceil_div_u32(c->heads * c->q_len, c->tile_rows);
        choice->smem_bytes = entries[i].smem_bytes;
        return !ck_is_cuda(ck) || choice->smem_bytes <= ck->driver.caps.smem_optin_bytes;
    }
    return false;
}

bool ck_attend_resolve(struct ck *ck, const struct ck_attend *c, struct rt_attend_choice *out)
{
    struct rt_attend_request request = {.batch = c->batch ? c->batch : c->rows,
                                        .heads = c->heads,
                                        .d_qk = c->d_qk,
                                        .d_v = c->d_v,
                                        .q_len = c->q_len,
                                        .page_size = c->page_size,
                                        .kv_layout = RT_KV_BF16,
                                        .backend = c->backend};
    struct rt_error err = {0};
    enum rt_status status = rt_kernels_resolve_attend(&ck->driver.caps, &request, out, &err);
    if (status == RT_ERR_UNSUPPORTED)
        return false;
    ck_must(ck, status, &err);
    if (c->parts > 0) {
        out->parts = c->parts;
        out->overhead_blocks = c->overhead_blocks;
        out->min_blocks = c->min_blocks;
    }
    return c->tile_rows == 0 || choose_tile(ck, c, out);
}
