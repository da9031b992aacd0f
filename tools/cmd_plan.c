/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt plan: what create would do, without a device if need be. */
#include "replayrt/rt.h"
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/json.h"
#include "tools/options.h"
#include "tools/plan_exchanges.h"
#include "tools/rank_crew.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIB 1073741824.0

static const struct {
    const char *key, *words;
} limits[] = {{"configured", "the configuration"},
              {"memory", "the memory budget"},
              {"sequences", "all sequences at full length"}};
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

/* ---- for people ------------------------------------------------------------------------------ */

static void print_buffers(const rt_plan *plan)
{
    printf("%-8s %-16s %-5s %-32s %16s %16s\n", "region", "buffer", "dtype", "shape", "offset",
           "bytes");
    for (uint32_t i = 0; i < rt_plan_buffer_count(plan); i++) {
        struct rt_plan_buffer b = {.struct_size = sizeof(b)};
        char shape[96] = "";
        if (rt_plan_buffer(plan, i, &b) != RT_OK)
            continue;
        shape_text(&b, shape, sizeof(shape));
        printf("%-8s %-16s %-5s %-32s %16" PRIu64 " %16" PRIu64 "\n", regions[b.region], b.name,
               dtype_name(b.dtype), shape, b.offset, b.bytes);
    }
}

static struct rt_plan_stage stage_at(const rt_plan *plan, uint32_t graph, uint32_t index)
{
    struct rt_plan_stage s = {.struct_size = sizeof(s)};
    (void)rt_plan_stage(plan, graph, index, &s);
    return s;
}

/* All but the layer's number. */
static bool same_stage(const struct rt_plan_stage *a, const struct rt_plan_stage *b)
{
    const size_t stem = strcspn(a->label, ".");
    return strcspn(b->label, ".") == stem && strncmp(a->label, b->label, stem) == 0 &&
           strcmp(a->entry, b->entry) == 0 && memcmp(a->grid, b->grid, sizeof(a->grid)) == 0 &&
           memcmp(a->block, b->block, sizeof(a->block)) == 0 && a->smem_bytes == b->smem_bytes &&
           a->programmatic == b->programmatic && a->branch == b->branch &&
           a->exchange_bytes == b->exchange_bytes;
}

/* How many stages from `first` on are one layer's, and how many layers are equal from there on. */
struct equal_layers {
    uint32_t stages, layers;
};

static struct equal_layers look_for_equal(const rt_plan *plan, uint32_t graph, uint32_t first,
                                          uint32_t count)
{
    struct equal_layers e = {.stages = 1, .layers = 1};
    const struct rt_plan_stage s = stage_at(plan, graph, first);
    if (!strchr(s.label, '.'))
        return e;
    while (first + e.stages < count && stage_at(plan, graph, first + e.stages).layer == s.layer &&
           strchr(stage_at(plan, graph, first + e.stages).label, '.'))
        e.stages++;
    uint32_t i = first + e.stages;
    for (; i < count; i++) {
        const struct rt_plan_stage a = stage_at(plan, graph, i - e.stages),
                                   b = stage_at(plan, graph, i);
        if (!same_stage(&a, &b))
            break;
    }
    e.layers = (i - first) / e.stages;
    return e;
}

static void print_stage(const struct rt_plan_stage *s, const char *last)
{
    char label[64], branch[16] = "";
    snprintf(label, sizeof(label), "%s%s%s", s->label, *last ? "-" : "", last);
    if (s->branch)
        snprintf(branch, sizeof(branch), "%u", s->branch);
    if (s->exchange_bytes) {
        printf(" %2s -> %-18s %-28s %" PRIu64 " bytes\n", branch, label, s->entry,
               s->exchange_bytes);
        return;
    }
    printf(" %2s %s %-18s %-28s grid %u,%u,%u block %u smem %u%s%s\n", branch,
           s->programmatic ? "~>" : "->", label, s->entry, s->grid[0], s->grid[1], s->grid[2],
           s->block[0], s->smem_bytes, *s->reason ? ": " : "", s->reason);
}

/* What is to be explained below. */
struct signs {
    bool programmatic, branches, exchanges;
};

/* Equal layers as one. */
static void print_stages(const rt_plan *plan, uint32_t graph, uint32_t count, struct signs *signs)
{
    for (uint32_t i = 0; i < count;) {
        const struct equal_layers e = look_for_equal(plan, graph, i, count);
        char last[16] = "";
        if (e.layers > 1)
            snprintf(last, sizeof(last), "%u", stage_at(plan, graph, i).layer + e.layers - 1);
        for (uint32_t k = i; k < i + e.stages; k++) {
            const struct rt_plan_stage s = stage_at(plan, graph, k);
            print_stage(&s, last);
            signs->programmatic |= s.programmatic;
            signs->branches |= s.branch > 0;
        }
        i += e.stages * e.layers;
    }
}

static void print_graph(const struct rt_plan_graph *g)
{
    if (g->chunk)
        printf("graph  chunk %5u of %u prompts, %u rows of %u beside it, %u tokens of context  %4u "
               "stages: %s\n",
               g->chunk, g->batch - g->decode_rows, g->decode_rows, g->query_len, g->context_tokens,
               g->stages, g->form);
    else
        printf("graph  batch %4u  query length %u  %4u stages  %3u parts  %s: %s\n", g->batch,
               g->query_len, g->stages, g->parts, g->attend, g->reason);
    if (!g->chunk && g->form[0])
        printf("       %s\n", g->form);
    if (g->most_blocks)
        printf("       beside another of its size, for steps whose rows have at most %u blocks of "
               "64 keys\n",
               g->most_blocks);
}

static void print_exchanges(const rt_plan *plan, uint32_t graph, uint32_t stages,
                            struct signs *signs)
{
    struct plan_exchange all[PLAN_MOST_EXCHANGES];
    const uint32_t count = plan_exchanges_find(plan, graph, stages, all);
    for (uint32_t i = 0; i < count; i++)
        printf("       %4u x %-20s %-12s %12" PRIu64 " bytes\n", all[i].count, all[i].name,
               all[i].kind, all[i].bytes);
    signs->exchanges |= count > 0;
}

static void print_graphs(const rt_plan *plan, bool stages)
{
    struct signs signs = {.programmatic = false};
    for (uint32_t i = 0; i < rt_plan_graph_count(plan); i++) {
        struct rt_plan_graph g = {.struct_size = sizeof(g)};
        if (rt_plan_graph(plan, i, &g) != RT_OK)
            continue;
        print_graph(&g);
        print_exchanges(plan, i, g.stages, &signs);
        if (stages)
            print_stages(plan, i, g.stages, &signs);
    }
    if (signs.programmatic)
        puts("\n~> is a programmatic edge: the kernel may start before the one in front has ended");
    if (signs.branches)
        puts("1 and 2 are branches, each a chain, which run beside each other");
    if (signs.exchanges)
        puts("\nbytes of an exchange: the numbers of a sum (all_reduce), a rank's part of what is "
             "gathered\n(all_gather), what goes to each of the others (all_to_all)");
    if (!stages)
        puts("\n--stages lists the stages");
}

static void print_geometry(const struct rt_config *config)
{
    const struct rt_geometry *g = &config->geometry;
    printf("%u heads, L %u, R %u, d_qk/d_v %u/%u, %u layers, softmax scale %.9g\n", g->heads,
           g->kv_lora_rank, g->qk_rope_head_dim, g->kv_lora_rank + g->qk_rope_head_dim,
           g->kv_lora_rank, g->layers, g->softmax_scale);
}

static void print_size(const char *what, uint64_t bytes)
{
    printf("%s %.3f GiB (%" PRIu64 " bytes)\n", what, (double)bytes / GIB, bytes);
}

static void print_plan(const rt_plan *plan, const struct rt_config *config, bool stages)
{
    const struct rt_info *info = rt_plan_info(plan);
    printf("device %s, %u multiprocessors%s%s\n", info->device, info->sm_count,
           info->device_reason[0] ? ": " : "", info->device_reason);
    print_geometry(config);
    print_size("arena", info->arena_bytes);
    print_size("pool", info->pool_bytes);
    print_size("mapped host memory", info->mapped_bytes);
    printf("KV layout %s: %u bytes a token and layer\n", info->kv_layout, info->kv_token_bytes);
    printf("%" PRIu64 " pages of %u tokens, set by %s: %" PRIu64 " tokens, %" PRIu64
           " sequences of %u\n\n",
           info->pages, config->page_size * config->context_parallel,
           limits[info->pages_limit].words, info->tokens, info->full_sequences, config->max_length);
    print_buffers(plan);
    putchar('\n');
    print_graphs(plan, stages);
}

/* What attends over the plan's layout: for every query length of steps, and for prompts. */
static void print_kernels(const rt_plan *plan)
{
    uint32_t seen = 0; /* bit q: query length q; bit 0: prompts */
    for (uint32_t i = 0; i < rt_plan_graph_count(plan); i++) {
        struct rt_plan_graph g = {.struct_size = sizeof(g)};
        if (rt_plan_graph(plan, i, &g) != RT_OK || seen >> (g.chunk ? 0 : g.query_len) & 1)
            continue;
        seen |= 1u << (g.chunk ? 0 : g.query_len);
        if (g.chunk)
            printf("    prompts         %s: %s\n", g.attend, g.reason);
        else
            printf("    query length %u  %s: %s\n", g.query_len, g.attend, g.reason);
    }
}

/* A device that is assumed is looked for among the names alone. */
static bool is_unknown(const char *assume, enum rt_status status)
{
    return assume && status == RT_ERR_NO_DEVICE;
}

/* What every layout would hold of the same memory, and by which kernels it is read. A layout that
 * is refused is told with why. */
static int print_layouts(const struct rt_config *config, const char *assume)
{
    int code = EXIT_FAILED;
    for (int layout = RT_KV_BF16; layout <= RT_KV_V4; layout++) {
        struct rt_config c = *config;
        struct rt_error error = {0};
        rt_plan *plan = NULL;
        c.kv_layout = (enum rt_kv_layout)layout;
        c.kv_scale = c.kv_layout == RT_KV_FP8_TENSOR ? config->kv_scale : 1;
        const enum rt_status status = rt_plan_create(&c, assume, &plan, &error);
        if (is_unknown(assume, status)) {
            complain("%s", error.message);
            return EXIT_USAGE;
        }
        if (layout == RT_KV_BF16)
            printf("%-12s %21s %14s %14s\n", "layout", "bytes a token, layer", "tokens",
                   "sequences");
        if (status == RT_OK) {
            const struct rt_info *info = rt_plan_info(plan);
            printf("%-12s %21u %14" PRIu64 " %14" PRIu64 "\n", info->kv_layout,
                   info->kv_token_bytes, info->tokens, info->full_sequences);
            print_kernels(plan);
            code = EXIT_OK;
        } else {
            printf("not: %s\n", error.message);
        }
        rt_plan_destroy(&plan);
    }
    return code;
}

/* ---- for programs ---------------------------------------------------------------------------- */

static void json_buffers(cJSON *j, const rt_plan *plan)
{
    cJSON *buffers = cJSON_AddArrayToObject(j, "buffers");
    for (uint32_t i = 0; i < rt_plan_buffer_count(plan); i++) {
        struct rt_plan_buffer b = {.struct_size = sizeof(b)};
        if (rt_plan_buffer(plan, i, &b) != RT_OK)
            continue;
        cJSON *one = json_element(buffers);
        cJSON_AddStringToObject(one, "region", regions[b.region]);
        cJSON_AddStringToObject(one, "name", b.name);
        cJSON_AddStringToObject(one, "dtype", dtype_name(b.dtype));
        cJSON *shape = cJSON_AddArrayToObject(one, "shape");
        for (uint32_t k = 0; k < b.rank; k++)
            json_uint(shape, NULL, b.shape[k]);
        json_uint(one, "offset", b.offset);
        json_uint(one, "bytes", b.bytes);
    }
}

static void json_stages(cJSON *j, const rt_plan *plan, uint32_t graph, uint32_t count)
{
    cJSON *stages = cJSON_AddArrayToObject(j, "stages");
    for (uint32_t i = 0; i < count; i++) {
        struct rt_plan_stage s = {.struct_size = sizeof(s)};
        if (rt_plan_stage(plan, graph, i, &s) != RT_OK)
            continue;
        cJSON *one = json_element(stages);
        cJSON_AddStringToObject(one, "label", s.label);
        cJSON_AddStringToObject(one, "entry", s.entry);
        cJSON *grid = cJSON_AddArrayToObject(one, "grid");
        for (int k = 0; k < 3; k++)
            json_uint(grid, NULL, s.grid[k]);
        json_uint(one, "threads", s.block[0]);
        json_uint(one, "smem_bytes", s.smem_bytes);
        if (*s.reason)
            cJSON_AddStringToObject(one, "reason", s.reason);
        cJSON_AddBoolToObject(one, "programmatic", s.programmatic);
        json_uint(one, "branch", s.branch);
        if (s.exchange_bytes)
            json_uint(one, "exchange_bytes", s.exchange_bytes);
    }
}

static void json_exchanges(cJSON *j, const rt_plan *plan, uint32_t graph, uint32_t stages)
{
    struct plan_exchange all[PLAN_MOST_EXCHANGES];
    const uint32_t count = plan_exchanges_find(plan, graph, stages, all);
    cJSON *exchanges = cJSON_AddArrayToObject(j, "exchanges");
    for (uint32_t i = 0; i < count; i++) {
        cJSON *one = json_element(exchanges);
        cJSON_AddStringToObject(one, "name", all[i].name);
        cJSON_AddStringToObject(one, "kind", all[i].kind);
        json_uint(one, "count", all[i].count);
        json_uint(one, "bytes", all[i].bytes);
    }
}

static void json_graphs(cJSON *j, const rt_plan *plan, bool stages)
{
    cJSON *graphs = cJSON_AddArrayToObject(j, "graphs");
    for (uint32_t i = 0; i < rt_plan_graph_count(plan); i++) {
        struct rt_plan_graph g = {.struct_size = sizeof(g)};
        if (rt_plan_graph(plan, i, &g) != RT_OK)
            continue;
        cJSON *one = json_element(graphs);
        json_uint(one, "batch", g.batch);
        json_uint(one, "query_len", g.query_len);
        json_uint(one, "parts", g.parts);
        cJSON_AddStringToObject(one, "backend", g.backend);
        cJSON_AddStringToObject(one, "attend", g.attend);
        cJSON_AddStringToObject(one, "reason", g.reason);
        json_uint(one, "stage_count", g.stages);
        json_uint(one, "chunk", g.chunk);
        json_uint(one, "decode_rows", g.decode_rows);
        json_uint(one, "context_tokens", g.context_tokens);
        json_uint(one, "most_blocks", g.most_blocks);
        cJSON_AddStringToObject(one, "form", g.form);
        json_exchanges(one, plan, i, g.stages);
        if (stages)
            json_stages(one, plan, i, g.stages);
    }
}

static void json_geometry(cJSON *j, const struct rt_config *config)
{
    const struct rt_geometry *g = &config->geometry;
    cJSON *geometry = cJSON_AddObjectToObject(j, "geometry");
    json_uint(geometry, "heads", g->heads);
    json_uint(geometry, "kv_lora_rank", g->kv_lora_rank);
    json_uint(geometry, "qk_rope_head_dim", g->qk_rope_head_dim);
    json_uint(geometry, "layers", g->layers);
    json_uint(geometry, "d_qk", g->kv_lora_rank + g->qk_rope_head_dim);
    json_uint(geometry, "d_v", g->kv_lora_rank);
    cJSON_AddNumberToObject(j, "softmax_scale", g->softmax_scale);
}

static void json_plan(const rt_plan *plan, const struct rt_config *config, bool stages)
{
    cJSON *j = cJSON_CreateObject();
    const struct rt_info *info = rt_plan_info(plan);
    cJSON_AddStringToObject(j, "version", rt_version());
    cJSON_AddStringToObject(j, "device", info->device);
    cJSON_AddStringToObject(j, "device_reason", info->device_reason);
    json_uint(j, "sm_count", info->sm_count);
    json_uint(j, "arena_bytes", info->arena_bytes);
    json_uint(j, "pool_bytes", info->pool_bytes);
    json_uint(j, "mapped_bytes", info->mapped_bytes);
    json_uint(j, "pages", info->pages);
    cJSON_AddStringToObject(j, "pages_set_by", limits[info->pages_limit].key);
    json_uint(j, "tokens", info->tokens);
    json_uint(j, "full_sequences", info->full_sequences);
    json_uint(j, "memory_bytes", info->memory_bytes);
    cJSON_AddStringToObject(j, "kv_layout", info->kv_layout);
    json_uint(j, "kv_token_bytes", info->kv_token_bytes);
    json_geometry(j, config);
    json_buffers(j, plan);
    json_graphs(j, plan, stages);
    json_end(j, true, stdout);
}

/* ---- for Graphviz ---------------------------------------------------------------------------- */

/* Which graph is drawn: a batch's, or where `chunk` is set a chunk's; of query_len 0 the first. */
struct drawn {
    uint64_t batch, chunk, beside, context, query_len;
};

static bool is_drawn(const struct rt_plan_graph *g, const struct drawn *d)
{
    if (d->query_len && g->query_len != d->query_len)
        return false;
    if (!d->chunk)
        return !g->chunk && g->batch == d->batch;
    return g->chunk == d->chunk && g->decode_rows == d->beside && g->context_tokens >= d->context;
}

/* As a list says it. */
static void name_graph(const struct rt_plan_graph *g, char *text, size_t size)
{
    if (!g->chunk)
        (void)snprintf(text, size, "%u", g->batch);
    else if (g->query_len == 1)
        (void)snprintf(text, size, "%u beside %u with context %u", g->chunk, g->decode_rows,
                       g->context_tokens);
    else
        (void)snprintf(text, size, "%u beside %u of query length %u with context %u", g->chunk,
                       g->decode_rows, g->query_len, g->context_tokens);
}

/* All of the kind that is asked for; those of one batch size but for the query length are one. */
static void list_graphs(const rt_plan *plan, bool chunks, char *list, size_t size)
{
    char name[96], last[96] = "";
    size_t used = 0;
    struct rt_plan_graph g = {.struct_size = sizeof(g)};
    for (uint32_t i = 0; used < size && rt_plan_graph(plan, i, &g) == RT_OK; i++) {
        name_graph(&g, name, sizeof(name));
        if ((g.chunk != 0) != chunks || strcmp(name, last) == 0)
            continue;
        memcpy(last, name, sizeof(last));
        used += (size_t)snprintf(list + used, size - used, "%s%s", used ? ", " : "", name);
    }
    if (used >= size)
        memcpy(list + size - 4, "...", 4);
}

static void complain_of_graph(const rt_plan *plan, const struct drawn *d)
{
    char list[800] = "none", length[48] = "";
    list_graphs(plan, d->chunk != 0, list, sizeof(list));
    if (d->query_len)
        (void)snprintf(length, sizeof(length), " of query length %" PRIu64, d->query_len);
    if (d->chunk)
        complain("chunk %" PRIu64 " beside %" PRIu64 "%s with context %" PRIu64
                 " is not captured by this configuration; captured are %s",
                 d->chunk, d->beside, length, d->context, list);
    else
        complain("batch %" PRIu64 "%s is not captured by this configuration; captured are %s",
                 d->batch, length, list);
}

/* The graph of one batch size or of a chunk, at its first query length where none is named. */
static int print_dot(const rt_plan *plan, const struct drawn *drawn)
{
    struct rt_plan_graph g = {.struct_size = sizeof(g)};
    uint32_t i = 0;
    while (rt_plan_graph(plan, i, &g) == RT_OK && !is_drawn(&g, drawn))
        i++;
    size_t needed = 0;
    if (rt_plan_dot(plan, i, NULL, 0, &needed) != RT_OK) {
        complain_of_graph(plan, drawn);
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

static bool check_ranks(uint64_t ranks, const char *checkpoint, bool layouts)
{
    if (checkpoint && !ranks)
        complain("--checkpoint without --ranks, between which its decoder exchanges");
    else if (layouts && ranks)
        complain("--layouts and --ranks: one at a time");
    else
        return true;
    return false;
}

static bool check_drawn(const struct drawn *d, bool has_beside, bool has_context)
{
    if (d->batch && d->chunk)
        complain("--dot and --dot-chunk: one graph at a time");
    else if (d->query_len && !d->batch && !d->chunk)
        complain("--query-len without --dot or --dot-chunk, whose graph it picks");
    else if (!d->chunk && (has_beside || has_context))
        complain("%s without --dot-chunk, whose graph it picks",
                 has_beside ? "--beside" : "--context");
    else
        return true;
    return false;
}

/* A plan is printed before it is refused: its sizes are what one needs to mend it. */
static bool fits(const rt_plan *plan)
{
    const struct rt_info *info = rt_plan_info(plan);
    const uint64_t wanted = info->arena_bytes + info->pool_bytes;
    if (wanted <= info->memory_bytes)
        return true;
    complain("arena and pool of %.3f GiB (%" PRIu64 " bytes) do not fit %s: %.3f GiB (%" PRIu64
             " bytes) are free",
             (double)wanted / GIB, wanted, info->device, (double)info->memory_bytes / GIB,
             info->memory_bytes);
    return false;
}

int cmd_plan(int argc, char **argv)
{
    bool json = false, stages = false, layouts = false;
    bool has_beside = false, has_context = false;
    struct drawn drawn = {.batch = 0};
    uint64_t ranks = 0;
    const char *assume = NULL, *checkpoint = NULL, *path;
    const struct option options[] = {
        {"--json", OPTION_FLAG, &json, 0, 0},
        {"--stages", OPTION_FLAG, &stages, 0, 0},
        {"--layouts", OPTION_FLAG, &layouts, 0, 0},
        {"--assume", OPTION_TEXT, &assume, 0, 0},
        {"--ranks", OPTION_NUMBER, &ranks, 1, RT_MAX_RANKS, NULL},
        {"--checkpoint", OPTION_TEXT, &checkpoint, 0, 0, NULL},
        {"--dot", OPTION_NUMBER, &drawn.batch, 1, RT_MAX_BATCH, NULL},
        {"--dot-chunk", OPTION_NUMBER, &drawn.chunk, 1, RT_MAX_CHUNK, NULL},
        {"--beside", OPTION_NUMBER, &drawn.beside, 0, RT_MAX_MIXED_ROWS, &has_beside},
        {"--context", OPTION_NUMBER, &drawn.context, 0, RT_MAX_LENGTH, &has_context},
        {"--query-len", OPTION_NUMBER, &drawn.query_len, 1, RT_MAX_QUERY_LEN, NULL},
    };
    if (!options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), &path) ||
        !check_drawn(&drawn, has_beside, has_context) || !check_ranks(ranks, checkpoint, layouts))
        return EXIT_USAGE;
    struct rt_config config;
    struct rt_error error = {0};
    rt_plan *plan = NULL;
    if (rt_config_load(path, &config, &error) != RT_OK) {
        complain("%s", error.message);
        return EXIT_FAILED;
    }
    if (ranks && !rank_crew_suits(&config, (uint32_t)ranks))
        return EXIT_USAGE;
    const enum rt_status status =
        layouts ? RT_OK : plan_for_ranks(&config, assume, ranks, checkpoint, &plan, &error);
    if (status != RT_OK) {
        complain("%s", error.message);
        return is_unknown(assume, status) ? EXIT_USAGE : EXIT_FAILED;
    }
    if (layouts)
        return print_layouts(&config, assume);
    int code = EXIT_OK;
    if (drawn.batch || drawn.chunk)
        code = print_dot(plan, &drawn);
    else if (json)
        json_plan(plan, &config, stages);
    else
        print_plan(plan, &config, stages);
    if (code == EXIT_OK && !fits(plan))
        code = EXIT_FAILED;
    rt_plan_destroy(&plan);
    return code;
}
