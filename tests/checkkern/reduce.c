/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/mla.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"

#include <stdlib.h>

#define MOST_PIECES 40u

struct reduce_case {
    uint32_t rows, q_len, heads, d_v, row_base, most_pieces;
    bool strided;
};

struct reduce_buffers {
    struct ck_buffer partial_out, partial_lse, num_splits, length, out, lse, ctrl;
};

static struct rt_mla_reduce_params params_of(const struct reduce_case *c,
                                             const struct reduce_buffers *b, enum ck_side side)
{
    int64_t head = c->d_v + (c->strided ? 8 : 0);
    struct rt_mla_reduce_params p = {.partial_out = ck_at(&b->partial_out, side),
                                     .partial_lse = ck_at(&b->partial_lse, side),
                                     .num_splits = ck_at(&b->num_splits, side),
                                     .row_length = ck_at(&b->length, side),
                                     .out = ck_at(&b->out, side),
                                     .lse = ck_at(&b->lse, side),
                                     .out_head_stride = head,
                                     .out_token_stride = head * c->heads,
                                     .out_row_stride = head * c->heads * c->q_len,
                                     .lse_head_stride = c->strided ? c->q_len : 1,
                                     .lse_token_stride = c->strided ? 1 : c->heads,
                                     .lse_row_stride = c->heads * c->q_len,
                                     .rows = c->rows,
                                     .q_len = c->q_len,
                                     .heads = c->heads,
                                     .d_v = c->d_v};
    if (c->row_base > 0)
        p.ctrl = ck_at(&b->ctrl, side);
    return p;
}

static struct reduce_buffers make_buffers(struct ck *ck, const struct reduce_case *c)
{
    struct reduce_buffers none = {0};
    struct rt_mla_reduce_params p = params_of(c, &none, CK_REF);
    uint64_t hq = c->q_len * c->heads, slots = (uint64_t)c->rows * c->most_pieces;
    uint64_t rows = c->row_base + c->rows;
    return (struct reduce_buffers){
        .partial_out = ck_alloc(ck, "partial_out", slots * hq * c->d_v * 4, 0xff),
        .partial_lse = ck_alloc(ck, "partial_lse", slots * hq * 4, 0xff),
        .num_splits = ck_alloc(ck, "num_splits", (c->rows + 1) * 4, 0),
        .length = ck_alloc(ck, "row_length", c->rows * 4, 0),
        .out = ck_alloc(ck, "out", rows * (uint64_t)p.out_row_stride * 2, 0xff),
        .lse = ck_alloc(ck, "lse", rows * hq * 4, 0xff),
        .ctrl = ck_alloc(ck, "ctrl", sizeof(struct rt_ctrl), 0)};
}

static void free_buffers(struct ck *ck, struct reduce_buffers *b)
{
    ck_free(ck, &b->partial_out);
    ck_free(ck, &b->partial_lse);
    ck_free(ck, &b->num_splits);
    ck_free(ck, &b->length);
    ck_free(ck, &b->out);
    ck_free(ck, &b->lse);
    ck_free(ck, &b->ctrl);
}

/* A query row of one piece. kind 0: any; 1: all pieces empty; 2: a NaN among them; 3: far apart. */
static void fill_piece(struct ck_random *random, uint32_t kind, float *out, float *lse,
                       uint32_t d_v)
{
    bool empty = kind == 1 || ck_random_below(random, 4) == 0;
    *lse = empty ? -INFINITY : (float)ck_random_normal(random) * (kind == 3 ? 300.0f : 3.0f);
    if (kind == 2 && ck_random_below(random, 4) == 0)
        *lse = NAN;
    for (uint32_t d = 0; d < d_v; d++)
        out[d] = empty ? 0 : (float)ck_random_normal(random) / 10;
}

static void fill(struct ck *ck, struct ck_random *random, const struct reduce_case *c,
                 struct reduce_buffers *b)
{
    int32_t *num_splits = ck_at(&b->num_splits, CK_REF), *length = ck_at(&b->length, CK_REF);
    float *out = ck_at(&b->partial_out, CK_REF), *lse = ck_at(&b->partial_lse, CK_REF);
    uint64_t hq = c->q_len * c->heads;
    for (uint32_t r = 0; r < c->rows; r++) {
        uint32_t shape = ck_random_below(random, 4); /* empty, whole, or split */
        uint32_t pieces = shape < 2 ? 0 : 2 + ck_random_below(random, c->most_pieces - 1);
        length[r] = shape == 0 ? -(int32_t)ck_random_below(random, 3) : 5000;
        num_splits[r + 1] = num_splits[r] + (int32_t)pieces;
        for (uint64_t i = 0; i < hq; i++) {
            uint32_t kind = ck_random_below(random, 6);
            for (uint64_t piece = 0; piece < pieces; piece++) {
                uint64_t at = ((uint64_t)num_splits[r] + piece) * hq + i;
                fill_piece(random, kind, out + at * c->d_v, lse + at, c->d_v);
            }
        }
    }
    *(struct rt_ctrl *)ck_at(&b->ctrl, CK_REF) = (struct rt_ctrl){.row_base = c->row_base};
    const struct ck_buffer *all[] = {&b->partial_out, &b->partial_lse, &b->num_splits, &b->length,
                                     &b->ctrl};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_upload(ck, all[i]);
}

/* NaN bits in both where nothing was written, so one comparison serves what was and what was not.
 */
static void compare(struct ck *ck, const struct reduce_case *c, const struct reduce_buffers *b)
{
    uint16_t *out = ck_new(ck, b->out.bytes + CK_GUARD_BYTES);
    float *lse = ck_new(ck, b->lse.bytes + CK_GUARD_BYTES);
    const uint16_t *ref_out = ck_at(&b->out, CK_REF);
    const float *ref_lse = ck_at(&b->lse, CK_REF);
    ck_download(ck, &b->out, out);
    ck_download(ck, &b->lse, lse);
    struct rt_mla_reduce_params p = params_of(c, b, CK_REF);
    struct ck_floats outs = ck_floats_out(), lses = ck_floats_lse();
    for (uint64_t i = 0; i < (b->out.bytes + CK_GUARD_BYTES) / 2; i++) {
        struct ck_place place = {(uint32_t)(i / (uint64_t)p.out_row_stride), 0, 0,
                                 (uint32_t)(i % (uint64_t)p.out_row_stride)};
        ck_floats_add(&outs, (double)rt_bf16_to_float(out[i]), (double)rt_bf16_to_float(ref_out[i]),
                      place);
    }
    for (uint64_t i = 0; i < (b->lse.bytes + CK_GUARD_BYTES) / 4; i++) {
        struct ck_place place = {(uint32_t)(i / (uint64_t)p.lse_row_stride), 0,
                                 (uint32_t)(i % (uint64_t)p.lse_row_stride), 0};
        ck_floats_add(&lses, (double)lse[i], (double)ref_lse[i], place);
    }
    ck_floats_end(ck, &outs, CK_OUT_COS);
    ck_floats_end(ck, &lses, 0);
    free(out);
    free(lse);
}

static void check(struct ck *ck, struct ck_random *random, const struct reduce_case *c)
{
    ck_case(ck, "%u rows, query length %u, %u heads, d_v %u, to %u pieces, row_base %u%s", c->rows,
            c->q_len, c->heads, c->d_v, c->most_pieces, c->row_base, c->strided ? ", strided" : "");
    struct reduce_buffers b = make_buffers(ck, c);
    fill(ck, random, c, &b);
    struct rt_mla_reduce_params ref = params_of(c, &b, CK_REF);
    struct rt_mla_reduce_params device = params_of(c, &b, CK_DEVICE);
    struct rt_attend_choice choice = {.reduce_entry = "rt_mla_reduce"};
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_mla_reduce(&ref);
    enum rt_status status = rt_mla_reduce_launch(&ck->kernels, &choice, &device, &launch, &err);
    ck_launch(ck, status, &err, &launch);
    compare(ck, c, &b);
    free_buffers(ck, &b);
}

void ck_reduce_run(struct ck *ck)
{
    static const uint32_t heads[] = {1, 3, 5, 9, 16, 20, 64, 128};
    struct ck_random random = {.state = ck->seed};
    uint32_t rounds = ck->full ? 200 : 32;
    for (uint32_t i = 0; i < rounds; i++) {
        struct reduce_case c = {.heads = heads[i % 8],
                                .q_len = 1 + ck_random_below(&random, heads[i % 8] > 16 ? 2 : 8),
                                .d_v = i % 3 ? 512 : 256,
                                .row_base = i % 4 == 1 ? 3 : 0,
                                .most_pieces = i % 5 == 4 ? 200 : MOST_PIECES,
                                .strided = i % 4 == 2};
        /* The partials of a case stay below some 20 MB. */
        c.rows = 1 + 10000 / (c.heads * c.q_len * c.most_pieces);
        check(ck, &random, &c);
    }
}
