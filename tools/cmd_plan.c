/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt plan: what create would do, without a device if need be. */
#include "replayrt/rt.h"
#include "tools/commands.h"
#include "tools/json_out.h"
#include "tools/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const regions[] = {"arena", "mapped", "pool"};

static const char *dtype_name(enum rt_dtype dtype)
{
    switch (dtype) {
    case RT_DTYPE_BF16:
        return "bf16";
    case RT_DTYPE_F32:
        return "f32";
    case RT_DTYPE_I32:
        return "i32";
    case RT_DTYPE_U8:
        return "u8";
    }
    return "?";
}

static void shape_text(const struct rt_plan_buffer *b, char *text, size_t size)
{
    size_t used = 0;
    for (uint32_t i = 0; i < b->rank && used < size; i++)
        used +=
            (size_t)snprintf(text + used, size - used, "%s%" PRIu64, i ? " x " : "", b->shape[i]);
}

/* ---- for people
 * ---------------------------------------------------------------------------------- */

static void print_buffers(const rt_plan *plan)
{
    printf("%-8s %-14s %-5s %-32s %16s %16s\n", "region", "buffer", "dtype", "shape", "offset",
           "bytes");
    for (uint32_t i = 0; i < rt_plan_buffer_count(plan); i++) {
        struct rt_plan_buffer b = {.struct_size = sizeof(b)};
        char shape[96] = "";
        if (rt_plan_buffer(plan, i, &b) != RT_OK)
            continue;
        shape_text(&b, shape, sizeof(shape));
        printf("%-8s %-14s %-5s %-32s %16" PRIu64 " %16" PRIu64 "\n", regions[b.region], b.name,
               dtype_name(b.dtype), shape, b.offset, b.bytes);
    }
}

static void print_stages(const rt_plan *plan, uint32_t graph, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct rt_plan_stage s = {.struct_size = sizeof(s)};
        if (rt_plan_stage(plan, graph, i, &s) != RT_OK)
            continue;
        printf("    %s %-16s %-28s grid %u,%u,%u block %u smem %u\n", s.programmatic ? "~>" : "->",
               s.label, s.entry, s.grid[0], s.grid[1], s.grid[2], s.block[0], s.smem_bytes);
    }
}

static void print_graphs(const rt_plan *plan, bool stages)
{
    for (uint32_t i = 0; i < rt_plan_graph_count(plan); i++) {
        struct rt_plan_graph g = {.struct_size = sizeof(g)};
        if (rt_plan_graph(plan, i, &g) != RT_OK)
            continue;
        printf("graph  batch %4u  query length %u  %4u stages  %3u parts  %s: %s\n", g.batch,
               g.query_len, g.stages, g.parts, g.attend, g.reason);
        if (stages)
            print_stages(plan, i, g.stages);
    }
}

static void print_plan(const rt_plan *plan, bool stages)
{
    const struct rt_info *info = rt_plan_info(plan);
    printf("device %s, %u multiprocessors%s%s\n", info->device, info->sm_count,
           info->device_reason[0] ? ": " : "", info->device_reason);
    printf("arena %" PRIu64 " bytes, pool %" PRIu64 " bytes in %" PRIu64
           " pages, mapped host memory %" PRIu64 " bytes\n\n",
           info->arena_bytes, info->pool_bytes, info->pages, info->mapped_bytes);
    print_buffers(plan);
    putchar('\n');
    print_graphs(plan, stages);
    if (!stages)
        puts("\n--stages lists the stages; ~> is a programmatic edge");
}

/* ---- for programs
 * ---------------------------------------------------------------------------------- */

static void json_buffers(struct json_out *j, const rt_plan *plan)
{
    json_open(j, "buffers", '[');
    for (uint32_t i = 0; i < rt_plan_buffer_count(plan); i++) {
        struct rt_plan_buffer b = {.struct_size = sizeof(b)};
        if (rt_plan_buffer(plan, i, &b) != RT_OK)
            continue;
        json_open(j, NULL, '{');
        json_text(j, "region", regions[b.region]);
        json_text(j, "name", b.name);
        json_text(j, "dtype", dtype_name(b.dtype));
        json_open(j, "shape", '[');
        for (uint32_t k = 0; k < b.rank; k++)
            json_uint(j, NULL, b.shape[k]);
        json_close(j, ']');
        json_uint(j, "offset", b.offset);
        json_uint(j, "bytes", b.bytes);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void json_stages(struct json_out *j, const rt_plan *plan, uint32_t graph, uint32_t count)
{
    json_open(j, "stages", '[');
    for (uint32_t i = 0; i < count; i++) {
        struct rt_plan_stage s = {.struct_size = sizeof(s)};
        if (rt_plan_stage(plan, graph, i, &s) != RT_OK)
            continue;
        json_open(j, NULL, '{');
        json_text(j, "label", s.label);
        json_text(j, "entry", s.entry);
        json_open(j, "grid", '[');
        for (int k = 0; k < 3; k++)
            json_uint(j, NULL, s.grid[k]);
        json_close(j, ']');
        json_uint(j, "threads", s.block[0]);
        json_uint(j, "smem_bytes", s.smem_bytes);
        json_bool(j, "programmatic", s.programmatic);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void json_plan(const rt_plan *plan, bool stages)
{
    struct json_out j = {.to = stdout, .first = true};
    const struct rt_info *info = rt_plan_info(plan);
    json_open(&j, NULL, '{');
    json_text(&j, "version", rt_version());
    json_text(&j, "device", info->device);
    json_text(&j, "device_reason", info->device_reason);
    json_uint(&j, "sm_count", info->sm_count);
    json_uint(&j, "arena_bytes", info->arena_bytes);
    json_uint(&j, "pool_bytes", info->pool_bytes);
    json_uint(&j, "mapped_bytes", info->mapped_bytes);
    json_uint(&j, "pages", info->pages);
    json_buffers(&j, plan);
    json_open(&j, "graphs", '[');
    for (uint32_t i = 0; i < rt_plan_graph_count(plan); i++) {
        struct rt_plan_graph g = {.struct_size = sizeof(g)};
        if (rt_plan_graph(plan, i, &g) != RT_OK)
            continue;
        json_open(&j, NULL, '{');
        json_uint(&j, "batch", g.batch);
        json_uint(&j, "query_len", g.query_len);
        json_uint(&j, "parts", g.parts);
        json_text(&j, "backend", g.backend);
        json_text(&j, "attend", g.attend);
        json_text(&j, "reason", g.reason);
        json_uint(&j, "stage_count", g.stages);
        if (stages)
            json_stages(&j, plan, i, g.stages);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_close(&j, '}');
}

/* The graph of one batch size, at its first query length. */
static int print_dot(const rt_plan *plan, uint32_t batch)
{
    struct rt_plan_graph g = {.struct_size = sizeof(g)};
    uint32_t i = 0;
    while (rt_plan_graph(plan, i, &g) == RT_OK && g.batch != batch)
        i++;
    size_t needed = 0;
    if (rt_plan_dot(plan, i, NULL, 0, &needed) != RT_OK) {
        fprintf(stderr, "replayrt: batch %u is not captured by this configuration\n", batch);
        return EXIT_USAGE;
    }
    char *text = malloc(needed);
    if (!text || rt_plan_dot(plan, i, text, needed, &needed) != RT_OK) {
        free(text);
        fputs("replayrt: out of host memory\n", stderr);
        return EXIT_FAILED;
    }
    fputs(text, stdout);
    free(text);
    return EXIT_OK;
}

int cmd_plan(int argc, char **argv)
{
    bool json = false, stages = false;
    uint64_t dot = 0;
    const char *assume = NULL, *path;
    const struct option options[] = {
        {"--json", OPTION_FLAG, &json, 0, 0},
        {"--stages", OPTION_FLAG, &stages, 0, 0},
        {"--assume", OPTION_TEXT, &assume, 0, 0},
        {"--dot", OPTION_NUMBER, &dot, 1, RT_MAX_BATCH},
    };
    if (!options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), &path))
        return EXIT_USAGE;
    struct rt_config config;
    struct rt_error error = {0};
    rt_plan *plan = NULL;
    if (rt_config_load(path, &config, &error) != RT_OK ||
        rt_plan_create(&config, assume, &plan, &error) != RT_OK) {
        fprintf(stderr, "replayrt: %s\n", error.message);
        return EXIT_FAILED;
    }
    int code = EXIT_OK;
    if (dot)
        code = print_dot(plan, (uint32_t)dot);
    else if (json)
        json_plan(plan, stages);
    else
        print_plan(plan, stages);
    rt_plan_destroy(&plan);
    return code;
}
