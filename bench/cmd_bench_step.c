/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replayrt bench step: what one step costs. Three numbers per graph:
 *   host     rt_step against a bare launch of the same graph, alternating with waits, medians
 *   GPU      step_begin's start to step_end's end, from the device's clock
 *   gap      last attention of a step to the first of the next, with the host a step ahead; where
 *            blocks are one kernel each, from one graph to the next alone
 *
 * Of ranks all measure the same steps, whose exchanges bind them to each other: how far apart their
 * launches are besides.
 */
#include "bench/bare_launch.h"
#include "bench/bench_ranks.h"
#include "bench/bench_rows.h"
#include "common/check.h"
#include "runtime/ranks_impl.h"
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/json.h"
#include "tools/options.h"
#include "tools/random_weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP 20
#define SEED 1
/* Keeps differences positive while they are sorted: a second. */
#define OVER_BIAS_NS 1000000000u

struct numbers {
    uint32_t batch, query_len, nodes;
    uint64_t bare_ns, step_ns, step_p99_ns; /* on an idle stream */
    int64_t over_ns;                        /* median difference of the two, pair by pair */
    uint64_t ahead_ns;                      /* rt_step while the device is a step behind */
    uint64_t gpu_ns, gap_ns, gap_p99_ns;
    bool has_attention;              /* stages of it, whose clocks a gap begins and ends with */
    uint64_t gap_part_ns[3];         /* to step_end's completion, to the next graph, to attention */
    uint64_t start_ns, start_p99_ns; /* between the first and the last rank's launch of a step */
    uint64_t graph_bytes, capture_ns;
};

struct bench {
    rt_runtime *rt;
    struct bench_ranks ranks;
    struct random_weights weights; /* of blocks */
    struct bench_rows rows;
    uint64_t *host_ns, *gpu_ns, *gap_ns, *gap_part_ns[3], *start_ns;
    uint32_t steps;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Sorts, so that the caller may ask for several. */
static uint64_t percentile(uint64_t *values, uint32_t count, uint32_t percent)
{
    qsort(values, count, sizeof(*values), by_value);
    return values[(uint64_t)(count - 1) * percent / 100];
}

/* Behind a rewind a step names its tokens; later ones leave them to the slots, as a decode loop
 * does whose tokens stay on the device. */
static enum rt_status one_step(struct bench *b, const struct numbers *n, bool is_first,
                               uint64_t *ticket, uint64_t *ns)
{
    struct rt_step_params p = bench_rows_params(&b->rows, n->batch, n->query_len);
    p.tokens = is_first ? p.tokens : NULL;
    uint64_t begin = now_ns();
    enum rt_status status = rt_step(b->rt, &p, ticket);
    *ns = now_ns() - begin;
    return status;
}

/*
 * Each step waited for, and a bare launch of the same graph after it, also waited for: both find an
 * idle stream and the caches as a decode loop leaves them, and a slow moment of the machine meets
 * both. `over` is the median of the pairs' differences.
 */
static enum rt_status measure_host(struct bench *b, struct numbers *n)
{
    enum rt_status status = bench_rows_rewind(&b->rows, n->batch);
    for (uint32_t i = 0; i < WARM_UP + b->steps && status == RT_OK; i++) {
        uint64_t ticket, step_ns, bare_ns = 0;
        status = one_step(b, n, i == 0, &ticket, &step_ns);
        if (status == RT_OK)
            status = rt_synchronize(b->rt);
        if (status == RT_OK)
            status = bare_launch(b->rt, n->batch, n->query_len, &bare_ns);
        if (i < WARM_UP)
            continue;
        b->host_ns[i - WARM_UP] = step_ns;
        b->gpu_ns[i - WARM_UP] = bare_ns;
        b->gap_ns[i - WARM_UP] = OVER_BIAS_NS + step_ns - bare_ns;
    }
    if (status != RT_OK)
        return status;
    n->step_ns = percentile(b->host_ns, b->steps, 50);
    n->step_p99_ns = percentile(b->host_ns, b->steps, 99);
    n->bare_ns = percentile(b->gpu_ns, b->steps, 50);
    n->over_ns = (int64_t)(percentile(b->gap_ns, b->steps, 50) - OVER_BIAS_NS);
    return RT_OK;
}

static void keep(struct bench *b, uint32_t i, uint64_t host_ns, const struct rt_stats *stats)
{
    b->host_ns[i] = host_ns;
    b->gpu_ns[i] = stats->gpu_ns_last;
    b->gap_ns[i] = stats->gap_ns_last;
    b->gap_part_ns[0][i] = stats->gap_end_ns;
    b->gap_part_ns[1][i] = stats->gap_graph_ns;
    b->gap_part_ns[2][i] = stats->gap_begin_ns;
}

/* The host one step ahead: the next record waits in the ring before the device needs it. */
static enum rt_status measure_back_to_back(struct bench *b, struct numbers *n)
{
    uint64_t tickets[2], ns, gaps = 0;
    enum rt_status status = bench_rows_rewind(&b->rows, n->batch);
    if (status == RT_OK)
        status = one_step(b, n, true, &tickets[0], &ns);
    for (uint32_t i = 1; i <= WARM_UP + b->steps && status == RT_OK; i++) {
        status = one_step(b, n, false, &tickets[i % 2], &ns);
        if (i > WARM_UP)
            b->start_ns[i - WARM_UP - 1] = now_ns();
        if (status == RT_OK)
            status = rt_wait(b->rt, tickets[(i + 1) % 2], UINT64_MAX);
        struct rt_stats stats = {.struct_size = sizeof(stats)};
        if (status == RT_OK)
            status = rt_get_stats(b->rt, &stats);
        if (i > WARM_UP)
            keep(b, i - WARM_UP - 1, ns, &stats);
        if (i == WARM_UP)
            gaps = stats.gap_steps;
        n->has_attention = stats.gap_steps > gaps;
    }
    if (status == RT_OK && b->ranks.group)
        status = bench_ranks_spread(b->rt, b->start_ns, b->steps);
    if (status == RT_OK)
        status = rt_wait(b->rt, tickets[(WARM_UP + b->steps) % 2], UINT64_MAX);
    n->ahead_ns = percentile(b->host_ns, b->steps, 50);
    n->gpu_ns = percentile(b->gpu_ns, b->steps, 50);
    for (int part = 0; part < 3; part++)
        n->gap_part_ns[part] = percentile(b->gap_part_ns[part], b->steps, 50);
    n->gap_ns = percentile(b->gap_ns, b->steps, 50);
    n->gap_p99_ns = percentile(b->gap_ns, b->steps, 99);
    n->start_ns = percentile(b->start_ns, b->steps, 50);
    n->start_p99_ns = percentile(b->start_ns, b->steps, 99);
    return status;
}

static enum rt_status measure(struct bench *b, uint32_t index, struct numbers *n)
{
    struct rt_bucket_stats stats = {.struct_size = sizeof(stats)};
    enum rt_status status = rt_get_bucket_stats(b->rt, index, &stats);
    *n = (struct numbers){.batch = stats.batch,
                          .query_len = stats.query_len,
                          .nodes = stats.nodes,
                          .graph_bytes = stats.graph_bytes,
                          .capture_ns = stats.capture_ns};
    if (status == RT_OK)
        status = measure_host(b, n);
    if (status == RT_OK)
        status = measure_back_to_back(b, n);
    return status;
}

/* ---- output
 * ----------------------------------------------------------------------------------------- */

/* Whether this rank has other ranks' memory mapped, and why not. */
static const char *peers_of(const struct bench *b)
{
    const struct rt_peers *const peers = &b->rt->ranks->comm.peers;
    return peers->mapped ? "mapped" : peers->why[0] ? peers->why : "not mapped";
}

static void print_head(const struct bench *b, const struct rt_info *info)
{
    printf("device %s; sequences of %u tokens%s; medians\n", info->device, b->rows.length,
           b->rows.query_lens ? ", ragged rows" : "");
    if (b->ranks.group)
        printf("rank 0 of %u; memory of the others: %s\n", b->ranks.crew.ranks, peers_of(b));
    printf("host ns: bare launch, rt_step, the difference, p99 of rt_step, rt_step a step ahead\n");
    printf("gap us: last attention to next first, p99; parts: to completion, to next graph, to "
           "attention\n");
    printf("%5s %2s %5s | %6s %6s %6s %6s %6s | %10s | %6s %6s = %5s %5s %5s | %6s\n", "batch", "q",
           "nodes", "bare", "step", "over", "p99", "ahead", "GPU us", "gap", "p99", "end", "graph",
           "begin", "build us");
}

static double us(uint64_t ns)
{
    return (double)ns / 1e3;
}

static void print_row(const struct numbers *n, bool of_ranks)
{
    char gap[48];
    if (n->has_attention)
        (void)snprintf(gap, sizeof(gap), "%6.2f %6.2f = %5.2f %5.2f %5.2f", us(n->gap_ns),
                       us(n->gap_p99_ns), us(n->gap_part_ns[0]), us(n->gap_part_ns[1]),
                       us(n->gap_part_ns[2]));
    else
        (void)snprintf(gap, sizeof(gap), "%6s %6s = %5s %5.2f %5s", "-", "-", "-",
                       us(n->gap_part_ns[1]), "-");
    printf("%5u %2u %5u | %6" PRIu64 " %6" PRIu64 " %6" PRId64 " %6" PRIu64 " %6" PRIu64
           " | %10.2f | %s | %6" PRIu64 "\n",
           n->batch, n->query_len, n->nodes, n->bare_ns, n->step_ns, n->over_ns, n->step_p99_ns,
           n->ahead_ns, us(n->gpu_ns), gap, n->capture_ns / 1000);
    if (of_ranks)
        printf("%*sranks launch a step within %.2f us of each other, p99 %.2f\n", 17, "",
               us(n->start_ns), us(n->start_p99_ns));
}

static void json_row(cJSON *graphs, const struct numbers *n, bool of_ranks)
{
    cJSON *j = json_element(graphs);
    json_uint(j, "batch", n->batch);
    json_uint(j, "query_len", n->query_len);
    json_uint(j, "nodes", n->nodes);
    json_uint(j, "bare_launch_ns", n->bare_ns);
    json_uint(j, "rt_step_ns", n->step_ns);
    cJSON_AddNumberToObject(j, "rt_step_over_ns", (double)n->over_ns);
    json_uint(j, "rt_step_p99_ns", n->step_p99_ns);
    json_uint(j, "rt_step_ahead_ns", n->ahead_ns);
    json_uint(j, "gpu_ns", n->gpu_ns);
    json_uint(j, "gap_graph_ns", n->gap_part_ns[1]);
    if (n->has_attention) {
        json_uint(j, "gap_ns", n->gap_ns);
        json_uint(j, "gap_p99_ns", n->gap_p99_ns);
        json_uint(j, "gap_end_ns", n->gap_part_ns[0]);
        json_uint(j, "gap_begin_ns", n->gap_part_ns[2]);
    }
    json_uint(j, "graph_bytes", n->graph_bytes);
    json_uint(j, "capture_ns", n->capture_ns);
    if (of_ranks) {
        json_uint(j, "start_spread_ns", n->start_ns);
        json_uint(j, "start_spread_p99_ns", n->start_p99_ns);
    }
}

/* ---- set-up
 * ----------------------------------------------------------------------------------------- */

/* Finite values everywhere; blocks make the queries and latents of their own. */
static enum rt_status fill_all(rt_runtime *rt, const struct rt_config *config)
{
    const char *const names[] = {"kv", "q", "latent"};
    enum rt_status status = RT_OK;
    for (int n = 0; n < (config->layer ? 1 : 3); n++)
        for (uint32_t layer = 0; layer < config->geometry.layers && status == RT_OK; layer++)
            status = bench_fill(rt, names[n], layer);
    return status;
}

static void progress(void *user, uint32_t done, uint32_t total)
{
    (void)user;
    fprintf(stderr, "\rcaptured %u of %u graphs%s", done, total, done == total ? "\n" : "");
}

static enum rt_status set_up(struct bench *b, const struct rt_config *config,
                             const struct bench_choice *choice, struct rt_error *error)
{
    if (config->layer)
        RT_TRY(random_weights_create(config, SEED, b->ranks.crew.rank, &b->weights, error));
    const bool tells = b->ranks.crew.rank == 0;
    const struct rt_create_params params = {.struct_size = sizeof(params),
                                            .config = config,
                                            .weights = b->weights.table,
                                            .ranks = b->ranks.group,
                                            .progress =
                                                tells && isatty(STDERR_FILENO) ? progress : NULL};
    RT_TRY(rt_create(&params, &b->rt, error));
    b->host_ns = calloc(b->steps, sizeof(*b->host_ns));
    b->gpu_ns = calloc(b->steps, sizeof(*b->gpu_ns));
    b->gap_ns = calloc(b->steps, sizeof(*b->gap_ns));
    b->start_ns = calloc(b->steps, sizeof(*b->start_ns));
    bool room = b->host_ns && b->gpu_ns && b->gap_ns && b->start_ns;
    for (int part = 0; part < 3; part++) {
        b->gap_part_ns[part] = calloc(b->steps, sizeof(*b->gap_part_ns[part]));
        room &= b->gap_part_ns[part] != NULL;
    }
    if (!room)
        return RT_ERR_NOMEM;
    RT_TRY(fill_all(b->rt, config));
    return bench_rows_open(&b->rows, b->rt, config, choice);
}

/* The document's head; the rows go into its graphs. */
static cJSON *json_head(const struct bench *b, const struct rt_config *config,
                        const struct rt_info *info)
{
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "device", info->device);
    json_uint(j, "layers", config->geometry.layers);
    json_uint(j, "heads", config->geometry.heads);
    json_uint(j, "length", b->rows.length);
    cJSON_AddBoolToObject(j, "ragged", b->rows.query_lens != NULL);
    json_uint(j, "graph_bytes", info->graph_bytes);
    json_uint(j, "capture_ns", info->capture_ns);
    if (b->ranks.group) {
        json_uint(j, "ranks", b->ranks.crew.ranks);
        cJSON_AddStringToObject(j, "peers", peers_of(b));
    }
    cJSON_AddArrayToObject(j, "graphs");
    return j;
}

/* Rows into the document, or where there is none to people. */
static enum rt_status measure_all(struct bench *b, const struct rt_config *config,
                                  const struct bench_choice *choice, cJSON *document)
{
    for (uint32_t i = 0; i < config->batch_size_count * config->query_len_count; i++) {
        uint32_t batch = config->batch_sizes[i / config->query_len_count];
        uint32_t query_len = config->query_lens[i % config->query_len_count];
        struct numbers n;
        if (!bench_chosen(choice, batch, query_len))
            continue;
        enum rt_status status = measure(b, i, &n);
        if (status != RT_OK)
            return status;
        const bool of_ranks = b->ranks.group != NULL;
        if (document)
            json_row(cJSON_GetObjectItemCaseSensitive(document, "graphs"), &n, of_ranks);
        else if (b->ranks.crew.rank == 0)
            print_row(&n, of_ranks);
    }
    return RT_OK;
}

/* All ranks measure, the first one tells. */
static enum rt_status run(struct bench *b, const struct rt_config *config,
                          const struct bench_choice *choice)
{
    const bool tells = b->ranks.crew.rank == 0;
    struct rt_info info = {.struct_size = sizeof(info)};
    RT_TRY(rt_get_info(b->rt, &info));
    cJSON *document = choice->json ? json_head(b, config, &info) : NULL;
    if (!document && tells)
        print_head(b, &info);
    const enum rt_status status = measure_all(b, config, choice, document);
    if (document)
        json_end(document, tells, stdout);
    else if (tells)
        printf("all graphs: %" PRIu64 " KiB of device memory, captured in %.1f ms\n",
               info.graph_bytes >> 10, (double)info.capture_ns / 1e6);
    return status;
}

static void free_all(struct bench *b)
{
    rt_destroy(&b->rt);
    random_weights_destroy(&b->weights);
    for (int part = 0; part < 3; part++)
        free(b->gap_part_ns[part]);
    free(b->start_ns);
    free(b->gap_ns);
    free(b->gpu_ns);
    free(b->host_ns);
    bench_rows_free(&b->rows);
}

static enum rt_status bench(struct bench *b, struct rt_config *config,
                            const struct bench_choice *choice, struct rt_error *error)
{
    RT_TRY(set_up(b, config, choice, error));
    RT_TRY(rt_thread_enter(b->rt));
    const enum rt_status status = run(b, config, choice);
    (void)rt_thread_leave(b->rt);
    return status;
}

struct step_options {
    uint64_t ranks; /* 0: none, the command is all there is */
    const char *device, *path;
};

static enum rt_status load(const struct step_options *o, struct rt_config *config,
                           struct rt_error *error)
{
    RT_TRY(rt_config_load(o->path, config, error));
    if (o->device)
        (void)snprintf(config->device, sizeof(config->device), "%s", o->device);
    return RT_OK;
}

/* What the command line asks of the configuration: an exit code. */
static int begin(struct bench *b, const struct step_options *o, struct rt_config *config,
                 struct bench_choice *choice)
{
    if (!bench_fit(config, choice, WARM_UP + choice->steps + 2))
        return EXIT_USAGE;
    if (!o->ranks)
        return EXIT_OK;
    if (!config->layer) {
        complain("%s: --ranks wants layer: true, whose blocks exchange something", o->path);
        return EXIT_USAGE;
    }
    return rank_crew_begin((uint32_t)o->ranks, config->device, config, &b->ranks.crew);
}

int cmd_bench_step(int argc, char **argv)
{
    struct bench_choice choice = {.length = 4096, .steps = 200};
    struct step_options o = {.ranks = 0};
    const struct option options[] = {
        {"--batch", OPTION_NUMBER, &choice.batch, 1, RT_MAX_BATCH},
        {"--query-len", OPTION_NUMBER, &choice.query_len, 1, RT_MAX_QUERY_LEN},
        {"--length", OPTION_NUMBER, &choice.length, 0, RT_MAX_LENGTH},
        {"--steps", OPTION_NUMBER, &choice.steps, 1, 100000},
        {"--ranks", OPTION_NUMBER, &o.ranks, 1, RANK_CREW_MOST},
        {"--device", OPTION_DEVICE, &o.device, 0, 0},
        {"--ragged", OPTION_FLAG, &choice.ragged, 0, 0},
        {"--json", OPTION_FLAG, &choice.json, 0, 0},
    };
    if (!options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), &o.path))
        return EXIT_USAGE;
    struct rt_config config;
    struct rt_error error = {0};
    struct bench b = {.steps = (uint32_t)choice.steps};
    enum rt_status status = load(&o, &config, &error);
    const int code = status == RT_OK ? begin(&b, &o, &config, &choice) : EXIT_OK;
    if (code != EXIT_OK)
        return bench_ranks_end(&b.ranks, code);
    if (status == RT_OK)
        status = bench_ranks_join(&b.ranks, &config, &error);
    if (status == RT_OK)
        status = bench(&b, &config, &choice, &error);
    if (status != RT_OK)
        complain_failure(status, b.rt ? rt_last_error(b.rt)->message : error.message);
    free_all(&b);
    return bench_ranks_end(&b.ranks, status == RT_OK ? EXIT_OK : EXIT_FAILED);
}
