/* SPDX-License-Identifier: Apache-2.0 */
/* Drafts that a stage makes on the device, and what the host learns of them. */
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DRAFTS 2 /* the longest query is of three tokens */

/* Of every row: samples ten times its slot and a hundred times its length, drafts the two numbers
 * behind. Keeps the column that the user says. */
static int draft(void *user, const struct rt_stage_context *context)
{
    rt_runtime *rt = context->runtime;
    const int32_t *slots = fixture_address(rt, "slots", 0),
                  *lengths = fixture_address(rt, "lengths", 0);
    const int32_t *live = fixture_address(rt, "live_rows", 0),
                  *base = fixture_address(rt, "row_base", 0);
    int32_t *sampled = fixture_address(rt, "sampled", 0),
            *drafts = fixture_address(rt, "drafts", 0);
    int32_t *accepted = fixture_address(rt, "accepted", 0);
    if (!slots || !lengths || !live || !base || !sampled || !drafts || !accepted)
        return 1;
    for (int32_t r = 0; r < *live; r++) {
        const int32_t row = *base + r;
        sampled[row] = slots[r] * 10 + lengths[r] * 100;
        for (int32_t i = 0; i < DRAFTS; i++)
            drafts[row * DRAFTS + i] = sampled[row] + 1 + i;
        accepted[row] = *(const int32_t *)user;
    }
    return 0;
}

static rt_runtime *create(int32_t *keep)
{
    rt_runtime *rt = fixture_create_stage(RT_STAGE_STEP_END, draft, keep);
    fixture_randomise(rt, 81);
    return rt;
}

static void expect_tokens(rt_runtime *rt, uint64_t ticket, const int32_t *expected, uint32_t count)
{
    int32_t tokens[32];
    uint32_t found = 0;
    assert_true(count < 32);
    tokens[count] = 12345;
    assert_int_equal(rt_result_tokens(rt, ticket, tokens, count, &found), RT_OK);
    assert_int_equal(found, count);
    assert_memory_equal(tokens, expected, count * sizeof(*tokens));
    assert_int_equal(tokens[count], 12345);
}

static uint64_t step(rt_runtime *rt, const rt_seq *seqs, uint32_t rows, uint32_t q,
                     const int32_t *tokens)
{
    static const int32_t by_device[] = {-1, -1, -1, -1, -1, -1};
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .rows = rows,
                                     .query_len = q,
                                     .seqs = seqs,
                                     .tokens = tokens,
                                     .accept = by_device};
    uint64_t ticket = 0;
    assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    return ticket;
}

/* They are the next step's tokens where the host names none, whatever the order of rows. */
static void drafts_are_the_next_tokens(void **state)
{
    (void)state;
    int32_t keep = 1;
    rt_runtime *rt = create(&keep);
    const rt_seq seqs[2] = {fixture_open(rt), fixture_open(rt)}, other[2] = {seqs[1], seqs[0]};
    static const int32_t first[2] = {5, 6}, named[6] = {-1, -1, 77, 88, -1, -1};
    uint64_t ticket = step(rt, seqs, 2, 1, first);
    expect_tokens(rt, ticket, first, 2);
    ticket = step(rt, other, 2, 3, NULL);
    expect_tokens(rt, ticket, (int32_t[]){110, 111, 112, 100, 101, 102}, 6);
    keep = 2;
    ticket = step(rt, seqs, 2, 3, named); /* length 1 + 1 + 3 */
    expect_tokens(rt, ticket, (int32_t[]){400, 401, 77, 88, 411, 412}, 6);
    struct rt_row_result rows[2];
    uint32_t count;
    assert_int_equal(rt_result(rt, ticket, rows, 2, &count), RT_OK);
    assert_int_equal(rows[0].accepted, 2);
    assert_int_equal(rows[0].sampled, 500);
    keep = 1;
    ticket = step(rt, seqs, 2, 1, NULL);
    expect_tokens(rt, ticket, (int32_t[]){500, 510}, 2);
    rt_destroy(&rt);
}

static void a_fork_has_its_parents_drafts(void **state)
{
    (void)state;
    int32_t keep = 1;
    rt_runtime *rt = create(&keep);
    const rt_seq parent = fixture_open(rt);
    rt_seq child;
    (void)step(rt, &parent, 1, 1, (int32_t[]){5});
    assert_int_equal(rt_seq_fork(rt, parent, &child), RT_OK);
    expect_tokens(rt, step(rt, &child, 1, 3, NULL), (int32_t[]){100, 101, 102}, 3);
    expect_tokens(rt, step(rt, &parent, 1, 3, NULL), (int32_t[]){100, 101, 102}, 3);
    rt_destroy(&rt);
}

/* Drafts belong to a past: a shorter one has none, the same one keeps them. */
static void a_rewind_forgets_drafts_with_their_past(void **state)
{
    (void)state;
    int32_t keep = 2;
    rt_runtime *rt = create(&keep);
    const rt_seq seq = fixture_open(rt);
    (void)step(rt, &seq, 1, 3, (int32_t[]){5, 6, 7});
    assert_int_equal(rt_seq_rewind(rt, seq, 2), RT_OK);
    expect_tokens(rt, step(rt, &seq, 1, 3, NULL), (int32_t[]){300, 301, 302}, 3);
    assert_int_equal(rt_seq_rewind(rt, seq, 1), RT_OK);
    expect_tokens(rt, step(rt, &seq, 1, 3, (int32_t[]){9, -1, -1}), (int32_t[]){9, -1, -1}, 3);
    const rt_seq fresh = fixture_open(rt);
    expect_tokens(rt, step(rt, &fresh, 1, 3, NULL), (int32_t[]){-1, -1, -1}, 3);
    rt_destroy(&rt);
}

/* The host is the ring's depth ahead of tokens and drafts that it has not seen. */
static void drafts_need_no_host(void **state)
{
    (void)state;
    int32_t keep = 3;
    rt_runtime *rt = create(&keep);
    const rt_seq seq = fixture_open(rt);
    uint64_t tickets[3];
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(fixture_step(rt, &seq, 1, 3, &tickets[i]), RT_OK);
    assert_int_equal(rt_host_hold(rt, 0), RT_OK);
    assert_int_equal(rt_wait(rt, tickets[2], UINT64_MAX), RT_OK);
    expect_tokens(rt, tickets[0], (int32_t[]){-1, -1, -1}, 3);
    expect_tokens(rt, tickets[1], (int32_t[]){300, 301, 302}, 3);
    expect_tokens(rt, tickets[2], (int32_t[]){600, 601, 602}, 3);
    rt_destroy(&rt);
}

static void several_replays_are_one_list(void **state)
{
    (void)state;
    int32_t keep = 1;
    rt_runtime *rt = create(&keep);
    rt_seq seqs[6];
    int32_t tokens[6] = {0, 1, 2, 3, 4, 5};
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    uint64_t ticket = step(rt, seqs, 6, 1, tokens);
    expect_tokens(rt, ticket, tokens, 6);
    for (int i = 0; i < 6; i++)
        tokens[i] = 100 + 10 * i;
    expect_tokens(rt, step(rt, seqs, 6, 1, NULL), tokens, 6);
    rt_destroy(&rt);
}

static void expect_words(rt_runtime *rt, enum rt_status status, const char *words)
{
    assert_int_equal(status, RT_ERR_INVALID);
    if (!strstr(rt_last_error(rt)->message, words))
        fail_msg("\"%s\" does not say \"%s\"", rt_last_error(rt)->message, words);
}

static void bad_questions_are_refused(void **state)
{
    (void)state;
    int32_t keep = 1, tokens[3];
    rt_runtime *rt = create(&keep);
    const rt_seq seq = fixture_open(rt);
    uint32_t count = 7;
    const uint64_t ticket = step(rt, &seq, 1, 3, NULL);
    expect_words(rt, rt_result_tokens(rt, ticket, NULL, 3, &count), "tokens is null");
    expect_words(rt, rt_result_tokens(rt, ticket, tokens, 3, NULL), "count or tokens is null");
    expect_words(rt, rt_result_tokens(rt, ticket + 1, tokens, 3, &count),
                 "ticket 2 was never given");
    assert_int_equal(count, 7);
    assert_int_equal(rt_result_tokens(rt, ticket, NULL, 0, &count), RT_OK);
    assert_int_equal(count, 3);
    assert_int_equal(rt_result_tokens(NULL, ticket, tokens, 3, &count), RT_ERR_INVALID);
    for (uint32_t i = 0; i < 3; i++)
        (void)step(rt, &seq, 1, 1, NULL);
    expect_words(rt, rt_result_tokens(rt, ticket, tokens, 3, &count), "no longer holds");
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    uint64_t late;
    assert_int_equal(fixture_step(rt, &seq, 1, 1, &late), RT_OK);
    expect_words(rt, rt_result_tokens(rt, late, tokens, 3, &count), "is not complete");
    rt_destroy(&rt);
}

/* One query length of one token: there is nothing to draft, and no tensor for it. */
static void no_drafts_without_longer_queries(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    config.query_len_count = 1;
    rt_runtime *rt = fixture_create(&config);
    struct rt_tensor tensor = {.struct_size = sizeof(tensor)};
    expect_words(rt, rt_tensor(rt, "drafts", 0, &tensor), "no tensor is named \"drafts\"");
    fixture_randomise(rt, 82);
    const rt_seq seq = fixture_open(rt);
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .rows = 1, .seqs = &seq, .tokens = (int32_t[]){31}};
    uint64_t ticket;
    assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    expect_tokens(rt, ticket, (int32_t[]){31}, 1);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_are_the_next_tokens),
        cmocka_unit_test(a_fork_has_its_parents_drafts),
        cmocka_unit_test(a_rewind_forgets_drafts_with_their_past),
        cmocka_unit_test(drafts_need_no_host),
        cmocka_unit_test(several_replays_are_one_list),
        cmocka_unit_test(bad_questions_are_refused),
        cmocka_unit_test(no_drafts_without_longer_queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
