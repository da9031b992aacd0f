/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoders on the host device, of small models: that each prompt gets what it gets alone and in
 * every batch, eager and replayed, however far the host runs ahead; and what is refused.
 */
#include "replayrt/decoder.h"
#include "tests/unit/expect.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN RT_TEST_DATA "/golden/"
#define STEPS 12u
#define ROWS 3u
#define LONGEST 9u

struct prompt {
    uint32_t length;
    int32_t ids[LONGEST];
};

static const struct prompt prompts[ROWS] = {
    {1, {5}}, {4, {9, 200, 31, 7}}, {9, {1, 2, 3, 4, 5, 6, 7, 8, 9}}};

static void small_config(struct rt_config *c)
{
    rt_config_default(c);
    (void)snprintf(c->device, sizeof(c->device), "host");
    c->batch_sizes[0] = 1;
    c->batch_sizes[1] = ROWS;
    c->batch_size_count = 2;
    c->ring_depth = 4;
    c->max_sequences = 6;
    c->max_length = 64;
}

static enum rt_status create(const char *family, const struct rt_config *config, rt_decoder **out,
                             struct rt_error *error)
{
    char path[512];
    struct rt_model model = {.struct_size = sizeof(model)};
    rt_checkpoint *checkpoint = NULL;
    (void)snprintf(path, sizeof(path), GOLDEN "tiny_%s", family);
    assert_int_equal(rt_model_read(path, &model, NULL), RT_OK);
    assert_int_equal(rt_checkpoint_open(path, &checkpoint, NULL), RT_OK);
    const struct rt_decoder_params params = {
        .struct_size = sizeof(params), .config = config, .model = &model, .checkpoint = checkpoint};
    const enum rt_status status = rt_decoder_create(&params, out, error);
    rt_checkpoint_close(&checkpoint);
    return status;
}

static rt_decoder *open_small(const char *family)
{
    struct rt_config config;
    struct rt_error error;
    rt_decoder *d = NULL;
    small_config(&config);
    if (create(family, &config, &d, &error) != RT_OK)
        fail_msg("%s: %s", family, error.message);
    return d;
}

static const struct rt_sampling warm = {.temperature = 0.8f,
                                        .top_p = 0.95f,
                                        .top_k = 40,
                                        .seed = 7,
                                        .stops = {-1, -1, -1, -1, -1, -1, -1, -1}};

static rt_seq open_sequence(rt_decoder *d, const struct rt_sampling *sampling)
{
    rt_seq seq;
    assert_int_equal(rt_seq_open(rt_decoder_runtime(d), NULL, &seq), RT_OK);
    assert_int_equal(rt_decoder_sample(d, seq, sampling), RT_OK);
    return seq;
}

/* Step `at` of prompts that go in token by token: what is still theirs is named. */
static enum rt_status step(rt_decoder *d, const struct prompt *const *rows, const rt_seq *seqs,
                           uint32_t count, uint32_t at, uint32_t flags, uint64_t *ticket)
{
    int32_t tokens[ROWS], accept[ROWS];
    for (uint32_t r = 0; r < count; r++) {
        tokens[r] = at < rows[r]->length ? rows[r]->ids[at] : -1;
        accept[r] = at < rows[r]->length ? 1 : RT_ACCEPT_DEVICE;
    }
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = flags,
                                     .rows = count,
                                     .seqs = seqs,
                                     .tokens = tokens,
                                     .accept = accept};
    return rt_step(rt_decoder_runtime(d), &p, ticket);
}

static void collect(rt_decoder *d, const struct prompt *const *rows, uint32_t count, uint32_t at,
                    uint64_t ticket, int32_t (*texts)[STEPS])
{
    struct rt_row_result results[ROWS];
    uint32_t got;
    assert_int_equal(rt_wait(rt_decoder_runtime(d), ticket, UINT64_MAX), RT_OK);
    assert_int_equal(rt_result(rt_decoder_runtime(d), ticket, results, ROWS, &got), RT_OK);
    assert_int_equal(got, count);
    for (uint32_t r = 0; r < count; r++)
        if (at + 1 >= rows[r]->length && at + 1 - rows[r]->length < STEPS)
            texts[r][at + 1 - rows[r]->length] = results[r].sampled;
}

/* STEPS tokens behind every prompt; with `ahead` the host waits only where the ring is full. */
static void decode(rt_decoder *d, const struct prompt *const *rows, uint32_t count, bool ahead,
                   uint32_t flags, int32_t (*texts)[STEPS])
{
    rt_seq seqs[ROWS];
    uint64_t tickets[LONGEST + STEPS];
    uint32_t done = 0, steps = 0;
    for (uint32_t r = 0; r < count; r++) {
        seqs[r] = open_sequence(d, &warm);
        steps = rows[r]->length + STEPS - 1 > steps ? rows[r]->length + STEPS - 1 : steps;
    }
    if (ahead)
        assert_int_equal(rt_host_hold(rt_decoder_runtime(d), 1), RT_OK);
    for (uint32_t at = 0; at < steps; at++) {
        while (step(d, rows, seqs, count, at, flags, &tickets[at]) == RT_ERR_BUSY) {
            assert_int_equal(rt_host_release(rt_decoder_runtime(d), 1, NULL), RT_OK);
            collect(d, rows, count, done, tickets[done], texts);
            done++;
        }
        if (!ahead)
            collect(d, rows, count, at, tickets[at], texts);
    }
    if (ahead)
        assert_int_equal(rt_host_hold(rt_decoder_runtime(d), 0), RT_OK);
    for (; ahead && done < steps; done++)
        collect(d, rows, count, done, tickets[done], texts);
    for (uint32_t r = 0; r < count; r++)
        assert_int_equal(rt_seq_close(rt_decoder_runtime(d), seqs[r]), RT_OK);
}

static void expect_same(const char *family, const char *what, int32_t (*texts)[STEPS],
                        int32_t (*expected)[STEPS])
{
    for (uint32_t r = 0; r < ROWS; r++)
        for (uint32_t i = 0; i < STEPS; i++)
            if (texts[r][i] != expected[r][i])
                fail_msg("%s, %s: token %u of prompt %u is %d, alone it is %d", family, what, i, r,
                         texts[r][i], expected[r][i]);
}

static void one_family(const char *family)
{
    const struct prompt *const all[ROWS] = {&prompts[0], &prompts[1], &prompts[2]};
    int32_t alone[ROWS][STEPS], together[ROWS][STEPS];
    rt_decoder *d = open_small(family);
    for (uint32_t r = 0; r < ROWS; r++)
        decode(d, &all[r], 1, false, 0, &alone[r]);
    decode(d, all, ROWS, false, 0, together);
    expect_same(family, "together", together, alone);
    decode(d, all, ROWS, true, 0, together);
    expect_same(family, "run ahead", together, alone);
    decode(d, all, ROWS, false, RT_STEP_EAGER, together);
    expect_same(family, "eager", together, alone);
    rt_decoder_destroy(&d);
    assert_null(d);
}

static void a_batch_changes_no_text(void **state)
{
    (void)state;
    one_family("deepseek_v2");
    one_family("minicpm3");
    one_family("glm4_moe_lite");
}

/* ---- stopping -------------------------------------------------------------------------------- */

static void a_stop_ends_its_row(void **state)
{
    (void)state;
    const struct prompt *const row = &prompts[1];
    int32_t text[1][STEPS];
    rt_decoder *d = open_small("youtu");
    rt_runtime *rt = rt_decoder_runtime(d);
    decode(d, &row, 1, false, 0, text);
    uint32_t stop = 3, length;
    while (stop < STEPS && (text[0][stop] == text[0][0] || text[0][stop] == text[0][1] ||
                            text[0][stop] == text[0][2]))
        stop++;
    if (stop >= STEPS) {
        fail_msg("no token is another than the first three");
        return;
    }
    for (uint32_t i = 0; i < stop; i++)
        if (text[0][i] == text[0][stop])
            stop = i;
    struct rt_sampling sampling = warm;
    sampling.stops[5] = text[0][stop];
    const rt_seq seq = open_sequence(d, &sampling);
    for (uint32_t at = 0; at < row->length + STEPS - 1; at++) {
        struct rt_row_result result;
        uint64_t ticket;
        uint32_t got;
        assert_int_equal(step(d, &row, &seq, 1, at, 0, &ticket), RT_OK);
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
        assert_int_equal(rt_result(rt, ticket, &result, 1, &got), RT_OK);
        if (at + 1 >= row->length + stop)
            assert_int_equal(result.sampled, text[0][stop]);
        assert_int_equal(result.accepted, at + 1 <= row->length + stop);
    }
    assert_int_equal(rt_seq_length(rt, seq, &length), RT_OK);
    assert_int_equal(length, row->length + stop);
    rt_decoder_destroy(&d);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void expect_refusal(enum rt_status status, enum rt_status expected, const char *message,
                           const char *part)
{
    if (status != expected || !strstr(message, part))
        fail_msg("%s: \"%s\", expected %s with \"%s\"", rt_status_string(status), message,
                 rt_status_string(expected), part);
}

static void bad_decoders_are_refused(void **state)
{
    (void)state;
    struct rt_config config;
    struct rt_error error;
    struct rt_model model = {.struct_size = sizeof(model)}, other = {.struct_size = sizeof(other)};
    rt_checkpoint *checkpoint = NULL;
    rt_decoder *d = (void *)&config;
    small_config(&config);
    assert_int_equal(rt_model_read(GOLDEN "tiny_deepseek_v2", &model, NULL), RT_OK);
    assert_int_equal(rt_model_read(GOLDEN "tiny_youtu", &other, NULL), RT_OK);
    assert_int_equal(rt_checkpoint_open(GOLDEN "tiny_deepseek_v2", &checkpoint, NULL), RT_OK);
    struct rt_decoder_params params = {.struct_size = sizeof(params),
                                       .config = &config,
                                       .model = &other,
                                       .checkpoint = checkpoint};
    expect_refusal(rt_decoder_create(&params, &d, &error), RT_ERR_FILE, error.message,
                   "weights of a youtu model are missing or wrong");
    assert_null(d);
    params.model = &model;
    (void)snprintf(config.device, sizeof(config.device), "gpu");
    expect_refusal(rt_decoder_create(&params, &d, &error), RT_ERR_CONFIG, error.message, "gpu");
    (void)snprintf(config.device, sizeof(config.device), "host");
    model.moe.shared_intermediate_size += 8;
    expect_refusal(rt_decoder_create(&params, &d, &error), RT_ERR_UNSUPPORTED, error.message,
                   "shared experts of 40 numbers are not a multiple of an expert's 32");
    params.reserved = 5;
    expect_refusal(rt_decoder_create(&params, &d, &error), RT_ERR_INVALID, error.message,
                   "rt_decoder_create: reserved is 5, not 0");
    params.reserved = 0;
    params.checkpoint = NULL;
    expect_refusal(rt_decoder_create(&params, &d, &error), RT_ERR_INVALID, error.message,
                   "all must be given");
    params.struct_size = 3;
    expect_refusal(rt_decoder_create(&params, &d, &error), RT_ERR_INVALID, error.message,
                   "struct_size is 3");
    assert_int_equal(rt_decoder_create(&params, NULL, NULL), RT_ERR_INVALID);
    rt_checkpoint_close(&checkpoint);
}

/* Before anything is read: what no operator serves, and what a model says in two ways. */
static void bad_models_are_refused(void **state)
{
    (void)state;
    struct rt_model good = {.struct_size = sizeof(good)};
    struct rt_config config;
    rt_checkpoint *checkpoint = NULL;
    small_config(&config);
    assert_int_equal(rt_model_read(GOLDEN "tiny_deepseek_v3", &good, NULL), RT_OK);
    assert_int_equal(rt_checkpoint_open(GOLDEN "tiny_deepseek_v3", &checkpoint, NULL), RT_OK);
#define BAD(status, member, value, words)                                                          \
    do {                                                                                           \
        struct rt_model bad = good;                                                                \
        struct rt_error error;                                                                     \
        rt_decoder *d = NULL;                                                                      \
        bad.member = value;                                                                        \
        const struct rt_decoder_params params = {.struct_size = sizeof(params),                    \
                                                 .config = &config,                                \
                                                 .model = &bad,                                    \
                                                 .checkpoint = checkpoint};                        \
        expect_refusal(rt_decoder_create(&params, &d, &error), status, error.message, words);      \
        assert_null(d);                                                                            \
    } while (0)
    BAD(RT_ERR_INVALID, moe.intermediate_size, 0, "intermediate_size is 0");
    BAD(RT_ERR_UNSUPPORTED, moe.intermediate_size, 12,
        "moe.intermediate_size that is a multiple of 8, not 12");
    BAD(RT_ERR_UNSUPPORTED, intermediate_size, 12, "intermediate_size that is a multiple of 8");
    BAD(RT_ERR_UNSUPPORTED, vocab_size, (1u << 18) + 1, "vocab_size of up to 262144, not 262145");
    BAD(RT_ERR_INVALID, norm_eps, NAN, "norm_eps is nan");
    BAD(RT_ERR_INVALID, norm_eps, 0.5, "norm_eps is 0.5, block.input_norm_eps");
    BAD(RT_ERR_INVALID, logits_scale, 0, "logits_scale is 0: must be a finite number");
    BAD(RT_ERR_INVALID, moe.scale, INFINITY, "moe.scale is inf");
    BAD(RT_ERR_INVALID, residual_scale, 2, "residual_scale is 2, block.residual_scale 1");
    BAD(RT_ERR_INVALID, geometry.layers, 1, "geometry.layers 1");
#undef BAD
    rt_checkpoint_close(&checkpoint);
}

static void bad_calls_are_refused(void **state)
{
    (void)state;
    float logits[256];
    rt_decoder *d = open_small("deepseek_v3");
    const rt_seq seq = open_sequence(d, NULL);
    struct rt_sampling bad = warm;
    bad.top_p = 0.0f;
    expect_refusal(rt_decoder_sample(d, seq, &bad), RT_ERR_INVALID,
                   rt_decoder_last_error(d)->message, "top_p 0 is not above 0");
    bad = warm;
    bad.stops[7] = 256;
    expect_refusal(rt_decoder_sample(d, seq, &bad), RT_ERR_INVALID,
                   rt_decoder_last_error(d)->message, "stops[7] = 256 is not below");
    bad = warm;
    bad.reserved_too[1] = 5;
    expect_refusal(rt_decoder_sample(d, seq, &bad), RT_ERR_INVALID,
                   rt_decoder_last_error(d)->message, "reserved is 0, reserved_too 0 and 5, not 0");
    expect_refusal(rt_decoder_sample(d, seq + 1, &warm), RT_ERR_SEQUENCE,
                   rt_decoder_last_error(d)->message, "");
    expect_refusal(rt_decoder_read_logits(d, ROWS, 1, 0, logits), RT_ERR_INVALID,
                   rt_decoder_last_error(d)->message, "row 3 of 0 that the last replay had");
    expect_refusal(rt_decoder_read_logits(d, 0, 2, 0, logits), RT_ERR_INVALID,
                   rt_decoder_last_error(d)->message,
                   "token 0 of a query of 2, which is no length");
    expect_refusal(rt_decoder_read_logits(d, 0, 1, 0, NULL), RT_ERR_INVALID,
                   rt_decoder_last_error(d)->message, "out is null");
    uint64_t ticket;
    const struct prompt *const row = &prompts[0];
    assert_int_equal(step(d, &row, &seq, 1, 0, 0, &ticket), RT_OK);
    assert_int_equal(rt_decoder_read_logits(d, 0, 1, 0, logits), RT_OK);
    expect_refusal(rt_decoder_read_logits(d, 1, 1, 0, logits), RT_ERR_INVALID,
                   rt_decoder_last_error(d)->message, "row 1 of 1");
    assert_int_equal(rt_decoder_sample(NULL, seq, NULL), RT_ERR_INVALID);
    assert_null(rt_decoder_runtime(NULL));
    rt_decoder_destroy(&d);
    rt_decoder_destroy(&d);
    rt_decoder_destroy(NULL);
}

/* A request that comes in holds up those in flight where its slot has another sampling alone. */
static void the_same_sampling_waits_for_nothing(void **state)
{
    (void)state;
    rt_decoder *d = open_small("deepseek_v3");
    rt_runtime *rt = rt_decoder_runtime(d);
    const rt_seq seq = open_sequence(d, &warm), next = open_sequence(d, NULL);
    const struct prompt *const row = &prompts[0];
    uint64_t ticket;
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    assert_int_equal(step(d, &row, &seq, 1, 0, 0, &ticket), RT_OK);
    assert_int_equal(rt_decoder_sample(d, seq, &warm), RT_OK);
    assert_int_equal(rt_decoder_sample(d, next, NULL), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, 0), RT_ERR_TIMEOUT);
    assert_int_equal(rt_decoder_sample(d, next, &warm), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, 0), RT_OK);
    rt_decoder_destroy(&d);
}

/* ---- loading --------------------------------------------------------------------------------- */

struct progress {
    uint64_t done, total;
    uint32_t calls, graphs;
};

static void on_loading(void *user, uint64_t done, uint64_t total)
{
    struct progress *p = user;
    assert_true(done >= p->done && done <= total);
    *p = (struct progress){done, total, p->calls + 1, p->graphs};
}

static void on_capturing(void *user, uint32_t done, uint32_t total)
{
    struct progress *p = user;
    assert_true(done <= total);
    p->graphs = done;
}

static void random_weights_decode_alike(void **state)
{
    (void)state;
    struct rt_config config;
    struct rt_model model = {.struct_size = sizeof(model)};
    struct rt_decoder_info info = {.struct_size = sizeof(info)};
    const struct prompt *const row = &prompts[2];
    int32_t texts[2][STEPS];
    small_config(&config);
    assert_int_equal(rt_model_read(GOLDEN "tiny_mistral4", &model, NULL), RT_OK);
    for (int i = 0; i < 2; i++) {
        struct progress progress = {0};
        rt_checkpoint *checkpoint = NULL;
        rt_decoder *d = NULL;
        assert_int_equal(
            rt_checkpoint_random(GOLDEN "tiny_mistral4/config.json", 11, &checkpoint, NULL), RT_OK);
        const struct rt_decoder_params params = {.struct_size = sizeof(params),
                                                 .config = &config,
                                                 .model = &model,
                                                 .checkpoint = checkpoint,
                                                 .loading = on_loading,
                                                 .capturing = on_capturing,
                                                 .user = &progress};
        assert_int_equal(rt_decoder_create(&params, &d, NULL), RT_OK);
        rt_checkpoint_close(&checkpoint); /* all was copied */
        assert_int_equal(progress.done, progress.total);
        assert_int_equal(progress.graphs, 2);
        assert_int_equal(rt_decoder_get_info(d, &info), RT_OK);
        assert_true(info.host == 1 && info.weight_bytes >= progress.total);
        decode(d, &row, 1, false, 0, &texts[i]);
        rt_decoder_destroy(&d);
    }
    assert_memory_equal(texts[0], texts[1], sizeof(texts[0]));
}

#define COLUMNS 3u
#define BESIDE 2u

/* Of the last replay's row: the logits of one of its columns. */
static void read_column(rt_decoder *d, uint32_t row, uint32_t columns, uint32_t t, float *logits)
{
    if (rt_decoder_read_logits(d, row, columns, t, logits) != RT_OK)
        fail_msg("%s", rt_decoder_last_error(d)->message);
}

static const uint32_t counts_beside[BESIDE] = {2, 3};

/* Steps have rows of `least` tokens or of COLUMNS, which is no less. */
static rt_decoder *open_beside(uint32_t least)
{
    struct rt_config config;
    struct rt_error error;
    rt_decoder *d = NULL;
    small_config(&config);
    config.query_lens[0] = least;
    config.query_lens[1] = COLUMNS;
    config.query_len_count = least < COLUMNS ? 2 : 1;
    config.chunks[0] = 16;
    config.chunk_count = 1;
    config.mixed_rows[0] = BESIDE;
    config.mixed_row_count = 1;
    if (create("deepseek_v3", &config, &d, &error) != RT_OK)
        fail_msg("%s", error.message);
    return d;
}

/* The first prompts are rows with a past, the last one goes in beside them; or in front of them,
 * where `alone` gets its logits. */
static void put_beside(rt_decoder *d, float *alone)
{
    static const int32_t tokens[BESIDE * COLUMNS] = {11, 12, -1, 21, 22, 23};
    rt_runtime *rt = rt_decoder_runtime(d);
    rt_seq seqs[ROWS];
    struct rt_prompt starts[ROWS];
    uint64_t ticket = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        seqs[i] = open_sequence(d, &warm);
        starts[i] = (struct rt_prompt){
            .seq = seqs[i], .tokens = prompts[i].ids, .count = prompts[i].length};
    }
    const struct rt_prefill_params rows = {
        .struct_size = sizeof(rows), .prompts = starts, .prompt_count = BESIDE};
    const struct rt_prefill_params last = {
        .struct_size = sizeof(last), .prompts = starts + BESIDE, .prompt_count = 1};
    assert_int_equal(rt_prefill(rt, &rows, NULL), RT_OK);
    if (alone) {
        assert_int_equal(rt_prefill(rt, &last, NULL), RT_OK);
        read_column(d, 0, 1, 0, alone);
    }
    const struct rt_step_params step = {.struct_size = sizeof(step),
                                        .rows = BESIDE,
                                        .query_len = COLUMNS,
                                        .seqs = seqs,
                                        .tokens = tokens,
                                        .prompts = last.prompts,
                                        .prompt_count = alone ? 0 : 1,
                                        .query_lens = counts_beside};
    assert_int_equal(rt_step(rt, &step, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
}

/* Rows of 2 and of 3 tokens beside a prompt: column by column the logits of a step without it, and
 * of the prompt those of its last token. */
static void rows_of_several_tokens_beside_a_prompt(void **state)
{
    (void)state;
    static float logits[2][4096];
    struct rt_model model = {.struct_size = sizeof(model)};
    rt_decoder *mixed = open_beside(1), *apart = open_beside(1);
    assert_int_equal(rt_model_read(GOLDEN "tiny_deepseek_v3", &model, NULL), RT_OK);
    assert_in_range(model.vocab_size, 2, 4096);
    const size_t bytes = model.vocab_size * sizeof(float);
    put_beside(mixed, NULL);
    put_beside(apart, logits[1]);
    read_column(mixed, 0, COLUMNS, 0, logits[0]);
    assert_memory_equal(logits[0], logits[1], bytes);
    for (uint32_t r = 0; r < BESIDE; r++)
        for (uint32_t t = 0; t < counts_beside[r]; t++) {
            read_column(mixed, 1 + r, COLUMNS, t, logits[0]);
            read_column(apart, r, COLUMNS, t, logits[1]);
            assert_memory_equal(logits[0], logits[1], bytes);
            assert_true(isfinite(logits[0][0]));
        }
    rt_decoder_destroy(&mixed);
    rt_decoder_destroy(&apart);
}

/* A chunk's rows have one token, and logits of it, whatever steps have. */
static void logits_of_a_chunk_where_no_step_has_one_token(void **state)
{
    (void)state;
    static float logits[2][4096];
    uint32_t vocab = 0;
    for (int i = 0; i < 2; i++) {
        rt_decoder *d = open_beside(i ? COLUMNS : 1);
        const struct rt_prompt prompt = {
            .seq = open_sequence(d, &warm), .tokens = prompts[0].ids, .count = prompts[0].length};
        const struct rt_prefill_params p = {
            .struct_size = sizeof(p), .prompts = &prompt, .prompt_count = 1};
        struct rt_tensor all = {.struct_size = sizeof(all)};
        assert_int_equal(rt_decoder_logits(d, &all), RT_OK);
        vocab = (uint32_t)all.shape[2];
        assert_in_range(vocab, 2, 4096);
        assert_int_equal(rt_prefill(rt_decoder_runtime(d), &p, NULL), RT_OK);
        read_column(d, 0, 1, 0, logits[i]);
        assert_int_equal(rt_decoder_read_logits(d, 0, 2, 0, logits[i]), RT_ERR_INVALID);
        rt_decoder_destroy(&d);
    }
    assert_memory_equal(logits[0], logits[1], vocab * sizeof(float));
}

/* A sequence that has chosen nothing yet, and was opened without a token, has none to go on from:
 * in a step, beside others, as a fork, as a prompt. */
static void a_row_without_a_token_is_refused(void **state)
{
    (void)state;
    rt_decoder *d = open_beside(1);
    rt_runtime *rt = rt_decoder_runtime(d);
    const struct rt_seq_params given = {.struct_size = sizeof(given), .last_token = 5};
    rt_seq seqs[2] = {0, open_sequence(d, NULL)}, fork;
    assert_int_equal(rt_seq_open(rt, &given, &seqs[0]), RT_OK);
    assert_int_equal(rt_seq_fork(rt, seqs[1], &fork), RT_OK);
    const rt_seq bare[2] = {seqs[1], fork};
    for (uint32_t i = 0; i < 2; i++) {
        const rt_seq rows[2] = {seqs[0], bare[i]};
        const struct rt_step_params p = {.struct_size = sizeof(p), .rows = 2, .seqs = rows};
        expect_refusal(rt_step(rt, &p, NULL), RT_ERR_INVALID, rt_last_error(rt)->message,
                       "was opened or rewound at 0 tokens without a last one");
        const int32_t ids[2] = {-1, 7};
        const struct rt_prompt prompt = {.seq = bare[i], .tokens = ids, .count = 2};
        const struct rt_prefill_params q = {
            .struct_size = sizeof(q), .prompts = &prompt, .prompt_count = 1};
        expect_refusal(rt_prefill(rt, &q, NULL), RT_ERR_INVALID, rt_last_error(rt)->message,
                       "its first token must be named");
    }
    /* Named, it goes on from what it chooses: the text of a sequence that was opened on it. */
    const int32_t tokens[2] = {-1, 5};
    struct rt_step_params p = {.struct_size = sizeof(p), .rows = 2, .seqs = seqs, .tokens = tokens};
    for (uint32_t i = 0; i < 3; i++) {
        struct rt_row_result results[2];
        uint64_t ticket;
        uint32_t count;
        assert_int_equal(rt_step(rt, &p, &ticket), RT_OK);
        assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
        assert_int_equal(rt_result(rt, ticket, results, 2, &count), RT_OK);
        assert_int_equal(results[0].sampled, results[1].sampled);
        p.tokens = NULL;
    }
    rt_decoder_destroy(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_changes_no_text),
        cmocka_unit_test(a_stop_ends_its_row),
        cmocka_unit_test(bad_decoders_are_refused),
        cmocka_unit_test(bad_models_are_refused),
        cmocka_unit_test(bad_calls_are_refused),
        cmocka_unit_test(the_same_sampling_waits_for_nothing),
        cmocka_unit_test(random_weights_decode_alike),
        cmocka_unit_test(rows_of_several_tokens_beside_a_prompt),
        cmocka_unit_test(logits_of_a_chunk_where_no_step_has_one_token),
        cmocka_unit_test(a_row_without_a_token_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
