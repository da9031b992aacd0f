/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoders cut over ranks, threads of this program: the logits and tokens of all of them, replayed
 * and eager, how much each has, which MLPs are one kernel, and every call of a communicator failing
 * once. Beside one rank's and recordings: tests/contract/decode_ranks.py.
 */
#include "models/decoder_impl.h"
#include "replayrt/decoder.h"
#include "runtime/ranks_impl.h"
#include "tests/models/place_rig.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 4u
#define ROWS 2u
#define STEPS 3u
#define VOCAB 256u
#define LIMIT_MS 10000

/* The host device is taken for one of compute capability 9.0, with C references, where this is so:
 * before ranks begin. */
static bool is_hopper;

enum rt_status __real_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);
enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);

enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err)
{
    const enum rt_status status = __real_rt_driver_open(device, out, why, why_bytes, err);
    if (status == RT_OK && is_hopper)
        out->caps.cc = 90;
    return status;
}

/* Whether steps are eager; of which rank blocks are split, no rank's: none's; the call of rank 1's
 * communicator that fails, 0: none. */
struct plan {
    uint32_t ranks, flags, split;
    uint64_t fail_at;
    char path[64];
    const struct rt_model *model;
    const rt_checkpoint *checkpoint;
};

struct seat {
    const struct plan *plan;
    uint32_t rank;
    float logits[STEPS][ROWS][VOCAB];
    int32_t tokens[STEPS][ROWS];
    struct rt_decoder_info info;
    uint32_t block_tokens[2];
    enum rt_status status;
    struct rt_error error;
};

/* What a decoder's call returned, with its story. */
static enum rt_status told(struct seat *s, rt_decoder *d, enum rt_status status)
{
    const struct rt_error *const why = rt_last_error(rt_decoder_runtime(d));
    if (status != RT_OK)
        s->error = why->status != RT_OK ? *why : *rt_decoder_last_error(d);
    return status;
}

#define TELL(s, d, call)                                                                           \
    do {                                                                                           \
        const enum rt_status status_ = told((s), (d), (call));                                     \
        if (status_ != RT_OK)                                                                      \
            return status_;                                                                        \
    } while (0)

static enum rt_status step(struct seat *s, rt_decoder *d, const rt_seq *seqs, uint32_t at)
{
    static const int32_t first[ROWS] = {5, 9};
    rt_runtime *const rt = rt_decoder_runtime(d);
    struct rt_row_result results[ROWS];
    uint64_t ticket;
    uint32_t count;
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = s->plan->flags,
                                     .rows = ROWS,
                                     .seqs = seqs,
                                     .tokens = at == 0 ? first : NULL};
    TELL(s, d, rt_step(rt, &p, &ticket));
    TELL(s, d, rt_wait(rt, ticket, UINT64_MAX));
    TELL(s, d, rt_result(rt, ticket, results, ROWS, &count));
    for (uint32_t r = 0; r < ROWS; r++) {
        s->tokens[at][r] = results[r].sampled;
        TELL(s, d, rt_decoder_read_logits(d, r, 1, 0, s->logits[at][r]));
    }
    return RT_OK;
}

static const struct rt_sampling warm = {.temperature = 0.8f,
                                        .top_p = 0.95f,
                                        .top_k = 40,
                                        .seed = 7,
                                        .stops = {-1, -1, -1, -1, -1, -1, -1, -1}};

static enum rt_status decode(struct seat *s, rt_decoder *d)
{
    rt_seq seqs[ROWS];
    s->info.struct_size = sizeof(s->info);
    TELL(s, d, rt_decoder_get_info(d, &s->info));
    memcpy(s->block_tokens, d->block_tokens, sizeof(s->block_tokens));
    for (uint32_t r = 0; r < ROWS; r++) {
        TELL(s, d, rt_seq_open(rt_decoder_runtime(d), NULL, &seqs[r]));
        TELL(s, d, rt_decoder_sample(d, seqs[r], r ? &warm : NULL));
    }
    for (uint32_t at = 0; at < STEPS; at++) {
        const enum rt_status status = step(s, d, seqs, at);
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}

static enum rt_status create_and_decode(struct seat *s, rt_ranks *ranks)
{
    struct rt_config config;
    rt_decoder *d = NULL;
    rt_config_default(&config);
    (void)snprintf(config.device, sizeof(config.device), "host");
    config.batch_sizes[0] = ROWS;
    config.batch_size_count = 1;
    config.max_sequences = ROWS;
    config.max_length = 64;
    config.split_blocks = s->rank == s->plan->split;
    const struct rt_decoder_params params = {.struct_size = sizeof(params),
                                             .config = &config,
                                             .model = s->plan->model,
                                             .checkpoint = s->plan->checkpoint,
                                             .ranks = ranks};
    enum rt_status status = rt_decoder_create(&params, &d, &s->error);
    if (status == RT_OK)
        status = decode(s, d);
    rt_decoder_destroy(&d);
    return status;
}

static void *sit(void *user)
{
    struct seat *const s = user;
    rt_ranks *ranks = NULL;
    const struct rt_ranks_params p = {.struct_size = sizeof(p),
                                      .rank = s->rank,
                                      .ranks = s->plan->ranks,
                                      .timeout_ms = LIMIT_MS,
                                      .path = s->plan->path};
    s->status = rt_ranks_create(&p, &ranks, &s->error);
    if (s->status == RT_OK && s->rank == 1 && s->plan->fail_at)
        ranks->comm.probe.fail_at = ranks->comm.probe.calls + s->plan->fail_at;
    if (s->status == RT_OK)
        s->status = create_and_decode(s, ranks);
    (void)rt_ranks_destroy(&ranks);
    return NULL;
}

static struct plan plan_of(const struct rt_model *m, const rt_checkpoint *c, uint32_t ranks)
{
    struct plan p = {.ranks = ranks, .split = MOST, .model = m, .checkpoint = c};
    (void)snprintf(p.path, sizeof(p.path), "decoder_ranks.%ld.group", (long)getpid());
    return p;
}

static void run(const struct plan *plan, struct seat seats[MOST])
{
    pthread_t threads[MOST];
    for (uint32_t r = 0; r < plan->ranks; r++) {
        seats[r] = (struct seat){.plan = plan, .rank = r};
        assert_int_equal(pthread_create(&threads[r], NULL, sit, &seats[r]), 0);
    }
    for (uint32_t r = 0; r < plan->ranks; r++)
        assert_int_equal(pthread_join(threads[r], NULL), 0);
}

static void all_well(const struct plan *plan, const struct seat seats[MOST])
{
    for (uint32_t r = 0; r < plan->ranks; r++)
        if (seats[r].status != RT_OK)
            fail_msg("rank %u of %u: %d %s", r, plan->ranks, (int)seats[r].status,
                     seats[r].error.message);
}

/* ---- the same bits --------------------------------------------------------------------------- */

/* On all ranks, replayed and eager; greedy in one row, drawn in the other. */
static void test_same_bits(void **state)
{
    const struct rt_model m = read_model(GOLDEN "deepseek_v3");
    rt_checkpoint *c = open_good(GOLDEN "deepseek_v3");
    static struct seat seats[2][MOST];
    (void)state;
    for (uint32_t ranks = 1; ranks <= MOST; ranks *= 2) {
        struct plan plan = plan_of(&m, c, ranks);
        run(&plan, seats[0]);
        plan.flags = RT_STEP_EAGER;
        run(&plan, seats[1]);
        all_well(&plan, seats[0]);
        all_well(&plan, seats[1]);
        for (uint32_t r = 0; r < 2 * ranks; r++) {
            const struct seat *const s = &seats[r / ranks][r % ranks];
            assert_memory_equal(s->logits, seats[0][0].logits, sizeof(s->logits));
            assert_memory_equal(s->tokens, seats[0][0].tokens, sizeof(s->tokens));
            assert_true(s->tokens[0][0] >= 0 && s->tokens[0][0] < (int32_t)VOCAB);
        }
    }
    rt_checkpoint_close(&c);
}

/* ---- how much a rank has --------------------------------------------------------------------- */

/* What is cut is cut to a rank's part, but for alignment. */
static void test_bytes(void **state)
{
    const struct rt_model m = read_model(GOLDEN "deepseek_v3");
    rt_checkpoint *c = open_good(GOLDEN "deepseek_v3");
    static struct seat seats[MOST];
    const uint32_t counts[] = {1, 4};
    uint64_t bytes[2], expected = 0;
    rt_places *all = make_places(&m), *part = make_places(&m);
    (void)state;
    assert_int_equal(rt_places_cut(part, 0, 4, 1, NULL), RT_OK);
    for (int i = 0; i < 2; i++) {
        const struct plan plan = plan_of(&m, c, counts[i]);
        run(&plan, seats);
        all_well(&plan, seats);
        bytes[i] = seats[0].info.weight_bytes;
    }
    for (uint32_t i = 0; i < rt_places_count(all); i++) {
        struct rt_place whole, mine;
        rt_place_of(all, i, &whole);
        rt_place_of(part, i, &mine);
        if (whole.needed)
            expected += 2 * (whole.rows * whole.columns - mine.rows * mine.columns);
    }
    assert_in_range(bytes[0] - bytes[1], expected - 256 * 32, expected + 256 * 32);
    rt_places_destroy(&all);
    rt_places_destroy(&part);
    rt_checkpoint_close(&c);
}

/* ---- MLPs as one kernel ---------------------------------------------------------------------- */

/* All ranks have that kernel for as many tokens: for none where one of them has it for none. */
static void test_blocks_of_all_or_none(void **state)
{
    const struct rt_model m = read_model(GOLDEN "deepseek_v3");
    rt_checkpoint *c = open_good(GOLDEN "deepseek_v3");
    struct plan plan = plan_of(&m, c, 4);
    static struct seat seats[MOST];
    (void)state;
    is_hopper = true;
    for (int split = 0; split < 2; split++) {
        plan.split = split ? 1 : MOST;
        run(&plan, seats);
        all_well(&plan, seats);
        for (uint32_t r = 0; r < plan.ranks; r++) {
            for (int mixture = 0; mixture < 2; mixture++)
                assert_int_equal(seats[r].block_tokens[mixture] > 0, !split);
            assert_memory_equal(seats[r].block_tokens, seats[0].block_tokens,
                                sizeof(seats[r].block_tokens));
            assert_memory_equal(seats[r].logits, seats[0].logits, sizeof(seats[r].logits));
        }
    }
    is_hopper = false;
    rt_checkpoint_close(&c);
}

/* ---- what fails ------------------------------------------------------------------------------ */

/* From the group's first word to the last step, each call once: of rank 1, which the other hears
 * of. */
static void test_calls_that_fail(void **state)
{
    const struct rt_model m = read_model(GOLDEN "deepseek_v3");
    rt_checkpoint *c = open_good(GOLDEN "deepseek_v3");
    struct plan plan = plan_of(&m, c, 2);
    static struct seat seats[MOST];
    uint32_t failed = 0;
    (void)state;
    for (plan.fail_at = 1; plan.fail_at < 200; plan.fail_at++) {
        run(&plan, seats);
        if (seats[1].status == RT_OK)
            break;
        for (uint32_t r = 0; r < 2; r++)
            if (seats[r].status != RT_ERR_RANKS || !strstr(seats[r].error.message, "injected"))
                fail_msg("call %u, rank %u: %d %s", (unsigned)plan.fail_at, r, (int)seats[r].status,
                         seats[r].error.message);
        failed++;
    }
    all_well(&plan, seats);
    /* A post, two sums a layer, logits; and what decoders agree on. */
    assert_true(failed >= STEPS * (1 + 2 * m.layers + 1) + 1);
    rt_checkpoint_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_blocks_of_all_or_none),
        cmocka_unit_test(test_calls_that_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
