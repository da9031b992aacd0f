/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts over ranks, on the host device: in chunks, absorbed and expanded, behind pasts of their
 * own, and beside rows of which some follow in a step of their own. What every row's last token
 * leaves is the same as of one rank with all heads.
 */
#include "common/check.h"
#include "tests/support/fixture.h"
#include "tests/support/rank_tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LONGEST 130u
#define LONG 3u /* tokens of a row, at most */

/* ---- stages ---------------------------------------------------------------------------------- */

/* Keeps what the rows have, a line of `out` a replay. */
static int keep(void *user, const struct rt_stage_context *c)
{
    struct rank_seat *const seat = user;
    uint32_t kept = 0;
    if (seat->step >= RANKS_LONGEST)
        return 1;
    for (uint32_t row = 0; row < c->batch && kept < RANKS_TOKENS; row++) {
        const float *const last = rank_tokens_last(c, row);
        if (last)
            memcpy(seat->out[seat->step][0][kept++], last, RANKS_HIDDEN * sizeof(float));
    }
    seat->step++;
    return 0;
}

static void set_stages(struct rank_seat *seat, struct rt_create_params *p)
{
    (void)seat;
    memset(p->stages, 0, sizeof(p->stages));
    p->stages[RT_STAGE_STEP_BEGIN] = rank_tokens_embed;
    p->stages[RT_STAGE_STEP_END] = keep;
}

/* ---- what goes in ---------------------------------------------------------------------------- */

static int32_t ids[90]; /* written before there are ranks */

static struct rt_prompt prompt_of(rt_seq seq, uint32_t first, uint32_t count)
{
    return (struct rt_prompt){.seq = seq, .tokens = ids + first, .count = count};
}

static enum rt_status put_in(struct rank_seat *seat, const struct rt_prompt *prompts,
                             uint32_t count, uint32_t flags)
{
    uint64_t ticket = 0;
    const struct rt_prefill_params p = {
        .struct_size = sizeof(p), .flags = flags, .prompts = prompts, .prompt_count = count};
    RT_TRY(rank_told(seat, rt_prefill(seat->rt, &p, &ticket)));
    return rank_told(seat, rt_wait(seat->rt, ticket, UINT64_MAX));
}

/* Prompts beside two rows, of 2 and of 3 tokens. */
static enum rt_status mix(struct rank_seat *seat, const struct rt_prompt *prompts, uint32_t count,
                          uint32_t flags)
{
    static const uint32_t counts[RANKS_ROWS] = {2, LONG};
    uint64_t ticket = 0;
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = flags,
                                     .rows = RANKS_ROWS,
                                     .query_len = LONG,
                                     .seqs = seat->seqs,
                                     .tokens = ids + 40,
                                     .prompts = prompts,
                                     .prompt_count = count,
                                     .query_lens = counts};
    RT_TRY(rank_told(seat, rt_step(seat->rt, &p, &ticket)));
    return rank_told(seat, rt_wait(seat->rt, ticket, UINT64_MAX));
}

/*
 * first     60 in chunks of 24   3 absorbed    2      2      rewound to 41
 * second    30 beside it                       3      3                      19
 * third                                        9      4                       7
 * its fork                                            5
 */
static enum rt_status history(struct rank_seat *seat, uint32_t flags)
{
    rt_seq third = 0, fork = 0;
    const struct rt_prompt begin[] = {prompt_of(seat->seqs[0], 0, 60),
                                      prompt_of(seat->seqs[1], 10, 30)};
    const struct rt_prompt few = prompt_of(seat->seqs[0], 60, 3);
    RT_TRY(put_in(seat, begin, 2, flags));
    RT_TRY(put_in(seat, &few, 1, flags));
    RT_TRY(rank_told(seat, rt_seq_open(seat->rt, NULL, &third)));
    const struct rt_prompt late = prompt_of(third, 70, 9);
    RT_TRY(mix(seat, &late, 1, flags));
    RT_TRY(rank_told(seat, rt_seq_fork(seat->rt, third, &fork)));
    const struct rt_prompt both[] = {prompt_of(third, 20, 4), prompt_of(fork, 30, 5)};
    RT_TRY(mix(seat, both, 2, flags));
    RT_TRY(rank_told(seat, rt_seq_rewind(seat->rt, seat->seqs[0], 41)));
    const struct rt_prompt end[] = {prompt_of(third, 50, 7), prompt_of(seat->seqs[1], 60, 19),
                                    prompt_of(seat->seqs[0], 5, 30)};
    return put_in(seat, end, 3, flags);
}

static enum rt_status replayed(struct rank_seat *seat)
{
    return history(seat, 0);
}

static enum rt_status eager(struct rank_seat *seat)
{
    return history(seat, RT_STEP_EAGER);
}

/* ---- the same numbers ------------------------------------------------------------------------ */

static void open_bench(struct rank_bench *b, uint32_t ranks, uint32_t context)
{
    rank_bench_open(b, ranks, RT_PRECISION_F32);
    struct rt_config *const c = &b->blocks.config;
    b->context = context;
    b->change = set_stages;
    c->max_length = LONGEST;
    c->pages = 40;
    c->chunks[0] = 4; /* absorbed; expanded where ranks share no context: */
    c->chunks[1] = 24;
    c->chunk_count = 2;
    c->prefill_rows = 3;
    c->mixed_rows[0] = 1; /* of the two */
    c->mixed_row_count = 1;
    c->context_piece = 64;
}

static void test_as_one_rank(void **state)
{
    static const uint32_t groups[][2] = {{2, 1}, {3, 1}, {2, 2}, {4, 2}};
    static struct rank_bench b;
    static struct rank_seat alone;
    static rank_outputs first;
    (void)state;
    for (size_t k = 0; k < sizeof(groups) / sizeof(groups[0]); k++) {
        open_bench(&b, groups[k][0], groups[k][1]);
        rank_bench_alone(&b, replayed, &alone);
        assert_int_equal(alone.step, 4 + 1 + 2 + 2 + 3);
        rank_bench_run(&b, replayed);
        rank_bench_all_well(&b);
        memcpy(first, b.seats[0].out, sizeof(first));
        for (uint32_t r = 0; r < b.ranks; r++) {
            const double d = rank_distance(&b.seats[r], &alone);
            if (!(d <= 1e-6))
                fail_msg("rank %u of %u, %u of a context, is %g from one rank", r, b.ranks,
                         b.context, d);
            assert_memory_equal(b.seats[r].out, first, sizeof(first));
        }
        rank_bench_run(&b, eager);
        rank_bench_all_well(&b);
        for (uint32_t r = 0; r < b.ranks; r++)
            assert_memory_equal(b.seats[r].out, first, sizeof(first));
        rank_bench_close(&b);
    }
}

/* ---- falling out ----------------------------------------------------------------------------- */

/* Of the same graph, rank 1's prompt has a token less. */
static enum rt_status another_prompt(struct rank_seat *seat)
{
    const struct rt_prompt few = prompt_of(seat->seqs[0], 0, seat->rank == 1 ? 18 : 19);
    (void)put_in(seat, &few, 1, 0);
    return put_in(seat, &few, 1, 0); /* said again by whatever comes next */
}

/* Rank 1's prompts have as many tokens as the others', and the other one the more of them. */
static enum rt_status other_shares(struct rank_seat *seat)
{
    const uint32_t first = seat->rank == 1 ? 9 : 10;
    const struct rt_prompt two[] = {prompt_of(seat->seqs[0], 0, first),
                                    prompt_of(seat->seqs[1], 10, 19 - first)};
    (void)put_in(seat, two, 2, 0);
    return put_in(seat, two, 2, 0);
}

static void test_other_tokens(void **state)
{
    static struct rank_bench b;
    (void)state;
    for (uint32_t context = 1; context <= 2; context++) {
        open_bench(&b, 2, context);
        rank_bench_run(&b, another_prompt);
        rank_bench_failed(&b, 0, RT_ERR_RANKS,
                          ": rank 1 has tokens of its live rows 18, rank 0 (this one) has 19");
        rank_bench_failed(&b, 1, RT_ERR_RANKS,
                          ": rank 0 has tokens of its live rows 19, rank 1 (this one) has 18");
        rank_bench_run(&b, other_shares);
        rank_bench_failed(&b, 0, RT_ERR_RANKS, ": rank 1 has the digest of its rows' tokens ");
        rank_bench_failed(&b, 1, RT_ERR_RANKS, ": rank 0 has the digest of its rows' tokens ");
        rank_bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_one_rank),
                                       cmocka_unit_test(test_other_tokens)};
    uint64_t state = 31;
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        ids[i] = (int32_t)(fixture_random(&state) % 1000);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
