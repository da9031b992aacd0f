/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts to copy: several go in by rt_prefill, in chunks of hundreds of tokens a launch, and
 * decode; the last one arrives while they do and goes in part by part, each beside a token of all
 * others, so that nobody waits for it.
 *
 *   cc prompt_decode.c $(pkg-config --cflags --libs replayrt)
 *   ./a.out DIR auto|host|cuda:N TOKENS 5,7,9 [1,2,3 ...]
 *
 * DIR is a checkpoint in the Hugging Face layout. Ids in and out. The host looks at every step here
 * before it launches the next one; hf_decode has the loop that runs ahead.
 */
#include <replayrt/decoder.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_ROWS = 8,
    MAX_PROMPT = 4096,
    CHUNK = 512,      /* tokens of prompts in one launch */
    SMALL_CHUNK = 32, /* for what is left of one */
    RING = 64,        /* so that all prompts' chunks have their results still */
    LATE = 3          /* steps that the last prompt comes behind the others */
};

struct row {
    rt_seq seq;
    int32_t prompt[MAX_PROMPT];
    uint32_t length, fed; /* tokens of it */
    uint32_t printed;     /* of those that were chosen */
    bool done;
};

struct batch {
    struct rt_model model;
    rt_decoder *decoder;
    rt_runtime *runtime;
    struct row rows[MAX_ROWS];
    uint32_t count, longest, wanted;
};

static bool good(const struct batch *b, enum rt_status status)
{
    if (status != RT_OK)
        fprintf(stderr, "prompt_decode: %s\n", rt_last_error(b->runtime)->message);
    return status == RT_OK;
}

/* ---- prompts and steps --------------------------------------------------------------------- */

static void print(struct batch *b, uint32_t r, int32_t token)
{
    struct row *row = &b->rows[r];
    printf("%" PRIu32 ": %" PRId32 "\n", r + 1, token);
    row->done = ++row->printed == b->wanted;
    for (uint32_t i = 0; i < b->model.eos_count; i++)
        row->done = row->done || b->model.eos[i] == token;
}

/* All of them at once; the library cuts them into chunks. What a prompt's last token has chosen is
 * the result of the chunk that it ended in. */
static bool prefill(struct batch *b, uint32_t count)
{
    struct rt_prompt prompts[MAX_ROWS];
    uint64_t tickets[MAX_ROWS], last;
    uint32_t rows[MAX_ROWS];
    for (uint32_t r = 0; r < count; r++)
        prompts[r] = (struct rt_prompt){
            .seq = b->rows[r].seq, .tokens = b->rows[r].prompt, .count = b->rows[r].length};
    const struct rt_prefill_params params = {.struct_size = sizeof params,
                                             .prompts = prompts,
                                             .prompt_count = count,
                                             .tickets = tickets,
                                             .rows = rows};
    if (!good(b, rt_prefill(b->runtime, &params, &last)) ||
        !good(b, rt_wait(b->runtime, last, UINT64_MAX)))
        return false;
    for (uint32_t r = 0; r < count; r++) {
        struct rt_row_result results[MAX_ROWS];
        uint32_t held;
        if (!good(b, rt_result(b->runtime, tickets[r], results, MAX_ROWS, &held)))
            return false;
        b->rows[r].fed = b->rows[r].length;
        print(b, r, results[rows[r]].sampled);
    }
    return true;
}

/* One token of every row in `live`, and of row `late` the next part of its prompt, if it has one.
 * Results are the prompt's first. */
static bool step(struct batch *b, const uint32_t *live, uint32_t count, struct row *late)
{
    rt_seq seqs[MAX_ROWS];
    struct rt_row_result results[MAX_ROWS + 1];
    uint32_t held;
    uint64_t ticket;
    struct rt_prompt part = {.seq = 0};
    for (uint32_t i = 0; i < count; i++)
        seqs[i] = b->rows[live[i]].seq;
    if (late) {
        const uint32_t left = late->length - late->fed;
        part = (struct rt_prompt){.seq = late->seq,
                                  .tokens = late->prompt + late->fed,
                                  .count = left < CHUNK ? left : CHUNK};
        late->fed += part.count;
    }
    /* No tokens are named: each row goes on from what it has chosen last. */
    const struct rt_step_params params = {.struct_size = sizeof params,
                                          .rows = count,
                                          .seqs = seqs,
                                          .prompts = &part,
                                          .prompt_count = late ? 1 : 0};
    if (!good(b, rt_step(b->runtime, &params, &ticket)) ||
        !good(b, rt_wait(b->runtime, ticket, UINT64_MAX)) ||
        !good(b, rt_result(b->runtime, ticket, results, MAX_ROWS + 1, &held)))
        return false;
    if (late && late->fed == late->length)
        print(b, (uint32_t)(late - b->rows), results[0].sampled);
    for (uint32_t i = 0; i < count; i++)
        print(b, live[i], results[i + (late ? 1 : 0)].sampled);
    return true;
}

static bool decode(struct batch *b)
{
    struct row *const last = &b->rows[b->count - 1];
    const uint32_t early = b->count > 1 ? b->count - 1 : 1;
    if (!prefill(b, early))
        return false;
    for (uint32_t steps = 0;; steps++) {
        uint32_t live[MAX_ROWS], count = 0;
        for (uint32_t r = 0; r < b->count; r++)
            if (b->rows[r].fed == b->rows[r].length && !b->rows[r].done)
                live[count++] = r;
        const bool arrives = last->fed < last->length && (steps >= LATE || count == 0);
        if (count == 0 && !arrives)
            return true;
        if (!step(b, live, count, arrives ? last : NULL))
            return false;
    }
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
    fprintf(stderr, "prompt_decode: \"%s\" is no list of up to %d ids such as 5,7,9\n", text,
            MAX_PROMPT);
    return false;
}

/* A graph for steps, as large as the batch, and for each chunk two: alone and beside all rows. */
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
    config.ring_depth = RING;
    config.chunks[0] = SMALL_CHUNK;
    config.chunks[1] = CHUNK;
    config.chunk_count = 2;
    config.mixed_rows[0] = b->count;
    config.mixed_row_count = 1;
    return config;
}

/* The library takes any id, and any length that its configuration has room for. */
static bool fits(const struct batch *b)
{
    const uint64_t length = (uint64_t)b->longest + b->wanted, most = b->model.max_positions;
    for (uint32_t r = 0; r < b->count; r++)
        for (uint32_t i = 0; i < b->rows[r].length; i++)
            if ((uint32_t)b->rows[r].prompt[i] >= b->model.vocab_size) {
                fprintf(stderr,
                        "prompt_decode: id %" PRId32 " is not below the model's %" PRIu32 "\n",
                        b->rows[r].prompt[i], b->model.vocab_size);
                return false;
            }
    if (most > 0 && length > most)
        fprintf(stderr, "prompt_decode: %" PRIu64 " tokens are more than the model's %" PRIu64 "\n",
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
        fprintf(stderr, "prompt_decode: %s\n", error.message);
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
            fprintf(stderr, "prompt_decode: %s\n", rt_decoder_last_error(b->decoder)->message);
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
        fprintf(stderr, "prompt_decode: 1 to %d tokens behind 1 to %d prompts, not %s behind %d\n",
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
    return create(b, argv[1], argv[2]) && open_rows(b) && decode(b);
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fputs("usage: prompt_decode DIR auto|host|cuda:N TOKENS IDS [IDS ...]\n", stderr);
        return 2;
    }
    struct batch *b = calloc(1, sizeof *b);
    const bool done = b && run(b, argc, argv);
    if (b)
        rt_decoder_destroy(&b->decoder);
    free(b);
    if (fflush(stdout) != 0) {
        perror("prompt_decode: standard output");
        return 1;
    }
    return done ? 0 : 1;
}
