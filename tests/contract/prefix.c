/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that outlive their sequence: what is retained stays bit for bit, whoever opens on it goes
 * on as if it had stepped there, and what is refused leaves everything as it was. */
#include "tests/support/fixture.h"
#include "tests/support/history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 16
#define PAGES 24
#define MOST 5 /* pages of the longest sequence */

static const uint32_t lengths[] = {1, 15, 16, 17, 31, 32, 40};
#define LENGTHS (sizeof(lengths) / sizeof(lengths[0]))

static uint32_t pages_of(rt_runtime *rt, rt_seq seq, int32_t *pages)
{
    uint32_t count;
    assert_int_equal(rt_seq_pages(rt, seq, pages, MOST, &count), RT_OK);
    return count;
}

static enum rt_status open_on(rt_runtime *rt, const int32_t *pages, uint32_t count, uint32_t length,
                              rt_seq *out)
{
    const struct rt_seq_params params = {.struct_size = sizeof(params),
                                         .length = length,
                                         .last_token = -1,
                                         .shared_pages = pages,
                                         .shared_count = count};
    return rt_seq_open(rt, &params, out);
}

static rt_seq open_on_ok(rt_runtime *rt, const int32_t *pages, uint32_t length)
{
    rt_seq seq = 0;
    if (open_on(rt, pages, (length + PAGE - 1) / PAGE, length, &seq) != RT_OK)
        fail_msg("at %u: %s", length, rt_last_error(rt)->message);
    return seq;
}

static void assert_out(rt_runtime *rt, const uint16_t *out, uint32_t fork, uint32_t tag,
                       uint32_t to)
{
    uint16_t truth[HISTORY_OUT];
    history_truth(rt, 1, fork, tag, to, truth);
    if (memcmp(out, truth, sizeof(truth)) != 0)
        fail_msg("tag 1 up to %u, tag %u up to %u: another output", fork, tag, to);
}

static void grow_two(rt_runtime *rt, const rt_seq *seqs, const uint32_t *tags, uint32_t from,
                     uint32_t to, uint16_t out[2][HISTORY_OUT])
{
    for (uint32_t p = from; p < to; p++) {
        history_feed(rt, 0, tags[0], p);
        history_feed(rt, 1, tags[1], p);
        const int32_t tokens[] = {(int32_t)p, (int32_t)p};
        const struct rt_step_params step = {
            .struct_size = sizeof(step), .rows = 2, .seqs = seqs, .tokens = tokens};
        uint64_t ticket;
        assert_int_equal(rt_step(rt, &step, &ticket), RT_OK);
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    }
    history_out(rt, 0, out[0]);
    history_out(rt, 1, out[1]);
}

static void a_retained_prefix_outlives_its_sequence(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++) {
        const uint32_t n = lengths[i], tags[] = {2, 3};
        uint16_t out[2][HISTORY_OUT];
        rt_runtime *rt = fixture_create(NULL);
        fixture_randomise(rt, 61);
        int32_t pages[MOST];
        rt_seq first = fixture_open(rt);
        history_grow(rt, first, 1, 0, n);
        const uint32_t count = pages_of(rt, first, pages);
        assert_int_equal(rt_pages_retain(rt, pages, count), RT_OK);
        history_grow(rt, first, 5, n, n + 2); /* its own business */
        assert_int_equal(rt_seq_close(rt, first), RT_OK);
        assert_int_equal(rt->pages.free_count, PAGES - count);
        history_truth(rt, 9, 0, 9, 80, out[0]); /* somebody takes and writes pages */
        const rt_seq seqs[] = {open_on_ok(rt, pages, n), open_on_ok(rt, pages, n)};
        assert_int_equal(rt->pages.free_count, PAGES - count - (n % PAGE ? 2 : 0));
        grow_two(rt, seqs, tags, n, n + 20, out);
        assert_out(rt, out[0], n, 2, n + 20);
        assert_out(rt, out[1], n, 3, n + 20);
        assert_int_equal(rt_pages_release(rt, pages, count), RT_OK);
        assert_int_equal(rt_seq_close(rt, seqs[1]), RT_OK);
        history_step(rt, seqs[0], 2, n + 20);
        history_out(rt, 0, out[0]);
        assert_out(rt, out[0], n, 2, n + 21);
        assert_int_equal(rt_seq_close(rt, seqs[0]), RT_OK);
        assert_int_equal(rt->pages.free_count, PAGES);
        rt_destroy(&rt);
    }
}

/* Of a sequence that is open and goes on, at any token of it, with nothing retained. */
static void a_sequence_opens_in_the_middle_of_another(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 62);
    int32_t pages[MOST];
    uint16_t out[2][HISTORY_OUT];
    const uint32_t tags[] = {2, 2};
    rt_seq first = fixture_open(rt);
    history_grow(rt, first, 1, 0, 40);
    (void)pages_of(rt, first, pages);
    for (size_t i = 0; i < LENGTHS; i++) {
        const uint32_t n = lengths[i];
        const rt_seq seqs[] = {open_on_ok(rt, pages, n), open_on_ok(rt, pages, n)};
        grow_two(rt, seqs, tags, n, n + 18, out);
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
        assert_out(rt, out[0], n, 2, n + 18);
        assert_int_equal(rt_seq_close(rt, seqs[0]), RT_OK);
        assert_int_equal(rt_seq_close(rt, seqs[1]), RT_OK);
    }
    rt_seq empty = open_on_ok(rt, pages, 0);
    assert_int_equal(rt_seq_close(rt, empty), RT_OK);
    history_step(rt, first, 1, 40);
    history_out(rt, 0, out[0]);
    assert_out(rt, out[0], 41, 1, 41);
    rt_destroy(&rt);
}

static void read_rows(rt_runtime *rt, int32_t page, uint32_t rows, uint16_t *out)
{
    const uint64_t row = HISTORY_D_QK * sizeof(*out);
    for (uint32_t layer = 0; layer < 2; layer++)
        assert_int_equal(rt_tensor_read(rt, "kv", layer, (uint64_t)page * PAGE * row,
                                        out + (size_t)layer * PAGE * HISTORY_D_QK, rows * row),
                         RT_OK);
}

/* Four tokens of a page are retained. Its sequence goes on in it, then goes back and elsewhere. */
static void what_is_retained_is_not_written_over(void **state)
{
    (void)state;
    static uint16_t before[2 * PAGE * HISTORY_D_QK], after[2 * PAGE * HISTORY_D_QK];
    for (uint32_t back = 17; back <= 30; back++) {
        rt_runtime *rt = fixture_create(NULL);
        fixture_randomise(rt, 63);
        int32_t pages[MOST], now[MOST];
        uint16_t out[HISTORY_OUT];
        rt_seq first = fixture_open(rt);
        history_grow(rt, first, 1, 0, 20);
        assert_int_equal(pages_of(rt, first, pages), 2);
        assert_int_equal(rt_pages_retain(rt, pages, 2), RT_OK);
        history_grow(rt, first, 1, 20, 30);
        read_rows(rt, pages[1], PAGE, before);
        const uint64_t controls = rt->stats.control_replays;
        assert_int_equal(rt_seq_rewind(rt, first, back), RT_OK);
        (void)pages_of(rt, first, now);
        assert_int_equal(now[0], pages[0]);
        if (back == 30) { /* nothing is forgotten, and nothing copied */
            assert_int_equal(now[1], pages[1]);
            assert_int_equal(rt->stats.control_replays, controls);
        } else {
            assert_int_not_equal(now[1], pages[1]);
            history_grow(rt, first, 4, back, 37);
            history_out(rt, 0, out);
            assert_out(rt, out, back, 4, 37);
            read_rows(rt, pages[1], PAGE, after);
            assert_memory_equal(before, after, sizeof(before));
        }
        assert_int_equal(rt_seq_close(rt, first), RT_OK);
        rt_seq guest = open_on_ok(rt, pages, 20);
        history_grow(rt, guest, 2, 20, 33);
        history_out(rt, 0, out);
        assert_out(rt, out, 20, 2, 33);
        rt_destroy(&rt);
    }
}

/* Its own page is written over only where nobody else has it. */
static void a_guest_that_rewinds_leaves_the_prefix(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 64);
    int32_t pages[MOST], now[MOST];
    uint16_t out[HISTORY_OUT];
    rt_seq first = fixture_open(rt);
    history_grow(rt, first, 1, 0, 32);
    (void)pages_of(rt, first, pages);
    assert_int_equal(rt_pages_retain(rt, pages, 2), RT_OK);
    assert_int_equal(rt_seq_close(rt, first), RT_OK);
    rt_seq guest = open_on_ok(rt, pages, 32);
    assert_int_equal(rt_seq_rewind(rt, guest, 21), RT_OK);
    (void)pages_of(rt, guest, now);
    assert_int_equal(now[0], pages[0]);
    assert_int_not_equal(now[1], pages[1]);
    history_grow(rt, guest, 2, 21, 35);
    history_out(rt, 0, out);
    assert_out(rt, out, 21, 2, 35);
    rt_seq other = open_on_ok(rt, pages, 32);
    assert_int_equal(rt_pages_release(rt, pages, 2), RT_OK);
    history_grow(rt, other, 3, 32, 34);
    history_out(rt, 0, out);
    assert_out(rt, out, 32, 3, 34);
    assert_int_equal(rt_seq_rewind(rt, other, 20), RT_OK); /* its own page by now */
    (void)pages_of(rt, other, now);
    assert_int_equal(now[1], pages[1]);
    rt_destroy(&rt);
}

/* ---- what is refused ----------------------------------------------------------------------------
 */

static void look(rt_runtime *rt, struct fixture_snapshot *out)
{
    rt_harvest(rt); /* not a change: what has completed meanwhile */
    fixture_snapshot(rt, out);
}

static void refused(rt_runtime *rt, enum rt_status status, enum rt_status expected,
                    const struct fixture_snapshot *before, const char *words)
{
    struct fixture_snapshot after;
    if (status != expected || !strstr(rt_last_error(rt)->message, words))
        fail_msg("got %s, \"%s\", expected \"%s\"", rt_status_string(status),
                 rt_last_error(rt)->message, words);
    look(rt, &after);
    assert_memory_equal(before, &after, sizeof(after));
}

static uint64_t retained(rt_runtime *rt)
{
    struct rt_stats stats = {.struct_size = sizeof(stats)};
    assert_int_equal(rt_get_stats(rt, &stats), RT_OK);
    assert_int_equal(stats.free_pages, rt->pages.free_count);
    return stats.retained_pages;
}

static void references_are_counted_and_told_apart(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    struct fixture_snapshot before;
    int32_t p[MOST];
    rt_seq seq = fixture_open(rt);
    history_grow(rt, seq, 1, 0, 33);
    assert_int_equal(pages_of(rt, seq, p), 3);
    const int32_t twice[] = {p[0], p[1], p[0]}, thrice[] = {p[0], p[1], p[0], p[0]};
    const int32_t bad[] = {p[2], p[2], PAGES}, negative[] = {p[2], -1}, idle[] = {p[2], 23};
    assert_int_equal(rt_pages_retain(rt, twice, 3), RT_OK);
    assert_int_equal(rt_pages_retain(rt, NULL, 0), RT_OK);
    assert_int_equal(retained(rt), 2);
    look(rt, &before);
    refused(rt, rt_pages_retain(rt, bad, 3), RT_ERR_INVALID, &before, "page 24 at index 2 is not");
    refused(rt, rt_pages_retain(rt, negative, 2), RT_ERR_INVALID, &before, "page -1 at index 1");
    refused(rt, rt_pages_retain(rt, idle, 2), RT_ERR_INVALID, &before, "page 23 at index 1 is not");
    refused(rt, rt_pages_release(rt, bad, 3), RT_ERR_INVALID, &before,
            "page 2 at index 0: release 1 of it, and it was retained 0 times");
    refused(rt, rt_pages_release(rt, thrice, 4), RT_ERR_INVALID, &before,
            "page 0 at index 3: release 3 of it, and it was retained 2 times");
    assert_int_equal(rt_seq_close(rt, seq), RT_OK);
    assert_int_equal(rt->pages.free_count, PAGES - 2);
    look(rt, &before);
    refused(rt, rt_pages_release(rt, thrice, 4), RT_ERR_INVALID, &before, "release 3 of it");
    assert_int_equal(rt_pages_release(rt, p, 2), RT_OK);
    assert_int_equal(retained(rt), 1);
    assert_int_equal(rt->pages.free_count, PAGES - 1);
    assert_int_equal(rt_pages_release(rt, p, 1), RT_OK);
    assert_int_equal(retained(rt), 0);
    assert_int_equal(rt->pages.free_count, PAGES);
    look(rt, &before);
    refused(rt, rt_pages_release(rt, p, 1), RT_ERR_INVALID, &before, "is not in use");
    rt_destroy(&rt);
}

/* One page, 65535 times in all: whose turn it is that finds the limit has nothing of the others. */
static void a_page_has_so_many_references_and_no_more(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    struct fixture_snapshot before;
    const struct rt_seq_params two = {.struct_size = sizeof(two), .length = 2 * PAGE};
    int32_t p[MOST];
    rt_seq seq, out = 7;
    assert_int_equal(rt_seq_open(rt, &two, &seq), RT_OK);
    assert_int_equal(pages_of(rt, seq, p), 2);
    for (uint32_t i = 2; i < RT_PAGES_MAX_REFS; i++)
        assert_int_equal(rt_pages_retain(rt, p, 1), RT_OK);
    const int32_t both[] = {p[1], p[0], p[0]};
    look(rt, &before);
    refused(rt, rt_pages_retain(rt, both, 3), RT_ERR_PAGES, &before, "65535 times already");
    refused(rt, open_on(rt, both, 3, 3 * PAGE, &out), RT_ERR_PAGES, &before, "65535 times already");
    assert_int_equal(rt_pages_retain(rt, both, 2), RT_OK);
    look(rt, &before);
    refused(rt, open_on(rt, p, 2, 2 * PAGE, &out), RT_ERR_PAGES, &before, "65535 times already");
    refused(rt, rt_seq_fork(rt, seq, &out), RT_ERR_PAGES, &before, "65535 times already");
    assert_int_equal(out, 7);
    rt_destroy(&rt);
}

static void openings_that_are_refused(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    struct fixture_snapshot before;
    int32_t p[MOST];
    rt_seq seq = fixture_open(rt), out = 7;
    history_grow(rt, seq, 1, 0, 33);
    (void)pages_of(rt, seq, p);
    const int32_t idle[] = {p[0], 23}, none[] = {p[0], PAGES};
    const struct rt_seq_params own = {.struct_size = sizeof(own),
                                      .pages = RT_PAGES_CALLER,
                                      .length = 16,
                                      .shared_pages = p,
                                      .shared_count = 1};
    const struct rt_seq_params kept = {.struct_size = sizeof(kept), .reserved = 3};
    look(rt, &before);
    refused(rt, rt_seq_open(rt, &own, &out), RT_ERR_UNSUPPORTED, &before, "the caller's pages");
    refused(rt, rt_seq_open(rt, &kept, &out), RT_ERR_INVALID, &before, "reserved is 3");
    refused(rt, open_on(rt, p, 2, 33, &out), RT_ERR_INVALID, &before,
            "2 shared pages, but 33 tokens are in 3 pages of 16");
    refused(rt, open_on(rt, p, 3, 32, &out), RT_ERR_INVALID, &before, "3 shared pages");
    refused(rt, open_on(rt, p, 0, 1, &out), RT_ERR_INVALID, &before, "0 shared pages");
    refused(rt, open_on(rt, NULL, 1, 1, &out), RT_ERR_INVALID, &before, "shared_pages is null");
    refused(rt, open_on(rt, idle, 2, 20, &out), RT_ERR_INVALID, &before, "page 23 at index 1");
    refused(rt, open_on(rt, none, 2, 32, &out), RT_ERR_INVALID, &before, "page 24 at index 1");
    refused(rt, open_on(rt, p, 6, 81, &out), RT_ERR_LENGTH, &before, "81");
    rt->driver.probe.fail_at = rt->driver.probe.calls + 1;
    refused(rt, open_on(rt, p, 3, 33, &out), RT_ERR_DRIVER, &before, "injected");
    rt->driver.probe.fail_at = 0;
    const struct rt_seq_params rest = {.struct_size = sizeof(rest), .length = 80};
    for (int i = 0; i < 4; i++) {
        rt_seq filler;
        assert_int_equal(rt_seq_open(rt, &rest, &filler), RT_OK);
    }
    rt_seq last = open_on_ok(rt, p, 33); /* one page was free */
    assert_int_equal(rt->pages.free_count, 0);
    look(rt, &before);
    refused(rt, open_on(rt, p, 2, 32, &out), RT_ERR_SLOTS, &before, "all 6");
    assert_int_equal(rt_seq_rewind(rt, last, 32), RT_OK);
    assert_int_equal(rt_seq_close(rt, last), RT_OK);
    assert_int_equal(rt_seq_fork(rt, open_on_ok(rt, p, 32), &out), RT_ERR_SLOTS);
    assert_int_equal(out, 7);
    rt_destroy(&rt);
}

/* A program of an older header, whose struct ends before shared_pages. */
static void a_shorter_struct_shares_nothing(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    struct rt_seq_params params;
    memset(&params, 0xff, sizeof(params));
    params.struct_size = offsetof(struct rt_seq_params, shared_pages);
    params.pages = RT_PAGES_BUILTIN;
    params.length = 20;
    params.last_token = 4;
    rt_seq seq;
    assert_int_equal(rt_seq_open(rt, &params, &seq), RT_OK);
    assert_int_equal(rt->pages.free_count, PAGES - 2);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_retained_prefix_outlives_its_sequence),
        cmocka_unit_test(a_sequence_opens_in_the_middle_of_another),
        cmocka_unit_test(what_is_retained_is_not_written_over),
        cmocka_unit_test(a_guest_that_rewinds_leaves_the_prefix),
        cmocka_unit_test(references_are_counted_and_told_apart),
        cmocka_unit_test(a_page_has_so_many_references_and_no_more),
        cmocka_unit_test(openings_that_are_refused),
        cmocka_unit_test(a_shorter_struct_shares_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
