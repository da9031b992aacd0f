/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/invariant.h"
#include "kernels/ref/fold.h"
#include "kernels/ref/host.h"
#include "kernels/ref/keys.h"
#include "kernels/ref/number.h"
#include "kernels/ref/piece.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/*
 * Keys are widened to double a chunk at a time, once for a group of query rows: the chunk and the
 * group's accumulators together stay in a core's own cache.
 *
 *   chunk  [CHUNK_KEYS, d_qk] f64   74 KB
 *   group  [GROUP_ROWS] x (q [d_qk], acc [d_v]) f64   70 KB
 */
#define CHUNK_KEYS 16
#define GROUP_ROWS 8

struct chunk {
    double key[CHUNK_KEYS][RT_REF_MAX_D];
};

/* Online softmax of one query row, base 2. */
struct query {
    double q[RT_REF_MAX_D]; /* times scale * log2(e) */
    double acc[RT_REF_MAX_D];
    double max, sum;
    int64_t seen; /* keys [0, seen) are not masked */
};

/* A piece: blocks of one row, for query rows [first, first + count) of it. */
struct piece {
    uint32_t row, first, count;
    int64_t begin, end; /* tokens */
    int32_t slot;       /* partial slot, or -1: the row is not split */
};

static void load_queries(const struct rt_attend_params *p, const struct piece *piece,
                         struct query *queries)
{
    double scale_log2 = (double)p->scale * RT_REF_LOG2_E;
    for (uint32_t i = 0; i < piece->count; i++) {
        uint32_t token = (piece->first + i) / p->heads;
        rt_ref_load_query(p, piece->row, piece->first + i, scale_log2, queries[i].q);
        memset(queries[i].acc, 0, sizeof(queries[i].acc));
        queries[i].max = -INFINITY;
        queries[i].sum = 0;
        queries[i].seen = rt_ref_seen_keys(p, piece->row, token);
    }
}

static void accumulate(const struct rt_attend_params *p, struct query *query,
                       const struct chunk *chunk, int64_t first, int64_t count)
{
    double score[CHUNK_KEYS];
    double max = query->max;
    if (count > query->seen - first)
        count = query->seen - first;
    for (int64_t i = 0; i < count; i++) {
        score[i] = rt_ref_dot(query->q, chunk->key[i], p->d_qk);
        max = fmax(max, score[i]);
    }
    /* All scores so far -inf (or NaN): any finite reference does, and -inf would make NaN. */
    double reference = max == -INFINITY ? 0 : max;
    if (max != query->max) {
        double shrink = exp2(query->max - reference);
        query->sum *= shrink;
        for (uint32_t d = 0; d < p->d_v; d++)
            query->acc[d] *= shrink;
        query->max = max;
    }
    for (int64_t i = 0; i < count; i++) {
        double weight = exp2(score[i] - reference);
        query->sum += weight;
        rt_ref_add_scaled(query->acc, chunk->key[i], weight, p->d_v);
    }
}

/* Sums as a piece: [d_v], normalised, and the lse. Undefined scale of an empty row is never used:
 * x is 0 whatever acc holds. */
static float end_query(const struct query *query, float *x, uint32_t d_v)
{
    const bool empty = query->sum == 0;
    for (uint32_t d = 0; d < d_v; d++)
        x[d] = empty ? 0.0f : (float)(query->acc[d] / query->sum);
    return empty ? -INFINITY : (float)(query->max + log2(query->sum));
}

static struct rt_ref_pieces pieces_of(const struct rt_attend_params *p)
{
    return rt_ref_pieces_of(&p->partials, p->heads * p->rows.q_len, p->d_v,
                            p->is_f32 || RT_INVARIANT_FOLDS(p->schedule.invariant));
}

static void store_piece(const struct rt_attend_params *p, const struct piece *piece,
                        const struct query *queries)
{
    const struct rt_ref_pieces pieces = pieces_of(p);
    float x[RT_REF_MAX_D];
    for (uint32_t i = 0; i < piece->count; i++) {
        const uint32_t query = piece->first + i;
        p->partials.lse[(size_t)piece->slot * pieces.query_rows + query] =
            end_query(&queries[i], x, p->d_v);
        rt_ref_piece_store(&pieces, piece->slot, query, x);
    }
}

/* Query row `query` of the batch row: from sums relative to the exponent `max` of 2. */
static void store_query(const struct rt_attend_params *p, uint32_t row_of_step, uint32_t query,
                        double max, double sum, const double *acc)
{
    const int64_t row = (p->rows.ctrl ? p->rows.ctrl->row_base : 0) + (int64_t)row_of_step;
    const uint32_t token = query / p->heads, head = query % p->heads;
    const int64_t out =
        row * p->out.row_stride + token * p->out.token_stride + head * p->out.head_stride;
    const bool empty = sum == 0;
    const double divisor = rt_ref_divisor(p->sink, head, max, sum);
    for (uint32_t d = 0; d < p->d_v; d++)
        rt_ref_store(p->out.base, out + d, p->is_f32, divisor == 0 ? 0 : acc[d] / divisor);
    ((float *)p->lse
         .base)[row * p->lse.row_stride + token * p->lse.token_stride + head * p->lse.head_stride] =
        empty ? INFINITY : (float)rt_ref_lse_of_base2(max + log2(sum), p->lse_base2);
}

static void store_row(const struct rt_attend_params *p, const struct piece *piece,
                      const struct query *queries)
{
    for (uint32_t i = 0; i < piece->count; i++)
        store_query(p, piece->row, piece->first + i, queries[i].max, queries[i].sum,
                    queries[i].acc);
}

/* The sums of the group's query rows over tokens [begin, end). */
static void sum_up(const struct rt_attend_params *p, const struct rt_quant_view *quant,
                   const struct piece *piece, int64_t begin, int64_t end, struct query *queries)
{
    struct chunk chunk;
    load_queries(p, piece, queries);
    for (int64_t first = begin; first < end; first += CHUNK_KEYS) {
        int64_t count = end - first < CHUNK_KEYS ? end - first : CHUNK_KEYS;
        for (int64_t i = 0; i < count; i++)
            rt_ref_load_key(p, quant, piece->row, first + i, chunk.key[i]);
        for (uint32_t i = 0; i < piece->count; i++)
            accumulate(p, &queries[i], &chunk, first, count);
    }
}

static void attend_piece(const struct rt_attend_params *p, const struct rt_quant_view *quant,
                         struct piece piece)
{
    uint32_t hq = p->heads * p->rows.q_len;
    struct query queries[GROUP_ROWS];
    for (piece.first = 0; piece.first < hq; piece.first += GROUP_ROWS) {
        piece.count = hq - piece.first < GROUP_ROWS ? hq - piece.first : GROUP_ROWS;
        sum_up(p, quant, &piece, piece.begin, piece.end, queries);
        if (piece.slot < 0)
            store_row(p, &piece, queries);
        else
            store_piece(p, &piece, queries);
    }
}

/* A group of leaves that is one piece, or all of its row. */
static void store_group(const struct rt_attend_params *p, const struct piece *piece, uint32_t query,
                        const struct rt_ref_fold *sum)
{
    const struct rt_ref_pieces pieces = pieces_of(p);
    float x[RT_REF_MAX_D];
    const float lse = rt_ref_fold_end(sum, x, p->d_v);
    if (piece->slot < 0) {
        struct rt_ref_fold row;
        rt_ref_fold_begin(&row);
        rt_ref_fold_add(&row, lse, x, p->d_v);
        store_query(p, piece->row, query, row.top, row.total, row.out);
        return;
    }
    rt_ref_piece_store(&pieces, piece->slot, query, x);
    p->partials.lse[(size_t)piece->slot * pieces.query_rows + query] = lse;
}

static void fold_leaves(const struct rt_attend_params *p, struct piece piece, int64_t leaf_tokens)
{
    const uint32_t hq = p->heads * p->rows.q_len;
    struct query queries[GROUP_ROWS];
    struct rt_ref_fold sums[GROUP_ROWS];
    float x[RT_REF_MAX_D];
    for (piece.first = 0; piece.first < hq; piece.first += GROUP_ROWS) {
        piece.count = hq - piece.first < GROUP_ROWS ? hq - piece.first : GROUP_ROWS;
        for (uint32_t i = 0; i < piece.count; i++)
            rt_ref_fold_begin(&sums[i]);
        for (int64_t at = piece.begin; at < piece.end; at += leaf_tokens) {
            const int64_t end = at + leaf_tokens < piece.end ? at + leaf_tokens : piece.end;
            sum_up(p, NULL, &piece, at, end, queries);
            for (uint32_t i = 0; i < piece.count; i++) {
                const float lse = end_query(&queries[i], x, p->d_v);
                rt_ref_fold_add(&sums[i], lse, x, p->d_v);
            }
        }
        for (uint32_t i = 0; i < piece.count; i++)
            store_group(p, &piece, piece.first + i, &sums[i]);
    }
}

/* Batch-invariant, of bf16: what a part has of a row are pieces of its own, leaves or groups. */
static void attend_own(const struct rt_attend_params *p, struct piece all)
{
    const int32_t *splits = p->schedule.num_splits + all.row;
    const uint32_t blocks = rt_invariant_blocks(p->rows.length[all.row]);
    const uint32_t way = p->schedule.invariant;
    const uint32_t leaf = rt_invariant_leaf(way, blocks);
    const uint32_t unit = rt_invariant_unit_of(way, blocks, splits[1] - splits[0]);
    const int64_t tokens = (int64_t)unit * RT_BLOCK_TOKENS;
    struct piece piece = all;
    for (; piece.begin < all.end; piece.begin += tokens) {
        piece.end = piece.begin + tokens < all.end ? piece.begin + tokens : all.end;
        piece.slot = splits[1] > splits[0] ? splits[0] + (int32_t)(piece.begin / tokens) : -1;
        if (unit == leaf)
            attend_piece(p, NULL, piece);
        else
            fold_leaves(p, piece, (int64_t)leaf * RT_BLOCK_TOKENS);
    }
}

static void attend_part(const struct rt_attend_params *p, const struct rt_quant_view *quant,
                        const struct rt_part *part)
{
    if (part->begin_row >= (int32_t)p->rows.count)
        return;
    for (int32_t row = part->begin_row; row <= part->end_row && row < (int32_t)p->rows.count;
         row++) {
        int64_t length = p->rows.length[row];
        int64_t begin = row == part->begin_row ? (int64_t)part->begin_block * RT_BLOCK_TOKENS : 0;
        int64_t end = row == part->end_row ? (int64_t)part->end_block * RT_BLOCK_TOKENS : length;
        if (end > length)
            end = length;
        if (end <= begin)
            continue;
        int32_t split = row == part->begin_row ? part->begin_split : 0;
        bool whole = p->schedule.num_splits[row] == p->schedule.num_splits[row + 1];
        const struct piece piece = {.row = (uint32_t)row,
                                    .begin = begin,
                                    .end = end,
                                    .slot = whole ? -1 : p->schedule.num_splits[row] + split};
        if (p->schedule.invariant)
            attend_own(p, piece);
        else
            attend_piece(p, quant, piece);
    }
}

static void attend(const struct rt_attend_params *p, const struct rt_quant_view *quant)
{
    if (p->stamp_first)
        *p->stamp_first = rt_ref_now_ns();
    if (p->d_qk > RT_REF_MAX_D || p->d_v > p->d_qk)
        return;
    for (uint32_t i = 0; i < p->schedule.part_count; i++)
        attend_part(p, quant, &p->schedule.parts[i]);
}

void rt_ref_attend(const void *params)
{
    attend(params, NULL);
}

void rt_ref_attend_quant(const void *params)
{
    const struct rt_attend_quant_params *p = params;
    attend(&p->attend, &p->quant);
}
