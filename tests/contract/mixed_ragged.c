/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of several tokens beside a chunk of prompts, each with its own number of them: one launch,
 * bit for bit what padded rows give of which as many stay, and what a step without prompts gives.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/prompts.h"

#define LONG 3u     /* the fixture's longer query */
#define LONGEST 80u /* its max_length */
#define PAGE 16u
#define SEQUENCES 6u
#define ROWS 3u    /* that a graph has beside its chunk */
#define PROMPTS 2u /* that share one */
#define HEADS 3u
#define D_V 256u
#define D_QK 288u
#define MOVES 60u

/* Two tokens of every row stay, where the tensor is asked. */
static int keep_two(void *user, const struct rt_stage_context *c)
{
    int32_t *accepted = fixture_address(c->runtime, "accepted", 0);
    (void)user;
    for (uint32_t r = 0; r < c->batch; r++)
        accepted[r] = 2;
    return 0;
}

static rt_runtime *create(void)
{
    struct rt_config config;
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    fixture_config(&config);
    config.pages = SEQUENCES * (LONGEST / PAGE);
    config.chunks[0] = 5;
    config.chunks[1] = 24;
    config.chunk_count = 2;
    config.prefill_rows = PROMPTS;
    config.mixed_rows[0] = 1;
    config.mixed_rows[1] = ROWS;
    config.mixed_row_count = 2;
    const struct rt_create_params p = {
        .struct_size = sizeof(p),
        .config = &config,
        .stages = {[RT_STAGE_BEFORE_ATTENTION] = feed_tokens, [RT_STAGE_STEP_END] = keep_two}};
    if (rt_create(&p, &rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    fixture_randomise(rt, 17);
    return rt;
}

static uint32_t length_of(rt_runtime *rt, rt_seq seq)
{
    uint32_t length = 0;
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    return length;
}

static uint64_t launch(rt_runtime *rt, const struct rt_step_params *p)
{
    const uint64_t calls = rt->driver.probe.calls;
    uint64_t ticket = 0;
    if (rt_step(rt, p, &ticket) != RT_OK)
        fail_msg("%s", rt_last_error(rt)->message);
    assert_int_equal(rt->driver.probe.calls, calls + 1);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    return ticket;
}

/* ---- beside padded rows, and without prompts ------------------------------------------------- */

/* ALONE: prompts go in first, then rows in a step of theirs. */
enum { RAGGED, PADDED, ALONE, SIDES };

struct rig {
    rt_runtime *rts[SIDES];
    rt_seq seqs[SIDES][SEQUENCES];
    uint64_t chance;
};

/* A mixed step: prompts of the sequences from `first` on, then rows. */
struct move {
    uint32_t first, prompts, rows;
    uint32_t prompt_counts[PROMPTS], counts[ROWS];
    int32_t ids[PROMPTS][12], tokens[ROWS * LONG], stay[ROWS];
};

static uint32_t below(struct rig *g, uint32_t bound)
{
    return (uint32_t)((fixture_random(&g->chance) >> 32) % bound);
}

static void draw(struct rig *g, struct move *m)
{
    m->first = below(g, SEQUENCES);
    m->prompts = 1 + below(g, PROMPTS);
    m->rows = 1 + below(g, ROWS);
    for (uint32_t i = 0; i < m->prompts; i++) {
        m->prompt_counts[i] = 1 + below(g, 12);
        make_ids(m->ids[i], 12, 1 + below(g, 10000));
    }
    for (uint32_t r = 0; r < m->rows; r++) {
        m->counts[r] = 1 + below(g, LONG);
        m->stay[r] = (int32_t)m->counts[r];
    }
    make_ids(m->tokens, ROWS * LONG, 1 + below(g, 10000));
}

/* So that what comes fits. */
static void make_room(struct rig *g)
{
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        const uint32_t length = length_of(g->rts[RAGGED], g->seqs[RAGGED][i]);
        const uint32_t to = length + 12 > LONGEST ? below(g, 20) : length;
        for (int side = 0; side < SIDES; side++)
            assert_int_equal(rt_seq_rewind(g->rts[side], g->seqs[side][i], to), RT_OK);
    }
}

static uint64_t put_in(struct rig *g, int side, const struct move *m)
{
    rt_runtime *rt = g->rts[side];
    struct rt_prompt prompts[PROMPTS];
    rt_seq seqs[ROWS];
    for (uint32_t i = 0; i < m->prompts; i++)
        prompts[i] = (struct rt_prompt){.seq = g->seqs[side][(m->first + i) % SEQUENCES],
                                        .tokens = m->ids[i],
                                        .count = m->prompt_counts[i]};
    for (uint32_t r = 0; r < m->rows; r++)
        seqs[r] = g->seqs[side][(m->first + m->prompts + r) % SEQUENCES];
    struct rt_step_params step = {.struct_size = sizeof(step),
                                  .rows = m->rows,
                                  .query_len = LONG,
                                  .seqs = seqs,
                                  .tokens = m->tokens,
                                  .accept = side == PADDED ? m->stay : NULL,
                                  .prompts = prompts,
                                  .prompt_count = m->prompts,
                                  .query_lens = side == PADDED ? NULL : m->counts};
    if (side == ALONE) {
        const struct rt_prefill_params p = {
            .struct_size = sizeof(p), .prompts = prompts, .prompt_count = m->prompts};
        assert_int_equal(rt_prefill(rt, &p, NULL), RT_OK);
        step.prompt_count = 0;
    }
    return launch(rt, &step);
}

/* The rows' own columns of what attention left in the last layer; a step's rows are packed. */
static void compare_rows(const struct rig *g, const struct move *m, uint32_t number)
{
    const size_t width = (size_t)HEADS * D_V;
    const uint16_t *out[SIDES];
    const uint32_t *lse[SIDES]; /* bits of floats */
    for (int side = 0; side < SIDES; side++) {
        out[side] = fixture_address(g->rts[side], "out", 1);
        lse[side] = fixture_address(g->rts[side], "lse", 1);
    }
    for (uint32_t k = 0; k < m->rows * LONG; k++) {
        const uint32_t r = k / LONG, t = k % LONG;
        const size_t at = column_of(g->rts[RAGGED], m->prompts + r, LONG, t);
        if (t >= m->counts[r]) {
            assert_int_equal((int32_t)at, -1);
            continue;
        }
        assert_int_equal(column_of(g->rts[PADDED], m->prompts + r, LONG, t), at);
        if (memcmp(out[RAGGED] + at * width, out[PADDED] + at * width, width * 2) != 0 ||
            memcmp(lse[RAGGED] + at * HEADS, lse[PADDED] + at * HEADS, HEADS * sizeof(uint32_t)) !=
                0)
            fail_msg("move %u: token %u of row %u differs from a padded row's", number, t, r);
        if (memcmp(out[RAGGED] + at * width, out[ALONE] + k * width, width * 2) != 0 ||
            memcmp(lse[RAGGED] + at * HEADS, lse[ALONE] + k * HEADS, HEADS * sizeof(uint32_t)) != 0)
            fail_msg("move %u: token %u of row %u differs from a step's without prompts", number, t,
                     r);
    }
}

static void compare_pasts(const struct rig *g)
{
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        const uint32_t length = length_of(g->rts[RAGGED], g->seqs[RAGGED][i]);
        for (int side = PADDED; side < SIDES; side++) {
            assert_int_equal(length, length_of(g->rts[side], g->seqs[side][i]));
            for (uint32_t t = 0; t < length; t++)
                assert_memory_equal(cached(g->rts[RAGGED], g->seqs[RAGGED][i], 1, t),
                                    cached(g->rts[side], g->seqs[side][i], 1, t), D_QK * 2);
        }
    }
}

/* Of prompts a token each, of rows all their columns. */
static void check_results(rt_runtime *rt, uint64_t ticket, const struct move *m)
{
    struct rt_row_result results[PROMPTS + ROWS];
    int32_t tokens[PROMPTS + ROWS * LONG];
    uint32_t count = 0;
    assert_int_equal(rt_result(rt, ticket, results, PROMPTS + ROWS, &count), RT_OK);
    assert_int_equal(count, m->prompts + m->rows);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(results[i].accepted, i < m->prompts ? 1 : m->counts[i - m->prompts]);
    assert_int_equal(rt_result_tokens(rt, ticket, tokens, PROMPTS + ROWS * LONG, &count), RT_OK);
    assert_int_equal(count, m->prompts + m->rows * LONG);
    for (uint32_t i = 0; i < m->prompts; i++)
        assert_int_equal(tokens[i], m->ids[i][m->prompt_counts[i] - 1]);
    for (uint32_t k = 0; k < m->rows * LONG; k++)
        assert_int_equal(tokens[m->prompts + k],
                         k % LONG < m->counts[k / LONG] ? m->tokens[k] : -1);
}

static void ragged_rows_are_padded_ones(void **state)
{
    (void)state;
    struct rig g = {.chance = 5};
    for (int side = 0; side < SIDES; side++) {
        g.rts[side] = create();
        for (uint32_t i = 0; i < SEQUENCES; i++)
            g.seqs[side][i] = fixture_open(g.rts[side]);
    }
    for (uint32_t i = 0; i < MOVES; i++) {
        struct move m = {.first = 0};
        draw(&g, &m);
        make_room(&g);
        const uint64_t ticket = put_in(&g, RAGGED, &m);
        check_results(g.rts[RAGGED], ticket, &m);
        (void)put_in(&g, PADDED, &m);
        (void)put_in(&g, ALONE, &m);
        compare_rows(&g, &m, i);
        compare_pasts(&g);
    }
    for (int side = 0; side < SIDES; side++)
        rt_destroy(&g.rts[side]);
}

/* ---- two rows beside a prompt ---------------------------------------------------------------- */

struct pair {
    rt_runtime *rt;
    rt_seq seqs[2];
    int32_t ids[LONGEST];
    struct rt_prompt prompt;
};

/* The rows have pasts of so many tokens. */
static void open_pair(struct pair *g, uint32_t first, uint32_t second)
{
    const uint32_t pasts[2] = {first, second};
    uint64_t ticket = 0;
    g->rt = create();
    make_ids(g->ids, LONGEST, 3);
    for (int i = 0; i < 2; i++) {
        g->seqs[i] = fixture_open(g->rt);
        const struct rt_prompt past = {.seq = g->seqs[i], .tokens = g->ids, .count = pasts[i]};
        const struct rt_prefill_params p = {
            .struct_size = sizeof(p), .prompts = &past, .prompt_count = 1};
        assert_int_equal(rt_prefill(g->rt, &p, &ticket), RT_OK);
        assert_int_equal(rt_wait(g->rt, ticket, UINT64_MAX), RT_OK);
    }
    g->prompt = (struct rt_prompt){.seq = fixture_open(g->rt), .tokens = g->ids, .count = 7};
}

static struct rt_step_params step_of(const struct pair *g, const uint32_t counts[2])
{
    return (struct rt_step_params){.struct_size = sizeof(struct rt_step_params),
                                   .rows = 2,
                                   .query_len = LONG,
                                   .seqs = g->seqs,
                                   .tokens = g->ids + 8,
                                   .prompts = &g->prompt,
                                   .prompt_count = 1,
                                   .query_lens = counts};
}

static void refuse(struct pair *g, const struct rt_step_params *p, enum rt_status status,
                   const char *words)
{
    struct fixture_snapshot before, after;
    uint64_t ticket = 77;
    fixture_snapshot(g->rt, &before);
    assert_int_equal(rt_step(g->rt, p, &ticket), status);
    if (!strstr(rt_last_error(g->rt)->message, words))
        fail_msg("\"%s\" does not say \"%s\"", rt_last_error(g->rt)->message, words);
    fixture_snapshot(g->rt, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(ticket, 77);
}

/* One token short of the end, beside a row of three. */
static void a_full_sequence_refuses_nobody(void **state)
{
    (void)state;
    static const uint32_t counts[2] = {1, LONG};
    struct pair g;
    open_pair(&g, LONGEST - 1, 4);
    struct rt_step_params p = step_of(&g, NULL);
    refuse(&g, &p, RT_ERR_LENGTH, "row 0: 79 tokens and 3 new ones exceed max_length 80");
    p.query_lens = counts;
    (void)launch(g.rt, &p);
    assert_int_equal(length_of(g.rt, g.seqs[0]), LONGEST);
    assert_int_equal(length_of(g.rt, g.seqs[1]), 4 + LONG);
    assert_int_equal(length_of(g.rt, g.prompt.seq), 7);
    rt_destroy(&g.rt);
}

/* Lengths come back by the row's own number of tokens, and it cannot keep more. */
static void the_device_decides_within_a_row(void **state)
{
    (void)state;
    static const int32_t by_device[2] = {RT_ACCEPT_DEVICE, RT_ACCEPT_DEVICE};
    static const uint32_t two_and_three[2] = {2, 3}, one_and_three[2] = {1, 3};
    struct pair g;
    uint64_t ticket = 0;
    open_pair(&g, 10, 14);
    struct rt_step_params p = step_of(&g, two_and_three);
    p.accept = by_device;
    for (uint32_t i = 1; i <= 2; i++) {
        (void)launch(g.rt, &p);
        assert_int_equal(length_of(g.rt, g.seqs[0]), 10 + 2 * i);
        assert_int_equal(length_of(g.rt, g.seqs[1]), 14 + 2 * i);
    }
    p.query_lens = one_and_three;
    assert_int_equal(rt_step(g.rt, &p, &ticket), RT_OK);
    assert_int_equal(rt_wait(g.rt, ticket, UINT64_MAX), RT_ERR_DEVICE_CHECK);
    assert_non_null(
        strstr(rt_last_error(g.rt)->message, "row 1: the device refused accepted count 2"));
    assert_int_equal(length_of(g.rt, g.seqs[0]), 15);
    rt_destroy(&g.rt);
}

static void what_is_wrong_changes_nothing(void **state)
{
    (void)state;
    static const uint32_t none[2] = {1, 0}, many[2] = {4, 1}, fine[2] = {2, 3};
    static const int32_t stay[2] = {3, 1};
    struct pair g;
    open_pair(&g, 20, 30);
    struct rt_step_params p = step_of(&g, none);
    refuse(&g, &p, RT_ERR_QUERY_LEN, "row 1: 0 tokens in a step of 1..3 a row");
    p.query_lens = many;
    refuse(&g, &p, RT_ERR_QUERY_LEN, "row 0: 4 tokens in a step of 1..3 a row");
    p.query_lens = fine;
    p.accept = stay;
    refuse(&g, &p, RT_ERR_INVALID, "row 0: accept 3 is not -1, 0 or 1..2");
    p.accept = NULL;
    const struct rt_prompt prompt = g.prompt;
    g.prompt.count = 25;
    refuse(&g, &p, RT_ERR_ROWS, "no graph holds 25 tokens of prompts");
    g.prompt = prompt;
    g.prompt.seq = g.seqs[1];
    refuse(&g, &p, RT_ERR_DUPLICATE, "row 1 names sequence");
    g.prompt = prompt;
    g.rt->driver.probe.fail_at = g.rt->driver.probe.calls + 1;
    refuse(&g, &p, RT_ERR_DRIVER, "");
    (void)launch(g.rt, &p);
    assert_int_equal(length_of(g.rt, g.seqs[0]), 22);
    assert_int_equal(length_of(g.rt, g.seqs[1]), 33);
    rt_destroy(&g.rt);
}

/* As a row, and as a prompt. */
static void a_closed_sequence_is_told(void **state)
{
    (void)state;
    static const uint32_t counts[2] = {2, 3};
    struct pair g;
    char words[64];
    open_pair(&g, 20, 30);
    assert_int_equal(rt_seq_close(g.rt, g.seqs[1]), RT_OK);
    struct rt_step_params p = step_of(&g, counts);
    (void)snprintf(words, sizeof(words), "0x%" PRIx64, g.seqs[1]);
    refuse(&g, &p, RT_ERR_SEQUENCE, words);
    p.rows = 1;
    const rt_seq open = g.prompt.seq;
    g.prompt.seq = g.seqs[1];
    refuse(&g, &p, RT_ERR_SEQUENCE, words);
    g.prompt.seq = open;
    (void)launch(g.rt, &p);
    assert_int_equal(length_of(g.rt, g.seqs[0]), 22);
    rt_destroy(&g.rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ragged_rows_are_padded_ones),
        cmocka_unit_test(a_full_sequence_refuses_nobody),
        cmocka_unit_test(the_device_decides_within_a_row),
        cmocka_unit_test(what_is_wrong_changes_nothing),
        cmocka_unit_test(a_closed_sequence_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
