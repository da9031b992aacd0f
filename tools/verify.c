/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/verify.h"

#include "tools/verify_run.h"

#include <stdlib.h>
#include <string.h>

/* ---- one step on both sides ------------------------------------------------------------------ */

static struct shape shape_of(const struct run *run, uint32_t batch, uint32_t q, uint32_t live)
{
    const struct rt_config *c = &run->config;
    const uint32_t largest = c->batch_sizes[c->batch_size_count - 1];
    struct shape s = {.q = q, .given = live, .rows = batch, .live = live, .batch = batch};
    (void)snprintf(s.name, sizeof(s.name), "batch %u, query length %u, %u live", batch, q, live);
    if (!c->layer)
        return s;
    uint32_t bucket = 0;
    s.given = live < largest ? live : largest;
    s.rows = largest;
    s.live = live ? (live - 1) % largest + 1 : 0;
    while (c->batch_sizes[bucket] < s.live)
        bucket++;
    s.batch = c->batch_sizes[bucket];
    return s;
}

/* A step's rows, and what it says of each. */
struct batch {
    uint32_t *rows;   /* [live] of run.tracked */
    int32_t *accept;  /* [live] */
    uint32_t *counts; /* [live] tokens of each, some of them fewer than the others */
    int32_t *tokens;  /* [live, query_len] */
    rt_seq *seqs;     /* [live] of one side */
};

static enum rt_status launch(struct run *run, uint32_t live, uint32_t q, uint32_t flags,
                             const struct batch *b)
{
    for (int side = 0; side < SIDES; side++) {
        for (uint32_t i = 0; i < live; i++)
            b->seqs[i] = run->tracked[b->rows[i]].seqs[side];
        const struct rt_step_params p = {.struct_size = sizeof(p),
                                         .flags = flags | (side == EAGER ? RT_STEP_EAGER : 0),
                                         .rows = live,
                                         .query_len = q,
                                         .seqs = b->seqs,
                                         .tokens = b->tokens,
                                         .accept = b->accept,
                                         .query_lens = b->counts};
        uint64_t ticket;
        TRY(verify_check(run, side, rt_step(run->rts[side], &p, &ticket)));
        TRY(verify_check(run, side, rt_wait(run->rts[side], ticket, UINT64_MAX)));
    }
    return RT_OK;
}

/* With its own tokens, once they are appended. */
static uint32_t length_of(const struct run *run, const struct batch *b, uint32_t row)
{
    return run->tracked[b->rows[row]].length + b->counts[row];
}

/* Keys that the step's rows have. What blocks read of lists is the replay's rows', whichever those
 * are: they list what all rows have. */
static enum rt_status list_keys(struct run *run, const struct shape *s, uint32_t live,
                                const struct batch *b)
{
    if (!run->config.topk)
        return RT_OK;
    uint32_t least = UINT32_MAX;
    uint32_t *lengths = calloc((size_t)s->rows * s->q, sizeof(*lengths));
    if (!lengths)
        return verify_say(run->error, RT_ERR_NOMEM, "verify", "out of host memory");
    for (uint32_t i = 0; i < live; i++)
        least = length_of(run, b, i) < least ? length_of(run, b, i) : least;
    for (uint32_t i = 0; i < s->live * s->q; i++)
        lengths[i] = run->config.layer ? least : length_of(run, b, i / s->q);
    const enum rt_status status = verify_write_lists(run, lengths, s->rows * s->q);
    free(lengths);
    return status;
}

/* A run of steps with low < live <= high rows. batch 0: steps of several replays, whose rows end
 * with the live ones as far as this looks. */
struct share {
    uint32_t batch, q, low, high, steps;
    uint32_t flags;       /* RT_STEP_* of both sides */
    uint32_t most_blocks; /* of keys that the rows of a step have together; 0: any number */
};

static enum rt_status one_step(struct run *run, const struct share *share, uint32_t live,
                               const struct batch *b)
{
    const uint32_t q = share->q, batch = share->batch ? share->batch : live;
    TRY(verify_disturb(run, q));
    TRY(verify_choose_rows(run, live, q, b->rows));
    if (share->most_blocks)
        TRY(verify_shorten(run, b->rows, live, q, share->most_blocks / live));
    struct shape s = shape_of(run, batch, q, live);
    s.counts = b->counts + (live - s.live);
    /* What a replay of blocks leaves in columns that nobody has, the next is given as numbers. */
    const bool ragged = !run->config.layer || s.live == live;
    for (uint32_t i = 0; i < live; i++) {
        b->counts[i] = !ragged || verify_below(run, 4) ? q : 1 + verify_below(run, q);
        b->accept[i] =
            verify_below(run, 4) ? RT_ACCEPT_ALL : 1 + (int32_t)verify_below(run, b->counts[i]);
    }
    for (uint32_t i = 0; i < live * q; i++)
        b->tokens[i] = (int32_t)verify_below(run, INT32_MAX);
    TRY(list_keys(run, &s, live, b));
    TRY(verify_prepare(run, &s));
    TRY(launch(run, live, q, share->flags, b));
    for (uint32_t i = 0; i < live; i++)
        run->tracked[b->rows[i]].length += b->accept[i] ? (uint32_t)b->accept[i] : b->counts[i];
    TRY(verify_compare(run, "tokens", 0, (uint64_t)live * q * sizeof(*b->tokens), &s));
    TRY(verify_compare_data(run, &s));
    run->report->steps++;
    run->report->rows += live;
    run->report->padded_rows += batch - live;
    return RT_OK;
}

/* ---- all graphs ------------------------------------------------------------------------------ */

static enum rt_status one_share(struct run *run, const struct share *share, FILE *progress)
{
    const struct batch b = {
        .rows = calloc(share->high, sizeof(*b.rows)),
        .accept = calloc(share->high, sizeof(*b.accept)),
        .counts = calloc(share->high, sizeof(*b.counts)),
        .tokens = calloc((size_t)share->high * share->q, sizeof(*b.tokens)),
        .seqs = calloc(share->high, sizeof(*b.seqs)),
    };
    const bool made = b.rows && b.accept && b.counts && b.tokens && b.seqs;
    enum rt_status status = RT_OK;
    if (!made)
        status = verify_say(run->error, RT_ERR_NOMEM, "verify", "out of host memory");
    for (uint32_t i = 0; made && i < share->steps && status == RT_OK; i++) {
        uint32_t live = share->low + 1 + verify_below(run, share->high - share->low);
        status = one_step(run, share, live, &b);
    }
    if (status == RT_OK) {
        const struct shape s = shape_of(run, share->batch, share->q, 0);
        status = verify_compare_state(run, &s);
    }
    char tiles[64] = "";
    if (share->most_blocks)
        (void)snprintf(tiles, sizeof(tiles), " by small tiles, at most %u blocks",
                       share->most_blocks);
    if (status == RT_OK && progress && share->batch)
        fprintf(progress, "batch %4u  query length %u  %u steps%s  bitwise equal\n", share->batch,
                share->q, share->steps, tiles);
    if (status == RT_OK && progress && !share->batch)
        fprintf(progress, "several replays, query length %u  %u steps  bitwise equal\n", share->q,
                share->steps);
    free(b.seqs);
    free(b.tokens);
    free(b.counts);
    free(b.accept);
    free(b.rows);
    return status;
}

/* A step's graph of this size and limit of blocks. False: there is none. */
static bool find_graph(struct run *run, const struct share *share, uint32_t *index,
                       struct rt_bucket_stats *stats)
{
    for (*index = 0; rt_get_bucket_stats(run->rts[REPLAY], *index, stats) == RT_OK; ++*index)
        if (!stats->chunk && stats->batch == share->batch && stats->query_len == share->q &&
            stats->most_blocks == share->most_blocks)
            return true;
    return false;
}

/* The largest limit of a graph of this size that is below `limit`, or of all where that is 0; 0:
 * there is none. */
static uint32_t next_limit(struct run *run, const struct share *share, uint32_t limit)
{
    struct rt_bucket_stats s = {.struct_size = sizeof(s)};
    uint32_t best = 0;
    for (uint32_t i = 0; rt_get_bucket_stats(run->rts[REPLAY], i, &s) == RT_OK; i++)
        if (!s.chunk && s.batch == share->batch && s.query_len == share->q &&
            s.most_blocks > best && (limit == 0 || s.most_blocks < limit))
            best = s.most_blocks;
    return best;
}

/* A share of one graph: no other is replayed. */
static enum rt_status share_of_graph(struct run *run, const struct share *share, FILE *progress)
{
    struct rt_bucket_stats before = {.struct_size = sizeof(before)}, behind = before;
    uint32_t index;
    if (!find_graph(run, share, &index, &before))
        return verify_say(run->error, RT_ERR_INTERNAL, "verify", "a batch size has no graph");
    TRY(one_share(run, share, progress));
    for (int side = 0; side < SIDES; side++) {
        TRY(verify_check(run, side, rt_get_bucket_stats(run->rts[side], index, &behind)));
        if (behind.replays != before.replays + share->steps)
            return verify_say(run->error, RT_ERR_INTERNAL, "verify",
                              "another graph of the batch size was replayed");
    }
    run->report->graphs++;
    return RT_OK;
}

/* Of several graphs of a size the one for any lengths, then those by small tiles: that of the most
 * blocks, by its flag, and that of the fewest, which needs none. */
static enum rt_status graphs_of_size(struct run *run, struct share share, FILE *progress)
{
    uint32_t limit = next_limit(run, &share, 0);
    if (!limit)
        return share_of_graph(run, &share, progress);
    share.flags = RT_STEP_ANY_LENGTH;
    TRY(share_of_graph(run, &share, progress));
    while (limit) {
        const uint32_t below = next_limit(run, &share, limit);
        share.flags = below ? RT_STEP_MOST_BLOCKS : 0;
        share.most_blocks = limit;
        if (share.high > limit) /* a row has a block at least */
            share.high = limit;
        TRY(share_of_graph(run, &share, progress));
        limit = below;
    }
    return RT_OK;
}

/* Bucket `index`; index batch_size_count stands for batches above the largest. */
static enum rt_status one_graph(struct run *run, uint32_t index, uint32_t q,
                                const struct verify_options *options)
{
    const struct rt_config *c = &run->config;
    bool beyond = index == c->batch_size_count;
    uint32_t batch = beyond ? 0 : c->batch_sizes[index];
    uint32_t low = index ? c->batch_sizes[index - 1] : 0;
    /* a step has a replay for each record of the ring at most */
    uint32_t most = beyond ? low * c->ring_depth : batch;
    uint32_t high = most < c->max_sequences ? most : c->max_sequences;
    if (high <= low || q > run->longest)
        return RT_OK; /* no step of this runtime can have so many rows */
    const struct share share = {
        .batch = batch,
        .q = q,
        .low = low,
        .high = high,
        .steps = options->steps,
    };
    return beyond ? one_share(run, &share, options->progress)
                  : graphs_of_size(run, share, options->progress);
}

/* The user's configuration with a pool and lengths that make the run quick; steps alone. */
static void shrink(struct run *run)
{
    struct rt_config *c = &run->config;
    uint32_t q_max = c->query_lens[c->query_len_count - 1];
    uint32_t largest = c->batch_sizes[c->batch_size_count - 1];
    c->chunk_count = c->mixed_row_count = c->prefill_rows = c->context_piece = 0;
    run->longest = TEST_PAGES * verify_page_tokens(run);
    if (run->longest > c->max_length)
        run->longest = c->max_length;
    /* a few sequences more than rows, so that a step is always a choice */
    uint32_t sequences = largest + largest / 4 + 2;
    if (c->max_sequences > sequences)
        c->max_sequences = sequences;
    c->pages = (uint64_t)c->max_sequences * (TEST_PAGES + 1);
    verify_choose_layers(run, q_max * largest);
}

static enum rt_status verify_steps(const struct rt_config *config,
                                   const struct verify_options *options, struct verify_ranks *ranks,
                                   struct verify_report *report, struct rt_error *error)
{
    struct run run = {.config = *config,
                      .ranks = ranks,
                      .chance = chance_of(options->seed),
                      .report = report,
                      .error = error};
    shrink(&run);
    enum rt_status status = verify_set_up(&run, options->seed);
    for (uint32_t i = 0; i <= run.config.batch_size_count && status == RT_OK; i++)
        for (uint32_t j = 0; j < run.config.query_len_count && status == RT_OK; j++)
            status = one_graph(&run, i, run.config.query_lens[j], options);
    verify_tear_down(&run);
    return status;
}

enum rt_status verify_replay(const struct rt_config *config, const struct verify_options *options,
                             struct verify_report *report, struct rt_error *error)
{
    struct verify_ranks ranks;
    struct rt_config mine = *config;
    *report = (struct verify_report){0};
    enum rt_status status = verify_ranks_meet(&ranks, options, &mine, error);
    if (status == RT_OK)
        status = verify_steps(&mine, options, &ranks, report, error);
    if (status == RT_OK && mine.chunk_count)
        status = verify_chunks(&mine, options, &ranks, report, error);
    return verify_ranks_part(&ranks, status, report, error);
}
