/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_TRACE_H
#define RT_EXAMPLES_TRACE_H

/*
 * A recorded trace, fed token by token through one runtime of one layer: every prompt is a
 * sequence, all of them decode together, and each leaves when its tokens are used up, so the batch
 * shrinks and with it the padded bucket.
 */
#include "examples/golden.h"
#include "examples/mla_model.h"
#include "examples/outcome.h"

#include <replayrt/rt.h>

#include <stdbool.h>

struct trace_options {
    const char *directory;
    const char *device; /* null: as replayrt.yaml says */
    uint32_t query_len; /* tokens of a prompt that are fed at once, where that many are left */
    uint32_t stagger;   /* prompt p joins in round p * stagger */
    bool verbose;       /* prints a line for each position and the runtime's own messages */
};

struct trace_sequence {
    rt_seq seq;
    bool open;
    uint32_t length; /* tokens to feed */
    uint32_t fed;    /* tokens in its cache */
    uint32_t width;  /* tokens that it feeds in this round; 0: none */
    double *latents; /* [length, L + R], not rounded */
    struct outcome outcome;
};

struct trace {
    struct trace_options options;
    struct mla_model model;
    struct golden golden;
    struct rt_config config;
    rt_runtime *runtime;
    struct trace_sequence *sequences; /* [P] */

    /* One step's tensors, rows packed. */
    rt_seq *seqs;     /* [P] */
    int32_t *tokens;  /* [P, Q] */
    uint16_t *q;      /* [P, Q, N, L + R] */
    uint16_t *latent; /* [P, Q, L + R] */
    uint16_t *out;    /* [P, Q, N, L] */

    /* One token's values, in double. */
    double *x;         /* [H] */
    double *exact_q;   /* [N, L + R] */
    double *exact_out; /* [N, L] */
    double *y;         /* [H] */
    double *scratch;
};

/* Reads the directory and creates the runtime. Blocks. On failure *trace is zeroed; otherwise it is
 * to be given to trace_close. */
enum rt_status trace_open(const struct trace_options *options, struct trace *trace,
                          struct rt_error *error);

/* Feeds every sequence to its end; sequences' outcomes are filled. Blocks. */
enum rt_status trace_run(struct trace *trace, struct rt_error *error);

/* Accepts a zeroed trace and leaves one. */
void trace_close(struct trace *trace);

#endif
