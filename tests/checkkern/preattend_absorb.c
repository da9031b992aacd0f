/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preattend_absorb, the node of two: bit for bit what preattend and then the product's own kernel
 * leave, launched one behind the other on the same device, whose own edges are in preattend.c and
 * project.c; and near the reference, as bf16 and sums in float are.
 */
#include "common/rope.h"
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 3u
#define PAGE_SIZE 16u
#define CAPACITY (COLUMNS * PAGE_SIZE)
#define NAN_BYTE 0xff

struct pair_case {
    uint32_t rows, q_len, heads, p, l, r;
    bool kv_a, half_order, along, slots, strided, early;
    bool padding; /* all rows are */
};

/* The first are written; q_in where a token is not live. */
struct pair_buffers {
    struct ck_buffer q_in, q_out, kv;
    struct ck_buffer kv_a, kv_weight, w, turns, table, slot, position;
};
#define BUFFERS (sizeof(struct pair_buffers) / sizeof(struct ck_buffer))
#define WRITTEN 3u

static struct ck_buffer *nth(struct pair_buffers *b, size_t i)
{
    struct ck_buffer *all[BUFFERS] = {&b->q_in, &b->q_out, &b->kv,    &b->kv_a, &b->kv_weight,
                                      &b->w,    &b->turns, &b->table, &b->slot, &b->position};
    return all[i];
}

/* Rows without gaps, for a product counts tokens; heads and tokens with, where it is strided. */
static struct rt_heads_view heads_of(const struct pair_case *c, void *base, uint32_t width)
{
    const int64_t head = width + (c->strided ? 8 : 0);
    const int64_t token = c->heads * head + (c->strided ? 16 : 0);
    return (struct rt_heads_view){
        .base = base, .head_stride = head, .token_stride = token, .row_stride = c->q_len * token};
}

/* W_UK [heads, L, P], as keys' rows lie in kv_b_proj, the values' between; or its transpose. */
static struct rt_weight_view weight_of(const struct pair_case *c, const void *base)
{
    const int64_t stride = (c->along ? c->p : c->l) + (c->strided ? 16 : 0);
    return (struct rt_weight_view){.base = base,
                                   .batch_stride = (c->along ? c->l : 2 * c->p) * stride,
                                   .row_stride = c->along ? stride : 1,
                                   .column_stride = c->along ? 1 : stride,
                                   .rows = c->l};
}

static struct rt_preattend_absorb_params params_of(const struct pair_case *c,
                                                   struct pair_buffers *b, enum ck_side side)
{
    const int64_t token = c->l + c->r;
    struct rt_preattend_absorb_params p = {
        .preattend = {.rows = {.count = c->rows,
                               .q_len = c->q_len,
                               .position = ck_at(&b->position, side)},
                      .kv = {.base = ck_at(&b->kv, side),
                             .table = ck_at(&b->table, side),
                             .token_stride_bytes = 2 * token,
                             .page_stride_bytes = 2 * PAGE_SIZE * token,
                             .page_size = PAGE_SIZE,
                             .max_blocks = COLUMNS,
                             .pages = c->rows * COLUMNS,
                             .token_bytes = (uint32_t)(2 * token)},
                      .kv_a = {c->kv_a ? ck_at(&b->kv_a, side) : NULL, c->q_len * token, token},
                      .q_in = heads_of(c, ck_at(&b->q_in, side), c->p + c->r),
                      .q_out = heads_of(c, ck_at(&b->q_out, side), c->l + c->r),
                      .kv_a_norm = {.weight = ck_at(&b->kv_weight, side),
                                    .eps = 1e-6f,
                                    .scale = 1,
                                    .width = c->l},
                      .rope = {.table = c->r ? ck_at(&b->turns, side) : NULL,
                               .capacity = CAPACITY,
                               .half_order = c->half_order},
                      .heads = c->heads,
                      .nope_dim = c->p,
                      .latent_dim = c->l,
                      .rope_dim = c->r,
                      .early = c->early},
        .absorb = {.batch = c->heads, .m = c->rows * c->q_len, .k = c->p}};
    const struct rt_preattend_params *q = &p.preattend;
    p.absorb.x = (struct rt_matrix_view){q->q_in.base, q->q_in.head_stride, q->q_in.token_stride};
    p.absorb.y =
        (struct rt_matrix_view){q->q_out.base, q->q_out.head_stride, q->q_out.token_stride};
    p.absorb.w[0] = weight_of(c, ck_at(&b->w, side));
    if (c->slots)
        p.preattend.rows.slot = ck_at(&b->slot, side);
    return p;
}

static struct pair_buffers make_buffers(struct ck *ck, const struct pair_case *c)
{
    struct pair_buffers none = {0};
    const struct rt_preattend_absorb_params p = params_of(c, &none, CK_REF);
    const struct rt_preattend_params *q = &p.preattend;
    const uint64_t rows = c->rows;
    return (struct pair_buffers){
        .q_in = ck_alloc(ck, "q_in", 2 * rows * (uint64_t)q->q_in.row_stride, NAN_BYTE),
        .q_out = ck_alloc(ck, "q_out", 2 * rows * (uint64_t)q->q_out.row_stride, NAN_BYTE),
        .kv = ck_alloc(ck, "kv", q->kv.pages * (uint64_t)q->kv.page_stride_bytes, NAN_BYTE),
        .kv_a = ck_alloc(ck, "kv_a", 2 * rows * c->q_len * (c->l + c->r), NAN_BYTE),
        .kv_weight = ck_alloc(ck, "kv_a weight", 2 * (uint64_t)c->l, NAN_BYTE),
        .w = ck_alloc(ck, "w_uk", 2 * c->heads * (uint64_t)p.absorb.w[0].batch_stride, NAN_BYTE),
        .turns = ck_alloc(ck, "turns", CAPACITY * (uint64_t)c->r * 4 + 4, 0),
        .table = ck_alloc(ck, "table", rows * COLUMNS * 4, 0),
        .slot = ck_alloc(ck, "slot", rows * 4, 0),
        .position = ck_alloc(ck, "position", rows * 4, 0)};
}

/* ---- inputs ---- */

static void fill_numbers(struct ck_random *random, uint16_t *to, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        to[i] = rt_float_to_bf16((float)(2 * ck_random_unit(random) - 1));
}

/* Positions at every edge of what is live: a row may be so in its first tokens alone. */
static bool fill_places(struct ck_random *random, const struct pair_case *c, struct pair_buffers *b,
                        uint32_t r)
{
    int32_t *table = ck_at(&b->table, CK_REF), *slot = ck_at(&b->slot, CK_REF);
    int32_t *position = ck_at(&b->position, CK_REF);
    const int32_t edges[] = {0, -1, CAPACITY - 2, CAPACITY - 1, CAPACITY, INT32_MIN};
    const bool edge = ck_random_below(random, 3) == 0;
    const uint32_t line = c->slots ? c->rows - 1 - r : r;
    slot[r] = ck_random_below(random, 6) ? (int32_t)line : -1;
    position[r] = edge ? edges[ck_random_below(random, 6)]
                       : (int32_t)ck_random_below(random, CAPACITY - c->q_len);
    if (c->padding)
        position[r] = -1;
    for (uint32_t i = 0; i < COLUMNS; i++)
        table[line * COLUMNS + i] = (int32_t)(line * COLUMNS + (i + 1) % COLUMNS);
    return position[r] >= 0 && (slot[r] >= 0 || !c->slots);
}

/* Of rows that are not live, q stays NaN. */
static void fill_row(struct ck_random *random, const struct pair_case *c, struct pair_buffers *b,
                     uint32_t r)
{
    const struct rt_preattend_absorb_params p = params_of(c, b, CK_REF);
    const struct rt_heads_view *q = &p.preattend.q_in;
    const bool live = fill_places(random, c, b, r);
    const int32_t first = ((const int32_t *)ck_at(&b->position, CK_REF))[r];
    for (uint32_t t = 0; t < c->q_len; t++) {
        fill_numbers(random,
                     (uint16_t *)ck_at(&b->kv_a, CK_REF) +
                         (uint64_t)(r * c->q_len + t) * (c->l + c->r),
                     c->l + c->r);
        for (uint32_t h = 0; h < c->heads && live && first + (int32_t)t < (int32_t)CAPACITY; h++)
            fill_numbers(random,
                         (uint16_t *)q->base + r * q->row_stride + t * q->token_stride +
                             h * q->head_stride,
                         c->p + c->r);
    }
}

static struct pair_buffers fill(struct ck *ck, struct ck_random *random, const struct pair_case *c)
{
    struct pair_buffers b = make_buffers(ck, c);
    const struct rt_weight_view w = weight_of(c, ck_at(&b.w, CK_REF));
    const struct rt_rope rope = {.theta = 10000, .attention_factor = 1};
    const uint32_t outer = c->along ? c->l : c->p, inner = c->along ? c->p : c->l;
    const int64_t stride = c->along ? w.row_stride : w.column_stride;
    double speeds[RT_MAX_ROPE_PAIRS];
    for (uint32_t r = 0; r < c->rows; r++)
        fill_row(random, c, &b, r);
    for (uint32_t h = 0; h < c->heads; h++)
        for (uint32_t o = 0; o < outer; o++)
            fill_numbers(random, (uint16_t *)b.w.ref + h * w.batch_stride + o * stride, inner);
    fill_numbers(random, ck_at(&b.kv_weight, CK_REF), c->l);
    rt_rope_speeds(&rope, c->r, 0, speeds);
    rt_rope_rows(&rope, speeds, c->r / 2, 0, CAPACITY, ck_at(&b.turns, CK_REF));
    return b;
}

/* ---- outcomes ---- */

static void upload_all(struct ck *ck, struct pair_buffers *b)
{
    for (size_t i = 0; i < BUFFERS; i++)
        ck_upload(ck, nth(b, i));
}

static bool resolve(struct ck *ck, enum rt_op_id op, enum rt_backend backend,
                    const struct rt_preattend_absorb_params *p, struct rt_variant *out)
{
    const struct rt_op_request request = {
        .caps = &ck->driver.caps, .backend = backend, .product = &p->absorb, .preattend_absorb = p};
    struct rt_error err = {0};
    const enum rt_status status = rt_op_resolve(op, &request, out, &err);
    if (status == RT_ERR_UNSUPPORTED)
        return false;
    ck_must(ck, status, &err);
    return true;
}

/* What the written buffers hold on the device. */
static void download(struct ck *ck, struct pair_buffers *b, uint16_t *found[WRITTEN])
{
    for (size_t i = 0; i < WRITTEN; i++) {
        found[i] = ck_new(ck, nth(b, i)->bytes + CK_GUARD_BYTES);
        ck_download(ck, nth(b, i), found[i]);
    }
}

static void launch_one(struct ck *ck, const struct rt_variant *choice, const void *params,
                       size_t bytes)
{
    struct rt_launch launch;
    struct rt_error err = {0};
    const enum rt_status status = ck_build_variant(ck, choice, params, bytes, &launch, &err);
    ck_launch(ck, status, &err, &launch);
}

/* By the two kernels of the same level, one behind the other. */
static void run_apart(struct ck *ck, enum rt_backend backend,
                      const struct rt_preattend_absorb_params *p)
{
    struct rt_variant preattend, product;
    if (!resolve(ck, RT_OP_PREATTEND, backend, p, &preattend) ||
        !resolve(ck, RT_OP_PROJECT, backend, p, &product)) {
        ck_failed(ck, "no two kernels of that level serve it");
        return;
    }
    launch_one(ck, &preattend, &p->preattend, sizeof(p->preattend));
    launch_one(ck, &product, &p->absorb, sizeof(p->absorb));
}

/* Within a bf16 rounding of the rounded reference, and what sums of 256 products of floats and
 * turned pairs below 2 may be off by; what the reference leaves alone is left. */
static void compare(struct ck *ck, const struct ck_buffer *b, const uint16_t *truth,
                    const uint16_t *found)
{
    struct ck_floats f = {.name = b->name, .rel_bound = 0x1p-99};
    for (uint64_t i = 0; i < (b->bytes + CK_GUARD_BYTES) / 2; i++) {
        const double t = (double)rt_bf16_to_float(truth[i]);
        if (found[i] == truth[i])
            continue;
        f.abs_bound = fabs(t) * 0x1p-7 + 1e-3;
        ck_floats_add(&f, (double)rt_bf16_to_float(found[i]), t,
                      (struct ck_place){.d = (uint32_t)i});
    }
    if (f.count > 0)
        ck_floats_end(ck, &f, 0);
}

static void check_variant(struct ck *ck, struct pair_buffers *b,
                          const struct rt_preattend_absorb_params *p,
                          const struct rt_variant *choice, uint16_t *const truth[WRITTEN])
{
    uint16_t *apart[WRITTEN], *together[WRITTEN];
    upload_all(ck, b);
    run_apart(ck, choice->backend, p);
    download(ck, b, apart);
    upload_all(ck, b);
    launch_one(ck, choice, p, sizeof(*p));
    download(ck, b, together);
    for (size_t i = 0; i < WRITTEN; i++) {
        (void)ck_expect_bytes(ck, nth(b, i)->name, together[i], apart[i],
                              nth(b, i)->bytes + CK_GUARD_BYTES);
        compare(ck, nth(b, i), truth[i], together[i]);
        free(apart[i]);
        free(together[i]);
    }
    for (size_t i = WRITTEN; i < BUFFERS; i++)
        (void)ck_expect_same(ck, nth(b, i));
    ck_count(ck, rt_backend_name(choice->backend), p->absorb.m, p->absorb.m);
}

/* On copies, for every variant wants the inputs. */
static void make_truth(struct ck *ck, const struct pair_case *c, const struct pair_buffers *b,
                       uint16_t *truth[WRITTEN])
{
    struct pair_buffers copies = *b;
    for (size_t i = 0; i < WRITTEN; i++) {
        struct ck_buffer *copy = nth(&copies, i);
        const uint64_t bytes = copy->bytes + CK_GUARD_BYTES;
        truth[i] = ck_new(ck, bytes);
        memcpy(truth[i], copy->ref, bytes);
        copy->ref = (unsigned char *)truth[i];
    }
    const struct rt_preattend_absorb_params p = params_of(c, &copies, CK_REF);
    rt_ref_preattend_absorb(&p);
}

static void name_case(struct ck *ck, const struct pair_case *c, enum rt_backend backend,
                      uint32_t parts)
{
    ck_case(ck, "%s, %u blocks: %u rows of %u, %u heads, P %u, L %u, R %u:%s%s%s%s%s%s%s",
            rt_backend_name(backend), parts, c->rows, c->q_len, c->heads, c->p, c->l, c->r,
            c->kv_a ? " kv_a" : "", c->half_order ? " in halves" : "", c->along ? " along" : "",
            c->slots ? " slots" : "", c->strided ? " strided" : "", c->early ? " early" : "",
            c->padding ? " padding" : "");
}

/* By every kernel that serves it; the tuned one also with other blocks. */
static void check(struct ck *ck, struct ck_random *random, const struct pair_case *c)
{
    static const enum rt_backend backends[] = {RT_BACKEND_GENERIC, RT_BACKEND_SM90};
    static const uint32_t parts[] = {1, 2, 7, 131};
    struct pair_buffers b = fill(ck, random, c);
    const struct rt_preattend_absorb_params p = params_of(c, &b, CK_DEVICE);
    uint16_t *truth[WRITTEN];
    make_truth(ck, c, &b, truth);
    for (int i = 0; i < 2; i++) {
        struct rt_variant choice;
        if (!resolve(ck, RT_OP_PREATTEND_ABSORB, backends[i], &p, &choice))
            continue;
        name_case(ck, c, choice.backend, choice.parts);
        check_variant(ck, &b, &p, &choice, truth);
        if (choice.backend != RT_BACKEND_SM90)
            continue;
        choice.parts = parts[ck_random_below(random, 4)];
        name_case(ck, c, choice.backend, choice.parts);
        check_variant(ck, &b, &p, &choice, truth);
    }
    for (size_t i = 0; i < WRITTEN; i++)
        free(truth[i]);
    for (size_t i = 0; i < BUFFERS; i++)
        ck_free(ck, nth(&b, i));
}

static struct pair_case random_case(struct ck_random *random, uint32_t i)
{
    static const struct {
        uint32_t p, l, r;
    } geometries[] = {{128, 512, 64}, {64, 256, 32}, {192, 512, 64},
                      {64, 256, 64},  {128, 512, 0}, {8, 256, 32}};
    static const uint32_t heads[] = {1, 5, 8, 3, 16, 9, 2};
    const uint32_t g = i % 6, tokens = 1 + ck_random_below(random, i % 8 == 7 ? 40 : 16);
    struct pair_case c = {.heads = heads[i % 7],
                          .q_len = 1 + ck_random_below(random, tokens < 8 ? tokens : 8),
                          .p = geometries[g].p,
                          .l = geometries[g].l,
                          .r = geometries[g].r,
                          .kv_a = i % 5 > 0,
                          .half_order = ck_random_below(random, 2),
                          .along = i % 9 == 8,
                          .slots = ck_random_below(random, 3) > 0,
                          .strided = ck_random_below(random, 3) == 0,
                          .early = ck_random_below(random, 2),
                          .padding = i % 13 == 12};
    c.rows = tokens / c.q_len;
    return c;
}

void ck_preattend_absorb_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 500 : ck_is_brief(ck) ? 8 : ck->quick ? 14 : 70;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct pair_case c = random_case(&random, i);
        check(ck, &random, &c);
    }
    /* All heads, briefly some, and the most tokens of the tuned kernels. */
    check(ck, &random,
          &(struct pair_case){.rows = 1,
                              .q_len = 1,
                              .heads = ck_is_brief(ck) ? 40 : 128,
                              .p = 128,
                              .l = 512,
                              .r = 64,
                              .kv_a = true,
                              .early = true});
    check(ck, &random,
          &(struct pair_case){.rows = 2,
                              .q_len = 8,
                              .heads = 20,
                              .p = 128,
                              .l = 512,
                              .r = 64,
                              .kv_a = true,
                              .early = true});
}

/* ---- bench ---- */

#define BENCH_LAYERS 60u
#define BENCH_LAYERS_HOST 2u

/* A chain of layers, each with weights of its own: the node of two, or the two nodes. */
static double time_layers(struct ck *ck, const struct rt_preattend_absorb_params *first,
                          const struct ck_buffer *weights, bool shared)
{
    struct rt_launch all[2 * BENCH_LAYERS];
    struct rt_preattend_absorb_params p = *first;
    struct rt_variant both, preattend, product;
    struct rt_error err = {0};
    const uint32_t layers = ck_is_cuda(ck) ? BENCH_LAYERS : BENCH_LAYERS_HOST;
    uint32_t count = 0;
    if (!resolve(ck, RT_OP_PREATTEND_ABSORB, RT_BACKEND_AUTO, &p, &both) ||
        !resolve(ck, RT_OP_PREATTEND, RT_BACKEND_AUTO, &p, &preattend) ||
        !resolve(ck, RT_OP_PROJECT, RT_BACKEND_AUTO, &p, &product))
        return 0;
    for (uint32_t layer = 0; layer < layers; layer++) {
        p.absorb.w[0].base = (const uint16_t *)ck_at(weights, CK_DEVICE) +
                             layer * (p.absorb.batch * p.absorb.w[0].batch_stride);
        if (shared) {
            ck_must(ck, ck_build_variant(ck, &both, &p, sizeof(p), &all[count++], &err), &err);
            continue;
        }
        ck_must(ck,
                ck_build_variant(ck, &preattend, &p.preattend, sizeof(p.preattend), &all[count++],
                                 &err),
                &err);
        ck_must(ck,
                ck_build_variant(ck, &product, &p.absorb, sizeof(p.absorb), &all[count++], &err),
                &err);
    }
    return ck_time_ns(ck, all, count) * count / layers;
}

void ck_preattend_absorb_bench(struct ck *ck)
{
    static const uint32_t heads[] = {16, 128}, batches[] = {1, 8, 16};
    struct ck_random random = {.state = ck->seed};
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 3; i++) {
            const struct pair_case c = {.rows = batches[i],
                                        .q_len = 1,
                                        .heads = heads[h],
                                        .p = 128,
                                        .l = 512,
                                        .r = 64,
                                        .kv_a = true,
                                        .early = true};
            struct pair_buffers b = fill(ck, &random, &c);
            const struct rt_preattend_absorb_params p = params_of(&c, &b, CK_DEVICE);
            struct ck_buffer weights =
                ck_alloc(ck, "weights of all layers", BENCH_LAYERS * b.w.bytes, 0);
            upload_all(ck, &b);
            const double one = time_layers(ck, &p, &weights, true);
            const double two = time_layers(ck, &p, &weights, false);
            printf("preattend_absorb  batch %2u, %3u heads: %8.2f us as one node, %8.2f as two\n",
                   c.rows, c.heads, one / 1e3, two / 1e3);
            ck_free(ck, &weights);
            for (size_t n = 0; n < BUFFERS; n++)
                ck_free(ck, nth(&b, n));
        }
}
