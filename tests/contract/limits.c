/* SPDX-License-Identifier: Apache-2.0 */
/* Every limit at its edge and one past it, and every change that is taken back half-way: what was
 * refused has left the runtime as it was, pages' references included. */
#include "driver/host/host_parts.h"
#include "runtime/step_parts.h"
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 16
#define MOST_REFS 65535

static rt_seq open_with(rt_runtime *rt, uint32_t length)
{
    const struct rt_seq_params params = {.struct_size = sizeof(params), .length = length};
    rt_seq seq = 0;
    if (rt_seq_open(rt, &params, &seq) != RT_OK)
        fail_msg("rt_seq_open: %s", rt_last_error(rt)->message);
    return seq;
}

static rt_runtime *host_runtime(void)
{
    rt_runtime *rt = fixture_create(NULL);
    if (rt->driver.caps.kind != RT_DEVICE_KIND_HOST) {
        rt_destroy(&rt);
        skip();
    }
    fixture_randomise(rt, 31);
    return rt;
}

/* The state, and every page's references. */
struct state {
    struct fixture_snapshot runtime;
    uint16_t refs[24];
};

static struct state look(rt_runtime *rt)
{
    struct state state;
    memset(&state, 0, sizeof(state));
    rt_harvest(rt); /* not a change: what has completed meanwhile */
    fixture_snapshot(rt, &state.runtime);
    memcpy(state.refs, rt->pages.refs, sizeof(state.refs));
    return state;
}

static void refused(rt_runtime *rt, enum rt_status status, enum rt_status expected,
                    const struct state *before, const char *words)
{
    if (status != expected)
        fail_msg("got %s, expected %s", rt_status_string(status), rt_status_string(expected));
    assert_int_equal(rt_last_error(rt)->status, expected);
    if (!strstr(rt_last_error(rt)->message, words))
        fail_msg("\"%s\" does not say \"%s\"", rt_last_error(rt)->message, words);
    const struct state after = look(rt);
    assert_memory_equal(before, &after, sizeof(after));
}

/* ---- a page's references -----------------------------------------------------------------------
 */

/* The limit where a caller meets it: one more sequence than a page can be shared by. */
static void a_page_is_shared_as_often_as_it_can_be(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    config.max_sequences = RT_MAX_SEQUENCES;
    config.max_length = PAGE;
    config.pages = 2;
    rt_runtime *rt = fixture_create(&config);
    rt_seq first = open_with(rt, PAGE), fork = 0;
    int32_t page;
    uint32_t count;
    assert_int_equal(rt_seq_pages(rt, first, &page, 1, &count), RT_OK);
    for (uint32_t refs = 1; refs < MOST_REFS; refs++)
        while (rt_seq_fork(rt, first, &fork) != RT_OK) {
            assert_int_equal(rt_last_error(rt)->status, RT_ERR_BUSY); /* on a GPU */
            assert_int_equal(rt_synchronize(rt), RT_OK);
        }
    assert_int_equal(rt_pages_refs(&rt->pages, page), MOST_REFS);
    struct fixture_snapshot before, after;
    rt_harvest(rt);
    fixture_snapshot(rt, &before);
    assert_int_equal(rt_seq_fork(rt, first, &fork), RT_ERR_PAGES);
    assert_non_null(strstr(rt_last_error(rt)->message, "page 0 is shared 65535 times already"));
    fixture_snapshot(rt, &after);
    assert_memory_equal(&before, &after, sizeof(after));
    assert_int_equal(rt_pages_refs(&rt->pages, page), MOST_REFS);
    assert_int_equal(rt_seq_close(rt, first), RT_OK);
    assert_int_equal(rt_seq_fork(rt, fork, &first), RT_OK);
    rt_destroy(&rt);
}

/* Whichever page is at its limit, those before it are not shared once more. */
static void a_fork_shares_all_pages_or_none(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    rt_seq seq = open_with(rt, 3 * PAGE + 5), fork = 7;
    int32_t pages[4];
    uint32_t count;
    assert_int_equal(rt_seq_pages(rt, seq, pages, 4, &count), RT_OK);
    for (uint32_t i = 0; i < 3; i++) {
        rt->pages.refs[pages[i]] = MOST_REFS;
        const struct state before = look(rt);
        refused(rt, rt_seq_fork(rt, seq, &fork), RT_ERR_PAGES, &before, "65535 times already");
        assert_int_equal(fork, 7);
        rt->pages.refs[pages[i]] = 1;
    }
    rt->pages.refs[pages[3]] = MOST_REFS; /* the partly filled one is copied, not shared */
    assert_int_equal(rt_seq_fork(rt, seq, &fork), RT_OK);
    rt->pages.refs[pages[3]] = 1;
    rt_destroy(&rt);
}

/* ---- no record for what must go at once --------------------------------------------------------
 */

static void fill_ring(rt_runtime *rt, rt_seq seq)
{
    rt_driver_host_hold(&rt->driver, rt->stream, true);
    for (uint32_t i = 0; i < rt->blueprint.config.ring_depth; i++)
        assert_int_equal(fixture_step(rt, &seq, 1, 1, NULL), RT_OK);
}

static void a_fork_or_rewind_without_a_record_is_taken_back(void **state)
{
    (void)state;
    rt_runtime *rt = host_runtime();
    rt_seq parent = open_with(rt, 2 * PAGE + 4), twin = 0, fork = 7, other = fixture_open(rt);
    assert_int_equal(rt_seq_fork(rt, parent, &twin), RT_OK);
    const struct rt_seq_params params = {
        .struct_size = sizeof(params), .pages = RT_PAGES_CALLER, .length = 4};
    const int32_t page = 20;
    int32_t pages[3];
    uint32_t count;
    rt_seq own;
    assert_int_equal(rt_seq_open(rt, &params, &own), RT_OK);
    assert_int_equal(rt_seq_bind_pages(rt, own, 0, &page, 1), RT_OK);
    assert_int_equal(rt_seq_pages(rt, parent, pages, 3, &count), RT_OK);
    const struct rt_seq_params guest = {
        .struct_size = sizeof(guest), .length = PAGE + 3, .shared_pages = pages, .shared_count = 2};
    fill_ring(rt, other);
    const struct state before = look(rt);
    refused(rt, rt_seq_fork(rt, parent, &fork), RT_ERR_BUSY, &before, "in flight");
    refused(rt, rt_seq_fork_onto(rt, own, 21, &fork), RT_ERR_BUSY, &before, "in flight");
    refused(rt, rt_seq_open(rt, &guest, &fork), RT_ERR_BUSY, &before, "in flight");
    assert_int_equal(fork, 7);
    /* into a page that the twin shares, which would be copied */
    refused(rt, rt_seq_rewind(rt, parent, PAGE + 3), RT_ERR_BUSY, &before, "in flight");
    rt_driver_host_hold(&rt->driver, rt->stream, false);
    assert_int_equal(rt_seq_fork(rt, parent, &fork), RT_OK);
    assert_int_equal(rt_seq_rewind(rt, parent, PAGE + 3), RT_OK);
    rt_destroy(&rt);
}

/* A step that is not launched gives back new pages, and both kinds of lengths. */
static void a_step_that_is_not_launched_is_taken_back(void **state)
{
    (void)state;
    rt_runtime *rt = host_runtime();
    rt_seq seqs[4] = {open_with(rt, PAGE), open_with(rt, PAGE - 2), open_with(rt, PAGE - 3),
                      fixture_open(rt)};
    const int32_t accept[] = {RT_ACCEPT_DEVICE, RT_ACCEPT_DEVICE, RT_ACCEPT_ALL, 2};
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .rows = 4, .query_len = 3, .seqs = seqs, .accept = accept};
    const struct state before = look(rt);
    rt->driver.probe.fail_at = rt->driver.probe.calls + 1;
    refused(rt, rt_step(rt, &p, NULL), RT_ERR_DRIVER, &before, "injected");
    rt->driver.probe.fail_at = 0;
    assert_int_equal(rt_step(rt, &p, NULL), RT_OK);
    assert_int_equal(rt_synchronize(rt), RT_OK);
    rt_destroy(&rt);
}

/* ---- lengths, columns, ops ---------------------------------------------------------------------
 */

/* A sequence of max_length, in whole pages and not, is opened, forked, rewound and bound. */
static void the_longest_sequence(void **state)
{
    (void)state;
    const uint32_t lengths[] = {5 * PAGE, 5 * PAGE - 1, 5 * PAGE - 15};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct rt_config config;
        fixture_config(&config);
        config.max_length = lengths[i];
        rt_runtime *rt = fixture_create(&config);
        fixture_randomise(rt, 32);
        rt_seq seq = open_with(rt, lengths[i]), fork = 0, own = 0;
        assert_int_equal(rt_seq_fork(rt, seq, &fork), RT_OK);
        struct state before = look(rt);
        refused(rt, fixture_step(rt, &fork, 1, 1, NULL), RT_ERR_LENGTH, &before, "exceed");
        assert_int_equal(rt_seq_rewind(rt, fork, lengths[i] - 1), RT_OK);
        const int32_t token = 3;
        const struct rt_step_params step = {
            .struct_size = sizeof(step), .rows = 1, .seqs = &fork, .tokens = &token};
        assert_int_equal(rt_step(rt, &step, NULL), RT_OK);
        const struct rt_seq_params params = {.struct_size = sizeof(params),
                                             .pages = RT_PAGES_CALLER};
        assert_int_equal(rt_seq_open(rt, &params, &own), RT_OK);
        const int32_t pages[6] = {18, 19, 20, 21, 22, 23};
        assert_int_equal(rt_seq_bind_pages(rt, own, 0, pages, 5), RT_OK);
        before = look(rt);
        refused(rt, rt_seq_bind_pages(rt, own, 5, pages + 5, 1), RT_ERR_LENGTH, &before, "exceed");
        assert_int_equal(rt_seq_bind_pages(rt, own, 5, pages + 5, 0), RT_OK);
        rt_destroy(&rt);
    }
}

/* Pending changes up to the last byte of a record's room: none is launched early, none is lost. */
static void pending_changes_fill_a_record_exactly(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    const uint32_t capacity = rt->blueprint.placement.record.ops_capacity;
    const uint32_t op = sizeof(struct rt_record_op), bind = 2 * op; /* a page is padded to 16 */
    const struct rt_seq_params params = {.struct_size = sizeof(params), .pages = RT_PAGES_CALLER};
    rt_seq seq;
    assert_int_equal(rt_seq_open(rt, &params, &seq), RT_OK);
    assert_int_equal((capacity - rt->ops_bytes) % op, 0);
    const int32_t pages[5] = {0, 1, 2, 3, 4};
    if ((capacity - rt->ops_bytes) / op % 2) /* an odd number of units is left: bind five pages */
        assert_int_equal(rt_seq_bind_pages(rt, seq, 0, pages, 5), RT_OK);
    int32_t page = 0;
    for (; rt->ops_bytes + bind <= capacity; page = (page + 1) % 24)
        assert_int_equal(rt_seq_bind_pages(rt, seq, 0, &page, 1), RT_OK);
    assert_int_equal(rt->ops_bytes, capacity);
    assert_int_equal(rt->stats.control_replays, 0);
    assert_int_equal(rt_seq_bind_pages(rt, seq, 0, &page, 1), RT_OK);
    assert_int_equal(rt->stats.control_replays, 1);
    assert_int_equal(rt->ops_bytes, bind);
    fixture_step_ok(rt, &seq, 1, 1);
    int32_t bound;
    const uint64_t line =
        (uint64_t)(uint32_t)seq * rt->blueprint.placement.max_blocks * sizeof(bound);
    assert_int_equal(rt_tensor_read(rt, "block_table", 0, line, &bound, sizeof(bound)), RT_OK);
    assert_int_equal(bound, page);
    rt_destroy(&rt);
}

/* Prompts of 65536 sequences may want 65536 pages each: they are refused, not counted as none. */
static void new_pages_are_counted_beyond_32_bits(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    const rt_seq seq = fixture_open(rt);
    const struct rt_step_params row = {.struct_size = sizeof(row), .rows = 1, .seqs = &seq};
    const struct state before = look(rt);
    uint64_t pages = UINT32_MAX;
    rt->attempts++;
    assert_int_equal(rt_step_check_rows(rt, &row, 1, &pages), RT_OK);
    refused(rt, rt_step_check_pages(rt, "all", pages), RT_ERR_PAGES, &before,
            "all needs 4294967296 new pages, 24 of 24 are free");
    rt_destroy(&rt);
}

/* A slot's last generation is followed by its first: handles stay valid and differ. */
static void generations_wrap_past_zero(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    for (uint32_t i = 0; i < 6; i++)
        rt->slot_rests[i].generation = UINT32_MAX;
    rt_seq last = fixture_open(rt);
    assert_int_equal(last >> 32, UINT32_MAX);
    assert_int_equal(rt_seq_close(rt, last), RT_OK);
    for (uint32_t i = 0; i < 6; i++) {
        rt_seq seq = fixture_open(rt);
        assert_true(seq != 0 && seq != last);
        assert_int_equal(seq >> 32, i < 5 ? UINT32_MAX : 1);
    }
    assert_int_equal(rt_seq_close(rt, last), RT_ERR_SEQUENCE);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_is_shared_as_often_as_it_can_be),
        cmocka_unit_test(a_fork_shares_all_pages_or_none),
        cmocka_unit_test(a_fork_or_rewind_without_a_record_is_taken_back),
        cmocka_unit_test(a_step_that_is_not_launched_is_taken_back),
        cmocka_unit_test(the_longest_sequence),
        cmocka_unit_test(pending_changes_fill_a_record_exactly),
        cmocka_unit_test(new_pages_are_counted_beyond_32_bits),
        cmocka_unit_test(generations_wrap_past_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
