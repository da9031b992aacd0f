/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/keys.h"
#include "kernels/ref/number.h"
#include "kernels/ref/ref.h"

#include <math.h>

/* What all queries of a row and head have in common. */
struct seer {
    const struct rt_prefill_attend_params *p;
    struct rt_prefill_row row;
    uint32_t head;
};

static int64_t place(const struct rt_prefill_view *view, uint32_t token, uint32_t head)
{
    return token * view->token_stride + head * view->head_stride;
}

static double dot(const struct seer *s, const struct rt_prefill_view *a, uint32_t token,
                  const struct rt_prefill_view *b, uint32_t key, uint32_t count)
{
    const int64_t x = place(a, token, s->head), y = place(b, key, s->head);
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum +=
            rt_ref_load(a->base, x + i, s->p->is_f32) * rt_ref_load(b->base, y + i, s->p->is_f32);
    return sum;
}

/* Of a token and a key, both counted from their tensors' beginnings. */
static double score(const struct seer *s, uint32_t token, uint32_t key)
{
    const struct rt_prefill_attend_params *p = s->p;
    return (double)p->scale * (dot(s, &p->q, token, &p->k, key, p->nope_dim) +
                               dot(s, &p->q_rope, token, &p->k_rope, key, p->rope_dim));
}

static void write_query(const struct rt_prefill_attend_params *p, uint32_t token, uint32_t head,
                        const double *out, double sum, double max)
{
    const int64_t to = place(&p->out, token, head);
    const double divisor = rt_ref_divisor(p->sink, head, max * RT_REF_LOG2_E, sum);
    for (uint32_t d = 0; d < p->v_dim; d++)
        rt_ref_store(p->out.base, to + d, p->is_f32, divisor == 0 ? 0 : out[d] / divisor);
    const double lse = sum == 0 ? INFINITY : max + log(sum);
    ((float *)p->lse.base)[place(&p->lse, token, head)] =
        (float)(p->lse_base2 ? lse * RT_REF_LOG2_E : lse);
}

/* Scores twice rather than kept: no memory grows with the keys. */
static void attend(const struct seer *s, uint32_t token, int32_t seen)
{
    const struct rt_prefill_attend_params *p = s->p;
    double out[RT_PREFILL_MOST_DIM] = {0}, sum = 0, max = -INFINITY;
    for (int32_t j = 0; j < seen; j++)
        max = fmax(max, score(s, token, s->row.key + (uint32_t)j));
    if (max == -INFINITY)
        max = 0;
    for (int32_t j = 0; j < seen; j++) {
        const uint32_t key = s->row.key + (uint32_t)j;
        const double weight = exp(score(s, token, key) - max);
        const int64_t v = place(&p->v, key, s->head);
        sum += weight;
        for (uint32_t d = 0; d < p->v_dim; d++)
            out[d] += weight * rt_ref_load(p->v.base, v + d, p->is_f32);
    }
    write_query(p, token, s->head, out, sum, max);
}

void rt_ref_prefill_attend(const void *params)
{
    const struct rt_prefill_attend_params *p = params;
    const double nothing[RT_PREFILL_MOST_DIM] = {0};
    for (uint32_t head = 0; head < p->heads; head++) {
        for (uint32_t r = 0; r < p->rows; r++) {
            const struct seer s = {.p = p, .row = rt_prefill_row(p, r), .head = head};
            for (uint32_t i = 0; i < s.row.queries; i++)
                attend(&s, s.row.query + i, rt_prefill_seen(p, &s.row, i));
        }
        for (uint32_t t = rt_prefill_clamp(p->q_first[p->rows], 0, p->tokens); t < p->tokens; t++)
            write_query(p, t, head, nothing, 0, 0);
    }
}
