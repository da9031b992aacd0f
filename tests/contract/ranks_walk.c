/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random walk of ranks on the host device, beside one rank with all heads: sequences that open,
 * close, fork and rewind, rows of any number of tokens of which some stay, prompts in chunks alone
 * and beside rows, all keys or listed ones. After every call each row's last token is the same.
 *
 * usage: contract_ranks_walk CALLS [SEED]
 */
#include "common/check.h"
#include "tests/support/fixture.h"
#include "tests/support/rank_tokens.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CALLS 200u
#define SEQUENCES 6u
#define LONGEST 120u
#define QUERY 3u /* tokens of a row, at most */
#define CHUNK 24u
#define PASTS 120u /* cached tokens that a chunk's prompts may have together */
#define PROMPT 40u
#define PROMPTS 3u
#define TOPK 20
#define BOUND 1e-5 /* of a row's distance, relative to its length */

static uint32_t calls = 60;
static uint64_t first_seed = 5;

/* What each call has left of the sequences in it, by their slot; [RANKS_MOST]: of one rank. */
static struct trace {
    float last[CALLS][SEQUENCES][RANKS_HIDDEN];
    bool is_there[CALLS][SEQUENCES];
} traces[RANKS_MOST + 1];

static struct trace *trace_of(const struct rank_seat *seat)
{
    return &traces[seat->ranks ? seat->rank : RANKS_MOST];
}

/* ---- stages ---------------------------------------------------------------------------------- */

static int keep(void *user, const struct rt_stage_context *c)
{
    struct rank_seat *const seat = user;
    struct trace *const t = trace_of(seat);
    const int32_t *slots = fixture_address(c->runtime, "slots", 0);
    for (uint32_t row = 0; row < c->batch; row++) {
        const float *const last = rank_tokens_last(c, row);
        if (!last)
            continue;
        memcpy(t->last[seat->step][slots[row]], last, sizeof(t->last[0][0]));
        t->is_there[seat->step][slots[row]] = true;
    }
    return 0;
}

/* Any of a token's keys, some twice and some none; padding lists what must not be looked at. */
static int indexer(void *user, const struct rt_stage_context *c)
{
    const int32_t *positions =
        fixture_address(c->runtime, c->chunk ? "token_positions" : "positions", 0);
    int32_t *entries = fixture_address(c->runtime, "sparse_indices", 0);
    int32_t *counts = fixture_address(c->runtime, "sparse_counts", 0);
    (void)user;
    for (uint32_t j = 0; j < c->tokens; j++, entries += TOPK) {
        const int32_t position =
            c->chunk ? positions[j] : positions[j / c->query_len] + (int32_t)(j % c->query_len);
        uint64_t state = 1 + (uint64_t)c->layer * 4096 + (uint64_t)(uint32_t)position;
        counts[j] = (int32_t)(fixture_random(&state) % (TOPK + 2));
        for (int32_t i = 0; i < TOPK; i++)
            entries[i] =
                position < 0 ? 0 : (int32_t)(fixture_random(&state) % (uint32_t)(position + 3)) - 2;
    }
    return 0;
}

static void set_stages(struct rank_seat *seat, struct rt_create_params *p)
{
    memset(p->stages, 0, sizeof(p->stages));
    p->stages[RT_STAGE_STEP_BEGIN] = rank_tokens_embed;
    p->stages[RT_STAGE_STEP_END] = keep;
    if (seat->bench->blocks.config.topk)
        p->stages[RT_STAGE_INDEXER] = indexer;
}

/* ---- the walk -------------------------------------------------------------------------------- */

struct walk {
    struct rank_seat *seat;
    uint32_t flags;
    uint64_t chance;
    rt_seq seqs[SEQUENCES];
    uint32_t lengths[SEQUENCES];
    bool open[SEQUENCES];
};

static uint32_t below(struct walk *w, uint32_t bound)
{
    return (uint32_t)(fixture_random(&w->chance) % bound);
}

static enum rt_status close_one(struct walk *w, uint32_t i)
{
    if (!w->open[i])
        return RT_OK;
    w->open[i] = false;
    return rank_told(w->seat, rt_seq_close(w->seat->rt, w->seqs[i]));
}

/* Open, with room for so many tokens more. */
static enum rt_status ready(struct walk *w, uint32_t i, uint32_t tokens)
{
    if (w->lengths[i] + tokens > LONGEST)
        RT_TRY(close_one(w, i));
    if (w->open[i])
        return RT_OK;
    w->open[i] = true;
    w->lengths[i] = 0;
    return rank_told(w->seat, rt_seq_open(w->seat->rt, NULL, &w->seqs[i]));
}

static enum rt_status fork_one(struct walk *w, uint32_t from, uint32_t to)
{
    if (!w->open[from] || from == to)
        return RT_OK;
    RT_TRY(close_one(w, to));
    w->open[to] = true;
    w->lengths[to] = w->lengths[from];
    return rank_told(w->seat, rt_seq_fork(w->seat->rt, w->seqs[from], &w->seqs[to]));
}

static enum rt_status rewind_one(struct walk *w, uint32_t i)
{
    if (!w->open[i])
        return RT_OK;
    w->lengths[i] = below(w, w->lengths[i] + 1);
    return rank_told(w->seat, rt_seq_rewind(w->seat->rt, w->seqs[i], w->lengths[i]));
}

/* What a call has of rows and prompts. */
struct load {
    struct rt_prompt prompts[PROMPTS];
    int32_t ids[PROMPTS][PROMPT];
    rt_seq seqs[SEQUENCES];
    uint32_t counts[SEQUENCES], rows, prompt_count, query_len;
    int32_t accept[SEQUENCES], tokens[SEQUENCES * QUERY];
};

/* Beside rows all prompts of a call, and their pasts, are of one chunk. */
static enum rt_status draw_prompts(struct walk *w, struct load *l, uint32_t first)
{
    const uint32_t most = l->rows ? CHUNK / PROMPTS : PROMPT;
    for (uint32_t i = 0; i < l->prompt_count; i++) {
        const uint32_t at = (first + i) % SEQUENCES, count = 1 + below(w, most);
        RT_TRY(ready(w, at, l->rows ? LONGEST - PASTS / PROMPTS : count));
        for (uint32_t k = 0; k < count; k++)
            l->ids[i][k] = (int32_t)below(w, 1000);
        l->prompts[i] = (struct rt_prompt){.seq = w->seqs[at], .tokens = l->ids[i], .count = count};
        w->lengths[at] += count;
    }
    return RT_OK;
}

static enum rt_status draw_rows(struct walk *w, struct load *l, uint32_t first)
{
    for (uint32_t i = 0; i < l->rows; i++) {
        const uint32_t at = (first + i) % SEQUENCES;
        RT_TRY(ready(w, at, l->query_len));
        l->seqs[i] = w->seqs[at];
        l->counts[i] = 1 + below(w, l->query_len);
        l->accept[i] = below(w, 3) ? RT_ACCEPT_ALL : 1 + (int32_t)below(w, l->counts[i]);
        w->lengths[at] += l->accept[i] ? (uint32_t)l->accept[i] : l->counts[i];
    }
    for (uint32_t k = 0; k < l->rows * l->query_len; k++)
        l->tokens[k] = (int32_t)below(w, 1000);
    return RT_OK;
}

/* Rows alone, prompts alone, or both. */
static enum rt_status call(struct walk *w, uint32_t rows, uint32_t prompts)
{
    struct load l = {.rows = rows, .prompt_count = prompts, .query_len = below(w, 2) ? 1 : QUERY};
    const uint32_t first = below(w, SEQUENCES);
    rt_runtime *const rt = w->seat->rt;
    uint64_t ticket = 0;
    RT_TRY(draw_prompts(w, &l, first));
    RT_TRY(draw_rows(w, &l, first + prompts));
    const struct rt_step_params step = {.struct_size = sizeof(step),
                                        .flags = w->flags,
                                        .rows = rows,
                                        .query_len = l.query_len,
                                        .seqs = l.seqs,
                                        .tokens = l.tokens,
                                        .accept = l.accept,
                                        .query_lens = l.counts,
                                        .prompts = prompts ? l.prompts : NULL,
                                        .prompt_count = prompts};
    const struct rt_prefill_params alone = {.struct_size = sizeof(alone),
                                            .flags = w->flags,
                                            .prompts = l.prompts,
                                            .prompt_count = prompts};
    RT_TRY(
        rank_told(w->seat, rows ? rt_step(rt, &step, &ticket) : rt_prefill(rt, &alone, &ticket)));
    RT_TRY(rank_told(w->seat, rt_wait(rt, ticket, UINT64_MAX)));
    w->seat->step++;
    return RT_OK;
}

static enum rt_status turn(struct walk *w)
{
    const uint32_t i = below(w, SEQUENCES), other = below(w, SEQUENCES);
    switch (below(w, 12)) {
    case 0:
        return close_one(w, i);
    case 1:
        return fork_one(w, i, other);
    case 2:
        return rewind_one(w, i);
    case 3:
    case 4:
        return call(w, 0, 1 + below(w, PROMPTS));
    case 5:
    case 6:
        return call(w, 1 + below(w, 2), 1 + below(w, PROMPTS));
    default:
        return call(w, 1 + below(w, SEQUENCES), 0);
    }
}

static enum rt_status walk(struct rank_seat *seat, uint32_t flags)
{
    struct walk w = {.seat = seat, .flags = flags, .chance = *(const uint64_t *)seat->bench->user};
    memset(trace_of(seat), 0, sizeof(*trace_of(seat)));
    for (uint32_t i = 0; i < RANKS_ROWS; i++)
        RT_TRY(rank_told(seat, rt_seq_close(seat->rt, seat->seqs[i])));
    while (seat->step < calls)
        RT_TRY(turn(&w));
    return RT_OK;
}

static enum rt_status replayed(struct rank_seat *seat)
{
    return walk(seat, 0);
}

static enum rt_status eager(struct rank_seat *seat)
{
    return walk(seat, RT_STEP_EAGER);
}

/* ---- the same numbers ------------------------------------------------------------------------ */

static void open_bench(struct rank_bench *b, uint32_t ranks, uint32_t context, bool listed)
{
    struct rt_config c;
    block_config(&c);
    c.geometry.heads = RANKS_HEADS;
    c.precision = RT_PRECISION_F32;
    c.max_length = LONGEST + 8;
    c.pages = 80;
    c.chunks[0] = 4; /* absorbed; expanded where ranks share no context and nothing is listed: */
    c.chunks[1] = CHUNK;
    c.chunk_count = 2;
    c.prefill_rows = PROMPTS;
    c.mixed_rows[0] = 1;
    c.mixed_rows[1] = 2;
    c.mixed_row_count = 2;
    c.context_piece = 64;
    if (listed) {
        c.geometry.kv_lora_rank = 512;
        c.geometry.qk_rope_head_dim = 64;
        c.topk = TOPK;
        c.context_piece = 0;
    }
    rank_bench_open_as(b, ranks, &c);
    b->context = context;
    b->change = set_stages;
}

static void compare(const struct rank_bench *b, uint32_t rank, uint32_t at, uint32_t slot)
{
    const struct trace *const mine = &traces[rank], *const one = &traces[RANKS_MOST];
    double apart = 0, length = 0;
    for (uint32_t i = 0; i < RANKS_HIDDEN; i++) {
        const double y = (double)one->last[at][slot][i];
        const double d = (double)mine->last[at][slot][i] - y;
        apart += d * d;
        length += y * y;
    }
    if (mine->is_there[at][slot] != one->is_there[at][slot] ||
        !(sqrt(apart) <= BOUND * sqrt(length)))
        fail_msg("rank %u of %u, %u of a context, seed %llu: call %u, slot %u is %g of %g from one "
                 "rank",
                 rank, b->ranks, b->context, (unsigned long long)*(const uint64_t *)b->user, at,
                 slot, sqrt(apart), sqrt(length));
}

static void compare_all(const struct rank_bench *b)
{
    for (uint32_t r = 0; r < b->ranks; r++) {
        assert_memory_equal(&traces[r], &traces[0], sizeof(traces[0]));
        for (uint32_t at = 0; at < calls; at++)
            for (uint32_t slot = 0; slot < SEQUENCES; slot++)
                compare(b, r, at, slot);
    }
}

static void test_walks(void **state)
{
    static const struct {
        uint32_t ranks, context;
        bool listed;
    } cases[] = {{2, 1, false}, {3, 1, false}, {4, 1, false}, {2, 2, false},
                 {3, 3, false}, {4, 2, false}, {2, 1, true},  {3, 1, true}};
    static struct rank_bench b;
    static struct rank_seat alone;
    static struct trace kept;
    (void)state;
    for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
        const uint64_t seed = first_seed + k;
        open_bench(&b, cases[k].ranks, cases[k].context, cases[k].listed);
        b.user = &seed;
        rank_bench_alone(&b, replayed, &alone);
        rank_bench_run(&b, replayed);
        rank_bench_all_well(&b);
        compare_all(&b);
        kept = traces[0];
        rank_bench_run(&b, eager);
        rank_bench_all_well(&b);
        for (uint32_t r = 0; r < b.ranks; r++)
            assert_memory_equal(&traces[r], &kept, sizeof(kept));
        rank_bench_close(&b);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_walks)};
    if (argc > 1)
        calls = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        first_seed = strtoull(argv[2], NULL, 10);
    if (calls == 0 || calls > CALLS)
        return fprintf(stderr, "usage: contract_ranks_walk CALLS [SEED], CALLS up to %u\n", CALLS),
               2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
