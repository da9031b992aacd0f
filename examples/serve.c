/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Continuous batching to copy: requests come and go at any time, and every step has whoever is
 * there. Prompts go in by chunks beside the rows that decode, in the same launch; where prompts
 * begin alike they share their pages; a row that is over makes room for the next step's.
 *
 *   cc -I. examples/serve*.c $(pkg-config --cflags --libs replayrt)
 *   ./a.out CONFIG.yaml DIR [REQUESTS.jsonl]
 *
 * CONFIG.yaml says how many rows, pages and tokens there are, with prefill.chunks; DIR is the
 * model's checkpoint. Requests come from a file or the standard input, one a line, as
 * serve_requests.h has them; their arrive_step stands for the time that a socket would bring them.
 * An answer is a line, when its request is over, and the last line has the totals:
 *
 *   {"id": "a", "tokens": [3, 12, 1], "waited": 0, "steps": 3}
 *   {"line": 4, "id": "b", "error": "max_new_tokens is 0: expected ..."}
 *   {"requests": 2, "refused": 1, "steps": 3, "tokens": 3, "mean_rows": 1.000, "shared_tokens": 0}
 *
 * waited counts the steps from a request's arrival to its first, steps those that it was in. Ids in
 * and out: a tokenizer is what it lacks. docs/prompts.md, "In a server", has this loop in words.
 */
#include "examples/serve_prefixes.h"
#include "examples/serve_requests.h"

#include <replayrt/decoder.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Steps in flight: while the device is at one, the host launches the next and reads the last. */
enum { AHEAD = 2 };

/* A request on its way. What is launched is known at once, what came of it a step or two later. */
struct job {
    const struct request *asked;
    rt_seq seq;       /* 0: not open, or closed again */
    uint32_t fed;     /* tokens of the prompt that are launched, or were there in shared pages */
    uint32_t choices; /* tokens that launched steps choose */
    uint32_t count;   /* of these, those that have been read */
    int32_t *tokens;  /* [asked->wanted] */
    uint64_t waited, steps;
    bool done;
};

/* Of a step in flight, whose its results are, in their order. */
struct flight {
    uint64_t ticket;
    struct share {
        struct job *job;
        bool chooses; /* false: a part of a prompt that goes on, whose result means nothing */
    } * shares;       /* [sequences.max] */
    uint32_t count;
};

struct server {
    struct rt_config config;
    struct rt_model model;
    rt_decoder *decoder;
    rt_runtime *runtime;
    struct rt_info info;
    struct prefixes prefixes;
    const struct requests *requests;
    uint32_t next;        /* from this one on they have not begun */
    struct job *jobs;     /* one a request */
    struct job **running; /* [sequences.max], in the order they began in */
    uint32_t running_count;
    struct flight flights[AHEAD];
    uint32_t first, in_flight, ahead;
    uint64_t clock; /* steps launched, and those that nobody needed */
    uint64_t steps, rows, tokens, shared_tokens;
    uint32_t refused;
    /* Of a step, [sequences.max] each; results come from prompts first, then from rows. */
    struct rt_prompt *prompts;
    rt_seq *seqs;
    struct rt_row_result *results;
    struct rt_error error;
};

static bool good(struct server *s, enum rt_status status)
{
    if (status != RT_OK)
        s->error = *rt_last_error(s->runtime);
    return status == RT_OK;
}

/* ---- pages ----------------------------------------------------------------------------------- */

static uint32_t pages_of(const struct server *s, uint64_t tokens)
{
    return (uint32_t)((tokens + s->config.page_size - 1) / s->config.page_size);
}

/* At its longest: the last token that it chooses is in no page. */
static uint32_t most_pages(const struct server *s, const struct request *r)
{
    return pages_of(s, (uint64_t)r->length + r->wanted - 1);
}

/* What those that run have still to take. Who begins leaves it free, so that no step of theirs ever
 * finds too few. */
static uint64_t promised_pages(const struct server *s)
{
    uint64_t pages = 0;
    for (uint32_t i = 0; i < s->running_count; i++) {
        const struct job *job = s->running[i];
        const uint32_t held = job->fed + (job->choices > 0 ? job->choices - 1 : 0);
        pages += most_pages(s, job->asked) - pages_of(s, held);
    }
    return pages;
}

/* Makes room by forgetting beginnings. That which the request shares was asked for last, so it is
 * the last to go. */
static bool has_pages(struct server *s, const struct request *r, struct prefix **known,
                      uint32_t *shared)
{
    for (;;) {
        struct rt_stats stats = {.struct_size = sizeof stats};
        if (rt_get_stats(s->runtime, &stats) != RT_OK)
            return false;
        if (most_pages(s, r) - *shared + promised_pages(s) <= stats.free_pages)
            return true;
        if (!prefixes_forget(&s->prefixes))
            return false;
        if (*known && !(*known)->pages) {
            *known = NULL;
            *shared = 0;
        }
    }
}

/* ---- requests come and go -------------------------------------------------------------------- */

static void answer(struct server *s, const struct job *job)
{
    printf("{\"id\": %s, \"tokens\": [", job->asked->id);
    for (uint32_t i = 0; i < job->count; i++)
        printf("%s%" PRId32, i > 0 ? ", " : "", job->tokens[i]);
    printf("], \"waited\": %" PRIu64 ", \"steps\": %" PRIu64 "}\n", job->waited, job->steps);
    (void)fflush(stdout); /* who asked waits for it */
    s->tokens += job->count;
}

/* Its pages and its place are free at once: steps in flight do not mind. */
static bool leave(struct server *s, struct job *job)
{
    uint32_t at = 0;
    while (s->running[at] != job)
        at++;
    s->running_count--;
    memmove(&s->running[at], &s->running[at + 1], (s->running_count - at) * sizeof *s->running);
    const rt_seq seq = job->seq;
    job->seq = 0;
    return good(s, rt_seq_close(s->runtime, seq));
}

/* Opens a sequence for it, on the pages of the longest beginning that is known. One token of the
 * prompt at least is left to step through, for what comes behind it. */
static enum rt_status begin(struct server *s, struct job *job, const struct request *r)
{
    uint32_t shared;
    struct prefix *known = prefixes_find(&s->prefixes, r->prompt, r->length - 1, &shared);
    if (!has_pages(s, r, &known, &shared))
        return rt_error_set(&s->error, RT_ERR_PAGES, "line %" PRIu32 ": no %" PRIu32 " free pages",
                            r->line, most_pages(s, r));
    const struct rt_seq_params params = {.struct_size = sizeof params,
                                         .length = shared * s->config.page_size,
                                         .last_token = -1,
                                         .shared_pages = known ? known->pages : NULL,
                                         .shared_count = shared};
    if (!good(s, rt_seq_open(s->runtime, &params, &job->seq)))
        return s->error.status;
    job->asked = r;
    job->fed = params.length;
    job->tokens = malloc(r->wanted * sizeof *job->tokens);
    job->waited = s->clock - r->arrives;
    s->shared_tokens += job->fed;
    s->running[s->running_count++] = job;
    if (!job->tokens)
        return rt_error_set(&s->error, RT_ERR_NOMEM, "out of memory");
    /* Greedily, to the model's end. As all are the same here the slot has it, and nothing waits. */
    const enum rt_status status = rt_decoder_sample(s->decoder, job->seq, NULL);
    if (status != RT_OK)
        s->error = *rt_decoder_last_error(s->decoder);
    return status;
}

/* Who comes next, null: nobody. */
static const struct request *awaited(struct server *s)
{
    const struct requests *const all = s->requests;
    while (s->next < all->count && all->list[s->next].error.status != RT_OK)
        s->next++; /* it was refused */
    return s->next < all->count ? &all->list[s->next] : NULL;
}

/* First come, first served: who needs many pages is not overtaken for ever by who needs few. */
static bool admit(struct server *s)
{
    const struct request *r;
    while ((r = awaited(s)) && r->arrives <= s->clock &&
           s->running_count < s->config.max_sequences) {
        const enum rt_status status = begin(s, &s->jobs[s->next], r);
        if ((status == RT_ERR_PAGES || status == RT_ERR_BUSY) && s->running_count + s->in_flight) {
            s->error.status = RT_OK; /* there will be a later step */
            return true;
        }
        if (status != RT_OK)
            return false;
        s->next++;
    }
    return true;
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* A part of every prompt that the chunk has room for, in front of a token of all other rows. */
static struct rt_step_params compose(struct server *s, struct flight *flight)
{
    const struct rt_config *const c = &s->config;
    const uint32_t places = c->prefill_rows ? c->prefill_rows : RT_PREFILL_ROWS;
    uint32_t room = c->chunks[c->chunk_count - 1], prompts = 0, rows = 0;
    uint64_t cached = 0; /* in front of the prompts' parts: a chunk has one sequence's, at most */
    for (uint32_t i = 0; i < s->running_count; i++) {
        struct job *const job = s->running[i];
        const uint32_t left = job->asked->length - job->fed, part = left < room ? left : room;
        if (part == 0 || prompts == places || cached + job->fed > c->max_length)
            continue;
        s->prompts[prompts] = (struct rt_prompt){
            .seq = job->seq, .tokens = job->asked->prompt + job->fed, .count = part};
        flight->shares[prompts++] = (struct share){job, part == left};
        cached += job->fed;
        room -= part;
    }
    for (uint32_t i = 0; i < s->running_count; i++) {
        struct job *const job = s->running[i];
        if (job->fed < job->asked->length)
            continue;
        s->seqs[rows] = job->seq;
        flight->shares[prompts + rows++] = (struct share){job, true};
    }
    flight->count = prompts + rows;
    /* No tokens are named: a row goes on from what it has chosen last, which only the device knows
     * yet. */
    return (struct rt_step_params){.struct_size = sizeof(struct rt_step_params),
                                   .rows = rows,
                                   .seqs = s->seqs,
                                   .prompts = s->prompts,
                                   .prompt_count = prompts};
}

/* As soon as a prompt is launched others may begin with its pages: their steps come behind it. */
static bool keep_prompt(struct server *s, const struct job *job)
{
    const struct request *const r = job->asked;
    const uint32_t pages = r->length / s->config.page_size;
    uint32_t shared;
    (void)prefixes_find(&s->prefixes, r->prompt, r->length, &shared);
    return shared == pages ||
           prefixes_keep(&s->prefixes, job->seq, r->prompt, pages, &s->error) == RT_OK;
}

/* What is launched is as good as done. Who has its last token coming leaves with it. */
static bool note(struct server *s, const struct rt_step_params *params, struct flight *flight)
{
    bool fine = true;
    for (uint32_t i = 0; fine && i < flight->count; i++) {
        const struct share *const share = &flight->shares[i];
        struct job *const job = share->job;
        if (i < params->prompt_count)
            job->fed += params->prompts[i].count;
        job->choices += share->chooses;
        if (i < params->prompt_count && share->chooses)
            fine = keep_prompt(s, job);
        if (fine && job->choices == job->asked->wanted)
            fine = leave(s, job);
    }
    s->clock++;
    s->steps++;
    s->rows += flight->count;
    s->in_flight++;
    return fine;
}

/* False where nothing was launched: busy, nothing to do, or a failure, which s->error has. */
static bool launch(struct server *s)
{
    struct flight *const flight = &s->flights[(s->first + s->in_flight) % AHEAD];
    const struct rt_step_params params = compose(s, flight);
    if (flight->count == 0)
        return false;
    const enum rt_status status = rt_step(s->runtime, &params, &flight->ticket);
    if (status == RT_ERR_BUSY && s->in_flight > 0)
        return false;
    return good(s, status) && note(s, &params, flight);
}

static bool ends(const struct rt_model *model, int32_t token)
{
    for (uint32_t i = 0; i < model->eos_count; i++)
        if (model->eos[i] == token)
            return true;
    return false;
}

/* What the oldest step in flight has chosen. A row that turns out to have ended is in the next step
 * all the same, which is launched; what comes of it there is nobody's. */
static bool collect(struct server *s)
{
    struct flight *const flight = &s->flights[s->first];
    uint32_t count;
    if (!good(s, rt_wait(s->runtime, flight->ticket, UINT64_MAX)) ||
        !good(s,
              rt_result(s->runtime, flight->ticket, s->results, s->config.max_sequences, &count)))
        return false;
    s->first = (s->first + 1) % AHEAD;
    s->in_flight--;
    for (uint32_t i = 0; i < flight->count; i++) {
        struct job *const job = flight->shares[i].job;
        if (job->done)
            continue;
        job->steps++;
        if (!flight->shares[i].chooses)
            continue;
        job->tokens[job->count++] = s->results[i].sampled;
        job->done = job->count == job->asked->wanted || ends(&s->model, s->results[i].sampled);
        if (job->done)
            answer(s, job);
        if (job->done && job->seq && !leave(s, job))
            return false;
    }
    return true;
}

static bool serve(struct server *s)
{
    for (;;) {
        if (!admit(s))
            return false;
        if (launch(s) && s->in_flight < s->ahead)
            continue;
        if (s->error.status != RT_OK)
            return false;
        if (s->in_flight > 0 && !collect(s))
            return false;
        if (s->in_flight + s->running_count > 0)
            continue;
        const struct request *const r = awaited(s);
        if (!r)
            return true;
        /* Nobody is there: nothing happens until somebody comes. */
        s->clock = r->arrives > s->clock ? r->arrives : s->clock;
    }
}

/* ---- what surrounds it ----------------------------------------------------------------------- */

/* What can never be served is told of at once, and nobody else minds. */
static void check(const struct server *s, struct request *r)
{
    const uint64_t length = (uint64_t)r->length + r->wanted, positions = s->model.max_positions;
    const uint64_t most =
        positions && positions < s->config.max_length ? positions : s->config.max_length;
    if (r->error.status != RT_OK)
        return;
    if (length > most)
        (void)rt_error_set(&r->error, RT_ERR_LENGTH,
                           "%" PRIu32 " prompt_ids and max_new_tokens %" PRIu32 " are %" PRIu64
                           " tokens: a sequence has %" PRIu64 " here",
                           r->length, r->wanted, length, most);
    else if (most_pages(s, r) > s->info.pages)
        (void)rt_error_set(&r->error, RT_ERR_PAGES,
                           "%" PRIu64 " tokens need %" PRIu32 " pages: there are %" PRIu64,
                           length - 1, most_pages(s, r), s->info.pages);
    for (uint32_t i = 0; r->error.status == RT_OK && i < r->length; i++)
        if ((uint32_t)r->prompt[i] >= s->model.vocab_size)
            (void)rt_error_set(&r->error, RT_ERR_INVALID,
                               "prompt_ids: id %" PRIu32 " is %" PRId32
                               ": the model has ids below %" PRIu32,
                               i + 1, r->prompt[i], s->model.vocab_size);
}

static void refuse(struct server *s, const struct request *r)
{
    printf("{\"line\": %" PRIu32 ", \"id\": %s, \"error\": \"", r->line, r->id ? r->id : "null");
    for (const char *at = r->error.message; *at; at++)
        printf(*at == '"' || *at == '\\' ? "\\%c" : "%c", *at);
    puts("\"}");
    s->refused++;
}

static bool take_requests(struct server *s, const struct requests *requests)
{
    s->requests = requests;
    s->jobs = calloc(requests->count + 1, sizeof *s->jobs);
    if (!s->jobs)
        return rt_error_set(&s->error, RT_ERR_NOMEM, "out of memory"), false;
    for (uint32_t i = 0; i < requests->count; i++) {
        check(s, &requests->list[i]);
        if (requests->list[i].error.status != RT_OK)
            refuse(s, &requests->list[i]);
    }
    return true;
}

/* Records of the ring that a step takes: a chunk's, those of rows that have no room beside it, and
 * one where sequences that were opened have more to say than a step's has room for. */
static bool fits_ring(struct server *s, const char *path)
{
    const struct rt_config *const c = &s->config;
    const uint32_t largest = c->batch_sizes[c->batch_size_count - 1];
    const uint32_t records = 2 + (c->max_sequences + largest - 1) / largest;
    const uint32_t ahead = c->ring_depth / records;
    s->ahead = ahead < AHEAD ? ahead : AHEAD;
    if (c->chunk_count == 0)
        (void)rt_error_set(&s->error, RT_ERR_CONFIG,
                           "%s: prefill.chunks is missing: prompts go in by chunks", path);
    else if (ahead == 0)
        (void)rt_error_set(&s->error, RT_ERR_CONFIG,
                           "%s: graphs.ring_depth is %" PRIu32 ": a step of %" PRIu32
                           " sequences takes up to %" PRIu32 " records",
                           path, c->ring_depth, c->max_sequences, records);
    return s->error.status == RT_OK;
}

static bool create(struct server *s, const char *path, const char *folder)
{
    struct rt_config *const c = &s->config;
    rt_checkpoint *checkpoint = NULL;
    rt_config_default(c);
    s->model.struct_size = sizeof s->model;
    if (rt_config_load(path, c, &s->error) != RT_OK || !fits_ring(s, path) ||
        rt_model_read(folder, &s->model, &s->error) != RT_OK ||
        rt_checkpoint_open(folder, &checkpoint, &s->error) != RT_OK)
        return false;
    const struct rt_decoder_params params = {
        .struct_size = sizeof params, .config = c, .model = &s->model, .checkpoint = checkpoint};
    const enum rt_status status = rt_decoder_create(&params, &s->decoder, &s->error);
    rt_checkpoint_close(&checkpoint); /* its weights are on the device */
    if (status != RT_OK)
        return false;
    s->runtime = rt_decoder_runtime(s->decoder);
    s->prefixes = (struct prefixes){.runtime = s->runtime, .page_size = c->page_size};
    s->info.struct_size = sizeof s->info;
    s->running = calloc(c->max_sequences, sizeof *s->running);
    s->prompts = calloc(c->max_sequences, sizeof *s->prompts);
    s->seqs = calloc(c->max_sequences, sizeof *s->seqs);
    s->results = calloc(c->max_sequences, sizeof *s->results);
    bool made = s->running && s->prompts && s->seqs && s->results;
    for (uint32_t i = 0; i < AHEAD; i++) {
        s->flights[i].shares = calloc(c->max_sequences, sizeof *s->flights[i].shares);
        made = made && s->flights[i].shares;
    }
    if (!made)
        (void)rt_error_set(&s->error, RT_ERR_NOMEM, "out of memory");
    return made && good(s, rt_get_info(s->runtime, &s->info));
}

static void destroy(struct server *s)
{
    if (s->runtime)
        prefixes_clear(&s->prefixes);
    rt_decoder_destroy(&s->decoder);
    for (uint32_t i = 0; s->jobs && i < s->requests->count; i++)
        free(s->jobs[i].tokens);
    for (uint32_t i = 0; i < AHEAD; i++)
        free(s->flights[i].shares);
    free(s->jobs);
    free((void *)s->running);
    free(s->prompts);
    free(s->seqs);
    free(s->results);
}

static bool run(struct server *s, const char *path, const char *folder,
                const struct requests *requests)
{
    if (!create(s, path, folder) || !take_requests(s, requests) || !serve(s)) {
        fprintf(stderr, "serve: %s\n", s->error.message);
        return false;
    }
    printf("{\"requests\": %" PRIu32 ", \"refused\": %" PRIu32 ", \"steps\": %" PRIu64
           ", \"tokens\": %" PRIu64 ", \"mean_rows\": %.3f, \"shared_tokens\": %" PRIu64 "}\n",
           requests->count, s->refused, s->steps, s->tokens,
           s->steps ? (double)s->rows / (double)s->steps : 0.0, s->shared_tokens);
    return s->refused == 0;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        fputs("usage: serve CONFIG.yaml DIR [REQUESTS.jsonl]\n", stderr);
        return 2;
    }
    struct server *s = calloc(1, sizeof *s);
    struct requests requests = {.list = NULL};
    FILE *file = argc == 4 ? fopen(argv[3], "rb") : stdin;
    bool done = file && s && requests_read(file, &requests);
    if (!done)
        perror(argc == 4 ? argv[3] : "serve: standard input");
    done = done && run(s, argv[1], argv[2], &requests);
    if (file && file != stdin)
        (void)fclose(file);
    if (s)
        destroy(s);
    free(s);
    requests_free(&requests);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("serve: standard output");
        return 1;
    }
    return done ? 0 : 1;
}
