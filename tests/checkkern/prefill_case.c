/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/prefill_case.h"

#include "common/bf16.h"

#define NAN_BYTE 0xff
#define POISON_BYTE 0x77
#define GAP 8u /* elements behind a vector */

/* What an absolute bound is made for: weights are rounded to bf16, so out is off by 2^-9 of it. */
#define VALUE_SPREAD 0.1f

uint32_t prefill_row_keys(const struct prefill_case *c, uint32_t row)
{
    const int64_t keys = (int64_t)c->queries[row] + c->context[row] - c->short_of;
    return keys < 0 ? 0 : (uint32_t)keys;
}

uint32_t prefill_tokens(const struct prefill_case *c)
{
    uint32_t tokens = c->front + c->behind;
    for (uint32_t r = 0; r < c->rows; r++)
        tokens += c->queries[r];
    return tokens ? tokens : 1;
}

uint32_t prefill_keys(const struct prefill_case *c)
{
    uint32_t keys = c->front + c->behind;
    for (uint32_t r = 0; r < c->rows; r++)
        keys += prefill_row_keys(c, r);
    return keys ? keys : 1;
}

/* ---- where things are ---- */

/* `count` tokens' vectors of `width` numbers. */
static struct rt_prefill_view view(const struct prefill_case *c, void *base, uint32_t count,
                                   uint32_t width)
{
    const int64_t tokens_first[2] = {(int64_t)c->heads * width, width};
    const int64_t heads_first[2] = {width + GAP, (int64_t)count * (width + GAP)};
    const int64_t *strides = c->layout == PREFILL_HEADS_FIRST ? heads_first : tokens_first;
    return (struct rt_prefill_view){
        .base = base, .token_stride = strides[0], .head_stride = strides[1]};
}

static struct rt_prefill_view behind(struct rt_prefill_view view, uint32_t elements)
{
    view.base = (uint16_t *)view.base + elements;
    return view;
}

struct rt_prefill_attend_params prefill_params(const struct prefill_case *c,
                                               const struct prefill_buffers *b, enum ck_side side)
{
    const uint32_t tokens = prefill_tokens(c), keys = prefill_keys(c);
    const uint32_t d_qk = c->nope_dim + c->rope_dim;
    struct rt_prefill_attend_params p = {
        .q = view(c, ck_at(&b->q, side), tokens, d_qk),
        .k = view(c, ck_at(&b->k, side), keys, d_qk),
        .v = view(c, ck_at(&b->v, side), keys, c->v_dim),
        .out = view(c, ck_at(&b->out, side), tokens, c->v_dim),
        .lse = view(c, ck_at(&b->lse, side), tokens, 1),
        .q_first = ck_at(&b->q_first, side),
        .k_first = ck_at(&b->k_first, side),
        .turn = ck_at(&b->turn, side),
        .sink = c->sink ? ck_at(&b->sink, side) : NULL,
        .scale = 0.0722f,
        .rows = c->rows,
        .tokens = tokens,
        .keys = keys,
        .heads = c->heads,
        .nope_dim = c->nope_dim,
        .rope_dim = c->rope_dim,
        .v_dim = c->v_dim,
        .causal = c->causal,
        .lse_base2 = c->lse_base2,
    };
    p.q_rope = behind(p.q, c->nope_dim);
    p.k_rope = behind(p.k, c->nope_dim);
    if (c->layout == PREFILL_MODEL) {
        p.q_rope = view(c, ck_at(&b->q_rope, side), tokens, c->rope_dim);
        p.k = view(c, ck_at(&b->k, side), keys, c->nope_dim + c->v_dim);
        p.v = behind(p.k, c->nope_dim);
        p.k_rope =
            (struct rt_prefill_view){.base = ck_at(&b->k_rope, side), .token_stride = c->rope_dim};
    }
    return p;
}

/* ---- what is in them ---- */

/* Of one token: all heads' numbers from view.base on. */
static void fill_token(struct ck_random *random, const struct prefill_case *c,
                       const struct rt_prefill_view *view, uint32_t token, uint32_t width,
                       float spread)
{
    for (uint32_t h = 0; h < (view->head_stride ? c->heads : 1); h++) {
        uint16_t *to = (uint16_t *)view->base + token * view->token_stride + h * view->head_stride;
        for (uint32_t d = 0; d < width; d++)
            to[d] = rt_float_to_bf16(spread * (float)ck_random_normal(random));
    }
}

/* Vectors of the rows, but of the one that stays NaN. */
static void fill_rows(struct ck_random *random, const struct prefill_case *c,
                      const struct rt_prefill_attend_params *p)
{
    uint32_t token = c->front, key = token;
    for (uint32_t r = 0; r < c->rows; r++) {
        const uint32_t keys = prefill_row_keys(c, r);
        for (uint32_t i = 0; i < c->queries[r] && (int)r != c->poison_row; i++) {
            fill_token(random, c, &p->q, token + i, c->nope_dim, c->spread);
            fill_token(random, c, &p->q_rope, token + i, c->rope_dim, c->spread);
        }
        for (uint32_t i = 0; i < keys && (int)r != c->poison_row; i++) {
            fill_token(random, c, &p->k, key + i, c->nope_dim, 1.0f);
            fill_token(random, c, &p->k_rope, key + i, c->rope_dim, 1.0f);
            fill_token(random, c, &p->v, key + i, c->v_dim, VALUE_SPREAD);
        }
        token += c->queries[r];
        key += keys;
    }
}

static void fill_offsets(const struct prefill_case *c, const struct prefill_buffers *b)
{
    int32_t *q_first = ck_at(&b->q_first, CK_REF), *k_first = ck_at(&b->k_first, CK_REF);
    q_first[0] = k_first[0] = (int32_t)c->front;
    for (uint32_t r = 0; r < c->rows; r++) {
        q_first[r + 1] = q_first[r] + (int32_t)c->queries[r];
        k_first[r + 1] = k_first[r] + (int32_t)prefill_row_keys(c, r);
    }
}

struct prefill_buffers prefill_make(struct ck *ck, struct ck_random *random,
                                    const struct prefill_case *c)
{
    const uint64_t tokens = prefill_tokens(c) * (uint64_t)c->heads;
    const uint64_t keys = prefill_keys(c) * (uint64_t)c->heads;
    const uint64_t vector = 2u * (c->nope_dim + c->rope_dim + c->v_dim + GAP);
    struct prefill_buffers b = {.q = ck_alloc(ck, "q", tokens * vector, NAN_BYTE),
                                .q_rope = ck_alloc(ck, "q_rope", tokens * vector, NAN_BYTE),
                                .k = ck_alloc(ck, "k", keys * vector, NAN_BYTE),
                                .k_rope = ck_alloc(ck, "k_rope", keys * vector, NAN_BYTE),
                                .v = ck_alloc(ck, "v", keys * vector, NAN_BYTE),
                                .out = ck_alloc(ck, "out", tokens * vector, POISON_BYTE),
                                .lse = ck_alloc(ck, "lse", tokens * 4 * (1 + GAP), POISON_BYTE),
                                .q_first = ck_alloc(ck, "q_first", (c->rows + 1) * 4, 0),
                                .k_first = ck_alloc(ck, "k_first", (c->rows + 1) * 4, 0),
                                .turn = ck_alloc(ck, "turn", 4, 0),
                                .sink = ck_alloc(ck, "sink", c->heads * 4, NAN_BYTE)};
    const struct rt_prefill_attend_params p = prefill_params(c, &b, CK_REF);
    if (c->spread > 0)
        fill_rows(random, c, &p);
    fill_offsets(c, &b);
    if (c->sink)
        ck_random_sinks(random, 3, ck_at(&b.sink, CK_REF), c->heads);
    struct ck_buffer *inputs[] = {&b.q, &b.q_rope,  &b.k,       &b.k_rope,
                                  &b.v, &b.q_first, &b.k_first, &b.sink};
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++)
        ck_upload(ck, inputs[i]);
    return b;
}

void prefill_free(struct ck *ck, struct prefill_buffers *b)
{
    struct ck_buffer *all[] = {&b->q,   &b->q_rope,  &b->k,       &b->k_rope, &b->v,   &b->out,
                               &b->lse, &b->q_first, &b->k_first, &b->turn,   &b->sink};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

bool prefill_variant(struct ck *ck, const struct prefill_case *c, enum rt_backend backend,
                     struct rt_variant *out)
{
    const struct rt_op_request request = {.caps = &ck->driver.caps,
                                          .heads = c->heads,
                                          .backend = backend,
                                          .nope_dim = c->nope_dim,
                                          .rope_dim = c->rope_dim,
                                          .v_dim = c->v_dim};
    struct rt_error err = {0};
    return rt_op_resolve(RT_OP_PREFILL_ATTEND, &request, out, &err) == RT_OK;
}
