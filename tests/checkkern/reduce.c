/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/piece.h"
#include "kernels/ops/op_build.h"
#include "kernels/ref/piece.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_D_V 512
#define PART 32u /* columns whose words are next to each other */

struct reduce_case {
    uint32_t rows, q_len, heads, d_v, row_base;
    uint32_t least_pieces, most_pieces;    /* of a split row */
    uint32_t split_percent, empty_percent; /* of the rows; the others are whole */
    bool strided, lse_base2, sink;
    uint32_t tile_rows; /* of the small tile of attention in front, or 0 */
};

struct reduce_buffers {
    struct ck_buffer partial_out, partial_lse, num_splits, length, out, lse, ctrl, stamp, sink;
    float *most; /* of out's elements, the largest magnitude in a piece */
};

static struct rt_reduce_params params_of(const struct reduce_case *c,
                                         const struct reduce_buffers *b, enum ck_side side)
{
    int64_t head = c->d_v + (c->strided ? 8 : 0);
    struct rt_reduce_params p = {.partials.out = ck_at(&b->partial_out, side),
                                 .partials.lse = ck_at(&b->partial_lse, side),
                                 .schedule.num_splits = ck_at(&b->num_splits, side),
                                 .rows.length = ck_at(&b->length, side),
                                 .out.base = ck_at(&b->out, side),
                                 .lse.base = ck_at(&b->lse, side),
                                 .out.head_stride = head,
                                 .out.token_stride = head * c->heads,
                                 .out.row_stride = head * c->heads * c->q_len,
                                 .lse.head_stride = c->strided ? c->q_len : 1,
                                 .lse.token_stride = c->strided ? 1 : c->heads,
                                 .lse.row_stride = c->heads * c->q_len,
                                 .rows.count = c->rows,
                                 .rows.q_len = c->q_len,
                                 .heads = c->heads,
                                 .d_v = c->d_v,
                                 .lse_base2 = c->lse_base2};
    if (c->sink)
        p.sink = ck_at(&b->sink, side);
    if (c->row_base > 0)
        p.rows.ctrl = ck_at(&b->ctrl, side);
    if (side == CK_DEVICE)
        p.stamp_last = ck_at(&b->stamp, side);
    return p;
}

/* Empty, whole and split rows; the partial slots that they take. */
static uint32_t plan(struct ck_random *random, const struct reduce_case *c, int32_t *length,
                     int32_t *num_splits)
{
    for (uint32_t r = 0; r < c->rows; r++) {
        uint32_t kind = ck_random_below(random, 100);
        bool split = kind < c->split_percent;
        bool empty = !split && kind < c->split_percent + c->empty_percent;
        uint32_t range = c->most_pieces - c->least_pieces + 1;
        uint32_t pieces = split ? c->least_pieces + ck_random_below(random, range) : 0;
        length[r] = empty ? -(int32_t)ck_random_below(random, 3) : 5000;
        num_splits[r + 1] = num_splits[r] + (int32_t)pieces;
    }
    return (uint32_t)num_splits[c->rows];
}

static struct reduce_buffers make_buffers(struct ck *ck, struct ck_random *random,
                                          const struct reduce_case *c)
{
    struct reduce_buffers b = {.num_splits = ck_alloc(ck, "num_splits", (c->rows + 1) * 4, 0),
                               .length = ck_alloc(ck, "row_length", c->rows * 4, 0),
                               .ctrl = ck_alloc(ck, "ctrl", sizeof(struct rt_ctrl), 0),
                               .stamp = ck_alloc(ck, "stamp", sizeof(uint64_t), 0),
                               .sink = ck_alloc(ck, "sink", c->heads * sizeof(float), 0xff)};
    struct rt_reduce_params p = params_of(c, &b, CK_REF);
    uint64_t hq = c->q_len * c->heads, rows = c->row_base + c->rows;
    uint64_t slots = plan(random, c, ck_at(&b.length, CK_REF), ck_at(&b.num_splits, CK_REF));
    slots += slots == 0;
    *(struct rt_ctrl *)ck_at(&b.ctrl, CK_REF) = (struct rt_ctrl){.row_base = c->row_base};
    b.partial_out = ck_alloc(ck, "partial_out", slots * hq * c->d_v * 4, 0xff);
    b.partial_lse = ck_alloc(ck, "partial_lse", slots * hq * 4, 0xff);
    b.most = ck_new(ck, rows * (uint64_t)p.out.row_stride * sizeof(float) +
                            CK_GUARD_BYTES / 2 * sizeof(float));
    b.out = ck_alloc(ck, "out", rows * (uint64_t)p.out.row_stride * 2, 0xff);
    b.lse = ck_alloc(ck, "lse", rows * hq * 4, 0xff);
    return b;
}

static void free_buffers(struct ck *ck, struct reduce_buffers *b)
{
    free(b->most);
    ck_free(ck, &b->partial_out);
    ck_free(ck, &b->partial_lse);
    ck_free(ck, &b->num_splits);
    ck_free(ck, &b->length);
    ck_free(ck, &b->out);
    ck_free(ck, &b->lse);
    ck_free(ck, &b->ctrl);
    ck_free(ck, &b->stamp);
    ck_free(ck, &b->sink);
}

/* What numbers of a piece are. */
enum {
    PLAIN,     /* normal / 10 */
    LARGE,     /* of 1e30: no f16 */
    SMALL,     /* of 1e-30 */
    AT_LIMITS, /* where f16 ends: 65504 and beyond, 2^-14 and below, subnormals, and 0 */
    MIXED,     /* large, small and plain ones in turn */
    ODD,       /* plain, with infinities and NaN among them */
    ZEROS,
    NUMBERS
};

static float number(struct ck_random *random, uint32_t numbers, uint32_t d)
{
    static const float limits[] = {65504,    65519,    65520, 0x1p-14f, 0x1.ffcp-15f,
                                   0x1p-24f, 0x1p-25f, 0,     -0.0f,    1e-40f};
    static const float odd[] = {INFINITY, -INFINITY, NAN};
    const float x = (float)ck_random_normal(random) / 10;
    const uint32_t kind = numbers == MIXED ? d % 3 : numbers;
    if (kind == LARGE || kind == SMALL)
        return x * (kind == LARGE ? 1e31f : 1e-29f);
    if (kind == AT_LIMITS)
        return limits[ck_random_below(random, 10)] * (d % 2 ? 1.0f : -1.0f);
    if (kind == ODD && ck_random_below(random, 64) == 0)
        return odd[ck_random_below(random, 3)];
    return kind == ZEROS ? 0 : x;
}

/* A query row of one piece. kind 0: any; 1: all pieces empty; 2: a NaN among them; 3: far apart. */
static float fill_piece(struct ck_random *random, uint32_t kind, uint32_t numbers, float *out,
                        uint32_t d_v)
{
    bool empty = kind == 1 || ck_random_below(random, 4) == 0;
    float lse = empty ? -INFINITY : (float)ck_random_normal(random) * (kind == 3 ? 300.0f : 3.0f);
    if (kind == 2 && ck_random_below(random, 4) == 0)
        lse = NAN;
    for (uint32_t d = 0; d < d_v; d++)
        out[d] = empty ? 0 : number(random, numbers, d);
    return lse;
}

/* To nearest even; beyond 65504 infinite. */
static uint16_t to_f16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return RT_PIECE_NAN;
    if (fabsf(value) >= 65520)
        return (uint16_t)(sign | RT_PIECE_LIMIT);
    if (fabsf(value) < 0x1p-14f)
        return (uint16_t)(sign | (uint32_t)rintf(fabsf(value) * 0x1p24f));
    return (uint16_t)(sign | ((magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13));
}

static bool fits(const float *x)
{
    uint32_t most = 0;
    bool all_zero = true;
    for (uint32_t d = 0; d < PART; d++) {
        const uint32_t magnitude = to_f16(x[d]) & 0x7fffu;
        if (!isnan(x[d]) && magnitude > most)
            most = magnitude;
        all_zero = all_zero && x[d] == 0;
    }
    return all_zero || (most >= RT_PIECE_LEAST && most < RT_PIECE_LIMIT);
}

/* Parts of 32 columns are stored by themselves, as if by different warps. */
static void store_piece(const struct reduce_case *c, const struct rt_partials_view *partials,
                        uint64_t slot, uint64_t query, const float *x)
{
    const uint64_t hq = c->q_len * c->heads;
    uint16_t *halves = (uint16_t *)(void *)(partials->out + slot * hq * c->d_v);
    for (uint32_t d = 0; d < c->d_v; d += PART) {
        float room[PART];
        uint16_t *words = (uint16_t *)(void *)room;
        const struct rt_partials_view of_part = {.out = room};
        const struct rt_ref_pieces to = rt_ref_pieces_of(&of_part, 1, PART, false);
        rt_ref_piece_store(&to, 0, 0, x + d);
        const bool as_f16 = fits(x + d);
        for (uint32_t i = 0; as_f16 && i < PART; i++)
            words[RT_PIECE_AT(i)] = to_f16(x[d + i]);
        for (uint64_t i = 0; i < 2; i++)
            memcpy(halves + (i * hq + query) * c->d_v + d, words + i * PART, PART * 2);
    }
}

/* A query row's pieces; if its numbers are not plain, those of some pieces are. */
static void fill_query(struct ck_random *random, const struct reduce_case *c, uint64_t query,
                       const int32_t slots[2], const struct rt_partials_view *partials, float *most)
{
    const uint32_t kind = ck_random_below(random, 6);
    uint32_t numbers = ck_random_below(random, 2) ? PLAIN : ck_random_below(random, NUMBERS);
    if (kind == 3 && numbers == ODD)
        numbers = PLAIN; /* infinity times a weight that a float has as 0 */
    for (int32_t slot = slots[0]; slot < slots[1]; slot++) {
        float x[MOST_D_V];
        partials->lse[(uint64_t)slot * c->q_len * c->heads + query] =
            fill_piece(random, kind, ck_random_below(random, 3) ? numbers : PLAIN, x, c->d_v);
        store_piece(c, partials, (uint64_t)slot, query, x);
        for (uint32_t d = 0; d < c->d_v; d++)
            most[d] = isfinite(x[d]) ? fmaxf(most[d], fabsf(x[d])) : most[d];
    }
}

static void fill(struct ck *ck, struct ck_random *random, const struct reduce_case *c,
                 struct reduce_buffers *b)
{
    const int32_t *num_splits = ck_at(&b->num_splits, CK_REF);
    const struct rt_partials_view partials = {ck_at(&b->partial_out, CK_REF),
                                              ck_at(&b->partial_lse, CK_REF)};
    const struct rt_heads_view out = params_of(c, b, CK_REF).out;
    for (uint32_t r = 0; r < c->rows; r++)
        for (uint64_t i = 0; i < (uint64_t)c->q_len * c->heads; i++)
            fill_query(random, c, i, num_splits + r, &partials,
                       b->most + (c->row_base + r) * out.row_stride +
                           (int64_t)(i / c->heads) * out.token_stride +
                           (int64_t)(i % c->heads) * out.head_stride);
    if (c->sink)
        ck_random_sinks(random, 0, ck_at(&b->sink, CK_REF), c->heads);
    const struct ck_buffer *all[] = {&b->partial_out, &b->partial_lse, &b->num_splits,
                                     &b->length,      &b->ctrl,        &b->sink};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_upload(ck, all[i]);
}

/* What single precision makes of sums of so large numbers, and bf16 of the result. */
static double bound_of(double truth, float most)
{
    return CK_OUT_REL * fabs(truth) + ldexp((double)most, -15) + 1e-40;
}

/* NaN bits in both where nothing was written, so one comparison serves what was and what was not.
 */
static void compare_out(struct ck *ck, const struct rt_reduce_params *p,
                        const struct reduce_buffers *b)
{
    uint16_t *out = ck_new(ck, b->out.bytes + CK_GUARD_BYTES);
    const uint16_t *ref_out = ck_at(&b->out, CK_REF);
    struct ck_floats plain = ck_floats_out();
    struct ck_bounded all = {0};
    ck_download(ck, &b->out, out);
    for (uint64_t i = 0; i < (b->out.bytes + CK_GUARD_BYTES) / 2; i++) {
        const double found = (double)rt_bf16_to_float(out[i]);
        const double truth = (double)rt_bf16_to_float(ref_out[i]);
        struct ck_place place = {(uint32_t)(i / (uint64_t)p->out.row_stride), 0, 0,
                                 (uint32_t)(i % (uint64_t)p->out.row_stride)};
        ck_bounded_add(&all, i, found, truth, bound_of(truth, b->most[i]));
        if (b->most[i] < 2)
            ck_floats_add(&plain, found, truth, place);
    }
    if (all.wrong > 0)
        ck_failed(ck, "%llu elements of out are wrong, worst %llu: %.9g is off by %.3g",
                  (unsigned long long)all.wrong, (unsigned long long)all.worst_at, all.found,
                  all.difference);
    ck_floats_end(ck, &plain, CK_OUT_COS);
    free(out);
}

static void compare(struct ck *ck, const struct reduce_case *c, const struct reduce_buffers *b)
{
    float *lse = ck_new(ck, b->lse.bytes + CK_GUARD_BYTES);
    const float *ref_lse = ck_at(&b->lse, CK_REF);
    ck_download(ck, &b->lse, lse);
    struct rt_reduce_params p = params_of(c, b, CK_REF);
    struct ck_floats lses = ck_floats_lse();
    compare_out(ck, &p, b);
    for (uint64_t i = 0; i < (b->lse.bytes + CK_GUARD_BYTES) / 4; i++) {
        struct ck_place place = {(uint32_t)(i / (uint64_t)p.lse.row_stride), 0,
                                 (uint32_t)(i % (uint64_t)p.lse.row_stride), 0};
        ck_floats_add(&lses, (double)lse[i], (double)ref_lse[i], place);
    }
    ck_floats_end(ck, &lses, 0);
    free(lse);
}

/* Attention has an end, whether reduce had something to do or not. */
static void check_stamp(struct ck *ck, const struct ck_buffer *b)
{
    uint64_t found[1 + CK_GUARD_BYTES / sizeof(uint64_t)];
    ck_download(ck, b, found);
    if (found[0] == 0)
        ck_failed(ck, "the end of attention has no time");
}

/* As many blocks as there are behind attention of the case's tile. */
static enum rt_status build(struct ck *ck, const struct reduce_case *c,
                            const struct rt_reduce_params *p, struct rt_launch *out,
                            struct rt_error *err)
{
    const struct rt_op_request request = {.caps = &ck->driver.caps};
    struct rt_variant variant;
    RT_TRY(rt_op_resolve(RT_OP_REDUCE, &request, &variant, err));
    variant.tile_rows = c->tile_rows;
    return ck_build_variant(ck, &variant, p, sizeof(*p), out, err);
}

static void check(struct ck *ck, struct ck_random *random, const struct reduce_case *c)
{
    ck_case(ck,
            "%u rows (%u %% split, %u %% empty), query length %u, %u heads, d_v %u, %u to %u "
            "pieces, row_base %u%s%s%s%s",
            c->rows, c->split_percent, c->empty_percent, c->q_len, c->heads, c->d_v,
            c->least_pieces, c->most_pieces, c->row_base, c->strided ? ", strided" : "",
            c->lse_base2 ? ", base-2 lse" : "", c->sink ? ", sinks" : "",
            c->tile_rows ? ", behind small tiles" : "");
    struct reduce_buffers b = make_buffers(ck, random, c);
    fill(ck, random, c, &b);
    struct rt_reduce_params ref = params_of(c, &b, CK_REF);
    struct rt_reduce_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_reduce(&ref);
    ck_launch(ck, build(ck, c, &device, &launch, &err), &err, &launch);
    compare(ck, c, &b);
    check_stamp(ck, &b.stamp);
    free_buffers(ck, &b);
}

/* Small batches, of which half the rows are split. */
static void check_random(struct ck *ck, struct ck_random *random)
{
    static const uint32_t heads[] = {1, 3, 5, 9, 16, 20, 64, 128};
    static const uint32_t pieces[] = {8, 40, 3, 17, 200};
    uint32_t rounds = ck->full ? 200 : 32;
    for (uint32_t i = 0; i < rounds; i++) {
        struct reduce_case c = {.heads = heads[i % 8],
                                .q_len = 1 + ck_random_below(random, heads[i % 8] > 16 ? 2 : 8),
                                .d_v = i % 3 ? 512 : 256,
                                .row_base = i % 4 == 1 ? 3 : 0,
                                .least_pieces = 2,
                                .most_pieces = pieces[i % 5],
                                .split_percent = 50,
                                .empty_percent = 25,
                                .strided = i % 4 == 2,
                                .lse_base2 = i / 2 % 2,
                                .sink = i % 5 < 3};
        /* The partials of a case stay below some 20 MB. */
        c.rows = 1 + 10000 / (c.heads * c.q_len * c.most_pieces);
        check(ck, random, &c);
    }
}

/* One row of so many pieces: where a warp has none, one, as many as it loads at once, one more. */
static void check_pieces(struct ck *ck, struct ck_random *random)
{
    static const uint32_t pieces[] = {1,  2,  7,  8,  9,  15,  16,  17,  31,  32,  33,
                                      63, 64, 65, 66, 72, 127, 128, 132, 255, 257, 264};
    static const uint32_t heads[] = {16, 1, 40, 3};
    for (uint32_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct reduce_case c = {.rows = 1,
                                .q_len = 1,
                                .heads = heads[i % 4],
                                .d_v = i % 3 ? 512 : 256,
                                .least_pieces = pieces[i],
                                .most_pieces = pieces[i],
                                .split_percent = 100,
                                .lse_base2 = i % 2,
                                .sink = i % 3 == 0};
        check(ck, random, &c);
    }
}

/* Turning the base of lse, and with sinks. */
static void check_each(struct ck *ck, struct ck_random *random, const struct reduce_case *cases,
                       size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct reduce_case c = cases[i];
        c.lse_base2 = i % 2;
        c.sink = i % 3 == 1;
        check(ck, random, &c);
    }
}

/* Batches of every kind: of all items, of none, of one in many, of more rows than are listed at
 * once. */
static void check_batches(struct ck *ck, struct ck_random *random)
{
    static const struct reduce_case cases[] = {
        {1, 1, 128, 512, 0, 64, 64, 100, 0, false}, {3, 8, 128, 256, 2, 9, 20, 60, 20, true},
        {40, 1, 128, 512, 0, 2, 2, 90, 0, false},   {40, 1, 128, 256, 0, 1, 9, 90, 5, false},
        {24, 2, 64, 512, 0, 2, 12, 80, 10, false},  {512, 1, 16, 256, 0, 2, 4, 0, 0, false},
        {512, 1, 16, 256, 0, 2, 30, 2, 0, true},    {512, 1, 16, 256, 1, 2, 4, 0, 40, false},
        {513, 2, 3, 512, 0, 2, 12, 30, 20, false},  {1024, 1, 1, 512, 0, 2, 9, 30, 10, false},
        {1025, 1, 5, 256, 0, 2, 12, 5, 5, false},   {4096, 1, 2, 256, 5, 2, 20, 3, 1, false},
        {4096, 1, 1, 256, 0, 2, 3, 0, 0, false},    {3000, 1, 1, 512, 0, 2, 12, 0, 100, false},
    };
    check_each(ck, random, cases, sizeof(cases) / sizeof(cases[0]));
}

/* Rows of more pieces than a warp takes alone where items are few, about as many as a warp takes
 * where they are many: items for eight, four and two warps each, and for one. */
static void check_shares(struct ck *ck, struct ck_random *random)
{
    static const struct reduce_case cases[] = {
        {2, 1, 16, 512, 0, 9, 33, 100, 0, false},
        {3, 1, 16, 512, 0, 9, 33, 100, 0, false},
        {8, 1, 32, 512, 0, 8, 33, 100, 0, false},
        {8, 1, 32, 512, 0, 17, 17, 100, 0, true},
        {20, 2, 32, 256, 1, 7, 34, 60, 20, false},
        {5, 1, 128, 256, 0, 9, 40, 100, 0, false},
        {700, 1, 2, 256, 0, 2, 40, 30, 5, false},
        {1100, 1, 4, 256, 0, 8, 9, 20, 5, true},
        {1, 1, 64, 512, 0, 33, 33, 100, 0, false, .tile_rows = 16},
        {1, 1, 128, 512, 0, 16, 17, 100, 0, false, .tile_rows = 16},
    };
    check_each(ck, random, cases, sizeof(cases) / sizeof(cases[0]));
}

void ck_reduce_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    check_random(ck, &random);
    check_pieces(ck, &random);
    check_batches(ck, &random);
    check_shares(ck, &random);
}
