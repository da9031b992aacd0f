/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_RANK_FIXTURE_H
#define RT_TESTS_SUPPORT_RANK_FIXTURE_H

/*
 * Blocks of 12 heads, where the test says nothing else, cut over the ranks of a group, each a
 * thread of the test with a runtime of its own whose weights are views into those of all heads. All
 * ranks bind the bias of o_proj. What goes into a block is made of the step and the layer, what
 * comes out is kept.
 */
#include "replayrt/ranks.h"
#include "tests/support/block_fixture.h"

#define RANKS_MOST 4u
#define RANKS_HEADS 12u
#define RANKS_STEPS 6u    /* of a bench, where it says nothing else */
#define RANKS_LONGEST 18u /* the most that it may say */
#define RANKS_ROWS 2u
#define RANKS_HIDDEN 32u /* of a bench, where it says nothing else */
#define RANKS_WIDEST 128u
#define RANKS_LAYERS 2u
#define RANKS_TOKENS (3u * RANKS_ROWS) /* of the longest queries */

typedef float rank_outputs[RANKS_LONGEST][RANKS_LAYERS][RANKS_TOKENS][RANKS_WIDEST];

struct rank_bench;

/* One rank; what a thread of it does fails by its status and error, for assertions are the main
 * thread's. */
struct rank_seat {
    struct rank_bench *bench;
    uint32_t rank, step;
    rt_ranks *ranks; /* null: alone, with all heads */
    rt_runtime *rt;
    rt_seq seqs[RANKS_ROWS];
    rank_outputs out;
    enum rt_status status;
    struct rt_error error;
};

typedef enum rt_status (*rank_fn)(struct rank_seat *seat);

struct rank_bench {
    struct block_fixture blocks; /* of all heads */
    uint32_t ranks, timeout_ms, steps;
    uint32_t context; /* ranks that share one; 0: every rank has all tokens */
    char path[64];
    const void *user; /* of a rank's function */
    uint64_t failing; /* see rank_bench_fail_each */
    /* Changes what a rank's runtime is made with; null: nothing is changed. */
    void (*change)(struct rank_seat *seat, struct rt_create_params *params);
    /* Largest batch size and layers of each rank; 0: those of blocks.config. */
    uint32_t batches[RANKS_MOST], layers[RANKS_MOST];
    struct rank_seat seats[RANKS_MOST];
};

void rank_bench_open(struct rank_bench *b, uint32_t ranks, enum rt_precision precision);
/* Blocks as the configuration has them, on the host device: RANKS_LAYERS layers, a hidden size
 * of RANKS_WIDEST at most. */
void rank_bench_open_as(struct rank_bench *b, uint32_t ranks, const struct rt_config *config);
void rank_bench_close(struct rank_bench *b);
/* Every rank has a group and a runtime of it, then does `fn`. Joined on return. */
void rank_bench_run(struct rank_bench *b, rank_fn fn);
/* One rank with all heads and no group does it. */
void rank_bench_alone(struct rank_bench *b, rank_fn fn, struct rank_seat *seat);
/* Of two ranks, again and again, until no call fails: each time another of rank 1's communicator
 * does, counted from where rank_fail_call is called, by what changes rank 1's runtime or by `fn`.
 * Both ranks have the failure's story. Returns how many failed. */
uint32_t rank_bench_fail_each(struct rank_bench *b, rank_fn fn);
void rank_fail_call(struct rank_seat *seat);
/* Fails the test where a rank has failed, or has another story: `part` is in it. */
void rank_bench_all_well(const struct rank_bench *b);
void rank_bench_failed(const struct rank_bench *b, uint32_t rank, enum rt_status status,
                       const char *part);

/* Distance of two outputs, relative to the length of the second. */
double rank_distance(const struct rank_seat *a, const struct rank_seat *b);

/* Ranks that share the seat's context: 1 of one that is alone. */
uint32_t rank_context(const struct rank_seat *seat);

/* For a rank's function: one step of all rows, waited for; and one of several tokens a row. */
enum rt_status rank_step(struct rank_seat *seat, uint32_t rows, uint32_t flags);
enum rt_status rank_step_of(struct rank_seat *seat, uint32_t rows, uint32_t query_len,
                            uint32_t flags);
/* What a call of the runtime's returned, with its story. */
enum rt_status rank_told(struct rank_seat *seat, enum rt_status status);
/* A rank of a process or thread of the caller's: group and runtime, and back. */
enum rt_status rank_open(struct rank_seat *seat);
void rank_close(struct rank_seat *seat);

#endif
