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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_barrier),
        cmocka_unit_test(test_a_device_that_stalls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
