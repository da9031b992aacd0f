/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a runtime measures when it is made: exchanges of ranks by the communicator against one shot
 * by our own kernels. Two ranks, threads here, whose memory is mapped; every driver call of one of
 * them fails in turn. Nothing is chosen then, nothing stays, and the other rank is told.
 */
#include "runtime/sums.h"
#include "kernels/abi/input_norm.h"
#include "runtime/one_shot.h"
#include "tests/unit/comm_crew.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define RANKS 2u
#define TOKENS 2u
#define WIDTH 256u /* of hidden, and of a head's values */
#define NUMBERS (TOKENS * WIDTH)
/* A way's graph is made by fewer calls, of which every one fails; a replay is five, and of the many
 * of them each kind of call does. */
#define STEPS_OF_ONE 40u
#define REPLAY_CALLS 5u
#define HEAD_BYTES (TOKENS * WIDTH * 2 + 32)

struct seat {
    struct rt_kernels kernels;
    struct rt_sums sums;
    rt_dstream stream;
    _Alignas(256) uint16_t hidden[NUMBERS], residual[NUMBERS], normed[NUMBERS], weight[WIDTH];
    _Alignas(256) uint16_t out[NUMBERS];
    _Alignas(256) unsigned char given[RANKS * HEAD_BYTES], taken[RANKS * HEAD_BYTES];
    float lse[TOKENS];
};

/* What is measured, by a rank that has joined. */
typedef enum rt_status (*measure_fn)(struct seat *s, struct rt_comm *c, struct rt_error *err);

struct plan {
    measure_fn measure;
    uint64_t fail_at; /* of rank 1's calls in it; 0: none */
    uint64_t calls;   /* that it made */
    uint64_t left;    /* objects that were not there before it */
    int32_t *stop;    /* of rank 0's kernels */
    uint32_t chosen;  /* by rank 1 */
    uint32_t one_shot[RANKS];
    const struct rt_sums *likes[RANKS]; /* that each rank is to be like; null: none */
    char reason[RT_SUM_REASON_BYTES];
};

static struct rt_collective sum_of(const struct seat *s, struct rt_comm *c)
{
    return (struct rt_collective){.kind = RT_ALL_REDUCE,
                                  .dtype = RT_DTYPE_BF16,
                                  .from = (uintptr_t)s->hidden,
                                  .to = (uintptr_t)s->hidden,
                                  .count = NUMBERS,
                                  .ranks = RANKS,
                                  .comm = c};
}

static enum rt_status measure_sum(struct seat *s, struct rt_comm *c, struct rt_error *err)
{
    const struct rt_collective x = sum_of(s, c);
    return rt_sums_choose(&s->sums, &s->kernels, &x, s->stream, err);
}

/* The sum is said to go in one shot, without which its norm is no part of it. */
static enum rt_status measure_norm(struct seat *s, struct rt_comm *c, struct rt_error *err)
{
    const struct rt_collective x = sum_of(s, c);
    const struct rt_input_norm_params norm = {
        .hidden = s->hidden,
        .residual = s->residual,
        .normed = s->normed,
        .stride = WIDTH,
        .norm = {.weight = s->weight, .eps = 1e-6f, .scale = 1, .width = WIDTH},
        .tokens = TOKENS,
        .hidden_scale = 1};
    s->sums.choices[0] =
        (struct rt_sum_choice){.kind = x.kind, .count = x.count, .dtype = x.dtype, .one_shot = 1};
    s->sums.choice_count = 1;
    const enum rt_status status =
        rt_sums_choose_norm(&s->sums, &s->kernels, &x, &norm, s->stream, err);
    s->sums.choice_count--;
    s->sums.choices[0] = s->sums.choices[1];
    return status;
}

static enum rt_status measure_context(struct seat *s, struct rt_comm *c, struct rt_error *err)
{
    const struct rt_context_exchange x = {
        .swap = {.kind = RT_ALL_TO_ALL,
                 .dtype = RT_DTYPE_U8,
                 .from = (uintptr_t)s->given,
                 .to = (uintptr_t)s->taken,
                 .count = HEAD_BYTES,
                 .ranks = RANKS,
                 .group = RANKS,
                 .comm = c},
        .merge = {.in = {s->taken, HEAD_BYTES / 2, WIDTH, HEAD_BYTES / 2},
                  .in_lse = {s->taken + (size_t)NUMBERS * 2, HEAD_BYTES / 4, 1, HEAD_BYTES / 4},
                  .out = {s->out, WIDTH, WIDTH},
                  .out_lse = {s->lse, 1, 1},
                  .pieces = RANKS,
                  .tokens = TOKENS,
                  .heads = 1,
                  .v_dim = WIDTH}};
    return rt_sums_choose_context(&s->sums, &s->kernels, &x, s->stream, err);
}

static enum rt_status measure(struct plan *p, struct seat *s, struct rt_comm *c,
                              struct rt_driver *d, struct rt_error *err)
{
    rt_driver_host_trust(d);
    RT_REQUIRE(rt_driver_host_adopt(d, (uintptr_t)s, sizeof(*s)) == 0, err, RT_ERR_INTERNAL,
               "the seat is not adopted");
    RT_TRY(rt_kernels_load(d, &s->kernels, err));
    RT_TRY(rt_comm_open(c, d, NULL, err));
    RT_TRY(rt_one_shot_map(c, d, err));
    RT_TRY(RT_DRV(d, err, stream_create, (d, &s->stream)));
    if (c->rank == 0)
        p->stop = c->peers.stop;
    RT_TRY(rt_comm_barrier(c, err));
    const uint64_t live = d->probe.live, calls = d->probe.calls;
    if (c->rank == 1 && p->fail_at)
        d->probe.fail_at = calls + p->fail_at;
    s->sums.like = p->likes[c->rank];
    enum rt_status status = p->measure(s, c, err);
    d->probe.fail_at = 0;
    p->one_shot[c->rank] = s->sums.choices[0].one_shot;
    if (c->rank == 1) {
        p->calls = d->probe.calls - calls;
        p->left = d->probe.live - live;
        p->chosen = s->sums.choice_count;
        memcpy(p->reason, s->sums.choices[0].reason, sizeof(p->reason));
    }
    if (status != RT_OK) {
        /* Rank 0 leaves, and takes it along, once the group has failed. */
        __atomic_store_n(p->stop, 1, __ATOMIC_RELEASE);
        status = rt_comm_fail(c, err); /* as whoever makes a runtime does */
    }
    (void)d->stream_destroy(d, s->stream);
    return status;
}

static enum rt_status run(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    static struct seat seats[RANKS];
    struct seat *const s = &seats[c->rank];
    struct rt_driver d;
    s->sums.choice_count = 0;
    RT_TRY(rt_driver_open_host(&d, err));
    const enum rt_status status = measure(crew->user, s, c, &d, err);
    rt_comm_unmap(c);
    rt_kernels_unload(&s->kernels);
    rt_driver_close(&d);
    return status;
}

/*
 * Whole, and then with one of its calls that fails. How often a rank asks whether its stream
 * is done is a matter of time: what comes behind a last call is no failure. Launches of the host
 * device end before they return, so rank 1 stops what on a GPU rank 0 itself does while it waits.
 */
static void fail_each(measure_fn measured, const char *words)
{
    struct plan p = {.measure = measured};
    struct crew crew;
    uint32_t failed = 0;
    crew_begin(&crew, RANKS);
    crew.user = &p;
    crew_succeed(&crew, run);
    assert_int_equal(p.chosen, 1);
    assert_int_equal(p.left, 0);
    assert_non_null(strstr(p.reason, words));
    const uint64_t calls = p.calls;
    for (uint64_t n = 1; n <= calls; n += n < STEPS_OF_ONE ? 1 : REPLAY_CALLS + 1) {
        crew_begin(&crew, RANKS);
        crew.user = &p;
        p.fail_at = n;
        crew_run(&crew, run);
        assert_int_equal(p.left, 0);
        assert_int_equal(p.chosen, crew.status[1] == RT_OK);
        if (crew.status[1] == RT_OK)
            continue;
        assert_int_equal(crew.status[1], RT_ERR_DRIVER);
        assert_non_null(strstr(crew.error[1].message, "injected"));
        assert_int_equal(crew.status[0], RT_ERR_RANKS);
        assert_non_null(strstr(crew.error[0].message, "injected"));
        failed++;
    }
    assert_true(failed > STEPS_OF_ONE);
}

/* Whatever is faster here: rank 0's runtime says what all ranks do, if it is like another. */
static void like_another(measure_fn measured, const struct rt_sum_choice *choice)
{
    static struct rt_sums like, other, nothing; /* large */
    for (uint32_t i = 0; i < 6; i++) {
        struct plan p = {.measure = measured};
        struct crew crew;
        like.choices[0] = other.choices[0] = *choice;
        like.choice_count = other.choice_count = 1;
        like.choices[0].one_shot = i % 2;
        other.choices[0].one_shot = !(i % 2);
        p.likes[0] = &like;
        p.likes[1] = i / 2 == 0 ? &like : i / 2 == 1 ? &other : &nothing;
        crew_begin(&crew, RANKS);
        crew.user = &p;
        crew_succeed(&crew, run);
        for (uint32_t r = 0; r < RANKS; r++)
            assert_int_equal(p.one_shot[r], i % 2);
        assert_non_null(strstr(p.reason, ", as in the runtime that this one is like: "));
    }
}

static void like_another_runtime(void **state)
{
    struct rt_sum_choice choice = {.kind = RT_ALL_REDUCE, .count = NUMBERS, .dtype = RT_DTYPE_BF16};
    (void)state;
    like_another(measure_sum, &choice);
    choice.with_norm = 1;
    like_another(measure_norm, &choice);
    like_another(
        measure_context,
        &(struct rt_sum_choice){.kind = RT_ALL_TO_ALL, .count = HEAD_BYTES, .dtype = RT_DTYPE_U8});
}

static void sums(void **state)
{
    (void)state;
    fail_each(measure_sum, "1024 bytes take");
}

static void sums_and_norms(void **state)
{
    (void)state;
    fail_each(measure_norm, "in two launches, on rank 0");
}

static void exchanges_of_a_context(void **state)
{
    (void)state;
    fail_each(measure_context, "by NCCL and a merge, on rank 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums),
        cmocka_unit_test(sums_and_norms),
        cmocka_unit_test(exchanges_of_a_context),
        cmocka_unit_test(like_another_runtime),
    };
    return cmocka_run_group_tests_name("sums", tests, NULL, NULL);
}
