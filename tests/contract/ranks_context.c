/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that share a context, on the host device: whatever becomes of sequences, the same as one
 * rank that has them whole; and what is refused.
 */
#include "runtime/ranks_impl.h"
#include "tests/support/rank_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 16u /* tokens of a page, of each rank */

/* ---- the same numbers ------------------------------------------------------------------------ */

static enum rt_status steps_of(struct rank_seat *seat, uint32_t count, uint32_t query_len,
                               uint32_t flags)
{
    for (uint32_t i = 0; i < count; i++)
        RT_TRY(rank_step_of(seat, RANKS_ROWS, query_len, flags));
    return RT_OK;
}

/* The second sequence is the first one's child from now on. */
static enum rt_status fork_first(struct rank_seat *seat)
{
    RT_TRY(rank_told(seat, rt_seq_close(seat->rt, seat->seqs[1])));
    return rank_told(seat, rt_seq_fork(seat->rt, seat->seqs[0], &seat->seqs[1]));
}

/* The second sequence opens on pages of the first, which it has kept, as one that was cached. */
static enum rt_status open_on_first(struct rank_seat *seat, uint32_t length)
{
    int32_t pages[8];
    uint32_t count = 0;
    const uint32_t context = rank_context(seat);
    const struct rt_seq_params p = {.struct_size = sizeof(p),
                                    .length = length,
                                    .last_token = -1,
                                    .shared_pages = pages,
                                    .shared_count =
                                        (length + PAGE * context - 1) / (PAGE * context)};
    RT_TRY(rank_told(seat, rt_seq_close(seat->rt, seat->seqs[1])));
    RT_TRY(rank_told(seat, rt_seq_pages(seat->rt, seat->seqs[0], pages, 8, &count)));
    RT_TRY(rank_told(seat, rt_pages_retain(seat->rt, pages, p.shared_count)));
    RT_TRY(rank_told(seat, rt_seq_open(seat->rt, &p, &seat->seqs[1])));
    return rank_told(seat, rt_pages_release(seat->rt, pages, p.shared_count));
}

/*
 * Tokens of one row lie on both sides of a page's end; a child and a rewound sequence begin in the
 * midst of a page that another has; of 4 ranks the last has no token for most of it.
 *
 *   first    0 ......... 18 ... 21 .......... 36 ......... 48
 *   second   0 ......... 18 ... 21
 *                               7 ........... 22
 *                                             34 ......... 46
 */
static enum rt_status history(struct rank_seat *seat, uint32_t flags)
{
    RT_TRY(steps_of(seat, 6, 3, flags));
    RT_TRY(fork_first(seat));
    RT_TRY(steps_of(seat, 3, 1, flags));
    RT_TRY(rank_told(seat, rt_seq_rewind(seat->rt, seat->seqs[1], 7)));
    RT_TRY(steps_of(seat, 5, 3, flags));
    RT_TRY(open_on_first(seat, 34));
    return steps_of(seat, 4, 3, flags);
}

static enum rt_status replayed(struct rank_seat *seat)
{
    return history(seat, 0);
}

static enum rt_status eager(struct rank_seat *seat)
{
    return history(seat, RT_STEP_EAGER);
}

static void open_bench(struct rank_bench *b, uint32_t ranks, uint32_t context,
                       enum rt_precision precision)
{
    rank_bench_open(b, ranks, precision);
    b->context = context;
    b->steps = RANKS_LONGEST;
}

static void compare(struct rank_bench *b, double bound)
{
    static struct rank_seat alone;
    static rank_outputs first[RANKS_MOST];
    rank_bench_alone(b, replayed, &alone);
    rank_bench_run(b, replayed);
    rank_bench_all_well(b);
    for (uint32_t r = 0; r < b->ranks; r++) {
        const double d = rank_distance(&b->seats[r], &alone);
        if (!(d <= bound))
            fail_msg("rank %u of %u, %u of a context, is %g from one rank, bound %g", r, b->ranks,
                     b->context, d, bound);
        assert_memory_equal(b->seats[r].out, b->seats[0].out, sizeof(rank_outputs));
        memcpy(first[r], b->seats[r].out, sizeof(rank_outputs));
    }
    rank_bench_run(b, eager);
    rank_bench_all_well(b);
    for (uint32_t r = 0; r < b->ranks; r++)
        assert_memory_equal(b->seats[r].out, first[r], sizeof(rank_outputs));
}

/* bf16: what every rank of a context has is rounded once more, and the ranks' parts of a sum. */
static void test_as_one_rank(void **state)
{
    static const struct {
        enum rt_precision precision;
        double bound;
    } cases[] = {{RT_PRECISION_F32, 1e-6}, {RT_PRECISION_BF16, 8e-3}};
    static const uint32_t groups[][2] = {{2, 2}, {3, 3}, {4, 2}, {4, 4}};
    static struct rank_bench b;
    (void)state;
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 4; k++) {
            open_bench(&b, groups[k][0], groups[k][1], cases[i].precision);
            compare(&b, cases[i].bound);
            rank_bench_close(&b);
        }
}

/* A page id stands for a page of each rank: the same pool holds as many times the tokens. */
static enum rt_status look_at_pages(struct rank_seat *seat)
{
    struct rt_info info = {.struct_size = sizeof(info)};
    int32_t pages[8];
    uint32_t count = 0;
    RT_TRY(steps_of(seat, 11, 3, 0));
    RT_TRY(rank_told(seat, rt_get_info(seat->rt, &info)));
    RT_TRY(rank_told(seat, rt_seq_pages(seat->rt, seat->seqs[0], pages, 8, &count)));
    RT_REQUIRE(info.tokens == info.pages * PAGE * 2 && count == 2, &seat->error, RT_ERR_INTERNAL,
               "%llu tokens in %llu pages, %u of them for 33", (unsigned long long)info.tokens,
               (unsigned long long)info.pages, count);
    return RT_OK;
}

static void test_pages(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 2, 2, RT_PRECISION_BF16);
    rank_bench_run(&b, look_at_pages);
    rank_bench_all_well(&b);
    rank_bench_close(&b);
}

/* ---- falling out ----------------------------------------------------------------------------- */

/* Who shares a context cannot stay away: its tokens would be missing. */
static enum rt_status one_idles(struct rank_seat *seat)
{
    return rank_step(seat, seat->rank == 1 ? 0 : RANKS_ROWS, 0);
}

static void test_no_rank_is_idle(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 2, 2, RT_PRECISION_BF16);
    rank_bench_run(&b, one_idles);
    rank_bench_failed(&b, 0, RT_ERR_RANKS, "rank 1 has live rows of a shared context 0, rank 0");
    rank_bench_failed(&b, 1, RT_ERR_RANKS, "rank 0 has live rows of a shared context 2, rank 1");
    rank_bench_close(&b);
}

/* Each call of rank 1's communicator that two steps make, failed once. */
static enum rt_status fail_at(struct rank_seat *seat)
{
    rank_fail_call(seat);
    return steps_of(seat, 2, 1, 0);
}

static void test_calls_that_fail(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 2, 2, RT_PRECISION_BF16);
    assert_true(rank_bench_fail_each(&b, fail_at) >=
                2 * (1 + 2 * RANKS_LAYERS)); /* a post, and two exchanges a layer */
    rank_bench_close(&b);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static enum rt_status cut_unevenly(struct rank_seat *seat)
{
    struct rt_config config = seat->bench->blocks.config;
    config.context_parallel = 2;
    return rt_ranks_cut(seat->ranks, &config, &seat->error);
}

static void test_what_is_refused(void **state)
{
    static struct rank_bench b;
    (void)state;
    rank_bench_open(&b, 3, RT_PRECISION_BF16);
    rank_bench_run(&b, cut_unevenly);
    for (uint32_t r = 0; r < 3; r++)
        rank_bench_failed(&b, r, RT_ERR_INVALID,
                          "context_parallel is 2: must divide the group's ranks, 3");
    rank_bench_close(&b);
}

/* What rank 1 has otherwise than the others. */
static void change_pages(struct rt_config *c)
{
    c->page_size = 2 * PAGE;
}

static void change_rope(struct rt_config *c)
{
    c->block.rope.order = RT_ROPE_HALF;
}

static void change_scale(struct rt_config *c)
{
    c->geometry.softmax_scale = 0.5;
}

static void change_one(struct rank_seat *seat, struct rt_create_params *params)
{
    static struct rt_config configs[RANKS_MOST];
    void (*const *const changes)(struct rt_config *) = seat->bench->user;
    if (seat->rank != 1)
        return;
    configs[1] = *params->config;
    (*changes)(&configs[1]);
    params->config = &configs[1];
}

static void test_other_models(void **state)
{
    static void (*const changes[])(struct rt_config *) = {change_scale, change_rope, change_pages};
    static const char *const words[][2] = {
        {"rank 1 has geometry.softmax_scale 0.5, rank 0 (this one) has ",
         ", rank 1 (this one) has 0.5"},
        {"rank 1 has another rope.order than rank 0 (this one)",
         "rank 0 has another rope.order than rank 1 (this one)"},
        {"rank 1 has kv_cache.page_size 32, rank 0 (this one) has 16",
         "rank 0 has kv_cache.page_size 16, rank 1 (this one) has 32"}};
    static struct rank_bench b;
    (void)state;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        open_bench(&b, 2, 2, RT_PRECISION_BF16);
        b.change = change_one;
        b.user = &changes[i];
        rank_bench_run(&b, replayed);
        for (uint32_t r = 0; r < 2; r++)
            rank_bench_failed(&b, r, RT_ERR_RANKS, words[i][r]);
        rank_bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_one_rank),     cmocka_unit_test(test_pages),
        cmocka_unit_test(test_no_rank_is_idle), cmocka_unit_test(test_calls_that_fail),
        cmocka_unit_test(test_what_is_refused), cmocka_unit_test(test_other_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
