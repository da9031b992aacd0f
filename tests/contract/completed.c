/* SPDX-License-Identifier: Apache-2.0 */
/* How far the device is, for threads that do not own the runtime. */
#include "tests/support/fixture.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STEPS 200u

static uint64_t completed(const rt_runtime *rt)
{
    uint64_t ticket = 77;
    assert_int_equal(rt_completed(rt, &ticket), RT_OK);
    return ticket;
}

static void the_word_follows_the_device(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    strcpy(config.device, "host");
    rt_runtime *rt = fixture_create(&config);
    fixture_randomise(rt, 71);
    rt_seq seq = fixture_open(rt);
    const uint64_t *word = NULL;
    assert_int_equal(rt_completed_word(rt, &word), RT_OK);
    assert_int_equal((uintptr_t)word % 64, 0);
    assert_int_equal(completed(rt), 0);
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    uint64_t tickets[3];
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(fixture_step(rt, &seq, 1, 1, &tickets[i]), RT_OK);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(completed(rt), i ? tickets[i - 1] : 0);
        assert_int_equal(rt_host_release(rt, 1, NULL), RT_OK);
        assert_int_equal(__atomic_load_n(word, __ATOMIC_ACQUIRE), tickets[i]);
    }
    assert_int_equal(rt->harvested, 0); /* who looks takes nothing from the owner */
    assert_int_equal(rt_wait(rt, tickets[2], 0), RT_OK);
    rt_destroy(&rt);
}

/* Null is refused without a sentence, for that is the owner's. */
static void nothing_of_the_owners_is_touched(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    uint64_t ticket;
    const uint64_t *word;
    assert_int_equal(rt_seq_close(rt, 99), RT_ERR_SEQUENCE);
    const struct rt_error before = *rt_last_error(rt);
    assert_int_equal(rt_completed(rt, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_completed_word(rt, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_completed(rt, &ticket), RT_OK);
    assert_memory_equal(&before, rt_last_error(rt), sizeof(before));
    assert_int_equal(rt_completed(NULL, &ticket), RT_ERR_INVALID);
    assert_int_equal(rt_completed_word(NULL, &word), RT_ERR_INVALID);
    rt_destroy(&rt);
}

struct watch {
    const rt_runtime *rt;
    _Atomic uint64_t told; /* of the ticket that the owner has been given last */
    uint64_t seen, backward;
};

/* Reads on while the owner steps; what it sees only grows. */
static void *watch(void *user)
{
    struct watch *w = user;
    while (w->seen < STEPS) {
        uint64_t ticket = 0;
        (void)rt_completed(w->rt, &ticket);
        w->backward += ticket < w->seen;
        w->seen = ticket;
        atomic_store(&w->told, ticket);
        sched_yield();
    }
    return NULL;
}

static void another_thread_sees_every_step(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 72);
    struct watch w = {.rt = rt};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, watch, &w), 0);
    uint64_t ticket = 0;
    while (ticket < STEPS) {
        rt_seq seq = fixture_open(rt);
        for (uint32_t i = 0; i < 80 && ticket < STEPS; i++) {
            assert_int_equal(fixture_step(rt, &seq, 1, 1, &ticket), RT_OK);
            while (atomic_load(&w.told) < ticket) /* in the place of rt_wait */
                sched_yield();
            assert_int_equal(rt_wait(rt, ticket, 0), RT_OK);
        }
        assert_int_equal(rt_seq_close(rt, seq), RT_OK);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(w.seen, STEPS);
    assert_int_equal(w.backward, 0);
    rt_destroy(&rt);
}

/* A stage may ask, though of everything else it is refused. */
static int ask(void *user, const struct rt_stage_context *context)
{
    return rt_completed(context->runtime, user) == RT_OK ? 0 : 1;
}

static void a_stage_may_ask(void **state)
{
    (void)state;
    uint64_t seen = 77;
    rt_runtime *rt = fixture_create_stage(RT_STAGE_STEP_END, ask, &seen);
    fixture_randomise(rt, 73);
    rt_seq seq = fixture_open(rt);
    fixture_step_ok(rt, &seq, 1, 1);
    assert_int_equal(seen, 0);
    fixture_step_ok(rt, &seq, 1, 1);
    assert_int_equal(seen, 1);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_word_follows_the_device),
        cmocka_unit_test(nothing_of_the_owners_is_touched),
        cmocka_unit_test(another_thread_sees_every_step),
        cmocka_unit_test(a_stage_may_ask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
