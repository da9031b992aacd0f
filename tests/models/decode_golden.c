/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: decode_golden FOLDER [--device auto|host|cuda:N] [--precision bf16|f32] [--layout NAME]
 *
 * A recorded checkpoint decodes the recorded prompts, all six in one batch, each step one graph
 * launch, and what it gives is held against what another implementation gave (tests/data/golden):
 *   forced    what was recorded is fed: every recorded vector of logits, every choice; and the
 *             logits at every position against the truth (decoder_truth.h)
 *   free      what it chose itself is fed, on the device, the host running ahead: every token
 *   alone     each prompt by itself, forced: the batch has made no difference
 * With a layout of e4m3 the first, against the truth alone, and prompts in chunks beside it: every
 * vector of logits, to bounds of its own.
 * Exit 0: all of it is within the bounds.
 */
#include "common/kv_format.h"
#include "replayrt/decoder.h"
#include "tests/models/logits_compare.h"
#include "tests/models/truth_follow.h"
#include "tools/decode_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* bf16 rounds at every place of two layers; f32 is off by its own sums, and by the recording's. */
#define COSINE_BOUND 0.999
#define MEAN_BOUND 0.04    /* of the logits' deviation */
#define SCORE_DOUBT 0.02   /* what bf16 is off by in a router's score, which is from 0 to 1 */
#define OTHERWISE_MOST 0.1 /* of all vectors */
#define F32_BOUND 1e-3

/* Numbers of e4m3 are off by up to a sixteenth each. */
#define QUANT_COSINE_BOUND 0.95
#define QUANT_NEAR 0.99 /* above: an expert that is not found here is missed by what follows */
#define QUANT_MEAN_BOUND 0.1
#define QUANT_SCORE_DOUBT 0.1
#define QUANT_SCALE 0.03125 /* of fp8_tensor: numbers up to 14 */

/* Positions of the longest text: the last token chosen is fed to nobody. */
enum { TEXT = RECORDING_LONGEST + RECORDING_STEPS - 1 };

/* Of a mean difference in the logits' deviation, of a cosine, of one that needs no other expert,
 * and of a router's scores. */
struct bounds {
    double mean, cosine, near, doubt;
};

struct bench {
    struct rt_model model;
    struct rt_config config;
    rt_decoder *decoder;
    struct bounds bounds;
    struct truth truth;
    uint32_t host;
    struct recording recorded;
    int32_t texts[RECORDING_PROMPTS][TEXT]; /* prompts, and what was recorded behind them */
    struct rt_sampling sampling[RECORDING_PROMPTS];
    /* Logits at every position, of the batch and of each alone. */
    float all[RECORDING_PROMPTS][TEXT][RECORDING_VOCAB],
        alone[RECORDING_PROMPTS][TEXT][RECORDING_VOCAB];
    struct recorded_logits logits; /* of all, where there are recorded ones */
    int32_t chosen[RECORDING_PROMPTS][TEXT];
};

static bool failed(const char *what, const struct rt_error *err)
{
    printf("%s: %s: %s\n", what, rt_status_string(err->status), err->message);
    return false;
}

/* ---- runs ------------------------------------------------------------------------------------ */

/* Texts first.. of which the first `given[r]` tokens are the prompt, and where logits go: null, to
 * run ahead without. */
struct part {
    struct bench *b;
    uint32_t first, rows, tokens;
    uint32_t given[RECORDING_PROMPTS];
    bool forced, chunks;
    float *logits; /* [rows, tokens, vocab] */
};

static bool keep_logits(void *user, uint32_t row, uint32_t index, const float *logits,
                        struct rt_error *error)
{
    const struct part *part = user;
    (void)error;
    memcpy(part->logits + ((size_t)row * part->tokens + index) * RECORDING_VOCAB, logits,
           RECORDING_VOCAB * sizeof(*logits));
    return true;
}

static bool run(struct part *part)
{
    struct bench *b = part->b;
    struct rt_error err = {.status = RT_OK};
    struct decode_result result;
    struct token_list lists[RECORDING_PROMPTS], rests[RECORDING_PROMPTS];
    const struct token_list *prompts[RECORDING_PROMPTS], *teacher[RECORDING_PROMPTS];
    for (uint32_t r = 0; r < part->rows; r++) {
        int32_t *text = b->texts[part->first + r];
        lists[r] = (struct token_list){.ids = text, .count = part->given[r]};
        rests[r] = (struct token_list){.ids = text + part->given[r], .count = part->tokens - 1};
        prompts[r] = &lists[r];
        teacher[r] = &rests[r];
    }
    const struct decode_job job = {.decoder = b->decoder,
                                   .rows = part->rows,
                                   .tokens = part->tokens,
                                   .ahead = part->logits ? 1 : b->config.ring_depth,
                                   .vocab = RECORDING_VOCAB,
                                   .chunks = part->chunks,
                                   .prompts = prompts,
                                   .teacher = part->forced ? teacher : NULL,
                                   .sampling = b->sampling,
                                   .logits = part->logits ? keep_logits : NULL,
                                   .user = part};
    if (decode_run(&job, &result, &err) != RT_OK)
        return failed("decode_run", &err);
    for (uint32_t r = 0; r < part->rows; r++)
        memcpy(b->chosen[part->first + r], result.tokens + (size_t)r * part->tokens,
               part->tokens * sizeof(*result.tokens));
    decode_result_free(&result);
    return true;
}

/* ---- judgement ------------------------------------------------------------------------------- */

static uint32_t text_length(const struct bench *b, uint32_t p)
{
    return (uint32_t)b->recorded.lens[p] + RECORDING_STEPS - 1;
}

/* Every choice is the best of the logits that were read, exactly. */
static uint32_t count_choices(const struct bench *b)
{
    uint32_t count = 0;
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++)
        for (uint32_t i = 0; i < text_length(b, p); i++)
            count += (uint32_t)b->chosen[p][i] == logits_best(b->all[p][i]);
    return count;
}

/* With prompts of one token, the rest forced, every position has logits. */
static bool judge_forced(struct bench *b)
{
    struct part part = {.b = b,
                        .rows = RECORDING_PROMPTS,
                        .tokens = TEXT,
                        .given = {1, 1, 1, 1, 1, 1},
                        .forced = true,
                        .logits = b->all[0][0]};
    if (!run(&part))
        return false;
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++)
        memcpy(b->logits.of[p], b->all[p][b->recorded.lens[p] - 1], sizeof(b->logits.of[p]));
    const bool f32 = b->config.precision == RT_PRECISION_F32;
    const struct logits_distance d = logits_compare(&b->logits, &b->recorded.logits);
    const bool good = f32 ? d.worst <= F32_BOUND : d.mean <= b->bounds.mean * d.deviation;
    printf("forced  %d vectors of logits beside those recorded: mean difference %.2g %% of their "
           "deviation, worst %.3g, least cosine %.6f; bound %.3g%s: %s\n",
           RECORDING_PROMPTS * RECORDING_STEPS, 100 * d.mean / d.deviation, d.worst, d.cosine,
           f32 ? F32_BOUND : 100 * b->bounds.mean, f32 ? " of the worst" : " % of the mean",
           good ? "good" : "FAILED");
    return good;
}

/* Of every position of every text. No text has ties of experts at every turn: a router that is
 * wrong is not a near one. */
static bool near_truth(struct bench *b, float (*logits)[TEXT][RECORDING_VOCAB])
{
    const struct bounds *by = &b->bounds;
    struct truth_followed f = {.vectors = 0};
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++)
        truth_follow(&b->truth, b->texts[p], text_length(b, p), logits[p][0], by->near, by->doubt,
                     &f);
    printf("%u vectors, of every position: least cosine %.6f of %.3f, %u of them by another expert "
           "of a score within %.2g",
           f.vectors, f.cosine, by->cosine, f.otherwise, by->doubt);
    return f.cosine >= by->cosine && f.otherwise <= OTHERWISE_MOST * f.vectors;
}

static bool judge_truth(struct bench *b)
{
    uint32_t positions = 0;
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++)
        positions += text_length(b, p);
    const uint32_t choices = count_choices(b);
    printf("truth   ");
    const bool good = near_truth(b, b->all) && choices == positions;
    printf("; %u tokens are the best of theirs: %s\n", choices, good ? "good" : "FAILED");
    return good;
}

/* How far off the forced logits are, where their experts are those of the recording. */
static double error_of(const struct bench *b)
{
    double error = 0;
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++)
        for (uint32_t s = 0; s < RECORDING_STEPS; s++) {
            const float *got = b->logits.of[p][s], *want = b->recorded.logits.of[p][s];
            if (logits_cosine(got, want) >= COSINE_BOUND)
                error = fmax(error, logits_worst(got, want));
        }
    return error;
}

enum verdict { AS_RECORDED, A_TIE, WRONG };

/* As long as its text is the recorded one, a prompt chooses what it chose when it was forced. That
 * is what was recorded, unless two logits were nearer to each other than both are off. */
static enum verdict judge_token(const struct bench *b, uint32_t p, uint32_t s, double error)
{
    const float *got = b->logits.of[p][s], *want = b->recorded.logits.of[p][s];
    if ((uint32_t)b->chosen[p][s] != logits_best(got))
        return WRONG;
    if (b->chosen[p][s] == b->recorded.greedy[p][s])
        return AS_RECORDED;
    return logits_gap(want) <= 2 * error || logits_cosine(got, want) < COSINE_BOUND ? A_TIE : WRONG;
}

static bool judge_free(struct bench *b)
{
    struct part part = {.b = b, .rows = RECORDING_PROMPTS, .tokens = RECORDING_STEPS};
    uint32_t count[3] = {0};
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++)
        part.given[p] = (uint32_t)b->recorded.lens[p];
    if (!run(&part))
        return false;
    const double error = error_of(b);
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++) {
        enum verdict verdict = AS_RECORDED;
        for (uint32_t s = 0; verdict == AS_RECORDED && s < RECORDING_STEPS; s++) {
            verdict = judge_token(b, p, s, error);
            count[verdict]++;
        }
    }
    printf(
        "free    %u of %d tokens as recorded; %u prompts went on otherwise from two logits within "
        "%.2g, %u from others: %s\n",
        count[AS_RECORDED], RECORDING_PROMPTS * RECORDING_STEPS, count[A_TIE], 2 * error,
        count[WRONG], count[WRONG] ? "FAILED" : "good");
    return count[WRONG] == 0;
}

/* All but the last tokens of the prompts in chunks, several prompts in one, long ones over more
 * than one: what comes behind is as near to the recording as it is behind single steps. */
static bool judge_chunks(struct bench *b)
{
    struct recorded_logits found = {.of = {{{0}}}};
    struct part part = {.b = b,
                        .rows = RECORDING_PROMPTS,
                        .tokens = RECORDING_STEPS,
                        .forced = true,
                        .chunks = true,
                        .logits = found.of[0][0]};
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++)
        part.given[p] = (uint32_t)b->recorded.lens[p];
    if (!run(&part))
        return false;
    const bool f32 = b->config.precision == RT_PRECISION_F32;
    const struct logits_distance d = logits_compare(&found, &b->recorded.logits);
    const bool good = f32 ? d.worst <= F32_BOUND : d.mean <= b->bounds.mean * d.deviation;
    printf("chunks  mean difference %.2g %% of the deviation, worst %.3g, least cosine %.6f: %s\n",
           100 * d.mean / d.deviation, d.worst, d.cosine, good ? "good" : "FAILED");
    return good;
}

/* On the host device a row's sums know nothing of other rows. On a GPU kernels and splits follow
 * the batch, so that sums have another order, and ties another end. */
static bool judge_alone(struct bench *b)
{
    uint32_t equal = 0;
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++) {
        struct part part = {.b = b,
                            .first = p,
                            .rows = 1,
                            .tokens = text_length(b, p),
                            .given = {1},
                            .forced = true,
                            .logits = b->alone[p][0]};
        if (!run(&part))
            return false;
        equal += memcmp(b->alone[p], b->all[p], part.tokens * sizeof(b->all[p][0])) == 0;
    }
    printf("alone   ");
    /* The same bits are as near to the truth as they were. */
    const bool same = equal == RECORDING_PROMPTS,
               good = same || (!b->host && near_truth(b, b->alone));
    printf("%s%u prompts as in the batch, bit by bit: %s\n", same || b->host ? "" : "; ", equal,
           good ? "good" : "FAILED");
    return good;
}

static bool judge_launches(const struct bench *b)
{
    struct rt_stats stats = {.struct_size = sizeof(stats)};
    rt_runtime *rt = rt_decoder_runtime(b->decoder);
    if (rt_get_stats(rt, &stats) != RT_OK)
        return failed("rt_get_stats", rt_last_error(rt));
    const bool good = stats.steps > 0 && stats.replays == stats.steps && stats.eager_steps == 0;
    printf("steps   %llu, graph launches %llu: %s\n", (unsigned long long)stats.steps,
           (unsigned long long)stats.replays, good ? "good" : "FAILED");
    return good;
}

/* ---- open and close -------------------------------------------------------------------------- */

/* One graph for all, with padding, and one for each alone. */
static void fill_config(struct bench *b, const char *device, bool f32)
{
    struct rt_config *c = &b->config;
    rt_config_default(c);
    c->geometry = b->model.geometry;
    c->block = b->model.block;
    c->layer = 1;
    c->input_norm = 1;
    (void)snprintf(c->device, sizeof(c->device), "%s", device);
    memset(c->batch_sizes, 0, sizeof(c->batch_sizes));
    c->batch_sizes[0] = 1;
    c->batch_sizes[1] = 8;
    c->batch_size_count = 2;
    c->max_sequences = RECORDING_PROMPTS;
    c->max_length = RECORDING_LONGEST + RECORDING_STEPS;
    c->chunks[0] = 8; /* absorbed, and expanded with context in pieces */
    c->chunks[1] = 180;
    c->chunk_count = 2;
    c->prefill_rows = 4;
    c->context_piece = 64;
    c->precision = f32 ? RT_PRECISION_F32 : RT_PRECISION_BF16;
    b->bounds = (struct bounds){MEAN_BOUND, COSINE_BOUND, COSINE_BOUND, f32 ? 0 : SCORE_DOUBT};
}

/* False: there is none of that name. */
static bool set_layout(struct bench *b, const char *name)
{
    struct rt_config *c = &b->config;
    enum rt_kv_layout layout = RT_KV_BF16;
    while (rt_kv_layout_name(layout) && strcmp(rt_kv_layout_name(layout), name) != 0)
        layout++;
    if (!rt_kv_layout_name(layout)) {
        printf("there is no layout %s\n", name);
        return false;
    }
    c->kv_layout = layout;
    c->kv_scale = layout == RT_KV_FP8_TENSOR ? QUANT_SCALE : 1;
    if (layout != RT_KV_BF16)
        b->bounds =
            (struct bounds){QUANT_MEAN_BOUND, QUANT_COSINE_BOUND, QUANT_NEAR, QUANT_SCORE_DOUBT};
    return true;
}

/* The recording ends nowhere: neither do its rows. */
static void fill_rows(struct bench *b)
{
    for (uint32_t p = 0; p < RECORDING_PROMPTS; p++) {
        const uint32_t length = (uint32_t)b->recorded.lens[p];
        memcpy(b->texts[p], b->recorded.prompts[p], length * sizeof(b->texts[0][0]));
        memcpy(b->texts[p] + length, b->recorded.greedy[p],
               (RECORDING_STEPS - 1) * sizeof(b->texts[0][0]));
        b->sampling[p].top_p = 1;
        memset(b->sampling[p].stops, 0xff, sizeof(b->sampling[p].stops));
    }
}

static bool open_decoder(struct bench *b, const rt_checkpoint *checkpoint)
{
    struct rt_error err = {.status = RT_OK};
    struct rt_info info = {.struct_size = sizeof(info)};
    const struct rt_decoder_params params = {.struct_size = sizeof(params),
                                             .config = &b->config,
                                             .model = &b->model,
                                             .checkpoint = checkpoint};
    if (rt_decoder_create(&params, &b->decoder, &err) != RT_OK)
        return failed("rt_decoder_create", &err);
    rt_runtime *rt = rt_decoder_runtime(b->decoder);
    if (rt_get_info(rt, &info) != RT_OK)
        return failed("rt_get_info", rt_last_error(rt));
    b->host = info.host;
    printf("%s in %s, cache in %s, on %s: %d prompts in one batch, %d tokens for each\n",
           b->model.family, b->config.precision == RT_PRECISION_F32 ? "f32" : "bf16",
           info.kv_layout, info.device, RECORDING_PROMPTS, RECORDING_STEPS);
    return true;
}

struct options {
    const char *device, *layout;
    bool f32;
};

static bool open_bench(struct bench *b, const char *folder, const struct options *options)
{
    struct rt_error err = {.status = RT_OK};
    rt_checkpoint *checkpoint = NULL;
    b->model.struct_size = sizeof(b->model);
    if (rt_model_read(folder, &b->model, &err) != RT_OK ||
        rt_checkpoint_open(folder, &checkpoint, &err) != RT_OK)
        return failed(folder, &err);
    fill_config(b, options->device, options->f32);
    bool good = set_layout(b, options->layout) && recording_read(folder, &b->recorded);
    if (good && !truth_open(&b->truth, &b->model, checkpoint, &err))
        good = failed(folder, &err);
    if (good) {
        fill_rows(b);
        good = open_decoder(b, checkpoint);
    }
    rt_checkpoint_close(&checkpoint);
    return good;
}

static const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 2; i + 1 < argc; i += 2)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return otherwise;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc % 2) {
        (void)fprintf(stderr, "usage: decode_golden FOLDER [--device D] [--precision P] "
                              "[--layout L]\n");
        return 2;
    }
    struct bench *b = calloc(1, sizeof(*b));
    if (!b)
        return 2;
    const struct options options = {
        .device = option(argc, argv, "--device", "auto"),
        .layout = option(argc, argv, "--layout", "bf16"),
        .f32 = strcmp(option(argc, argv, "--precision", "bf16"), "f32") == 0};
    bool good = open_bench(b, argv[1], &options);
    good = good && judge_forced(b) && judge_truth(b) && judge_chunks(b);
    if (b->config.kv_layout == RT_KV_BF16)
        good = good && judge_free(b) && judge_alone(b);
    good = good && judge_launches(b);
    printf("%s: %s\n", argv[1], good ? "the recording matches" : "FAILED");
    rt_decoder_destroy(&b->decoder);
    truth_close(&b->truth);
    free(b);
    return good ? 0 : 1;
}
