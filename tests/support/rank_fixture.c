/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/rank_fixture.h"

#include "common/bf16.h"
#include "common/check.h"
#include "runtime/ranks_impl.h"
#include "tests/support/fixture.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TIMEOUT_MS 10000

/* ---- weights --------------------------------------------------------------------------------- */

uint32_t rank_context(const struct rank_seat *seat)
{
    return seat->ranks && seat->bench->context ? seat->bench->context : 1;
}

/* This rank's heads of a weight of all: rows of q_b and kv_b, columns of o, all of the rest. */
static struct rt_weight part_of(const struct rank_seat *seat, const char *name,
                                const struct rt_weight *whole)
{
    const uint64_t ranks = seat->ranks ? seat->bench->ranks : 1;
    const uint64_t context = rank_context(seat);
    struct rt_weight w = *whole;
    if (strcmp(name, "o_proj.weight") == 0) {
        w.columns /= ranks;
        w.address += seat->rank * w.columns * sizeof(uint16_t);
        w.row_stride = (int64_t)whole->columns;
        w.column_stride = 1;
    } else if (strstr(name, "_b_proj")) {
        w.rows /= ranks / context;
        w.address += seat->rank / context * w.rows * w.columns * sizeof(uint16_t);
    }
    return w;
}

/* Its numbers are the first of all. */
static enum rt_status bind_bias(const struct rank_seat *seat, const struct rt_config *config,
                                uint32_t layer, rt_weights *weights, struct rt_error *err)
{
    const struct rt_weight bias = {.struct_size = sizeof(bias),
                                   .dtype = RT_DTYPE_BF16,
                                   .address = (uintptr_t)seat->bench->blocks.numbers,
                                   .rows = 1,
                                   .columns = config->block.hidden_size};
    return rt_weights_bind(weights, layer, "o_proj.bias", &bias, err);
}

/* The walk of block_open, whose numbers these are. */
static enum rt_status bind(const struct rank_seat *seat, const struct rt_config *config,
                           rt_weights *weights, struct rt_error *err)
{
    const struct block_fixture *const all = &seat->bench->blocks;
    uint64_t at = 0;
    for (uint32_t layer = 0; layer < config->geometry.layers; layer++) {
        const char *name;
        struct rt_weight w = {.struct_size = sizeof(w), .dtype = RT_DTYPE_BF16};
        for (uint32_t i = 0; block_weight(&all->config, i, &name, &w.rows, &w.columns); i++) {
            w.address = (uintptr_t)(all->numbers + at);
            at += (w.rows * w.columns + 127) / 128 * 128;
            const struct rt_weight part = part_of(seat, name, &w);
            RT_TRY(rt_weights_bind(weights, layer, name, &part, err));
        }
        RT_TRY(bind_bias(seat, config, layer, weights, err));
    }
    return RT_OK;
}

/* ---- stages ---------------------------------------------------------------------------------- */

static float input(uint32_t step, uint32_t layer, uint32_t token, uint32_t i)
{
    uint64_t seed = 1 + step + 100 * layer + 1000 * token + 100000 * (uint64_t)i;
    return (float)(int32_t)fixture_random(&seed) * (1.0f / 2147483648.0f);
}

static uint32_t width_of(const struct rank_seat *seat)
{
    return seat->bench->blocks.config.block.hidden_size;
}

static int before(void *user, const struct rt_stage_context *context)
{
    const struct rank_seat *const seat = user;
    struct rt_tensor t = {.struct_size = sizeof(t)};
    if (rt_tensor(context->runtime, "hidden", 0, &t) != RT_OK)
        return 1;
    for (uint32_t token = 0; token < context->tokens && token < RANKS_TOKENS; token++)
        for (uint32_t i = 0; i < width_of(seat); i++) {
            const float value = input(seat->step, context->layer, token, i);
            const uint64_t at = token * width_of(seat) + i;
            if (t.dtype == RT_DTYPE_F32)
                ((float *)(uintptr_t)t.address)[at] = value;
            else
                ((uint16_t *)(uintptr_t)t.address)[at] = rt_float_to_bf16(value);
        }
    return 0;
}

static int after(void *user, const struct rt_stage_context *context)
{
    struct rank_seat *const seat = user;
    struct rt_tensor t = {.struct_size = sizeof(t)};
    if (rt_tensor(context->runtime, "hidden", 0, &t) != RT_OK || seat->step >= seat->bench->steps)
        return 1;
    for (uint32_t token = 0; token < context->tokens && token < RANKS_TOKENS; token++)
        for (uint32_t i = 0; i < width_of(seat); i++) {
            const uint64_t at = token * width_of(seat) + i;
            const float value =
                t.dtype == RT_DTYPE_F32
                    ? ((const float *)(uintptr_t)t.address)[at]
                    : rt_bf16_to_float(((const uint16_t *)(uintptr_t)t.address)[at]);
            seat->out[seat->step][context->layer][token][i] = value;
        }
    return 0;
}

/* ---- ranks ----------------------------------------------------------------------------------- */

static enum rt_status create(struct rank_seat *seat)
{
    struct rt_config config = seat->bench->blocks.config;
    struct rt_create_params p = {
        .struct_size = sizeof(p),
        .config = &config,
        .stages = {[RT_STAGE_BEFORE_ATTENTION] = before, [RT_STAGE_AFTER_ATTENTION] = after},
        .stage_user = seat,
        .ranks = seat->ranks};
    rt_weights *weights = NULL;
    if (seat->bench->batches[seat->rank])
        config.batch_sizes[config.batch_size_count - 1] = seat->bench->batches[seat->rank];
    if (seat->bench->layers[seat->rank])
        config.geometry.layers = seat->bench->layers[seat->rank];
    config.context_parallel = rank_context(seat);
    if (seat->ranks)
        RT_TRY(rt_ranks_cut(seat->ranks, &config, &seat->error));
    if (seat->bench->change)
        seat->bench->change(seat, &p);
    RT_TRY(rt_weights_create(&config, &weights, &seat->error));
    enum rt_status status = bind(seat, &config, weights, &seat->error);
    p.weights = weights;
    if (status == RT_OK)
        status = rt_create(&p, &seat->rt, &seat->error);
    rt_weights_destroy(&weights);
    for (uint32_t i = 0; status == RT_OK && i < RANKS_ROWS; i++)
        status = rt_seq_open(seat->rt, NULL, &seat->seqs[i]);
    return status;
}

enum rt_status rank_open(struct rank_seat *seat)
{
    const struct rank_bench *const b = seat->bench;
    const struct rt_ranks_params p = {.struct_size = sizeof(p),
                                      .rank = seat->rank,
                                      .ranks = b->ranks,
                                      .timeout_ms = b->timeout_ms,
                                      .path = b->path};
    RT_TRY(rt_ranks_create(&p, &seat->ranks, &seat->error));
    return create(seat);
}

void rank_close(struct rank_seat *seat)
{
    rt_destroy(&seat->rt);
    rt_ranks_destroy(&seat->ranks);
}

enum rt_status rank_told(struct rank_seat *seat, enum rt_status status)
{
    if (status != RT_OK)
        seat->error = *rt_last_error(seat->rt);
    return status;
}

enum rt_status rank_step(struct rank_seat *seat, uint32_t rows, uint32_t flags)
{
    return rank_step_of(seat, rows, 1, flags);
}

enum rt_status rank_step_of(struct rank_seat *seat, uint32_t rows, uint32_t query_len,
                            uint32_t flags)
{
    static const int32_t tokens[RANKS_TOKENS]; /* which no stage looks at */
    uint64_t ticket;
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = flags,
                                     .rows = rows,
                                     .query_len = query_len,
                                     .seqs = seat->seqs,
                                     .tokens = tokens,
                                     .idle_batch = rows ? 0 : RANKS_ROWS};
    RT_TRY(rank_told(seat, rt_step(seat->rt, &p, &ticket)));
    RT_TRY(rank_told(seat, rt_wait(seat->rt, ticket, UINT64_MAX)));
    seat->step++;
    return RT_OK;
}

struct job {
    struct rank_seat *seat;
    rank_fn fn;
};

static void *work(void *user)
{
    const struct job *const job = user;
    job->seat->status = rank_open(job->seat);
    if (job->seat->status == RT_OK)
        job->seat->status = job->fn(job->seat);
    rank_close(job->seat);
    return NULL;
}

void rank_bench_open(struct rank_bench *b, uint32_t ranks, enum rt_precision precision)
{
    struct rt_config config;
    block_config(&config);
    config.geometry.heads = RANKS_HEADS;
    config.precision = precision;
    rank_bench_open_as(b, ranks, &config);
}

void rank_bench_open_as(struct rank_bench *b, uint32_t ranks, const struct rt_config *config)
{
    struct rt_config mine = *config;
    *b = (struct rank_bench){.ranks = ranks, .timeout_ms = TIMEOUT_MS, .steps = RANKS_STEPS};
    (void)snprintf(b->path, sizeof(b->path), "ranks.%ld.group", (long)getpid());
    (void)snprintf(mine.device, sizeof(mine.device), "host");
    block_open(&b->blocks, &mine, 7);
}

void rank_bench_close(struct rank_bench *b)
{
    block_close(&b->blocks);
}

void rank_bench_run(struct rank_bench *b, rank_fn fn)
{
    pthread_t threads[RANKS_MOST];
    struct job jobs[RANKS_MOST];
    for (uint32_t r = 0; r < b->ranks; r++) {
        b->seats[r] = (struct rank_seat){.bench = b, .rank = r};
        jobs[r] = (struct job){.seat = &b->seats[r], .fn = fn};
        assert_int_equal(pthread_create(&threads[r], NULL, work, &jobs[r]), 0);
    }
    for (uint32_t r = 0; r < b->ranks; r++)
        assert_int_equal(pthread_join(threads[r], NULL), 0);
}

void rank_bench_alone(struct rank_bench *b, rank_fn fn, struct rank_seat *seat)
{
    *seat = (struct rank_seat){.bench = b};
    if (create(seat) != RT_OK || fn(seat) != RT_OK)
        fail_msg("alone: %s", seat->error.message);
    rank_close(seat);
}

double rank_distance(const struct rank_seat *a, const struct rank_seat *b)
{
    const float *const x = &a->out[0][0][0][0], *const y = &b->out[0][0][0][0];
    double apart = 0, length = 0;
    for (size_t i = 0; i < sizeof(rank_outputs) / sizeof(float); i++) {
        apart += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        length += (double)y[i] * (double)y[i];
    }
    assert_true(length > 0);
    return sqrt(apart / length);
}

void rank_bench_all_well(const struct rank_bench *b)
{
    for (uint32_t r = 0; r < b->ranks; r++)
        if (b->seats[r].status != RT_OK)
            fail_msg("rank %u of %u: %d %s", r, b->ranks, (int)b->seats[r].status,
                     b->seats[r].error.message);
}

void rank_bench_failed(const struct rank_bench *b, uint32_t rank, enum rt_status status,
                       const char *part)
{
    const struct rank_seat *const s = &b->seats[rank];
    if (s->status != status || !strstr(s->error.message, part))
        fail_msg("rank %u: %d \"%s\", expected %d and \"%s\" in it", rank, (int)s->status,
                 s->error.message, (int)status, part);
}

/* ---- calls that fail ------------------------------------------------------------------------- */

#define MOST_CALLS 64u

void rank_fail_call(struct rank_seat *seat)
{
    if (seat->rank == 1)
        seat->ranks->comm.probe.fail_at = seat->ranks->comm.probe.calls + seat->bench->failing;
}

uint32_t rank_bench_fail_each(struct rank_bench *b, rank_fn fn)
{
    for (b->failing = 1; b->failing < MOST_CALLS; b->failing++) {
        rank_bench_run(b, fn);
        if (b->seats[1].status == RT_OK)
            break;
        rank_bench_failed(b, 1, RT_ERR_RANKS, "failed: injected failure");
        rank_bench_failed(b, 0, RT_ERR_RANKS, "injected failure");
    }
    rank_bench_all_well(b);
    return (uint32_t)b->failing - 1;
}
