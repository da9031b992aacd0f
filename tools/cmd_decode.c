/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt decode: a checkpoint's own tokens, one graph launch each. */
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/decode_options.h"
#include "tools/decode_report.h"
#include "tools/decode_run.h"
#include "tools/decode_setup.h"
#include "tools/decode_target.h"
#include "tools/tensor_file.h"

#include <stdlib.h>
#include <string.h>

enum { DUMP_LOGITS = 0, DUMP_TOKENS };

struct decode {
    struct decode_options options;
    struct rank_crew crew;
    struct decode_setup setup;
    struct decode_result result;
    struct tensor_file dump;                      /* zeroed without --dump */
    const struct token_list **prompts, **teacher; /* [rows] */
    struct rt_sampling *sampling;                 /* [rows] */
};

/* ---- the dump -------------------------------------------------------------------------------- */

static int begin_dump(struct decode *d)
{
    struct rt_error error = {.status = RT_OK};
    const struct decode_options *o = &d->options;
    const struct tensor_file_entry entries[] = {
        [DUMP_LOGITS] = {.name = "logits",
                         .dtype = RT_DTYPE_F32,
                         .rank = 3,
                         .shape = {o->rows, o->tokens, d->setup.model.vocab_size}},
        [DUMP_TOKENS] = {.name = "tokens",
                         .dtype = RT_DTYPE_I32,
                         .rank = 2,
                         .shape = {o->rows, o->tokens}},
    };
    if (!o->dump || d->crew.rank > 0 ||
        tensor_file_create(o->dump, entries, 2, &d->dump, &error) == RT_OK)
        return EXIT_OK;
    complain_failure(error.status, error.message);
    return EXIT_FAILED;
}

static bool dump_logits(void *user, uint32_t row, uint32_t index, const float *logits,
                        struct rt_error *error)
{
    struct decode *d = user;
    if (d->crew.rank > 0) /* whose logits are the same */
        return true;
    const uint64_t bytes = d->setup.model.vocab_size * sizeof(*logits);
    const uint64_t at = row * d->options.tokens + index;
    return tensor_file_write(&d->dump, DUMP_LOGITS, at * bytes, logits, bytes, error) == RT_OK;
}

static enum rt_status end_dump(struct decode *d, struct rt_error *error)
{
    const uint64_t count = d->options.rows * d->options.tokens;
    if (!d->options.dump || d->crew.rank > 0)
        return RT_OK;
    const enum rt_status status = tensor_file_write(&d->dump, DUMP_TOKENS, 0, d->result.tokens,
                                                    count * sizeof(*d->result.tokens), error);
    return status == RT_OK ? tensor_file_finish(&d->dump, error) : status;
}

/* ---- the run --------------------------------------------------------------------------------- */

_Static_assert(RT_MODEL_MAX_EOS <= RT_SAMPLING_STOPS, "every end is a stop");

/* Rows of the same prompt must not draw the same: each has a seed of its own. */
static struct rt_sampling sampling_of(const struct decode *d, uint32_t row)
{
    const struct decode_options *o = &d->options;
    const struct rt_model *model = &d->setup.model;
    struct rt_sampling s = {.temperature = (float)o->temperature,
                            .top_p = (float)o->top_p,
                            .top_k = (int32_t)o->top_k,
                            .seed = o->seed + row};
    for (uint32_t i = 0; i < RT_SAMPLING_STOPS; i++)
        s.stops[i] = i < model->eos_count && !o->ignore_eos ? model->eos[i] : -1;
    return s;
}

static bool make_rows(struct decode *d)
{
    const uint32_t rows = d->options.rows;
    d->prompts = calloc(rows, sizeof(*d->prompts));
    d->teacher = calloc(rows, sizeof(*d->teacher));
    d->sampling = calloc(rows, sizeof(*d->sampling));
    if (!d->prompts || !d->teacher || !d->sampling)
        return false;
    for (uint32_t row = 0; row < rows; row++) {
        d->prompts[row] = &d->options.prompts[row];
        d->teacher[row] = decode_options_teacher(&d->options, row);
        d->sampling[row] = sampling_of(d, row);
    }
    return true;
}

static enum rt_status run(struct decode *d, struct rt_error *error)
{
    const bool dump = d->options.dump != NULL;
    const struct decode_job job = {.decoder = d->setup.decoder,
                                   .rows = d->options.rows,
                                   .tokens = (uint32_t)d->options.tokens,
                                   .ahead = dump ? 1 : d->setup.ahead,
                                   .vocab = d->setup.model.vocab_size,
                                   .chunks = d->setup.config.chunk_count > 0,
                                   .every_step = d->crew.ranks > 0,
                                   .prompts = d->prompts,
                                   .teacher = d->options.teachers ? d->teacher : NULL,
                                   .sampling = d->sampling,
                                   .logits = dump ? dump_logits : NULL,
                                   .user = d};
    const enum rt_status status = decode_run(&job, &d->result, error);
    return status == RT_OK ? end_dump(d, error) : status;
}

static int report(const struct decode *d)
{
    rt_runtime *rt = rt_decoder_runtime(d->setup.decoder);
    struct decode_report report = {.options = &d->options,
                                   .setup = &d->setup,
                                   .result = &d->result,
                                   .stats = {.struct_size = sizeof(report.stats)}};
    const enum rt_status status = rt_get_stats(rt, &report.stats);
    if (status == RT_OK)
        decode_report_print(&report);
    else
        complain_failure(status, rt_last_error(rt)->message);
    return status == RT_OK ? EXIT_OK : EXIT_FAILED;
}

/* The dump comes before the weights: a path that cannot be written is known at once. */
static int decode(struct decode *d, int argc, char **argv)
{
    struct rt_error error = {.status = RT_OK};
    if (!decode_options_read(argc, argv, &d->options))
        return EXIT_USAGE;
    const struct decode_options *o = &d->options;
    if (o->dump && !decode_target_is_free(o->dump, o->checkpoint, o->config))
        return EXIT_USAGE;
    int code = decode_setup_read(o, &d->setup);
    if (code == EXIT_OK && o->ranks)
        code =
            rank_crew_begin((uint32_t)o->ranks, d->setup.config.device, &d->setup.config, &d->crew);
    if (code == EXIT_OK)
        code = begin_dump(d);
    if (code == EXIT_OK)
        code = decode_setup_join(&d->crew, &d->setup);
    if (code == EXIT_OK)
        code = decode_setup_load(&d->options, &d->setup);
    if (code != EXIT_OK)
        return code;
    if (!make_rows(d)) {
        complain("out of host memory for %u rows", d->options.rows);
        return EXIT_FAILED;
    }
    const enum rt_status status = run(d, &error);
    if (status == RT_OK)
        return d->crew.rank == 0 ? report(d) : EXIT_OK;
    complain_failure(status, error.message);
    return EXIT_FAILED;
}

int cmd_decode(int argc, char **argv)
{
    struct decode *d = calloc(1, sizeof(*d));
    if (!d) {
        complain("out of host memory");
        return EXIT_FAILED;
    }
    int code = decode(d, argc, argv);
    const bool all_gone = decode_setup_close(&d->setup);
    if (!rank_crew_end(&d->crew, code != EXIT_OK))
        code = EXIT_FAILED;
    tensor_file_abandon(&d->dump);
    decode_result_free(&d->result);
    decode_options_free(&d->options);
    free(d->prompts);
    free(d->teacher);
    free(d->sampling);
    free(d);
    if (!all_gone)
        rank_crew_leave(code);
    return code;
}
