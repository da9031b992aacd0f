/* SPDX-License-Identifier: Apache-2.0 */
/* What a fork, a rewind, a device-decided length and a stage callback mean, seen from the output.
 */
#include "bench/bare_launch.h"
#include "tests/support/fixture.h"
#include "tests/support/history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_fork_shares_the_past_and_not_the_future(void **state)
{
    (void)state;
    const uint32_t lengths[] = {1, 15, 16, 17, 31, 32, 40};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        uint32_t n = lengths[i];
        rt_runtime *rt = fixture_create(NULL);
        fixture_randomise(rt, 21);
        uint16_t parent_out[HISTORY_OUT], child_out[HISTORY_OUT], truth[HISTORY_OUT];
        rt_seq parent = fixture_open(rt), child;
        history_grow(rt, parent, 1, 0, n);
        uint32_t free_before = rt->pages.free_count;
        assert_int_equal(rt_seq_fork(rt, parent, &child), RT_OK);
        assert_int_equal(free_before - rt->pages.free_count, n % 16 ? 1 : 0);
        for (uint32_t p = n; p < n + 20; p++) { /* both grow at once, over a page edge */
            rt_seq both[2] = {child, parent};
            history_feed(rt, 0, 2, p);
            history_feed(rt, 1, 1, p);
            fixture_step_ok(rt, both, 2, 1);
        }
        history_out(rt, 0, child_out);
        history_out(rt, 1, parent_out);
        history_truth(rt, 1, n + 20, 1, n + 20, truth);
        assert_memory_equal(parent_out, truth, sizeof(truth));
        history_truth(rt, 1, n, 2, n + 20, truth);
        assert_memory_equal(child_out, truth, sizeof(truth));
        assert_int_equal(rt_seq_close(rt, parent), RT_OK);
        history_step(rt, child, 2, n + 20);
        history_out(rt, 0, child_out);
        history_truth(rt, 1, n, 2, n + 21, truth);
        assert_memory_equal(child_out, truth, sizeof(truth));
        assert_int_equal(rt_seq_close(rt, child), RT_OK);
        assert_int_equal(rt->pages.free_count, 24);
        rt_destroy(&rt);
    }
}

static void a_rewind_forgets(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 22);
    const uint32_t backs[] = {40, 39, 33, 32, 31, 16, 1, 0};
    for (size_t i = 0; i < sizeof(backs) / sizeof(backs[0]); i++) {
        uint16_t out[HISTORY_OUT], truth[HISTORY_OUT];
        rt_seq seq = fixture_open(rt);
        history_grow(rt, seq, 1, 0, 40);
        assert_int_equal(rt_seq_rewind(rt, seq, backs[i]), RT_OK);
        uint32_t length;
        assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
        assert_int_equal(length, backs[i]);
        history_grow(rt, seq, 2, backs[i], backs[i] + 5);
        history_out(rt, 0, out);
        assert_int_equal(rt_seq_close(rt, seq), RT_OK);
        history_truth(rt, 1, backs[i], 2, backs[i] + 5, truth);
        assert_memory_equal(out, truth, sizeof(truth));
    }
    rt_destroy(&rt);
}

static int32_t step_token(rt_runtime *rt, rt_seq seq)
{
    int32_t token;
    fixture_step_ok(rt, &seq, 1, 1);
    assert_int_equal(rt_tensor_read(rt, "tokens", 0, 0, &token, sizeof(token)), RT_OK);
    return token;
}

static void a_rewind_forgets_the_last_token_only_with_its_past(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 26);
    const struct rt_seq_params params = {.struct_size = sizeof(params), .last_token = 42};
    rt_seq seq;
    assert_int_equal(rt_seq_open(rt, &params, &seq), RT_OK);
    assert_int_equal(rt_seq_rewind(rt, seq, 0), RT_OK); /* opened and rewound in one record */
    assert_int_equal(step_token(rt, seq), 42);
    assert_int_equal(rt_seq_rewind(rt, seq, 1), RT_OK);
    assert_int_equal(step_token(rt, seq), 42);
    assert_int_equal(rt_seq_rewind(rt, seq, 1), RT_OK);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, NULL), RT_ERR_INVALID);
    history_step(rt, seq, 1, 7); /* names token 7 */
    assert_int_equal(step_token(rt, seq), 7);
    rt_destroy(&rt);
}

/* Accepts nothing, and samples what the test says. */
static int accept_nothing(void *user, const struct rt_stage_context *context)
{
    struct rt_tensor accepted = {.struct_size = sizeof(accepted)}, sampled = accepted;
    if (rt_tensor(context->runtime, "accepted", 0, &accepted) != RT_OK ||
        rt_tensor(context->runtime, "sampled", 0, &sampled) != RT_OK)
        return 1;
    *(int32_t *)(uintptr_t)accepted.address = 0;
    *(int32_t *)(uintptr_t)sampled.address = *(int32_t *)user;
    return 0;
}

/* Where the device keeps none of the step's tokens, the past is as short as before: only a sampled
 * token is one that the next step can go on from. */
static void a_step_that_keeps_nothing_leaves_no_last_token(void **state)
{
    (void)state;
    int32_t sampled = -1;
    rt_runtime *rt = fixture_create_stage(RT_STAGE_STEP_END, accept_nothing, &sampled);
    fixture_randomise(rt, 28);
    const struct rt_seq_params past = {.struct_size = sizeof(past), .length = 3};
    rt_seq seq;
    assert_int_equal(rt_seq_open(rt, &past, &seq), RT_OK);
    assert_int_equal(rt_seq_rewind(rt, seq, 2), RT_OK);
    const int32_t tokens[] = {4, 5, 6}, accept = RT_ACCEPT_DEVICE;
    struct rt_step_params p = {.struct_size = sizeof(p),
                               .rows = 1,
                               .query_len = 3,
                               .seqs = &seq,
                               .tokens = tokens,
                               .accept = &accept};
    for (sampled = -1; sampled < 1; sampled++) {
        uint64_t ticket;
        assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
        p.tokens = NULL;
        assert_int_equal(rt_step(rt, &p, &ticket), sampled < 0 ? RT_ERR_INVALID : RT_OK);
        p.tokens = tokens;
    }
    rt_destroy(&rt);
}

static int accept_one_each(void *user, const struct rt_stage_context *context)
{
    (void)user;
    struct rt_tensor accepted = {.struct_size = sizeof(accepted)};
    if (rt_tensor(context->runtime, "accepted", 0, &accepted) != RT_OK)
        return 1;
    for (uint32_t r = 0; r < context->batch; r++)
        ((int32_t *)(uintptr_t)accepted.address)[r] = 1;
    return 0;
}

/* A captured stage writes all rows; those that are not left to it keep what the step says. */
static void a_stage_decides_only_where_it_may(void **state)
{
    (void)state;
    static const uint32_t kept[] = {3, 1, 2};
    static const int32_t accept[] = {RT_ACCEPT_ALL, RT_ACCEPT_DEVICE, 2};
    rt_runtime *rt = fixture_create_stage(RT_STAGE_STEP_END, accept_one_each, NULL);
    rt_seq seqs[] = {fixture_open(rt), fixture_open(rt), fixture_open(rt)};
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .rows = 3, .query_len = 3, .seqs = seqs, .accept = accept};
    for (uint32_t step = 1; step <= 3; step++) {
        struct rt_row_result results[3];
        uint32_t length, count;
        uint64_t ticket;
        int32_t device[3];
        assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
        assert_int_equal(rt_result(rt, ticket, results, 3, &count), RT_OK);
        assert_int_equal(rt_tensor_read(rt, "slot_lengths", 0, 0, device, sizeof(device)), RT_OK);
        for (uint32_t r = 0; r < 3; r++) {
            assert_int_equal(results[r].accepted, kept[r]);
            assert_int_equal(rt_seq_length(rt, seqs[r], &length), RT_OK);
            assert_int_equal(length, step * kept[r]);
            assert_int_equal(device[r], step * kept[r]);
        }
    }
    rt_destroy(&rt);
}

static void a_rewind_into_a_shared_page_copies_it(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 23);
    uint16_t out[HISTORY_OUT], truth[HISTORY_OUT];
    rt_seq parent = fixture_open(rt), child;
    history_grow(rt, parent, 1, 0, 32); /* two full pages, both shared with the child */
    assert_int_equal(rt_seq_fork(rt, parent, &child), RT_OK);
    assert_int_equal(rt_seq_rewind(rt, child, 20), RT_OK);
    history_grow(rt, child, 2, 20, 36);
    history_out(rt, 0, out);
    history_truth(rt, 1, 20, 2, 36, truth);
    assert_memory_equal(out, truth, sizeof(truth));
    history_step(rt, parent, 1, 32);
    history_out(rt, 0, out);
    history_truth(rt, 1, 33, 1, 33, truth);
    assert_memory_equal(out, truth, sizeof(truth));
    rt_destroy(&rt);
}

/* ---- device-decided lengths and tokens ----------------------------------------------------------
 */

/* Accepts (step % 3) + 1 of 3 tokens and samples 100 + step, on the device. */
static int decide(void *user, const struct rt_stage_context *context)
{
    uint32_t *step = user;
    struct rt_tensor accepted = {.struct_size = sizeof(accepted)}, sampled = accepted;
    if (rt_tensor(context->runtime, "accepted", 0, &accepted) != RT_OK ||
        rt_tensor(context->runtime, "sampled", 0, &sampled) != RT_OK)
        return 1;
    ((int32_t *)(uintptr_t)accepted.address)[0] = (int32_t)(*step % context->query_len) + 1;
    ((int32_t *)(uintptr_t)sampled.address)[0] = 100 + (int32_t)*step;
    ++*step;
    return 0;
}

static void the_device_decides(void **state)
{
    (void)state;
    uint32_t step = 0;
    rt_runtime *rt = fixture_create_stage(RT_STAGE_STEP_END, decide, &step);
    fixture_randomise(rt, 24);
    rt_seq seq = fixture_open(rt);
    const int32_t accept = RT_ACCEPT_DEVICE;
    uint32_t expected = 0;
    rt_driver_host_hold(&rt->driver, rt->stream, true);
    for (uint32_t i = 0; i < 12; i++) {
        const struct rt_step_params p = {
            .struct_size = sizeof(p), .rows = 1, .query_len = 3, .seqs = &seq, .accept = &accept};
        uint64_t ticket;
        assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
        assert_int_equal(rt_seq_rewind(rt, seq, 0), RT_ERR_BUSY);
        if (i % 2)
            assert_int_equal(rt_driver_host_release(&rt->driver, rt->stream, UINT32_MAX), 2);
        expected += i % 3 + 1;
        if (i % 2 == 0)
            continue;
        uint32_t length;
        assert_int_equal(rt_wait(rt, ticket, 0), RT_OK);
        assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
        assert_int_equal(length, expected);
        struct rt_row_result result;
        uint32_t count;
        assert_int_equal(rt_result(rt, ticket, &result, 1, &count), RT_OK);
        assert_int_equal(result.accepted, i % 3 + 1);
        assert_int_equal(result.sampled, 100 + (int)i);
    }
    rt_driver_host_hold(&rt->driver, rt->stream, false);
    struct rt_stats stats = {.struct_size = sizeof(stats)};
    assert_int_equal(rt_get_stats(rt, &stats), RT_OK);
    assert_int_equal(stats.busy, 12); /* the rewinds */
    /* the sampled token is the next step's token where the host names none */
    fixture_step_ok(rt, &seq, 1, 1);
    int32_t token;
    assert_int_equal(rt_tensor_read(rt, "tokens", 0, 0, &token, sizeof(token)), RT_OK);
    assert_int_equal(token, 111);
    rt_destroy(&rt);
}

/* While steps in flight may still add six tokens or none, what is certain is told, and what may be
 * has its room. */
static void lengths_that_are_not_decided_yet(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    strcpy(config.device, "host");
    config.ring_depth = 8;
    uint32_t step = 0, length;
    const struct rt_create_params params = {.struct_size = sizeof(params),
                                            .config = &config,
                                            .stages = {[RT_STAGE_STEP_END] = decide},
                                            .stage_user = &step};
    rt_runtime *rt = NULL;
    assert_int_equal(rt_create(&params, &rt, NULL), RT_OK);
    fixture_randomise(rt, 29);
    const struct rt_seq_params past = {.struct_size = sizeof(past), .length = 73};
    rt_seq seq;
    assert_int_equal(rt_seq_open(rt, &past, &seq), RT_OK);
    const int32_t accept = RT_ACCEPT_DEVICE;
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .rows = 1, .query_len = 3, .seqs = &seq, .accept = &accept};
    rt_driver_host_hold(&rt->driver, rt->stream, true);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rt_step(rt, &p, NULL), RT_OK);
        assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
        assert_int_equal(length, 73);
    }
    assert_int_equal(rt_step(rt, &p, NULL), RT_ERR_BUSY);
    assert_non_null(strstr(rt_last_error(rt)->message, "up to 79 tokens and 3 new ones"));
    assert_int_equal(fixture_step(rt, &seq, 1, 1, NULL), RT_OK);
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    assert_int_equal(length, 74);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, NULL), RT_ERR_BUSY);
    rt_driver_host_hold(&rt->driver, rt->stream, false);
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    assert_int_equal(length, 73 + 1 + 2 + 1);
    fixture_step_ok(rt, &seq, 1, 3);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, NULL), RT_ERR_LENGTH);
    assert_non_null(strstr(rt_last_error(rt)->message, "80 tokens and 1 new ones"));
    rt_destroy(&rt);
}

/* The slot is where the device keeps the sequence: what its rows say, until it is closed. */
static void slots_are_what_rows_say(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    rt_seq seqs[3];
    uint32_t slots[3], again = 99;
    for (uint32_t i = 0; i < 3; i++) {
        seqs[i] = fixture_open(rt);
        assert_int_equal(rt_seq_slot(rt, seqs[i], &slots[i]), RT_OK);
    }
    assert_int_equal(rt_seq_close(rt, seqs[1]), RT_OK);
    assert_int_equal(rt_seq_slot(rt, seqs[1], &again), RT_ERR_SEQUENCE);
    assert_int_equal(again, 99);
    seqs[1] = fixture_open(rt);
    assert_int_equal(rt_seq_slot(rt, seqs[1], &slots[1]), RT_OK);
    for (uint32_t i = 0; i < 3; i++) {
        int32_t row = -1;
        fixture_step_ok(rt, &seqs[i], 1, 1);
        assert_int_equal(rt_tensor_read(rt, "slots", 0, 0, &row, sizeof(row)), RT_OK);
        assert_int_equal(row, slots[i]);
        assert_int_equal(rt_seq_slot(rt, seqs[i], &again), RT_OK);
        assert_int_equal(again, slots[i]);
        for (uint32_t k = 0; k < i; k++)
            assert_int_not_equal(slots[k], slots[i]);
    }
    assert_int_equal(rt_seq_slot(rt, seqs[0], NULL), RT_ERR_INVALID);
    assert_non_null(strstr(rt_last_error(rt)->message, "rt_seq_slot: out is null"));
    rt_destroy(&rt);
}

/* ---- callbacks
 * ----------------------------------------------------------------------------------- */

struct seen {
    uint32_t calls[RT_STAGE_POINT_COUNT];
    uint32_t fail_point; /* RT_STAGE_POINT_COUNT: none */
};

static int count_stage(void *user, const struct rt_stage_context *context)
{
    struct seen *seen = user;
    assert_int_equal(context->struct_size, sizeof(*context));
    assert_int_equal(context->host, 1);
    assert_null(context->stream);
    assert_true(context->layer < 2);
    seen->calls[context->point]++;
    return context->point == seen->fail_point ? 7 : 0;
}

static void stages_run_at_every_step(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    strcpy(config.device, "host");
    struct seen seen = {.fail_point = RT_STAGE_POINT_COUNT};
    const struct rt_create_params params = {
        .struct_size = sizeof(params),
        .config = &config,
        .stages = {count_stage, count_stage, count_stage, count_stage},
        .stage_user = &seen};
    rt_runtime *rt = NULL;
    assert_int_equal(rt_create(&params, &rt, NULL), RT_OK);
    fixture_randomise(rt, 25);
    memset(seen.calls, 0, sizeof(seen.calls));
    rt_seq seq = fixture_open(rt);
    fixture_step_ok(rt, &seq, 1, 1);
    const uint32_t expected[] = {1, 2, 2, 1};
    assert_memory_equal(seen.calls, expected, sizeof(expected));
    struct rt_step_params eager = {
        .struct_size = sizeof(eager), .flags = RT_STEP_EAGER, .rows = 1, .seqs = &seq};
    assert_int_equal(rt_step(rt, &eager, NULL), RT_OK);
    const uint32_t twice[] = {2, 4, 4, 2};
    assert_memory_equal(seen.calls, twice, sizeof(twice));
    seen.fail_point = RT_STAGE_AFTER_ATTENTION;
    eager.flags = 0;
    assert_int_equal(rt_step(rt, &eager, NULL), RT_ERR_CALLBACK);
    eager.flags = RT_STEP_EAGER;
    assert_int_equal(rt_step(rt, &eager, NULL), RT_ERR_CALLBACK);
    uint32_t length;
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    assert_int_equal(length, 2);
    seen.fail_point = RT_STAGE_POINT_COUNT; /* nobody takes what is left of it for a step */
    uint64_t bare_ns;
    for (int i = 0; i < 3; i++)
        assert_int_equal(bare_launch(rt, 1, 1, &bare_ns), RT_OK);
    assert_int_equal(bare_launch(rt, 1, 8, &bare_ns), RT_ERR_INVALID);
    assert_int_equal(rt_ring_completed(&rt->ring), 2);
    /* and the step can be taken again */
    fixture_step_ok(rt, &seq, 1, 1);
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    assert_int_equal(length, 3);
    rt_destroy(&rt);
}

/* Fails where the graph is the small one: the last replay of a large batch. */
static int fail_small(void *user, const struct rt_stage_context *context)
{
    return *(bool *)user && context->batch == 2;
}

static void assert_lengths(rt_runtime *rt, const rt_seq *seqs, uint32_t first_four, uint32_t others)
{
    for (int i = 0; i < 6; i++) {
        uint32_t length;
        assert_int_equal(rt_seq_length(rt, seqs[i], &length), RT_OK);
        assert_int_equal(length, i < 4 ? first_four : others);
    }
}

/* The one failure that is not as if nothing had been asked for: what ran stays, the rest is as it
 * was, and all of it goes on from there. */
static void a_later_replay_fails_by_itself(void **state)
{
    (void)state;
    bool failing = true;
    rt_runtime *rt = fixture_create_stage(RT_STAGE_AFTER_ATTENTION, fail_small, &failing);
    fixture_randomise(rt, 27);
    rt_seq seqs[6];
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    const uint32_t flags[] = {0, RT_STEP_EAGER};
    for (uint32_t i = 0; i < 2; i++) {
        const struct rt_step_params p = {
            .struct_size = sizeof(p), .flags = flags[i], .rows = 6, .seqs = seqs};
        uint64_t ticket = 77;
        assert_int_equal(rt_step(rt, &p, &ticket), RT_ERR_CALLBACK);
        assert_int_equal(ticket, i + 1); /* of the four rows that have had their step */
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
        struct rt_row_result results[6];
        uint32_t count = 0;
        assert_int_equal(rt_result(rt, ticket, results, 6, &count), RT_OK);
        assert_int_equal(count, 4);
        assert_lengths(rt, seqs, i + 1, 0);
        assert_int_equal(rt->pages.free_count, 20);
    }
    const struct rt_step_params first_fails = {
        .struct_size = sizeof(first_fails), .rows = 2, .seqs = seqs};
    uint64_t untouched = 77;
    assert_int_equal(rt_step(rt, &first_fails, &untouched), RT_ERR_CALLBACK);
    assert_int_equal(untouched, 77);
    failing = false;
    fixture_step_ok(rt, seqs, 6, 1);
    assert_lengths(rt, seqs, 3, 1);
    for (int i = 0; i < 6; i++)
        assert_int_equal(rt_seq_close(rt, seqs[i]), RT_OK);
    assert_int_equal(rt->pages.free_count, 24);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fork_shares_the_past_and_not_the_future),
        cmocka_unit_test(a_rewind_forgets),
        cmocka_unit_test(a_rewind_forgets_the_last_token_only_with_its_past),
        cmocka_unit_test(a_step_that_keeps_nothing_leaves_no_last_token),
        cmocka_unit_test(a_stage_decides_only_where_it_may),
        cmocka_unit_test(a_rewind_into_a_shared_page_copies_it),
        cmocka_unit_test(the_device_decides),
        cmocka_unit_test(lengths_that_are_not_decided_yet),
        cmocka_unit_test(slots_are_what_rows_say),
        cmocka_unit_test(stages_run_at_every_step),
        cmocka_unit_test(a_later_replay_fails_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
