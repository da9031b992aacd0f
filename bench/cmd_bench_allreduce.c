/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replayrt bench allreduce: what the sum behind o_proj costs, by its size. Every size is a graph of
 * a chain of exchanges, as a step has one a layer; its replays are timed by the device's events on
 * rank 0, and the calls that launch them by its clock, for where others' memory is mapped they were
 * seen to cost more. Before that one exchange is checked, number by number. By the communicator,
 * and where it serves by the one-shot kernel.
 */
#include "common/bf16.h"
#include "graphs/program.h"
#include "runtime/one_shot.h"
#include "runtime/sum_time.h"
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/json.h"
#include "tools/options.h"
#include "tools/rank_crew.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARM_UP 10u /* replays before those that count; one on the host device, which is slow */
#define LIMIT_NS UINT64_C(30000000000)
#define DEVICE_BYTES 32

static const uint64_t sizes[] = {4096, 8192, 16384, 32768, 65536, 262144, 1048576, 4194304};
#define SIZE_COUNT (sizeof(sizes) / sizeof(sizes[0]))
#define MOST_BYTES UINT64_C(4194304)

/* The median and the least of an exchange's time, and the median of the call that launches. */
struct sum_times {
    bool is_there;
    float median, least, launch;
};

enum sum_way { BY_COMM, BY_ONE_SHOT, WAYS };

struct sum_bench {
    const char *device;
    uint64_t ranks, steps;
    bool json;
    struct rank_crew crew;
    struct rt_driver d;
    struct rt_comm comm;
    rt_dstream stream;
    struct rt_kernels kernels;
    rt_addr memory;
    uint16_t *numbers;            /* [MOST_BYTES / 2] */
    char why[RT_PEERS_WHY_BYTES]; /* nothing goes in one shot; "": it does */
    float *us; /* [2, steps]: of an exchange, and of the call that launches a replay */
    struct sum_times times[SIZE_COUNT][WAYS];
    struct rt_error err;
};

/* ---- correctness ----------------------------------------------------------------------------- */

/* Whole numbers whose sums bf16 has: at most 64 ranks, 256. */
static float number(uint32_t rank, uint64_t i)
{
    return (float)((rank + i) % 4);
}

static enum rt_status check(struct sum_bench *b, const struct rt_collective *x,
                            const struct rt_work *work)
{
    struct rt_driver *const d = &b->d;
    const uint64_t bytes = x->count * sizeof(*b->numbers);
    for (uint64_t i = 0; i < x->count; i++)
        b->numbers[i] = rt_float_to_bf16(number(b->crew.rank, i));
    RT_TRY(RT_DRV(d, &b->err, copy_in, (d, b->memory, b->numbers, bytes, b->stream)));
    if (work->kind == RT_WORK_COLLECTIVE)
        RT_TRY(rt_comm_try(&b->comm, d, x, b->stream, &b->err));
    else
        RT_TRY(rt_work_put(work, d, false, b->stream, &b->err));
    RT_TRY(rt_comm_await(&b->comm, d, b->stream, true, &b->err));
    RT_TRY(RT_DRV(d, &b->err, copy_out, (d, b->numbers, b->memory, bytes, b->stream)));
    RT_TRY(RT_DRV(d, &b->err, stream_sync, (d, b->stream)));
    for (uint64_t i = 0; i < x->count; i++) {
        float sum = 0;
        for (uint32_t r = 0; r < b->crew.ranks; r++)
            sum += number(r, i);
        RT_REQUIRE(rt_bf16_to_float(b->numbers[i]) == sum, &b->err, RT_ERR_INTERNAL,
                   "a sum of %" PRIu64 " elements: element %" PRIu64 " is %g, expected %g",
                   x->count, i, (double)rt_bf16_to_float(b->numbers[i]), (double)sum);
    }
    /* Sums of sums would leave the numbers' range. */
    return RT_DRV(d, &b->err, fill, (d, b->memory, 0, bytes, b->stream));
}

/* ---- time ------------------------------------------------------------------------------------ */

static enum rt_status run_chain(struct sum_bench *b, const struct rt_work *work,
                                struct sum_times *to)
{
    const bool host = b->d.caps.kind == RT_DEVICE_KIND_HOST;
    const struct rt_sum_clock clock = {.d = &b->d,
                                       .comm = &b->comm,
                                       .stream = b->stream,
                                       .warm_up = host ? 1 : WARM_UP,
                                       .replays = (uint32_t)b->steps,
                                       .us = b->us,
                                       .launch_us = b->us + b->steps};
    RT_TRY(rt_sum_time(&clock, work, 1, &b->err));
    *to = (struct sum_times){.is_there = true,
                             .median = b->us[b->steps / 2],
                             .least = b->us[0],
                             .launch = b->us[b->steps + b->steps / 2]};
    return RT_OK;
}

/* ---- what it prints -------------------------------------------------------------------------- */

/* What each rank sends, and gets, of an exchange that sends no number twice. */
static double gb_per_second(const struct sum_bench *b, size_t i, enum sum_way way)
{
    const double share = 2.0 * (b->crew.ranks - 1) / b->crew.ranks;
    return share * (double)sizes[i] / (double)b->times[i][way].median / 1e3;
}

static void add_times(cJSON *to, const struct sum_bench *b, size_t i, enum sum_way way)
{
    const struct sum_times *const t = &b->times[i][way];
    (void)cJSON_AddNumberToObject(to, "us_median", (double)t->median);
    (void)cJSON_AddNumberToObject(to, "us_least", (double)t->least);
    (void)cJSON_AddNumberToObject(to, "us_launch", (double)t->launch);
    (void)cJSON_AddNumberToObject(to, "gb_per_second", gb_per_second(b, i, way));
}

static void print_json(const struct sum_bench *b)
{
    cJSON *const all = cJSON_CreateObject();
    json_text(all, "device", b->d.caps.name);
    json_uint(all, "ranks", b->crew.ranks);
    json_uint(all, "steps", b->steps);
    cJSON *const rows = cJSON_AddArrayToObject(all, "sizes");
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        cJSON *const row = json_element(rows);
        json_uint(row, "bytes", sizes[i]);
        add_times(row, b, i, BY_COMM);
        if (b->times[i][BY_ONE_SHOT].is_there)
            add_times(cJSON_AddObjectToObject(row, "one_shot"), b, i, BY_ONE_SHOT);
    }
    json_end(all, true, stdout);
}

static void print_times(const struct sum_bench *b, size_t i, enum sum_way way)
{
    const struct sum_times *const t = &b->times[i][way];
    if (t->is_there)
        printf(" %12.2f %12.2f %8.2f %12.2f", (double)t->median, (double)t->least,
               gb_per_second(b, i, way), (double)t->launch);
}

/* As soon as it is known: the next one may be where it stops. */
static void print_size(const struct sum_bench *b, size_t i)
{
    if (i == 0)
        printf("%" PRIu32 " ranks on %s, %u sums of bf16 a replay, %" PRIu64 " replays\n"
               "%10s %12s %12s %8s %12s   and where it serves, in one shot%s%s\n",
               b->crew.ranks, b->d.caps.name, RT_SUM_CHAIN, b->steps, "bytes", "us, median",
               "us, least", "GB/s", "us, launch", b->why[0] ? ": not here, " : "", b->why);
    printf("%10" PRIu64, sizes[i]);
    print_times(b, i, BY_COMM);
    print_times(b, i, BY_ONE_SHOT);
    printf("\n");
    (void)fflush(stdout);
}

/* ---- all sizes ------------------------------------------------------------------------------- */

static enum rt_status run_one_shot(struct sum_bench *b, const struct rt_collective *x, size_t i)
{
    char why[sizeof(b->why)];
    struct rt_work work;
    if (!rt_one_shot_serves(&b->comm, x, why, sizeof(why)))
        return RT_OK;
    RT_TRY(rt_one_shot_work(&b->kernels, x, &work, &b->err));
    RT_TRY(check(b, x, &work));
    return run_chain(b, &work, &b->times[i][BY_ONE_SHOT]);
}

static enum rt_status run_all(struct sum_bench *b)
{
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        const struct rt_collective x = {.kind = RT_ALL_REDUCE,
                                        .dtype = RT_DTYPE_BF16,
                                        .from = b->memory,
                                        .to = b->memory,
                                        .count = sizes[i] / sizeof(uint16_t),
                                        .ranks = b->crew.ranks,
                                        .comm = &b->comm};
        const struct rt_work library = {.kind = RT_WORK_COLLECTIVE, .collective = x};
        const uint32_t fields[RT_BOARD_FIELD_COUNT] = {[RT_BOARD_BUCKET] = (uint32_t)sizes[i]};
        RT_TRY(rt_comm_post(&b->comm, fields, &b->err));
        if (i == 0)
            (void)rt_one_shot_serves(&b->comm, &x, b->why, sizeof(b->why));
        RT_TRY(check(b, &x, &library));
        RT_TRY(run_chain(b, &library, &b->times[i][BY_COMM]));
        RT_TRY(run_one_shot(b, &x, i));
        if (b->crew.rank == 0 && !b->json)
            print_size(b, i);
    }
    return RT_OK;
}

/* ---- from begin to end ----------------------------------------------------------------------- */

static enum rt_status open_all(struct sum_bench *b)
{
    struct rt_driver *const d = &b->d;
    char device[DEVICE_BYTES] = "";
    rank_crew_device(&b->crew, device, sizeof(device));
    RT_TRY(rt_driver_open(b->device ? b->device : device, d, NULL, 0, &b->err));
    RT_TRY(RT_DRV(d, &b->err, ctx_enter, (d)));
    RT_TRY(RT_DRV(d, &b->err, stream_create, (d, &b->stream)));
    RT_TRY(RT_DRV(d, &b->err, mem_alloc, (d, MOST_BYTES, &b->memory)));
    b->numbers = malloc(MOST_BYTES / sizeof(*b->numbers) * sizeof(*b->numbers));
    b->us = calloc(2 * b->steps, sizeof(*b->us));
    RT_REQUIRE(b->numbers && b->us, &b->err, RT_ERR_NOMEM,
               "out of host memory for %" PRIu64 " times", b->steps);
    RT_TRY(rt_comm_meet(b->crew.path, b->crew.rank, b->crew.ranks, LIMIT_NS, &b->comm, &b->err));
    RT_TRY(rt_comm_open(&b->comm, d, NULL, &b->err));
    if (d->caps.kind == RT_DEVICE_KIND_HOST) /* where ranks that wait are one thread's work */
        return RT_OK;
    RT_TRY(rt_kernels_load(d, &b->kernels, &b->err));
    return rt_one_shot_map(&b->comm, d, &b->err);
}

/* False: a thread is left in a library, in the device's context. */
static bool close_all(struct sum_bench *b)
{
    struct rt_driver *const d = &b->d;
    const bool lingers = rt_comm_close(&b->comm);
    free(b->numbers);
    free(b->us);
    if (lingers)
        return false;
    if (b->memory)
        (void)d->mem_free(d, b->memory);
    rt_kernels_unload(&b->kernels);
    if (b->stream)
        (void)d->stream_destroy(d, b->stream);
    rt_driver_close(d);
    return true;
}

static bool read_options(int argc, char **argv, struct sum_bench *b)
{
    bool has_ranks = false;
    const struct option options[] = {
        {"--ranks", OPTION_NUMBER, &b->ranks, 2, RANK_CREW_MOST, &has_ranks},
        {"--steps", OPTION_NUMBER, &b->steps, 1, 100000, NULL},
        {"--device", OPTION_TEXT, &b->device, 0, 0, NULL},
        {"--json", OPTION_FLAG, &b->json, 0, 0, NULL},
    };
    b->steps = 100;
    if (!options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), NULL))
        return false;
    if (!has_ranks)
        complain("bench allreduce needs --ranks; see replayrt bench allreduce --help");
    else if (b->device && strcmp(b->device, "host") != 0)
        complain("--device %s: expected host; without it rank r is on cuda:r", b->device);
    else
        return true;
    return false;
}

static int bench(struct sum_bench *b)
{
    const int code =
        rank_crew_begin((uint32_t)b->ranks, b->device ? b->device : "auto", NULL, &b->crew);
    if (code != EXIT_OK)
        return code;
    enum rt_status status = open_all(b);
    if (status == RT_OK)
        status = run_all(b);
    if (status != RT_OK)
        complain_failure(status, b->err.message);
    else if (b->crew.rank == 0 && b->json)
        print_json(b);
    return status == RT_OK ? EXIT_OK : EXIT_FAILED;
}

int cmd_bench_allreduce(int argc, char **argv)
{
    struct sum_bench b = {.steps = 0};
    if (!read_options(argc, argv, &b))
        return EXIT_USAGE;
    int code = bench(&b);
    const bool all_gone = close_all(&b);
    if (!rank_crew_end(&b.crew, code != EXIT_OK))
        code = EXIT_FAILED;
    if (!all_gone)
        rank_crew_leave(code);
    return code;
}
