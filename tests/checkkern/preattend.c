/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preattend against the reference in f32, which has the same numbers at the same places: what the
 * kernel stores is within one bf16 rounding of it, and what the reference leaves alone stays as it
 * is, bit for bit.
 */
#include "common/rope.h"
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 5
#define POISON_PAGE 2147480000
#define POISON_BYTE 0xff /* two of them are a NaN that no reference makes */
#define POISON 0xffffu
#define BF16_NAN 0x7fc0u
#define BF16_INFINITY 0x7f80u

struct pre_case {
    uint32_t rows, q_len, heads, p, l, r, width; /* width of q_a */
    uint32_t page_size, row_base;
    bool q_a, kv_a, q;            /* which parts there are */
    bool table, factors, weights; /* RoPE, factors of q, norms */
    bool half_order, slots, strided, early;
    float eps, offset, scale;
};

struct pre_buffers {
    struct ck_buffer q_a, kv_a, q_in, q_out, kv;
    struct ck_buffer q_weight, kv_weight, turns, factors, table, slot, position, ctrl;
};
#define BUFFERS (sizeof(struct pre_buffers) / sizeof(struct ck_buffer))
#define DATA_BUFFERS 5u

/* The first, in order, in f32. */
struct pre_truth {
    float *data[DATA_BUFFERS];
};

static struct ck_buffer *nth(struct pre_buffers *b, size_t i)
{
    struct ck_buffer *all[BUFFERS] = {
        &b->q_a,   &b->kv_a,    &b->q_in,  &b->q_out, &b->kv,       &b->q_weight, &b->kv_weight,
        &b->turns, &b->factors, &b->table, &b->slot,  &b->position, &b->ctrl};
    return all[i];
}

static uint32_t capacity_of(const struct pre_case *c)
{
    return (COLUMNS - 1) * c->page_size + c->page_size / 2 + 1;
}

static uint32_t pages_of(const struct pre_case *c)
{
    return c->rows * COLUMNS + 3;
}

static struct rt_tokens_view tokens_of(const struct pre_case *c, void *base, uint32_t width)
{
    const int64_t token = width + (c->strided ? 24 : 0);
    return (struct rt_tokens_view){
        .base = base, .token_stride = token, .row_stride = c->q_len * token + (c->strided ? 8 : 0)};
}

static struct rt_heads_view heads_of(const struct pre_case *c, void *base, uint32_t width)
{
    const int64_t head = width + (c->strided ? 8 : 0);
    const int64_t token = c->heads * head + (c->strided ? 16 : 0);
    return (struct rt_heads_view){.base = base,
                                  .head_stride = head,
                                  .token_stride = token,
                                  .row_stride = c->q_len * token + (c->strided ? 40 : 0)};
}

/* Of the bf16 side, or of the truth, whose numbers are as far apart. */
static struct rt_preattend_params params_of(const struct pre_case *c, struct pre_buffers *b,
                                            enum ck_side side, const struct pre_truth *truth)
{
    void *data[DATA_BUFFERS];
    for (size_t i = 0; i < DATA_BUFFERS; i++)
        data[i] = truth ? (void *)truth->data[i] : ck_at(nth(b, i), side);
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
    if (c->slots)
        p.rows.slot = ck_at(&b->slot, side);
    if (c->row_base > 0)
        p.rows.ctrl = ck_at(&b->ctrl, side);
    return p;
}

static struct pre_buffers make_buffers(struct ck *ck, const struct pre_case *c)
{
    struct pre_buffers none = {0};
    struct pre_case all = *c;
    all.q_a = all.kv_a = all.q = true;
    const struct rt_preattend_params p = params_of(&all, &none, CK_REF, NULL);
    const uint64_t rows = c->row_base + c->rows;
    const uint64_t capacity = capacity_of(c);
    return (struct pre_buffers){
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
static void fill_data(struct ck_random *random, const struct pre_case *c, struct pre_buffers *b)
{
    struct pre_case all = *c;
    all.q_a = all.kv_a = all.q = true;
    const struct rt_preattend_params p = params_of(&all, b, CK_REF, NULL);
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

static void fill_rope(const struct pre_case *c, struct pre_buffers *b)
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

/* Positions at every edge, good and bad; each row's line has pages of its own, and holes. */
static void fill_places(struct ck_random *random, const struct pre_case *c, struct pre_buffers *b)
{
    int32_t *table = ck_at(&b->table, CK_REF), *slot = ck_at(&b->slot, CK_REF);
    int32_t *position = ck_at(&b->position, CK_REF);
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
        for (uint32_t i = 0; i < COLUMNS; i++) {
            table[line * COLUMNS + i] = (int32_t)(r * COLUMNS + (i * 3 + 2) % COLUMNS);
            if (ck_random_below(random, 10) == 0)
                table[line * COLUMNS + i] = ck_random_below(random, 2) ? POISON_PAGE : -1;
        }
    }
    table[0] = (int32_t)pages_of(c); /* the first id that is not one */
}

/* A case's inputs, on both sides. */
static struct pre_buffers fill(struct ck *ck, struct ck_random *random, const struct pre_case *c)
{
    struct pre_buffers b = make_buffers(ck, c);
    fill_data(random, c, &b);
    fill_rope(c, &b);
    fill_places(random, c, &b);
    return b;
}

static void upload_all(struct ck *ck, struct pre_buffers *b)
{
    for (size_t i = 0; i < BUFFERS; i++)
        ck_upload(ck, nth(b, i));
}

static void free_all(struct ck *ck, struct pre_buffers *b)
{
    for (size_t i = 0; i < BUFFERS; i++)
        ck_free(ck, nth(b, i));
}

/* ---- outcomes ---- */

/* Where a buffer's rotated numbers are: from `begin` on in each innermost piece; r 0: none. */
struct layout {
    int64_t row_stride, token_stride, head_stride;
    uint32_t begin, r;
    bool half_order;
};

static void layouts_of(const struct rt_preattend_params *p, int64_t number_bytes,
                       struct layout layouts[DATA_BUFFERS])
{
    const struct layout none = {1, 1, 1, 0, 0, false};
    for (size_t i = 0; i < DATA_BUFFERS; i++)
        layouts[i] = none;
    const int64_t token = p->kv.token_stride_bytes / number_bytes;
    layouts[3] = (struct layout){p->q_out.row_stride, p->q_out.token_stride, p->q_out.head_stride,
                                 p->latent_dim,       p->rope_dim,           p->rope.half_order};
    layouts[4] = (struct layout){p->kv.page_stride_bytes / number_bytes,
                                 token,
                                 token,
                                 p->latent_dim,
                                 p->rope_dim,
                                 p->rope.half_order};
}

/* The other number of a rotated pair; of others the number itself. */
static int64_t partner_of(const struct layout *l, int64_t i)
{
    const int64_t d = i % l->row_stride % l->token_stride % l->head_stride - l->begin;
    if (d < 0 || d >= l->r)
        return i;
    if (l->half_order)
        return d < l->r / 2 ? i + l->r / 2 : i - l->r / 2;
    return d % 2 ? i - 1 : i + 1;
}

/* Half a unit of bf16's last place, and what sums and products of floats may be off by. */
static double bound_of(double truth, double partner)
{
    const double partners = isfinite(partner) ? fabs(partner) : 0;
    return fabs(truth) * 0x1p-8 + (fabs(truth) + partners) * 0x1p-20 + 0x1p-133;
}

static bool is_nan_bits(uint16_t bits)
{
    return (bits & 0x7fffu) > BF16_INFINITY;
}

/* `before` is what the buffer held. */
static void compare(struct ck *ck, const char *name, const uint16_t *before, const uint16_t *found,
                    const float *truth, uint64_t count, const struct layout *l)
{
    struct ck_floats f = {.name = name, .rel_bound = 0x1p-99};
    for (uint64_t i = 0; i < count; i++) {
        const struct ck_place place = {(uint32_t)(i / (uint64_t)l->row_stride), 0, 0,
                                       (uint32_t)(i % (uint64_t)l->row_stride)};
        uint32_t bits;
        memcpy(&bits, &truth[i], sizeof(bits));
        const bool kept = bits == (uint32_t)before[i] << 16;
        if (kept && found[i] == before[i])
            continue;
        if (kept && (!is_nan_bits(before[i]) || before[i] == POISON)) {
            ck_failed(ck, "%s, element %llu: 0x%04x became 0x%04x", name, (unsigned long long)i,
                      before[i], found[i]);
            return;
        }
        f.abs_bound = bound_of((double)truth[i], (double)truth[partner_of(l, (int64_t)i)]);
        ck_floats_add(&f, (double)rt_bf16_to_float(found[i]), (double)truth[i], place);
    }
    if (f.count > 0)
        ck_floats_end(ck, &f, 0);
}

/* The reference is one, whatever its numbers are: in bf16 the same, rounded. */
static void compare_references(struct ck *ck, const struct ck_buffer *b, const float *truth)
{
    const uint16_t *found = ck_at(b, CK_REF);
    for (uint64_t i = 0; i < (b->bytes + CK_GUARD_BYTES) / 2; i++) {
        const uint16_t expected = rt_float_to_bf16(truth[i]);
        if (found[i] == expected || (is_nan_bits(found[i]) && is_nan_bits(expected)))
            continue;
        ck_failed(ck, "the reference's %s in bf16, element %llu: 0x%04x, in f32 %.9g", b->name,
                  (unsigned long long)i, found[i], (double)truth[i]);
        return;
    }
}

/* What the data buffers hold, as it is and widened. */
static void widen(struct ck *ck, struct pre_buffers *b, uint16_t *before[DATA_BUFFERS],
                  struct pre_truth *truth)
{
    for (size_t i = 0; i < DATA_BUFFERS; i++) {
        const uint64_t bytes = nth(b, i)->bytes + CK_GUARD_BYTES;
        before[i] = ck_new(ck, bytes);
        memcpy(before[i], nth(b, i)->ref, bytes);
        truth->data[i] = ck_new(ck, 2 * bytes);
        for (uint64_t n = 0; n < bytes / 2; n++)
            truth->data[i][n] = rt_bf16_to_float(before[i][n]);
    }
}

static void check(struct ck *ck, struct ck_random *random, const struct pre_case *c)
{
    ck_case(ck,
            "%u rows of %u, %u heads, P %u, L %u, R %u, width %u, page %u, row_base %u:%s%s%s%s%s%s"
            "%s%s%s, eps %g",
            c->rows, c->q_len, c->heads, c->p, c->l, c->r, c->width, c->page_size, c->row_base,
            c->q_a ? " q_a" : "", c->kv_a ? " kv_a" : "", c->q ? " q" : "",
            c->table ? ", turned" : "", c->half_order ? " in halves" : "",
            c->factors ? ", factors" : "", c->weights ? ", weights" : "",
            c->strided ? ", strided" : "", c->early ? ", early" : "", (double)c->eps);
    struct pre_buffers b = fill(ck, random, c);
    struct pre_truth truth;
    uint16_t *before[DATA_BUFFERS];
    upload_all(ck, &b);
    widen(ck, &b, before, &truth);

    const struct rt_preattend_params exact = params_of(c, &b, CK_REF, &truth);
    const struct rt_preattend_params ref = params_of(c, &b, CK_REF, NULL);
    const struct rt_preattend_params device = params_of(c, &b, CK_DEVICE, NULL);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_preattend(&exact);
    rt_ref_preattend(&ref);
    enum rt_status status = ck_build(ck, RT_OP_PREATTEND, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);

    struct layout layouts[DATA_BUFFERS];
    layouts_of(&ref, 2, layouts);
    for (size_t i = 0; i < DATA_BUFFERS; i++) {
        const uint64_t bytes = nth(&b, i)->bytes + CK_GUARD_BYTES;
        uint16_t *found = ck_new(ck, bytes);
        ck_download(ck, nth(&b, i), found);
        compare_references(ck, nth(&b, i), truth.data[i]);
        compare(ck, nth(&b, i)->name, before[i], found, truth.data[i], bytes / 2, &layouts[i]);
        free(found);
        free(before[i]);
        free(truth.data[i]);
    }
    for (size_t i = DATA_BUFFERS; i < BUFFERS; i++)
        ck_expect_same(ck, nth(&b, i));
    free_all(ck, &b);
}

static const struct {
    uint32_t p, l, r;
} geometries[] = {{128, 512, 64}, {64, 256, 64}, {64, 256, 32}, {256, 512, 0}, {192, 512, 64}};

static struct pre_case random_case(struct ck_random *random, uint32_t i)
{
    static const uint32_t heads[] = {1, 16, 5, 128, 40, 8, 9}, page_sizes[] = {16, 32, 64, 128};
    static const uint32_t widths[] = {1536, 768, 1024, 2048, 8, 4096, 2056};
    static const unsigned parts[] = {7, 7, 1, 7, 2, 6, 4, 7, 3, 5, 7};
    static const float epsilons[] = {1e-6f, 1e-5f, 0.0f};
    const uint32_t g = i % 5;
    struct pre_case c = {.heads = heads[i % 7],
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
                         .eps = epsilons[i / 4 % 3],
                         .offset = i % 6 == 2 ? 1.0f : 0.0f,
                         .scale = i % 5 == 3 ? 3.4641016f : 1.0f};
    /* A case stays below some 400 heads' work. */
    c.rows = 1 + ck_random_below(random, 400 / (c.heads * c.q_len + 20) + 1);
    return c;
}

/* ---- edges ---- */

#define CHAIN 3u

/* Positions written by a launch of append, which takes them for a token of 16 bytes. */
static struct rt_append_params positions_of(const struct pre_buffers *b)
{
    return (struct rt_append_params){
        .latent = {.base = ck_at(&b->kv_weight, CK_DEVICE)},
        .kv = {.base = ck_at(&b->position, CK_DEVICE),
               .table = ck_at(&b->slot, CK_DEVICE),
               .page_size = 1,
               .max_blocks = 1,
               .pages = 1,
               .token_bytes = 16},
        .rows = {.count = 1, .q_len = 1, .position = ck_at(&b->slot, CK_DEVICE)}};
}

/* Each reads what the one before it writes: q_a and q's P numbers are done again, q_out's become
 * kv_a. Launched one by one and as a chain they leave the same bits. */
static void check_chain(struct ck *ck, struct ck_random *random, bool early)
{
    const struct pre_case c = {.rows = 4,
                               .q_len = 2,
                               .heads = 9,
                               .p = 64,
                               .l = 256,
                               .r = 32,
                               .width = 768,
                               .page_size = 16,
                               .q_a = true,
                               .kv_a = true,
                               .q = true,
                               .table = true,
                               .factors = true,
                               .weights = true,
                               .early = early,
                               .eps = 1e-6f,
                               .scale = 1.0f};
    ck_case(ck, "a chain%s", early ? ", early" : " behind positions");
    struct pre_buffers b = fill(ck, random, &c);
    memset(b.slot.ref, 0, b.slot.bytes);
    memcpy(b.position.ref, (const int32_t[]){15, 40, 3, 62}, 16);
    if (!early) /* the right ones come with the chain's first launch */
        memcpy(b.kv_weight.ref, (const int32_t[]){16, 33, 2, 7}, 16);

    const struct rt_append_params positions = positions_of(&b);
    struct rt_preattend_params p = params_of(&c, &b, CK_DEVICE, NULL);
    struct rt_launch launches[CHAIN];
    struct rt_error err = {0};
    ck_must(ck, ck_build(ck, RT_OP_PREATTEND, &p, sizeof(p), &launches[1], &err), &err);
    launches[0] = launches[1];
    if (!early)
        ck_must(ck, ck_build(ck, RT_OP_APPEND, &positions, sizeof(positions), &launches[0], &err),
                &err);
    p.kv_a = (struct rt_tokens_view){p.q_out.base, p.q_out.row_stride, p.q_out.token_stride};
    ck_must(ck, ck_build(ck, RT_OP_PREATTEND, &p, sizeof(p), &launches[2], &err), &err);
    upload_all(ck, &b);
    ck_launch_chain(ck, launches, CHAIN);
    void *chained[DATA_BUFFERS];
    for (size_t i = 0; i < DATA_BUFFERS; i++) {
        chained[i] = ck_new(ck, nth(&b, i)->bytes + CK_GUARD_BYTES);
        ck_download(ck, nth(&b, i), chained[i]);
    }
    upload_all(ck, &b);
    for (uint32_t i = 0; i < CHAIN; i++)
        ck_launch(ck, RT_OK, &err, &launches[i]);
    for (size_t i = 0; i < DATA_BUFFERS; i++) {
        ck_download(ck, nth(&b, i), nth(&b, i)->ref);
        ck_expect_bytes(ck, nth(&b, i)->name, chained[i], nth(&b, i)->ref, nth(&b, i)->bytes);
        free(chained[i]);
    }
    free_all(ck, &b);
}

/* A DeepSeek-V3 block with 16 of its heads. */
static struct pre_case whole_block(uint32_t rows, uint32_t q_len)
{
    return (struct pre_case){.rows = rows,
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

void ck_preattend_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 1000 : 110;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct pre_case c = random_case(&random, i);
        check(ck, &random, &c);
    }
    /* More tokens than a block has warps, and than a wave has blocks. */
    struct pre_case large = whole_block(ck_is_cuda(ck) ? 512 : 33, 2);
    large.slots = true;
    check(ck, &random, &large);
    check_chain(ck, &random, false);
    check_chain(ck, &random, true);
}

#define BENCH_LAUNCHES 50

void ck_preattend_bench(struct ck *ck)
{
    static const uint32_t batches[] = {1, 16, 64, 512};
    struct ck_random random = {.state = ck->seed};
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++)
        for (uint32_t early = 0; early < 2; early++) {
            struct pre_case c = whole_block(batches[i], 1);
            c.early = early;
            struct pre_buffers b = fill(ck, &random, &c);
            upload_all(ck, &b);
            const struct rt_preattend_params p = params_of(&c, &b, CK_DEVICE, NULL);
            struct rt_launch launches[BENCH_LAUNCHES];
            struct rt_error err = {0};
            for (int l = 0; l < BENCH_LAUNCHES; l++)
                ck_must(ck, ck_build(ck, RT_OP_PREATTEND, &p, sizeof(p), &launches[l], &err), &err);
            printf("preattend  batch %4u, 16 heads, 576/512%s: %8.2f us\n", c.rows,
                   early ? ", early" : "       ", ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
            free_all(ck, &b);
        }
}
