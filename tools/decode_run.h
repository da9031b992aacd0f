/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_DECODE_RUN_H
#define RT_TOOLS_DECODE_RUN_H

/*
 * Prompts in, tokens out: a batch of sequences through one decoder, all rows in every step, each
 * step one token wide. A row feeds its prompt, or where the rest can go in by chunks its last token
 * alone, then what it chose itself, on the device, or what a teacher's list has in its place. The
 * host runs ahead of the device and reads results behind it.
 */
#include "replayrt/decoder.h"
#include "tools/token_list.h"

#include <stdbool.h>

/* Logits of one row that chose its token `index`, [vocab], host memory. False: enough, with *error
 * told. */
typedef bool (*decode_logits_fn)(void *user, uint32_t row, uint32_t index, const float *logits,
                                 struct rt_error *error);

struct decode_job {
    rt_decoder *decoder;
    uint32_t rows;   /* at most the decoder's sequences, none of which are open */
    uint32_t tokens; /* to generate for every row, >= 1 */
    uint32_t ahead;  /* steps in flight, >= 1: at most what the ring has room for */
    uint32_t vocab;  /* read with `logits` alone */
    bool chunks;     /* the runtime has graphs for prompts */
    bool every_step; /* also behind the last row's end, which ranks may not all see at once */
    const struct token_list *const *prompts; /* [rows], none empty */
    const struct token_list *const *teacher; /* [rows], at least tokens - 1 ids each; or null */
    const struct rt_sampling *sampling;      /* [rows] */
    /* Called for every token that is generated, step by step; may be null. The host does not run
     * ahead then, and a step is one replay: the largest batch size has room for all rows. */
    decode_logits_fn logits;
    void *user;
};

struct decode_result {
    int32_t *tokens;    /* [rows, job.tokens]: what was chosen, a stop id the last; -1 behind it */
    uint32_t *counts;   /* [rows] tokens of it */
    bool *ended;        /* [rows]: a stop id is the last */
    uint64_t *first_ns; /* [rows]: from the first launch until its first token was there */
    /* [decode_steps]: of the steps in which no row was in its prompt, up to the last whose token
     * was kept; steps behind it were launched before the host knew of an end. */
    uint64_t *step_ns;
    uint32_t decode_steps;
    uint64_t decode_tokens; /* of these steps, that were kept: a row that has ended keeps none */
    uint32_t steps;         /* all that were launched */
    uint64_t total_ns;      /* from the first launch until the last step was complete */
};

/* Opens a sequence for every row, and closes them. On failure *result is zeroed and *error told; on
 * success it is to be freed. Blocks. */
enum rt_status decode_run(const struct decode_job *job, struct decode_result *result,
                          struct rt_error *error);
/* Accepts a zeroed one and leaves one. */
void decode_result_free(struct decode_result *result);

#endif
