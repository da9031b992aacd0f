/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/decode_options.h"

#include "replayrt/rt_config.h"
#include "tools/complain.h"
#include "tools/options.h"
#include "tools/rank_crew.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MOST_TEMPERATURE 100

/* What is there, where being there means something, and the lists before they are read. */
struct given {
    struct option_texts prompts, teacher;
    bool checkpoint, config, device, precision, dump, tokens, temperature, top_k, top_p, seed;
};

static bool read_line(int argc, char **argv, struct decode_options *o, struct given *g)
{
    const struct option options[] = {
        {"--checkpoint", OPTION_TEXT, &o->checkpoint, 0, 0, &g->checkpoint},
        {"--prompt-ids", OPTION_TEXTS, &g->prompts, 0, 0, NULL},
        {"--max-new-tokens", OPTION_NUMBER, &o->tokens, 1, RT_MAX_LENGTH, &g->tokens},
        {"--chunk", OPTION_NUMBER, &o->chunk, 0, RT_MAX_CHUNK, &o->has_chunk},
        {"--config", OPTION_TEXT, &o->config, 0, 0, &g->config},
        {"--device", OPTION_DEVICE, &o->device, 0, 0, &g->device},
        {"--precision", OPTION_TEXT, &o->precision, 0, 0, &g->precision},
        {"--teacher-ids", OPTION_TEXTS, &g->teacher, 0, 0, NULL},
        {"--temperature", OPTION_REAL, &o->temperature, 0, MOST_TEMPERATURE, &g->temperature},
        {"--top-k", OPTION_NUMBER, &o->top_k, 1, INT32_MAX, &g->top_k},
        {"--top-p", OPTION_REAL, &o->top_p, 0, 1, &g->top_p},
        {"--seed", OPTION_NUMBER, &o->seed, 0, UINT64_MAX, &g->seed},
        {"--ignore-eos", OPTION_FLAG, &o->ignore_eos, 0, 0, NULL},
        {"--ranks", OPTION_NUMBER, &o->ranks, 1, RANK_CREW_MOST, NULL},
        {"--context", OPTION_NUMBER, &o->context, 1, RT_MAX_CONTEXT_RANKS, NULL},
        {"--random", OPTION_NUMBER, &o->random, 0, UINT64_MAX, &o->is_random},
        {"--dump", OPTION_TEXT, &o->dump, 0, 0, &g->dump},
        {"--json", OPTION_FLAG, &o->json, 0, 0, NULL},
    };
    return options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), NULL);
}

static bool check_needed(const struct given *g)
{
    const char *missing = !g->checkpoint      ? "--checkpoint"
                          : !g->prompts.count ? "--prompt-ids"
                          : !g->tokens        ? "--max-new-tokens"
                                              : NULL;
    if (missing)
        complain("decode needs %s; see replayrt decode --help", missing);
    return !missing;
}

/* What only sampling reads says that somebody thinks it samples. */
static bool check_sampling(const struct decode_options *o, const struct given *g)
{
    const char *idle = g->top_k ? "--top-k" : g->top_p ? "--top-p" : g->seed ? "--seed" : NULL;
    if (idle && !(o->temperature > 0)) {
        complain("%s without a --temperature above 0: the likeliest token is taken", idle);
        return false;
    }
    return true;
}

/* As the library has it, a float; of no token, 0, there is nothing to draw. */
static bool check_top_p(const struct decode_options *o)
{
    if ((float)o->top_p > 0)
        return true;
    complain("--top-p %g: expected a number above 0, at most 1", o->top_p);
    return false;
}

static bool check_words(const struct decode_options *o)
{
    if (!o->precision || !strcmp(o->precision, "bf16") || !strcmp(o->precision, "f32"))
        return true;
    complain("--precision %s: expected bf16 or f32", o->precision);
    return false;
}

/* ---- lists ----------------------------------------------------------------------------------- */

static bool read_lists(const char *option, const struct option_texts *texts,
                       struct token_list **lists, uint32_t *count)
{
    *lists = calloc(texts->count, sizeof(**lists));
    if (!*lists) {
        complain("out of host memory for %u lists", texts->count);
        return false;
    }
    for (*count = 0; *count < texts->count; ++*count)
        if (!token_list_read(option, texts->texts[*count], &(*lists)[*count]))
            return false;
    return true;
}

/* The last token that is generated is fed to nobody. */
static bool check_teacher(const struct decode_options *o)
{
    if (o->teachers > 1 && o->teachers != o->rows) {
        complain("--teacher-ids is given %u times for %u prompts: expected once for all, or once "
                 "for each",
                 o->teachers, o->rows);
        return false;
    }
    for (uint32_t i = 0; i < o->teachers; i++) {
        if (o->teacher[i].count + UINT64_C(1) >= o->tokens)
            continue;
        complain("--teacher-ids list %u has %u ids: --max-new-tokens %" PRIu64 " needs %" PRIu64,
                 i + 1, o->teacher[i].count, o->tokens, o->tokens - 1);
        return false;
    }
    return true;
}

static bool read_all_lists(struct decode_options *o, const struct given *g)
{
    if (g->prompts.count > RT_MAX_BATCH) {
        complain("--prompt-ids is given %u times: one batch has at most %d rows", g->prompts.count,
                 RT_MAX_BATCH);
        return false;
    }
    if (!read_lists("--prompt-ids", &g->prompts, &o->prompts, &o->rows))
        return false;
    return !g->teacher.count ||
           (read_lists("--teacher-ids", &g->teacher, &o->teacher, &o->teachers) &&
            check_teacher(o));
}

/* ---- either ---------------------------------------------------------------------------------- */

bool decode_options_read(int argc, char **argv, struct decode_options *options)
{
    struct given g = {.prompts = {.count = 0}};
    const size_t most = (size_t)argc + 1;
    g.prompts.texts = calloc(most, sizeof(*g.prompts.texts));
    g.teacher.texts = calloc(most, sizeof(*g.teacher.texts));
    options->top_p = 1;
    bool good = g.prompts.texts && g.teacher.texts;
    if (!good)
        complain("out of host memory");
    good = good && read_line(argc, argv, options, &g) && check_needed(&g) && check_top_p(options) &&
           check_sampling(options, &g) && check_words(options) && read_all_lists(options, &g);
    free(g.prompts.texts);
    free(g.teacher.texts);
    return good;
}

static void free_lists(struct token_list *lists, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        token_list_free(&lists[i]);
    free(lists);
}

void decode_options_free(struct decode_options *options)
{
    free_lists(options->prompts, options->rows);
    free_lists(options->teacher, options->teachers);
    *options = (struct decode_options){.checkpoint = NULL};
}

const struct token_list *decode_options_teacher(const struct decode_options *options, uint32_t row)
{
    if (!options->teachers)
        return NULL;
    return &options->teacher[options->teachers > 1 ? row : 0];
}
