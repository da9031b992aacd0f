/* SPDX-License-Identifier: Apache-2.0 */
#include "models/decoder_impl.h"
#include "models/fail.h"
#include "replayrt/ranks.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- create ---------------------------------------------------------------------------------- */

/* A configuration of another size is completed by what it is without. */
static enum rt_status take_config(const struct rt_config *given, struct rt_config *out,
                                  struct rt_error *err)
{
    RT_MODELS_TRY(rt_models_check_struct(given, sizeof(*out), "rt_decoder_create", "config", err));
    const size_t size = given->struct_size < sizeof(*out) ? given->struct_size : sizeof(*out);
    rt_config_default(out);
    memcpy(out, given, size);
    out->struct_size = sizeof(*out);
    return RT_OK;
}

static enum rt_status take_ranks(struct rt_decoder *d, const rt_ranks *ranks, struct rt_error *err)
{
    struct rt_ranks_info info = {.struct_size = sizeof(info)};
    RT_MODELS_TRY(rt_ranks_get_info(ranks, &info, err));
    d->rank = info.rank;
    d->ranks = info.ranks;
    return rt_ranks_cut(ranks, &d->config, err);
}

static enum rt_status configure(struct rt_decoder *d, const struct rt_decoder_params *params,
                                struct rt_error *err)
{
    RT_MODELS_REQUIRE(params->config && params->model && params->checkpoint, err, RT_ERR_INVALID,
                      "rt_decoder_create: config %p, model %p, checkpoint %p: all must be given",
                      (const void *)params->config, (const void *)params->model,
                      (const void *)params->checkpoint);
    RT_MODELS_REQUIRE(params->reserved == 0, err, RT_ERR_INVALID,
                      "rt_decoder_create: reserved is %u, not 0", params->reserved);
    RT_MODELS_TRY(rt_models_take_struct(params->model, &d->model, sizeof(d->model),
                                        "rt_decoder_create", "model", err));
    RT_MODELS_TRY(rt_decoder_check_model(&d->model, err));
    RT_MODELS_TRY(take_config(params->config, &d->config, err));
    d->config.geometry = d->model.geometry;
    d->config.block = d->model.block;
    d->config.layer = 1;
    d->config.input_norm = 1;
    RT_MODELS_REQUIRE(params->ranks || d->config.context_parallel == 1, err, RT_ERR_INVALID,
                      "rt_decoder_create: context_parallel is %u: must be 1 without ranks",
                      d->config.context_parallel);
    d->ranks = 1;
    if (params->ranks)
        RT_MODELS_TRY(take_ranks(d, params->ranks, err));
    return rt_config_check(&d->config, err);
}

/* The operators' `auto` is never the host, the runtime's is where there is nothing else: what has
 * become of it is settled here, for weights and all. */
static enum rt_status open_device(struct rt_decoder *d, struct rt_error *err)
{
    (void)snprintf(d->device, sizeof(d->device), "%s", d->config.device);
    struct rt_error why = {.status = RT_OK};
    enum rt_status status = rt_ops_create(d->device, &d->ops, &why);
    if (status == RT_ERR_NO_DEVICE && strcmp(d->device, "auto") == 0) {
        (void)snprintf(d->device, sizeof(d->device), "host");
        status = rt_ops_create(d->device, &d->ops, &why);
    }
    RT_MODELS_REQUIRE(status == RT_OK, err, status, "%s", why.message);
    (void)snprintf(d->config.device, sizeof(d->config.device), "%s", d->device);
    status = rt_ops_overlap(d->ops, 1);
    RT_MODELS_REQUIRE(status == RT_OK, err, status, "%s", rt_ops_last_error(d->ops)->message);
    return RT_OK;
}

/* Every slot stops where the model does, until something else is said. */
static struct rt_sampling default_sampling(const struct rt_model *m)
{
    struct rt_sampling s = {.top_p = 1.0f};
    for (uint32_t i = 0; i < RT_SAMPLING_STOPS; i++)
        s.stops[i] = i < m->eos_count ? m->eos[i] : -1;
    return s;
}

static enum rt_status write_lines(struct rt_decoder *d, uint32_t first, uint32_t count,
                                  const struct rt_sampling *line, struct rt_error *err)
{
    struct rt_sampling many[64];
    for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++)
        many[i] = *line;
    const uint64_t begin = d->scratch.lines - d->scratch.address;
    for (uint32_t at = 0; at < count; at += 64) {
        const uint32_t part = count - at < 64 ? count - at : 64;
        RT_MODELS_TRY(rt_memory_write(d->scratch.memory, begin + (first + at) * sizeof(*line), many,
                                      part * sizeof(*line), err));
    }
    return RT_OK;
}

static enum rt_status begin_lines(struct rt_decoder *d, struct rt_error *err)
{
    const struct rt_sampling line = default_sampling(&d->model);
    const uint32_t count = d->config.max_sequences;
    d->lines = calloc(count, sizeof(*d->lines));
    RT_MODELS_REQUIRE(d->lines, err, RT_ERR_NOMEM,
                      "out of host memory for the sampling of %" PRIu32 " sequences", count);
    for (uint32_t i = 0; i < count; i++)
        d->lines[i] = line;
    return write_lines(d, 0, count, &line, err);
}

static enum rt_status create_runtime(struct rt_decoder *d, const struct rt_decoder_params *params,
                                     struct rt_error *err)
{
    static const uint32_t stages =
        1u << RT_STAGE_STEP_BEGIN | 1u << RT_STAGE_AFTER_ATTENTION | 1u << RT_STAGE_STEP_END;
    const struct rt_memory_region regions[] = {{d->weights.address, d->weights.bytes},
                                               {d->scratch.address, d->scratch.bytes}};
    struct rt_stage_exchange exchanges[RT_MODEL_EXCHANGES];
    const struct rt_create_params create = {
        .struct_size = sizeof(create),
        .flags = RT_CREATE_NO_EMPTY_STAGES | RT_CREATE_NEEDS_TOKENS,
        .config = &d->config,
        .stages = {[RT_STAGE_STEP_BEGIN] = rt_decoder_begin,
                   [RT_STAGE_AFTER_ATTENTION] = rt_decoder_mlp,
                   [RT_STAGE_STEP_END] = rt_decoder_end},
        .stage_user = d,
        .regions = regions,
        .region_count = 2,
        .overlapped_stages = stages,
        .log = params->log,
        .progress = params->capturing,
        .log_user = params->user,
        .weights = d->weights.attention,
        .ranks = params->ranks,
        .exchanges = exchanges,
        .exchange_count = rt_decoder_exchanges(d, exchanges),
    };
    struct rt_error mine = {.status = RT_OK};
    const enum rt_status status = rt_create(&create, &d->runtime, &mine);
    /* Where a stage failed, it has said why. */
    if (status == RT_ERR_CALLBACK && d->error.status != RT_OK)
        return rt_models_fail(err, d->error.status, "%s (%.200s)", d->error.message, mine.message);
    RT_MODELS_REQUIRE(status == RT_OK, err, status, "%s", mine.message);
    return RT_OK;
}

static enum rt_status create(struct rt_decoder *d, const struct rt_decoder_params *params,
                             struct rt_error *err)
{
    RT_MODELS_TRY(configure(d, params, err));
    RT_MODELS_TRY(open_device(d, err));
    RT_MODELS_TRY(
        rt_decoder_scratch_make(d, params->ranks, err)); /* what fails of it does so at once */
    const uint64_t begun = now_ns();
    RT_MODELS_TRY(rt_decoder_weights_load(params, &d->config, d->device, &d->weights, err));
    const uint64_t loaded = now_ns();
    RT_MODELS_TRY(begin_lines(d, err));
    RT_MODELS_TRY(create_runtime(d, params, err));
    d->loading_ns = loaded - begun;
    d->creating_ns = now_ns() - loaded;
    return RT_OK;
}

enum rt_status rt_decoder_create(const struct rt_decoder_params *params, rt_decoder **out,
                                 struct rt_error *error)
{
    struct rt_decoder_params mine;
    struct rt_error unseen = {
        .status = RT_OK}; /* failures are read back here, also where the caller wants none */
    struct rt_error *const err = error ? error : &unseen;
    RT_MODELS_REQUIRE(out, err, RT_ERR_INVALID, "rt_decoder_create: out is null");
    *out = NULL;
    RT_MODELS_TRY(
        rt_models_take_struct(params, &mine, sizeof(mine), "rt_decoder_create", "params", err));
    rt_decoder *d = calloc(1, sizeof(*d));
    RT_MODELS_REQUIRE(d, err, RT_ERR_NOMEM, "out of host memory for a decoder");
    const enum rt_status status = create(d, &mine, err);
    if (status != RT_OK)
        rt_decoder_destroy(&d);
    *out = d;
    return status;
}

void rt_decoder_destroy(rt_decoder **decoder)
{
    if (!decoder || !*decoder)
        return;
    struct rt_decoder *d = *decoder;
    rt_destroy(&d->runtime);
    rt_decoder_scratch_free(d);
    rt_decoder_weights_free(&d->weights);
    rt_ops_destroy(&d->ops);
    free(d->lines);
    free(d);
    *decoder = NULL;
}

/* ---- use ------------------------------------------------------------------------------------- */

rt_runtime *rt_decoder_runtime(const rt_decoder *decoder)
{
    return decoder ? decoder->runtime : NULL;
}

const struct rt_error *rt_decoder_last_error(const rt_decoder *decoder)
{
    static const struct rt_error none = {.status = RT_ERR_INVALID, .message = "decoder is null"};
    return decoder ? &decoder->error : &none;
}

/* Written so that NaN passes where it means all; a greedy choice does not look at it. */
static enum rt_status check_sampling(const struct rt_decoder *d, const struct rt_sampling *s,
                                     struct rt_error *err)
{
    RT_MODELS_REQUIRE(!(s->temperature > 0.0f && s->top_p <= 0.0f), err, RT_ERR_INVALID,
                      "rt_decoder_sample: top_p %g is not above 0, with a temperature of %g; 1 and "
                      "more: all tokens",
                      (double)s->top_p, (double)s->temperature);
    RT_MODELS_REQUIRE(!s->reserved && !s->reserved_too[0] && !s->reserved_too[1], err,
                      RT_ERR_INVALID,
                      "rt_decoder_sample: reserved is %" PRId32 ", reserved_too %" PRId32
                      " and %" PRId32 ", not 0",
                      s->reserved, s->reserved_too[0], s->reserved_too[1]);
    for (uint32_t i = 0; i < RT_SAMPLING_STOPS; i++)
        RT_MODELS_REQUIRE(s->stops[i] < (int64_t)d->model.vocab_size, err, RT_ERR_INVALID,
                          "rt_decoder_sample: stops[%" PRIu32 "] = %" PRId32
                          " is not below the vocabulary's %" PRIu32,
                          i, s->stops[i], d->model.vocab_size);
    return RT_OK;
}

/* The runtime's last failure becomes the decoder's. */
static enum rt_status take(rt_decoder *d, enum rt_status status)
{
    RT_MODELS_REQUIRE(status == RT_OK, &d->error, status, "%s", rt_last_error(d->runtime)->message);
    return RT_OK;
}

static bool is_same(const struct rt_sampling *a, const struct rt_sampling *b)
{
    return a->temperature == b->temperature && a->top_p == b->top_p && a->top_k == b->top_k &&
           a->seed == b->seed && memcmp(a->stops, b->stops, sizeof(a->stops)) == 0;
}

enum rt_status rt_decoder_sample(rt_decoder *decoder, rt_seq seq,
                                 const struct rt_sampling *sampling)
{
    RT_MODELS_REQUIRE(decoder, NULL, RT_ERR_INVALID, "rt_decoder_sample: decoder is null");
    const struct rt_sampling line = sampling ? *sampling : default_sampling(&decoder->model);
    uint32_t slot;
    RT_MODELS_TRY(check_sampling(decoder, &line, &decoder->error));
    RT_MODELS_TRY(take(decoder, rt_seq_slot(decoder->runtime, seq, &slot)));
    struct rt_sampling *const held = &decoder->lines[slot];
    if (is_same(held, &line))
        return RT_OK; /* requests that are alike let the steps in flight go on */
    RT_MODELS_TRY(take(decoder, rt_synchronize(decoder->runtime)));
    held->temperature = NAN; /* the same as none: who knows what a write that fails leaves */
    RT_MODELS_TRY(write_lines(decoder, slot, 1, &line, &decoder->error));
    *held = line;
    return RT_OK;
}

enum rt_status rt_decoder_logits(rt_decoder *decoder, struct rt_tensor *out)
{
    RT_MODELS_REQUIRE(decoder, NULL, RT_ERR_INVALID, "rt_decoder_logits: decoder is null");
    const uint64_t query_len = rt_decoder_longest_query(decoder);
    const uint64_t batch = (rt_decoder_most_rows(decoder) + query_len - 1) / query_len;
    const uint64_t line = rt_decoder_line(decoder);
    const struct rt_tensor mine = {.dtype = RT_DTYPE_F32,
                                   .rank = 3,
                                   .shape = {batch, query_len, line},
                                   .bytes = batch * query_len * line * sizeof(float),
                                   .address = decoder->scratch.logits};
    RT_MODELS_TRY(
        rt_models_check_struct(out, sizeof(mine), "rt_decoder_logits", "out", &decoder->error));
    rt_models_write_struct(out, &mine, sizeof(mine));
    return RT_OK;
}

/* Beside a chunk, as its prompts are, rows may have one token where no step's have. */
static bool is_captured(const struct rt_config *c, uint32_t query_len)
{
    if (query_len == 1 && c->chunk_count > 0)
        return true;
    for (uint32_t i = 0; i < c->query_len_count; i++)
        if (c->query_lens[i] == query_len)
            return true;
    return false;
}

enum rt_status rt_decoder_read_logits(rt_decoder *decoder, uint32_t row, uint32_t query_len,
                                      uint32_t token, float *out)
{
    RT_MODELS_REQUIRE(decoder, NULL, RT_ERR_INVALID, "rt_decoder_read_logits: decoder is null");
    struct rt_error *const err = &decoder->error;
    const uint32_t vocab = decoder->model.vocab_size;
    int32_t live = 0;
    RT_MODELS_REQUIRE(out, err, RT_ERR_INVALID, "rt_decoder_read_logits: out is null");
    RT_MODELS_REQUIRE(is_captured(&decoder->config, query_len) && token < query_len, err,
                      RT_ERR_INVALID,
                      "rt_decoder_read_logits: token %" PRIu32 " of a query of %" PRIu32
                      ", which is no length of the configuration, or shorter",
                      token, query_len);
    RT_MODELS_TRY(take(decoder, rt_synchronize(decoder->runtime)));
    RT_MODELS_TRY(
        take(decoder, rt_tensor_read(decoder->runtime, "live_rows", 0, 0, &live, sizeof(live))));
    RT_MODELS_REQUIRE((int64_t)row < live, err, RT_ERR_INVALID,
                      "rt_decoder_read_logits: row %" PRIu32 " of %" PRId32
                      " that the last replay had",
                      row, live);
    const uint64_t at =
        ((uint64_t)row * query_len + token) * rt_decoder_line(decoder) * sizeof(float);
    RT_MODELS_TRY(rt_memory_read(decoder->scratch.memory,
                                 decoder->scratch.logits - decoder->scratch.address + at, out,
                                 vocab * sizeof(float), err));
    for (uint32_t i = 0; i < vocab; i++)
        out[i] *= (float)decoder->model.logits_scale;
    return RT_OK;
}

enum rt_status rt_decoder_get_info(rt_decoder *decoder, struct rt_decoder_info *out)
{
    RT_MODELS_REQUIRE(decoder, NULL, RT_ERR_INVALID, "rt_decoder_get_info: decoder is null");
    const struct rt_decoder_info mine = {.host = strcmp(decoder->device, "host") == 0,
                                         .weight_bytes = decoder->weights.bytes,
                                         .scratch_bytes = decoder->scratch.bytes,
                                         .loading_ns = decoder->loading_ns,
                                         .creating_ns = decoder->creating_ns};
    RT_MODELS_TRY(
        rt_models_check_struct(out, sizeof(mine), "rt_decoder_get_info", "out", &decoder->error));
    rt_models_write_struct(out, &mine, sizeof(mine));
    return RT_OK;
}
