/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token in, token out on the device: a stage samples, drafts and stops, and the host launches as
 * far ahead as the ring is deep. What it learns late changes nothing.
 */
#include "kernels/ref/ref.h"
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VOCAB 40u
#define SLOTS 6u
#define ROWS 4u /* of the largest graph */
#define COLUMNS 3u
#define DRAFTS (COLUMNS - 1)
#define MOST 64u /* tokens of a text */

/* A model whose logits follow from a token and its position, and what it needs of memory. */
struct model {
    struct rt_sample_line lines[SLOTS];
    float logits[ROWS * COLUMNS * VOCAB];
    bool drafts; /* tries to draft, and is right now and then */
};

static void fill_logits(int32_t token, int32_t position, float *logits)
{
    uint64_t random = (uint64_t)(token + 2) * 1000003 + (uint64_t)position + 1;
    for (uint32_t id = 0; id < VOCAB; id++)
        logits[id] = (float)(fixture_random(&random) >> 40) * 0x1p-22f;
}

/* Likely tokens: greedy, where the model samples. */
static int32_t guess(int32_t token, int32_t position)
{
    float logits[VOCAB];
    uint32_t best = 0;
    fill_logits(token, position, logits);
    for (uint32_t id = 1; id < VOCAB; id++)
        best = logits[id] > logits[best] ? id : best;
    return (int32_t)best;
}

static int leave_drafts(rt_runtime *rt, int32_t rows)
{
    const int32_t *sampled = fixture_address(rt, "sampled", 0),
                  *accepted = fixture_address(rt, "accepted", 0);
    const int32_t *position = fixture_address(rt, "positions", 0),
                  *base = fixture_address(rt, "row_base", 0);
    int32_t *drafts = fixture_address(rt, "drafts", 0);
    if (!sampled || !accepted || !position || !base || !drafts)
        return 1;
    for (int32_t r = 0; r < rows; r++) {
        int32_t token = sampled[*base + r];
        for (int32_t i = 0; i < (int32_t)DRAFTS; i++) {
            token = guess(token, position[r] + accepted[*base + r] + i);
            drafts[(*base + r) * (int32_t)DRAFTS + i] = token;
        }
    }
    return 0;
}

static int decode(void *user, const struct rt_stage_context *context)
{
    struct model *m = user;
    rt_runtime *rt = context->runtime;
    const char *live = fixture_address(rt, "live_rows", 0);
    if (!live)
        return 1;
    const struct rt_ctrl *ctrl = (const void *)(live - offsetof(struct rt_ctrl, live_rows));
    const struct rt_sample_params p = {.logits = m->logits,
                                       .row_stride = context->query_len * VOCAB,
                                       .token_stride = VOCAB,
                                       .rows = {.length = fixture_address(rt, "lengths", 0),
                                                .slot = fixture_address(rt, "slots", 0),
                                                .position = fixture_address(rt, "positions", 0),
                                                .ctrl = ctrl,
                                                .count = ctrl->live_rows,
                                                .q_len = context->query_len},
                                       .accept = fixture_address(rt, "accept", 0),
                                       .tokens = fixture_address(rt, "tokens", 0),
                                       .accepted = fixture_address(rt, "accepted", 0),
                                       .sampled = fixture_address(rt, "sampled", 0),
                                       .lines = m->lines,
                                       .scale = 1.0f,
                                       .vocab = VOCAB};
    if (!p.tokens || !p.rows.position)
        return 1;
    const int32_t *tokens = p.tokens + ctrl->row_base * context->query_len;
    for (uint32_t i = 0; i < ctrl->live_rows * context->query_len; i++)
        fill_logits(tokens[i],
                    p.rows.position[i / context->query_len] + (int32_t)(i % context->query_len),
                    m->logits + (size_t)i * VOCAB);
    rt_ref_sample(&p);
    return m->drafts ? leave_drafts(rt, (int32_t)ctrl->live_rows) : 0;
}

static rt_runtime *create(struct model *m, float temperature)
{
    *m = (struct model){0};
    for (uint32_t s = 0; s < SLOTS; s++) {
        m->lines[s] = (struct rt_sample_line){
            .temperature = temperature, .top_p = 0.9f, .top_k = 20, .seed = s};
        memset(m->lines[s].stop, 0xff, sizeof(m->lines[s].stop));
    }
    rt_runtime *rt = fixture_create_stage(RT_STAGE_STEP_END, decode, m);
    fixture_randomise(rt, 91);
    return rt;
}

static rt_seq open_at(rt_runtime *rt, int32_t token)
{
    const struct rt_seq_params params = {.struct_size = sizeof(params), .last_token = token};
    rt_seq seq;
    assert_int_equal(rt_seq_open(rt, &params, &seq), RT_OK);
    return seq;
}

static enum rt_status launch(rt_runtime *rt, const rt_seq *seqs, uint32_t rows, uint32_t q,
                             uint64_t *ticket)
{
    static const int32_t by_device[ROWS] = {-1, -1, -1, -1};
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .rows = rows, .query_len = q, .seqs = seqs, .accept = by_device};
    return rt_step(rt, &p, ticket);
}

struct text {
    int32_t tokens[MOST];
    uint32_t count, steps;
};

/* What a step has added to the texts of its rows: the tokens behind the first that stayed, and the
 * one sampled behind them. */
static void collect(rt_runtime *rt, uint64_t ticket, uint32_t rows, uint32_t q, struct text *texts)
{
    struct rt_row_result results[ROWS];
    int32_t tokens[ROWS * COLUMNS];
    uint32_t count;
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    assert_int_equal(rt_result(rt, ticket, results, ROWS, &count), RT_OK);
    assert_int_equal(rt_result_tokens(rt, ticket, tokens, ROWS * COLUMNS, &count), RT_OK);
    assert_int_equal(count, rows * q);
    for (uint32_t r = 0; r < rows; r++) {
        struct text *t = &texts[r];
        assert_true(t->count + q <= MOST);
        for (int32_t i = 1; i < results[r].accepted; i++)
            t->tokens[t->count++] = tokens[r * q + (uint32_t)i];
        if (results[r].accepted > 0)
            t->tokens[t->count++] = results[r].sampled;
        t->steps++;
    }
}

static void expect_same(const struct text *found, const struct text *expected, uint32_t count)
{
    assert_true(found->count >= count && expected->count >= count);
    for (uint32_t i = 0; i < count; i++)
        if (found->tokens[i] != expected->tokens[i])
            fail_msg("token %u is %d, expected %d", i, found->tokens[i], expected->tokens[i]);
}

/* `steps` steps, each waited for. */
static void decode_slowly(struct model *m, rt_runtime *rt, const rt_seq *seqs, uint32_t rows,
                          uint32_t q, uint32_t steps, struct text *texts)
{
    m->drafts = q > 1;
    memset(texts, 0, rows * sizeof(*texts));
    for (uint32_t i = 0; i < steps; i++) {
        uint64_t ticket;
        assert_int_equal(launch(rt, seqs, rows, q, &ticket), RT_OK);
        collect(rt, ticket, rows, q, texts);
    }
}

/* The first place from the fifth on whose token was not there before, nor is the one fed first. */
static uint32_t place_to_stop(const struct text *t, int32_t fed)
{
    for (uint32_t at = 4; at < t->count; at++) {
        bool new = t->tokens[at] != fed;
        for (uint32_t i = 0; i < at; i++)
            new = new && t->tokens[i] != t->tokens[at];
        if (new)
            return at;
    }
    fail_msg("no token of the text is new behind the fourth");
    return 0;
}

/* The host is three steps ahead when a row samples its stop id: those add nothing to it. */
static void a_stop_is_seen_late_and_its_row_has_stopped(void **state)
{
    (void)state;
    struct model m;
    struct text plain[3], ahead[3] = {0};
    rt_runtime *rt = create(&m, 1.0f);
    rt_seq seqs[3] = {open_at(rt, 1), open_at(rt, 2), open_at(rt, 3)};
    decode_slowly(&m, rt, seqs, 3, 1, 20, plain);
    rt_destroy(&rt);

    rt = create(&m, 1.0f);
    for (uint32_t i = 0; i < 3; i++)
        seqs[i] = open_at(rt, (int32_t)i + 1);
    const uint32_t at = place_to_stop(&plain[1], 2);
    m.lines[(uint32_t)seqs[1]].stop[3] = plain[1].tokens[at];
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    uint64_t tickets[20];
    uint32_t done = 0;
    for (uint32_t i = 0; i < 20; i++) {
        while (launch(rt, seqs, 3, 1, &tickets[i]) == RT_ERR_BUSY) {
            assert_int_equal(rt_host_release(rt, 1, NULL), RT_OK);
            collect(rt, tickets[done++], 3, 1, ahead);
        }
    }
    assert_int_equal(done, 17);
    assert_int_equal(rt_host_hold(rt, 0), RT_OK);
    while (done < 20)
        collect(rt, tickets[done++], 3, 1, ahead);
    expect_same(&ahead[0], &plain[0], 20);
    expect_same(&ahead[2], &plain[2], 20);
    assert_int_equal(ahead[1].count, at + 1);
    expect_same(&ahead[1], &plain[1], at + 1);
    uint32_t length;
    int32_t last;
    assert_int_equal(rt_seq_length(rt, seqs[1], &length), RT_OK);
    assert_int_equal(length, at + 1);
    const uint32_t slot = (uint32_t)seqs[1];
    assert_int_equal(rt_tensor_read(rt, "slot_tokens", 0, slot * sizeof(last), &last, sizeof(last)),
                     RT_OK);
    assert_int_equal(last, plain[1].tokens[at]);
    rt_destroy(&rt);
}

/* Drafts change how many steps a text takes, and not one token of it. */
static void drafts_change_no_token(void **state)
{
    (void)state;
    struct model m;
    struct text plain[3], drafted[3];
    rt_runtime *rt = create(&m, 0.3f);
    rt_seq seqs[3] = {open_at(rt, 1), open_at(rt, 2), open_at(rt, 3)};
    decode_slowly(&m, rt, seqs, 3, 1, 50, plain);
    rt_destroy(&rt);
    rt = create(&m, 0.3f);
    for (uint32_t i = 0; i < 3; i++)
        seqs[i] = open_at(rt, (int32_t)i + 1);
    decode_slowly(&m, rt, seqs, 3, 3, 16, drafted);
    uint32_t tokens = 0;
    for (uint32_t r = 0; r < 3; r++) {
        expect_same(&drafted[r], &plain[r], drafted[r].count);
        tokens += drafted[r].count;
    }
    assert_in_range(tokens, 3 * 16 + 10, 3 * 48 - 10); /* some were right, some were not */
    rt_destroy(&rt);
}

/* A stop id among the drafts ends the row there, whatever is drafted behind. */
static void a_drafted_stop_ends_the_row(void **state)
{
    (void)state;
    struct model m;
    struct text plain, drafted;
    rt_runtime *rt = create(&m, 0.0f);
    rt_seq seq = open_at(rt, 7);
    decode_slowly(&m, rt, &seq, 1, 1, 12, &plain);
    rt_destroy(&rt);
    rt = create(&m, 0.0f);
    seq = open_at(rt, 7);
    const uint32_t at = place_to_stop(&plain, 7);
    m.lines[(uint32_t)seq].stop[0] = plain.tokens[at];
    decode_slowly(&m, rt, &seq, 1, 3, 6, &drafted);
    assert_int_equal(drafted.count, at + 1);
    expect_same(&drafted, &plain, at + 1);
    uint32_t length;
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    assert_int_equal(length, at + 1);
    rt_destroy(&rt);
}

/* A position is a place in the stream of chance: going back there brings the same token again, and
 * a fork with its parent's seed goes its parent's way. */
static void the_past_decides_the_future(void **state)
{
    (void)state;
    struct model m;
    struct text first, child;
    rt_runtime *rt = create(&m, 1.0f);
    rt_seq seq = open_at(rt, 1), fork;
    uint64_t ticket;
    decode_slowly(&m, rt, &seq, 1, 3, 4, &first);
    uint32_t length;
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    assert_int_equal(rt_seq_fork(rt, seq, &fork), RT_OK);
    m.lines[(uint32_t)fork].seed = m.lines[(uint32_t)seq].seed;
    decode_slowly(&m, rt, &seq, 1, 3, 4, &first);
    decode_slowly(&m, rt, &fork, 1, 1, 4, &child);
    expect_same(&child, &first, 4);

    assert_int_equal(rt_seq_rewind(rt, fork, length + 1), RT_OK);
    assert_int_equal(launch(rt, &fork, 1, 1, &ticket), RT_ERR_INVALID); /* its token is unknown */
    const struct rt_step_params named = {.struct_size = sizeof(named),
                                         .rows = 1,
                                         .query_len = 1,
                                         .seqs = &fork,
                                         .tokens = first.tokens,
                                         .accept = (int32_t[]){RT_ACCEPT_DEVICE}};
    struct text again = {0};
    assert_int_equal(rt_step(rt, &named, &ticket), RT_OK);
    collect(rt, ticket, 1, 1, &again);
    assert_int_equal(again.tokens[0], first.tokens[1]);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_is_seen_late_and_its_row_has_stopped),
        cmocka_unit_test(drafts_change_no_token),
        cmocka_unit_test(a_drafted_stop_ends_the_row),
        cmocka_unit_test(the_past_decides_the_future),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
