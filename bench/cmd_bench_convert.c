/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replayrt bench convert: what rt_kv_convert costs from every layout to every other of 576/512, in
 * a graph of one launch, over a pool far larger than a cache. The first line is bf16 to bf16, a
 * copy: what others are held to.
 */
#include "bench/measure_time.h"
#include "bench/noise.h"
#include "common/math.h"
#include "runtime/kv_convert_work.h"
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/json.h"
#include "tools/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define D_QK 576u
#define D_V 512u
#define SCALE 0.03125f
#define NOISE_COUNT (UINT64_C(1) << 20)
#define LAYOUTS (RT_KV_V32 + 1) /* those of 576/512 are the first */

struct convert_bench {
    const char *device;
    uint64_t rows, length, page_size, steps;
    bool json;
    uint16_t *noise;
    rt_measure *m;
    struct rt_memory_region pool;
    rt_addr tables; /* from's, to's, then the lengths */
    uint64_t columns;
    cJSON *report, *ways; /* with --json */
    double copy_gbps;
};

/* Pages of from in their order, of to in the other: neither side is one long piece. */
static enum rt_status upload_tables(struct convert_bench *b)
{
    const uint64_t pages = b->rows * b->columns, count = 2 * pages + b->rows;
    struct rt_driver *d = &b->m->driver;
    struct rt_error *err = &b->m->error;
    int32_t *words = calloc(count, sizeof(*words));
    RT_REQUIRE(words, err, RT_ERR_NOMEM, "out of host memory for %" PRIu64 " pages", pages);
    for (uint64_t i = 0; i < pages; i++)
        words[i] = words[2 * pages - 1 - i] = (int32_t)i;
    for (uint64_t r = 0; r < b->rows; r++)
        words[2 * pages + r] = (int32_t)b->length;
    enum rt_status status = RT_DRV(d, err, mem_alloc, (d, count * sizeof(*words), &b->tables));
    if (status == RT_OK)
        status =
            RT_DRV(d, err, copy_in, (d, b->tables, words, count * sizeof(*words), b->m->stream));
    if (status == RT_OK)
        status = RT_DRV(d, err, stream_sync, (d, b->m->stream));
    free(words);
    return status;
}

static uint64_t side_bytes(const struct convert_bench *b, const struct rt_kv_format *format)
{
    return b->rows * b->columns * rt_kv_page_bytes(format, (uint32_t)b->page_size);
}

static struct rt_kv_pages pages_of(const struct convert_bench *b, const struct rt_kv_format *format,
                                   uint64_t kv, uint64_t table)
{
    return (struct rt_kv_pages){.layout = format->layout,
                                .kv_scale = format->scale == RT_KV_SCALE_TENSOR ? SCALE : 0,
                                .page_size = (uint32_t)b->page_size,
                                .max_blocks = (uint32_t)b->columns,
                                .pages = (uint32_t)(b->rows * b->columns),
                                .kv = kv,
                                .block_table = table};
}

static void report_way(struct convert_bench *b, const struct rt_kv_format *from,
                       const struct rt_kv_format *to, double ns)
{
    const double bytes =
        (double)b->rows * (double)b->length * (from->token_bytes + to->token_bytes);
    const double gbps = bytes / ns;
    b->copy_gbps = b->copy_gbps > 0 ? b->copy_gbps : gbps;
    if (!b->json) {
        printf("%-11s %-11s %10.2f us %8.0f GB/s %6.2f of a copy\n", from->name, to->name, ns / 1e3,
               gbps, gbps / b->copy_gbps);
        return;
    }
    cJSON *const way = json_element(b->ways);
    json_text(way, "from", from->name);
    json_text(way, "to", to->name);
    (void)cJSON_AddNumberToObject(way, "us", ns / 1e3);
    (void)cJSON_AddNumberToObject(way, "gb_per_second", gbps);
    (void)cJSON_AddNumberToObject(way, "of_copy", gbps / b->copy_gbps);
}

static enum rt_status measure_way(struct convert_bench *b, const struct rt_kv_format *from,
                                  const struct rt_kv_format *to)
{
    const uint64_t table_bytes = b->rows * b->columns * sizeof(int32_t);
    const uint64_t to_kv = b->pool.address + rt_align_up_u64(side_bytes(b, from), 256);
    const struct rt_kv_convert_args args = {.struct_size = sizeof(args),
                                            .rows = (uint32_t)b->rows,
                                            .d_qk = D_QK,
                                            .d_v = D_V,
                                            .max_length = (uint32_t)b->length,
                                            .lengths = b->tables + 2 * table_bytes,
                                            .from = pages_of(b, from, b->pool.address, b->tables),
                                            .to = pages_of(b, to, to_kv, b->tables + table_bytes)};
    const struct rt_stopwatch watch = rt_measure_stopwatch(b->m);
    struct rt_program program = {.spec = {.phase = RT_PHASE_DECODE}};
    struct rt_work work;
    double ns = 0;
    RT_TRY(rt_kv_convert_work(&b->m->kernels, &b->m->driver.caps, &args, &work, &b->m->error));
    enum rt_status status = rt_program_add(&program, "kv_convert", 0, &work, &b->m->error);
    if (status == RT_OK)
        status = rt_stopwatch_replays(&watch, &program, (uint32_t)b->steps, &ns);
    rt_program_free(&program);
    if (status == RT_OK)
        report_way(b, from, to, ns);
    return status;
}

static enum rt_status measure_all(struct convert_bench *b)
{
    struct rt_kv_format formats[LAYOUTS];
    for (uint32_t i = 0; i < LAYOUTS; i++)
        (void)rt_kv_format_make((enum rt_kv_layout)i, RT_PRECISION_BF16, D_QK, D_V, &formats[i]);
    RT_TRY(rt_measure_pool(b->m, 2 * side_bytes(b, &formats[RT_KV_BF16]) + 512, &b->pool));
    RT_REQUIRE(b->pool.bytes >= 2 * side_bytes(b, &formats[RT_KV_BF16]) + 256, &b->m->error,
               RT_ERR_DEVICE_MEMORY,
               "two caches of %" PRIu64 " tokens do not fit %" PRIu64 " bytes", b->rows * b->length,
               b->pool.bytes);
    RT_TRY(upload_tables(b));
    for (uint32_t from = 0; from < LAYOUTS; from++)
        for (uint32_t to = 0; to < LAYOUTS; to++)
            RT_TRY(measure_way(b, &formats[from], &formats[to]));
    return RT_OK;
}

static enum rt_status run(struct convert_bench *b)
{
    struct rt_driver *d = &b->m->driver;
    RT_TRY(RT_DRV(d, &b->m->error, ctx_enter, (d)));
    const enum rt_status status = measure_all(b);
    if (b->tables)
        (void)d->mem_free(d, b->tables);
    (void)d->ctx_leave(d);
    return status;
}

static enum rt_status begin(struct convert_bench *b, struct rt_error *err)
{
    struct rt_measure_info info;
    b->columns = (b->length + b->page_size - 1) / b->page_size;
    b->noise = noise_make(NOISE_COUNT);
    RT_REQUIRE(b->noise, err, RT_ERR_NOMEM, "out of host memory for noise");
    const struct rt_measure_params params = {
        .device = b->device, .noise = b->noise, .noise_bytes = NOISE_COUNT * sizeof(*b->noise)};
    RT_TRY(rt_measure_create(&params, &b->m, err));
    (void)rt_measure_get_info(b->m, &info);
    if (b->json) {
        b->report = cJSON_CreateObject();
        json_text(b->report, "device", info.device);
        json_uint(b->report, "rows", b->rows);
        json_uint(b->report, "length", b->length);
        json_uint(b->report, "page_size", b->page_size);
        b->ways = cJSON_AddArrayToObject(b->report, "ways");
    } else {
        printf("%" PRIu64 " sequences of %" PRIu64 " tokens in pages of %" PRIu64
               ", 576/512, on %s\n",
               b->rows, b->length, b->page_size, info.device);
    }
    return RT_OK;
}

int cmd_bench_convert(int argc, char **argv)
{
    struct convert_bench b = {
        .device = "auto", .rows = 64, .length = 8192, .page_size = 64, .steps = 20};
    const struct option options[] = {
        {"--batch", OPTION_NUMBER, &b.rows, 1, RT_MAX_BATCH, NULL},
        {"--length", OPTION_NUMBER, &b.length, 1, RT_MAX_LENGTH, NULL},
        {"--page-size", OPTION_NUMBER, &b.page_size, 1, 128, NULL},
        {"--steps", OPTION_NUMBER, &b.steps, 1, RT_MEASURE_MAX_REPLAYS, NULL},
        {"--device", OPTION_DEVICE, &b.device, 0, 0, NULL},
        {"--json", OPTION_FLAG, &b.json, 0, 0, NULL},
    };
    struct rt_error error = {.status = RT_OK};
    if (!options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), NULL))
        return EXIT_USAGE;
    enum rt_status status = begin(&b, &error);
    if (status == RT_OK && (status = run(&b)) != RT_OK)
        error = *rt_measure_last_error(b.m);
    if (status != RT_OK)
        complain_failure(status, error.message);
    if (b.report)
        json_end(b.report, status == RT_OK, stdout);
    rt_measure_destroy(&b.m);
    free(b.noise);
    return status == RT_OK ? EXIT_OK : EXIT_FAILED;
}
