/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mla_block step by step, with the roundings of kernels/abi/mla_block.h. Each step reads what the
 * one before has left in the exchange, so one alone holds the kernel's own tensors to account.
 * Pieces of attention are not made: their words stay blank.
 */
#include "kernels/ref/keys.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

#define HEADS RT_MLA_BLOCK_HEADS
#define NOPE RT_MLA_BLOCK_NOPE
#define ROPE RT_MLA_BLOCK_ROPE
#define LATENT RT_MLA_BLOCK_LATENT
#define VALUE RT_MLA_BLOCK_VALUE
#define TOKEN RT_MLA_BLOCK_TOKEN
#define QUERY RT_MLA_BLOCK_QUERY

static struct rt_mla_block_exchange places(const struct rt_mla_block_params *p)
{
    return rt_mla_block_exchange(rt_mla_block_slots(p->rows.count), p->q_rank);
}

static uint32_t slots_of(const struct rt_mla_block_params *p)
{
    return rt_mla_block_slots(p->rows.count);
}

static uint16_t *words(const struct rt_mla_block_params *p, uint32_t at)
{
    return (uint16_t *)(void *)(p->exchange + at);
}

static uint16_t *a_of(const struct rt_mla_block_params *p, uint32_t row)
{
    return words(p, places(p).a) + (size_t)row * (p->q_rank + TOKEN);
}

static double rounded(double value)
{
    return (double)rt_bf16_to_float(rt_float_to_bf16((float)value));
}

/* Tokens of a row with the new one; 0: padding. */
static int32_t length_of(const struct rt_mla_block_params *p, uint32_t row)
{
    if (row >= p->rows.count || (p->rows.slot && p->rows.slot[row] < 0))
        return 0;
    const int32_t length = p->rows.length[row];
    const bool is_beyond = p->rope.table && length > 0 && (uint32_t)length > p->rope.capacity;
    return length > 0 && !is_beyond ? length : 0;
}

/* A vector in front of a product, and the factor that comes behind it. */
struct factored {
    double x[RT_MLA_BLOCK_MOST_HIDDEN];
    double factor;
};

static void weigh(struct factored *v, const struct rt_norm_view *norm, uint32_t count)
{
    double squares = 0;
    for (uint32_t i = 0; i < count; i++) {
        squares += v->x[i] * v->x[i];
        v->x[i] = rounded(v->x[i] * (double)rt_bf16_to_float(norm->weight[i]));
    }
    v->factor = (double)norm->scale / sqrt(squares / count + (double)norm->eps);
}

static double dot(const double *x, const uint16_t *w, int64_t stride, uint32_t k)
{
    double sum = 0;
    for (uint32_t i = 0; i < k; i++)
        sum += x[i] * (double)rt_bf16_to_float(w[(int64_t)i * stride]);
    return sum;
}

static const uint16_t *row_of(const struct rt_mla_block_weight *w, uint32_t row)
{
    return w->base + row * w->row_stride;
}

static void load(double *x, const uint16_t *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        x[i] = (double)rt_bf16_to_float(from[i]);
}

/* What a row begins with, one number of it. */
static uint16_t sum_at(const struct rt_mla_block_params *p, uint32_t row, uint32_t i)
{
    const size_t at = (size_t)row * p->hidden_size + i;
    if (!p->residual || p->first)
        return p->hidden[at];
    return rt_float_to_bf16(rt_bf16_to_float(p->residual[at]) +
                            p->hidden_scale * rt_bf16_to_float(p->hidden[at]));
}

static void load_hidden(const struct rt_mla_block_params *p, uint32_t row, struct factored *v)
{
    for (uint32_t i = 0; i < p->hidden_size; i++)
        v->x[i] = row < p->rows.count ? (double)rt_bf16_to_float(sum_at(p, row, i)) : 0;
    v->factor = 1;
    if (p->input_norm.weight)
        weigh(v, &p->input_norm, p->hidden_size);
}

/* All heads' q of a row, its rotary parts turned. */
static void store_query(const struct rt_mla_block_params *p, uint32_t row,
                        const struct rt_mla_block_weight *w, const struct factored *v, uint32_t k)
{
    const struct rt_mla_block_exchange at = places(p);
    const int32_t length = length_of(p, row);
    for (uint32_t h = 0; h < HEADS; h++) {
        uint16_t *nope = words(p, at.nope) + ((size_t)row * HEADS + h) * NOPE;
        uint16_t *turned = words(p, at.q) + ((size_t)row * HEADS + h) * TOKEN + LATENT;
        double q[QUERY];
        for (uint32_t i = 0; i < QUERY; i++)
            q[i] = v->factor * dot(v->x, row_of(w, h * QUERY + i), 1, k);
        for (uint32_t i = 0; i < NOPE; i++)
            nope[i] = rt_float_to_bf16((float)q[i]);
        for (uint32_t i = 0; i < ROPE; i += 2) {
            const bool turns = p->rope.table && length > 0;
            const float *turn = turns ? p->rope.table + (size_t)(length - 1) * ROPE + i : NULL;
            const double cosine = turn ? (double)turn[0] : 1, sine = turn ? (double)turn[1] : 0;
            const double a = q[NOPE + i], b = q[NOPE + i + 1];
            turned[i] = rt_float_to_bf16((float)(a * cosine - b * sine));
            turned[i + 1] = rt_float_to_bf16((float)(a * sine + b * cosine));
        }
    }
}

static void do_a(const struct rt_mla_block_params *p)
{
    struct factored v;
    for (uint32_t r = 0; r < slots_of(p); r++) {
        load_hidden(p, r, &v);
        for (uint32_t i = 0; i < p->q_rank; i++)
            a_of(p, r)[i] =
                rt_float_to_bf16((float)(v.factor * dot(v.x, row_of(&p->q, i), 1, p->hidden_size)));
        for (uint32_t i = 0; i < TOKEN; i++)
            a_of(p, r)[p->q_rank + i] = rt_float_to_bf16(
                (float)(v.factor * dot(v.x, row_of(&p->kv_a, i), 1, p->hidden_size)));
        if (p->q_rank == 0)
            store_query(p, r, &p->q, &v, p->hidden_size);
    }
}

static void do_query(const struct rt_mla_block_params *p)
{
    struct factored v;
    for (uint32_t r = 0; p->q_rank > 0 && r < slots_of(p); r++) {
        load(v.x, a_of(p, r), p->q_rank);
        weigh(&v, &p->q_a_norm, p->q_rank);
        store_query(p, r, &p->q_b, &v, p->q_rank);
    }
}

static void do_absorb(const struct rt_mla_block_params *p)
{
    const struct rt_mla_block_exchange at = places(p);
    double q[NOPE];
    for (uint32_t i = 0; i < slots_of(p) * HEADS; i++) {
        const uint16_t *w = row_of(&p->kv_b, i % HEADS * (NOPE + VALUE));
        load(q, words(p, at.nope) + (size_t)i * NOPE, NOPE);
        for (uint32_t j = 0; j < LATENT; j++)
            words(p, at.q)[(size_t)i * TOKEN + j] =
                rt_float_to_bf16((float)dot(q, w + j, p->kv_b.row_stride, NOPE));
    }
}

/* The rows as other operators have them. */
static struct rt_rows_view rows_of(const struct rt_mla_block_params *p, int32_t *length,
                                   int32_t *position)
{
    struct rt_rows_view rows = p->rows;
    for (uint32_t r = 0; r < rows.count; r++) {
        length[r] = length_of(p, r);
        position[r] = length[r] - 1;
    }
    rows.length = length;
    rows.position = position;
    return rows;
}

static void do_append(const struct rt_mla_block_params *p)
{
    int32_t length[RT_MLA_BLOCK_MOST_ROWS], position[RT_MLA_BLOCK_MOST_ROWS];
    const struct rt_preattend_params append = {
        .rows = rows_of(p, length, position),
        .kv = p->kv,
        .kv_a = {a_of(p, 0) + p->q_rank, p->q_rank + TOKEN, p->q_rank + TOKEN},
        .kv_a_norm = p->kv_a_norm,
        .rope = p->rope,
        .latent_dim = LATENT,
        .rope_dim = ROPE,
    };
    rt_ref_preattend(&append);
}

static void do_attend(const struct rt_mla_block_params *p)
{
    const struct rt_mla_block_exchange at = places(p);
    int32_t length[RT_MLA_BLOCK_MOST_ROWS], position[RT_MLA_BLOCK_MOST_ROWS];
    double out[LATENT], lse;
    const struct rt_attend_params attend = {
        .q = {words(p, at.q), HEADS * TOKEN, HEADS * TOKEN, TOKEN},
        .kv = p->kv,
        .rows = rows_of(p, length, position),
        .scale = p->scale,
        .heads = HEADS,
        .d_qk = TOKEN,
        .d_v = LATENT,
    };
    memset(words(p, at.o), 0, (size_t)slots_of(p) * HEADS * LATENT * sizeof(uint16_t));
    for (uint32_t i = 0; i < p->rows.count * HEADS; i++) {
        rt_ref_mla_attention_query(&attend, i / HEADS, i % HEADS, out, &lse);
        for (uint32_t j = 0; j < LATENT; j++)
            words(p, at.o)[(size_t)i * LATENT + j] = rt_float_to_bf16((float)out[j]);
    }
}

static void do_values(const struct rt_mla_block_params *p)
{
    const struct rt_mla_block_exchange at = places(p);
    double o[LATENT];
    for (uint32_t i = 0; i < slots_of(p) * HEADS; i++) {
        load(o, words(p, at.o) + (size_t)i * LATENT, LATENT);
        for (uint32_t j = 0; j < VALUE; j++)
            words(p, at.v)[(size_t)i * VALUE + j] = rt_float_to_bf16(
                (float)dot(o, row_of(&p->kv_b, i % HEADS * (NOPE + VALUE) + NOPE + j), 1, LATENT));
    }
}

static void do_hidden(const struct rt_mla_block_params *p)
{
    double v[HEADS * VALUE];
    for (uint32_t r = 0; r < p->rows.count; r++) {
        load(v, words(p, places(p).v) + (size_t)r * HEADS * VALUE, HEADS * VALUE);
        for (uint32_t i = 0; i < p->hidden_size; i++) {
            const size_t at = (size_t)r * p->hidden_size + i;
            if (p->residual)
                p->residual[at] = sum_at(p, r, i);
            p->hidden[at] = rt_float_to_bf16((float)dot(v, row_of(&p->o, i), 1, HEADS * VALUE));
        }
    }
}

void rt_ref_mla_block_step(const struct rt_mla_block_params *p, enum rt_ref_mla_block_step step)
{
    static void (*const steps[])(const struct rt_mla_block_params *) = {
        do_a, do_query, do_absorb, do_append, do_attend, do_values, do_hidden};
    steps[step](p);
}

void rt_ref_mla_block(const void *params)
{
    const struct rt_mla_block_sm90_params *p = params;
    for (int step = RT_REF_MLA_BLOCK_A; step <= RT_REF_MLA_BLOCK_HIDDEN; step++)
        rt_ref_mla_block_step(&p->block, (enum rt_ref_mla_block_step)step);
    memset(p->block.stale, 0xff, rt_mla_block_exchange_bytes(p->block.rows.count, p->block.q_rank));
}
