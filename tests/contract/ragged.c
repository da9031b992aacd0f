/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps whose rows have any number of tokens up to the query length: bit for bit what padded rows
 * give of which as many stay, at one launch; what a row does not have is not written, and takes
 * neither pages nor room.
 */
#include "tests/support/fixture.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define LONG 3u     /* the fixture's longer query */
#define LONGEST 80u /* its max_length */
#define PAGE 16u
#define SEQUENCES 6u
#define HEADS 3u
#define D_V 256u
#define D_QK 288u
#define MOVES 120u

static uint64_t launch(rt_runtime *rt, const struct rt_step_params *p)
{
    const uint64_t calls = rt->driver.probe.calls;
    uint64_t ticket = 0;
    if (rt_step(rt, p, &ticket) != RT_OK)
        fail_msg("%s", rt_last_error(rt)->message);
    assert_int_equal(rt->driver.probe.calls, calls + (p->rows + 3) / 4);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    return ticket;
}

static struct rt_step_params params_of(const rt_seq *seqs, uint32_t rows, const uint32_t *counts)
{
    return (struct rt_step_params){.struct_size = sizeof(struct rt_step_params),
                                   .rows = rows,
                                   .query_len = LONG,
                                   .seqs = seqs,
                                   .query_lens = counts};
}

static uint32_t length_of(rt_runtime *rt, rt_seq seq)
{
    uint32_t length = 0;
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    return length;
}

/* One step of the tokens that are the row's own; `to`: it gets so long. */
static void grow(rt_runtime *rt, rt_seq seq, uint32_t to)
{
    while (length_of(rt, seq) < to) {
        const uint32_t left = to - length_of(rt, seq), count = left < LONG ? left : LONG;
        const int32_t tokens[LONG] = {7, 8, 9};
        struct rt_step_params p = params_of(&seq, 1, &count);
        p.tokens = tokens;
        (void)launch(rt, &p);
    }
}

/* ---- beside padded rows ---------------------------------------------------------------------- */

enum { RAGGED, PADDED, SIDES };

struct pair {
    rt_runtime *rts[SIDES];
    rt_seq seqs[SIDES][SEQUENCES];
    uint64_t chance;
};

static uint32_t below(struct pair *p, uint32_t bound)
{
    return (uint32_t)((fixture_random(&p->chance) >> 32) % bound);
}

/* Own columns of the step's outputs; of layer 0, where tensors are of all. */
static void compare_rows(const struct pair *p, uint32_t rows, const uint32_t *counts, uint32_t move)
{
    const uint16_t *out[SIDES];
    const float *lse[SIDES];
    for (int side = 0; side < SIDES; side++) {
        out[side] = fixture_address(p->rts[side], "out", 0);
        lse[side] = fixture_address(p->rts[side], "lse", 0);
    }
    for (uint32_t r = 0; r < rows; r++) {
        const size_t width = (size_t)HEADS * D_V, at = r * LONG * width;
        if (memcmp(out[RAGGED] + at, out[PADDED] + at, counts[r] * width * 2) != 0 ||
            memcmp(lse[RAGGED] + r * LONG * HEADS, lse[PADDED] + r * LONG * HEADS,
                   counts[r] * HEADS * sizeof(float)) != 0)
            fail_msg("move %u: row %u of %u tokens differs from a padded one", move, r, counts[r]);
    }
}

/* Of both sides what a sequence has in its pages. */
static void compare_pasts(const struct pair *p, uint32_t i)
{
    const uint32_t length = length_of(p->rts[RAGGED], p->seqs[RAGGED][i]);
    int32_t pages[SIDES][LONGEST / PAGE];
    assert_int_equal(length, length_of(p->rts[PADDED], p->seqs[PADDED][i]));
    for (int side = 0; side < SIDES; side++) {
        uint32_t count = 0;
        assert_int_equal(
            rt_seq_pages(p->rts[side], p->seqs[side][i], pages[side], LONGEST / PAGE, &count),
            RT_OK);
        assert_true(side == PADDED || count == (length + PAGE - 1) / PAGE);
    }
    for (uint32_t t = 0; t < length; t++) {
        const uint16_t *row[SIDES];
        for (int side = 0; side < SIDES; side++) {
            const uint16_t *kv = fixture_address(p->rts[side], "kv", 1);
            row[side] = kv + ((size_t)pages[side][t / PAGE] * PAGE + t % PAGE) * D_QK;
        }
        assert_memory_equal(row[RAGGED], row[PADDED], D_QK * sizeof(uint16_t));
    }
}

static void one_move(struct pair *p, uint32_t move)
{
    const uint32_t rows = 1 + below(p, SEQUENCES), first = below(p, SEQUENCES);
    uint32_t counts[SEQUENCES], who[SEQUENCES];
    int32_t tokens[SEQUENCES * LONG], stay[SEQUENCES];
    rt_seq seqs[SIDES][SEQUENCES];
    for (uint32_t r = 0; r < rows; r++) {
        who[r] = (first + r) % SEQUENCES;
        counts[r] = 1 + below(p, LONG);
        stay[r] = (int32_t)counts[r];
        const uint32_t length = length_of(p->rts[RAGGED], p->seqs[RAGGED][who[r]]);
        const bool full = length + LONG > LONGEST;
        const uint32_t to = full ? below(p, 20) : length - below(p, 2) % (length + 1);
        for (int side = 0; side < SIDES; side++) {
            seqs[side][r] = p->seqs[side][who[r]];
            assert_int_equal(rt_seq_rewind(p->rts[side], seqs[side][r], to), RT_OK);
        }
    }
    for (uint32_t i = 0; i < rows * LONG; i++)
        tokens[i] = (int32_t)below(p, 1000);
    for (int side = 0; side < SIDES; side++) {
        struct rt_step_params step = params_of(seqs[side], rows, side == RAGGED ? counts : NULL);
        step.tokens = tokens;
        step.accept = side == RAGGED ? NULL : stay;
        (void)launch(p->rts[side], &step);
    }
    compare_rows(p, rows, counts, move);
    for (uint32_t r = 0; r < rows; r++)
        compare_pasts(p, who[r]);
}

static void ragged_rows_are_padded_ones(void **state)
{
    (void)state;
    struct pair p = {.chance = 5};
    for (int side = 0; side < SIDES; side++) {
        struct rt_config config;
        fixture_config(&config);
        config.pages = SEQUENCES * (LONGEST / PAGE);
        p.rts[side] = fixture_create(&config);
        fixture_randomise(p.rts[side], 17);
        for (uint32_t i = 0; i < SEQUENCES; i++)
            p.seqs[side][i] = fixture_open(p.rts[side]);
    }
    for (uint32_t move = 0; move < MOVES; move++)
        one_move(&p, move);
    for (int side = 0; side < SIDES; side++)
        rt_destroy(&p.rts[side]);
}

/* ---- the end of a sequence, and of the pool -------------------------------------------------- */

/* One token short of the end, beside a row of three. */
static void a_full_sequence_refuses_nobody(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 3);
    const rt_seq seqs[2] = {fixture_open(rt), fixture_open(rt)};
    const uint32_t counts[2] = {1, LONG};
    grow(rt, seqs[0], LONGEST - 1);
    struct fixture_snapshot before, after;
    fixture_snapshot(rt, &before);
    assert_int_equal(fixture_step(rt, seqs, 2, LONG, NULL), RT_ERR_LENGTH);
    fixture_snapshot(rt, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    const struct rt_step_params p = params_of(seqs, 2, counts);
    const uint64_t ticket = launch(rt, &p);
    assert_int_equal(length_of(rt, seqs[0]), LONGEST);
    assert_int_equal(length_of(rt, seqs[1]), LONG);
    struct rt_row_result rows[2];
    int32_t tokens[2 * LONG];
    uint32_t count = 0;
    assert_int_equal(rt_result(rt, ticket, rows, 2, &count), RT_OK);
    assert_int_equal(rows[0].accepted, 1);
    assert_int_equal(rows[1].accepted, LONG);
    assert_int_equal(rt_result_tokens(rt, ticket, tokens, 2 * LONG, &count), RT_OK);
    assert_int_equal(count, 2 * LONG);
    assert_true(tokens[0] >= 0 && tokens[1] == -1 && tokens[2] == -1);
    assert_int_equal(rt_step(rt, &p, NULL), RT_ERR_LENGTH);
    rt_destroy(&rt);
}

/* The page behind is neither taken nor written, though columns would reach into it. */
static void what_a_row_lacks_takes_no_page(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 4);
    const rt_seq seq = fixture_open(rt);
    const uint32_t two = 2;
    grow(rt, seq, PAGE - 2);
    const uint32_t free_pages = rt->pages.free_count;
    const struct rt_step_params p = params_of(&seq, 1, &two);
    (void)launch(rt, &p);
    assert_int_equal(rt->pages.free_count, free_pages);
    for (uint32_t layer = 0; layer < 2; layer++) {
        const uint16_t *kv = fixture_address(rt, "kv", layer);
        uint32_t written = 0;
        for (size_t row = 0; row < (size_t)rt->pages.count * PAGE; row++)
            written += kv[row * D_QK] != 0xffff;
        assert_int_equal(written, PAGE);
    }
    rt_destroy(&rt);
}

/* ---- what the device decides ----------------------------------------------------------------- */

static int keep_two(void *user, const struct rt_stage_context *c)
{
    int32_t *accepted = fixture_address(c->runtime, "accepted", 0);
    (void)user;
    if (!accepted)
        return 1;
    for (uint32_t r = 0; r < c->batch; r++)
        accepted[r] = 2;
    return 0;
}

/* Lengths come back by the row's own number of tokens, and it cannot keep more. */
static void the_device_decides_within_a_row(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create_stage(RT_STAGE_STEP_END, keep_two, NULL);
    fixture_randomise(rt, 5);
    const rt_seq seqs[2] = {fixture_open(rt), fixture_open(rt)};
    const int32_t by_device[2] = {RT_ACCEPT_DEVICE, RT_ACCEPT_DEVICE};
    const uint32_t two_and_three[2] = {2, 3}, one_and_three[2] = {1, 3};
    struct rt_step_params p = params_of(seqs, 2, two_and_three);
    p.accept = by_device;
    for (uint32_t i = 1; i <= 3; i++) {
        (void)launch(rt, &p);
        assert_int_equal(length_of(rt, seqs[0]), 2 * i);
        assert_int_equal(length_of(rt, seqs[1]), 2 * i);
    }
    assert_int_equal(rt_host_hold(rt, 1), RT_OK); /* all of a step in flight count */
    assert_int_equal(rt_step(rt, &p, NULL), RT_OK);
    assert_int_equal(rt->slots[(uint32_t)seqs[0]].length, 8);
    assert_int_equal(rt->slots[(uint32_t)seqs[1]].length, 9);
    assert_int_equal(rt_host_hold(rt, 0), RT_OK);
    p.query_lens = one_and_three;
    uint64_t ticket = 0;
    assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_ERR_DEVICE_CHECK);
    assert_non_null(
        strstr(rt_last_error(rt)->message, "row 0: the device refused accepted count 2"));
    assert_int_equal(length_of(rt, seqs[0]), 9);
    rt_destroy(&rt);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void expect_refusal(rt_runtime *rt, const struct rt_step_params *p, enum rt_status status,
                           const char *words)
{
    struct fixture_snapshot before, after;
    uint64_t ticket = 77;
    fixture_snapshot(rt, &before);
    assert_int_equal(rt_step(rt, p, &ticket), status);
    if (!strstr(rt_last_error(rt)->message, words))
        fail_msg("\"%s\" does not say \"%s\"", rt_last_error(rt)->message, words);
    fixture_snapshot(rt, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(ticket, 77);
}

static void bad_counts_are_refused(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 6);
    const rt_seq seqs[2] = {fixture_open(rt), fixture_open(rt)};
    const uint32_t none[2] = {1, 0}, many[2] = {4, 1}, huge[2] = {1, UINT32_MAX}, fine[2] = {2, 1};
    const int32_t stay[2] = {2, 2};
    struct rt_step_params p = params_of(seqs, 2, none);
    expect_refusal(rt, &p, RT_ERR_QUERY_LEN, "row 1: 0 tokens in a step of 1..3 a row");
    p.query_lens = many;
    expect_refusal(rt, &p, RT_ERR_QUERY_LEN, "row 0: 4 tokens in a step of 1..3 a row");
    p.query_lens = huge;
    expect_refusal(rt, &p, RT_ERR_QUERY_LEN, "row 1: 4294967295 tokens");
    p.query_lens = fine;
    p.accept = stay;
    expect_refusal(rt, &p, RT_ERR_INVALID, "row 1: accept 2 is not -1, 0 or 1..1");
    p.accept = NULL;
    rt->driver.probe.fail_at = rt->driver.probe.calls + 1;
    expect_refusal(rt, &p, RT_ERR_DRIVER, "");
    (void)launch(rt, &p);
    assert_int_equal(length_of(rt, seqs[0]), 2);
    assert_int_equal(length_of(rt, seqs[1]), 1);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ragged_rows_are_padded_ones),
        cmocka_unit_test(a_full_sequence_refuses_nobody),
        cmocka_unit_test(what_a_row_lacks_takes_no_page),
        cmocka_unit_test(the_device_decides_within_a_row),
        cmocka_unit_test(bad_counts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
