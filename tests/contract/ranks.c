/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks cut over ranks on the host device: the same as one rank's, and every way to fall out. */
#include "tests/support/rank_fixture.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define SHORT_MS 400

static void nap(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* ---- the same numbers ------------------------------------------------------------------------ */

static enum rt_status replay_all(struct rank_seat *seat)
{
    while (seat->step < RANKS_STEPS)
        if (rank_step(seat, RANKS_ROWS, 0) != RT_OK)
            return seat->error.status;
    return RT_OK;
}

static enum rt_status eager_all(struct rank_seat *seat)
{
    while (seat->step < RANKS_STEPS)
        if (rank_step(seat, RANKS_ROWS, RT_STEP_EAGER) != RT_OK)
            return seat->error.status;
    return RT_OK;
}

/* bf16: each rank's part of a sum is rounded once more, to 2^-9 of it. */
static void test_as_one_rank(void **state)
{
    static const struct {
        enum rt_precision precision;
        enum rt_projections projections; /* the library's: ranks agree on its ways */
        double bound;
    } cases[] = {{RT_PRECISION_F32, RT_PROJECTIONS_AUTO, 1e-6},
                 {RT_PRECISION_BF16, RT_PROJECTIONS_CUBLASLT, 8e-3}};
    static const uint32_t counts[] = {1, 2, 3, 4};
    static struct rank_bench b;
    static struct rank_seat alone;
    (void)state;
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 4; k++) {
            static rank_outputs replayed[RANKS_MOST];
            rank_bench_open(&b, counts[k], cases[i].precision);
            b.blocks.config.projections = cases[i].projections;
            rank_bench_alone(&b, replay_all, &alone);
            rank_bench_run(&b, replay_all);
            rank_bench_all_well(&b);
            for (uint32_t r = 0; r < counts[k]; r++) {
                const double d = rank_distance(&b.seats[r], &alone);
                if (!(d <= cases[i].bound))
                    fail_msg("rank %u of %u is %g from one rank, bound %g", r, counts[k], d,
                             cases[i].bound);
                /* All ranks have the same bits. */
                assert_memory_equal(b.seats[r].out, b.seats[0].out, sizeof(rank_outputs));
                memcpy(replayed[r], b.seats[r].out, sizeof(rank_outputs));
            }
            rank_bench_run(&b, eager_all);
            rank_bench_all_well(&b);
            for (uint32_t r = 0; r < counts[k]; r++)
                assert_memory_equal(b.seats[r].out, replayed[r], sizeof(rank_outputs));
            rank_bench_close(&b);
        }
}

/* Of more than one rank every graph has the sums; of one it is what one without a group has. */
static enum rt_status look_for_sums(struct rank_seat *seat)
{
    static char text[RANKS_MOST][16384];
    size_t needed = 0;
    const enum rt_status status =
        rt_dot(seat->rt, RANKS_ROWS, 1, text[seat->rank], sizeof(text[seat->rank]), &needed);
    if (status != RT_OK)
        return status;
    const bool has = strstr(text[seat->rank], "o_proj_sum.0") != NULL;
    return needed <= sizeof(text[seat->rank]) && has == (seat->bench->ranks > 1) ? RT_OK
                                                                                 : RT_ERR_INTERNAL;
}

static void test_one_rank_exchanges_nothing(void **state)
{
    static struct rank_bench b;
    (void)state;
    for (uint32_t ranks = 1; ranks <= 2; ranks++) {
        rank_bench_open(&b, ranks, RT_PRECISION_BF16);
        rank_bench_run(&b, look_for_sums);
        rank_bench_all_well(&b);
        rank_bench_close(&b);
    }
}

/* One rank has nothing to decode in some steps, and goes along. */
static enum rt_status idle_sometimes(struct rank_seat *seat)
{
    while (seat->step < RANKS_STEPS) {
        const bool idle = seat->rank == 1 && seat->step % 2;
        if (rank_step(seat, idle ? 0 : RANKS_ROWS, 0) != RT_OK)
            return seat->error.status;
    }
    return RT_OK;
}

static void test_an_idle_rank(void **state)
{
    static struct rank_bench b;
    (void)state;
    rank_bench_open(&b, 2, RT_PRECISION_BF16);
    rank_bench_run(&b, idle_sometimes);
    rank_bench_all_well(&b);
    rank_bench_close(&b);
}

/* ---- falling out ----------------------------------------------------------------------------- */

static enum rt_status another_batch(struct rank_seat *seat)
{
    for (int i = 0; i < 2; i++)
        if (rank_step(seat, RANKS_ROWS, 0) != RT_OK)
            return seat->error.status;
    (void)rank_step(seat, seat->rank == 1 ? 1 : RANKS_ROWS, 0);
    /* Said again by whatever comes next. */
    return rank_step(seat, RANKS_ROWS, 0) == RT_OK ? RT_OK : seat->error.status;
}

/* Six graphs are tried in rt_create: the third step is replay 9. */
static void test_another_batch(void **state)
{
    static struct rank_bench b;
    (void)state;
    rank_bench_open(&b, 2, RT_PRECISION_BF16);
    rank_bench_run(&b, another_batch);
    rank_bench_failed(&b, 0, RT_ERR_RANKS,
                      "step 9: rank 1 has batch size 1, rank 0 (this one) has 2");
    rank_bench_failed(&b, 1, RT_ERR_RANKS,
                      "step 9: rank 0 has batch size 2, rank 1 (this one) has 1");
    rank_bench_close(&b);
}

static void test_other_graphs(void **state)
{
    static struct rank_bench b;
    (void)state;
    rank_bench_open(&b, 2, RT_PRECISION_BF16);
    b.batches[1] = 5;
    rank_bench_run(&b, replay_all);
    rank_bench_failed(&b, 0, RT_ERR_RANKS, "rank 1 has batch size 5, rank 0 (this one) has 4");
    rank_bench_failed(&b, 1, RT_ERR_RANKS, "rank 0 has batch size 4, rank 1 (this one) has 5");
    rank_bench_close(&b);
}

/* With as many rows in every step: a sum of the first layer and one of the second are alike. */
static void test_other_layers(void **state)
{
    static struct rank_bench b;
    (void)state;
    rank_bench_open(&b, 2, RT_PRECISION_BF16);
    b.layers[1] = 1;
    rank_bench_run(&b, replay_all);
    rank_bench_failed(&b, 0, RT_ERR_RANKS, "rank 1 has layers 1, rank 0 (this one) has 2");
    rank_bench_failed(&b, 1, RT_ERR_RANKS, "rank 0 has layers 2, rank 1 (this one) has 1");
    rank_bench_close(&b);
}

/* Rank 1 sleeps through the others' patience. */
static enum rt_status late(struct rank_seat *seat)
{
    if (rank_step(seat, RANKS_ROWS, 0) != RT_OK)
        return seat->error.status;
    if (seat->rank == 1)
        nap(4 * SHORT_MS);
    return rank_step(seat, RANKS_ROWS, 0) == RT_OK ? RT_OK : seat->error.status;
}

static void test_a_step_behind(void **state)
{
    static struct rank_bench b;
    (void)state;
    rank_bench_open(&b, 2, RT_PRECISION_BF16);
    b.timeout_ms = SHORT_MS;
    rank_bench_run(&b, late);
    rank_bench_failed(&b, 0, RT_ERR_RANKS, "rank 1 has not begun step 8 within 0.400 s");
    rank_bench_failed(&b, 1, RT_ERR_RANKS, "rank 0 has given up at step 8: rank 1 has not begun");
    rank_bench_close(&b);
}

/* A stage of rank 1 fails: the others wait for it in an exchange. */
static enum rt_status break_down(struct rank_seat *seat)
{
    if (rank_step(seat, RANKS_ROWS, 0) != RT_OK)
        return seat->error.status;
    if (seat->rank == 1)
        seat->step = RANKS_STEPS; /* which its stage refuses */
    return rank_step(seat, RANKS_ROWS, 0) == RT_OK ? RT_OK : seat->error.status;
}

static void test_a_stage_that_fails(void **state)
{
    static struct rank_bench b;
    (void)state;
    rank_bench_open(&b, 3, RT_PRECISION_BF16);
    rank_bench_run(&b, break_down);
    rank_bench_failed(&b, 1, RT_ERR_CALLBACK, "the stage's function returned 1");
    for (uint32_t r = 0; r < 3; r += 2) {
        rank_bench_failed(&b, r, RT_ERR_RANKS, "stage \"o_proj_sum.1\": ");
        assert_null(strstr(b.seats[r].error.message, "within"));
    }
    rank_bench_close(&b);
}

static void test_a_killed_rank(void **state)
{
    static struct rank_bench b;
    struct rank_seat *const seat = &b.seats[0];
    (void)state;
    rank_bench_open(&b, 2, RT_PRECISION_BF16);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    b.seats[pid == 0] = (struct rank_seat){.bench = &b, .rank = pid == 0};
    if (pid == 0) {
        struct rank_seat *const mine = &b.seats[1];
        if (rank_open(mine) == RT_OK)
            (void)rank_step(mine, RANKS_ROWS, 0);
        (void)raise(SIGKILL);
    }
    seat->status = rank_open(seat);
    for (int i = 0; i < 2 && seat->status == RT_OK; i++)
        seat->status = rank_step(seat, RANKS_ROWS, 0);
    rank_bench_failed(&b, 0, RT_ERR_RANKS,
                      "rank 1 is gone, its process has ended; its last step was 7");
    rank_close(seat);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    rank_bench_close(&b);
}

/* ---- what ranks decide alike ----------------------------------------------------------------- */

static enum rt_status find_least(struct rank_seat *seat)
{
    uint32_t n[3] = {seat->rank, 7 - seat->rank, UINT32_MAX};
    const enum rt_status status = rt_ranks_least(seat->ranks, n, 3, &seat->error);
    if (status != RT_OK)
        return status;
    if (n[0] != 0 || n[1] != 8 - seat->bench->ranks || n[2] != UINT32_MAX)
        return RT_ERR_INTERNAL;
    return rank_step(seat, RANKS_ROWS, 0); /* as well as before */
}

static enum rt_status another_number(struct rank_seat *seat)
{
    uint32_t n[2] = {5, 6};
    const enum rt_status status =
        rt_ranks_least(seat->ranks, n, seat->rank == 1 ? 2 : 1, &seat->error);
    return n[0] == 5 && n[1] == 6 ? status : RT_ERR_INTERNAL;
}

static enum rt_status bad_numbers(struct rank_seat *seat)
{
    uint32_t n[RT_MAX_LEAST + 1] = {0};
    if (rt_ranks_least(NULL, n, 1, NULL) != RT_ERR_INVALID ||
        rt_ranks_least(seat->ranks, NULL, 1, NULL) != RT_ERR_INVALID ||
        rt_ranks_least(seat->ranks, n, 0, NULL) != RT_ERR_INVALID)
        return RT_ERR_INTERNAL;
    return rt_ranks_least(seat->ranks, n, RT_MAX_LEAST + 1, &seat->error);
}

static void test_the_least_of_all(void **state)
{
    static struct rank_bench b;
    (void)state;
    for (uint32_t ranks = 1; ranks <= 3; ranks += 2) {
        rank_bench_open(&b, ranks, RT_PRECISION_BF16);
        rank_bench_run(&b, find_least);
        rank_bench_all_well(&b);
        rank_bench_run(&b, bad_numbers);
        rank_bench_failed(&b, 0, RT_ERR_INVALID, "rt_ranks_least: 17 numbers, must be 1 to 16");
        rank_bench_close(&b);
    }
    rank_bench_open(&b, 2, RT_PRECISION_BF16);
    rank_bench_run(&b, another_number);
    rank_bench_failed(&b, 0, RT_ERR_RANKS, "rank 1 has elements 8, rank 0 (this one) 4");
    rank_bench_failed(&b, 1, RT_ERR_RANKS, "rank 0 has elements 4, rank 1 (this one) 8");
    rank_bench_close(&b);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void refused(const struct rt_ranks_params *p, const char *story)
{
    struct rt_error err = {.status = RT_OK};
    rt_ranks *ranks = (rt_ranks *)(void *)&err;
    assert_int_equal(rt_ranks_create(p, &ranks, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, story);
    assert_null(ranks);
}

static void test_arguments(void **state)
{
    struct rt_ranks_params p = {.struct_size = sizeof(p), .path = "x"};
    (void)state;
    refused(&p, "rt_ranks_create: 0 ranks, must be 1 to 64");
    p.ranks = 65;
    refused(&p, "rt_ranks_create: 65 ranks, must be 1 to 64");
    p.ranks = p.rank = 4;
    refused(&p, "rt_ranks_create: rank 4, must be 0 to 3, of 4");
    p.rank = 0;
    p.path = NULL;
    refused(&p, "rt_ranks_create: path is null");
    assert_int_equal(rt_ranks_create(&p, NULL, NULL), RT_ERR_INVALID);
    rt_ranks_destroy(NULL);
}

static enum rt_status cut_unevenly(struct rank_seat *seat)
{
    struct rt_config config = seat->bench->blocks.config;
    config.geometry.heads = 10;
    const enum rt_status status = rt_ranks_cut(seat->ranks, &config, &seat->error);
    return config.geometry.heads == 10 ? status : RT_ERR_INTERNAL;
}

static enum rt_status a_second_runtime(struct rank_seat *seat)
{
    const struct rt_create_params p = {.struct_size = sizeof(p),
                                       .config = &seat->bench->blocks.config,
                                       .weights = seat->bench->blocks.weights,
                                       .ranks = seat->ranks};
    rt_runtime *second;
    return rt_create(&p, &second, &seat->error);
}

/* One that cannot be made leaves nobody waiting. */
static enum rt_status a_runtime_that_fails(struct rank_seat *seat)
{
    struct rt_config config = seat->bench->blocks.config;
    const struct rt_create_params p = {.struct_size = sizeof(p),
                                       .config = &config,
                                       .weights = seat->bench->blocks.weights,
                                       .ranks = seat->ranks};
    rt_destroy(&seat->rt);
    if (seat->rank == 1)
        config.pages = UINT64_C(1) << 30;
    return rt_create(&p, &seat->rt, &seat->error);
}

static enum rt_status like_one_that_is_alone(struct rank_seat *seat)
{
    struct rt_create_params p = {.struct_size = sizeof(p),
                                 .config = &seat->bench->blocks.config,
                                 .weights = seat->bench->blocks.weights};
    rt_runtime *alone = NULL;
    rt_destroy(&seat->rt);
    if (rt_create(&p, &alone, &seat->error) != RT_OK)
        return seat->error.status;
    p.ranks = seat->ranks;
    p.like = alone;
    const enum rt_status status = rt_create(&p, &seat->rt, &seat->error);
    rt_destroy(&alone);
    return status;
}

/* One after the other they may. */
static enum rt_status another_runtime(struct rank_seat *seat)
{
    const struct rt_create_params p = {.struct_size = sizeof(p),
                                       .config = &seat->bench->blocks.config,
                                       .weights = seat->bench->blocks.weights,
                                       .ranks = seat->ranks};
    rt_destroy(&seat->rt);
    return rt_create(&p, &seat->rt, &seat->error);
}

static void test_what_is_refused(void **state)
{
    static struct rank_bench b;
    (void)state;
    rank_bench_open(&b, 4, RT_PRECISION_BF16);
    rank_bench_run(&b, cut_unevenly);
    for (uint32_t r = 0; r < 4; r++)
        rank_bench_failed(&b, r, RT_ERR_GEOMETRY,
                          "10 heads cannot be cut evenly over 4 ranks: 1, 2, 5, 10 ranks can be");
    rank_bench_run(&b, a_second_runtime);
    for (uint32_t r = 0; r < 4; r++)
        rank_bench_failed(&b, r, RT_ERR_INVALID,
                          "params->ranks has a runtime already, must serve one at a time");
    rank_bench_run(&b, like_one_that_is_alone);
    for (uint32_t r = 0; r < 4; r++) {
        char story[128];
        (void)snprintf(
            story, sizeof(story),
            "params->like is rank 0 of 1, this runtime rank %" PRIu32 " of 4: must be the same", r);
        rank_bench_failed(&b, r, RT_ERR_INVALID, story);
    }
    rank_bench_run(&b, another_runtime);
    rank_bench_all_well(&b);
    rank_bench_run(&b, a_runtime_that_fails);
    for (uint32_t r = 0; r < 4; r++)
        rank_bench_failed(&b, r, r == 1 ? b.seats[1].status : RT_ERR_RANKS,
                          r == 1 ? "the KV pool of " : "rank 1 has given up at step ");
    assert_null(strstr(b.seats[0].error.message, "within"));
    assert_non_null(strstr(b.seats[0].error.message, "rt_create failed: "));
    rank_bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_one_rank),      cmocka_unit_test(test_one_rank_exchanges_nothing),
        cmocka_unit_test(test_an_idle_rank),     cmocka_unit_test(test_another_batch),
        cmocka_unit_test(test_other_graphs),     cmocka_unit_test(test_other_layers),
        cmocka_unit_test(test_a_step_behind),    cmocka_unit_test(test_a_stage_that_fails),
        cmocka_unit_test(test_a_killed_rank),    cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_the_least_of_all), cmocka_unit_test(test_what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
