/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/append_place.h"
#include "kernels/ref/keys.h"
#include "kernels/ref/norm.h"
#include "kernels/ref/number.h"
#include "kernels/ref/quant.h"
#include "kernels/ref/ref.h"

/* Where number `index` of a tensor lies. */
static void *at(const void *tensor, int64_t index, bool is_f32)
{
    return (unsigned char *)(uintptr_t)tensor + index * (is_f32 ? 4 : 2);
}

/* A token of a row, and where it stands. */
struct token {
    int64_t data_row, slot, position;
    int64_t place; /* in the cache; negative: none */
    uint32_t token;
    bool live;
};

static struct token find(const struct rt_preattend_params *p, uint32_t row, uint32_t token)
{
    const struct rt_rows_view *rows = &p->rows;
    const bool bounded = p->rope.table || p->rope.query_scale;
    const int64_t first = rows->position[row];
    struct token t = {.data_row = (rows->ctrl ? rows->ctrl->row_base : 0) + (int64_t)row,
                      .slot = rows->slot ? rows->slot[row] : (int64_t)row,
                      .position = first + token,
                      .place =
                          p->place ? p->place[(size_t)row * rows->q_len + token] : first + token,
                      .token = token};
    t.live = t.slot >= 0 && first >= 0 && (!bounded || t.position < (int64_t)p->rope.capacity) &&
             rt_row_has(rows, row, token);
    return t;
}

static void *tokens_at(const struct rt_preattend_params *p, const struct rt_tokens_view *view,
                       const struct token *t)
{
    return at(view->base, t->data_row * view->row_stride + t->token * view->token_stride,
              p->is_f32);
}

static void *head_at(const struct rt_preattend_params *p, const struct rt_heads_view *view,
                     const struct token *t, uint32_t head)
{
    return at(view->base,
              t->data_row * view->row_stride + t->token * view->token_stride +
                  head * view->head_stride,
              p->is_f32);
}

/* Its place in the cache; false where it has none. */
static bool find_place(const struct rt_preattend_params *p, const struct token *t,
                       struct rt_ref_place *out)
{
    const struct rt_kv_view *kv = &p->kv;
    const int64_t column = t->place / kv->page_size;
    if (!t->live || t->place < 0 || column >= (int64_t)kv->max_blocks)
        return false;
    const int32_t page = kv->table[t->slot * kv->max_blocks + column];
    if (page < 0 || (uint32_t)page >= kv->pages)
        return false;
    *out = (struct rt_ref_place){page, t->place % kv->page_size};
    return true;
}

static void clear(const struct rt_preattend_params *p, void *tensor, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        rt_ref_store(tensor, i, p->is_f32, 0);
}

static void scale(const struct rt_preattend_params *p, const void *from, void *to, uint32_t count,
                  double factor)
{
    for (uint32_t i = 0; i < count; i++)
        rt_ref_store(to, i, p->is_f32, factor * rt_ref_load(from, i, p->is_f32));
}

/* R numbers, times the factor; `from` and `to` are apart. */
static void turn(const struct rt_preattend_params *p, const struct token *t, const void *from,
                 void *to, double factor)
{
    if (!p->rope.table) {
        scale(p, from, to, p->rope_dim, factor);
        return;
    }
    const float *row = p->rope.table + t->position * p->rope_dim;
    const uint32_t pairs = p->rope_dim / 2;
    for (uint32_t i = 0; i < pairs; i++) {
        const uint32_t first = p->rope.half_order ? i : 2 * i;
        const uint32_t second = p->rope.half_order ? i + pairs : 2 * i + 1;
        const double a = rt_ref_load(from, first, p->is_f32);
        const double b = rt_ref_load(from, second, p->is_f32);
        const double cosine = (double)row[2 * i], sine = (double)row[2 * i + 1];
        rt_ref_store(to, first, p->is_f32, factor * (a * cosine - b * sine));
        rt_ref_store(to, second, p->is_f32, factor * (a * sine + b * cosine));
    }
}

/* What differs between the operators. */
struct way {
    const struct rt_quant_view *quant; /* what the cache's rows hold; null: plain numbers */
    const struct rt_sums_view *sums;   /* what q_a and kv_a are made of; null: they are there */
};

/* A token's numbers of q_a or kv_a, or the sums that stand for them, in `rounded`. */
static const void *read(const struct rt_preattend_params *p, const struct rt_tokens_view *view,
                        const struct rt_sums_view *sums, const struct token *t, uint32_t width,
                        uint16_t rounded[RT_PREATTEND_MOST_WIDTH])
{
    if (!sums)
        return tokens_at(p, view, t);
    const float *from = (view == &p->q_a ? sums->q_a : sums->kv_a) +
                        t->data_row * view->row_stride + t->token * view->token_stride;
    for (uint32_t i = 0; i < width; i++) {
        double sum = 0;
        for (uint32_t part = 0; part < sums->parts; part++)
            sum += (double)from[part * sums->stride + i];
        rt_ref_store(rounded, i, false, sum);
    }
    return rounded;
}

static void do_q_a(const struct rt_preattend_params *p, const struct way *way,
                   const struct token *t)
{
    const uint32_t width = p->q_a_norm.width;
    uint16_t rounded[RT_PREATTEND_MOST_WIDTH];
    void *x = tokens_at(p, &p->q_a, t);
    if (t->live)
        rt_ref_norm(&p->q_a_norm, read(p, &p->q_a, way->sums, t, width, rounded), x, p->is_f32);
    else
        clear(p, x, width);
}

static void make_key(const struct rt_preattend_params *p, const struct way *way,
                     const struct token *t, void *to)
{
    uint16_t rounded[RT_PREATTEND_MOST_WIDTH];
    const void *from = read(p, &p->kv_a, way->sums, t, p->latent_dim + p->rope_dim, rounded);
    rt_ref_norm(&p->kv_a_norm, from, to, p->is_f32);
    turn(p, t, at(from, p->latent_dim, p->is_f32), at(to, p->latent_dim, p->is_f32), 1.0);
}

static void do_kv_a(const struct rt_preattend_params *p, const struct way *way,
                    const struct token *t)
{
    const struct rt_quant_view *quant = way->quant;
    const struct rt_kv_view *kv = &p->kv;
    struct rt_ref_place place;
    uint16_t key[RT_REF_MAX_D];
    if (!find_place(p, t, &place))
        return;
    if (!quant) {
        make_key(p, way, t,
                 kv->base + place.page * kv->page_stride_bytes +
                     place.row * kv->token_stride_bytes);
    } else if (p->latent_dim + p->rope_dim <= RT_REF_MAX_D) {
        make_key(p, way, t, key);
        rt_ref_quantise(quant, key, p->latent_dim + p->rope_dim,
                        rt_ref_quant_row(kv, quant, place.page, place.row));
    }
}

static void do_q(const struct rt_preattend_params *p, const struct token *t)
{
    const bool scaled = t->live && p->rope.query_scale;
    const double factor = scaled ? (double)p->rope.query_scale[t->position] : 1.0;
    for (uint32_t h = 0; h < p->heads; h++) {
        void *in = head_at(p, &p->q_in, t, h);
        if (p->rope_dim > 0) {
            void *out = at(head_at(p, &p->q_out, t, h), p->latent_dim, p->is_f32);
            if (t->live)
                turn(p, t, at(in, p->nope_dim, p->is_f32), out, factor);
            else
                clear(p, out, p->rope_dim);
        }
        if (scaled)
            scale(p, in, in, p->nope_dim, factor);
        else if (!t->live)
            clear(p, in, p->nope_dim);
    }
}

static void run(const struct rt_preattend_params *p, const struct way *way)
{
    for (uint32_t r = 0; r < p->rows.count; r++)
        for (uint32_t i = 0; i < p->rows.q_len; i++) {
            const struct token t = find(p, r, i);
            if (p->q_a.base)
                do_q_a(p, way, &t);
            if (p->kv_a.base)
                do_kv_a(p, way, &t);
            if (p->q_in.base)
                do_q(p, &t);
        }
}

void rt_ref_preattend(const void *params)
{
    run(params, &(struct way){NULL, NULL});
}

void rt_ref_preattend_quant(const void *params)
{
    const struct rt_preattend_quant_params *p = params;
    run(&p->preattend, &(struct way){.quant = &p->quant});
}

void rt_ref_preattend_sums(const void *params)
{
    const struct rt_preattend_sums_params *p = params;
    run(&p->preattend, &(struct way){.sums = &p->sums});
}
