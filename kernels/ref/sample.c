/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/sample_number.h"
#include "kernels/ref/ref.h"

/* A column's logits and how they are weighed. */
struct column {
    const float *logits;
    float scale, top, factor;
    uint32_t vocab;
    uint64_t best; /* key */
};

static uint64_t key_of(const struct column *c, uint32_t id)
{
    return rt_sample_key(rt_sample_scaled(c->logits[id], c->scale), id);
}

static uint32_t distance_of(const struct column *c, uint64_t key)
{
    return rt_sample_distance(rt_sample_x(key), c->top, c->factor);
}

static uint64_t weight_of(const struct column *c, uint64_t key)
{
    return rt_sample_weight(distance_of(c, key));
}

/* Of ids first .. end - 1. */
static uint64_t best_of(const struct column *c, uint32_t first, uint32_t end)
{
    uint64_t best = 0;
    for (uint32_t id = first; id < end; id++) {
        const uint64_t key = key_of(c, id);
        best = key > best ? key : best;
    }
    return best;
}

static struct column column_of(const struct rt_sample_params *p, uint32_t row, uint32_t column)
{
    struct column c = {.logits = p->logits + row * p->row_stride + column * p->token_stride,
                       .scale = p->scale,
                       .factor = rt_sample_factor(rt_sample_line(p, row)->temperature),
                       .vocab = p->vocab};
    c.best = best_of(&c, 0, c.vocab);
    c.top = rt_sample_x(c.best);
    return c;
}

/* Runs `piece` for every piece of every column that is wanted, with the column's number. */
static void for_pieces(const struct rt_sample_params *p,
                       void (*piece)(const struct rt_sample_params *p, const struct column *c,
                                     uint32_t row, uint32_t rc, uint32_t number))
{
    for (uint32_t rc = 0; rc < p->rows.count * p->rows.q_len; rc++) {
        const uint32_t row = rc / p->rows.q_len, column = rc % p->rows.q_len;
        if (!rt_sample_wants(p, row, column))
            continue;
        const struct column c = column_of(p, row, column);
        for (uint32_t i = 0; i < rt_sample_pieces(p->vocab); i++)
            piece(p, &c, row, rc, i);
    }
}

static uint32_t piece_end(const struct rt_sample_params *p, uint32_t number)
{
    return rt_min_u32(p->vocab, (number + 1) * RT_SAMPLE_PIECE);
}

static void best_piece(const struct rt_sample_params *p, const struct column *c, uint32_t row,
                       uint32_t rc, uint32_t number)
{
    (void)row;
    p->best[(uint64_t)rc * rt_sample_pieces(p->vocab) + number] =
        best_of(c, number * RT_SAMPLE_PIECE, piece_end(p, number));
}

void rt_ref_sample_best(const void *params)
{
    for_pieces(params, best_piece);
}

/* The first piece clears the bins. */
static void tally_piece(const struct rt_sample_params *p, const struct column *c, uint32_t row,
                        uint32_t rc, uint32_t number)
{
    const struct rt_sample_line *s = rt_sample_line(p, row);
    if (!rt_sample_draws(s))
        return;
    uint64_t *weights = p->bin_weights + (uint64_t)rc * RT_SAMPLE_BINS, sum = 0;
    uint32_t *counts = p->bin_counts + (uint64_t)rc * RT_SAMPLE_BINS;
    for (uint32_t i = 0; i < RT_SAMPLE_BINS && number == 0 && rt_sample_cuts(s); i++)
        weights[i] = counts[i] = 0;
    for (uint32_t id = number * RT_SAMPLE_PIECE; id < piece_end(p, number); id++) {
        const uint32_t distance = distance_of(c, key_of(c, id));
        const uint64_t weight = rt_sample_weight(distance);
        sum += weight;
        if (!weight || !rt_sample_cuts(s))
            continue;
        weights[distance >> RT_SAMPLE_BIN_SHIFT] += weight;
        counts[distance >> RT_SAMPLE_BIN_SHIFT]++;
    }
    p->sums[(uint64_t)rc * rt_sample_pieces(p->vocab) + number] = sum;
}

void rt_ref_sample_tally(const void *params)
{
    for_pieces(params, tally_piece);
}

/* ---- the choice, from the logits alone ------------------------------------------------------- */

/* Of what is `least` or before it in order: how many have a weight, or their sum. */
static uint64_t reach(const struct column *c, uint64_t least, bool by_weight)
{
    uint64_t sum = 0;
    for (uint32_t id = 0; id < c->vocab; id++) {
        const uint64_t key = key_of(c, id);
        const uint64_t weight = key >= least ? weight_of(c, key) : 0;
        sum += by_weight ? weight : weight > 0;
    }
    return sum;
}

/* The last that is needed to reach `limit`, which all together do. */
static uint64_t cut(const struct column *c, uint64_t limit, bool by_weight)
{
    uint64_t least = 0;
    for (uint64_t bit = UINT64_C(1) << (RT_SAMPLE_KEY_BITS - 1); bit > 0; bit >>= 1)
        if (reach(c, least | bit, by_weight) >= limit)
            least |= bit;
    return least;
}

static int32_t draw(const struct column *c, uint64_t least, uint64_t target)
{
    uint64_t sum = 0;
    for (uint32_t id = 0;; id++) {
        const uint64_t key = key_of(c, id);
        sum += key >= least ? weight_of(c, key) : 0;
        if (sum > target)
            return (int32_t)id;
    }
}

static int32_t choose(const struct rt_sample_params *p, uint32_t row, uint32_t column)
{
    const struct rt_sample_line *s = rt_sample_line(p, row);
    const struct column c = column_of(p, row, column);
    const bool all_nan = c.top != c.top;
    if (!rt_sample_draws(s) || all_nan)
        return (int32_t)rt_sample_id(c.best);
    uint64_t least = 0;
    if (s->top_k > 0 && (uint64_t)s->top_k < reach(&c, 0, false))
        least = cut(&c, (uint64_t)s->top_k, false);
    if (s->top_p < 1.0f)
        least = cut(&c, rt_sample_need(s->top_p, reach(&c, least, true)), true);
    const uint32_t position = (uint32_t)p->rows.position[row] + column;
    const uint64_t random = rt_sample_random(s->seed, position);
    return draw(&c, least, rt_sample_high64(random, reach(&c, least, true)));
}

static void sample_row(const struct rt_sample_params *p, uint32_t row)
{
    const struct rt_sample_line *s = rt_sample_line(p, row);
    const size_t data_row = rt_row_base(&p->rows) + (size_t)row;
    const int32_t *tokens = p->tokens + data_row * p->rows.q_len;
    const int32_t accept = rt_sample_accept(p, row);
    if (accept != RT_ACCEPT_BY_DEVICE) {
        p->sampled[data_row] = choose(p, row, (uint32_t)accept - 1);
        return;
    }
    uint32_t column = 0;
    int32_t sampled = tokens[0];
    const bool stopped = rt_sample_stops(s, sampled);
    if (!stopped)
        sampled = choose(p, row, 0);
    while (!stopped && column + 1 < p->rows.q_len && tokens[column + 1] == sampled &&
           !rt_sample_stops(s, sampled))
        sampled = choose(p, row, ++column);
    p->sampled[data_row] = sampled;
    p->accepted[data_row] = stopped ? 0 : (int32_t)column + 1;
}

void rt_ref_sample(const void *params)
{
    const struct rt_sample_params *p = params;
    for (uint32_t row = 0; row < p->rows.count; row++)
        if (rt_sample_is_live(p, row))
            sample_row(p, row);
}
