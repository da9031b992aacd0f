/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt bench attention: every shape of a list, one after the other, on one device. */
#include "bench/bench_report.h"
#include "bench/bench_whole_step.h"
#include "bench/measure.h"
#include "bench/noise.h"
#include "bench/roofline.h"
#include "bench/shapes.h"
#include "common/kv_format.h"
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* (128 + 64)^-0.5 with YaRN's factor of DeepSeek-V3: a real model's, for all shapes alike. */
#define SOFTMAX_SCALE 0.1352338

#define NOISE_MOST_BYTES ((uint64_t)32 << 20)
#define NOISE_LEAST_BYTES ((uint64_t)1 << 20)

struct choice {
    const char *shapes, *out, *backend_name, *layout_name, *tiles_name, *device, *only;
    uint64_t topk;      /* 0: dense attention */
    uint64_t sustained; /* seconds; 0: bursts alone */
    bool no_step, invariant;
    enum rt_backend backend;
    enum rt_kv_layout layout;
    enum rt_small_tiles small_tiles;
};

struct bench {
    struct choice choice;
    struct shapes shapes;
    struct rt_measure *measure;
    struct bench_report report;
    struct whole_step_setup setup;
    uint16_t *noise;
};

static bool wanted(const struct bench *b, const struct shape *s)
{
    return !b->choice.only || strstr(s->label, b->choice.only) != NULL;
}

static enum rt_status measure_layer(struct bench *b, struct bench_row *row)
{
    const struct shape *s = row->shape;
    const struct rt_measure_attention_params params = {
        .batch = s->batch,
        .lengths = s->lengths,
        .query_len = s->query_len,
        .heads = s->heads,
        .d_qk = s->kv_lora_rank + s->qk_rope_head_dim,
        .d_v = s->kv_lora_rank,
        .page_size = s->page_size,
        .causal = s->query_len > 1,
        .topk = (uint32_t)b->choice.topk,
        .kv_layout = b->choice.layout,
        .backend = b->choice.backend,
        .invariant = b->choice.invariant,
        .small_tiles = b->choice.small_tiles != RT_SMALL_TILES_OFF,
        .sustain_ms = (uint32_t)b->choice.sustained * 1000,
        .softmax_scale = (float)SOFTMAX_SCALE,
    };
    row->r = (struct rt_measure_attention_result){0};
    enum rt_status status = rt_measure_attention(b->measure, &params, &row->r);
    row->measured = status == RT_OK;
    row->failed = status != RT_OK || row->r.problem[0];
    (void)snprintf(row->problem, sizeof(row->problem), "%s",
                   status == RT_OK ? row->r.problem : rt_measure_last_error(b->measure)->message);
    return status;
}

/* A step without room is left out; one that fails is a failure of the shape. */
static void measure_step(struct bench *b, struct bench_row *row)
{
    enum rt_status status = whole_step_measure(&b->setup, row->shape, &row->step);
    if (status == RT_OK || status == RT_ERR_DEVICE_MEMORY || row->failed)
        return;
    row->failed = true;
    (void)snprintf(row->problem, sizeof(row->problem), "its step: %.500s", row->step.why_not);
}

/* What this device or this backend cannot serve is that shape's failure; anything else ends it. */
static bool goes_on(enum rt_status status)
{
    return status == RT_OK || status == RT_ERR_UNSUPPORTED || status == RT_ERR_GEOMETRY ||
           status == RT_ERR_DEVICE_MEMORY;
}

static enum rt_status measure_all(struct bench *b)
{
    enum rt_status status = RT_OK;
    bench_report_head(&b->report);
    for (uint32_t i = 0; i < b->shapes.count && goes_on(status); i++) {
        const struct shape *s = &b->shapes.list[i];
        if (!wanted(b, s))
            continue;
        struct bench_row row = {
            .shape = s, .roofline = roofline_of(s, (uint32_t)b->choice.topk, b->choice.layout)};
        status = measure_layer(b, &row);
        if (status == RT_OK && !b->choice.no_step)
            measure_step(b, &row);
        bench_report_row(&b->report, &row);
    }
    bench_report_end(&b->report);
    return goes_on(status) ? RT_OK : status;
}

/* ---- set-up --------------------------------------------------------------------------------- */

static bool read_layout(struct choice *c)
{
    const char *name;
    for (int i = 0; (name = rt_kv_layout_name((enum rt_kv_layout)i)) != NULL; i++)
        if (!strcmp(c->layout_name, name)) {
            c->layout = (enum rt_kv_layout)i;
            return true;
        }
    complain("--layout %s: expected bf16, fp8_tensor, fp8_token, v32, v32_no_rope or v4",
             c->layout_name);
    return false;
}

static bool read_backend(struct choice *c)
{
    static const char *const names[] = {"auto", "generic", "sm90"};
    static const enum rt_backend backends[] = {RT_BACKEND_AUTO, RT_BACKEND_GENERIC,
                                               RT_BACKEND_SM90};
    for (int i = 0; i < 3; i++)
        if (!strcmp(c->backend_name, names[i])) {
            c->backend = backends[i];
            return true;
        }
    complain("--backend %s: expected auto, sm90 or generic", c->backend_name);
    return false;
}

/* Static is no word here: a layer has no further graph, a whole step no longer sequences. */
static bool read_small_tiles(struct choice *c)
{
    const bool off = !strcmp(c->tiles_name, "off");
    c->small_tiles = off ? RT_SMALL_TILES_OFF : RT_SMALL_TILES_AUTO;
    if (!off && strcmp(c->tiles_name, "auto") != 0) {
        complain("--small-tiles %s: expected auto or off", c->tiles_name);
        return false;
    }
    return true;
}

static bool read_options(int argc, char **argv, struct choice *c)
{
    const struct option options[] = {
        {"--shapes", OPTION_TEXT, &c->shapes, 0, 0},
        {"--out", OPTION_TEXT, &c->out, 0, 0},
        {"--backend", OPTION_TEXT, &c->backend_name, 0, 0},
        {"--layout", OPTION_TEXT, &c->layout_name, 0, 0},
        {"--small-tiles", OPTION_TEXT, &c->tiles_name, 0, 0},
        {"--device", OPTION_DEVICE, &c->device, 0, 0},
        {"--only", OPTION_TEXT, &c->only, 0, 0},
        {"--topk", OPTION_NUMBER, &c->topk, 1, RT_MAX_LENGTH},
        {"--sustained", OPTION_NUMBER, &c->sustained, 1, RT_MEASURE_MOST_SUSTAIN_MS / 1000},
        {"--no-step", OPTION_FLAG, &c->no_step, 0, 0},
        {"--invariant", OPTION_FLAG, &c->invariant, 0, 0},
    };
    if (!options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), NULL))
        return false;
    if (!read_layout(c) || !read_backend(c) || !read_small_tiles(c))
        return false;
    /* Whose lists a stage would have to write, and whose pool a step would have noise of bf16. */
    c->no_step |= c->topk > 0 || c->layout != RT_KV_BF16;
    if (c->invariant && (c->topk || c->layout != RT_KV_BF16)) {
        complain("%s with --invariant: batch-invariant is attention over all keys of bf16 alone",
                 c->topk ? "--topk" : "--layout");
        return false;
    }
    if (!c->shapes)
        complain("bench attention needs --shapes FILE");
    return c->shapes != NULL;
}

/* The KV of all layers of the largest step wanted; 0 without steps. */
static uint64_t largest_pool(const struct bench *b)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < b->shapes.count && !b->choice.no_step; i++) {
        uint64_t bytes = whole_step_pool_bytes(&b->shapes.list[i]);
        if (wanted(b, &b->shapes.list[i]) && bytes > most)
            most = bytes;
    }
    return most;
}

static uint32_t count_wanted(const struct bench *b)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < b->shapes.count; i++)
        count += wanted(b, &b->shapes.list[i]);
    return count;
}

/* As much as the largest shape has in one layer, within bounds: repeats are far apart. */
static uint64_t noise_bytes_for(const struct bench *b)
{
    uint64_t most = NOISE_LEAST_BYTES;
    for (uint32_t i = 0; i < b->shapes.count; i++) {
        uint64_t bytes = whole_step_pool_bytes(&b->shapes.list[i]) / WHOLE_STEP_LAYERS;
        if (wanted(b, &b->shapes.list[i]) && bytes > most)
            most = bytes;
    }
    return most < NOISE_MOST_BYTES ? most / 256 * 256 : NOISE_MOST_BYTES;
}

static enum rt_status open_device(struct bench *b, struct rt_error *error)
{
    uint64_t bytes = noise_bytes_for(b);
    b->noise = noise_make(bytes / sizeof(*b->noise));
    if (!b->noise) {
        (void)snprintf(error->message, sizeof(error->message), "out of host memory for noise");
        return RT_ERR_NOMEM;
    }
    const struct rt_measure_params params = {
        .device = b->choice.device, .noise = b->noise, .noise_bytes = bytes};
    enum rt_status status = rt_measure_create(&params, &b->measure, error);
    struct rt_measure_info *info = &b->report.device;
    if (status == RT_OK)
        status = rt_measure_get_info(b->measure, info);
    b->setup = (struct whole_step_setup){.device = info->opens,
                                         .lender = b->measure,
                                         .host = info->host,
                                         .noise = b->noise,
                                         .noise_bytes = bytes,
                                         .backend = b->choice.backend,
                                         .invariant = b->choice.invariant,
                                         .small_tiles = b->choice.small_tiles,
                                         .softmax_scale = SOFTMAX_SCALE};
    /* Once, not again and again as steps grow: filling it is most of the time that is not
     * measuring. */
    struct rt_memory_region pool;
    if (status == RT_OK && !info->host && largest_pool(b)) {
        status = rt_measure_pool(b->measure, largest_pool(b), &pool);
        if (status != RT_OK)
            *error = *rt_measure_last_error(b->measure);
    }
    return status;
}

static bool same_file(const char *a, const char *b)
{
    struct stat one, other;
    return b && !stat(a, &one) && !stat(b, &other) && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

/* Last of all: a file of earlier figures outlives a device that does not open. */
static enum rt_status open_lines(struct bench *b, struct rt_error *error)
{
    if (!b->choice.out || (b->report.lines = fopen(b->choice.out, "w")))
        return RT_OK;
    (void)snprintf(error->message, sizeof(error->message), "--out %.300s cannot be written: %s",
                   b->choice.out, strerror(errno));
    return RT_ERR_INVALID;
}

/* What the list knows is of all keys, of bf16. */
static void forget_dense_times(struct shapes *shapes)
{
    for (uint32_t i = 0; i < shapes->count; i++) {
        struct shape *s = &shapes->list[i];
        s->peer_layer_us = s->peer_metadata_us = s->floor_us = 0;
    }
}

static enum rt_status set_up(struct bench *b, struct rt_error *error)
{
    enum rt_status status = shapes_load(b->choice.shapes, &b->shapes, error);
    if (status != RT_OK)
        return status;
    if (b->choice.topk || b->choice.layout != RT_KV_BF16)
        forget_dense_times(&b->shapes);
    if (!count_wanted(b)) {
        (void)snprintf(error->message, sizeof(error->message), "%.100s: no label has \"%.100s\"",
                       b->choice.shapes, b->choice.only);
        return RT_ERR_INVALID;
    }
    if (same_file(b->choice.shapes, b->choice.out)) {
        (void)snprintf(error->message, sizeof(error->message),
                       "--out %.300s is the list of shapes itself", b->choice.out);
        return RT_ERR_INVALID;
    }
    b->report.softmax_scale = SOFTMAX_SCALE;
    b->report.topk = (uint32_t)b->choice.topk;
    b->report.layout = b->choice.layout_name;
    status = open_device(b, error);
    return status == RT_OK ? open_lines(b, error) : status;
}

/* False after a message: what was written never arrived. */
static bool close_lines(struct bench *b)
{
    FILE *lines = b->report.lines;
    bool lost = lines && ferror(lines) != 0;
    if (lines && fclose(lines) != 0)
        lost = true;
    if (lost)
        complain("%s could not be written", b->choice.out);
    return !lost;
}

int cmd_bench_attention(int argc, char **argv)
{
    struct bench b = {
        .choice = {
            .backend_name = "auto", .layout_name = "bf16", .tiles_name = "auto", .device = "auto"}};
    struct rt_error error = {0};
    if (!read_options(argc, argv, &b.choice))
        return EXIT_USAGE;
    enum rt_status status = set_up(&b, &error);
    if (status == RT_OK) {
        status = measure_all(&b);
        if (status != RT_OK)
            error = *rt_measure_last_error(b.measure);
    }
    if (status != RT_OK)
        complain_failure(status, error.message);
    bool arrived = close_lines(&b);
    rt_measure_destroy(&b.measure);
    free(b.noise);
    shapes_free(&b.shapes);
    return status == RT_OK && arrived && !b.report.failures ? EXIT_OK : EXIT_FAILED;
}
