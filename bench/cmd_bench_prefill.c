/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replayrt bench prefill: what prompts cost in whole MLA blocks, or in a whole model. For each
 * length a prompt in one chunk: a layer's time, of blocks beside its floor, attention by itself and
 * every other stage; then a step that decodes beside a chunk, and each of them alone.
 */
#include "bench/bench_rows.h"
#include "bench/measure.h"
#include "bench/prefill_report.h"
#include "bench/prefill_target.h"
#include "bench/roofline.h"
#include "common/check.h"
#include "common/math.h"
#include "driver/driver.h"
#include "runtime/runtime.h"
#include "tools/chance.h"
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/decode_agree.h"
#include "tools/options.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARM_UP 3
#define SEED 1

#define MOST_LENGTHS 3

/* What is measured where the command line does not say. The host device's kernels are the
 * references: a token takes them some 40 ms in one of DeepSeek-V3's layers. */
static const struct standard {
    uint32_t lengths[MOST_LENGTHS]; /* prompts'; 0 ends them */
    uint32_t chunk, batch, past, steps;
} gpu_standard = {{512, 2048, 8192}, 512, 8, 4096, 20}, host_standard = {{8, 32}, 8, 2, 64, 3};

/* Of the command line; 0: as configured, or not given. */
struct prefill_options {
    uint64_t tokens, chunk, batch, past, steps, heads, layers;
    bool has_past; /* which may be 0 */
    double tflops, gbps;
    const char *device, *path;
    bool json;
};

struct prefill_bench {
    struct prefill_options o;
    struct prefill_source source;
    uint32_t lengths[MOST_LENGTHS], length_count;
    struct rt_config config;
    struct prefill_target target;
    struct prefill_report report;
    rt_runtime *rt;         /* the target's */
    struct bench_rows rows; /* that decode */
    rt_seq prompt;
    int32_t *tokens;          /* [the longest], at random: to a model it matters which */
    uint64_t *ns;             /* [steps] */
    unsigned char *hidden[2]; /* what a replay left, and an eager step */
    struct rt_error error;
};

/* ---- a step ---------------------------------------------------------------------------------- */

/* A prompt's tokens and rows that decode; one of them may be none. */
struct work {
    uint32_t tokens, rows, flags;
};

/* From where it always begins: sequences at their first length, the first layer's input written. */
static enum rt_status run(const struct prefill_bench *b, const struct work *w)
{
    const struct rt_prompt prompt = {.seq = b->prompt, .tokens = b->tokens, .count = w->tokens};
    struct rt_step_params p = bench_rows_params(&b->rows, w->rows, 1);
    uint64_t ticket;
    p.flags = w->flags;
    p.prompts = &prompt;
    p.prompt_count = w->tokens ? 1 : 0;
    RT_TRY(bench_rows_rewind(&b->rows, w->rows));
    RT_TRY(rt_seq_rewind(b->rt, b->prompt, 0));
    RT_TRY(bench_fill(b->rt, "hidden", 0));
    RT_TRY(rt_step(b->rt, &p, &ticket));
    return rt_wait(b->rt, ticket, UINT64_MAX);
}

/* The device has nothing else to do in front of a step, and its clock begins with the step. */
static enum rt_status measure(struct prefill_bench *b, uint32_t tokens, uint32_t rows, double *ns)
{
    const struct work w = {.tokens = tokens, .rows = rows};
    const uint32_t steps = (uint32_t)b->o.steps;
    struct rt_stats stats = {.struct_size = sizeof(stats)};
    for (uint32_t i = 0; i < WARM_UP + steps; i++) {
        RT_TRY(run(b, &w));
        RT_TRY(rt_get_stats(b->rt, &stats));
        if (i >= WARM_UP)
            b->ns[i - WARM_UP] = stats.gpu_ns_last;
    }
    *ns = bench_median(b->ns, steps);
    return RT_OK;
}

/* ---- a length -------------------------------------------------------------------------------- */

/* The last layer's hidden, replayed and eager. */
static enum rt_status check(struct prefill_bench *b, struct prefill_row *row)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    RT_TRY(rt_tensor(b->rt, "hidden", 0, &t));
    const uint64_t bytes = t.bytes / (t.shape[0] * t.shape[1]) * row->tokens;
    for (uint32_t side = 0; side < 2; side++) {
        const struct work w = {.tokens = row->tokens, .flags = side ? RT_STEP_EAGER : 0};
        unsigned char *hidden = realloc(b->hidden[side], bytes);
        RT_REQUIRE(hidden, &b->error, RT_ERR_NOMEM, "out of host memory for hidden");
        b->hidden[side] = hidden;
        RT_TRY(run(b, &w));
        RT_TRY(rt_tensor_read(b->rt, "hidden", 0, 0, hidden, bytes));
    }
    RT_REQUIRE(memcmp(b->hidden[0], b->hidden[1], bytes) == 0, &b->error, RT_ERR_INTERNAL,
               "%u tokens: hidden of replay and eager differ", row->tokens);
    row->hidden_rms = bench_rms(b->hidden[0], bytes, t.dtype);
    RT_REQUIRE(isfinite(row->hidden_rms), &b->error, RT_ERR_INTERNAL,
               "%u tokens: hidden is not finite", row->tokens);
    return RT_OK;
}

/* Both products of every pair of a query and a key that it sees, in the form that is taken. */
static double attention_flop(const struct rt_config *c, uint32_t tokens, bool absorbed)
{
    const double pairs = (double)tokens * ((double)tokens + 1) / 2;
    const uint32_t rope = c->geometry.qk_rope_head_dim;
    const uint32_t width = absorbed ? 2 * c->geometry.kv_lora_rank + rope
                                    : c->block.qk_nope_head_dim + rope + c->block.v_head_dim;
    return 2 * pairs * c->geometry.heads * width;
}

static double attention_ns(const struct layer_stages *stages)
{
    static const char *const names[] = {"prefill_attend", "attend", "reduce"};
    double ns = 0;
    for (uint32_t i = 0; i < stages->count; i++)
        for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++)
            ns += strcmp(stages->stages[i].name, names[k]) == 0 ? stages->stages[i].ns : 0;
    return ns;
}

static enum rt_status measure_stages(struct prefill_bench *b, uint32_t graph,
                                     struct layer_stages *stages)
{
    const uint32_t steps = (uint32_t)b->o.steps;
    return layer_stages_measure(
        b->rt, graph, steps < RT_MEASURE_MAX_REPLAYS ? steps : RT_MEASURE_MAX_REPLAYS, stages);
}

static enum rt_status measure_length(struct prefill_bench *b, uint32_t tokens)
{
    struct prefill_row row = {.tokens = tokens};
    const uint32_t graph = layer_graph_of_chunk(b->rt, tokens, 0);
    RT_REQUIRE(graph < b->rt->captured_count, &b->error, RT_ERR_INTERNAL,
               "no graph for a chunk of %u tokens", tokens);
    const struct rt_graph_spec *spec = &b->rt->captured[graph].program.spec;
    (void)snprintf(row.form, sizeof(row.form), "%s", rt_blueprint_reason(&b->rt->blueprint, spec));
    RT_TRY(check(b, &row));
    RT_TRY(measure(b, tokens, 0, &row.step_ns)); /* behind it the stages find its rows */
    RT_TRY(measure_stages(b, graph, &row.stages));
    row.attention_ns = attention_ns(&row.stages);
    row.attention_flop = attention_flop(&b->config, tokens, spec->absorbed);
    if (!b->source.checkpoint)
        row.floor = prefill_floor_of(&b->report, &row);
    prefill_report_row(&b->report, &row);
    return RT_OK;
}

static enum rt_status measure_mix(struct prefill_bench *b)
{
    struct prefill_mix mix = {.chunk = (uint32_t)b->o.chunk,
                              .batch = (uint32_t)b->o.batch,
                              .length = (uint32_t)b->o.past};
    RT_TRY(measure(b, mix.chunk, 0, &mix.chunk_ns));
    RT_TRY(measure(b, 0, mix.batch, &mix.decode_ns));
    RT_TRY(measure(b, mix.chunk, mix.batch, &mix.mixed_ns));
    const uint32_t graph = layer_graph_of_chunk(b->rt, mix.chunk, mix.batch);
    RT_REQUIRE(graph < b->rt->captured_count, &b->error, RT_ERR_INTERNAL,
               "no graph for a chunk of %u tokens beside %u rows", mix.chunk, mix.batch);
    RT_TRY(measure_stages(b, graph, &mix.stages));
    prefill_report_mix(&b->report, &mix);
    return RT_OK;
}

/* ---- a run ----------------------------------------------------------------------------------- */

static enum rt_status measure_all(struct prefill_bench *b)
{
    for (uint32_t i = 0; i < b->length_count; i++)
        RT_TRY(measure_length(b, b->lengths[i]));
    return measure_mix(b);
}

/* Of a model's vocabulary, for experts are chosen by them; a block looks at none. */
static void choose_tokens(const struct prefill_bench *b)
{
    struct chance chance = chance_of(SEED);
    const uint64_t ids = b->source.checkpoint ? b->source.model.vocab_size : 1;
    const uint32_t longest = b->config.chunks[b->config.chunk_count - 1];
    for (uint32_t i = 0; i < longest; i++)
        b->tokens[i] = (int32_t)((chance_draw(&chance) >> 32) % ids);
    for (uint32_t row = 0; row < b->rows.count; row++)
        b->rows.tokens[row] = (int32_t)((chance_draw(&chance) >> 32) % ids);
}

/* Cache of the past too, which nobody has written. */
static enum rt_status measure_runtime(struct prefill_bench *b)
{
    const struct bench_choice choice = {.batch = b->o.batch, .length = b->o.past};
    for (uint32_t layer = 0; layer < b->config.geometry.layers; layer++)
        RT_TRY(bench_fill(b->rt, "kv", layer));
    RT_TRY(bench_rows_open(&b->rows, b->rt, &b->config, &choice));
    choose_tokens(b);
    RT_TRY(rt_seq_open(b->rt, NULL, &b->prompt));
    RT_TRY(rt_thread_enter(b->rt));
    const enum rt_status status = measure_all(b);
    (void)rt_thread_leave(b->rt);
    return status;
}

static enum rt_status run_all(struct prefill_bench *b)
{
    const struct rt_config *c = &b->config;
    b->ns = calloc(b->o.steps, sizeof(*b->ns));
    b->tokens = calloc(c->chunks[c->chunk_count - 1], sizeof(*b->tokens));
    RT_REQUIRE(b->ns && b->tokens, &b->error, RT_ERR_NOMEM,
               "out of host memory for %" PRIu64 " steps", b->o.steps);
    RT_TRY(prefill_target_open(&b->source, c, &b->target, &b->error));
    b->rt = b->target.rt;
    b->report.config = *c;
    b->report.model = b->source.checkpoint ? &b->source.model : NULL;
    b->report.weight_bytes = b->target.weight_bytes;
    b->report.device.struct_size = sizeof(b->report.device);
    enum rt_status status = rt_get_info(b->rt, &b->report.device);
    if (status == RT_OK) {
        prefill_report_head(&b->report);
        status = measure_runtime(b);
    }
    if (status != RT_OK && b->error.status == RT_OK)
        b->error = *rt_last_error(b->rt);
    bench_rows_free(&b->rows);
    return status;
}

/* ---- the command line ------------------------------------------------------------------------ */

/* What the model says is not the command line's, and the other way round. */
static bool check_source(const struct prefill_options *o, const struct prefill_source *source)
{
    if (source->checkpoint && (o->heads || o->layers)) {
        complain("%s %" PRIu64 ": with --checkpoint the model says it",
                 o->heads ? "--heads" : "--layers", o->heads ? o->heads : o->layers);
        return false;
    }
    if (source->checkpoint || !source->is_random)
        return true;
    complain("--random %" PRIu64 ": weights of blocks alone are random without it; with "
             "--checkpoint those of a model are",
             source->seed);
    return false;
}

static bool read_options(int argc, char **argv, struct prefill_options *o,
                         struct prefill_source *source)
{
    const struct option options[] = {
        {"--tokens", OPTION_NUMBER, &o->tokens, 1, RT_MAX_CHUNK, NULL},
        {"--chunk", OPTION_NUMBER, &o->chunk, 1, RT_MAX_CHUNK, NULL},
        {"--batch", OPTION_NUMBER, &o->batch, 1, RT_MAX_MIXED_ROWS, NULL},
        {"--length", OPTION_NUMBER, &o->past, 0, RT_MAX_LENGTH - 1, &o->has_past},
        {"--steps", OPTION_NUMBER, &o->steps, 1, 100000, NULL},
        {"--heads", OPTION_NUMBER, &o->heads, 1, RT_MAX_HEADS, NULL},
        {"--layers", OPTION_NUMBER, &o->layers, 1, RT_MAX_LAYERS, NULL},
        {"--checkpoint", OPTION_TEXT, &source->checkpoint, 0, 0, NULL},
        {"--random", OPTION_NUMBER, &source->seed, 0, UINT64_MAX, &source->is_random},
        {"--tflops", OPTION_REAL, &o->tflops, 0, 1000000, NULL},
        {"--gbps", OPTION_REAL, &o->gbps, 0, 1000000, NULL},
        {"--device", OPTION_DEVICE, &o->device, 0, 0, NULL},
        {"--json", OPTION_FLAG, &o->json, 0, 0, NULL},
    };
    if (!options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), &o->path))
        return false;
    if (!check_source(o, source))
        return false;
    if (o->tflops > 0 && o->gbps > 0)
        return true;
    complain("%s 0: expected a number above 0", o->tflops > 0 ? "--gbps" : "--tflops");
    return false;
}

static int by_number(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* A graph for each length, and for the chunk that a step decodes beside. */
static void set_chunks(struct prefill_bench *b)
{
    struct rt_config *c = &b->config;
    memset(c->chunks, 0, sizeof(c->chunks));
    c->chunk_count = 0;
    for (uint32_t i = 0; i <= b->length_count; i++) {
        const uint32_t chunk = i < b->length_count ? b->lengths[i] : (uint32_t)b->o.chunk;
        uint32_t k = 0;
        while (k < c->chunk_count && c->chunks[k] != chunk)
            k++;
        if (k == c->chunk_count)
            c->chunks[c->chunk_count++] = chunk;
    }
    qsort(c->chunks, c->chunk_count, sizeof(*c->chunks), by_number);
}

/* What is measured and no more: a batch size, a prompt, and pages for them. */
static void fit(struct prefill_bench *b)
{
    struct rt_config *c = &b->config;
    set_chunks(b);
    const uint32_t longest = c->chunks[c->chunk_count - 1], rows = (uint32_t)b->o.batch;
    const uint32_t past = (uint32_t)b->o.past + 1;
    memset(c->batch_sizes, 0, sizeof(c->batch_sizes));
    memset(c->query_lens, 0, sizeof(c->query_lens));
    memset(c->mixed_rows, 0, sizeof(c->mixed_rows));
    c->batch_sizes[0] = c->mixed_rows[0] = rows;
    c->batch_size_count = c->query_len_count = c->mixed_row_count = c->query_lens[0] = 1;
    c->prefill_rows = 1;
    c->context_piece = 0;
    c->max_sequences = rows + 1;
    c->max_length = longest > past ? longest : past;
    c->pages = (uint64_t)rows * (past / c->page_size + 1) + longest / c->page_size + 1;
}

/* False, and maybe no error: a configuration of another model has had its message. */
static bool load_model(struct prefill_bench *b)
{
    const struct rt_config file = b->config;
    return prefill_source_read(&b->source, &b->config, &b->error) == RT_OK &&
           (!b->source.checkpoint || decode_agree(b->o.path, &file, &b->source.model));
}

/* What the model was not made for is refused where it is asked for. Where it is not, lengths stop
 * there: a model says how many positions it has, or 0. */
static enum rt_status check_positions(const struct prefill_options *o, uint32_t most,
                                      struct rt_error *err)
{
    RT_REQUIRE(!most || o->tokens <= most, err, RT_ERR_LENGTH,
               "--tokens %" PRIu64 ": the model's max_position_embeddings is %u", o->tokens, most);
    RT_REQUIRE(!most || o->chunk <= most, err, RT_ERR_LENGTH,
               "--chunk %" PRIu64 ": the model's max_position_embeddings is %u", o->chunk, most);
    RT_REQUIRE(!most || o->past < most, err, RT_ERR_LENGTH,
               "--length %" PRIu64 " and the token behind it are %" PRIu64
               ": the model's max_position_embeddings is %u",
               o->past, o->past + 1, most);
    return RT_OK;
}

/* The device is opened to know which it is: auto may be either. */
static enum rt_status choose_standard(const char *device, const struct standard **out,
                                      struct rt_error *err)
{
    struct rt_driver driver;
    RT_TRY(rt_driver_open(device, &driver, NULL, 0, err));
    *out = driver.caps.kind == RT_DEVICE_KIND_HOST ? &host_standard : &gpu_standard;
    rt_driver_close(&driver);
    return RT_OK;
}

/* Of the checkpoint's model; 0: it does not say, or there is none. */
static uint32_t max_positions(const struct prefill_bench *b)
{
    return b->source.checkpoint ? b->source.model.max_positions : 0;
}

/* Whether the configuration and the model have what the command line asks for; false after a
 * message. */
static bool suits(struct prefill_bench *b)
{
    if (!b->config.layer) {
        complain("%s: bench prefill measures layer: true, or a model (--checkpoint)", b->o.path);
        return false;
    }
    if (check_positions(&b->o, max_positions(b), &b->error) == RT_OK)
        return true;
    complain("%s", b->error.message);
    return false;
}

static enum rt_status complete(struct prefill_bench *b)
{
    struct prefill_options *const o = &b->o;
    const struct standard *standard;
    const uint32_t positions = max_positions(b);
    const uint32_t most = positions ? positions : UINT32_MAX;
    RT_TRY(choose_standard(b->config.device, &standard, &b->error));
    o->chunk = o->chunk ? o->chunk : rt_min_u32(standard->chunk, most);
    o->batch = o->batch ? o->batch : standard->batch;
    o->steps = o->steps ? o->steps : standard->steps;
    o->past = o->has_past ? o->past : rt_min_u32(standard->past, most - 1);
    b->lengths[b->length_count++] =
        o->tokens ? (uint32_t)o->tokens : rt_min_u32(standard->lengths[0], most);
    for (uint32_t i = 1; !o->tokens && i < MOST_LENGTHS && standard->lengths[i]; i++)
        if (standard->lengths[i] <= most)
            b->lengths[b->length_count++] = standard->lengths[i];
    b->report.steps = (uint32_t)o->steps;
    return RT_OK;
}

static enum rt_status load(struct prefill_bench *b)
{
    struct rt_config *c = &b->config;
    RT_TRY(rt_config_load(b->o.path, c, &b->error));
    if (!load_model(b))
        return b->error.status != RT_OK ? b->error.status : RT_ERR_CONFIG;
    if (b->o.heads)
        c->geometry.heads = (uint32_t)b->o.heads;
    if (b->o.layers)
        c->geometry.layers = (uint32_t)b->o.layers;
    if (b->o.device)
        (void)snprintf(c->device, sizeof(c->device), "%s", b->o.device);
    return RT_OK;
}

static int bench(struct prefill_bench *b, int argc, char **argv)
{
    b->o = (struct prefill_options){.tflops = ROOFLINE_TFLOPS, .gbps = ROOFLINE_GBPS};
    b->source.seed = SEED;
    if (!read_options(argc, argv, &b->o, &b->source))
        return EXIT_USAGE;
    b->report.tflops = b->o.tflops;
    b->report.gbps = b->o.gbps;
    enum rt_status status = load(b);
    if (status == RT_OK && !suits(b))
        return EXIT_USAGE;
    if (status == RT_OK)
        status = complete(b);
    if (status == RT_OK) {
        fit(b);
        b->report.json = b->o.json ? cJSON_CreateObject() : NULL;
        status = run_all(b);
        prefill_report_end(&b->report);
    }
    if (status == RT_OK)
        return EXIT_OK;
    if (b->error.status != RT_OK)
        complain_failure(status, b->error.message);
    return EXIT_FAILED;
}

int cmd_bench_prefill(int argc, char **argv)
{
    struct prefill_bench *b = calloc(1, sizeof(*b));
    if (!b) {
        complain("out of host memory");
        return EXIT_FAILED;
    }
    const int code = bench(b, argc, argv);
    prefill_target_close(&b->target);
    free(b->hidden[0]);
    free(b->hidden[1]);
    free(b->tokens);
    free(b->ns);
    free(b);
    return code;
}
