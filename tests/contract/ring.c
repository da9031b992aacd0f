/* SPDX-License-Identifier: Apache-2.0 */
/* The host running ahead of the device: a full ring is refused, nothing is overwritten, order
 * holds. Needs the host device, whose stream a test can hold. */
#include "driver/host/host_parts.h"
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static rt_runtime *create_held(void)
{
    rt_runtime *rt = fixture_create(NULL);
    if (rt->driver.caps.kind != RT_DEVICE_KIND_HOST) {
        rt_destroy(&rt);
        skip();
    }
    fixture_randomise(rt, 11);
    return rt;
}

static void hold(rt_runtime *rt, bool held)
{
    rt_driver_host_hold(&rt->driver, rt->stream, held);
}

static void release(rt_runtime *rt, uint32_t count)
{
    assert_int_equal(rt_driver_host_release(&rt->driver, rt->stream, count), count);
}

static void a_full_ring_is_busy(void **state)
{
    (void)state;
    rt_runtime *rt = create_held();
    rt_seq seq = fixture_open(rt);
    hold(rt, true);
    uint64_t tickets[4];
    for (int i = 0; i < 3; i++)
        assert_int_equal(fixture_step(rt, &seq, 1, 1, &tickets[i]), RT_OK);
    struct fixture_snapshot before, after;
    fixture_snapshot(rt, &before);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, &tickets[3]), RT_ERR_BUSY);
    fixture_snapshot(rt, &after);
    assert_memory_equal(&before, &after, sizeof(after));
    assert_int_equal(rt_wait(rt, tickets[0], 0), RT_ERR_TIMEOUT);
    release(rt, 1);
    assert_int_equal(rt_wait(rt, tickets[0], 0), RT_OK);
    assert_int_equal(rt_wait(rt, tickets[1], 1000), RT_ERR_TIMEOUT);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, &tickets[3]), RT_OK);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, NULL), RT_ERR_BUSY);
    release(rt, 3);
    assert_int_equal(rt_wait(rt, tickets[3], 0), RT_OK);
    uint32_t length;
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    assert_int_equal(length, 4);
    struct rt_stats stats = {.struct_size = sizeof(stats)};
    assert_int_equal(rt_get_stats(rt, &stats), RT_OK);
    assert_int_equal(stats.busy, 2);
    assert_int_equal(stats.steps, 4);
    rt_destroy(&rt);
}

static void a_batch_of_two_replays_needs_two_records(void **state)
{
    (void)state;
    rt_runtime *rt = create_held();
    rt_seq seqs[6];
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    hold(rt, true);
    assert_int_equal(fixture_step(rt, seqs, 6, 1, NULL), RT_OK); /* 2 of 3 records */
    struct fixture_snapshot before, after;
    fixture_snapshot(rt, &before);
    assert_int_equal(fixture_step(rt, seqs, 6, 1, NULL), RT_ERR_BUSY);
    fixture_snapshot(rt, &after);
    assert_memory_equal(&before, &after, sizeof(after));
    release(rt, 1);
    assert_int_equal(fixture_step(rt, seqs, 6, 1, NULL), RT_OK);
    hold(rt, false);
    rt_destroy(&rt);
}

/* The same thousand steps, one runtime waiting for each, one running ahead at random. */
static void running_ahead_changes_nothing(void **state)
{
    (void)state;
    rt_runtime *a = create_held(), *b = create_held();
    uint64_t chance = 12345;
    rt_seq in_a[6] = {0}, in_b[6] = {0};
    hold(b, true);
    for (int step = 0; step < 1000; step++) {
        uint32_t s = (uint32_t)(fixture_random(&chance) >> 33) % 6, length = 0;
        if (in_a[s])
            assert_int_equal(rt_seq_length(a, in_a[s], &length), RT_OK);
        if (in_a[s] && (length >= 70 || fixture_random(&chance) >> 60 == 0)) {
            assert_int_equal(rt_seq_close(a, in_a[s]), RT_OK);
            assert_int_equal(rt_seq_close(b, in_b[s]), RT_OK);
            in_a[s] = in_b[s] = 0;
        } else if (!in_a[s] && a->pages.free_count >= 6) {
            in_a[s] = fixture_open(a);
            in_b[s] = fixture_open(b);
        }
        rt_seq rows_a[6], rows_b[6];
        uint32_t rows = 0;
        for (int i = 0; i < 6; i++)
            if (in_a[i] && fixture_random(&chance) >> 63) {
                rows_a[rows] = in_a[i];
                rows_b[rows++] = in_b[i];
            }
        if (!rows)
            continue;
        enum rt_status expected = fixture_step(a, rows_a, rows, 1, NULL), status;
        while ((status = fixture_step(b, rows_b, rows, 1, NULL)) == RT_ERR_BUSY)
            release(b, 1);
        assert_int_equal(status, expected);
    }
    hold(b, false);
    rt_driver_host_release(&b->driver, b->stream, UINT32_MAX);
    const char *const names[] = {"kv", "out", "lse", "slot_lengths"};
    for (int n = 0; n < 4; n++) {
        struct rt_tensor t = {.struct_size = sizeof(t)};
        assert_int_equal(rt_tensor(a, names[n], 1, &t), RT_OK);
        void *x = malloc(t.bytes), *y = malloc(t.bytes);
        assert_int_equal(rt_tensor_read(a, names[n], 1, 0, x, t.bytes), RT_OK);
        assert_int_equal(rt_tensor_read(b, names[n], 1, 0, y, t.bytes), RT_OK);
        assert_memory_equal(x, y, t.bytes);
        free(x);
        free(y);
    }
    rt_destroy(&a);
    rt_destroy(&b);
}

static void bulk_changes_wait_for_a_record(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    config.max_length = 64 * 1024;
    config.pages = 4096;
    config.max_sequences = 64;
    rt_runtime *rt = fixture_create(&config);
    if (rt->driver.caps.kind != RT_DEVICE_KIND_HOST) {
        rt_destroy(&rt);
        skip();
    }
    int32_t *pages = malloc(4096 * sizeof(*pages));
    for (int i = 0; i < 4096; i++)
        pages[i] = 4095 - i;
    const struct rt_seq_params own = {
        .struct_size = sizeof(own), .pages = RT_PAGES_CALLER, .last_token = -1};
    hold(rt, true);
    /* each bind fills most of a record, so every second one launches what was pending */
    enum rt_status status = RT_OK;
    rt_seq seqs[65] = {0};
    uint32_t bound = 0;
    while (bound < 64 && status == RT_OK) {
        assert_int_equal(rt_seq_open(rt, &own, &seqs[bound]), RT_OK);
        status = rt_seq_bind_pages(rt, seqs[bound], 0, pages, 4096);
        bound += status == RT_OK;
    }
    assert_int_equal(status, RT_ERR_BUSY);
    assert_true(bound >= 3);
    rt_driver_host_release(&rt->driver, rt->stream, UINT32_MAX);
    hold(rt, false);
    assert_int_equal(rt_seq_bind_pages(rt, seqs[bound], 0, pages, 4096), RT_OK);
    uint64_t ticket;
    assert_int_equal(fixture_step(rt, seqs, bound + 1, 1, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    int32_t *table = malloc(4096 * sizeof(*table));
    for (uint32_t i = 0; i <= bound; i++) {
        uint64_t line = (uint64_t)(uint32_t)seqs[i] * 4096 * sizeof(*table);
        assert_int_equal(rt_tensor_read(rt, "block_table", 0, line, table, 4096 * sizeof(*table)),
                         RT_OK);
        assert_memory_equal(table, pages, 4096 * sizeof(*table));
    }
    free(table);
    free(pages);
    rt_destroy(&rt);
}

/* Accepts one token more than there are. */
static int accept_too_many(void *user, const struct rt_stage_context *context)
{
    struct rt_tensor accepted = {.struct_size = sizeof(accepted)};
    (void)user;
    if (rt_tensor(context->runtime, "accepted", 0, &accepted) != RT_OK)
        return 1;
    *(int32_t *)(uintptr_t)accepted.address = (int32_t)context->query_len + 1;
    return 0;
}

/* Several refusals are seen at once: each step's wait still tells its own. */
static void every_refused_step_is_reported(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create_stage(RT_STAGE_STEP_END, accept_too_many, NULL);
    fixture_randomise(rt, 12);
    rt_seq seq = fixture_open(rt);
    uint64_t tickets[3];
    const int32_t accept = RT_ACCEPT_DEVICE;
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .rows = 1, .query_len = 1, .seqs = &seq, .accept = &accept};
    hold(rt, true);
    for (int i = 0; i < 3; i++)
        assert_int_equal(rt_step(rt, &p, &tickets[i]), RT_OK);
    release(rt, 3);
    for (int i = 0; i < 3; i++) {
        char step[32];
        snprintf(step, sizeof(step), "step %d, row 0", i + 1);
        assert_int_equal(rt_wait(rt, tickets[i], 0), RT_ERR_DEVICE_CHECK);
        assert_non_null(strstr(rt_last_error(rt)->message, step));
        assert_non_null(strstr(rt_last_error(rt)->message, "accepted count 2"));
    }
    rt_destroy(&rt);
}

/* The ring's first record had a new page for the row; its second round has the same row without. */
static void a_records_last_round_is_forgotten(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    config.max_sequences = 1;
    rt_runtime *rt = fixture_create(&config);
    fixture_randomise(rt, 14);
    rt_seq seq = fixture_open(rt);
    for (int i = 0; i < 3; i++)
        fixture_step_ok(rt, &seq, 1, 1);
    int32_t page, bound;
    uint32_t count;
    assert_int_equal(rt_seq_pages(rt, seq, &page, 1, &count), RT_OK);
    assert_int_equal(rt_seq_close(rt, seq), RT_OK);
    const struct rt_seq_params own = {.struct_size = sizeof(own), .pages = RT_PAGES_CALLER};
    assert_int_equal(rt_seq_open(rt, &own, &seq), RT_OK);
    const int32_t other = page + 1;
    assert_int_equal(rt_seq_bind_pages(rt, seq, 0, &other, 1), RT_OK);
    fixture_step_ok(rt, &seq, 1, 1);
    assert_int_equal(rt->ring.next_step - 1, 1 + rt->ring.depth); /* the first record again */
    assert_int_equal(rt_tensor_read(rt, "block_table", 0, 0, &bound, sizeof(bound)), RT_OK);
    assert_int_equal(bound, other);
    rt_destroy(&rt);
}

static int failing_stage(void *user, const struct rt_stage_context *context)
{
    (void)user;
    (void)context;
    return 1;
}

/* What an eager step has launched before its stage fails reads its record, which the next step
 * writes over. */
static void a_failed_eager_step_leaves_nothing_in_flight(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create_stage(RT_STAGE_AFTER_ATTENTION, failing_stage, NULL);
    fixture_randomise(rt, 13);
    rt_seq seq = fixture_open(rt);
    const struct rt_step_params eager = {
        .struct_size = sizeof(eager), .flags = RT_STEP_EAGER, .rows = 1, .seqs = &seq};
    hold(rt, true);
    assert_int_equal(rt_step(rt, &eager, NULL), RT_ERR_CALLBACK);
    assert_int_equal(rt_driver_host_release(&rt->driver, rt->stream, UINT32_MAX), 0);
    hold(rt, false);
    rt_destroy(&rt);
}

static int query_in_context(struct rt_driver *d, rt_dstream s, bool *out_idle)
{
    (void)s;
    assert_true(rt_host_of(d)->contexts > 0);
    *out_idle = false;
    return 0;
}

/* Only a launch may come from a thread that has not entered the device's context. */
static void a_long_wait_asks_the_driver_in_its_context(void **state)
{
    (void)state;
    rt_runtime *rt = create_held();
    rt_seq seq = fixture_open(rt);
    uint64_t ticket, asked = rt->driver.probe.per_op[RT_DOP_ctx_enter];
    hold(rt, true);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, &ticket), RT_OK);
    int (*query)(struct rt_driver *, rt_dstream, bool *) = rt->driver.stream_query;
    rt->driver.stream_query = query_in_context;
    assert_int_equal(rt_wait(rt, ticket, 100000000), RT_ERR_TIMEOUT);
    assert_true(rt->driver.probe.per_op[RT_DOP_ctx_enter] > asked);
    assert_int_equal(rt_host_of(&rt->driver)->contexts, 0);
    rt->driver.stream_query = query;
    hold(rt, false);
    assert_int_equal(rt_wait(rt, ticket, 0), RT_OK);
    rt_destroy(&rt);
}

/* The fork copies a partly filled page: a control replay, whose record is one of the three. */
static void results_stay_until_their_record_is_reused(void **state)
{
    (void)state;
    rt_runtime *rt = create_held();
    const rt_seq seq = fixture_open(rt);
    rt_seq fork;
    struct rt_row_result row;
    uint32_t count;
    uint64_t ticket;
    assert_int_equal(fixture_step(rt, &seq, 1, 1, &ticket), RT_OK);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, NULL), RT_OK);
    assert_int_equal(rt_seq_fork(rt, seq, &fork), RT_OK);
    assert_int_equal(rt_result(rt, ticket, &row, 1, &count), RT_OK);
    assert_int_equal(fixture_step(rt, &seq, 1, 1, NULL), RT_OK);
    assert_int_equal(rt_result(rt, ticket, &row, 1, &count), RT_ERR_INVALID);
    assert_string_equal(rt_last_error(rt)->message,
                        "the ring no longer holds the results of step 1: it has 3 records, the "
                        "last is that of 4");
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_ring_is_busy),
        cmocka_unit_test(a_batch_of_two_replays_needs_two_records),
        cmocka_unit_test(running_ahead_changes_nothing),
        cmocka_unit_test(bulk_changes_wait_for_a_record),
        cmocka_unit_test(every_refused_step_is_reported),
        cmocka_unit_test(a_records_last_round_is_forgotten),
        cmocka_unit_test(a_failed_eager_step_leaves_nothing_in_flight),
        cmocka_unit_test(a_long_wait_asks_the_driver_in_its_context),
        cmocka_unit_test(results_stay_until_their_record_is_reused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
