/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_SAMPLE_H
#define RT_KERNELS_ABI_SAMPLE_H

/*
 * sample: logits become the next token of every row, and drafts are judged. Three launches of the
 * same parameters in this order, with nothing that changes them in between:
 *
 *   sample_best    the best key of each piece of a row's logits
 *   sample_tally   where the temperature is not 0: weights by piece, and by bin of distance
 *   sample         the choice
 *
 * Everything is integers or single roundings (kernels/abi/sample_number.h): the same token on every
 * device, eager and replayed, in every batch and at every place in it.
 *
 * Choice in a column: x = logit * scale. Order is by x falling, then by id rising; NaN is behind
 * all, in the order of ids. Temperature 0, less or NaN takes the first in order. Otherwise
 *   weight  2^40 exp((x - max) / temperature), an integer; 0 beyond a factor of 2^-40 and for NaN.
 *           Infinities: +inf weighs as the maximum that it is, -inf 0 below any other maximum.
 *   top_k   1 and more: the first top_k in order stay
 *   top_p   below 1: of these the shortest beginning in order whose weights come to top_p of the
 *           sum, top_p as ceil(floor(top_p * 2^32) * sum / 2^32), and at least one
 *   draw    the first id, in rising order of ids, at which the sum of what has stayed passes
 *           floor(u * sum / 2^64); u: words 1 and 0 of Philox 4x32-10, key seed, counter
 *           (position of the column's token, 0, 0, 0)
 * If all are NaN: id 0.
 *
 * Row r, of length > 0 and a slot (others are left alone), n = accept[r], and q_len where that is
 * none of these or null. `line` is slot[r], or r
 *   n in 1..q_len    sampled = choice in column n - 1; accepted is left alone, stop ids too
 *   by the device    column 0's token is one of the line's stop ids: the row has stopped, sampled =
 *                    that token, accepted = 0. Else the choice in column 0, and as long as it is
 *                    no stop id and the next column's token, in that: sampled is the last of them,
 *                    accepted the number of columns.
 * So a row that has sampled a stop id samples it again in every step that the host has launched
 * ahead, while nothing is added to its cache: all it needs is that the slot's last token is fed
 * back. No state but that; so where a prompt's last token is a stop id, the host says in the step
 * that feeds it how many tokens stay, and is sampled for like any other.
 */
#include "kernels/abi/views.h"

#define RT_SAMPLE_STOPS 8u
#define RT_SAMPLE_MOST_VOCAB (1u << 18)
#define RT_SAMPLE_BINS 640u /* 16 for each halving of the weight, 40 of them */
#define RT_SAMPLE_PIECE 2048u
#define RT_SAMPLE_PIECE_THREADS 256u
#define RT_SAMPLE_THREADS 1024u

/* How to sample a line: in device memory, read at every step. Zeros are greedy, stopping at id 0:
 * set unused stops to -1. */
struct rt_sample_line {
    float temperature, top_p; /* top_p 1 and more, NaN: all */
    int32_t top_k;            /* 0 and less: all */
    int32_t reserved;
    uint64_t seed;
    int32_t stop[RT_SAMPLE_STOPS]; /* negative: none */
    int32_t reserved_too[2];
};
RT_STATIC_ASSERT(sizeof(struct rt_sample_line) == 64, "sampling ABI");

static RT_HD inline uint32_t rt_sample_pieces(uint32_t vocab)
{
    return rt_ceil_div_u32(vocab, RT_SAMPLE_PIECE);
}

/* Strides in elements. Row and column rc = r * q_len + column. */
struct rt_sample_params {
    const float *logits; /* [rows.count, rows.q_len, vocab], at the replay's own rows */
    int64_t row_stride, token_stride;
    struct rt_rows_view rows;           /* length and position of every row; slot may be null */
    const int32_t *accept;              /* [rows.count], RT_ACCEPT_BY_DEVICE or a count; or null */
    const int32_t *tokens;              /* [row_base + rows.count, q_len] */
    int32_t *accepted, *sampled;        /* [row_base + rows.count] */
    const struct rt_sample_line *lines; /* [lines] */
    uint64_t *best;                     /* [rc, pieces], of columns that may be chosen in */
    uint64_t *sums;                     /* [rc, pieces] weights, of those that are drawn in */
    uint64_t *bin_weights; /* [rc, RT_SAMPLE_BINS], where top_k or top_p cuts; so too */
    uint32_t *bin_counts;  /* [rc, RT_SAMPLE_BINS], of what has a weight */
    float scale;
    uint32_t vocab;
};
#define RT_SAMPLE_PARAMS_ADDRESSES(type, at)                                                       \
    (RT_ADDRESS(type, at logits) | RT_ROWS_ADDRESSES(type, at rows) |                              \
     RT_ADDRESS(type, at accept) | RT_ADDRESS(type, at tokens) | RT_ADDRESS(type, at accepted) |   \
     RT_ADDRESS(type, at sampled) | RT_ADDRESS(type, at lines) | RT_ADDRESS(type, at best) |       \
     RT_ADDRESS(type, at sums) | RT_ADDRESS(type, at bin_weights) |                                \
     RT_ADDRESS(type, at bin_counts))
RT_STATIC_ASSERT(sizeof(struct rt_sample_params) == 144, "sample ABI");

#endif
