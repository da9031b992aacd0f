/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_BENCH_ROWS_H
#define RT_BENCH_BENCH_ROWS_H

/* What the benchmarks of whole steps share: a configuration that fits the measurement, finite
 * numbers in what is read, and sequences of one length. */
#include "replayrt/rt.h"

#include <stdbool.h>

/* As the command line says; 0: all batch sizes, the first query length. */
struct bench_choice {
    uint64_t batch, query_len, length, steps;
    bool ragged; /* every row has its own number of tokens, 1 to the query length */
    bool json;
};

/*
 * Pages for every chosen row at its full length, no more, slots for the rows, and no graphs of
 * chunks: sequences grow by `steps` steps at most between two rewinds. query_len becomes the one
 * that is measured. False after a message: no such graph is captured, or the sequences become too
 * long.
 */
bool bench_fit(struct rt_config *config, struct bench_choice *choice, uint64_t steps);
/* Whether this captured graph is one of the chosen. */
bool bench_chosen(const struct bench_choice *choice, uint32_t batch, uint32_t query_len);

/* The whole tensor, with the same numbers of 2^-8 to 1 at every call: those of the past were
 * written by nobody. Blocks. */
enum rt_status bench_fill(rt_runtime *rt, const char *name, uint32_t layer);

/* Of numbers that were read from a tensor; not finite where one of them is not. */
double bench_rms(const unsigned char *numbers, uint64_t bytes, enum rt_dtype dtype);
/* Sorts them. */
double bench_median(uint64_t *ns, uint32_t count);

struct bench_rows {
    rt_runtime *rt;
    rt_seq *seqs;         /* [count] */
    int32_t *tokens;      /* [count, RT_MAX_QUERY_LEN]: a rewound sequence's must be named */
    uint32_t *query_lens; /* [count] where rows are ragged, or null */
    uint32_t count, length;
};

/* Opens the largest chosen batch's sequences, of choice->length tokens that nobody has written. */
enum rt_status bench_rows_open(struct bench_rows *rows, rt_runtime *rt,
                               const struct rt_config *config, const struct bench_choice *choice);
/* Back to their length, the first `batch` of them: what was measured before has made them grow. */
enum rt_status bench_rows_rewind(const struct bench_rows *rows, uint32_t batch);
/* A step of the first `batch`. */
struct rt_step_params bench_rows_params(const struct bench_rows *rows, uint32_t batch,
                                        uint32_t query_len);
/* The runtime and its sequences are the caller's to destroy. */
void bench_rows_free(struct bench_rows *rows);

#endif
