/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/keys.h"
#include "kernels/ref/number.h"
#include "kernels/ref/ref.h"

#include <math.h>

/* A token and head of all pieces: where each begins, in elements. */
struct place {
    int64_t in, in_lse, out, out_lse;
};

static double lse_of(const struct rt_merge_params *p, const struct place *at, uint32_t piece)
{
    const float *lse = p->in_lse.base;
    return (double)lse[at->in_lse + piece * p->in_lse.piece_stride];
}

/* NaN where one of them is. */
static double largest(const struct rt_merge_params *p, const struct place *at)
{
    double max = -INFINITY;
    for (uint32_t i = 0; i < p->pieces; i++) {
        const double lse = lse_of(p, at, i);
        if (isnan(lse))
            return lse;
        if (!isinf(lse) && lse > max)
            max = lse;
    }
    return max;
}

static void store(const struct rt_merge_params *p, const struct place *at, const double *out,
                  double lse)
{
    for (uint32_t d = 0; d < p->v_dim; d++)
        rt_ref_store(p->out.base, at->out + d, p->is_f32, out[d]);
    if (p->out_lse.base)
        ((float *)p->out_lse.base)[at->out_lse] = (float)lse;
}

/* All is read before the first is written: out may be a piece. */
static void merge(const struct rt_merge_params *p, const struct place *at, uint32_t head)
{
    const double max = largest(p, at);
    double out[RT_MERGE_MOST_DIM] = {0}, sum = 0;
    for (uint32_t i = 0; i < p->pieces; i++) {
        const double lse = lse_of(p, at, i);
        if (isinf(lse))
            continue;
        const double weight = p->lse_base2 ? exp2(lse - max) : exp(lse - max);
        sum += weight;
        for (uint32_t d = 0; d < p->v_dim; d++)
            out[d] +=
                weight * rt_ref_load(p->in.base, at->in + i * p->in.piece_stride + d, p->is_f32);
    }
    const double divisor =
        rt_ref_divisor(p->sink, head, p->lse_base2 ? max : max * RT_REF_LOG2_E, sum);
    for (uint32_t d = 0; d < p->v_dim; d++)
        out[d] = divisor == 0 ? 0 : out[d] / divisor;
    store(p, at, out, sum == 0 ? INFINITY : max + (p->lse_base2 ? log2(sum) : log(sum)));
}

void rt_ref_merge(const void *params)
{
    const struct rt_merge_params *p = params;
    const double nothing[RT_MERGE_MOST_DIM] = {0};
    const uint32_t live = rt_merge_live(p);
    for (uint32_t token = 0; token < p->tokens; token++)
        for (uint32_t head = 0; head < p->heads; head++) {
            const struct place at = {
                .in = token * p->in.token_stride + head * p->in.head_stride,
                .in_lse = token * p->in_lse.token_stride + head * p->in_lse.head_stride,
                .out = token * p->out.token_stride + head * p->out.head_stride,
                .out_lse = token * p->out_lse.token_stride + head * p->out_lse.head_stride,
            };
            if (token < live)
                merge(p, &at, head);
            else
                store(p, &at, nothing, INFINITY);
        }
}
