/* SPDX-License-Identifier: Apache-2.0 */
/* When a page may be filled from outside: closing a sequence hands its pages on while steps in
 * flight still write them. Needs the host device, whose work a test can hold back. */
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 16
#define D_QK 288

static rt_runtime *create_held(const struct rt_config *given)
{
    struct rt_config config;
    fixture_config(&config);
    if (given)
        config = *given;
    config.ring_depth = 8;
    rt_runtime *rt = fixture_create(&config);
    if (rt->driver.caps.kind != RT_DEVICE_KIND_HOST) {
        rt_destroy(&rt);
        skip();
    }
    fixture_randomise(rt, 51);
    rt_driver_host_hold(&rt->driver, rt->stream, true);
    return rt;
}

static rt_seq open_with(rt_runtime *rt, uint32_t length)
{
    const struct rt_seq_params params = {.struct_size = sizeof(params), .length = length};
    rt_seq seq = 0;
    assert_int_equal(rt_seq_open(rt, &params, &seq), RT_OK);
    return seq;
}

static uint64_t step(rt_runtime *rt, rt_seq seq)
{
    uint64_t ticket = 0;
    assert_int_equal(fixture_step(rt, &seq, 1, 1, &ticket), RT_OK);
    return ticket;
}

static uint64_t quiet(rt_runtime *rt, rt_seq seq)
{
    uint64_t ticket = 99;
    assert_int_equal(rt_seq_quiet(rt, seq, &ticket), RT_OK);
    return ticket;
}

static void release(rt_runtime *rt, uint32_t count)
{
    assert_int_equal(rt_driver_host_release(&rt->driver, rt->stream, count), count);
}

/* What somebody else's prefill would write into the first page that both sequences have had. */
static uint16_t *first_token(rt_runtime *rt, rt_seq seq)
{
    struct rt_tensor kv = {.struct_size = sizeof(kv)};
    int32_t page;
    uint32_t count;
    assert_int_equal(rt_seq_pages(rt, seq, &page, 1, &count), RT_OK);
    assert_int_equal(rt_tensor(rt, "kv", 0, &kv), RT_OK);
    return (uint16_t *)(uintptr_t)kv.address + (size_t)page * PAGE * D_QK;
}

static void pages_of_a_closed_sequence_are_still_written(void **state)
{
    (void)state;
    rt_runtime *rt = create_held(NULL);
    rt_seq first = fixture_open(rt);
    step(rt, first);
    uint16_t *early = first_token(rt, first);
    assert_int_equal(rt_seq_close(rt, first), RT_OK);
    rt_seq second = open_with(rt, 4);
    assert_ptr_equal(first_token(rt, second), early); /* the same page */
    assert_int_equal(quiet(rt, second), 1);
    *early = 0x1234;
    uint64_t later = step(rt, fixture_open(rt));
    assert_int_equal(later, 2);
    assert_int_equal(quiet(rt, second), 1); /* later steps of others do not matter */
    release(rt, 1);
    assert_int_not_equal(*early, 0x1234); /* too early: the first sequence's step was in flight */
    assert_int_equal(rt_wait(rt, 1, 0), RT_OK);
    assert_int_equal(quiet(rt, second), 0);
    *early = 0x1234;
    release(rt, 1);
    assert_int_equal(*early, 0x1234);
    rt_destroy(&rt);
}

static void steps_forks_and_rewinds_of_a_sequence(void **state)
{
    (void)state;
    rt_runtime *rt = create_held(NULL);
    rt_seq seq = open_with(rt, 20), other = fixture_open(rt), fork;
    assert_int_equal(quiet(rt, seq), 0);
    assert_int_equal(step(rt, seq), 1);
    assert_int_equal(step(rt, other), 2);
    assert_int_equal(quiet(rt, seq), 1);
    assert_int_equal(quiet(rt, other), 2);
    assert_int_equal(rt_seq_fork(rt, seq, &fork), RT_OK); /* step 3 copies a page of both */
    assert_int_equal(quiet(rt, seq), 3);
    assert_int_equal(quiet(rt, fork), 3);
    assert_int_equal(rt_seq_rewind(rt, fork, 5), RT_OK); /* step 4 copies the shared page */
    assert_int_equal(quiet(rt, seq), 4);
    assert_int_equal(quiet(rt, fork), 4);
    assert_int_equal(rt_wait(rt, 4, 0), RT_ERR_TIMEOUT); /* its ticket is one like any other */
    release(rt, 4);
    assert_int_equal(rt_wait(rt, 4, 0), RT_OK);
    assert_int_equal(quiet(rt, fork), 0);
    rt_destroy(&rt);
}

/* What a fork's step in flight reads is its parent's alone once the fork is closed, or rewound to
 * less: that step too is waited for, by who has such pages and no one else. */
static void pages_that_another_sequence_has_left(void **state)
{
    (void)state;
    for (int rewinds = 0; rewinds < 2; rewinds++) {
        rt_runtime *rt = create_held(NULL);
        const int32_t token = 3;
        rt_seq parent = open_with(rt, 2 * PAGE), other = fixture_open(rt), fork = 0;
        assert_int_equal(rt_seq_fork(rt, parent, &fork), RT_OK); /* step 1 copies nothing */
        assert_int_equal(step(rt, fork), 2);
        assert_int_equal(quiet(rt, parent), 0); /* its pages are nobody's to write */
        assert_int_equal(rewinds ? rt_seq_rewind(rt, fork, PAGE) : rt_seq_close(rt, fork), RT_OK);
        assert_int_equal(quiet(rt, parent), 2);
        assert_int_equal(quiet(rt, other), 0);
        const struct rt_step_params p = {
            .struct_size = sizeof(p), .rows = 1, .seqs = &other, .tokens = &token};
        assert_int_equal(rt_step(rt, &p, NULL), RT_OK);
        assert_int_equal(quiet(rt, parent), 2);
        release(rt, 2);
        assert_int_equal(quiet(rt, parent), 0);
        rt_destroy(&rt);
    }
}

/* The step in flight has a row of the slot, but of the sequence that had it before. */
static void a_slot_that_is_used_again(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    config.max_sequences = 1;
    rt_runtime *rt = create_held(&config);
    rt_seq first = fixture_open(rt);
    step(rt, first);
    assert_int_equal(rt_seq_close(rt, first), RT_OK);
    rt_seq second = fixture_open(rt);
    assert_int_equal((uint32_t)second, (uint32_t)first);
    assert_int_equal(quiet(rt, second), 0);
    assert_int_equal(step(rt, second), 2); /* with the page that step 1 still writes */
    assert_int_equal(quiet(rt, second), 2);
    rt_destroy(&rt);
}

/* Four rows and two: each waits for its own replay, not for the call's last one. */
static void rows_of_several_replays(void **state)
{
    (void)state;
    rt_runtime *rt = create_held(NULL);
    rt_seq seqs[6];
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    for (uint64_t call = 0; call < 3; call++) {
        assert_int_equal(fixture_step(rt, seqs, 6, 1, NULL), RT_OK);
        for (uint64_t i = 0; i < 6; i++)
            assert_int_equal(quiet(rt, seqs[i]), 2 * call + 1 + i / 4);
    }
    release(rt, 5);
    assert_int_equal(quiet(rt, seqs[3]), 0);
    assert_int_equal(quiet(rt, seqs[4]), 6);
    assert_int_equal(step(rt, seqs[3]), 7);
    assert_int_equal(quiet(rt, seqs[3]), 7);
    assert_int_equal(quiet(rt, seqs[4]), 6);
    rt_destroy(&rt);
}

/* Whoever had the pages before: the runtime does not know, so all steps before count. */
static void pages_that_the_caller_binds(void **state)
{
    (void)state;
    rt_runtime *rt = create_held(NULL);
    const struct rt_seq_params own = {.struct_size = sizeof(own), .pages = RT_PAGES_CALLER};
    rt_seq seq, other = fixture_open(rt);
    assert_int_equal(rt_seq_open(rt, &own, &seq), RT_OK);
    step(rt, other);
    assert_int_equal(quiet(rt, seq), 0);
    const int32_t page = 9;
    assert_int_equal(rt_seq_bind_pages(rt, seq, 0, &page, 1), RT_OK);
    step(rt, other);
    assert_int_equal(quiet(rt, seq), 1);
    assert_int_equal(step(rt, seq), 3);
    assert_int_equal(quiet(rt, seq), 3);
    rt_destroy(&rt);
}

/* Opening in the middle of a page copies it away: that reads it, and is no step of either. */
static void pages_that_others_open_on(void **state)
{
    (void)state;
    rt_runtime *rt = create_held(NULL);
    rt_seq seq = open_with(rt, 20), other = fixture_open(rt);
    int32_t pages[2];
    uint32_t count;
    assert_int_equal(rt_seq_pages(rt, seq, pages, 2, &count), RT_OK);
    assert_int_equal(step(rt, seq), 1);
    struct rt_seq_params params = {
        .struct_size = sizeof(params), .length = 16, .shared_pages = pages, .shared_count = 1};
    rt_seq whole, part;
    assert_int_equal(rt_seq_open(rt, &params, &whole), RT_OK);
    assert_int_equal(quiet(rt, whole), 1);
    assert_int_equal(step(rt, other), 2);
    params.length = 19;
    params.shared_count = 2;
    assert_int_equal(rt_seq_open(rt, &params, &part), RT_OK); /* step 3 copies */
    assert_int_equal(quiet(rt, seq), 3);
    assert_int_equal(quiet(rt, part), 3);
    assert_int_equal(quiet(rt, whole), 1); /* none of its pages is copied */
    assert_int_equal(quiet(rt, other), 2);
    release(rt, 3);
    assert_int_equal(quiet(rt, seq), 0);
    assert_int_equal(quiet(rt, part), 0);
    rt_destroy(&rt);
}

/* Whoever gets a page that was released waits for those that had it, as after a close. */
static void pages_that_were_retained(void **state)
{
    (void)state;
    rt_runtime *rt = create_held(NULL);
    rt_seq first = fixture_open(rt), other = fixture_open(rt);
    int32_t page, again;
    uint32_t count;
    assert_int_equal(step(rt, first), 1);
    assert_int_equal(rt_seq_pages(rt, first, &page, 1, &count), RT_OK);
    assert_int_equal(rt_pages_retain(rt, &page, 1), RT_OK);
    assert_int_equal(rt_seq_close(rt, first), RT_OK);
    assert_int_equal(step(rt, other), 2);
    assert_int_equal(rt_pages_release(rt, &page, 1), RT_OK);
    rt_seq second = open_with(rt, 3);
    assert_int_equal(rt_seq_pages(rt, second, &again, 1, &count), RT_OK);
    assert_int_equal(again, page);
    assert_int_equal(quiet(rt, second), 2);
    release(rt, 2);
    assert_int_equal(quiet(rt, second), 0);
    rt_destroy(&rt);
}

static void a_step_that_failed_is_waited_for_by_nobody(void **state)
{
    (void)state;
    rt_runtime *rt = create_held(NULL);
    rt_seq seq = fixture_open(rt);
    assert_int_equal(step(rt, seq), 1);
    rt->driver.probe.fail_at = rt->driver.probe.calls + 1;
    assert_int_equal(fixture_step(rt, &seq, 1, 1, NULL), RT_ERR_DRIVER);
    rt->driver.probe.fail_at = 0;
    assert_int_equal(quiet(rt, seq), 1);
    release(rt, 1);
    assert_int_equal(quiet(rt, seq), 0);
    uint64_t ticket = 99;
    assert_int_equal(rt_seq_quiet(rt, seq + 1, &ticket), RT_ERR_SEQUENCE);
    assert_int_equal(rt_seq_quiet(rt, seq, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_seq_quiet(NULL, seq, &ticket), RT_ERR_INVALID);
    assert_int_equal(ticket, 99);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_of_a_closed_sequence_are_still_written),
        cmocka_unit_test(steps_forks_and_rewinds_of_a_sequence),
        cmocka_unit_test(pages_that_another_sequence_has_left),
        cmocka_unit_test(a_slot_that_is_used_again),
        cmocka_unit_test(rows_of_several_replays),
        cmocka_unit_test(pages_that_the_caller_binds),
        cmocka_unit_test(pages_that_others_open_on),
        cmocka_unit_test(pages_that_were_retained),
        cmocka_unit_test(a_step_that_failed_is_waited_for_by_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
