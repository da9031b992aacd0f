/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replayrt bench allreduce: what the sum behind o_proj costs, by its size. Every size is a graph of
 * a chain of exchanges, as a step has one a layer; its replays are timed by the device's events on
 * rank 0, and the calls that launch them by its clock, for where others' memory is mapped they were
 * seen to cost more. Before that one exchange is checked, number by number.
 */
#include "common/bf16.h"
#include "driver/comm/comm.h"
#include "graphs/build.h"
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/json.h"
#include "tools/options.h"
#include "tools/rank_crew.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAIN 16u   /* exchanges of a replay */
#define WARM_UP 10u /* replays before those that count; one on the host device, which is slow */
#define LIMIT_NS UINT64_C(30000000000)
#define DEVICE_BYTES 32

static const uint64_t sizes[] = {4096, 8192, 16384, 32768, 65536, 262144, 1048576, 4194304};
#define SIZE_COUNT (sizeof(sizes) / sizeof(sizes[0]))
#define MOST_BYTES UINT64_C(4194304)

struct sum_bench {
    const char *device;
    uint64_t ranks, steps;
    bool json;
    struct rank_crew crew;
    struct rt_driver d;
    struct rt_comm comm;
    rt_dstream stream;
    rt_devent begin, end;
    rt_addr memory;
    uint16_t *numbers; /* [MOST_BYTES / 2] */
    float *us;         /* [2, steps]: of an exchange, and of the call that launches a replay */
    float median[SIZE_COUNT], least[SIZE_COUNT], launch[SIZE_COUNT];
    struct rt_error err;
};

/* What ranks wait for each other in has an end, and is told by name. */
static enum rt_status settle(struct sum_bench *b)
{
    return rt_comm_await(&b->comm, &b->d, b->stream, true, &b->err);
}

/* ---- correctness ----------------------------------------------------------------------------- */

/* Whole numbers whose sums bf16 has: at most 64 ranks, 256. */
static float number(uint32_t rank, uint64_t i)
{
    return (float)((rank + i) % 4);
}

static enum rt_status check(struct sum_bench *b, const struct rt_collective *x)
{
    struct rt_driver *const d = &b->d;
    const uint64_t bytes = x->count * sizeof(*b->numbers);
    for (uint64_t i = 0; i < x->count; i++)
        b->numbers[i] = rt_float_to_bf16(number(b->crew.rank, i));
    RT_TRY(RT_DRV(d, &b->err, copy_in, (d, b->memory, b->numbers, bytes, b->stream)));
    RT_TRY(rt_comm_try(&b->comm, d, x, b->stream, &b->err));
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

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static enum rt_status replay(struct sum_bench *b, const struct rt_graph *g, float *us,
                             float *launch_us)
{
    struct rt_driver *const d = &b->d;
    float ms = 0;
    RT_TRY(RT_DRV(d, &b->err, event_record, (d, b->begin, b->stream)));
    const uint64_t begin = rt_board_now_ns();
    RT_TRY(RT_DRV(d, &b->err, graph_launch, (d, g->exec, b->stream)));
    *launch_us = (float)(rt_board_now_ns() - begin) * 1e-3f;
    RT_TRY(RT_DRV(d, &b->err, event_record, (d, b->end, b->stream)));
    RT_TRY(settle(b));
    RT_TRY(RT_DRV(d, &b->err, event_elapsed, (d, b->begin, b->end, &ms)));
    *us = ms * 1e3f / CHAIN;
    return RT_OK;
}

static enum rt_status measure(struct sum_bench *b, const struct rt_graph *g, size_t size)
{
    const uint64_t warm_up = b->d.caps.kind == RT_DEVICE_KIND_HOST ? 1 : WARM_UP;
    RT_TRY(rt_comm_barrier(&b->comm, &b->err)); /* nobody captures any more */
    for (uint64_t i = 0; i < warm_up + b->steps; i++) {
        float *const us = &b->us[i < warm_up ? 0 : i - warm_up];
        RT_TRY(replay(b, g, us, us + b->steps));
    }
    qsort(b->us, b->steps, sizeof(*b->us), by_value);
    qsort(b->us + b->steps, b->steps, sizeof(*b->us), by_value);
    b->launch[size] = b->us[b->steps + b->steps / 2];
    b->median[size] = b->us[b->steps / 2];
    b->least[size] = b->us[0];
    return RT_OK;
}

static enum rt_status run_chain(struct sum_bench *b, const struct rt_collective *x, size_t size)
{
    const struct rt_work work = {.kind = RT_WORK_COLLECTIVE, .collective = *x};
    struct rt_program p = {0};
    struct rt_graph g = {0};
    enum rt_status status = RT_OK;
    for (uint32_t i = 0; i < CHAIN && status == RT_OK; i++)
        status = rt_program_add(&p, "sum", i, &work, &b->err);
    if (status == RT_OK)
        status = rt_graph_build(&p, &b->d, b->stream, &g, &b->err);
    if (status == RT_OK)
        status = rt_graph_instantiate(&g, &b->d, b->stream, &b->err);
    if (status == RT_OK)
        status = measure(b, &g, size);
    rt_graph_free(&g, &b->d);
    rt_program_free(&p);
    return status;
}

/* ---- what it prints -------------------------------------------------------------------------- */

/* What each rank sends, and gets, of an exchange that sends no number twice. */
static double gb_per_second(const struct sum_bench *b, size_t i)
{
    const double share = 2.0 * (b->crew.ranks - 1) / b->crew.ranks;
    return share * (double)sizes[i] / (double)b->median[i] / 1e3;
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
        (void)cJSON_AddNumberToObject(row, "us_median", (double)b->median[i]);
        (void)cJSON_AddNumberToObject(row, "us_least", (double)b->least[i]);
        (void)cJSON_AddNumberToObject(row, "us_launch", (double)b->launch[i]);
        (void)cJSON_AddNumberToObject(row, "gb_per_second", gb_per_second(b, i));
    }
    json_end(all, true, stdout);
}

/* As soon as it is known: the next one may be where it stops. */
static void print_size(const struct sum_bench *b, size_t i)
{
    if (i == 0)
        printf("%" PRIu32 " ranks on %s, %u sums of bf16 a replay, %" PRIu64 " replays\n"
               "%10s %12s %12s %8s %12s\n",
               b->crew.ranks, b->d.caps.name, CHAIN, b->steps, "bytes", "us, median", "us, least",
               "GB/s", "us, launch");
    printf("%10" PRIu64 " %12.2f %12.2f %8.2f %12.2f\n", sizes[i], (double)b->median[i],
           (double)b->least[i], gb_per_second(b, i), (double)b->launch[i]);
    (void)fflush(stdout);
}

/* ---- all sizes ------------------------------------------------------------------------------- */

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
        const uint32_t fields[RT_BOARD_FIELD_COUNT] = {[RT_BOARD_BUCKET] = (uint32_t)sizes[i]};
        RT_TRY(rt_comm_post(&b->comm, fields, &b->err));
        RT_TRY(check(b, &x));
        RT_TRY(run_chain(b, &x, i));
        if (b->crew.rank == 0 && !b->json)
            print_size(b, i);
    }
    return RT_OK;
}

/* ---- from begin to end ----------------------------------------------------------------------- */

static enum rt_status open_all(struct sum_bench *b)
{
    struct rt_driver *const d = &b->d;
    char device[DEVICE_BYTES];
    (void)snprintf(device, sizeof(device), "cuda:%" PRIu32, b->crew.rank);
    RT_TRY(rt_driver_open(b->device ? b->device : device, d, NULL, 0, &b->err));
    RT_TRY(RT_DRV(d, &b->err, ctx_enter, (d)));
    RT_TRY(RT_DRV(d, &b->err, stream_create, (d, &b->stream)));
    RT_TRY(RT_DRV(d, &b->err, event_create, (d, &b->begin)));
    RT_TRY(RT_DRV(d, &b->err, event_create, (d, &b->end)));
    RT_TRY(RT_DRV(d, &b->err, mem_alloc, (d, MOST_BYTES, &b->memory)));
    b->numbers = malloc(MOST_BYTES / sizeof(*b->numbers) * sizeof(*b->numbers));
    b->us = calloc(2 * b->steps, sizeof(*b->us));
    RT_REQUIRE(b->numbers && b->us, &b->err, RT_ERR_NOMEM,
               "out of host memory for %" PRIu64 " times", b->steps);
    RT_TRY(rt_comm_meet(b->crew.path, b->crew.rank, b->crew.ranks, LIMIT_NS, &b->comm, &b->err));
    return rt_comm_open(&b->comm, d, NULL, &b->err);
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
    if (b->end)
        (void)d->event_destroy(d, b->end);
    if (b->begin)
        (void)d->event_destroy(d, b->begin);
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
    if (!rank_crew_begin((uint32_t)b->ranks, &b->crew))
        return EXIT_FAILED;
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
