/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mla_block step by step, with the roundings of kernels/abi/mla_block.h. Each step reads what the
 * one before has left in the exchange, so one alone holds the kernel's own tensors to account.
 * Pieces of attention are not made: their words stay blank.
 */
#include "kernels/ref/keys.h"
#include "kernels/ref/ref.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define NOPE RT_MLA_BLOCK_NOPE
#define ROPE RT_MLA_BLOCK_ROPE
#define LATENT RT_MLA_BLOCK_LATENT
#define VALUE RT_MLA_BLOCK_VALUE
#define TOKEN RT_MLA_BLOCK_TOKEN
#define QUERY RT_MLA_BLOCK_QUERY

static uint32_t slots_of(const struct rt_mla_block_params *p)
{
    return rt_mla_block_slots(rt_mla_block_vectors(p));
}

static struct rt_mla_block_exchange places(const struct rt_mla_block_params *p)
{
    return rt_mla_block_exchange(slots_of(p), p->q_rank, p->heads);
}

static uint16_t *words(const struct rt_mla_block_params *p, uint32_t at)
{
    return (uint16_t *)(void *)(p->exchange + at);
}

static uint16_t *a_of(const struct rt_mla_block_params *p, uint32_t vector)
{
    return words(p, places(p).a) + (size_t)vector * (p->q_rank + TOKEN);
}

static double rounded(double value)
{
    return (double)rt_bf16_to_float(rt_float_to_bf16((float)value));
}

static uint32_t row_of_vector(const struct rt_mla_block_params *p, uint32_t vector)
{
    assert(p->rows.q_len > 0);
    return vector / p->rows.q_len;
}

/* Keys that a vector sees, its own counted; 0: padding. */
static int32_t length_of(const struct rt_mla_block_params *p, uint32_t vector)
{
    const uint32_t row = row_of_vector(p, vector);
    if (row >= p->rows.count || (p->rows.slot && p->rows.slot[row] < 0))
        return 0;
    int64_t length = p->rows.length[row];
    if (p->rows.q_len > 1) {
        const int64_t position = p->rows.position[row], own = position + vector % p->rows.q_len;
        length = position >= 0 && own < length ? own + 1 : 0;
    }
    const bool is_bounded = p->rope.table || p->rope.query_scale;
    return length > 0 && !(is_bounded && length > p->rope.capacity) ? (int32_t)length : 0;
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

static double bias_of(const struct rt_mla_block_weight *w, uint32_t row)
{
    return w->bias ? (double)rt_bf16_to_float(w->bias[row]) : 0;
}

/* One number of a product. */
static uint16_t times(const struct rt_mla_block_weight *w, uint32_t row, const struct factored *v,
                      uint32_t k)
{
    return rt_float_to_bf16((float)(v->factor * dot(v->x, row_of(w, row), 1, k) + bias_of(w, row)));
}

static void load(double *x, const uint16_t *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        x[i] = (double)rt_bf16_to_float(from[i]);
}

/* What a vector begins with, one number of it. */
static uint16_t sum_at(const struct rt_mla_block_params *p, uint32_t vector, uint32_t i)
{
    const size_t at = (size_t)vector * p->hidden_size + i;
    if (!p->residual || p->first)
        return p->hidden[at];
    return rt_float_to_bf16(rt_bf16_to_float(p->residual[at]) +
                            p->hidden_scale * rt_bf16_to_float(p->hidden[at]));
}

static void load_hidden(const struct rt_mla_block_params *p, uint32_t vector, struct factored *v)
{
    const bool is_there = vector < rt_mla_block_vectors(p);
    for (uint32_t i = 0; i < p->hidden_size; i++)
        v->x[i] = is_there ? (double)rt_bf16_to_float(sum_at(p, vector, i)) : 0;
    v->factor = 1;
    if (p->input_norm.weight)
        weigh(v, &p->input_norm, p->hidden_size);
}

/* The rotary part of a head's q, at its token's position. */
static void store_turned(const struct rt_mla_block_params *p, int32_t length, const double *q,
                         uint16_t *to)
{
    const bool turns = p->rope.table && length > 0;
    const uint32_t step = p->rope.half_order ? 1 : 2, apart = p->rope.half_order ? ROPE / 2 : 1;
    for (uint32_t i = 0; i < ROPE / 2; i++) {
        const float *turn = turns ? p->rope.table + (size_t)(length - 1) * ROPE + 2 * i : NULL;
        const double cosine = turn ? (double)turn[0] : 1, sine = turn ? (double)turn[1] : 0;
        const double a = q[step * i], b = q[step * i + apart];
        to[step * i] = rt_float_to_bf16((float)(a * cosine - b * sine));
        to[step * i + apart] = rt_float_to_bf16((float)(a * sine + b * cosine));
    }
}

/* All heads' q of a vector. */
static void store_query(const struct rt_mla_block_params *p, uint32_t vector,
                        const struct rt_mla_block_weight *w, const struct factored *v, uint32_t k)
{
    const struct rt_mla_block_exchange at = places(p);
    const int32_t length = length_of(p, vector);
    const double scale =
        p->rope.query_scale && length > 0 ? (double)p->rope.query_scale[length - 1] : 1;
    for (uint32_t h = 0; h < p->heads; h++) {
        const size_t head = (size_t)vector * p->heads + h;
        double q[QUERY];
        for (uint32_t i = 0; i < QUERY; i++)
            q[i] = scale * (v->factor * dot(v->x, row_of(w, h * QUERY + i), 1, k) +
                            bias_of(w, h * QUERY + i));
        for (uint32_t i = 0; i < NOPE; i++)
            words(p, at.nope)[head * NOPE + i] = rt_float_to_bf16((float)q[i]);
        store_turned(p, length, q + NOPE, words(p, at.q) + head * TOKEN + LATENT);
    }
}

static void do_a(const struct rt_mla_block_params *p)
{
    struct factored v;
    for (uint32_t r = 0; r < slots_of(p); r++) {
        load_hidden(p, r, &v);
        for (uint32_t i = 0; i < p->q_rank; i++)
            a_of(p, r)[i] = times(&p->q, i, &v, p->hidden_size);
        for (uint32_t i = 0; i < TOKEN; i++)
            a_of(p, r)[p->q_rank + i] = times(&p->kv_a, i, &v, p->hidden_size);
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
    for (uint32_t i = 0; i < slots_of(p) * p->heads; i++) {
        const uint16_t *w = row_of(&p->kv_b, i % p->heads * (NOPE + VALUE));
        load(q, words(p, at.nope) + (size_t)i * NOPE, NOPE);
        for (uint32_t j = 0; j < LATENT; j++)
            words(p, at.q)[(size_t)i * TOKEN + j] =
                rt_float_to_bf16((float)dot(q, w + j, p->kv_b.row_stride, NOPE));
    }
}

/* The vectors as rows of other operators. */
struct vectors {
    int32_t length[RT_MLA_BLOCK_MOST_VECTORS], position[RT_MLA_BLOCK_MOST_VECTORS];
    int32_t slot[RT_MLA_BLOCK_MOST_VECTORS];
};

static struct rt_rows_view rows_of(const struct rt_mla_block_params *p, struct vectors *v)
{
    const uint32_t count = rt_mla_block_vectors(p);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t row = row_of_vector(p, i);
        v->length[i] = length_of(p, i);
        v->position[i] = v->length[i] - 1;
        v->slot[i] = p->rows.slot ? p->rows.slot[row] : (int32_t)row;
    }
    return (struct rt_rows_view){
        .length = v->length, .count = count, .q_len = 1, .slot = v->slot, .position = v->position};
}

static void do_append(const struct rt_mla_block_params *p)
{
    struct vectors vectors;
    const struct rt_preattend_params append = {
        .rows = rows_of(p, &vectors),
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
    const uint32_t heads = p->heads;
    struct vectors vectors;
    double out[LATENT], lse;
    const struct rt_attend_params attend = {
        .q = {words(p, at.q), heads * TOKEN, heads * TOKEN, TOKEN},
        .kv = p->kv,
        .rows = rows_of(p, &vectors),
        .scale = p->scale,
        .heads = heads,
        .d_qk = TOKEN,
        .d_v = LATENT,
    };
    memset(words(p, at.o), 0, (size_t)slots_of(p) * heads * LATENT * sizeof(uint16_t));
    for (uint32_t i = 0; i < attend.rows.count * heads; i++) {
        rt_ref_mla_attention_query(&attend, i / heads, i % heads, out, &lse);
        for (uint32_t j = 0; j < LATENT; j++)
            words(p, at.o)[(size_t)i * LATENT + j] = rt_float_to_bf16((float)out[j]);
    }
}

static void do_values(const struct rt_mla_block_params *p)
{
    const struct rt_mla_block_exchange at = places(p);
    double o[LATENT];
    for (uint32_t i = 0; i < slots_of(p) * p->heads; i++) {
        load(o, words(p, at.o) + (size_t)i * LATENT, LATENT);
        for (uint32_t j = 0; j < VALUE; j++)
            words(p, at.v)[(size_t)i * VALUE + j] = rt_float_to_bf16((float)dot(
                o, row_of(&p->kv_b, i % p->heads * (NOPE + VALUE) + NOPE + j), 1, LATENT));
    }
}

static void do_hidden(const struct rt_mla_block_params *p)
{
    const uint32_t width = p->heads * VALUE;
    struct factored v = {.factor = 1};
    for (uint32_t r = 0; r < rt_mla_block_vectors(p); r++) {
        load(v.x, words(p, places(p).v) + (size_t)r * width, width);
        for (uint32_t i = 0; i < p->hidden_size; i++) {
            const size_t at = (size_t)r * p->hidden_size + i;
            if (p->residual)
                p->residual[at] = sum_at(p, r, i);
            p->hidden[at] = times(&p->o, i, &v, width);
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
    memset(p->block.stale, 0xff, places(&p->block).bytes);
}
