/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/decode_run.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * Steps are numbered from 0. Row r has its first token of step counts[r] - 1, and goes on in the
 * batch when it is done, until all are: its later tokens are nobody's. Where there are chunks, all
 * of a prompt but its last token goes in before step 0, and that is all that steps have of it.
 *
 *   steps     0 ......... collected ......... stamped ....... launched ......... total
 *             results are read  | complete        | in flight      |
 */
struct loop {
    const struct decode_job *job;
    struct decode_result *result;
    struct rt_error *error;
    rt_runtime *rt;
    uint32_t longest, total, launched, stamped, collected;
    uint32_t live; /* rows that are not done */
    uint64_t begin_ns;
    rt_seq *seqs;                  /* [rows] */
    int32_t *tokens, *accept;      /* [rows], of the step that is launched next */
    const int32_t **prompts;       /* [rows], what steps feed of the prompts */
    uint32_t *counts;              /* [rows], how many of them */
    struct rt_row_result *results; /* [rows] */
    bool *done;                    /* [rows] */
    uint64_t *tickets, *stamps;    /* [total] */
    float *logits;                 /* [vocab] */
};

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Where a stage has failed, the decoder knows why. */
static enum rt_status runtime_failed(struct loop *l)
{
    const struct rt_error *why = rt_decoder_last_error(l->job->decoder);
    *l->error = *rt_last_error(l->rt);
    if (l->error->status == RT_ERR_CALLBACK && why->status != RT_OK)
        *l->error = *why;
    return l->error->status;
}

static enum rt_status decoder_failed(struct loop *l)
{
    *l->error = *rt_decoder_last_error(l->job->decoder);
    return l->error->status;
}

/* ---- what comes back ------------------------------------------------------------------------- */

/* When a step was complete is known where the host looks: behind every launch and every wait. */
static void stamp(struct loop *l)
{
    uint64_t complete = 0;
    (void)rt_completed(l->rt, &complete);
    for (const uint64_t now = now_ns(); l->stamped < l->launched; l->stamped++) {
        if (l->tickets[l->stamped] > complete)
            return;
        l->stamps[l->stamped] = now;
    }
}

static bool is_stop(const struct rt_sampling *sampling, int32_t token)
{
    for (uint32_t i = 0; i < RT_SAMPLING_STOPS; i++)
        if (sampling->stops[i] >= 0 && sampling->stops[i] == token)
            return true;
    return false;
}

/* A token that row `row` has chosen and that is wanted. */
static enum rt_status take(struct loop *l, uint32_t row, int32_t token)
{
    const struct decode_job *job = l->job;
    struct decode_result *r = l->result;
    const uint32_t index = r->counts[row]++;
    r->tokens[(size_t)row * job->tokens + index] = token;
    if (index == 0)
        r->first_ns[row] = l->stamps[l->collected] - l->begin_ns;
    r->ended[row] = !job->teacher && is_stop(&job->sampling[row], token);
    if (r->ended[row] || index + 1 == job->tokens) {
        l->done[row] = true;
        l->live--;
    }
    if (!job->logits)
        return RT_OK;
    if (rt_decoder_read_logits(job->decoder, row, 1, 0, l->logits) != RT_OK)
        return decoder_failed(l);
    return job->logits(job->user, row, index, l->logits, l->error) ? RT_OK : l->error->status;
}

/* The oldest step that was not looked at. */
static enum rt_status collect(struct loop *l)
{
    const uint64_t ticket = l->tickets[l->collected];
    uint32_t count = 0;
    if (rt_wait(l->rt, ticket, UINT64_MAX) != RT_OK)
        return runtime_failed(l);
    stamp(l);
    if (rt_result(l->rt, ticket, l->results, l->job->rows, &count) != RT_OK)
        return runtime_failed(l);
    for (uint32_t r = 0; r < count; r++) {
        if (l->done[r] || l->collected + 1 < l->counts[r])
            continue;
        const enum rt_status status = take(l, r, l->results[r].sampled);
        if (status != RT_OK)
            return status;
    }
    l->collected++;
    return RT_OK;
}

/* ---- what is launched ------------------------------------------------------------------------ */

/* Tokens that are named stay whatever they are: only what the device feeds itself can end a row. */
static void name_token(struct loop *l, uint32_t row)
{
    const struct decode_job *job = l->job;
    const uint32_t count = l->counts[row];
    const struct token_list *teacher = job->teacher ? job->teacher[row] : NULL;
    l->tokens[row] = -1;
    l->accept[row] = RT_ACCEPT_DEVICE;
    if (l->launched < count)
        l->tokens[row] = l->prompts[row][l->launched];
    else if (teacher && l->launched - count < teacher->count)
        l->tokens[row] = teacher->ids[l->launched - count];
    if (l->tokens[row] >= 0)
        l->accept[row] = 1;
}

/* RT_ERR_BUSY: nothing was launched, an older step must be collected first. */
static enum rt_status launch(struct loop *l)
{
    const struct rt_step_params params = {.struct_size = sizeof(params),
                                          .rows = l->job->rows,
                                          .query_len = 1,
                                          .seqs = l->seqs,
                                          .tokens = l->tokens,
                                          .accept = l->accept};
    for (uint32_t r = 0; r < l->job->rows; r++)
        name_token(l, r);
    const enum rt_status status = rt_step(l->rt, &params, &l->tickets[l->launched]);
    if (status != RT_OK)
        return status == RT_ERR_BUSY && l->launched > l->collected ? status : runtime_failed(l);
    l->launched++;
    stamp(l);
    return RT_OK;
}

/* Of every prompt all but what steps feed. It is waited for: the ring is the steps' then. */
static enum rt_status prefill(struct loop *l)
{
    const struct decode_job *job = l->job;
    struct rt_prompt *prompts = calloc(job->rows, sizeof(*prompts));
    struct rt_prefill_params params = {.struct_size = sizeof(params), .prompts = prompts};
    enum rt_status status = RT_OK;
    uint64_t ticket = 0;
    if (!prompts)
        return rt_error_set(l->error, RT_ERR_NOMEM, "out of host memory for %u prompts", job->rows);
    for (uint32_t r = 0; r < job->rows; r++)
        if (job->prompts[r]->count > l->counts[r])
            prompts[params.prompt_count++] =
                (struct rt_prompt){.seq = l->seqs[r],
                                   .tokens = job->prompts[r]->ids,
                                   .count = job->prompts[r]->count - l->counts[r]};
    if (params.prompt_count > 0)
        status = rt_prefill(l->rt, &params, &ticket);
    free(prompts);
    if (status == RT_OK && ticket > 0)
        status = rt_wait(l->rt, ticket, UINT64_MAX);
    return status == RT_OK ? RT_OK : runtime_failed(l);
}

/* The ring's records are reused, results and all, so no more steps than that may be unread. */
static enum rt_status run_ahead(struct loop *l)
{
    l->begin_ns = now_ns();
    enum rt_status status = prefill(l);
    while (status == RT_OK && l->launched < l->total && (l->live > 0 || l->job->every_step)) {
        const bool full = l->launched - l->collected >= l->job->ahead;
        status = full ? RT_ERR_BUSY : launch(l);
        if (status == RT_ERR_BUSY)
            status = collect(l);
    }
    while (status == RT_OK && l->collected < l->launched)
        status = collect(l);
    return status;
}

/* ---- from begin to end ----------------------------------------------------------------------- */

/* Row r keeps a token of each step from its prompt's last to that of its last token. */
static void measure(const struct loop *l)
{
    struct decode_result *r = l->result;
    r->steps = l->launched;
    r->total_ns = l->stamps[l->launched - 1] - l->begin_ns;
    uint32_t end = l->longest; /* of the steps with a token that was kept */
    for (uint32_t row = 0; row < l->job->rows; row++) {
        const uint32_t row_end = l->counts[row] + r->counts[row] - 1;
        if (row_end <= l->longest)
            continue;
        r->decode_tokens += row_end - l->longest;
        end = row_end > end ? row_end : end;
    }
    for (uint32_t i = l->longest; i < end; i++)
        r->step_ns[r->decode_steps++] = l->stamps[i] - l->stamps[i - 1];
}

static enum rt_status open_rows(struct loop *l)
{
    const struct rt_seq_params params = {.struct_size = sizeof(params), .last_token = -1};
    for (uint32_t r = 0; r < l->job->rows; r++) {
        if (rt_seq_open(l->rt, &params, &l->seqs[r]) != RT_OK)
            return runtime_failed(l);
        if (rt_decoder_sample(l->job->decoder, l->seqs[r], &l->job->sampling[r]) != RT_OK)
            return decoder_failed(l);
    }
    return RT_OK;
}

static void close_rows(struct loop *l)
{
    for (uint32_t r = 0; r < l->job->rows; r++)
        if (l->seqs[r])
            (void)rt_seq_close(l->rt, l->seqs[r]);
}

static bool allocate(struct loop *l)
{
    const uint32_t rows = l->job->rows;
    struct decode_result *r = l->result;
    const size_t tokens = (size_t)rows * l->job->tokens;
    r->tokens = calloc(tokens, sizeof(*r->tokens));
    r->counts = calloc(rows, sizeof(*r->counts));
    r->ended = calloc(rows, sizeof(*r->ended));
    r->first_ns = calloc(rows, sizeof(*r->first_ns));
    r->step_ns = calloc(l->total, sizeof(*r->step_ns));
    l->seqs = calloc(rows, sizeof(*l->seqs));
    l->tokens = calloc(rows, sizeof(*l->tokens));
    l->accept = calloc(rows, sizeof(*l->accept));
    l->prompts = calloc(rows, sizeof(*l->prompts));
    l->results = calloc(rows, sizeof(*l->results));
    l->done = calloc(rows, sizeof(*l->done));
    l->tickets = calloc(l->total, sizeof(*l->tickets));
    l->stamps = calloc(l->total, sizeof(*l->stamps));
    if (l->job->logits)
        l->logits = calloc(l->job->vocab, sizeof(*l->logits));
    if (!r->tokens || !r->counts || !r->ended || !r->first_ns || !r->step_ns || !l->seqs ||
        !l->tokens || !l->accept || !l->prompts || !l->results || !l->done || !l->tickets ||
        !l->stamps || (l->job->logits && !l->logits))
        return false;
    memset(r->tokens, 0xff, tokens * sizeof(*r->tokens));
    return true;
}

/* What steps feed: the whole, or the last token. */
static void cut_prompts(struct loop *l)
{
    for (uint32_t r = 0; r < l->job->rows; r++)
        l->prompts[r] = l->job->prompts[r]->ids + l->job->prompts[r]->count - l->counts[r];
}

static void release(struct loop *l)
{
    free(l->seqs);
    free(l->tokens);
    free(l->accept);
    free(l->prompts);
    free(l->counts);
    free(l->results);
    free(l->done);
    free(l->tickets);
    free(l->stamps);
    free(l->logits);
}

/* The context stays current on this thread: launches are cheaper then. */
static enum rt_status run(struct loop *l)
{
    enum rt_status status = open_rows(l);
    if (status == RT_OK && rt_thread_enter(l->rt) != RT_OK)
        status = runtime_failed(l);
    if (status == RT_OK) {
        status = run_ahead(l);
        (void)rt_thread_leave(l->rt);
    }
    close_rows(l);
    if (status == RT_OK)
        measure(l);
    return status;
}

enum rt_status decode_run(const struct decode_job *job, struct decode_result *result,
                          struct rt_error *error)
{
    struct loop l = {.job = job,
                     .result = result,
                     .error = error,
                     .rt = rt_decoder_runtime(job->decoder),
                     .live = job->rows};
    assert(job->rows >= 1 && job->tokens >= 1);
    *result = (struct decode_result){.steps = 0};
    l.counts = calloc(job->rows, sizeof(*l.counts));
    for (uint32_t r = 0; l.counts && r < job->rows; r++) {
        l.counts[r] = job->chunks ? 1 : job->prompts[r]->count;
        l.longest = l.counts[r] > l.longest ? l.counts[r] : l.longest;
    }
    l.total = l.longest + job->tokens - 1;
    enum rt_status status = RT_ERR_NOMEM;
    if (l.counts && allocate(&l)) {
        cut_prompts(&l);
        status = run(&l);
    } else {
        error->status = status;
        (void)snprintf(error->message, sizeof(error->message),
                       "out of host memory for %u rows of %u tokens", job->rows, job->tokens);
    }
    release(&l);
    if (status != RT_OK)
        decode_result_free(result);
    return status;
}

void decode_result_free(struct decode_result *result)
{
    free(result->tokens);
    free(result->counts);
    free(result->ended);
    free(result->first_ns);
    free(result->step_ns);
    *result = (struct decode_result){.steps = 0};
}
