/* SPDX-License-Identifier: Apache-2.0 */
/* Where ranks wait for each other, or for a device of theirs, and for how long. */
#include "tests/unit/comm_crew.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define SHORT_NS UINT64_C(300000000)

static const uint32_t usual[RT_BOARD_FIELD_COUNT] = {4, 1, 0, 3};

static void nap(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* A table of the host device that a group may use. */
static enum rt_status open_host(struct rt_comm *c, struct rt_driver *d, struct rt_error *err)
{
    RT_TRY(rt_driver_open_host(d, err));
    return rt_comm_open(c, d, NULL, err);
}

/* Rank 1 comes late, or never, or to an exchange instead. */
enum at_the_barrier { COME, COME_NOT, EXCHANGE };

static enum rt_status meet_all(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    const enum at_the_barrier *const how = crew->user;
    struct rt_driver d;
    const struct rt_collective x = {
        .kind = RT_ALL_REDUCE, .dtype = RT_DTYPE_F32, .ranks = 2, .comm = c};
    RT_TRY(open_host(c, &d, err));
    if (c->rank == 1)
        nap(50);
    if (c->rank == 1 && *how == COME_NOT)
        nap(2 * (long)(crew->limit_ns / 1000000));
    const enum rt_status status = c->rank == 1 && *how == EXCHANGE
                                      ? RT_DRV(&d, err, collective, (&d, &x, NULL))
                                      : rt_comm_barrier(c, err);
    rt_driver_close(&d);
    return status;
}

static void test_a_barrier(void **state)
{
    (void)state;
    static const char *const stories[] = {
        [COME] = "",
        [COME_NOT] = ("rank 1 has not come to exchange 1 of step 0 within 0.300 s; its last step "
                      "is 0"),
        [EXCHANGE] = "exchange 1 of step 0: rank 1 has kind 0, rank 0 (this one) 4"};
    for (enum at_the_barrier how = COME; how <= EXCHANGE; how++) {
        struct crew crew;
        crew_begin(&crew, 2);
        crew.user = &how;
        crew.limit_ns = SHORT_NS;
        crew_run(&crew, meet_all);
        crew_expect(&crew, 0, how == COME ? RT_OK : RT_ERR_RANKS, stories[how]);
    }
}

/* A device that does not come to an end of what all have begun. */
static void test_a_device_that_stalls(void **state)
{
    (void)state;
    struct crew crew;
    struct rt_driver d;
    struct rt_comm c;
    struct rt_error err = {.status = RT_OK};
    rt_dstream s;
    rt_addr memory;
    crew_begin(&crew, 1);
    assert_int_equal(rt_comm_meet(crew.path, 0, 1, SHORT_NS, &c, &err), RT_OK);
    assert_int_equal(open_host(&c, &d, &err), RT_OK);
    assert_int_equal(d.stream_create(&d, &s), 0);
    assert_int_equal(d.mem_alloc(&d, 64, &memory), 0);
    assert_int_equal(rt_comm_post(&c, usual, &err), RT_OK);
    assert_int_equal(rt_comm_await(&c, &d, s, true, &err), RT_OK);
    rt_driver_host_hold(&d, s, true);
    assert_int_equal(d.fill(&d, memory, 0, 64, s), 0);
    assert_int_equal(rt_comm_await(&c, &d, s, true, &err), RT_ERR_RANKS);
    assert_string_equal(err.message, "the device of rank 0 (this one) has not done step 1 within "
                                     "0.300 s, though all ranks have begun it");
    assert_int_equal(rt_comm_post(&c, usual, &err), RT_ERR_RANKS); /* and so it stays */
    rt_driver_host_hold(&d, s, false);
    assert_int_equal(d.mem_free(&d, memory), 0);
    assert_int_equal(d.stream_destroy(&d, s), 0);
    rt_comm_close(&c);
    rt_driver_close(&d);
}

/* ---- who posts at the same moment ------------------------------------------------------------ */

#define ROUNDS 10000u

struct meeting {
    _Atomic uint32_t here[2];       /* rounds that each rank has come to */
    enum rt_status seen[2][ROUNDS]; /* by each rank's post */
};

/* By spinning alone, so that both go on at once; who waits too long lets the other one run. */
static void start_together(struct meeting *m, uint32_t rank, uint32_t round)
{
    atomic_store(&m->here[rank], round);
    for (uint32_t turns = 1; atomic_load(&m->here[1 - rank]) < round; turns++)
        if (turns % 4096 == 0)
            nap(0);
}

/* Each round another step that the two do not agree on, as if it were their first. */
static enum rt_status disagree_at_once(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct meeting *const m = crew->user;
    uint32_t fields[RT_BOARD_FIELD_COUNT];
    (void)err;
    memcpy(fields, usual, sizeof(fields));
    fields[RT_BOARD_BUCKET] += c->rank;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct rt_error why = {.status = RT_OK};
        start_together(m, c->rank, 2 * round + 1);
        m->seen[c->rank][round] = rt_board_post(&c->board, fields, &why);
        start_together(m, c->rank, 2 * round + 2);
        c->board.peers[1 - c->rank].agreed = c->board.step;
    }
    return RT_OK;
}

/* Who does not see the other's step is seen by it: one of the two does not launch. */
static void test_posts_at_once(void **state)
{
    (void)state;
    static struct meeting m;
    struct crew crew;
    crew_begin(&crew, 2);
    crew.user = &m;
    crew_succeed(&crew, disagree_at_once);
    for (uint32_t round = 0; round < ROUNDS; round++)
        if (m.seen[0][round] == RT_OK && m.seen[1][round] == RT_OK)
            fail_msg("round %u: neither rank has seen that the other does something else", round);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_barrier),
        cmocka_unit_test(test_a_device_that_stalls),
        cmocka_unit_test(test_posts_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
