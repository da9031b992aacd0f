/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_VERIFY_H
#define RT_TOOLS_VERIFY_H

/*
 * Replay against eager, bitwise, on a user's own configuration and device: two runtimes are driven
 * through the same random history (sequences opening, closing, forking, rewinding, opening on pages
 * of a closed one, growing over page edges, accepting some of their tokens), one by replay, one by
 * walking the same stages on a stream. After every step all rows of the bucket are compared,
 * padding included; at the end of every graph's share all KV pages, lengths and block tables.
 * Inputs of padded rows, outputs before the step and unused pages hold NaN.
 *
 * Graphs of chunks come behind them on runtimes of their own: each is made to serve chunks that no
 * smaller one holds, in tokens, in rows beside them and in cached context, whose pieces are as many
 * as the configuration's but small. Which graph was replayed is looked at, too.
 *
 * With layer the step is blocks of random weights. The first layer's input is written, and what
 * hidden, q, out, lse and residual hold behind the last layer is compared: behind a step of several
 * replays these are the last one's rows, and what earlier ones left above them.
 *
 * Of several ranks every one does that with its part of the heads, with the same history. Hidden,
 * residual, what says which tokens there are and, unless ranks share a context, the pages are the
 * same bits on all of them behind every step.
 */
#include "replayrt/rt.h"

#include <stdbool.h>
#include <stdio.h>

struct verify_options {
    uint32_t steps; /* per graph */
    uint64_t seed;
    FILE *progress; /* a line per graph; null: silent */
    /* Of several ranks, which of them this one is, and where they meet (rt_ranks_params.path); the
     * configuration has the whole model's heads and this rank's device. ranks 0: there are none. */
    uint32_t rank, ranks;
    const char *meeting;
};

struct verify_report {
    uint64_t graphs, steps, rows, padded_rows, bytes_compared;
    uint64_t bytes_of_ranks; /* that were the same on all of them */
    uint64_t forks, rewinds, closes;
    char device[64]; /* its own name; "" until it has been opened */
    bool told;       /* all ranks have the same error; else each has its own */
    bool lingers;    /* a thread is left in a library, see rt_ranks_destroy */
};

/* RT_OK: bitwise equal throughout. RT_ERR_INTERNAL: a difference, *error says where. Others: what a
 * call of the library returned. */
enum rt_status verify_replay(const struct rt_config *config, const struct verify_options *options,
                             struct verify_report *report, struct rt_error *error);

#endif
