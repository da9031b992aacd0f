/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replayrt bench layer: what a whole MLA block costs. For every captured graph: a step's time a
 * layer, and each of the layer's stages by itself; then, if asked, all of it with every product by
 * the library. Weights are random, every layer has its own, and KV of its own. Of ranks all measure
 * the same step, whose exchanges bind them to each other, and the first one tells.
 */
#include "bench/bench_ranks.h"
#include "bench/bench_rows.h"
#include "bench/layer_report.h"
#include "bench/measure.h"
#include "common/check.h"
#include "runtime/runtime.h"
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/options.h"
#include "tools/random_weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARM_UP 20
#define SEED 1

struct layer_bench {
    struct rt_config config;
    struct bench_choice choice;
    struct random_weights weights;
    struct layer_report report;
    struct bench_ranks ranks;
    rt_runtime *rt; /* of one run */
    struct bench_rows rows;
    uint64_t *ns;             /* [steps] */
    unsigned char *hidden[2]; /* what a replay left, and an eager step */
    struct rt_error error;
};

/* ---- a step ---------------------------------------------------------------------------------- */

static enum rt_status begin_step(const struct layer_bench *b, const struct layer_row *row,
                                 uint32_t flags, uint64_t *ticket)
{
    struct rt_step_params p = bench_rows_params(&b->rows, row->batch, row->query_len);
    p.flags = flags;
    return rt_step(b->rt, &p, ticket);
}

/* Of sequences at their first length, with the first layer's input as it always is. */
static enum rt_status fresh_step(const struct layer_bench *b, const struct layer_row *row,
                                 uint32_t flags)
{
    uint64_t ticket;
    RT_TRY(bench_rows_rewind(&b->rows, row->batch));
    RT_TRY(bench_fill(b->rt, "hidden", 0));
    RT_TRY(begin_step(b, row, flags, &ticket));
    return rt_wait(b->rt, ticket, UINT64_MAX);
}

/* ---- correctness ----------------------------------------------------------------------------- */

/* The last layer's hidden, replayed and eager. */
static enum rt_status check(struct layer_bench *b, struct layer_row *row)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    RT_TRY(rt_tensor(b->rt, "hidden", 0, &t));
    const uint64_t bytes = t.bytes / (t.shape[0] * t.shape[1]) * row->batch * row->query_len;
    for (uint32_t side = 0; side < 2; side++) {
        unsigned char *hidden = realloc(b->hidden[side], bytes);
        RT_REQUIRE(hidden, &b->error, RT_ERR_NOMEM, "out of host memory for hidden");
        b->hidden[side] = hidden;
        RT_TRY(fresh_step(b, row, side ? RT_STEP_EAGER : 0));
        RT_TRY(rt_tensor_read(b->rt, "hidden", 0, 0, hidden, bytes));
    }
    RT_REQUIRE(memcmp(b->hidden[0], b->hidden[1], bytes) == 0, &b->error, RT_ERR_INTERNAL,
               "batch %u, query length %u: hidden of replay and eager differ", row->batch,
               row->query_len);
    row->hidden_rms = bench_rms(b->hidden[0], bytes, t.dtype);
    RT_REQUIRE(isfinite(row->hidden_rms), &b->error, RT_ERR_INTERNAL,
               "batch %u, query length %u: hidden is not finite", row->batch, row->query_len);
    return RT_OK;
}

/* ---- time ------------------------------------------------------------------------------------ */

/* The host one step ahead, so that the device never waits for it. */
static enum rt_status measure_step(struct layer_bench *b, struct layer_row *row)
{
    const uint32_t steps = (uint32_t)b->choice.steps;
    struct rt_stats stats = {.struct_size = sizeof(stats)};
    uint64_t tickets[2];
    RT_TRY(bench_rows_rewind(&b->rows, row->batch));
    RT_TRY(begin_step(b, row, 0, &tickets[0]));
    for (uint32_t i = 1; i <= WARM_UP + steps; i++) {
        RT_TRY(begin_step(b, row, 0, &tickets[i % 2]));
        RT_TRY(rt_wait(b->rt, tickets[(i + 1) % 2], UINT64_MAX));
        RT_TRY(rt_get_stats(b->rt, &stats));
        if (i > WARM_UP)
            b->ns[i - WARM_UP - 1] = stats.gpu_ns_last;
    }
    RT_TRY(rt_wait(b->rt, tickets[(WARM_UP + steps) % 2], UINT64_MAX));
    row->step_ns = bench_median(b->ns, steps);
    return RT_OK;
}

static enum rt_status measure_graph(struct layer_bench *b, struct layer_row *row)
{
    const uint64_t steps = b->choice.steps;
    RT_TRY(check(b, row));
    RT_TRY(measure_step(b, row));
    if (b->ranks.group) /* one's stages by themselves would wait for the others' */
        return RT_OK;
    RT_TRY(fresh_step(b, row, 0)); /* the stages find its rows */
    return layer_stages_measure(
        b->rt,
        layer_graph_of_step(b->rt, row->batch, row->query_len, b->rows.length + row->query_len),
        steps < RT_MEASURE_MAX_REPLAYS ? (uint32_t)steps : RT_MEASURE_MAX_REPLAYS, &row->stages);
}

static enum rt_status measure_graphs(struct layer_bench *b)
{
    const struct rt_config *c = &b->config;
    const uint32_t query_len = (uint32_t)b->choice.query_len;
    for (uint32_t i = 0; i < c->batch_size_count; i++) {
        struct layer_row row = {
            .batch = c->batch_sizes[i], .query_len = query_len, .layers = c->geometry.layers};
        if (!bench_chosen(&b->choice, row.batch, query_len))
            continue;
        RT_TRY(measure_graph(b, &row));
        if (b->ranks.crew.rank == 0)
            layer_report_row(&b->report, &row);
    }
    return RT_OK;
}

/* ---- runs ------------------------------------------------------------------------------------ */

/* KV of the past too, which nobody has written. */
static enum rt_status measure_runtime(struct layer_bench *b)
{
    for (uint32_t layer = 0; layer < b->config.geometry.layers; layer++)
        RT_TRY(bench_fill(b->rt, "kv", layer));
    RT_TRY(bench_rows_open(&b->rows, b->rt, &b->config, &b->choice));
    RT_TRY(rt_thread_enter(b->rt));
    const enum rt_status status = measure_graphs(b);
    (void)rt_thread_leave(b->rt);
    return status;
}

/* A runtime of that way to multiply, from its creation to its end. */
static enum rt_status run(struct layer_bench *b, enum rt_projections projections, bool first)
{
    struct rt_config config = b->config;
    const struct rt_create_params params = {.struct_size = sizeof(params),
                                            .config = &config,
                                            .weights = b->weights.table,
                                            .ranks = b->ranks.group};
    const bool tells = b->ranks.crew.rank == 0;
    config.projections = projections;
    enum rt_status status = rt_create(&params, &b->rt, &b->error);
    if (status == RT_OK && first) {
        b->report.device.struct_size = sizeof(b->report.device);
        status = rt_get_info(b->rt, &b->report.device);
        b->report.sums = b->ranks.group ? &b->rt->sums : NULL;
        if (tells)
            layer_report_head(&b->report);
        b->report.sums = NULL; /* they end with the runtime */
    }
    if ((status == RT_OK || !first) && tells)
        layer_report_begin(&b->report, projections);
    if (!first && status == RT_ERR_UNSUPPORTED) {
        layer_report_skip(&b->report, b->error.message);
        return RT_OK;
    }
    if (status == RT_OK)
        status = measure_runtime(b);
    if (status != RT_OK && b->rt && b->error.status == RT_OK)
        b->error = *rt_last_error(b->rt);
    rt_destroy(&b->rt);
    bench_rows_free(&b->rows);
    return status;
}

static enum rt_status run_all(struct layer_bench *b, bool versus_library)
{
    b->ns = calloc(b->choice.steps, sizeof(*b->ns));
    RT_REQUIRE(b->ns, &b->error, RT_ERR_NOMEM, "out of host memory for %u steps",
               (uint32_t)b->choice.steps);
    RT_TRY(random_weights_create(&b->config, SEED, b->ranks.crew.rank, &b->weights, &b->error));
    b->report.config = b->config;
    b->report.weight_bytes = b->weights.bytes;
    b->report.length = (uint32_t)b->choice.length;
    RT_TRY(run(b, b->config.projections, true));
    return versus_library ? run(b, RT_PROJECTIONS_CUBLASLT, false) : RT_OK;
}

/* ---- the command line ------------------------------------------------------------------------ */

struct layer_options {
    uint64_t heads, layers, context; /* 0: as configured */
    uint64_t ranks;                  /* 0: none, the command is all there is */
    const char *device, *path;
    bool versus_library, no_block;
};

static bool read_options(int argc, char **argv, struct bench_choice *choice,
                         struct layer_options *o)
{
    const struct option options[] = {
        {"--batch", OPTION_NUMBER, &choice->batch, 1, RT_MAX_BATCH},
        {"--query-len", OPTION_NUMBER, &choice->query_len, 1, RT_MAX_QUERY_LEN},
        {"--length", OPTION_NUMBER, &choice->length, 0, RT_MAX_LENGTH},
        {"--steps", OPTION_NUMBER, &choice->steps, 1, 100000},
        {"--heads", OPTION_NUMBER, &o->heads, 1, RT_MAX_HEADS},
        {"--layers", OPTION_NUMBER, &o->layers, 1, RT_MAX_LAYERS},
        {"--ranks", OPTION_NUMBER, &o->ranks, 1, RANK_CREW_MOST},
        {"--context", OPTION_NUMBER, &o->context, 1, RT_MAX_CONTEXT_RANKS},
        {"--versus-library", OPTION_FLAG, &o->versus_library, 0, 0},
        {"--no-block", OPTION_FLAG, &o->no_block, 0, 0},
        {"--device", OPTION_DEVICE, &o->device, 0, 0},
        {"--json", OPTION_FLAG, &choice->json, 0, 0},
    };
    if (!options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), &o->path))
        return false;
    if (o->ranks && o->versus_library)
        complain("--versus-library with --ranks: stages and libraries are compared on one rank");
    return !o->ranks || !o->versus_library;
}

static enum rt_status load(struct layer_bench *b, const struct layer_options *o)
{
    struct rt_config *c = &b->config;
    RT_TRY(rt_config_load(o->path, c, &b->error));
    if (o->heads)
        c->geometry.heads = (uint32_t)o->heads;
    if (o->layers)
        c->geometry.layers = (uint32_t)o->layers;
    if (o->context)
        c->context_parallel = (uint32_t)o->context;
    if (o->no_block)
        c->split_blocks = 1;
    if (o->device)
        (void)snprintf(c->device, sizeof(c->device), "%s", o->device);
    return RT_OK;
}

/* What the command line asks of the configuration: an exit code. */
static int begin(struct layer_bench *b, const struct layer_options *o)
{
    if (!b->config.layer) {
        complain("%s: bench layer measures layer: true alone", o->path);
        return EXIT_USAGE;
    }
    if (!o->ranks)
        return EXIT_OK;
    return rank_crew_begin((uint32_t)o->ranks, b->config.device, &b->config, &b->ranks.crew);
}

static int bench(struct layer_bench *b, int argc, char **argv)
{
    struct layer_options options = {.heads = 0};
    b->choice = (struct bench_choice){.length = 4096, .steps = 100};
    if (!read_options(argc, argv, &b->choice, &options))
        return EXIT_USAGE;
    enum rt_status status = load(b, &options);
    const int code = status == RT_OK ? begin(b, &options) : EXIT_OK;
    if (code != EXIT_OK)
        return code;
    if (status == RT_OK)
        status = bench_ranks_join(&b->ranks, &b->config, &b->error);
    if (status == RT_OK) {
        if (!bench_fit(&b->config, &b->choice, WARM_UP + b->choice.steps + 2))
            return EXIT_USAGE;
        b->report.json = b->choice.json ? cJSON_CreateObject() : NULL;
        status = run_all(b, options.versus_library);
        layer_report_end(&b->report);
    }
    if (status == RT_OK)
        return EXIT_OK;
    complain_failure(status, b->error.message);
    return EXIT_FAILED;
}

int cmd_bench_layer(int argc, char **argv)
{
    struct layer_bench *b = calloc(1, sizeof(*b));
    if (!b) {
        complain("out of host memory");
        return EXIT_FAILED;
    }
    int code = bench(b, argc, argv);
    random_weights_destroy(&b->weights);
    code = bench_ranks_end(&b->ranks, code);
    free(b->hidden[0]);
    free(b->hidden[1]);
    free(b->ns);
    free(b);
    return code;
}
