/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/trace.h"

#include "examples/bf16.h"
#include "examples/mla_cpu.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 4096

/* ---- open and close ------------------------------------------------------------------------- */

static enum rt_status path_of(const struct trace *trace, const char *name, char *path,
                              struct rt_error *error)
{
    const int wrote = snprintf(path, PATH_BYTES, "%s/%s", trace->options.directory, name);
    if (wrote < 0 || wrote >= PATH_BYTES)
        return rt_error_set(error, RT_ERR_FILE, "the path of %s is longer than %d bytes", name,
                            PATH_BYTES - 1);
    return RT_OK;
}

/* replayrt.yaml, for one layer, and as the options want it. */
static enum rt_status load_config(struct trace *trace, struct rt_error *error)
{
    char path[PATH_BYTES];
    struct rt_config *config = &trace->config;
    enum rt_status status = path_of(trace, "replayrt.yaml", path, error);
    if (status == RT_OK)
        status = rt_config_load(path, config, error);
    if (status != RT_OK)
        return status;
    config->geometry.layers = 1;
    if (trace->options.query_len > 1) {
        config->query_lens[0] = 1;
        config->query_lens[1] = trace->options.query_len;
        config->query_len_count = 2;
    }
    const char *device = trace->options.device;
    if (device == NULL)
        return RT_OK;
    if (strlen(device) >= sizeof config->device)
        return rt_error_set(error, RT_ERR_CONFIG, "device %.40s: auto, host or cuda:N", device);
    memcpy(config->device, device, strlen(device) + 1);
    return RT_OK;
}

/* The model, the trace and the configuration must speak of the same thing. */
static enum rt_status check_sizes(const struct trace *trace, struct rt_error *error)
{
    const struct mla_config *model = &trace->model.config;
    const struct rt_geometry *geometry = &trace->config.geometry;
    if (trace->golden.hidden != model->hidden)
        return rt_error_set(error, RT_ERR_FILE,
                            "the trace has hidden size %" PRIu32 ", the model %" PRIu32,
                            trace->golden.hidden, model->hidden);
    if (geometry->heads != model->heads || geometry->kv_lora_rank != model->kv_rank ||
        geometry->qk_rope_head_dim != model->rope)
        return rt_error_set(error, RT_ERR_CONFIG,
                            "replayrt.yaml has %" PRIu32 " heads of %" PRIu32 " + %" PRIu32
                            ", the model %" PRIu32 " of %" PRIu32 " + %" PRIu32,
                            geometry->heads, geometry->kv_lora_rank, geometry->qk_rope_head_dim,
                            model->heads, model->kv_rank, model->rope);
    return RT_OK;
}

static enum rt_status allocate_sequences(struct trace *trace)
{
    const size_t width = (size_t)trace->model.config.kv_rank + trace->model.config.rope;
    trace->sequences = calloc(trace->golden.prompts, sizeof *trace->sequences);
    if (trace->sequences == NULL)
        return RT_ERR_NOMEM;
    for (uint32_t p = 0; p < trace->golden.prompts; p++) {
        struct trace_sequence *sequence = &trace->sequences[p];
        sequence->outcome = outcome_none();
        sequence->length = golden_length(&trace->golden, p);
        sequence->latents = malloc(sequence->length * width * sizeof *sequence->latents);
        if (sequence->latents == NULL)
            return RT_ERR_NOMEM;
    }
    return RT_OK;
}

static enum rt_status allocate(struct trace *trace, struct rt_error *error)
{
    const struct mla_config *c = &trace->model.config;
    const size_t rows = trace->golden.prompts, tokens = rows * trace->options.query_len;
    const size_t width = (size_t)c->kv_rank + c->rope;
    const size_t q = c->heads * width, out = (size_t)c->heads * c->kv_rank;
    trace->seqs = malloc(rows * sizeof *trace->seqs);
    trace->tokens = malloc(tokens * sizeof *trace->tokens);
    trace->q = malloc(tokens * q * sizeof *trace->q);
    trace->latent = malloc(tokens * width * sizeof *trace->latent);
    trace->out = malloc(tokens * out * sizeof *trace->out);
    trace->x = malloc(c->hidden * sizeof *trace->x);
    trace->exact_q = malloc(q * sizeof *trace->exact_q);
    trace->exact_out = malloc(out * sizeof *trace->exact_out);
    trace->y = malloc(c->hidden * sizeof *trace->y);
    trace->scratch = malloc(mla_scratch_count(c) * sizeof *trace->scratch);
    if (trace->seqs == NULL || trace->tokens == NULL || trace->q == NULL || trace->latent == NULL ||
        trace->out == NULL || trace->x == NULL || trace->exact_q == NULL ||
        trace->exact_out == NULL || trace->y == NULL || trace->scratch == NULL ||
        allocate_sequences(trace) != RT_OK)
        return rt_error_set(error, RT_ERR_NOMEM, "no memory for %zu tokens of %zu heads a step",
                            tokens, (size_t)c->heads);
    return RT_OK;
}

static void print_message(void *user, enum rt_log_level level, const char *message)
{
    (void)user;
    fprintf(stderr, "%s: %s\n", level == RT_LOG_WARNING ? "warning" : "info", message);
}

enum rt_status trace_open(const struct trace_options *options, struct trace *trace,
                          struct rt_error *error)
{
    *trace = (struct trace){.options = *options};
    char path[PATH_BYTES];
    enum rt_status status = mla_model_open(options->directory, &trace->model, error);
    if (status == RT_OK)
        status = path_of(trace, "golden.safetensors", path, error);
    if (status == RT_OK)
        status = golden_open(path, &trace->golden, error);
    if (status == RT_OK)
        status = load_config(trace, error);
    if (status == RT_OK)
        status = check_sizes(trace, error);
    if (status == RT_OK)
        status = allocate(trace, error);
    if (status == RT_OK) {
        const struct rt_create_params params = {.struct_size = sizeof params,
                                                .config = &trace->config,
                                                .log = options->verbose ? print_message : NULL};
        status = rt_create(&params, &trace->runtime, error);
    }
    if (status != RT_OK)
        trace_close(trace);
    return status;
}

void trace_close(struct trace *trace)
{
    rt_destroy(&trace->runtime);
    for (uint32_t p = 0; trace->sequences != NULL && p < trace->golden.prompts; p++)
        free(trace->sequences[p].latents);
    free(trace->sequences);
    free(trace->seqs);
    free(trace->tokens);
    free(trace->q);
    free(trace->latent);
    free(trace->out);
    free(trace->x);
    free(trace->exact_q);
    free(trace->exact_out);
    free(trace->y);
    free(trace->scratch);
    golden_close(&trace->golden);
    mla_model_close(&trace->model);
    *trace = (struct trace){0};
}

/* ---- one step ------------------------------------------------------------------------------- */

/* Takes over the story of a library call. */
static enum rt_status told(const struct trace *trace, enum rt_status status, struct rt_error *error)
{
    if (status != RT_OK && error != NULL)
        *error = *rt_last_error(trace->runtime);
    return status;
}

static void round_to_bf16(const double *from, size_t count, uint16_t *to)
{
    for (size_t i = 0; i < count; i++)
        to[i] = bf16_from_float((float)from[i]);
}

/* Writes token `at` of the step: the sequence's token t of this round, its query and latent. */
static enum rt_status fill(struct trace *trace, uint32_t p, uint32_t t, size_t at,
                           struct rt_error *error)
{
    const struct mla_config *c = &trace->model.config;
    const size_t width = (size_t)c->kv_rank + c->rope;
    const struct trace_sequence *sequence = &trace->sequences[p];
    const uint32_t position = sequence->fed + t;
    trace->tokens[at] = golden_token(&trace->golden, p, position);
    const enum rt_status status =
        mla_attention_input(&trace->model, trace->tokens[at], trace->x, error);
    if (status != RT_OK)
        return status;
    mla_query(&trace->model, trace->x, position, trace->exact_q, trace->scratch);
    round_to_bf16(trace->exact_q, c->heads * width, trace->q + at * c->heads * width);
    double *latent = sequence->latents + position * width;
    mla_latent(&trace->model, trace->x, position, latent);
    round_to_bf16(latent, width, trace->latent + at * width);
    return RT_OK;
}

/* Tensors in, one step, tensor out. */
static enum rt_status run_step(struct trace *trace, uint32_t rows, uint32_t query_len,
                               struct rt_error *error)
{
    const struct mla_config *c = &trace->model.config;
    const size_t tokens = (size_t)rows * query_len;
    const size_t width = (size_t)c->kv_rank + c->rope;
    const size_t q_bytes = tokens * c->heads * width * sizeof *trace->q;
    const size_t latent_bytes = tokens * width * sizeof *trace->latent;
    const size_t out_bytes = tokens * c->heads * c->kv_rank * sizeof *trace->out;
    const struct rt_step_params step = {.struct_size = sizeof step,
                                        .rows = rows,
                                        .query_len = query_len,
                                        .seqs = trace->seqs,
                                        .tokens = trace->tokens};
    uint64_t ticket;
    enum rt_status status = rt_tensor_write(trace->runtime, "q", 0, 0, trace->q, q_bytes);
    if (status == RT_OK)
        status = rt_tensor_write(trace->runtime, "latent", 0, 0, trace->latent, latent_bytes);
    if (status == RT_OK)
        status = rt_step(trace->runtime, &step, &ticket);
    if (status == RT_OK)
        status = rt_wait(trace->runtime, ticket, UINT64_MAX);
    if (status == RT_OK)
        status = rt_tensor_read(trace->runtime, "out", 0, 0, trace->out, out_bytes);
    return told(trace, status, error);
}

/* Holds token `at` of the step against the trace, where its position was recorded. */
static enum rt_status compare(struct trace *trace, uint32_t p, uint32_t t, size_t at,
                              struct rt_error *error)
{
    const struct mla_config *c = &trace->model.config;
    const struct golden *golden = &trace->golden;
    struct trace_sequence *sequence = &trace->sequences[p];
    const uint32_t position = sequence->fed + t;
    const uint32_t first = (uint32_t)golden->lengths[p] - 1;
    if (position < first)
        return RT_OK;
    const enum rt_status status =
        mla_attention_input(&trace->model, trace->tokens[at], trace->x, error);
    if (status != RT_OK)
        return status;
    mla_query(&trace->model, trace->x, position, trace->exact_q, trace->scratch);
    const double expected =
        mla_expected_error(c, trace->exact_q, sequence->latents, (size_t)position + 1,
                           trace->config.geometry.softmax_scale);

    const size_t elements = (size_t)c->heads * c->kv_rank;
    for (size_t i = 0; i < elements; i++)
        trace->exact_out[i] = bf16_to_float(trace->out[at * elements + i]);
    mla_output(&trace->model, trace->exact_out, trace->y, trace->scratch);

    const size_t recorded = ((size_t)p * golden->steps + position - first) * c->hidden;
    const struct outcome outcome =
        outcome_compare(trace->x, golden->attn_in + recorded, trace->y, golden->attn_out + recorded,
                        c->hidden, expected);
    outcome_merge(&sequence->outcome, &outcome);
    if (trace->options.verbose)
        printf("prompt %3" PRIu32 " position %4" PRIu32
               "  error %.2e  expected %.2e  worst element %.2e  cosine %.8f\n",
               first + 1, position, outcome.norm, expected, outcome.absolute, outcome.cosine);
    return RT_OK;
}

/* ---- rounds --------------------------------------------------------------------------------- */

/* One step of all sequences that feed `width` tokens in this round. */
static enum rt_status feed(struct trace *trace, uint32_t width, struct rt_error *error)
{
    enum rt_status status = RT_OK;
    uint32_t rows = 0;
    for (uint32_t p = 0; p < trace->golden.prompts; p++) {
        if (trace->sequences[p].width != width)
            continue;
        for (uint32_t t = 0; status == RT_OK && t < width; t++)
            status = fill(trace, p, t, (size_t)rows * width + t, error);
        trace->seqs[rows++] = trace->sequences[p].seq;
    }
    if (status != RT_OK || rows == 0)
        return status;
    status = run_step(trace, rows, width, error);
    rows = 0;
    for (uint32_t p = 0; p < trace->golden.prompts; p++) {
        if (trace->sequences[p].width != width)
            continue;
        for (uint32_t t = 0; status == RT_OK && t < width; t++)
            status = compare(trace, p, t, (size_t)rows * width + t, error);
        trace->sequences[p].fed += width;
        trace->sequences[p].width = 0;
        rows++;
    }
    return status;
}

/* Opens a sequence that joins in this round, closes one that is done. */
static enum rt_status open_or_close(struct trace *trace, uint32_t p, uint32_t round,
                                    struct rt_error *error)
{
    struct trace_sequence *sequence = &trace->sequences[p];
    enum rt_status status = RT_OK;
    if (sequence->open && sequence->fed == sequence->length) {
        status = rt_seq_close(trace->runtime, sequence->seq);
        sequence->open = false;
    } else if (!sequence->open && sequence->fed == 0 &&
               round >= (uint64_t)p * trace->options.stagger) {
        status = rt_seq_open(trace->runtime, NULL, &sequence->seq);
        sequence->open = status == RT_OK;
    }
    return told(trace, status, error);
}

/* How many tokens an open sequence feeds next. */
static uint32_t next_width(const struct trace *trace, uint32_t p)
{
    const uint32_t prompt = (uint32_t)trace->golden.lengths[p], fed = trace->sequences[p].fed;
    return fed < prompt && prompt - fed >= trace->options.query_len ? trace->options.query_len : 1;
}

enum rt_status trace_run(struct trace *trace, struct rt_error *error)
{
    uint32_t finished = 0;
    for (uint32_t round = 0; finished < trace->golden.prompts; round++) {
        finished = 0;
        for (uint32_t p = 0; p < trace->golden.prompts; p++) {
            const enum rt_status status = open_or_close(trace, p, round, error);
            if (status != RT_OK)
                return status;
            struct trace_sequence *sequence = &trace->sequences[p];
            finished += sequence->fed == sequence->length;
            if (sequence->open)
                sequence->width = next_width(trace, p);
        }
        enum rt_status status = RT_OK;
        if (trace->options.query_len > 1)
            status = feed(trace, trace->options.query_len, error);
        if (status == RT_OK)
            status = feed(trace, 1, error);
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}
