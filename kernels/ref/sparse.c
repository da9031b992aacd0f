/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/counted.h"
#include "kernels/ref/host.h"
#include "kernels/ref/keys.h"
#include "kernels/ref/number.h"
#include "kernels/ref/piece.h"
#include "kernels/ref/quant.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

void rt_ref_sparse_schedule(const void *params)
{
    const struct rt_sparse_schedule_params *p = params;
    const uint32_t first = rt_row_base(&p->schedule.rows) * p->q_len;
    for (uint32_t t = 0; t < p->schedule.rows.count; t++) {
        const bool padding = p->row_length && p->row_length[t / p->q_len] <= 0;
        const uint32_t count =
            rt_sparse_count(&p->keys, first + t) + rt_sparse_count(&p->extra, first + t);
        p->length[t] = padding ? 0 : (int32_t)count;
    }
    rt_ref_schedule(&p->schedule);
}

/* Entries [begin, end) of a token's lists, taken as one behind the other. */
struct piece {
    uint32_t token, begin, end;
    int32_t slot; /* partial slot, or -1: the token is not split */
};

/* A query row's sums over a piece, relative to the exponent `max` of 2. */
struct sums {
    double max, sum;
    double out[RT_REF_MAX_D];
};

static void widen(const void *base, int64_t first, uint32_t count, bool is_f32, double *to)
{
    for (uint32_t d = 0; d < count; d++)
        to[d] = rt_ref_load(base, first + d, is_f32);
}

/* What quantises both caches; null: they are plain numbers. */
struct views {
    const struct rt_quant_view *keys, *extra;
};

/* False: the entry is no key. */
static bool load_key(const struct rt_sparse_attend_params *p, const struct views *views,
                     uint32_t token, uint32_t i, double *key)
{
    const uint32_t in_data = rt_row_base(&p->attend.rows) * p->q_len + token;
    const uint32_t of_keys = rt_sparse_count(&p->keys, in_data), row = token / p->q_len;
    const bool is_extra = i >= of_keys;
    const struct rt_sparse_view *list = is_extra ? &p->extra : &p->keys;
    const struct rt_kv_view *kv = is_extra ? &p->extra_kv : &p->attend.kv;
    const struct rt_quant_view *quant = is_extra ? views->extra : views->keys;
    const int32_t line = p->slot ? p->slot[row] : (int32_t)row;
    const struct rt_sparse_place at =
        rt_sparse_locate(kv, list->by_position, line,
                         list->index[in_data * list->token_stride + i - (is_extra ? of_keys : 0)]);
    uint16_t elements[RT_REF_MAX_D];
    if (!at.page)
        return false;
    if (quant) {
        const int64_t page = (at.page - kv->base) / kv->page_stride_bytes;
        rt_ref_dequantise(quant, rt_ref_quant_row(kv, quant, page, at.row), p->attend.d_qk,
                          elements);
        widen(elements, 0, p->attend.d_qk, false, key);
    } else {
        widen(at.page + at.row * kv->token_stride_bytes, 0, p->attend.d_qk, p->attend.is_f32, key);
    }
    return true;
}

static int64_t data_at(const struct rt_sparse_attend_params *p, const struct rt_heads_view *view,
                       uint32_t token, uint32_t head)
{
    const int64_t row = (int64_t)rt_row_base(&p->attend.rows) + token / p->q_len;
    return row * view->row_stride + token % p->q_len * view->token_stride +
           head * view->head_stride;
}

/* Times scale * log2(e). */
static void load_query(const struct rt_sparse_attend_params *p, uint32_t token, uint32_t head,
                       double *q)
{
    const struct rt_attend_params *a = &p->attend;
    const uint32_t width = a->q_rope.base ? a->d_v : a->d_qk;
    widen(a->q.base, data_at(p, &a->q, token, head), width, a->is_f32, q);
    if (a->q_rope.base)
        widen(a->q_rope.base, data_at(p, &a->q_rope, token, head), a->d_qk - width, a->is_f32,
              q + width);
    for (uint32_t d = 0; d < a->d_qk; d++)
        q[d] *= (double)a->scale * RT_REF_LOG2_E;
}

static void raise(struct sums *s, double max, uint32_t d_v)
{
    if (max == s->max)
        return;
    const double shrink = exp2(s->max - max);
    s->sum *= shrink;
    for (uint32_t d = 0; d < d_v; d++)
        s->out[d] *= shrink;
    s->max = max;
}

/* A score of -inf weighs nothing, and until there is another nothing is summed up. */
static void add_key(const struct rt_attend_params *a, struct sums *s, const double *key,
                    double score)
{
    raise(s, fmax(s->max, score), a->d_v);
    const double weight = exp2(score - (s->max == -INFINITY ? 0 : s->max));
    s->sum += weight;
    rt_ref_add_scaled(s->out, key, weight, a->d_v);
}

static void store_piece(const struct rt_attend_params *a, const struct piece *piece, uint32_t head,
                        const struct sums *s)
{
    const size_t at = (size_t)piece->slot * a->heads + head;
    const bool empty = s->sum == 0;
    const struct rt_ref_pieces pieces = rt_ref_pieces_of(&a->partials, a->heads, a->d_v, a->is_f32);
    float x[RT_REF_MAX_D];
    for (uint32_t d = 0; d < a->d_v; d++)
        x[d] = empty ? 0.0f : (float)(s->out[d] / s->sum);
    rt_ref_piece_store(&pieces, piece->slot, head, x);
    a->partials.lse[at] = empty ? -INFINITY : (float)(s->max + log2(s->sum));
}

static void store_token(const struct rt_sparse_attend_params *p, const struct piece *piece,
                        uint32_t head, const struct sums *s)
{
    const struct rt_attend_params *a = &p->attend;
    const int64_t out = data_at(p, &a->out, piece->token, head);
    const double divisor = rt_ref_divisor(a->sink, head, s->max, s->sum);
    for (uint32_t d = 0; d < a->d_v; d++)
        rt_ref_store(a->out.base, out + d, a->is_f32, divisor == 0 ? 0 : s->out[d] / divisor);
    ((float *)a->lse.base)[data_at(p, &a->lse, piece->token, head)] =
        s->sum == 0 ? INFINITY : (float)rt_ref_lse_of_base2(s->max + log2(s->sum), a->lse_base2);
}

static void attend_piece(const struct rt_sparse_attend_params *p, const struct views *views,
                         const struct piece *piece)
{
    const struct rt_attend_params *a = &p->attend;
    for (uint32_t head = 0; head < a->heads; head++) {
        double q[RT_REF_MAX_D], key[RT_REF_MAX_D];
        struct sums s = {.max = -INFINITY};
        load_query(p, piece->token, head, q);
        for (uint32_t i = piece->begin; i < piece->end; i++) {
            if (!load_key(p, views, piece->token, i, key))
                continue;
            add_key(a, &s, key, rt_ref_dot(q, key, a->d_qk));
        }
        if (piece->slot < 0)
            store_token(p, piece, head, &s);
        else
            store_piece(a, piece, head, &s);
    }
}

static void attend_part(const struct rt_sparse_attend_params *p, const struct views *views,
                        const struct rt_part *part)
{
    const struct rt_attend_params *a = &p->attend;
    const int32_t *splits = a->schedule.num_splits, tokens = (int32_t)a->rows.count;
    for (int32_t t = part->begin_row; t <= part->end_row && t < tokens; t++) {
        const int32_t begin = t == part->begin_row ? part->begin_block * RT_BLOCK_TOKENS : 0;
        int32_t end = t == part->end_row ? part->end_block * RT_BLOCK_TOKENS : a->rows.length[t];
        if (end > a->rows.length[t])
            end = a->rows.length[t];
        if (end <= begin)
            continue;
        const int32_t split = t == part->begin_row ? part->begin_split : 0;
        const struct piece piece = {.token = (uint32_t)t,
                                    .begin = (uint32_t)begin,
                                    .end = (uint32_t)end,
                                    .slot = splits[t] == splits[t + 1] ? -1 : splits[t] + split};
        attend_piece(p, views, &piece);
    }
}

static void attend(const struct rt_sparse_attend_params *p, struct views views)
{
    if (p->attend.stamp_first)
        *p->attend.stamp_first = rt_ref_now_ns();
    if (p->attend.d_qk > RT_REF_MAX_D || p->attend.d_v > p->attend.d_qk)
        return;
    struct rt_ref_counted plan;
    struct rt_sparse_attend_params planned = *p;
    if (p->counted.min_blocks > 0)
        rt_ref_plan_counted(&p->counted, &planned.attend.schedule, &planned.attend.rows, &plan);
    for (uint32_t i = 0; i < planned.attend.schedule.part_count; i++)
        attend_part(&planned, &views, &planned.attend.schedule.parts[i]);
}

void rt_ref_sparse_attend(const void *params)
{
    attend(params, (struct views){NULL, NULL});
}

/* Tokens whole, those without keys, too. */
void rt_ref_sparse_attend_whole(const void *params)
{
    const struct rt_sparse_attend_params *p = params;
    const uint32_t row_base = rt_row_base(&p->attend.rows);
    if (p->attend.stamp_first)
        *p->attend.stamp_first = rt_ref_now_ns();
    if (p->attend.d_qk > RT_REF_MAX_D || p->attend.d_v > p->attend.d_qk)
        return;
    for (uint32_t t = 0; t < p->attend.rows.count; t++) {
        const struct piece piece = {
            .token = t, .end = rt_counted_length(&p->counted, row_base, t), .slot = -1};
        attend_piece(p, &(struct views){NULL, NULL}, &piece);
    }
    if (p->stamp_last)
        *p->stamp_last = rt_max_u64(*p->stamp_last, rt_ref_now_ns());
}

void rt_ref_sparse_attend_quant(const void *params)
{
    const struct rt_sparse_attend_quant_params *p = params;
    attend(&p->sparse, (struct views){&p->quant, &p->extra_quant});
}
