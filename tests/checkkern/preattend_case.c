/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/preattend_case.h"

#include "common/bf16.h"
#include "common/rope.h"

#define COLUMNS 5
#define POISON_PAGE 2147480000
#define POISON_BYTE 0xff /* two of them are a NaN that no reference makes */
#define BF16_NAN 0x7fc0u
#define BF16_INFINITY 0x7f80u

struct ck_buffer *ck_preattend_nth(struct ck_preattend_buffers *b, size_t i)
{
    struct ck_buffer *all[CK_PREATTEND_BUFFERS] = {
        &b->q_a,      &b->kv_a,      &b->q_in,  &b->q_out,   &b->kv,
        &b->q_weight, &b->kv_weight, &b->turns, &b->factors, &b->table,
        &b->slot,     &b->position,  &b->place, &b->length,  &b->ctrl};
    return all[i];
}

static uint32_t capacity_of(const struct ck_preattend *c)
{
    return (COLUMNS - 1) * c->page_size + c->page_size / 2 + 1;
}

static uint32_t pages_of(const struct ck_preattend *c)
{
    return c->rows * COLUMNS + 3;
}

static struct rt_tokens_view tokens_of(const struct ck_preattend *c, void *base, uint32_t width)
{
    const int64_t token = width + (c->strided ? 24 : 0);
    return (struct rt_tokens_view){
        .base = base, .token_stride = token, .row_stride = c->q_len * token + (c->strided ? 8 : 0)};
}

static struct rt_heads_view heads_of(const struct ck_preattend *c, void *base, uint32_t width)
{
    const int64_t head = width + (c->strided ? 8 : 0);
    const int64_t token = c->heads * head + (c->strided ? 16 : 0);
    return (struct rt_heads_view){.base = base,
                                  .head_stride = head,
                                  .token_stride = token,
                                  .row_stride = c->q_len * token + (c->strided ? 40 : 0)};
}

struct rt_preattend_params ck_preattend_params(const struct ck_preattend *c,
                                               struct ck_preattend_buffers *b, enum ck_side side,
                                               const struct ck_preattend_truth *truth)
{
    void *data[CK_PREATTEND_DATA];
    for (size_t i = 0; i < CK_PREATTEND_DATA; i++)
        data[i] = truth ? (void *)truth->data[i] : ck_at(ck_preattend_nth(b, i), side);
    const int64_t bytes = truth ? 4 : 2, token = c->l + c->r + (c->strided ? 8 : 0);
    struct rt_preattend_params p = {
        .rows = {.count = c->rows, .q_len = c->q_len, .position = ck_at(&b->position, side)},
        .kv = {.base = data[4],
               .table = ck_at(&b->table, side),
               .token_stride_bytes = bytes * token,
               .page_stride_bytes = bytes * (c->page_size * token + (c->strided ? 64 : 0)),
               .page_size = c->page_size,
               .max_blocks = COLUMNS,
               .pages = pages_of(c),
               .token_bytes = (uint32_t)bytes * (c->l + c->r)},
        .q_a = tokens_of(c, c->q_a ? data[0] : NULL, c->width),
        .kv_a = tokens_of(c, c->kv_a ? data[1] : NULL, c->l + c->r),
        .q_in = heads_of(c, c->q ? data[2] : NULL, c->p + c->r),
        .q_out = heads_of(c, c->q ? data[3] : NULL, c->l + c->r),
        .q_a_norm = {.eps = c->eps, .offset = c->offset, .scale = c->scale, .width = c->width},
        .kv_a_norm = {.eps = c->eps, .offset = c->offset, .scale = c->scale, .width = c->l},
        .rope = {.capacity = capacity_of(c), .half_order = c->half_order},
        .heads = c->heads,
        .nope_dim = c->p,
        .latent_dim = c->l,
        .rope_dim = c->r,
        .is_f32 = truth != NULL,
        .early = c->early};
    if (c->weights) {
        p.q_a_norm.weight = ck_at(&b->q_weight, side);
        p.kv_a_norm.weight = ck_at(&b->kv_weight, side);
    }
    if (c->table)
        p.rope.table = ck_at(&b->turns, side);
    if (c->factors)
        p.rope.query_scale = ck_at(&b->factors, side);
    if (c->ragged)
        p.rows.length = ck_at(&b->length, side);
    if (c->slots)
        p.rows.slot = ck_at(&b->slot, side);
    if (c->placed)
        p.place = ck_at(&b->place, side);
    if (c->row_base > 0)
        p.rows.ctrl = ck_at(&b->ctrl, side);
    return p;
}

static struct ck_preattend_buffers make_buffers(struct ck *ck, const struct ck_preattend *c)
{
    struct ck_preattend_buffers none = {0};
    struct ck_preattend all = *c;
    all.q_a = all.kv_a = all.q = true;
    const struct rt_preattend_params p = ck_preattend_params(&all, &none, CK_REF, NULL);
    const uint64_t rows = c->row_base + c->rows;
    const uint64_t capacity = capacity_of(c);
    return (struct ck_preattend_buffers){
        .q_a = ck_alloc(ck, "q_a", rows * (uint64_t)p.q_a.row_stride * 2, POISON_BYTE),
        .kv_a = ck_alloc(ck, "kv_a", rows * (uint64_t)p.kv_a.row_stride * 2, POISON_BYTE),
        .q_in = ck_alloc(ck, "q_in", rows * (uint64_t)p.q_in.row_stride * 2, POISON_BYTE),
        .q_out = ck_alloc(ck, "q_out", rows * (uint64_t)p.q_out.row_stride * 2, POISON_BYTE),
        .kv = ck_alloc(ck, "kv", p.kv.pages * (uint64_t)p.kv.page_stride_bytes, POISON_BYTE),
        .q_weight = ck_alloc(ck, "q_a weight", c->width * 2, POISON_BYTE),
        .kv_weight = ck_alloc(ck, "kv_a weight", c->l * 2, POISON_BYTE),
        .turns = ck_alloc(ck, "turns", capacity * c->r * 4 + 4, POISON_BYTE),
        .factors = ck_alloc(ck, "factors", capacity * 4, POISON_BYTE),
        .table = ck_alloc(ck, "table", (uint64_t)c->rows * COLUMNS * 4, 0),
        .slot = ck_alloc(ck, "slot", c->rows * 4, 0),
        .position = ck_alloc(ck, "position", c->rows * 4, 0),
        .place = ck_alloc(ck, "place", (uint64_t)c->rows * c->q_len * 4, 0),
        .length = ck_alloc(ck, "length", c->rows * 4, 0),
        .ctrl = ck_alloc(ck, "ctrl", sizeof(struct rt_ctrl), 0)};
}

/* ---- inputs ---- */

/* A piece of a token, in one of many ways: as usual, huge, tiny, zeros, one NaN, one infinity. */
static void fill_numbers(struct ck_random *random, uint16_t *to, uint32_t count)
{
    static const double magnitudes[] = {1, 1, 1, 1e15, 1e-15, 0, 1, 1};
    const uint32_t kind = ck_random_below(random, 8);
    for (uint32_t i = 0; i < count; i++)
        to[i] = rt_float_to_bf16((float)(ck_random_normal(random) * magnitudes[kind]));
    if (kind >= 6 && count > 0 && ck_random_below(random, 2))
        to[ck_random_below(random, count)] = kind == 6 ? BF16_NAN : BF16_INFINITY;
}

/* The rows that the launch is for; those before row_base stay poison. */
static void fill_data(struct ck_random *random, const struct ck_preattend *c,
                      struct ck_preattend_buffers *b)
{
    struct ck_preattend all = *c;
    all.q_a = all.kv_a = all.q = true;
    const struct rt_preattend_params p = ck_preattend_params(&all, b, CK_REF, NULL);
    uint16_t *q_a = ck_at(&b->q_a, CK_REF), *kv_a = ck_at(&b->kv_a, CK_REF);
    for (int64_t row = c->row_base; row < c->row_base + (int64_t)c->rows; row++)
        for (uint32_t t = 0; t < c->q_len; t++) {
            fill_numbers(random, q_a + row * p.q_a.row_stride + t * p.q_a.token_stride, c->width);
            uint16_t *latent = kv_a + row * p.kv_a.row_stride + t * p.kv_a.token_stride;
            fill_numbers(random, latent, c->l);
            fill_numbers(random, latent + c->l, c->r);
            for (uint32_t h = 0; h < c->heads; h++)
                fill_numbers(random,
                             (uint16_t *)p.q_in.base + row * p.q_in.row_stride +
                                 t * p.q_in.token_stride + h * p.q_in.head_stride,
                             c->p + c->r);
        }
    uint16_t *weights[] = {ck_at(&b->q_weight, CK_REF), ck_at(&b->kv_weight, CK_REF)};
    const uint32_t widths[] = {c->width, c->l};
    for (int w = 0; w < 2; w++)
        for (uint32_t i = 0; i < widths[w]; i++)
            weights[w][i] =
                rt_float_to_bf16((float)(1.0 - (double)c->offset + ck_random_normal(random) / 4));
}

static void fill_rope(const struct ck_preattend *c, struct ck_preattend_buffers *b)
{
    const struct rt_rope rope = {.theta = 10000,
                                 .attention_factor = 1.25,
                                 .query_scale_beta = 0.1,
                                 .original_max_length = 16};
    double speeds[RT_MAX_ROPE_PAIRS];
    float *factors = ck_at(&b->factors, CK_REF);
    rt_rope_speeds(&rope, c->r, 0, speeds);
    rt_rope_rows(&rope, speeds, c->r / 2, 0, capacity_of(c), ck_at(&b->turns, CK_REF));
    for (uint32_t i = 0; i < capacity_of(c); i++)
        factors[i] = (float)rt_rope_query_scale(&rope, i);
}

/* Every token of a row has one of its own, for what two of them write in one place is not said; or
 * none, or one beyond the table. */
static void fill_places_of_keys(struct ck_random *random, const struct ck_preattend *c,
                                struct ck_preattend_buffers *b, const int32_t *edges,
                                uint32_t count)
{
    int32_t *place = ck_at(&b->place, CK_REF);
    const int32_t end = COLUMNS * (int32_t)c->page_size;
    const uint32_t share = (uint32_t)end / c->q_len;
    for (uint32_t i = 0; i < c->rows * c->q_len; i++) {
        const int32_t edge = edges[ck_random_below(random, count)];
        place[i] = (int32_t)(i % c->q_len * share + ck_random_below(random, share));
        if (ck_random_below(random, 3) == 0)
            place[i] = c->q_len > 1 && edge >= 0 && edge < end ? -1 : edge;
    }
}

/* Positions at every edge, good and bad; each row's line has pages of its own, and holes. */
static void fill_places(struct ck_random *random, const struct ck_preattend *c,
                        struct ck_preattend_buffers *b)
{
    int32_t *table = ck_at(&b->table, CK_REF), *slot = ck_at(&b->slot, CK_REF);
    int32_t *position = ck_at(&b->position, CK_REF), *length = ck_at(&b->length, CK_REF);
    const int32_t page = (int32_t)c->page_size, end = (int32_t)capacity_of(c);
    const int32_t edges[] = {0,       page - 1,       page, page + 1,  end - 1,  end,
                             end - 2, COLUMNS * page, -1,   INT32_MAX, INT32_MIN};
    const uint32_t count = sizeof(edges) / sizeof(edges[0]);
    *(struct rt_ctrl *)ck_at(&b->ctrl, CK_REF) = (struct rt_ctrl){.row_base = c->row_base};
    for (uint32_t r = 0; r < c->rows; r++) {
        const uint32_t line = c->slots ? c->rows - 1 - r : r;
        slot[r] = ck_random_below(random, 8) ? (int32_t)line : -1 - (int32_t)r;
        position[r] = ck_random_below(random, 3) ? (int32_t)ck_random_below(random, (uint32_t)end)
                                                 : edges[ck_random_below(random, count)];
        length[r] = (int32_t)((uint32_t)position[r] + ck_random_below(random, c->q_len + 2));
        for (uint32_t i = 0; i < COLUMNS; i++) {
            table[line * COLUMNS + i] = (int32_t)(r * COLUMNS + (i * 3 + 2) % COLUMNS);
            if (ck_random_below(random, 10) == 0)
                table[line * COLUMNS + i] = ck_random_below(random, 2) ? POISON_PAGE : -1;
        }
    }
    table[0] = (int32_t)pages_of(c); /* the first id that is not one */
    fill_places_of_keys(random, c, b, edges, count);
}

struct ck_preattend_buffers ck_preattend_fill(struct ck *ck, struct ck_random *random,
                                              const struct ck_preattend *c)
{
    struct ck_preattend_buffers b = make_buffers(ck, c);
    fill_data(random, c, &b);
    fill_rope(c, &b);
    fill_places(random, c, &b);
    return b;
}

void ck_preattend_upload(struct ck *ck, struct ck_preattend_buffers *b)
{
    for (size_t i = 0; i < CK_PREATTEND_BUFFERS; i++)
        ck_upload(ck, ck_preattend_nth(b, i));
}

void ck_preattend_free(struct ck *ck, struct ck_preattend_buffers *b)
{
    for (size_t i = 0; i < CK_PREATTEND_BUFFERS; i++)
        ck_free(ck, ck_preattend_nth(b, i));
}

static const struct {
    uint32_t p, l, r;
} geometries[] = {{128, 512, 64}, {64, 256, 64}, {64, 256, 32}, {256, 512, 0}, {192, 512, 64}};

struct ck_preattend ck_preattend_whole(uint32_t rows, uint32_t q_len)
{
    return (struct ck_preattend){.rows = rows,
                                 .q_len = q_len,
                                 .heads = 16,
                                 .p = 128,
                                 .l = 512,
                                 .r = 64,
                                 .width = 1536,
                                 .page_size = 64,
                                 .q_a = true,
                                 .kv_a = true,
                                 .q = true,
                                 .table = true,
                                 .weights = true,
                                 .eps = 1e-6f,
                                 .scale = 1.0f};
}

struct ck_preattend ck_preattend_draw(struct ck_random *random, uint32_t i)
{
    static const uint32_t heads[] = {1, 16, 5, 128, 40, 8, 9}, page_sizes[] = {16, 32, 64, 128};
    static const uint32_t widths[] = {1536, 768, 1024, 2048, 8, 4096, 2056};
    static const unsigned parts[] = {7, 7, 1, 7, 2, 6, 4, 7, 3, 5, 7};
    static const float epsilons[] = {1e-6f, 1e-5f, 0.0f};
    const uint32_t g = i % 5;
    struct ck_preattend c = {.heads = heads[i % 7],
                             .q_len = i % 3 ? 1 + ck_random_below(random, 8) : 1,
                             .p = geometries[g].p,
                             .l = geometries[g].l,
                             .r = geometries[g].r,
                             .width = widths[i / 2 % 7],
                             .page_size = page_sizes[i / 3 % 4],
                             .row_base = i % 4 ? 0 : 1 + ck_random_below(random, 5),
                             .q_a = parts[i % 11] & 1,
                             .kv_a = parts[i % 11] & 2,
                             .q = parts[i % 11] & 4,
                             .table = ck_random_below(random, 4) > 0,
                             .factors = ck_random_below(random, 3) == 0,
                             .weights = ck_random_below(random, 5) > 0,
                             .half_order = ck_random_below(random, 2),
                             .slots = ck_random_below(random, 3) > 0,
                             .strided = i % 7 > 4,
                             .early = ck_random_below(random, 2),
                             .placed = ck_random_below(random, 3) == 0,
                             .ragged = ck_random_below(random, 2),
                             .eps = epsilons[i / 4 % 3],
                             .offset = i % 6 == 2 ? 1.0f : 0.0f,
                             .scale = i % 5 == 3 ? 3.4641016f : 1.0f};
    /* A case stays below some 400 heads' work. */
    c.rows = 1 + ck_random_below(random, 400 / (c.heads * c.q_len + 20) + 1);
    return c;
}
