/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of ranks on the host device: what they exchange, and every way in which they fail; how
 * they begin is comm_doors.c. */
#include "tests/unit/comm_crew.h"

#include "common/bf16.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define SHORT_NS UINT64_C(300000000)
/* One more than a slot holds of f32: the last part is one element. */
#define MANY (RT_BOARD_SLOT_BYTES / sizeof(float) + 1)

static void nap(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* ---- exchanges ------------------------------------------------------------------------------- */

/* A table of the host device that a group may use. */
static enum rt_status open_host(struct rt_comm *c, struct rt_driver *d, struct rt_error *err)
{
    RT_TRY(rt_driver_open_host(d, err));
    return rt_comm_open(c, d, NULL, err);
}

static float value(uint32_t rank, uint64_t i)
{
    return (float)(rank + 1) * 0.37f + (float)(i % 1013) * (rank % 2 ? -1.25f : 1e-3f);
}

/* In the order of ranks and in double: what every rank must have, bit for bit. */
static float total(uint32_t ranks, uint64_t i)
{
    double sum = 0;
    for (uint32_t r = 0; r < ranks; r++)
        sum += (double)value(r, i);
    return (float)sum;
}

static enum rt_status put(struct rt_driver *d, const struct rt_collective *x, struct rt_error *err)
{
    return RT_DRV(d, err, collective, (d, x, NULL));
}

#define EXPECT(err, what, i, got, wanted)                                                          \
    RT_REQUIRE((got) == (wanted), err, RT_ERR_INTERNAL, "%s %llu is %.9g, expected %.9g", what,    \
               (unsigned long long)(i), (double)(got), (double)(wanted))

/* [ranks, MANY] in the middle of one allocation. */
static enum rt_status exchange_with(struct crew *crew, struct rt_comm *c, struct rt_driver *d,
                                    float *a, float *b, struct rt_error *err)
{
    struct rt_collective x = {.kind = RT_ALL_REDUCE,
                              .dtype = RT_DTYPE_F32,
                              .from = (uintptr_t)a,
                              .to = (uintptr_t)a,
                              .count = MANY,
                              .ranks = crew->ranks,
                              .comm = c};
    for (uint64_t i = 0; i < MANY; i++)
        a[i] = value(c->rank, i);
    RT_TRY(put(d, &x, err));
    for (uint64_t i = 0; i < MANY; i++)
        EXPECT(err, "sum", i, a[i], total(crew->ranks, i));

    for (uint64_t i = 0; i < MANY; i++)
        a[i] = value(c->rank, i);
    x.kind = RT_ALL_GATHER;
    x.to = (uintptr_t)b;
    RT_TRY(put(d, &x, err));
    for (uint32_t r = 0; r < crew->ranks; r++)
        for (uint64_t i = 0; i < MANY; i++)
            EXPECT(err, "gathered", r * MANY + i, b[r * MANY + i], value(r, i));

    for (uint64_t i = 0; i < crew->ranks * MANY; i++)
        b[i] = value(c->rank, i);
    x = (struct rt_collective){.kind = RT_REDUCE_SCATTER,
                               .dtype = RT_DTYPE_F32,
                               .from = (uintptr_t)b,
                               .to = (uintptr_t)a,
                               .count = MANY,
                               .ranks = crew->ranks,
                               .comm = c};
    RT_TRY(put(d, &x, err));
    for (uint64_t i = 0; i < MANY; i++)
        EXPECT(err, "scattered", i, a[i], total(crew->ranks, c->rank * MANY + i));
    x.count = 0; /* all ranks have nothing: still an exchange */
    return put(d, &x, err);
}

static enum rt_status exchange_all(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct rt_driver d = {0};
    rt_addr memory = 0;
    const uint64_t bytes = MANY * sizeof(float);
    enum rt_status status = open_host(c, &d, err);
    if (status == RT_OK)
        status = RT_DRV(&d, err, mem_alloc, (&d, (1 + crew->ranks) * bytes, &memory));
    if (status == RT_OK) {
        float *const a = (float *)(uintptr_t)memory;
        status = exchange_with(crew, c, &d, a, a + MANY, err);
    }
    if (memory)
        (void)d.mem_free(&d, memory);
    rt_driver_close(&d);
    return status;
}

static void test_every_rank_has_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= CREW_MOST; ranks++) {
        struct crew crew;
        crew_begin(&crew, ranks);
        crew_succeed(&crew, exchange_all);
    }
}

/* A sum of all ranks' `count` elements, of which `bytes` are there, in place. */
static enum rt_status reduce(struct crew *crew, struct rt_comm *c, struct rt_collective x,
                             void *elements, uint64_t bytes, struct rt_error *err)
{
    struct rt_driver d = {0};
    rt_addr memory = 0;
    RT_TRY(open_host(c, &d, err));
    RT_TRY(RT_DRV(&d, err, mem_alloc, (&d, bytes, &memory)));
    x.kind = RT_ALL_REDUCE;
    x.from = x.to = memory;
    x.ranks = crew->ranks;
    x.comm = c;
    memcpy((void *)(uintptr_t)memory, elements, bytes);
    const enum rt_status status = put(&d, &x, err);
    memcpy(elements, (void *)(uintptr_t)memory, bytes);
    (void)d.mem_free(&d, memory);
    rt_driver_close(&d);
    return status;
}

/* bf16 is summed in double and rounded once: 1 + 2^-8 + 2^-9 is no chain of roundings. */
static enum rt_status sum_halves(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    static const float parts[CREW_MOST] = {1.0f, 0x1p-8f, 0x1p-9f, 0};
    uint16_t half = rt_float_to_bf16(parts[c->rank]);
    const struct rt_collective x = {.dtype = RT_DTYPE_BF16, .count = 1};
    RT_TRY(reduce(crew, c, x, &half, sizeof(half), err));
    EXPECT(err, "bf16 sum", 0, half, rt_float_to_bf16(1.0f + 0x1p-8f + 0x1p-9f));
    return RT_OK;
}

static void test_halves_are_rounded_once(void **state)
{
    (void)state;
    struct crew crew;
    crew_begin(&crew, 4);
    crew_succeed(&crew, sum_halves);
}

/* Rank 1 brings another number of elements. */
static enum rt_status exchange_another(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    float elements[16] = {0};
    const struct rt_collective x = {.dtype = RT_DTYPE_F32, .count = c->rank == 1 ? 3 : 4};
    return reduce(crew, c, x, elements, sizeof(elements), err);
}

static void test_exchanges_that_differ(void **state)
{
    (void)state;
    struct crew crew;
    crew_begin(&crew, 2);
    crew_run(&crew, exchange_another);
    crew_expect(&crew, 0, RT_ERR_RANKS,
                "exchange 1 of step 0: rank 1 has elements 3, rank 0 (this one) 4");
    crew_expect(&crew, 1, RT_ERR_RANKS,
                "exchange 1 of step 0: rank 0 has elements 4, rank 1 (this one) 3");
}

/* ---- steps ----------------------------------------------------------------------------------- */

static const uint32_t usual[RT_BOARD_FIELD_COUNT] = {
    [RT_BOARD_BUCKET] = 4, [RT_BOARD_QUERY_LEN] = 1, [RT_BOARD_ROWS] = 3};

/* Looks until all are as far, as who waits does. */
static enum rt_status await(struct rt_comm *c, struct rt_error *err)
{
    for (;;) {
        uint32_t there = 0;
        RT_TRY(rt_comm_look(c, err));
        for (uint32_t r = 0; r < c->ranks; r++)
            there += c->board.page->lines[r].step >= c->board.step;
        if (there == c->ranks)
            return rt_comm_look(c, err);
        nap(1);
    }
}

static enum rt_status step(struct rt_comm *c, const uint32_t fields[RT_BOARD_FIELD_COUNT],
                           struct rt_error *err)
{
    RT_TRY(rt_comm_post(c, fields, err));
    return await(c, err);
}

/* More than a line remembers; rank 1 is idle in every third. */
static enum rt_status many_steps(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    (void)crew;
    for (uint32_t i = 0; i < 3 * RT_BOARD_STEPS; i++) {
        uint32_t fields[RT_BOARD_FIELD_COUNT];
        memcpy(fields, usual, sizeof(fields));
        fields[RT_BOARD_BUCKET] = i;
        fields[RT_BOARD_TOKENS] = fields[RT_BOARD_SHARES] = i + 1;
        if (c->rank == 1 && i % 3 == 0)
            fields[RT_BOARD_ROWS] = fields[RT_BOARD_TOKENS] = fields[RT_BOARD_SHARES] = 0;
        RT_TRY(step(c, fields, err));
    }
    return RT_OK;
}

static void test_ranks_that_agree(void **state)
{
    (void)state;
    struct crew crew;
    crew_begin(&crew, 3);
    crew_succeed(&crew, many_steps);
}

static enum rt_status differ(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    const enum rt_board_field *const field = crew->user;
    uint32_t fields[RT_BOARD_FIELD_COUNT];
    memcpy(fields, usual, sizeof(fields));
    RT_TRY(step(c, fields, err));
    fields[*field] += 10 * c->rank;
    const enum rt_status status = step(c, fields, err);
    /* What has failed stays so, with the same story. */
    struct rt_error again = {.status = RT_OK};
    if (status != RT_OK &&
        (rt_comm_post(c, fields, &again) != status || strcmp(again.message, err->message) != 0))
        *err = again;
    return status;
}

static void test_ranks_that_disagree(void **state)
{
    (void)state;
    static const struct {
        enum rt_board_field field;
        const char *words;
        uint32_t usual;
    } cases[] = {{RT_BOARD_BUCKET, "batch size", 4},
                 {RT_BOARD_QUERY_LEN, "query length", 1},
                 {RT_BOARD_CHUNK, "tokens of a chunk", 0},
                 {RT_BOARD_ROWS, "live rows", 3},
                 {RT_BOARD_LAYERS, "layers", 0},
                 {RT_BOARD_STAGES, "exchanges behind stages", 0},
                 {RT_BOARD_CONTEXT, "ranks of a context", 0},
                 {RT_BOARD_SHARED_ROWS, "live rows of a shared context", 0},
                 {RT_BOARD_TOKENS, "tokens of its live rows", 0},
                 {RT_BOARD_SHARES, "the digest of its rows' tokens", 0}};
    assert_int_equal(sizeof(cases) / sizeof(cases[0]), RT_BOARD_FIELD_COUNT);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct crew crew;
        enum rt_board_field field = cases[i].field;
        crew_begin(&crew, 2);
        crew.user = &field;
        crew_run(&crew, differ);
        for (uint32_t r = 0; r < 2; r++) {
            char story[256];
            (void)snprintf(
                story, sizeof(story), "step 2: rank %u has %s %u, rank %u (this one) has %u", 1 - r,
                cases[i].words, cases[i].usual + 10 * (1 - r), r, cases[i].usual + 10 * r);
            crew_expect(&crew, r, RT_ERR_RANKS, story);
        }
    }
}

/* Rank 1 stays where it is until rank 0 has had enough. */
static enum rt_status fall_behind(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    (void)crew;
    RT_TRY(step(c, usual, err));
    if (c->rank == 0)
        return step(c, usual, err);
    while (c->board.page->lines[0].state == RT_BOARD_JOINED)
        nap(1);
    return step(c, usual, err);
}

static void test_a_rank_that_is_behind(void **state)
{
    (void)state;
    struct crew crew;
    crew_begin(&crew, 2);
    crew.limit_ns = SHORT_NS;
    crew_run(&crew, fall_behind);
    crew_expect(&crew, 0, RT_ERR_RANKS,
                "rank 1 has not begun step 2 within 0.300 s; its last is 1, that of rank 0 (this "
                "one) 2");
}

/* Time alone is no failure where nobody is ahead. */
static enum rt_status rest(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    RT_TRY(step(c, usual, err));
    nap((long)(2 * crew->limit_ns / 1000000));
    return step(c, usual, err);
}

static void test_ranks_that_rest(void **state)
{
    (void)state;
    struct crew crew;
    crew_begin(&crew, 2);
    crew.limit_ns = UINT64_C(1000000000);
    crew_succeed(&crew, rest);
}

static enum rt_status leave_early(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    (void)crew;
    RT_TRY(step(c, usual, err));
    return c->rank == 1 ? RT_OK : step(c, usual, err);
}

static void test_a_rank_that_leaves(void **state)
{
    (void)state;
    struct crew crew;
    crew_begin(&crew, 2);
    crew_run(&crew, leave_early);
    crew_expect(&crew, 1, RT_OK, "");
    crew_expect(&crew, 0, RT_ERR_RANKS, "rank 1 has left the group; its last step was 1");
}

/* Rank 1 never comes to the exchange of a step that it has begun. */
static enum rt_status stall(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    const uint64_t words[RT_BOARD_CALL_WORDS] = {0};
    (void)crew;
    RT_TRY(step(c, usual, err));
    if (c->rank == 0) {
        struct rt_error why = {.status = RT_OK};
        const enum rt_status status = rt_board_meet(&c->board, words, &why);
        *err = why;
        return status == RT_OK ? RT_OK : rt_comm_fail(c, err);
    }
    while (c->board.page->lines[0].state == RT_BOARD_JOINED)
        nap(1);
    return RT_OK;
}

static void test_a_rank_that_stalls(void **state)
{
    (void)state;
    struct crew crew;
    crew_begin(&crew, 2);
    crew.limit_ns = SHORT_NS;
    crew_run(&crew, stall);
    crew_expect(&crew, 0, RT_ERR_RANKS,
                "rank 1 has not come to exchange 1 of step 1 within 0.300 s; its last step is 1");
}

/* ---- processes ------------------------------------------------------------------------------- */

/* Rank 1 in a process of its own, which ends after its first step without a word. */
static void child(const char *path)
{
    struct rt_error err;
    struct rt_comm c;
    if (rt_comm_meet(path, 1, 2, CREW_LIMIT_NS, &c, &err) == RT_OK)
        (void)step(&c, usual, &err);
    (void)raise(SIGKILL);
}

static void test_a_rank_that_is_killed(void **state)
{
    (void)state;
    struct crew crew;
    struct rt_comm c;
    struct rt_error err = {.status = RT_OK};
    crew_begin(&crew, 2);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        child(crew.path);
    assert_int_equal(rt_comm_meet(crew.path, 0, 2, CREW_LIMIT_NS, &c, &err), RT_OK);
    assert_int_equal(step(&c, usual, &err), RT_OK);
    /* It is dead and nobody has asked for its remains: its number is still there. */
    assert_int_equal(step(&c, usual, &err), RT_ERR_RANKS);
    assert_string_equal(err.message, "rank 1 is gone, its process has ended; its last step was 1");
    rt_comm_close(&c);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* ---- coming together ------------------------------------------------------------------------- */

static void test_a_rank_that_does_not_come(void **state)
{
    (void)state;
    struct crew crew;
    struct rt_comm c;
    struct rt_error err = {.status = RT_OK};
    crew_begin(&crew, 2);
    assert_int_equal(rt_comm_meet(crew.path, 0, 2, SHORT_NS, &c, &err), RT_ERR_RANKS);
    crew_assert_story(&err, crew.path, "rank 1 of 2 has not come within 0.300 s");
    /* What it has left is nobody's: the next group begins anew, in another size too. */
    assert_int_equal(access(crew.path, F_OK), 0);
    crew.ranks = 3;
    crew_succeed(&crew, many_steps);
}

/* ---- the table ------------------------------------------------------------------------------- */

/* Every operation once, the one of `user` of rank 0 fails. */
static enum rt_status fail_one(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct rt_driver d = {0};
    const uint64_t *const fail_at = crew->user;
    c->probe.fail_at = c->rank == 0 ? *fail_at : 0;
    enum rt_status status = open_host(c, &d, err);
    if (status == RT_OK)
        status = rt_comm_post(c, usual, err);
    uint32_t mine = c->rank, all[2];
    if (status == RT_OK)
        status = rt_comm_gather(c, &mine, all, sizeof(mine), err);
    if (status == RT_OK) {
        const struct rt_collective x = {
            .kind = RT_ALL_REDUCE, .dtype = RT_DTYPE_F32, .ranks = 2, .comm = c};
        status = rt_comm_try(c, &d, &x, NULL, err);
    }
    rt_driver_close(&d);
    return status;
}

static void test_every_call_fails_once(void **state)
{
    (void)state;
    static const char *const names[] = {"open", "post",    "gather",  "barrier",
                                        "look", "connect", "exchange"};
    assert_int_equal(sizeof(names) / sizeof(names[0]), RT_COMM_OP_COUNT);
    for (uint64_t i = 0; i < RT_COMM_OP_COUNT; i++) {
        struct crew crew;
        char story[128];
        uint64_t fail_at = i + 1;
        crew_begin(&crew, 2);
        crew.user = &fail_at;
        crew_run(&crew, fail_one);
        (void)snprintf(story, sizeof(story), "%s failed: injected failure", names[i]);
        crew_expect(&crew, 0, RT_ERR_RANKS, story);
        assert_int_equal(crew.status[1], RT_ERR_RANKS);
        if (!strstr(crew.error[1].message, "injected failure"))
            fail_msg("rank 1 was not told of %s: \"%s\"", names[i], crew.error[1].message);
    }
    struct crew crew;
    uint64_t never = 0;
    crew_begin(&crew, 2);
    crew.user = &never;
    crew_succeed(&crew, fail_one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rank_has_the_same_bits),
        cmocka_unit_test(test_halves_are_rounded_once),
        cmocka_unit_test(test_exchanges_that_differ),
        cmocka_unit_test(test_ranks_that_agree),
        cmocka_unit_test(test_ranks_that_disagree),
        cmocka_unit_test(test_a_rank_that_is_behind),
        cmocka_unit_test(test_ranks_that_rest),
        cmocka_unit_test(test_a_rank_that_leaves),
        cmocka_unit_test(test_a_rank_that_stalls),
        cmocka_unit_test(test_a_rank_that_is_killed),
        cmocka_unit_test(test_a_rank_that_does_not_come),
        cmocka_unit_test(test_every_call_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
