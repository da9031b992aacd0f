/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/mla_block_case.h"

#include "common/bf16.h"
#include "common/rope.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define NAN_BYTE 0xff
#define EPS 1e-6f

static uint32_t longest(const struct ck_block_case *c)
{
    int32_t most = 1;
    for (uint32_t r = 0; r < c->rows; r++)
        most = c->length[r] > most ? c->length[r] : most;
    return (uint32_t)most;
}

static uint32_t columns_of(const struct ck_block_case *c)
{
    assert(c->page_size > 0);
    return rt_ceil_div_u32(longest(c), c->page_size) + 1;
}

static uint32_t query_rows(const struct ck_block_case *c)
{
    return c->heads * RT_MLA_BLOCK_QUERY;
}

static uint32_t kv_b_rows(const struct ck_block_case *c)
{
    return c->heads * (RT_MLA_BLOCK_NOPE + RT_MLA_BLOCK_VALUE);
}

static uint32_t out_width(const struct ck_block_case *c)
{
    return c->heads * RT_MLA_BLOCK_VALUE;
}

/* Of q, whatever it is multiplied with. */
static uint32_t q_rows(const struct ck_block_case *c)
{
    return c->q_rank ? c->q_rank : query_rows(c);
}

uint32_t ck_block_line(const struct ck_block_case *c, uint32_t r)
{
    return ck_block_has(c, CK_BLOCK_SLOTS) ? c->rows - 1 - r : r;
}

static int64_t stride_of(const struct ck_block_case *c, uint32_t k)
{
    return k + (ck_block_has(c, CK_BLOCK_STRIDED) ? 24 : 0);
}

static struct rt_norm_view norm_of(const void *weight, uint32_t width, float scale)
{
    return (struct rt_norm_view){.weight = weight, .eps = EPS, .scale = scale, .width = width};
}

static struct rt_mla_block_weight weight_of(const struct ck_block_case *c,
                                            const struct ck_buffer *b, uint32_t k,
                                            const struct ck_buffer *bias, enum ck_side side)
{
    const bool has_bias = bias && ck_block_has(c, CK_BLOCK_BIASES);
    return (struct rt_mla_block_weight){.base = ck_at(b, side),
                                        .row_stride = stride_of(c, k),
                                        .bias = has_bias ? ck_at(bias, side) : NULL};
}

static struct rt_kv_view kv_of(const struct ck_block_case *c, const struct ck_block_buffers *b,
                               enum ck_side side)
{
    const uint32_t columns = columns_of(c);
    return (struct rt_kv_view){.base = ck_at(&b->kv, side),
                               .table = ck_at(&b->table, side),
                               .token_stride_bytes = 2 * RT_MLA_BLOCK_TOKEN,
                               .page_stride_bytes = (int64_t)c->page_size * 2 * RT_MLA_BLOCK_TOKEN,
                               .page_size = c->page_size,
                               .max_blocks = columns,
                               .pages = c->rows * columns,
                               .token_bytes = 2 * RT_MLA_BLOCK_TOKEN};
}

struct rt_mla_block_params ck_block_params(const struct ck_block_case *c,
                                           const struct ck_block_buffers *b, enum ck_side side)
{
    struct rt_mla_block_params p = {
        .rows = {.length = ck_at(&b->length, side), .count = c->rows, .q_len = c->q_len},
        .kv = kv_of(c, b, side),
        .hidden = ck_at(&b->hidden, side),
        .residual = ck_block_has(c, CK_BLOCK_RESIDUAL) ? ck_at(&b->residual, side) : NULL,
        .q = weight_of(c, &b->q, c->hidden_size, &b->q_bias, side),
        .kv_a = weight_of(c, &b->kv_a, c->hidden_size, &b->kv_a_bias, side),
        .kv_b = weight_of(c, &b->kv_b, RT_MLA_BLOCK_LATENT, NULL, side),
        .o = weight_of(c, &b->o, out_width(c), &b->o_bias, side),
        .kv_a_norm = norm_of(ck_at(&b->kv_a_norm, side), RT_MLA_BLOCK_LATENT, 1.25f),
        .rope = {.capacity = longest(c), .half_order = ck_block_has(c, CK_BLOCK_HALVES)},
        .exchange = ck_at(&b->exchange, side),
        .stale = ck_at(&b->stale, side),
        .hidden_size = c->hidden_size,
        .q_rank = c->q_rank,
        .heads = c->heads,
        .scale = c->kind == CK_BLOCK_SHARP ? 20.0f : 0.0721687f, /* 192^-1/2 */
        .hidden_scale = 0.75f,
        .first = ck_block_has(c, CK_BLOCK_FIRST),
        .early = ck_block_has(c, CK_BLOCK_EARLY),
    };
    if (ck_block_has(c, CK_BLOCK_SLOTS))
        p.rows.slot = ck_at(&b->slot, side);
    if (c->q_len > 1)
        p.rows.position = ck_at(&b->position, side);
    if (ck_block_has(c, CK_BLOCK_NORM))
        p.input_norm = norm_of(ck_at(&b->input_norm, side), c->hidden_size, 1);
    if (c->q_rank > 0) {
        p.q_b = weight_of(c, &b->q_b, c->q_rank, &b->q_b_bias, side);
        p.q_a_norm = norm_of(ck_at(&b->q_a_norm, side), c->q_rank, 0.5f);
    }
    if (ck_block_has(c, CK_BLOCK_ROPE))
        p.rope.table = ck_at(&b->turns, side);
    if (ck_block_has(c, CK_BLOCK_FACTORS))
        p.rope.query_scale = ck_at(&b->factors, side);
    return p;
}

/* ---- memory ---- */

/* Of all layers: none may be of no bytes. */
static struct ck_buffer weight(struct ck *ck, const struct ck_block_case *c, uint32_t layers,
                               const char *name, uint32_t rows, uint32_t k)
{
    const uint64_t of_layer = 2 * rows * (uint64_t)stride_of(c, k);
    return ck_alloc_later(ck, name, layers * of_layer + 2, NAN_BYTE);
}

static struct ck_buffer bias(struct ck *ck, const char *name, uint32_t rows)
{
    return ck_alloc(ck, name, 2 * (uint64_t)rows + 2, NAN_BYTE);
}

static struct ck_block_buffers allocate(struct ck *ck, const struct ck_block_case *c,
                                        uint32_t layers)
{
    const uint64_t rows = c->rows, columns = columns_of(c);
    const uint64_t hidden = 2 * rows * c->q_len * c->hidden_size;
    const uint64_t exchange = rt_mla_block_exchange_bytes(c->rows * c->q_len, c->q_rank, c->heads);
    const uint64_t kv = rows * columns * c->page_size * 2 * RT_MLA_BLOCK_TOKEN;
    return (struct ck_block_buffers){
        .hidden = ck_alloc(ck, "hidden", hidden, NAN_BYTE),
        .residual = ck_alloc(ck, "residual", hidden, NAN_BYTE),
        .kv = ck_alloc_later(ck, "kv", layers * kv, NAN_BYTE),
        .exchange = ck_alloc(ck, "exchange", exchange, 0xff),
        .stale = ck_alloc(ck, "stale exchange", exchange, 0x3c),
        .length = ck_alloc(ck, "length", 4 * rows, 0),
        .position = ck_alloc(ck, "position", 4 * rows, 0),
        .slot = ck_alloc(ck, "slot", 4 * rows, 0),
        .table = ck_alloc(ck, "table", 4 * rows * columns, 0),
        .q = weight(ck, c, layers, "q", q_rows(c), c->hidden_size),
        .kv_a = weight(ck, c, layers, "kv_a", RT_MLA_BLOCK_TOKEN, c->hidden_size),
        .q_b = weight(ck, c, layers, "q_b", query_rows(c), c->q_rank),
        .kv_b = weight(ck, c, layers, "kv_b", kv_b_rows(c), RT_MLA_BLOCK_LATENT),
        .o = weight(ck, c, layers, "o", c->hidden_size, out_width(c)),
        .q_bias = bias(ck, "q bias", q_rows(c)),
        .kv_a_bias = bias(ck, "kv_a bias", RT_MLA_BLOCK_TOKEN),
        .q_b_bias = bias(ck, "q_b bias", query_rows(c)),
        .o_bias = bias(ck, "o bias", c->hidden_size),
        .factors = ck_alloc(ck, "factors", 4 * (uint64_t)longest(c), NAN_BYTE),
        .input_norm = ck_alloc(ck, "input norm", 2 * (uint64_t)c->hidden_size, NAN_BYTE),
        .q_a_norm = ck_alloc(ck, "q_a norm", 2 * (uint64_t)c->q_rank + 2, NAN_BYTE),
        .kv_a_norm = ck_alloc(ck, "kv_a norm", 2 * (uint64_t)RT_MLA_BLOCK_LATENT, NAN_BYTE),
        .turns = ck_alloc(ck, "turns", 4 * (uint64_t)longest(c) * RT_MLA_BLOCK_ROPE, NAN_BYTE)};
}

struct ck_buffer *ck_block_nth(struct ck_block_buffers *b, size_t i)
{
    return (struct ck_buffer *)(void *)b + i;
}

void ck_block_free(struct ck *ck, struct ck_block_buffers *b)
{
    for (size_t i = 0; i < CK_BLOCK_BUFFERS; i++)
        ck_free(ck, ck_block_nth(b, i));
}

/* ---- numbers ---- */

static void fill(struct ck_random *random, void *to, uint64_t count, double around,
                 double deviation)
{
    uint16_t *numbers = to;
    for (uint64_t i = 0; i < count; i++) {
        const double even = 2 * ck_random_unit(random) - 1;
        numbers[i] = rt_float_to_bf16((float)(around + deviation * 1.7320508 * even));
    }
}

/* Between the rows what was there: NaN. */
static void fill_weight(struct ck_random *random, const struct ck_block_case *c,
                        const struct ck_buffer *b, uint32_t rows, uint32_t k)
{
    for (uint64_t r = 0; r < rows && k > 0; r++)
        fill(random, (uint16_t *)ck_at(b, CK_REF) + r * (uint64_t)stride_of(c, k), k, 0,
             1 / sqrt(k));
}

static void fill_weights(struct ck_random *random, const struct ck_block_case *c,
                         struct ck_block_buffers *b)
{
    fill_weight(random, c, &b->q, q_rows(c), c->hidden_size);
    fill_weight(random, c, &b->kv_a, RT_MLA_BLOCK_TOKEN, c->hidden_size);
    fill_weight(random, c, &b->q_b, query_rows(c), c->q_rank);
    fill_weight(random, c, &b->kv_b, kv_b_rows(c), RT_MLA_BLOCK_LATENT);
    fill_weight(random, c, &b->o, c->hidden_size, out_width(c));
    fill(random, b->q_bias.ref, q_rows(c), 0, 0.5);
    fill(random, b->kv_a_bias.ref, RT_MLA_BLOCK_TOKEN, 0, 0.5);
    fill(random, b->q_b_bias.ref, query_rows(c), 0, 0.5);
    fill(random, b->o_bias.ref, c->hidden_size, 0, 0.5);
    for (uint32_t i = 0; i < longest(c); i++)
        ((float *)ck_at(&b->factors, CK_REF))[i] = 1 + (float)(i % 7) / 16;
    fill(random, b->input_norm.ref, c->hidden_size, 1, 0.2);
    fill(random, b->q_a_norm.ref, c->q_rank, 1, 0.2);
    fill(random, b->kv_a_norm.ref, RT_MLA_BLOCK_LATENT, 1, 0.2);
}

/* Old keys alone are numbers: the new tokens' places, and what is behind them, are NaN. Pages of
 * a row lie in the table's turned order. */
static void fill_row(struct ck_random *random, const struct ck_block_case *c,
                     struct ck_block_buffers *b, uint32_t r)
{
    const uint32_t columns = columns_of(c), line = ck_block_line(c, r);
    int32_t *table = (int32_t *)ck_at(&b->table, CK_REF) + line * columns;
    const int32_t length = c->length[r], fresh = (int32_t)c->q_len - c->absent[r];
    assert(columns > 0 && (length == 0 || length >= fresh));
    for (uint32_t i = 0; i < columns; i++)
        table[i] = (int32_t)(line * columns + (i + 1) % columns);
    for (int32_t t = 0; t + fresh < length; t++) {
        const uint64_t page = (uint64_t)table[(uint32_t)t / c->page_size];
        uint16_t *to = (uint16_t *)ck_at(&b->kv, CK_REF) +
                       (page * c->page_size + (uint32_t)t % c->page_size) * RT_MLA_BLOCK_TOKEN;
        fill(random, to, RT_MLA_BLOCK_TOKEN, 0, 1);
    }
    ((int32_t *)ck_at(&b->length, CK_REF))[r] = length;
    ((int32_t *)ck_at(&b->position, CK_REF))[r] = length > 0 ? length - fresh : -1;
    ((int32_t *)ck_at(&b->slot, CK_REF))[r] = (int32_t)line;
    if (c->kind != CK_BLOCK_LOST)
        return;
    table[r % columns] = r % 2 > 0 ? -1 : (int32_t)(c->rows * columns);
    if (r % 3 == 2)
        ((int32_t *)ck_at(&b->slot, CK_REF))[r] = -1;
}

static void fill_hidden(struct ck_random *random, const struct ck_block_case *c,
                        struct ck_block_buffers *b)
{
    uint16_t *hidden = ck_at(&b->hidden, CK_REF);
    const uint64_t count = (uint64_t)c->rows * c->q_len * c->hidden_size;
    fill(random, hidden, count, 0, c->kind == CK_BLOCK_ZERO ? 0 : 1);
    fill(random, b->residual.ref, count, 0, c->kind == CK_BLOCK_ZERO ? 0 : 1);
    if (c->kind == CK_BLOCK_NAN)
        hidden[count / 2] = 0xffff; /* a NaN that looks like half a blank */
}

/* What every layer has is what the first one has. */
static void repeat(const struct ck_buffer *b, uint32_t layers)
{
    const uint64_t of_layer = b->bytes / layers / 16 * 16;
    for (uint32_t i = 1; i < layers; i++)
        memcpy(b->ref + i * of_layer, b->ref, of_layer);
}

struct ck_block_buffers ck_block_make(struct ck *ck, struct ck_random *random,
                                      const struct ck_block_case *c, uint32_t layers)
{
    struct ck_block_buffers b = allocate(ck, c, layers);
    const struct rt_rope rope = {.theta = 10000, .attention_factor = 1};
    double speeds[RT_MAX_ROPE_PAIRS];
    fill_weights(random, c, &b);
    for (uint32_t r = 0; r < c->rows; r++)
        fill_row(random, c, &b, r);
    fill_hidden(random, c, &b);
    rt_rope_speeds(&rope, RT_MLA_BLOCK_ROPE, 0, speeds);
    rt_rope_rows(&rope, speeds, RT_MLA_BLOCK_ROPE / 2, 0, longest(c), ck_at(&b.turns, CK_REF));
    const struct ck_buffer *of_layers[] = {&b.kv, &b.q, &b.kv_a, &b.q_b, &b.kv_b, &b.o};
    for (size_t i = 0; i < sizeof(of_layers) / sizeof(of_layers[0]); i++)
        repeat(of_layers[i], layers);
    for (size_t i = 0; i < CK_BLOCK_BUFFERS; i++)
        ck_upload(ck, ck_block_nth(&b, i));
    return b;
}

bool ck_block_resolve(struct ck *ck, const struct ck_block_case *c,
                      const struct rt_mla_block_params *p, struct rt_variant *out)
{
    struct rt_device_caps caps = ck->driver.caps;
    struct rt_kv_format kv;
    struct rt_error err = {0};
    if (!ck_is_cuda(ck)) /* the references, or the kernels' source, are there all the same */
        caps.cc = 90;
    (void)rt_kv_format_make(RT_KV_BF16, RT_PRECISION_BF16, RT_MLA_BLOCK_TOKEN, RT_MLA_BLOCK_LATENT,
                            &kv);
    const struct rt_op_request request = {.caps = &caps,
                                          .kv = &kv,
                                          .heads = c->heads,
                                          .q_len = c->q_len,
                                          .page_size = c->page_size,
                                          .mla_block = p};
    const enum rt_status status = rt_op_resolve(RT_OP_MLA_BLOCK, &request, out, &err);
    if (status == RT_ERR_UNSUPPORTED)
        return false;
    ck_must(ck, status, &err);
    return true;
}
