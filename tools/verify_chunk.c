/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks of prompts: every graph of the configuration is made to serve some of them, with tokens,
 * rows beside them and cached context between what a smaller graph holds and what it holds itself.
 */
#include "tools/verify_run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Draws of a chunk's numbers until they fit. */
#define MOST_DRAWS 1000
#define LEAST_PIECE 64

/* A captured graph, and what is too much for the next smaller one. */
struct graph {
    uint32_t index;                         /* of the statistics */
    uint32_t chunk, rows, context, prompts; /* that it holds: prompts are sequences */
    uint32_t q;                             /* tokens of a row that decodes, at most */
    uint32_t below_chunk, below_rows;       /* 0: there is none */
    int64_t below_context;                  /* -1: there is none */
    bool expanded;
};

/* One chunk: sequences of prompts are those of run.tracked from `first` on, rows' the last ones. */
struct chunk {
    uint32_t first;
    uint32_t prompts, tokens, rows, q, context;
    uint32_t past[RT_MAX_PREFILL_ROWS], count[RT_MAX_PREFILL_ROWS];
};

struct chunk_run {
    struct run run;
    uint32_t most;    /* tokens of a sequence */
    uint32_t largest; /* chunk */
    struct chunk chunk;
    int32_t *tokens; /* [largest] */
    /* Of rows that decode, [max_sequences]: of one side, how many tokens each has, of which some
     * may not stay, and the tokens, of the longest query length. */
    rt_seq *seqs;
    uint32_t *counts;
    int32_t *accept, *row_tokens;
};

/* ---- set-up ---------------------------------------------------------------------------------- */

/* Pieces of the longest context in the user's graphs; 0: none is expanded. */
static enum rt_status count_pieces(const struct rt_config *config, uint32_t *pieces,
                                   struct rt_error *error)
{
    rt_plan *plan = NULL;
    struct rt_plan_graph g = {.struct_size = sizeof(g)};
    uint32_t least = 0, most = 0;
    TRY(rt_plan_create(config, NULL, &plan, error));
    for (uint32_t i = 0; rt_plan_graph(plan, i, &g) == RT_OK; i++) {
        if (g.context_tokens && (!least || g.context_tokens < least))
            least = g.context_tokens;
        if (g.context_tokens > most)
            most = g.context_tokens;
    }
    rt_plan_destroy(&plan);
    *pieces = least ? most / least : 0;
    return RT_OK;
}

static uint32_t longest_query(const struct rt_config *c)
{
    return c->query_lens[c->query_len_count - 1];
}

/* As many pieces as the user's, but small ones; few sequences, of which one can fill them all. */
static void shrink(struct chunk_run *r, uint32_t pieces)
{
    struct rt_config *c = &r->run.config;
    const uint32_t beside = c->mixed_row_count ? c->mixed_rows[c->mixed_row_count - 1] : 0;
    const uint32_t piece = r->largest > LEAST_PIECE ? r->largest : LEAST_PIECE;
    const uint32_t page = verify_page_tokens(&r->run);
    const uint32_t longest = pieces * piece + r->largest + TEST_PAGES * page;
    uint32_t sequences = (c->prefill_rows ? c->prefill_rows : RT_PREFILL_ROWS) + beside + 2;
    c->batch_size_count = 1;
    if (sequences < c->max_sequences)
        c->max_sequences = sequences;
    if (longest < c->max_length) {
        c->max_length = longest;
        c->context_piece = pieces ? (longest + pieces - 1) / pieces : 0;
    }
    r->most = c->max_length;
    r->run.longest = TEST_PAGES * page < r->most ? TEST_PAGES * page : r->most;
    c->pages = (uint64_t)c->max_sequences * (TEST_PAGES + 2) +
               ((uint64_t)r->most + c->context_piece + r->largest) / page;
    verify_choose_layers(&r->run, r->largest + beside * longest_query(c));
}

static enum rt_status set_up(struct chunk_run *r, uint64_t seed)
{
    struct rt_config *c = &r->run.config;
    uint32_t pieces = 0;
    r->largest = c->chunks[c->chunk_count - 1];
    TRY(count_pieces(c, &pieces, r->run.error));
    shrink(r, pieces);
    TRY(verify_set_up(&r->run, seed));
    r->tokens = calloc(r->largest, sizeof(*r->tokens));
    r->seqs = calloc(c->max_sequences, sizeof(*r->seqs));
    r->counts = calloc(c->max_sequences, sizeof(*r->counts));
    r->accept = calloc(c->max_sequences, sizeof(*r->accept));
    r->row_tokens = calloc((size_t)c->max_sequences * longest_query(c), sizeof(*r->row_tokens));
    if (!r->tokens || !r->seqs || !r->counts || !r->accept || !r->row_tokens)
        return verify_say(r->run.error, RT_ERR_NOMEM, "verify", "out of host memory");
    return RT_OK;
}

static void tear_down(struct chunk_run *r)
{
    free(r->row_tokens);
    free(r->accept);
    free(r->counts);
    free(r->seqs);
    free(r->tokens);
    verify_tear_down(&r->run);
}

/* ---- what a chunk is ------------------------------------------------------------------------- */

/* Above `below`, at most `most`. */
static uint32_t between(struct run *run, uint32_t below, uint32_t most)
{
    return below + 1 + verify_below(run, most - below);
}

/* Shares `total` out: at most room[i] each, 0 the least. What is left over is returned. */
static uint32_t share_out(struct run *run, uint32_t total, uint32_t count, const uint32_t *room,
                          uint32_t *out)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t most = total < room[i] ? total : room[i];
        out[i] = i + 1 == count ? most : verify_below(run, most + 1);
        total -= out[i];
    }
    return total;
}

/* Every prompt has a token at least, and no sequence more than it may. */
static bool fill(struct chunk_run *r, struct chunk *c)
{
    uint32_t room[RT_MAX_PREFILL_ROWS];
    for (uint32_t i = 0; i < c->prompts; i++)
        room[i] = r->most - 1;
    if (share_out(&r->run, c->tokens - c->prompts, c->prompts, room, c->count))
        return false;
    for (uint32_t i = 0; i < c->prompts; i++) {
        c->count[i]++;
        room[i] = r->most - c->count[i];
    }
    return share_out(&r->run, c->context, c->prompts, room, c->past) == 0;
}

/* False: no chunk of this runtime is this graph's, as far as drawing tells. */
static bool draw(struct chunk_run *r, const struct graph *g)
{
    struct run *run = &r->run;
    struct chunk *c = &r->chunk;
    const uint32_t sequences = run->config.max_sequences;
    const uint32_t most_rows = g->rows < sequences ? g->rows : sequences - 1;
    if (g->rows && most_rows <= g->below_rows)
        return false;
    for (uint32_t i = 0; i < MOST_DRAWS; i++) {
        c->q = g->q;
        c->tokens = between(run, g->below_chunk, g->chunk);
        c->rows = g->rows ? between(run, g->below_rows, most_rows) : 0;
        uint32_t prompts = g->prompts < c->tokens ? g->prompts : c->tokens;
        if (prompts > sequences - c->rows)
            prompts = sequences - c->rows;
        c->prompts = between(run, 0, prompts);
        c->context = !g->expanded ? verify_below(run, run->longest + 1)
                     : g->context ? between(run, (uint32_t)g->below_context, g->context)
                                  : 0;
        if (fill(r, c))
            return true;
    }
    return false;
}

/* ---- one launch on both sides ---------------------------------------------------------------- */

static void fill_tokens(struct run *run, int32_t *tokens, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (int32_t)verify_below(run, INT32_MAX);
}

static struct tracked *row_at(const struct chunk_run *r, uint32_t i)
{
    return &r->run.tracked[r->run.config.max_sequences - 1 - i];
}

/* By rt_prefill, which takes the same graph for prompts alone, or as a mixed step. */
static enum rt_status put_in(struct chunk_run *r, const struct chunk *c, int side, bool prefill)
{
    rt_runtime *rt = r->run.rts[side];
    struct rt_prompt prompts[RT_MAX_PREFILL_ROWS];
    const int32_t *tokens = r->tokens;
    const uint32_t flags = side == EAGER ? RT_STEP_EAGER : 0;
    uint64_t ticket = 0;
    for (uint32_t i = 0; i < c->prompts; tokens += c->count[i++])
        prompts[i] = (struct rt_prompt){
            .seq = r->run.tracked[c->first + i].seqs[side], .tokens = tokens, .count = c->count[i]};
    for (uint32_t i = 0; i < c->rows; i++)
        r->seqs[i] = row_at(r, i)->seqs[side];
    const struct rt_prefill_params alone = {.struct_size = sizeof(alone),
                                            .flags = flags,
                                            .prompts = prompts,
                                            .prompt_count = c->prompts};
    const struct rt_step_params mixed = {.struct_size = sizeof(mixed),
                                         .flags = flags,
                                         .rows = c->rows,
                                         .query_len = c->q,
                                         .seqs = r->seqs,
                                         .tokens = r->row_tokens,
                                         .accept = r->accept,
                                         .query_lens = r->counts,
                                         .prompts = prompts,
                                         .prompt_count = c->prompts};
    TRY(verify_check(&r->run, side,
                     prefill ? rt_prefill(rt, &alone, &ticket) : rt_step(rt, &mixed, &ticket)));
    return verify_check(&r->run, side, rt_wait(rt, ticket, UINT64_MAX));
}

/* Keys that the chunk's tokens may list: of prompts those of all of the prompt, for the lists are
 * what says who sees whom. */
static enum rt_status list_keys(struct chunk_run *r, const struct chunk *c, const struct shape *s)
{
    if (!r->run.config.topk)
        return RT_OK;
    uint32_t *lengths = calloc(s->rows, sizeof(*lengths)), token = 0;
    if (!lengths)
        return verify_say(r->run.error, RT_ERR_NOMEM, "verify", "out of host memory");
    for (uint32_t i = 0; i < c->prompts; i++)
        for (uint32_t t = 0; t < c->count[i]; t++)
            lengths[token++] = r->run.tracked[c->first + i].length + c->count[i];
    token = s->rows - s->rows_batch * s->rows_q;
    for (uint32_t i = 0; i < c->rows * c->q; i++)
        lengths[token++] = row_at(r, i / c->q)->length + r->counts[i / c->q];
    const enum rt_status status = verify_write_lists(&r->run, lengths, s->rows);
    free(lengths);
    return status;
}

static enum rt_status launch(struct chunk_run *r, const struct chunk *c, const struct shape *s)
{
    const bool prefill = c->rows == 0 && verify_below(&r->run, 2);
    fill_tokens(&r->run, r->tokens, c->tokens);
    fill_tokens(&r->run, r->row_tokens, c->rows * c->q);
    TRY(list_keys(r, c, s));
    TRY(verify_prepare(&r->run, s));
    for (int side = 0; side < SIDES; side++)
        TRY(put_in(r, c, side, prefill));
    for (uint32_t i = 0; i < c->prompts; i++)
        r->run.tracked[c->first + i].length += c->count[i];
    for (uint32_t i = 0; i < c->rows; i++)
        row_at(r, i)->length += r->accept[i] ? (uint32_t)r->accept[i] : r->counts[i];
    return RT_OK;
}

/* ---- the history ----------------------------------------------------------------------------- */

static enum rt_status open_and_shorten(struct run *run, struct tracked *t, uint32_t most)
{
    if (!t->open)
        return verify_open(run, t);
    return t->length > most ? verify_rewind(run, t, most) : RT_OK;
}

/* Feeds a sequence that much, by whatever graph holds it, without a look at what comes. */
static enum rt_status feed(struct chunk_run *r, uint32_t sequence, uint32_t tokens)
{
    const struct chunk c = {
        .first = sequence, .prompts = 1, .tokens = tokens, .q = 1, .count = {tokens}};
    const struct shape s = {.q = 1, .given = r->largest, .rows = r->largest};
    return launch(r, &c, &s);
}

/* Sequence i gets the past that its prompt is to have; others have few pages, so that the pool is
 * enough for the longest. */
static enum rt_status bring_pasts(struct chunk_run *r)
{
    struct run *run = &r->run;
    const struct chunk *c = &r->chunk;
    for (uint32_t i = 0; i < c->prompts; i++)
        TRY(open_and_shorten(run, &run->tracked[i], c->past[i]));
    for (uint32_t i = c->prompts; i < run->config.max_sequences; i++)
        if (run->tracked[i].open)
            TRY(open_and_shorten(run, &run->tracked[i], run->longest - 1));
    for (uint32_t i = 0; i < c->rows; i++)
        TRY(open_and_shorten(run, row_at(r, i), run->longest - c->q));
    for (uint32_t i = 0; i < c->prompts; i++)
        while (run->tracked[i].length < c->past[i]) {
            const uint32_t left = c->past[i] - run->tracked[i].length;
            TRY(feed(r, i, left < r->largest ? left : r->largest));
        }
    return RT_OK;
}

/* ---- one graph ------------------------------------------------------------------------------- */

static struct shape shape_of(const struct chunk_run *r, const struct graph *g)
{
    const struct chunk *c = &r->chunk;
    struct shape s = {.q = 1,
                      .given = c->tokens,
                      .rows = g->chunk + g->rows * g->q,
                      .live = c->tokens,
                      .batch = g->chunk,
                      .rows_live = c->rows,
                      .rows_batch = g->rows,
                      .rows_q = g->q,
                      .rows_counts = r->counts,
                      .expanded = g->expanded};
    (void)snprintf(s.name, sizeof(s.name),
                   "chunk %u beside %u x %u with context %u, %u tokens, %u rows, %u cached",
                   g->chunk, g->rows, g->q, g->context, c->tokens, c->rows, c->context);
    return s;
}

/* Of both sides. */
static enum rt_status replays_of(struct chunk_run *r, const struct graph *g, uint64_t *out)
{
    struct rt_bucket_stats stats = {.struct_size = sizeof(stats)};
    *out = 0;
    for (int side = 0; side < SIDES; side++) {
        rt_runtime *rt = r->run.rts[side];
        TRY(verify_check(&r->run, side, rt_get_bucket_stats(rt, g->index, &stats)));
        *out += stats.replays;
    }
    return RT_OK;
}

static enum rt_status compare(struct chunk_run *r, const struct graph *g, const struct shape *s)
{
    static const char *const of_tokens[] = {"chunk_tokens", "token_slots", "token_positions",
                                            "token_lengths"};
    struct run *run = &r->run;
    const uint64_t rows = g->prompts + g->rows, live = r->chunk.prompts + r->chunk.rows;
    for (size_t i = 0; i < sizeof(of_tokens) / sizeof(of_tokens[0]); i++)
        TRY(verify_compare(run, of_tokens[i], 0, s->rows * sizeof(int32_t), s));
    TRY(verify_compare(run, "row_last", 0, rows * g->q * sizeof(int32_t), s));
    TRY(verify_compare(run, "tokens", 0, live * g->q * sizeof(int32_t), s));
    return verify_compare_data(run, s);
}

/* How many tokens each row has, and how many stay: mostly all. */
static void choose_counts(struct chunk_run *r)
{
    struct run *run = &r->run;
    for (uint32_t i = 0; i < r->chunk.rows; i++) {
        r->counts[i] = verify_below(run, 4) ? 1 + verify_below(run, r->chunk.q) : r->chunk.q;
        r->accept[i] =
            verify_below(run, 4) ? RT_ACCEPT_ALL : 1 + (int32_t)verify_below(run, r->counts[i]);
    }
}

static enum rt_status one_chunk(struct chunk_run *r, const struct graph *g)
{
    const struct shape s = shape_of(r, g);
    struct verify_report *report = r->run.report;
    uint64_t before = 0, behind = 0;
    TRY(bring_pasts(r));
    choose_counts(r);
    TRY(replays_of(r, g, &before));
    TRY(launch(r, &r->chunk, &s));
    TRY(replays_of(r, g, &behind));
    if (behind != before + SIDES)
        return verify_say(r->run.error, RT_ERR_INTERNAL, "another graph was replayed", s.name);
    TRY(compare(r, g, &s));
    report->steps++;
    report->rows += r->chunk.prompts + r->chunk.rows;
    report->padded_rows += g->prompts + g->rows - r->chunk.prompts - r->chunk.rows;
    return RT_OK;
}

static enum rt_status one_graph(struct chunk_run *r, const struct graph *g,
                                const struct verify_options *options)
{
    uint32_t done = 0;
    for (; done < options->steps; done++) {
        TRY(verify_disturb(&r->run, g->q));
        if (!draw(r, g))
            break;
        TRY(one_chunk(r, g));
    }
    const struct shape s = {.name = "behind a chunk's share"};
    TRY(verify_compare_state(&r->run, &s));
    r->run.report->graphs += done > 0;
    if (options->progress)
        fprintf(options->progress, "chunk %5u  beside %4u x %u  context %5u  %u steps  %s\n",
                g->chunk, g->rows, g->q, g->context, done,
                done ? "bitwise equal" : "no sequences of this runtime come to it");
    return RT_OK;
}

/* ---- all graphs ------------------------------------------------------------------------------ */

/* Of the numbers the largest that is smaller than `value`; 0: none is. */
static uint32_t next_below(const uint32_t *numbers, uint32_t count, uint32_t value)
{
    uint32_t below = 0;
    for (uint32_t i = 0; i < count && numbers[i] < value; i++)
        below = numbers[i];
    return below;
}

/* Those of a chunk that is expanded come with more and more context. */
static struct graph graph_of(const struct chunk_run *r, const struct rt_bucket_stats *stats,
                             uint32_t index, const struct graph *last)
{
    const struct rt_config *c = &r->run.config;
    const bool same = last->chunk == stats->chunk && last->rows == stats->decode_rows &&
                      last->q == stats->query_len;
    struct graph g = {.index = index,
                      .chunk = stats->chunk,
                      .rows = stats->decode_rows,
                      .q = stats->query_len,
                      .context = stats->context_tokens,
                      .prompts = stats->batch - stats->decode_rows,
                      .below_chunk = next_below(c->chunks, c->chunk_count, stats->chunk),
                      .below_rows =
                          next_below(c->mixed_rows, c->mixed_row_count, stats->decode_rows),
                      .below_context = same ? (int64_t)last->context : -1};
    struct rt_bucket_stats next = {.struct_size = sizeof(next)};
    g.expanded = stats->context_tokens > 0 ||
                 (rt_get_bucket_stats(r->run.rts[REPLAY], index + 1, &next) == RT_OK &&
                  next.chunk == g.chunk && next.context_tokens > 0);
    return g;
}

static enum rt_status all_graphs(struct chunk_run *r, const struct verify_options *options)
{
    struct rt_bucket_stats stats = {.struct_size = sizeof(stats)};
    struct graph g = {.chunk = 0};
    for (uint32_t i = 0; rt_get_bucket_stats(r->run.rts[REPLAY], i, &stats) == RT_OK; i++) {
        if (!stats.chunk)
            continue;
        g = graph_of(r, &stats, i, &g);
        TRY(one_graph(r, &g, options));
    }
    return RT_OK;
}

enum rt_status verify_chunks(const struct rt_config *config, const struct verify_options *options,
                             struct verify_ranks *ranks, struct verify_report *report,
                             struct rt_error *error)
{
    struct chunk_run r = {.run = {.config = *config,
                                  .ranks = ranks,
                                  .chance = chance_of(options->seed),
                                  .report = report,
                                  .error = error}};
    enum rt_status status = set_up(&r, options->seed);
    if (status == RT_OK)
        status = all_graphs(&r, options);
    tear_down(&r);
    return status;
}
