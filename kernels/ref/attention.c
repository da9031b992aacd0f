/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/keys.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

/*
 * The plain formula, key by key: scores twice rather than kept, so no memory grows with length, and
 * nothing of the tiled kernels' order is shared.
 */
static void attend_query(const struct rt_attend_params *p, uint32_t row, uint32_t query,
                         const double *q, double *out, double *lse)
{
    double key[RT_REF_MAX_D];
    const uint32_t head = query % p->heads;
    int64_t seen = rt_ref_seen_keys(p, row, query / p->heads);
    double max = -INFINITY;
    for (int64_t j = 0; j < seen; j++) {
        rt_ref_load_key(p, NULL, row, j, key);
        max = fmax(max, rt_ref_dot(q, key, p->d_qk));
    }
    if (max == -INFINITY)
        max = 0;

    double sum = 0;
    memset(out, 0, p->d_v * sizeof(*out));
    for (int64_t j = 0; j < seen; j++) {
        rt_ref_load_key(p, NULL, row, j, key);
        double weight = exp(rt_ref_dot(q, key, p->d_qk) - max);
        sum += weight;
        rt_ref_add_scaled(out, key, weight, p->d_v);
    }
    const double divisor = rt_ref_divisor(p->sink, head, max * RT_REF_LOG2_E, sum);
    for (uint32_t d = 0; d < p->d_v; d++)
        out[d] = divisor == 0 ? 0 : out[d] / divisor;
    *lse = sum == 0 ? INFINITY : rt_ref_lse_of_natural(max + log(sum), p->lse_base2);
}

void rt_ref_mla_attention_query(const struct rt_attend_params *p, uint32_t row, uint32_t query,
                                double *out, double *lse)
{
    double q[RT_REF_MAX_D];
    if (p->d_qk > RT_REF_MAX_D || p->d_v > p->d_qk)
        return;
    rt_ref_load_query(p, row, query, (double)p->scale, q);
    attend_query(p, row, query, q, out, lse);
}

void rt_ref_mla_attention(const struct rt_attend_params *p, double *out, double *lse)
{
    uint32_t query_rows = p->rows.q_len * p->heads;
    for (uint32_t r = 0; r < p->rows.count; r++)
        for (uint32_t i = 0; i < query_rows; i++) {
            size_t at = (size_t)r * query_rows + i;
            rt_ref_mla_attention_query(p, r, i, out + at * p->d_v, lse + at);
        }
}
