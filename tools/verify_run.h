/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_VERIFY_RUN_H
#define RT_TOOLS_VERIFY_RUN_H

/* A run of verify: two runtimes, one history, and what it compares. Private to it. */
#include "tools/chance.h"
#include "tools/random_weights.h"
#include "tools/verify_ranks.h"

/* Longest sequence of a run of steps, in pages: enough for every page edge, short enough to be
 * quick. */
#define TEST_PAGES 4
/* Above this, all layers read one set of inputs: filling them would be the whole run time. */
#define PER_LAYER_BYTES (4u << 20)

#define SIDES 2
enum side { REPLAY = 0, EAGER = 1 };

struct tracked {
    rt_seq seqs[SIDES];
    uint32_t length;
    bool open;
};

/* A tensor of a step's data. */
struct data {
    const char *name;
    bool given;           /* live rows are written in front of a step */
    bool made;            /* compared behind it */
    bool zero;            /* padded rows are zero behind it, live ones hold no NaN */
    uint64_t token_bytes; /* of one token of a row */
    uint32_t rows;        /* that it has */
};

#define MOST_DATA 5

struct run {
    struct rt_config config;
    struct verify_ranks *ranks;
    struct random_weights weights; /* of blocks, the same for both sides */
    rt_runtime *rts[SIDES];
    struct data data[MOST_DATA];
    uint32_t data_count;
    struct tracked *tracked; /* [max_sequences] */
    uint32_t longest;        /* tokens of a sequence in this run */
    uint32_t data_layers;    /* layers with q, latent, out, lse of their own */
    struct chance chance;
    unsigned char *noise; /* random bf16: inputs are windows of it */
    uint64_t noise_bytes;
    unsigned char *poison; /* 0xff */
    unsigned char *seen[SIDES];
    uint64_t scratch_bytes;
    struct verify_report *report;
    struct rt_error *error;
};

#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum rt_status try_status_ = (expr);                                                       \
        if (try_status_ != RT_OK)                                                                  \
            return try_status_;                                                                    \
    } while (0)

/* Both: status; the sentence is "what: detail", or the failed call's. */
enum rt_status verify_say(struct rt_error *error, enum rt_status status, const char *what,
                          const char *detail);
/* Forwards a library failure of one side. */
enum rt_status verify_check(struct run *run, int side, enum rt_status status);
uint32_t verify_below(struct run *run, uint32_t bound);

/* Layers with inputs of their own, where a step's `tokens` have few enough of them. */
void verify_choose_layers(struct run *run, uint32_t tokens);
/* Tokens of a page id: where ranks share a context, all of theirs. */
uint32_t verify_page_tokens(const struct run *run);
/* Creates both sides of run->config, whose lengths and pages are chosen, with NaN in every page. */
enum rt_status verify_set_up(struct run *run, uint64_t seed);
void verify_tear_down(struct run *run);

/* ---- the random history ---------------------------------------------------------------------- */

enum rt_status verify_open(struct run *run, struct tracked *t);
enum rt_status verify_close(struct run *run, struct tracked *t);
enum rt_status verify_rewind(struct run *run, struct tracked *t, uint32_t length);
/* One slot's turn before a step of q tokens a row: most of the time nothing. */
enum rt_status verify_disturb(struct run *run, uint32_t q);
/* `live` distinct open sequences with room for q tokens, in random order. */
enum rt_status verify_choose_rows(struct run *run, uint32_t live, uint32_t q, uint32_t *rows);
/* Rewinds those of them that would have more blocks of keys each behind a step of q tokens. */
enum rt_status verify_shorten(struct run *run, const uint32_t *rows, uint32_t live, uint32_t q,
                              uint32_t blocks);

/* ---- what is compared ------------------------------------------------------------------------ */

/*
 * Rows of a step's data. Attention's lie behind each other, whatever replays they are of. Blocks'
 * are rows 0..bucket - 1 of each replay, so behind a step of several the last one's are seen, and
 * above them what earlier ones left; what one replay made of hidden is what the next is given.
 */
struct shape {
    uint32_t q;
    uint32_t given;       /* rows that are written with numbers; above them poison */
    uint32_t rows;        /* that are written, and compared */
    uint32_t live, batch; /* of the last replay, or of all: zero from live to batch */
    /* Of a chunk, whose rows are tokens, those above are prompts', of which an expanded one leaves
     * no out. Behind them are those of rows that decode, rows_q of each, and of these its own. */
    uint32_t rows_live, rows_batch, rows_q;
    const uint32_t *rows_counts; /* [rows_live] */
    /* [live] of their q tokens how many each row has: behind those is what nobody reads; null: all.
     */
    const uint32_t *counts;
    bool expanded;
    char name[96]; /* for messages */
};

/* Of sparse attention a list for every token, of its sequence's first lengths[i] keys; 0: it is
 * padding. Nothing of dense attention. */
enum rt_status verify_write_lists(struct run *run, const uint32_t *lengths, uint32_t tokens);
/* Windows of the noise, where they are given; the rest is NaN. */
enum rt_status verify_prepare(struct run *run, const struct shape *s);
enum rt_status verify_compare(struct run *run, const char *name, uint32_t layer, uint64_t bytes,
                              const struct shape *s);
enum rt_status verify_compare_data(struct run *run, const struct shape *s);
/* All pages, lengths and block tables. */
enum rt_status verify_compare_state(struct run *run, const struct shape *s);

/* ---- chunks ---------------------------------------------------------------------------------- */

/* The configuration's graphs of chunks, on runtimes of their own. Adds to the report. */
enum rt_status verify_chunks(const struct rt_config *config, const struct verify_options *options,
                             struct verify_ranks *ranks, struct verify_report *report,
                             struct rt_error *error);

#endif
