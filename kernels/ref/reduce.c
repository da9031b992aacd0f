/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/invariant.h"
#include "kernels/ref/counted.h"
#include "kernels/ref/fold.h"
#include "kernels/ref/host.h"
#include "kernels/ref/keys.h"
#include "kernels/ref/number.h"
#include "kernels/ref/piece.h"
#include "kernels/ref/ref.h"

#include <math.h>

/* One query row: where it is written, and its pieces. */
struct target {
    void *out_base;
    int64_t out; /* elements behind it */
    bool is_f32;
    float *lse;
    struct rt_ref_pieces partials;
    int64_t slot; /* of piece 0 */
    uint32_t query;
    int32_t pieces;
};

static float lse_of(const struct target *t, int32_t piece)
{
    return t->partials.partials.lse[(t->slot + piece) * t->partials.query_rows + t->query];
}

static void load(const struct target *t, int32_t piece, float *x)
{
    rt_ref_piece_load(&t->partials, t->slot + piece, t->query, x);
}

static void store_empty(const struct target *t, uint32_t d_v)
{
    for (uint32_t d = 0; d < d_v; d++)
        rt_ref_store(t->out_base, t->out + d, t->is_f32, 0);
    *t->lse = INFINITY;
}

static void combine(const struct target *t, const struct rt_reduce_params *p, uint32_t head)
{
    const uint32_t d_v = p->d_v;
    double max = -INFINITY;
    for (int32_t i = 0; i < t->pieces; i++)
        max = fmax(max, (double)lse_of(t, i));
    if (max == -INFINITY)
        max = 0;
    double sum = 0;
    for (int32_t i = 0; i < t->pieces; i++)
        sum += exp2((double)lse_of(t, i) - max);
    if (sum == 0) {
        store_empty(t, d_v);
        return;
    }
    const double divisor = rt_ref_divisor(p->sink, head, max, sum);
    double out[RT_REF_MAX_D] = {0};
    for (int32_t i = 0; i < t->pieces; i++) {
        double weight = exp2((double)lse_of(t, i) - max);
        float x[RT_REF_MAX_D];
        load(t, i, x);
        for (uint32_t d = 0; d < d_v; d++)
            out[d] += weight * (double)x[d];
    }
    for (uint32_t d = 0; d < d_v; d++)
        rt_ref_store(t->out_base, t->out + d, t->is_f32, divisor == 0 ? 0 : out[d] / divisor);
    *t->lse = (float)rt_ref_lse_of_base2(max + log2(sum), p->lse_base2);
}

/* Pieces [first, end), one after the other. */
static void fold(const struct target *t, int32_t first, int32_t end, uint32_t d_v,
                 struct rt_ref_fold *sum)
{
    rt_ref_fold_begin(sum);
    for (int32_t i = first; i < end; i++) {
        float x[RT_REF_MAX_D];
        load(t, i, x);
        rt_ref_fold_add(sum, lse_of(t, i), x, d_v);
    }
}

/* Batch-invariant: leaves become groups, and groups the row. */
static void combine_own(const struct target *t, const struct rt_reduce_params *p, uint32_t head,
                        bool leaves)
{
    const uint32_t d_v = p->d_v;
    struct rt_ref_fold row, group;
    float x[RT_REF_MAX_D];
    if (leaves) {
        rt_ref_fold_begin(&row);
        for (int32_t i = 0; i < t->pieces; i += RT_INVARIANT_GROUP) {
            const int32_t end = i + (int32_t)RT_INVARIANT_GROUP;
            fold(t, i, end < t->pieces ? end : t->pieces, d_v, &group);
            const float lse = rt_ref_fold_end(&group, x, d_v);
            rt_ref_fold_add(&row, lse, x, d_v);
        }
    } else {
        fold(t, 0, t->pieces, d_v, &row);
    }
    const double divisor = rt_ref_divisor(p->sink, head, row.top, row.total);
    for (uint32_t d = 0; d < d_v; d++)
        rt_ref_store(t->out_base, t->out + d, t->is_f32, divisor == 0 ? 0 : row.out[d] / divisor);
    *t->lse = row.total == 0 ? INFINITY
                             : (float)rt_ref_lse_of_base2(row.top + log2(row.total), p->lse_base2);
}

static bool has_leaves(const struct rt_reduce_params *p, uint32_t row, int32_t pieces)
{
    const uint32_t blocks = rt_invariant_blocks(p->rows.length[row]);
    const uint32_t way = p->schedule.invariant;
    return rt_invariant_unit_of(way, blocks, pieces) == rt_invariant_leaf(way, blocks);
}

static void reduce_row(const struct rt_reduce_params *p, uint32_t row)
{
    int64_t hq = (int64_t)p->heads * p->rows.q_len;
    const int64_t row_tokens = p->row_tokens ? p->row_tokens : 1;
    const int64_t data_row = rt_row_base(&p->rows) + row / row_tokens;
    struct target t = {.pieces = p->schedule.num_splits[row + 1] - p->schedule.num_splits[row],
                       .slot = p->schedule.num_splits[row],
                       .partials =
                           rt_ref_pieces_of(&p->partials, (uint32_t)hq, p->d_v,
                                            p->is_f32 || RT_INVARIANT_FOLDS(p->schedule.invariant)),
                       .out_base = p->out.base,
                       .is_f32 = p->is_f32};
    bool empty = p->rows.length[row] <= 0;
    if (!empty && t.pieces == 0)
        return;
    for (int64_t i = 0; i < hq; i++) {
        int64_t token = row % row_tokens + i / p->heads, head = i % p->heads;
        t.out =
            data_row * p->out.row_stride + token * p->out.token_stride + head * p->out.head_stride;
        t.lse = (float *)p->lse.base + data_row * p->lse.row_stride + token * p->lse.token_stride +
                head * p->lse.head_stride;
        if (empty) {
            store_empty(&t, p->d_v);
            continue;
        }
        t.query = (uint32_t)i;
        if (p->schedule.invariant)
            combine_own(&t, p, (uint32_t)head, has_leaves(p, row, t.pieces));
        else
            combine(&t, p, (uint32_t)head);
    }
}

void rt_ref_reduce(const void *params)
{
    const struct rt_reduce_params *p = params;
    struct rt_ref_counted plan;
    struct rt_reduce_params planned = *p;
    if (p->d_v > RT_REF_MAX_D)
        return;
    if (p->counted.min_blocks > 0)
        rt_ref_plan_counted(&p->counted, &planned.schedule, &planned.rows, &plan);
    for (uint32_t r = 0; r < p->rows.count; r++)
        reduce_row(&planned, r);
    if (p->stamp_last) {
        uint64_t now = rt_ref_now_ns();
        if (now > *p->stamp_last)
            *p->stamp_last = now;
    }
}
