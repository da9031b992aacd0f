/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts that meet a failure, a full ring, a failing stage: what was launched before stays, the
 * rest is as before, no page is lost, and the rest can go in again. */
#include "tests/support/count_malloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/prompts.h"

#define D_QK 288u
#define LAYERS 2u
#define PAGE 16u
#define PAGES 24u
#define CHUNK 24u
#define LONGEST 80u

/* The n-th call of the stage from now on fails; 0: none does. */
static uint32_t stage_fails;
/* Tokens of each row that stay, where the tensor is asked. */
static int32_t stays;

/* Before attention: latents of all tokens. At the end: what stays. */
static int feed(void *user, const struct rt_stage_context *c)
{
    rt_runtime *rt = c->runtime;
    (void)user;
    if (stage_fails && --stage_fails == 0)
        return 7;
    if (c->point == RT_STAGE_STEP_END) {
        int32_t *accepted = fixture_address(rt, "accepted", 0);
        for (uint32_t r = 0; r < c->batch; r++)
            accepted[r] = stays;
        return 0;
    }
    uint16_t *latent = fixture_address(rt, "latent", c->layer);
    const int32_t *position = fixture_address(rt, c->chunk ? "token_positions" : "positions", 0);
    const int32_t *id = fixture_address(rt, c->chunk ? "chunk_tokens" : "tokens", 0);
    for (uint32_t j = 0; j < c->tokens && c->query_len == 1; j++)
        token_numbers(latent + (size_t)j * D_QK, D_QK, id[j], position[j], c->layer);
    return 0;
}

static rt_runtime *create(void)
{
    struct rt_config config;
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    fixture_config(&config);
    strcpy(config.device, "host");
    config.chunks[0] = CHUNK;
    config.chunk_count = 1;
    config.prefill_rows = 3;
    config.mixed_rows[0] = 2;
    config.mixed_row_count = 1;
    const struct rt_create_params p = {
        .struct_size = sizeof(p),
        .config = &config,
        .stages = {[RT_STAGE_BEFORE_ATTENTION] = feed, [RT_STAGE_STEP_END] = feed}};
    if (rt_create(&p, &rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    return rt;
}

static enum rt_status prefill(rt_runtime *rt, rt_seq seq, const int32_t *ids, uint32_t count,
                              uint32_t flags, uint64_t *ticket)
{
    const struct rt_prompt prompt = {.seq = seq, .tokens = ids, .count = count};
    const struct rt_prefill_params p = {
        .struct_size = sizeof(p), .flags = flags, .prompts = &prompt, .prompt_count = 1};
    return rt_prefill(rt, &p, ticket);
}

static void prefill_ok(rt_runtime *rt, rt_seq seq, const int32_t *ids, uint32_t count)
{
    uint64_t ticket = 0;
    if (prefill(rt, seq, ids, count, 0, &ticket) != RT_OK ||
        rt_wait(rt, ticket, UINT64_MAX) != RT_OK)
        fail_msg("%u tokens: %s", count, rt_last_error(rt)->message);
}

/* A row that decodes one token beside a prompt. */
static enum rt_status mix(rt_runtime *rt, rt_seq row, int32_t token, int32_t accept,
                          const struct rt_prompt *prompt, uint32_t flags, uint64_t *ticket)
{
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = flags,
                                     .rows = 1,
                                     .seqs = &row,
                                     .tokens = &token,
                                     .accept = &accept,
                                     .prompts = prompt,
                                     .prompt_count = 1};
    return rt_step(rt, &p, ticket);
}

static uint32_t length_of(rt_runtime *rt, rt_seq seq)
{
    uint32_t length = 0;
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    return length;
}

/* The sequence is these tokens, all of them in its cache, in no more pages than it needs. */
static void expect_fed(rt_runtime *rt, rt_seq seq, const int32_t *ids, uint32_t length)
{
    int32_t pages[LONGEST / PAGE];
    uint32_t count = 0;
    uint16_t latent[D_QK];
    assert_int_equal(length_of(rt, seq), length);
    assert_int_equal(rt_seq_pages(rt, seq, pages, LONGEST / PAGE, &count), RT_OK);
    assert_int_equal(count, (length + PAGE - 1) / PAGE);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t i = 0; i < length; i++) {
            token_numbers(latent, D_QK, ids[i], (int32_t)i, layer);
            assert_memory_equal(cached(rt, seq, layer, i), latent, sizeof(latent));
        }
}

static void expect_unchanged(rt_runtime *rt, const struct fixture_snapshot *before)
{
    struct fixture_snapshot after;
    fixture_snapshot(rt, &after);
    assert_memory_equal(before, &after, sizeof(after));
}

static void expect_words(rt_runtime *rt, const char *words)
{
    if (!strstr(rt_last_error(rt)->message, words))
        fail_msg("\"%s\" has no \"%s\"", rt_last_error(rt)->message, words);
}

/* Lets the n-th driver call from now on fail. */
static void arm(rt_runtime *rt, uint64_t n)
{
    rt->driver.probe.fail_at = rt->driver.probe.calls + n;
}

/* Whether it has come to that call; with a status that says so, but where the call leaves the
 * context, behind work that has succeeded. */
static bool disarm(rt_runtime *rt, enum rt_status status)
{
    struct rt_driver_probe *p = &rt->driver.probe;
    const uint64_t at = p->fail_at;
    p->fail_at = 0;
    if (p->calls < at) {
        assert_int_equal(status, RT_OK);
        return false;
    }
    if (status != RT_OK) {
        assert_int_equal(status, RT_ERR_DRIVER);
        /* No replay may take it for its own. */
        assert_int_equal(rt_ring_record(&rt->ring)->step, 0);
    } else {
        assert_int_equal(p->log[(at - 1) % RT_PROBE_LOG], RT_DOP_ctx_leave);
    }
    return true;
}

/* Of three chunks, with the n-th driver call failing. False: it had fewer. */
static bool cut_prefill(uint64_t n, uint32_t flags, uint32_t *cuts)
{
    rt_runtime *rt = create();
    const rt_seq seq = fixture_open(rt);
    struct fixture_snapshot before;
    int32_t ids[LONGEST];
    uint64_t ticket = 99;
    make_ids(ids, LONGEST, 3);
    fixture_snapshot(rt, &before);
    arm(rt, n);
    const enum rt_status status = prefill(rt, seq, ids, 60, flags, &ticket);
    const bool came_to_it = disarm(rt, status), cut = status != RT_OK;
    const uint32_t length = length_of(rt, seq);
    assert_true(cut ? length % CHUNK == 0 && length < 60 : length == 60);
    assert_int_equal(ticket, length ? (length + CHUNK - 1) / CHUNK : 99);
    assert_int_equal(rt->pages.free_count, PAGES - (length + PAGE - 1) / PAGE);
    if (length == 0)
        expect_unchanged(rt, &before);
    else
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    expect_fed(rt, seq, ids, length);
    if (cut)
        prefill_ok(rt, seq, ids + length, 60 - length);
    expect_fed(rt, seq, ids, 60);
    cuts[length / CHUNK] += cut;
    rt_destroy(&rt);
    return came_to_it;
}

static void every_driver_call_of_a_prefill(void **state)
{
    (void)state;
    for (uint32_t eager = 0; eager < 2; eager++) {
        uint32_t cuts[3] = {0, 0, 0};
        uint64_t n = 1;
        while (cut_prefill(n, eager ? RT_STEP_EAGER : 0, cuts))
            n++;
        for (uint32_t i = 0; i < 3; i++) /* cut in each chunk */
            assert_true(cuts[i] > 0);
        assert_true(eager ? n > 3 * 6 : n == 3 + 1); /* a launch a chunk */
    }
}

static bool cut_mixed(uint64_t n, uint32_t flags)
{
    rt_runtime *rt = create();
    const rt_seq row = fixture_open(rt), seq = fixture_open(rt);
    struct fixture_snapshot before;
    int32_t ids[2][LONGEST];
    uint64_t ticket = 99;
    make_ids(ids[0], LONGEST, 4);
    make_ids(ids[1], LONGEST, 5);
    prefill_ok(rt, row, ids[0], 16); /* its next token wants a page */
    rt_harvest(rt);
    fixture_snapshot(rt, &before);
    const struct rt_prompt prompt = {.seq = seq, .tokens = ids[1], .count = 20};
    arm(rt, n);
    const enum rt_status status = mix(rt, row, ids[0][16], 1, &prompt, flags, &ticket);
    const bool came_to_it = disarm(rt, status);
    if (status != RT_OK) {
        expect_unchanged(rt, &before);
        assert_int_equal(ticket, 99);
        assert_int_equal(mix(rt, row, ids[0][16], 1, &prompt, flags, &ticket), RT_OK);
    }
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    expect_fed(rt, row, ids[0], 17);
    expect_fed(rt, seq, ids[1], 20);
    assert_int_equal(rt->pages.free_count, PAGES - 2 - 2);
    rt_destroy(&rt);
    return came_to_it;
}

static void every_driver_call_of_a_mixed_step(void **state)
{
    (void)state;
    uint64_t replayed = 1, eager = 1;
    while (cut_mixed(replayed, 0))
        replayed++;
    assert_int_equal(replayed, 2); /* one launch */
    while (cut_mixed(eager, RT_STEP_EAGER))
        eager++;
    assert_true(eager > 6);
}

static void prompts_allocate_nothing(void **state)
{
    (void)state;
    rt_runtime *rt = create();
    const rt_seq row = fixture_open(rt), seq = fixture_open(rt);
    int32_t ids[LONGEST];
    make_ids(ids, LONGEST, 6);
    const struct rt_prompt prompt = {.seq = seq, .tokens = ids + 60, .count = 20};
    count_malloc_begin();
    const enum rt_status first = prefill(rt, seq, ids, 60, 0, NULL);
    const enum rt_status second = mix(rt, row, 5, 1, &prompt, 0, NULL);
    const int allocations = count_malloc_end();
    assert_int_equal(first, RT_OK);
    assert_int_equal(second, RT_OK);
    assert_int_equal(allocations, 0);
    rt_destroy(&rt);
}

static void a_full_ring(void **state)
{
    (void)state;
    rt_runtime *rt = create();
    const rt_seq row = fixture_open(rt), seq = fixture_open(rt);
    struct fixture_snapshot before;
    int32_t ids[LONGEST];
    uint64_t ticket = 99;
    make_ids(ids, LONGEST, 7);
    const struct rt_prompt prompt = {.seq = seq, .tokens = ids, .count = 20};
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mix(rt, row, 5, 1, &(struct rt_prompt){seq, ids + i, 1, 0}, 0, NULL),
                         RT_OK);
    fixture_snapshot(rt, &before);
    assert_int_equal(mix(rt, row, 5, 1, &prompt, 0, &ticket), RT_ERR_BUSY);
    expect_unchanged(rt, &before);
    assert_int_equal(prefill(rt, seq, ids + 3, 9, 0, &ticket), RT_ERR_TIMEOUT);
    expect_unchanged(rt, &before);
    assert_int_equal(ticket, 99);
    assert_int_equal(rt_host_hold(rt, 0), RT_OK);
    prefill_ok(rt, seq, ids + 3, 9);
    expect_fed(rt, seq, ids, 12);
    rt_destroy(&rt);
}

/* Nobody runs what is held: a prompt of more chunks than the ring has records ends in between. */
static void a_prefill_of_held_work(void **state)
{
    (void)state;
    rt_runtime *rt = create();
    const rt_seq seq = fixture_open(rt);
    int32_t ids[LONGEST];
    uint64_t ticket = 0;
    make_ids(ids, LONGEST, 8);
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    assert_int_equal(prefill(rt, seq, ids, LONGEST, 0, &ticket), RT_ERR_TIMEOUT);
    expect_words(rt, "rt_host_release");
    assert_int_equal(ticket, 3);
    assert_int_equal(length_of(rt, seq), 3 * CHUNK);
    assert_int_equal(rt->pages.free_count, PAGES - 5);
    assert_int_equal(rt_host_hold(rt, 0), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    expect_fed(rt, seq, ids, 3 * CHUNK);
    prefill_ok(rt, seq, ids + 3 * CHUNK, LONGEST - 3 * CHUNK);
    expect_fed(rt, seq, ids, LONGEST);
    rt_destroy(&rt);
}

/* In each call of the stage: two layers and the end, of three chunks. */
static void a_failing_stage(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 2 * 9; n++) {
        rt_runtime *rt = create();
        const rt_seq seq = fixture_open(rt);
        const uint32_t length = (n - 1) % 9 / 3 * CHUNK;
        int32_t ids[LONGEST];
        uint64_t ticket = 99;
        make_ids(ids, LONGEST, 9);
        stage_fails = (n - 1) % 9 + 1;
        assert_int_equal(prefill(rt, seq, ids, 60, n > 9 ? RT_STEP_EAGER : 0, &ticket),
                         RT_ERR_CALLBACK);
        assert_int_equal(stage_fails, 0);
        expect_words(rt, "graph (chunk of 24 tokens, 0 rows beside it), stage \"user_");
        assert_int_equal(ticket, length ? length / CHUNK : 99);
        assert_int_equal(rt->pages.free_count, PAGES - (length + PAGE - 1) / PAGE);
        expect_fed(rt, seq, ids, length);
        prefill_ok(rt, seq, ids + length, 60 - length);
        expect_fed(rt, seq, ids, 60);
        rt_destroy(&rt);
    }
}

static void pages_of_the_caller(void **state)
{
    (void)state;
    rt_runtime *rt = create();
    const struct rt_seq_params lends = {
        .struct_size = sizeof(lends), .length = 4 * PAGE, .last_token = -1};
    const struct rt_seq_params params = {
        .struct_size = sizeof(params), .pages = RT_PAGES_CALLER, .last_token = -1};
    struct fixture_snapshot before;
    int32_t ids[LONGEST], pages[4];
    uint32_t count = 0;
    uint64_t ticket = 99;
    rt_seq bank = 0, seq = 0;
    make_ids(ids, LONGEST, 10);
    assert_int_equal(rt_seq_open(rt, &lends, &bank), RT_OK);
    assert_int_equal(rt_seq_pages(rt, bank, pages, 4, &count), RT_OK);
    assert_int_equal(rt_seq_open(rt, &params, &seq), RT_OK);
    assert_int_equal(rt_seq_bind_pages(rt, seq, 0, pages, 3), RT_OK);
    fixture_snapshot(rt, &before);
    assert_int_equal(prefill(rt, seq, ids, 49, 0, &ticket), RT_ERR_PAGES);
    expect_words(rt, "49 tokens need 4 pages, 3 are bound");
    expect_unchanged(rt, &before);
    assert_int_equal(ticket, 99);
    prefill_ok(rt, seq, ids, 48);
    expect_fed(rt, seq, ids, 48);
    assert_int_equal(rt_seq_bind_pages(rt, seq, 3, &pages[3], 1), RT_OK);
    prefill_ok(rt, seq, ids + 48, 16);
    expect_fed(rt, seq, ids, 64);
    assert_int_equal(rt->pages.free_count, PAGES - 4);
    rt_destroy(&rt);
}

/* Two of one past, which ends within a page, go on apart; a shorter past has no last token. */
static void forked_and_rewound(void **state)
{
    (void)state;
    rt_runtime *rt = create();
    const struct rt_seq_params params = {.struct_size = sizeof(params), .last_token = 7};
    struct fixture_snapshot before;
    int32_t ids[2][LONGEST];
    rt_seq seqs[2] = {0, 0};
    make_ids(ids[0], LONGEST, 11);
    memcpy(ids[1], ids[0], sizeof(ids[0]));
    ids[0][0] = -1; /* the last token that it is opened with, and its fork has too */
    assert_int_equal(rt_seq_open(rt, &params, &seqs[0]), RT_OK);
    assert_int_equal(rt_seq_fork(rt, seqs[0], &seqs[1]), RT_OK);
    for (int i = 0; i < 2; i++)
        prefill_ok(rt, seqs[i], ids[0], 20);
    ids[0][0] = ids[1][0] = 7;
    expect_fed(rt, seqs[1], ids[0], 20);
    assert_int_equal(rt_seq_close(rt, seqs[1]), RT_OK);
    assert_int_equal(rt_seq_fork(rt, seqs[0], &seqs[1]), RT_OK);
    for (int i = 0; i < 2; i++) {
        make_ids(ids[i] + 20, LONGEST - 20, 12 + (uint64_t)i);
        prefill_ok(rt, seqs[i], ids[i] + 20, 40);
    }
    for (int i = 0; i < 2; i++)
        expect_fed(rt, seqs[i], ids[i], 60);
    assert_int_equal(rt_seq_rewind(rt, seqs[0], 25), RT_OK);
    assert_int_equal(rt_seq_close(rt, seqs[1]), RT_OK);
    assert_int_equal(rt_seq_fork(rt, seqs[0], &seqs[1]), RT_OK);
    const int32_t named = ids[0][25];
    ids[0][25] = -1;
    rt_harvest(rt);
    fixture_snapshot(rt, &before);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(prefill(rt, seqs[i], ids[0] + 25, 30, 0, NULL), RT_ERR_INVALID);
        expect_words(rt, "was opened or rewound at 25 tokens without a last one");
        expect_unchanged(rt, &before);
    }
    ids[0][25] = named;
    for (int i = 0; i < 2; i++) {
        prefill_ok(rt, seqs[i], ids[0] + 25, 30);
        expect_fed(rt, seqs[i], ids[0], 55);
    }
    rt_destroy(&rt);
}

/* The device decides whether the row's token stays: the prompt's do all the same. */
static void rows_that_the_device_accepts(void **state)
{
    (void)state;
    for (stays = 1; stays >= 0; stays--) {
        rt_runtime *rt = create();
        const rt_seq row = fixture_open(rt), seq = fixture_open(rt);
        struct rt_row_result results[2];
        int32_t ids[2][LONGEST];
        uint32_t count = 0;
        uint64_t ticket = 0;
        make_ids(ids[0], LONGEST, 13);
        make_ids(ids[1], LONGEST, 14);
        prefill_ok(rt, row, ids[0], 10);
        const struct rt_prompt prompt = {.seq = seq, .tokens = ids[1], .count = 20};
        assert_int_equal(mix(rt, row, ids[0][10], RT_ACCEPT_DEVICE, &prompt, 0, &ticket), RT_OK);
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
        assert_int_equal(rt_result(rt, ticket, results, 2, &count), RT_OK);
        assert_int_equal(count, 2);
        assert_int_equal(results[0].accepted, 1);
        assert_int_equal(results[1].accepted, stays);
        expect_fed(rt, row, ids[0], 10 + (uint32_t)stays);
        expect_fed(rt, seq, ids[1], 20);
        rt_destroy(&rt);
    }
    stays = 0;
}

static void refuse(rt_runtime *rt, struct rt_step_params p, enum rt_status status,
                   const char *words)
{
    struct fixture_snapshot before;
    uint64_t ticket = 99;
    p.struct_size = sizeof(p);
    fixture_snapshot(rt, &before);
    assert_int_equal(rt_step(rt, &p, &ticket), status);
    expect_words(rt, words);
    expect_unchanged(rt, &before);
    assert_int_equal(ticket, 99);
}

static void bad_mixed_steps_change_nothing(void **state)
{
    (void)state;
    rt_runtime *rt = create(), *plain = fixture_create(NULL);
    rt_seq seqs[6];
    struct rt_prompt prompts[4];
    int32_t ids[LONGEST];
    make_ids(ids, LONGEST, 15);
    for (int i = 0; i < 6; i++)
        seqs[i] = fixture_open(rt);
    for (int i = 0; i < 4; i++)
        prompts[i] = (struct rt_prompt){.seq = seqs[i], .tokens = ids, .count = 6};
    const struct rt_step_params good = {
        .rows = 2, .seqs = &seqs[4], .prompts = prompts, .prompt_count = 3};
    struct rt_step_params p = good;
    p.seqs = &seqs[2];
    refuse(rt, p, RT_ERR_DUPLICATE, "row 0");
    p = good;
    p.prompt_count = 4;
    refuse(rt, p, RT_ERR_ROWS, "4 prompts in one step: prefill.rows is 3");
    p = good;
    p.query_len = 2;
    refuse(rt, p, RT_ERR_QUERY_LEN, "query length 2 was not captured");
    p = good;
    p.seqs = &seqs[3];
    p.rows = 3;
    refuse(rt, p, RT_ERR_ROWS,
           "and 3 rows that decode: prefill.chunks go up to 24, "
           "prefill.mixed_rows to 2");
    p = good;
    prompts[1].count = 13;
    refuse(rt, p, RT_ERR_ROWS, "no graph holds 25 tokens of prompts and 2 rows");
    prompts[1].count = 12;
    p.seqs = NULL;
    refuse(rt, p, RT_ERR_INVALID, "seqs is null");
    p = good;
    p.prompts = NULL;
    refuse(rt, p, RT_ERR_INVALID, "3 prompts at null");
    p = good;
    p.struct_size = sizeof(p);
    assert_int_equal(rt_step(rt, &p, NULL), RT_OK); /* 24 tokens, as many as there is room for */
    refuse(plain, good, RT_ERR_UNSUPPORTED, "prefill.chunks configures no chunk");
    rt_destroy(&rt);
    rt_destroy(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_driver_call_of_a_prefill),
        cmocka_unit_test(every_driver_call_of_a_mixed_step),
        cmocka_unit_test(prompts_allocate_nothing),
        cmocka_unit_test(a_full_ring),
        cmocka_unit_test(a_prefill_of_held_work),
        cmocka_unit_test(a_failing_stage),
        cmocka_unit_test(pages_of_the_caller),
        cmocka_unit_test(forked_and_rewound),
        cmocka_unit_test(rows_that_the_device_accepts),
        cmocka_unit_test(bad_mixed_steps_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
