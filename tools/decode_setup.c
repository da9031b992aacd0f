/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/decode_setup.h"

#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/decode_agree.h"
#include "tools/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int failed(enum rt_status status, const struct rt_error *error)
{
    complain_failure(status, error->message);
    return EXIT_FAILED;
}

static uint32_t longest_prompt(const struct decode_options *o)
{
    uint32_t longest = 0;
    for (uint32_t r = 0; r < o->rows; r++)
        if (o->prompts[r].count > longest)
            longest = o->prompts[r].count;
    return longest;
}

/* ---- the model ------------------------------------------------------------------------------- */

static bool known_ids(const char *option, const struct token_list *lists, uint32_t count,
                      const struct rt_model *model)
{
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k < lists[i].count; k++) {
            if ((uint32_t)lists[i].ids[k] < model->vocab_size)
                continue;
            complain("%s list %u: id %u is %d, the model's vocabulary has ids 0 to %u", option,
                     i + 1, k + 1, lists[i].ids[k], model->vocab_size - 1);
            return false;
        }
    return true;
}

/* What it was not made for gives tokens that mean nothing, and no other sign of it. */
static bool within(const char *whose, uint32_t most, const struct decode_options *o)
{
    const uint64_t length = longest_prompt(o) + o->tokens;
    if (length <= most)
        return true;
    complain("the longest prompt's %u tokens and --max-new-tokens %" PRIu64 " are %" PRIu64
             ": %s is %u",
             longest_prompt(o), o->tokens, length, whose, most);
    return false;
}

static bool fits_model(const struct decode_options *o, const struct rt_model *model)
{
    return known_ids("--prompt-ids", o->prompts, o->rows, model) &&
           known_ids("--teacher-ids", o->teacher, o->teachers, model) &&
           (!model->max_positions ||
            within("the model's max_position_embeddings", model->max_positions, o));
}

/* ---- the configuration ----------------------------------------------------------------------- */

/* All but every prompt's last token, which the first step feeds. */
static uint64_t prompt_tokens(const struct decode_options *o)
{
    uint64_t tokens = 0;
    for (uint32_t r = 0; r < o->rows; r++)
        tokens += o->prompts[r].count - 1;
    return tokens;
}

#define MOST_CHUNK 2048u /* beyond it a launch costs nothing beside its work */

/* One chunk size: for all tokens there are, or the size that is asked for. */
static void set_chunks(const struct decode_options *o, struct rt_config *c)
{
    uint64_t chunk = prompt_tokens(o);
    if (o->has_chunk)
        chunk = o->chunk;
    else if (o->config)
        return;
    memset(c->chunks, 0, sizeof(c->chunks));
    c->mixed_row_count = 0;
    chunk = chunk < MOST_CHUNK || o->has_chunk ? chunk : MOST_CHUNK;
    c->chunks[0] = (uint32_t)chunk;
    c->chunk_count = chunk > 0;
    if (chunk == 0)
        c->prefill_rows = c->context_piece = 0;
}

static void set_context(const struct decode_options *o, struct rt_config *c)
{
    if (o->context)
        c->context_parallel = (uint32_t)o->context;
}

/* One graph for steps, as large as the batch. */
static void config_for(const struct decode_options *o, struct rt_config *c)
{
    rt_config_default(c);
    memset(c->batch_sizes, 0, sizeof(c->batch_sizes));
    c->batch_sizes[0] = o->rows;
    c->batch_size_count = 1;
    c->max_sequences = o->rows;
    c->max_length = longest_prompt(o) + (uint32_t)o->tokens;
    set_chunks(o, c);
    set_context(o, c);
}

/* What the pool has; `source`: who says so. */
static bool has_pages(const struct decode_options *o, const struct rt_config *c, uint64_t pages,
                      const char *source)
{
    const uint64_t length = longest_prompt(o) + o->tokens - 1;
    const uint64_t page = (uint64_t)c->page_size * c->context_parallel;
    const uint64_t needed = o->rows * ((length + page - 1) / page);
    if (needed <= pages)
        return true;
    complain("%s has %" PRIu64 " pages of %" PRIu64 " tokens, %u sequences of %" PRIu64
             " tokens need %" PRIu64,
             source, pages, page, o->rows, length, needed);
    return false;
}

/* A step's replays of the ring's records. */
static bool has_ring(const struct decode_options *o, const struct rt_config *c, uint32_t *ahead)
{
    const uint32_t largest = c->batch_sizes[c->batch_size_count - 1];
    const uint32_t replays = (o->rows + largest - 1) / largest;
    *ahead = c->ring_depth / replays;
    if (*ahead)
        return true;
    complain("%s: a step of %u prompts is %u replays of %u rows, graphs.ring_depth is %u",
             o->config, o->rows, replays, largest, c->ring_depth);
    return false;
}

static bool fits_config(const struct decode_options *o, const struct rt_config *c)
{
    const uint32_t largest = c->batch_sizes[c->batch_size_count - 1];
    if (c->max_sequences < o->rows) {
        complain("%s: sequences.max is %u: %u prompts are one batch", o->config, c->max_sequences,
                 o->rows);
        return false;
    }
    if (c->query_lens[0] != 1) {
        complain("%s: graphs.query_lens begins with %u: tokens go in one by one, by a graph of 1",
                 o->config, c->query_lens[0]);
        return false;
    }
    if (o->dump && largest < o->rows) {
        complain("%s: the largest of graphs.batch_sizes is %u: --dump wants one for all %u prompts",
                 o->config, largest, o->rows);
        return false;
    }
    if (!within("the configuration's sequences.max_length", c->max_length, o))
        return false;
    return !c->pages || has_pages(o, c, c->pages, "the configuration's kv_cache.pages");
}

/* What --context says; a configuration's own context_parallel is told of by its key. */
static bool shares_context(const struct decode_options *o, const struct rt_model *model)
{
    const uint32_t heads = model->geometry.heads;
    if (o->context <= 1)
        return true;
    if (!o->ranks)
        complain("--context %" PRIu64 " without --ranks: it is ranks that share a context",
                 o->context);
    else if (o->ranks % o->context != 0)
        complain("--context %" PRIu64 " does not divide --ranks %" PRIu64, o->context, o->ranks);
    else if (heads % o->context != 0)
        complain("--context %" PRIu64 " does not divide the model's %" PRIu32 " heads", o->context,
                 heads);
    else
        return true;
    return false;
}

static int read_config(const struct decode_options *o, struct decode_setup *s)
{
    struct rt_error error = {.status = RT_OK};
    struct rt_config *c = &s->config;
    config_for(o, c);
    if (o->config) {
        const enum rt_status status = rt_config_load(o->config, c, &error);
        if (status != RT_OK)
            return failed(status, &error);
        set_chunks(o, c);
        set_context(o, c);
        if (!decode_agree(o->config, c, &s->model))
            return EXIT_FAILED;
        if (!fits_config(o, c))
            return EXIT_USAGE;
    }
    if (!has_ring(o, c, &s->ahead) || !shares_context(o, &s->model))
        return EXIT_USAGE;
    if (o->device)
        (void)snprintf(c->device, sizeof(c->device), "%s", o->device);
    if (o->precision)
        c->precision = strcmp(o->precision, "f32") ? RT_PRECISION_BF16 : RT_PRECISION_F32;
    c->geometry = s->model.geometry;
    c->block = s->model.block;
    c->layer = 1;
    c->input_norm = 1;
    const enum rt_status status = rt_config_check(c, &error);
    return status == RT_OK ? EXIT_OK : failed(status, &error);
}

/* ---- weights --------------------------------------------------------------------------------- */

static void on_log(void *user, enum rt_log_level level, const char *message)
{
    if (level != RT_LOG_WARNING)
        return;
    progress_end(user);
    complain("warning: %s", message);
}

static void on_loading(void *user, uint64_t done, uint64_t total)
{
    progress_show(user, "loading weights", done, total);
}

static void on_capturing(void *user, uint32_t done, uint32_t total)
{
    progress_show(user, "capturing graphs", done, total);
}

static int create(const struct rt_checkpoint *checkpoint, struct decode_setup *s)
{
    struct progress progress = progress_begin();
    struct rt_error error = {.status = RT_OK};
    const struct rt_decoder_params params = {.struct_size = sizeof(params),
                                             .config = &s->config,
                                             .model = &s->model,
                                             .checkpoint = checkpoint,
                                             .loading = on_loading,
                                             .capturing = on_capturing,
                                             .log = on_log,
                                             .user = &progress,
                                             .ranks = s->ranks};
    const enum rt_status status = rt_decoder_create(&params, &s->decoder, &error);
    progress_end(&progress);
    /* Ranks are never on the host by themselves, where one of them alone would be. */
    if (status == RT_ERR_NO_DEVICE && s->ranks)
        (void)rt_error_set(&error, status, "%s; --device host has all ranks there", error.message);
    return status == RT_OK ? EXIT_OK : failed(status, &error);
}

static enum rt_status open_weights(const struct decode_options *o, rt_checkpoint **out,
                                   struct rt_error *error)
{
    if (o->is_random)
        return rt_checkpoint_random(o->checkpoint, o->random, out, error);
    return rt_checkpoint_open(o->checkpoint, out, error);
}

/* ---- ranks ----------------------------------------------------------------------------------- */

int decode_setup_join(const struct rank_crew *crew, struct decode_setup *setup)
{
    struct rt_error error = {.status = RT_OK};
    const struct rt_ranks_params params = {.struct_size = sizeof(params),
                                           .rank = crew->rank,
                                           .ranks = crew->ranks,
                                           .path = crew->path};
    if (!crew->ranks)
        return EXIT_OK;
    rank_crew_device(crew, setup->config.device, sizeof(setup->config.device));
    const enum rt_status status = rt_ranks_create(&params, &setup->ranks, &error);
    return status == RT_OK ? EXIT_OK : failed(status, &error);
}

/* A config.json is a model's numbers, which random weights need alone. */
static bool has_weights(const struct decode_options *o)
{
    const size_t bytes = strlen(o->checkpoint);
    if (o->is_random || bytes < 5 || strcmp(o->checkpoint + bytes - 5, ".json") != 0)
        return true;
    complain("--checkpoint %s is a configuration, without weights: name its folder, or give "
             "--random SEED for random ones",
             o->checkpoint);
    return false;
}

/* ---- either ---------------------------------------------------------------------------------- */

int decode_setup_read(const struct decode_options *options, struct decode_setup *setup)
{
    struct rt_error error = {.status = RT_OK};
    setup->model.struct_size = sizeof(setup->model);
    if (!has_weights(options))
        return EXIT_USAGE;
    const enum rt_status status = rt_model_read(options->checkpoint, &setup->model, &error);
    if (status != RT_OK)
        return failed(status, &error);
    if (!fits_model(options, &setup->model))
        return EXIT_USAGE;
    return read_config(options, setup);
}

int decode_setup_load(const struct decode_options *options, struct decode_setup *setup)
{
    struct rt_error error = {.status = RT_OK};
    rt_checkpoint *checkpoint = NULL;
    enum rt_status status = open_weights(options, &checkpoint, &error);
    if (status != RT_OK)
        return failed(status, &error);
    const int code = create(checkpoint, setup);
    rt_checkpoint_close(&checkpoint);
    if (code != EXIT_OK)
        return code;
    rt_runtime *rt = rt_decoder_runtime(setup->decoder);
    setup->info.struct_size = sizeof(setup->info);
    setup->loaded.struct_size = sizeof(setup->loaded);
    status = rt_get_info(rt, &setup->info);
    if (status != RT_OK)
        return failed(status, rt_last_error(rt));
    status = rt_decoder_get_info(setup->decoder, &setup->loaded);
    if (status != RT_OK)
        return failed(status, rt_decoder_last_error(setup->decoder));
    return has_pages(options, &setup->config, setup->info.pages, "the device's memory")
               ? EXIT_OK
               : EXIT_FAILED;
}

bool decode_setup_close(struct decode_setup *setup)
{
    rt_decoder_destroy(&setup->decoder);
    return rt_ranks_destroy(&setup->ranks) == RT_OK;
}
