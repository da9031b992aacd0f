/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole model to copy: a checkpoint in the Hugging Face layout decodes behind prompts, which are
 * one batch. Prompts go in token by token; what is chosen then stays on the device, so that the
 * host can launch steps ahead of it and read their tokens behind.
 *
 *   cc hf_decode.c $(pkg-config --cflags --libs replayrt)
 *   ./a.out DIR auto|host|cuda:N TOKENS 5,7,9 [1,2,3 ...]
 *
 * DIR has config.json and safetensors. Ids in and out: a tokenizer is what it lacks.
 */
#include <replayrt/decoder.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 64, MAX_PROMPT = 4096, AHEAD = 8 };

struct row {
    rt_seq seq;
    int32_t prompt[MAX_PROMPT];
    uint32_t length;  /* tokens of it */
    uint32_t printed; /* of those that were chosen */
    bool done;
};

struct batch {
    struct rt_model model;
    rt_decoder *decoder;
    rt_runtime *runtime;
    struct row rows[MAX_ROWS];
    uint32_t count, longest, wanted;
    uint32_t live; /* rows that are not done */
};

static bool good(const struct batch *b, enum rt_status status)
{
    if (status != RT_OK)
        fprintf(stderr, "hf_decode: %s\n", rt_last_error(b->runtime)->message);
    return status == RT_OK;
}

/* ---- the loop ----------------------------------------------------------------------------- */

/* A row still in its prompt names its token, and all of it stays. Behind that -1 is the token that
 * the row has chosen last, and the device says whether it stays: a row that has ended stands still.
 */
static enum rt_status launch(struct batch *b, uint32_t step, uint64_t *ticket)
{
    rt_seq seqs[MAX_ROWS];
    int32_t tokens[MAX_ROWS], accept[MAX_ROWS];
    for (uint32_t r = 0; r < b->count; r++) {
        const bool prompt = step < b->rows[r].length;
        seqs[r] = b->rows[r].seq;
        tokens[r] = prompt ? b->rows[r].prompt[step] : -1;
        accept[r] = prompt ? 1 : RT_ACCEPT_DEVICE;
    }
    const struct rt_step_params params = {.struct_size = sizeof params,
                                          .rows = b->count,
                                          .seqs = seqs,
                                          .tokens = tokens,
                                          .accept = accept};
    return rt_step(b->runtime, &params, ticket);
}

static bool ends(const struct rt_model *model, int32_t token)
{
    for (uint32_t i = 0; i < model->eos_count; i++)
        if (model->eos[i] == token)
            return true;
    return false;
}

/* What the step has chosen, of rows whose prompt is behind them. */
static bool collect(struct batch *b, uint32_t step, uint64_t ticket)
{
    struct rt_row_result results[MAX_ROWS];
    uint32_t count;
    if (!good(b, rt_wait(b->runtime, ticket, UINT64_MAX)) ||
        !good(b, rt_result(b->runtime, ticket, results, MAX_ROWS, &count)))
        return false;
    for (uint32_t r = 0; r < count; r++) {
        struct row *row = &b->rows[r];
        if (row->done || step + 1 < row->length)
            continue;
        printf("%" PRIu32 ": %" PRId32 "\n", r + 1, results[r].sampled);
        row->done = ++row->printed == b->wanted || ends(&b->model, results[r].sampled);
        b->live -= row->done;
    }
    return true;
}

/* The ring has a record for AHEAD steps: of a step that is further behind, nothing is left. */
static bool decode(struct batch *b)
{
    uint64_t tickets[AHEAD] = {0};
    uint32_t launched = 0, collected = 0;
    const uint32_t total = b->longest + b->wanted - 1;
    while (b->live > 0) {
        if (launched - collected < AHEAD && launched < total) {
            const enum rt_status status = launch(b, launched, &tickets[launched % AHEAD]);
            launched += status == RT_OK;
            if (status == RT_OK)
                continue;
            /* Busy: what steps in flight decide must be known first. */
            if (status != RT_ERR_BUSY || launched == collected)
                return good(b, status);
        }
        if (!collect(b, collected, tickets[collected % AHEAD]))
            return false;
        collected++;
    }
    return true;
}

/* ---- what surrounds it --------------------------------------------------------------------- */

static bool read_prompt(const char *text, struct row *row)
{
    char *end = NULL;
    for (const char *at = text; row->length < MAX_PROMPT; at = end + 1) {
        const long id = strtol(at, &end, 10);
        if (end == at || id < 0 || id > INT32_MAX || (*end && *end != ','))
            break;
        row->prompt[row->length++] = (int32_t)id;
        if (!*end)
            return true;
    }
    fprintf(stderr, "hf_decode: \"%s\" is no list of up to %d ids such as 5,7,9\n", text,
            MAX_PROMPT);
    return false;
}

/* One graph, as large as the batch, for sequences just as long as they become. */
static struct rt_config config_for(const struct batch *b, const char *device)
{
    struct rt_config config;
    rt_config_default(&config);
    (void)snprintf(config.device, sizeof config.device, "%s", device);
    memset(config.batch_sizes, 0, sizeof config.batch_sizes);
    config.batch_sizes[0] = b->count;
    config.batch_size_count = 1;
    config.max_sequences = b->count;
    config.max_length = b->longest + b->wanted;
    config.ring_depth = AHEAD;
    return config;
}

/* The library takes any id, and any length that its configuration has room for. */
static bool fits(const struct batch *b)
{
    const uint64_t length = (uint64_t)b->longest + b->wanted, most = b->model.max_positions;
    for (uint32_t r = 0; r < b->count; r++)
        for (uint32_t i = 0; i < b->rows[r].length; i++)
            if ((uint32_t)b->rows[r].prompt[i] >= b->model.vocab_size) {
                fprintf(stderr, "hf_decode: id %" PRId32 " is not below the model's %" PRIu32 "\n",
                        b->rows[r].prompt[i], b->model.vocab_size);
                return false;
            }
    if (most > 0 && length > most)
        fprintf(stderr, "hf_decode: %" PRIu64 " tokens are more than the model's %" PRIu64 "\n",
                length, most);
    return most == 0 || length <= most;
}

static bool create(struct batch *b, const char *folder, const char *device)
{
    struct rt_error error = {0};
    rt_checkpoint *checkpoint = NULL;
    const struct rt_config config = config_for(b, device);
    b->model.struct_size = sizeof b->model;
    bool made = rt_model_read(folder, &b->model, &error) == RT_OK;
    if (made && !fits(b))
        return false;
    made = made && rt_checkpoint_open(folder, &checkpoint, &error) == RT_OK;
    const struct rt_decoder_params params = {.struct_size = sizeof params,
                                             .config = &config,
                                             .model = &b->model,
                                             .checkpoint = checkpoint};
    made = made && rt_decoder_create(&params, &b->decoder, &error) == RT_OK;
    rt_checkpoint_close(&checkpoint); /* its weights are on the device */
    if (!made)
        fprintf(stderr, "hf_decode: %s\n", error.message);
    b->runtime = rt_decoder_runtime(b->decoder);
    return made;
}

/* Greedily, until the model's own end; rt_decoder_sample with more than null draws. */
static bool open_rows(struct batch *b)
{
    for (uint32_t r = 0; r < b->count; r++) {
        if (!good(b, rt_seq_open(b->runtime, NULL, &b->rows[r].seq)))
            return false;
        if (rt_decoder_sample(b->decoder, b->rows[r].seq, NULL) != RT_OK) {
            fprintf(stderr, "hf_decode: %s\n", rt_decoder_last_error(b->decoder)->message);
            return false;
        }
    }
    return true;
}

static bool run(struct batch *b, int argc, char **argv)
{
    char *end = NULL;
    const long wanted = strtol(argv[3], &end, 10);
    if (*end || wanted < 1 || wanted > RT_MAX_LENGTH || argc - 4 > MAX_ROWS) {
        fprintf(stderr, "hf_decode: 1 to %d tokens behind 1 to %d prompts, not %s behind %d\n",
                RT_MAX_LENGTH, MAX_ROWS, argv[3], argc - 4);
        return false;
    }
    b->wanted = (uint32_t)wanted;
    for (int i = 4; i < argc; i++) {
        struct row *row = &b->rows[b->count++];
        if (!read_prompt(argv[i], row))
            return false;
        b->longest = row->length > b->longest ? row->length : b->longest;
    }
    b->live = b->count;
    return create(b, argv[1], argv[2]) && open_rows(b) && decode(b);
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fputs("usage: hf_decode DIR auto|host|cuda:N TOKENS IDS [IDS ...]\n", stderr);
        return 2;
    }
    struct batch *b = calloc(1, sizeof *b);
    const bool done = b && run(b, argc, argv);
    if (b)
        rt_decoder_destroy(&b->decoder);
    free(b);
    if (fflush(stdout) != 0) {
        perror("hf_decode: standard output");
        return 1;
    }
    return done ? 0 : 1;
}
