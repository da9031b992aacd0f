/* SPDX-License-Identifier: Apache-2.0 */
/* Bad input of every kind: its own code, a sentence with the values, and nothing changed. */
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void refused(rt_runtime *rt, enum rt_status status, enum rt_status expected,
                    const struct fixture_snapshot *before, const char *words)
{
    struct fixture_snapshot after;
    if (status != expected)
        fail_msg("got %s, expected %s", rt_status_string(status), rt_status_string(expected));
    assert_int_equal(rt_last_error(rt)->status, expected);
    if (!strstr(rt_last_error(rt)->message, words))
        fail_msg("\"%s\" does not say \"%s\"", rt_last_error(rt)->message, words);
    fixture_snapshot(rt, &after);
    assert_memory_equal(before, &after, sizeof(after));
}

static void unknown_and_closed_sequences(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    struct fixture_snapshot before;
    rt_seq live = fixture_open(rt), dead = fixture_open(rt);
    assert_int_equal(rt_seq_close(rt, dead), RT_OK);
    fixture_snapshot(rt, &before);
    const rt_seq bad[] = {0, dead, live + 1, live ^ (1ull << 32), UINT64_MAX, 77};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        rt_seq row[2] = {live, bad[i]}, out;
        uint32_t length;
        const char *words = "is not an open sequence";
        refused(rt, fixture_step(rt, row, 2, 1, NULL), RT_ERR_SEQUENCE, &before, words);
        refused(rt, rt_seq_close(rt, bad[i]), RT_ERR_SEQUENCE, &before, words);
        refused(rt, rt_seq_fork(rt, bad[i], &out), RT_ERR_SEQUENCE, &before, words);
        refused(rt, rt_seq_rewind(rt, bad[i], 0), RT_ERR_SEQUENCE, &before, words);
        refused(rt, rt_seq_length(rt, bad[i], &length), RT_ERR_SEQUENCE, &before, words);
    }
    rt_destroy(&rt);
}

static void a_handle_dies_with_its_sequence(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    rt_seq first = fixture_open(rt);
    assert_int_equal(rt_seq_close(rt, first), RT_OK);
    for (int i = 0; i < 20; i++) { /* more than slots: the slot is certainly used again */
        rt_seq next = fixture_open(rt);
        assert_true(next != first);
        assert_int_equal(rt_seq_close(rt, first), RT_ERR_SEQUENCE);
        assert_int_equal(rt_seq_close(rt, next), RT_OK);
    }
    rt_destroy(&rt);
}

static void rows_and_query_lengths(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    struct fixture_snapshot before;
    rt_seq seqs[8];
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    seqs[6] = seqs[7] = seqs[0];
    fixture_snapshot(rt, &before);
    refused(rt, fixture_step(rt, seqs, 0, 1, NULL), RT_ERR_ROWS, &before, "0 rows");
    refused(rt, fixture_step(rt, seqs, 7, 1, NULL), RT_ERR_ROWS, &before, "7 rows");
    refused(rt, fixture_step(rt, seqs, UINT32_MAX, 1, NULL), RT_ERR_ROWS, &before, "1..6");
    refused(rt, fixture_step(rt, seqs, 1, 2, NULL), RT_ERR_QUERY_LEN, &before, "captured: 1 3");
    refused(rt, fixture_step(rt, NULL, 1, 1, NULL), RT_ERR_INVALID, &before, "seqs is null");
    seqs[1] = seqs[0];
    refused(rt, fixture_step(rt, seqs, 2, 1, NULL), RT_ERR_DUPLICATE, &before, "row 1");
    struct rt_step_params p = {.struct_size = 3, .rows = 1, .seqs = seqs};
    refused(rt, rt_step(rt, &p, NULL), RT_ERR_INVALID, &before, "struct_size is 3");
    p.struct_size = 4; /* nothing but itself: no rows */
    refused(rt, rt_step(rt, &p, NULL), RT_ERR_ROWS, &before, "0 rows");
    p.struct_size = sizeof(p);
    p.flags = 0x80;
    refused(rt, rt_step(rt, &p, NULL), RT_ERR_INVALID, &before, "0x80");
    p.flags = 0;
    const int32_t accepts[] = {-2, 2, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 4; i++) {
        p.accept = &accepts[i];
        refused(rt, rt_step(rt, &p, NULL), RT_ERR_INVALID, &before, "accept");
    }
    refused(rt, rt_step(rt, NULL, NULL), RT_ERR_INVALID, &before, "params is null");
    assert_int_equal(rt_step(NULL, &p, NULL), RT_ERR_INVALID);
    rt_destroy(&rt);
}

/* A token is at least 0; -1 says that there is none. Every row's every column is looked at. */
static void tokens_below_none(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    struct fixture_snapshot before;
    rt_seq seqs[6];
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    fixture_snapshot(rt, &before);
    const int32_t bad[] = {-2, -77, INT32_MIN};
    for (uint32_t at = 0; at < 18; at++)
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            int32_t tokens[18];
            for (uint32_t k = 0; k < 18; k++)
                tokens[k] = k % 2 ? -1 : INT32_MAX;
            tokens[at] = bad[i];
            const struct rt_step_params p = {.struct_size = sizeof(p),
                                             .rows = 6,
                                             .query_len = 3,
                                             .seqs = seqs,
                                             .tokens = tokens};
            char words[64];
            snprintf(words, sizeof(words), "row %u: token %u is %d", at / 3, at % 3, bad[i]);
            refused(rt, rt_step(rt, &p, NULL), RT_ERR_INVALID, &before, words);
        }
    rt_destroy(&rt);
}

static void step_token(rt_runtime *rt, rt_seq seq, int32_t token)
{
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .rows = 1, .seqs = &seq, .tokens = &token};
    uint64_t ticket;
    if (rt_step(rt, &p, &ticket) != RT_OK || rt_wait(rt, ticket, UINT64_MAX) != RT_OK)
        fail_msg("a step with token %d: %s", token, rt_last_error(rt)->message);
}

/* A shorter past has no last token, and a fork of it has none either. */
static void a_rewound_sequence_without_a_token(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 8);
    rt_seq seqs[2] = {fixture_open(rt), fixture_open(rt)}, fork = 0;
    for (int i = 0; i < 3; i++)
        fixture_step_ok(rt, seqs, 2, 3);
    assert_int_equal(rt_seq_rewind(rt, seqs[1], 9), RT_OK); /* no shorter */
    fixture_step_ok(rt, seqs, 2, 1);
    assert_int_equal(rt_seq_rewind(rt, seqs[1], 9), RT_OK);
    assert_int_equal(rt_seq_rewind(rt, seqs[1], 9), RT_OK);
    assert_int_equal(rt_seq_fork(rt, seqs[1], &fork), RT_OK);
    struct fixture_snapshot before;
    rt_harvest(rt);
    fixture_snapshot(rt, &before);
    const char *words = "row 1: sequence";
    refused(rt, fixture_step(rt, seqs, 2, 1, NULL), RT_ERR_INVALID, &before, words);
    const int32_t tokens[] = {7, -1, 8, -1, -1, 9}; /* one column and three */
    struct rt_step_params p = {.struct_size = sizeof(p), .rows = 2, .seqs = seqs, .tokens = tokens};
    refused(rt, rt_step(rt, &p, NULL), RT_ERR_INVALID, &before, "rewound at 9 tokens");
    p.query_len = 3;
    refused(rt, rt_step(rt, &p, NULL), RT_ERR_INVALID, &before, words);
    refused(rt, fixture_step(rt, &fork, 1, 1, NULL), RT_ERR_INVALID, &before, "name its token");
    if (rt->driver.caps.kind == RT_DEVICE_KIND_HOST) { /* a failed launch changes nothing */
        rt->driver.probe.fail_at = rt->driver.probe.calls + 1;
        p = (struct rt_step_params){
            .struct_size = sizeof(p), .rows = 1, .seqs = &fork, .tokens = tokens};
        refused(rt, rt_step(rt, &p, NULL), RT_ERR_DRIVER, &before, "injected");
        refused(rt, fixture_step(rt, &fork, 1, 1, NULL), RT_ERR_INVALID, &before, "rewound");
        rt->driver.probe.fail_at = 0;
    }
    step_token(rt, fork, 0);
    step_token(rt, seqs[1], 5);
    fixture_step_ok(rt, &fork, 1, 1);
    fixture_step_ok(rt, seqs, 2, 1); /* the last token is known again */
    rt_destroy(&rt);
}

static void the_seventh_sequence(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    rt_seq seqs[6], extra = 5;
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    struct fixture_snapshot before;
    fixture_snapshot(rt, &before);
    refused(rt, rt_seq_open(rt, NULL, &extra), RT_ERR_SLOTS, &before, "all 6");
    assert_int_equal(extra, 5);
    refused(rt, rt_seq_fork(rt, seqs[0], &extra), RT_ERR_SLOTS, &before, "all 6");
    rt_destroy(&rt);
}

/* In a record a last token below -1 names another sequence's: nobody outside may ask for that. */
static void a_last_token_below_none(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    const int32_t bad[] = {-2, -7, -8, INT32_MIN};
    struct fixture_snapshot before;
    fixture_snapshot(rt, &before);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct rt_seq_params p = {.struct_size = sizeof(p), .last_token = bad[i]};
        rt_seq out = 5;
        refused(rt, rt_seq_open(rt, &p, &out), RT_ERR_INVALID, &before, "neither a token nor -1");
        assert_int_equal(out, 5);
    }
    rt_destroy(&rt);
}

static void a_length_past_the_maximum(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 5);
    rt_seq seqs[2] = {fixture_open(rt), fixture_open(rt)};
    for (int i = 0; i < 26; i++) /* 78 of 80 tokens */
        fixture_step_ok(rt, seqs, 1, 3);
    struct fixture_snapshot before;
    rt_seq order[2] = {seqs[1], seqs[0]};
    fixture_snapshot(rt, &before);
    refused(rt, fixture_step(rt, order, 2, 3, NULL), RT_ERR_LENGTH, &before, "78 tokens");
    fixture_step_ok(rt, seqs, 1, 1);
    fixture_step_ok(rt, seqs, 1, 1);
    fixture_snapshot(rt, &before);
    refused(rt, fixture_step(rt, seqs, 1, 1, NULL), RT_ERR_LENGTH, &before, "max_length 80");
    const struct rt_seq_params longer = {.struct_size = sizeof(longer), .length = 81};
    rt_seq out;
    refused(rt, rt_seq_open(rt, &longer, &out), RT_ERR_LENGTH, &before, "81");
    refused(rt, rt_seq_rewind(rt, seqs[0], 81), RT_ERR_LENGTH, &before, "80 tokens");
    rt_destroy(&rt);
}

static void out_of_pages(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    config.pages = 3;
    rt_runtime *rt = fixture_create(&config);
    fixture_randomise(rt, 6);
    rt_seq seqs[3] = {fixture_open(rt), fixture_open(rt), fixture_open(rt)};
    for (int i = 0; i < 16; i++)
        fixture_step_ok(rt, seqs, 2, 1);
    struct fixture_snapshot before;
    fixture_snapshot(rt, &before);
    /* two rows need a second page, one is free: the whole step is refused, not half of it */
    refused(rt, fixture_step(rt, seqs, 2, 1, NULL), RT_ERR_PAGES, &before, "needs 2 new pages");
    fixture_step_ok(rt, seqs, 1, 1);
    fixture_snapshot(rt, &before);
    refused(rt, fixture_step(rt, &seqs[2], 1, 1, NULL), RT_ERR_PAGES, &before, "0 of 3 are free");
    rt_seq out;
    refused(rt, rt_seq_fork(rt, seqs[0], &out), RT_ERR_PAGES, &before, "none of 3");
    const struct rt_seq_params with_past = {.struct_size = sizeof(with_past), .length = 1};
    refused(rt, rt_seq_open(rt, &with_past, &out), RT_ERR_PAGES, &before, "0 of 3");
    assert_int_equal(rt_seq_close(rt, seqs[1]), RT_OK);
    fixture_step_ok(rt, &seqs[2], 1, 1);
    rt_destroy(&rt);
}

static void pages_of_the_caller(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    fixture_randomise(rt, 7);
    const struct rt_seq_params own = {
        .struct_size = sizeof(own), .pages = RT_PAGES_CALLER, .last_token = -1};
    rt_seq seq, builtin = fixture_open(rt), fork;
    assert_int_equal(rt_seq_open(rt, &own, &seq), RT_OK);
    struct fixture_snapshot before;
    fixture_snapshot(rt, &before);
    const int32_t pages[6] = {23, 0, 11, 5, 6, 7}, bad[2] = {3, 24}, negative = -1;
    refused(rt, fixture_step(rt, &seq, 1, 1, NULL), RT_ERR_PAGES, &before, "0 are bound");
    refused(rt, rt_seq_bind_pages(rt, seq, 1, pages, 1), RT_ERR_INVALID, &before, "gap");
    refused(rt, rt_seq_bind_pages(rt, seq, 0, bad, 2), RT_ERR_INVALID, &before, "page 24");
    refused(rt, rt_seq_bind_pages(rt, seq, 0, &negative, 1), RT_ERR_INVALID, &before, "page -1");
    refused(rt, rt_seq_bind_pages(rt, seq, 0, pages, 6), RT_ERR_LENGTH, &before, "exceed");
    refused(rt, rt_seq_bind_pages(rt, seq, 0, pages, UINT32_MAX), RT_ERR_LENGTH, &before, "exceed");
    refused(rt, rt_seq_bind_pages(rt, seq, 0, NULL, 1), RT_ERR_INVALID, &before, "null");
    refused(rt, rt_seq_bind_pages(rt, builtin, 0, pages, 1), RT_ERR_UNSUPPORTED, &before,
            "builtin");
    refused(rt, rt_seq_fork(rt, seq, &fork), RT_ERR_UNSUPPORTED, &before, "caller's pages");
    assert_int_equal(rt_seq_bind_pages(rt, seq, 0, pages, 1), RT_OK);
    for (int i = 0; i < 16; i++)
        fixture_step_ok(rt, &seq, 1, 1);
    fixture_snapshot(rt, &before);
    refused(rt, fixture_step(rt, &seq, 1, 1, NULL), RT_ERR_PAGES, &before, "need 2 pages");
    assert_int_equal(rt_seq_bind_pages(rt, seq, 1, pages + 1, 4), RT_OK);
    fixture_step_ok(rt, &seq, 1, 1);
    int32_t seen[8];
    uint32_t count;
    assert_int_equal(rt_seq_pages(rt, seq, seen, 8, &count), RT_OK);
    assert_int_equal(count, 5);
    assert_memory_equal(seen, pages, 5 * sizeof(*pages));
    rt_destroy(&rt);
}

static void tensors_and_tickets(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    struct fixture_snapshot before;
    fixture_snapshot(rt, &before);
    struct rt_tensor t = {.struct_size = sizeof(t)};
    uint32_t word = 0;
    refused(rt, rt_tensor(rt, "Q", 0, &t), RT_ERR_INVALID, &before, "there are");
    refused(rt, rt_tensor(rt, "ctrl", 0, &t), RT_ERR_INVALID, &before, "\"ctrl\"");
    refused(rt, rt_tensor(rt, "kv", 2, &t), RT_ERR_INVALID, &before, "layer 2 of 2");
    refused(rt, rt_tensor(rt, NULL, 0, &t), RT_ERR_INVALID, &before, "null");
    assert_int_equal(rt_tensor(rt, "kv", 1, &t), RT_OK);
    refused(rt, rt_tensor_write(rt, "kv", 1, t.bytes, &word, 1), RT_ERR_INVALID, &before, "past");
    refused(rt, rt_tensor_read(rt, "kv", 1, UINT64_MAX, &word, 4), RT_ERR_INVALID, &before, "past");
    refused(rt, rt_tensor_read(rt, "lse", 0, 0, NULL, 4), RT_ERR_INVALID, &before, "null");
    refused(rt, rt_wait(rt, 0, 0), RT_ERR_INVALID, &before, "ticket 0");
    refused(rt, rt_wait(rt, 9, 0), RT_ERR_INVALID, &before, "ticket 9");
    struct rt_row_result row;
    uint32_t count;
    refused(rt, rt_result(rt, 1, &row, 1, &count), RT_ERR_INVALID, &before, "ticket 1");
    const struct rt_prompt prompt = {.seq = 1, .count = 12};
    const struct rt_prefill_params prefill = {
        .struct_size = sizeof(prefill), .prompts = &prompt, .prompt_count = 1};
    refused(rt, rt_prefill(rt, &prefill, NULL), RT_ERR_UNSUPPORTED, &before, "prefill.chunks");
    rt_destroy(&rt);
}

static void create_params(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    rt_runtime *rt = (rt_runtime *)&config;
    struct rt_error error = {0};
    struct rt_create_params p = {.struct_size = sizeof(p), .config = &config};
    assert_int_equal(rt_create(NULL, &rt, &error), RT_ERR_INVALID);
    assert_null(rt);
    p.struct_size = 1;
    assert_int_equal(rt_create(&p, &rt, &error), RT_ERR_INVALID);
    assert_non_null(strstr(error.message, "rt_create: params->struct_size is 1"));
    p.struct_size = sizeof(p);
    p.region_count = 2;
    assert_int_equal(rt_create(&p, &rt, &error), RT_ERR_INVALID);
    p.region_count = 0;
    p.config = NULL;
    assert_int_equal(rt_create(&p, &rt, &error), RT_ERR_INVALID);
    p.config = &config;
    assert_int_equal(rt_create(&p, NULL, &error), RT_ERR_INVALID);
    config.geometry.heads = 129;
    assert_int_equal(rt_create(&p, &rt, &error), RT_ERR_GEOMETRY);
    assert_non_null(strstr(error.message, "129"));
    fixture_config(&config);
    config.geometry.kv_lora_rank = 384;
    assert_int_equal(rt_create(&p, &rt, &error), RT_ERR_GEOMETRY);
    assert_non_null(strstr(error.message, "576/512"));
    fixture_config(&config);
    strcpy(config.device, "cuda:77");
    assert_int_equal(rt_create(&p, &rt, &error), RT_ERR_NO_DEVICE);
    fixture_config(&config);
    const bool host = strcmp(config.device, "host") == 0;
    p.arena_address = 256;
    p.arena_bytes = 1;
    assert_int_equal(rt_create(&p, &rt, &error), host ? RT_ERR_UNSUPPORTED : RT_ERR_INVALID);
    assert_null(rt);
    /* a stream of another device's: the host device would take it for its own */
    strcpy(config.device, "host");
    p.arena_address = 0;
    assert_int_equal(rt_create(&p, &rt, &error), RT_ERR_INVALID); /* a size without an address */
    assert_non_null(strstr(error.message, "address is null"));
    p.arena_bytes = 0;
    p.stream = &error;
    assert_int_equal(rt_create(&p, &rt, &error), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "no stream"));
    assert_null(rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_and_closed_sequences),
        cmocka_unit_test(a_handle_dies_with_its_sequence),
        cmocka_unit_test(rows_and_query_lengths),
        cmocka_unit_test(tokens_below_none),
        cmocka_unit_test(a_rewound_sequence_without_a_token),
        cmocka_unit_test(the_seventh_sequence),
        cmocka_unit_test(a_last_token_below_none),
        cmocka_unit_test(a_length_past_the_maximum),
        cmocka_unit_test(out_of_pages),
        cmocka_unit_test(pages_of_the_caller),
        cmocka_unit_test(tensors_and_tickets),
        cmocka_unit_test(create_params),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
