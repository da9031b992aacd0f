/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_GRAPHS_SPEC_H
#define RT_GRAPHS_SPEC_H

/*
 * Which graphs there are, as a list, and which of them serves a step. Pure. Buckets times query
 * lengths are one way of filling the list; nobody behind it multiplies an index again.
 */
#include "common/check.h"
#include "replayrt/rt.h"

#include <stdbool.h>

enum rt_phase {
    RT_PHASE_CONTROL, /* no rows: forks, rewinds, bulk page changes */
    RT_PHASE_DECODE,  /* every row the same number of tokens */
    RT_PHASE_CHUNK    /* tokens of prompts, each row any number of them, then rows that decode */
};

struct rt_graph_spec {
    enum rt_phase phase;
    uint32_t rows;        /* padded */
    uint32_t tokens;      /* of all rows */
    uint32_t decode_rows; /* rows that decode; all of them in DECODE */
    /* CHUNK: attention as decode has it, over any context; else keys and values are expanded, those
     * of cached context in so many pieces at most. */
    bool absorbed;
    uint32_t pieces;
    uint32_t decode_len; /* CHUNK: tokens of a row that decodes, at most; 0 means 1 */
    /* DECODE: not 0: of several graphs of this size one for rows that have so many blocks of keys
     * together at most, by small tiles of attention. */
    uint32_t most_blocks;
};

static inline bool rt_spec_is_chunk(const struct rt_graph_spec *spec)
{
    return spec->phase == RT_PHASE_CHUNK;
}

/* Columns of a row; 1 in a graph without rows. Of a chunk those of a row that decodes: of a row of
 * prompts its last token is seen, in the first of them. */
static inline uint32_t rt_spec_query_len(const struct rt_graph_spec *spec)
{
    if (rt_spec_is_chunk(spec))
        return spec->decode_len ? spec->decode_len : 1;
    return spec->rows ? spec->tokens / spec->rows : 1;
}

/* Of CHUNK: tokens of prompts. */
static inline uint32_t rt_spec_chunk(const struct rt_graph_spec *spec)
{
    return rt_spec_is_chunk(spec) ? spec->tokens - spec->decode_rows * rt_spec_query_len(spec) : 0;
}

/* Of CHUNK: rows that have them. */
static inline uint32_t rt_spec_prefill_rows(const struct rt_graph_spec *spec)
{
    return rt_spec_is_chunk(spec) ? spec->rows - spec->decode_rows : 0;
}

/* A graph's name in messages: "batch 8, query length 2", for few blocks ", at most 128 blocks"
 * behind it, or of a chunk "chunk of 512 tokens, 8 rows of 2 tokens beside it, 4 pieces of
 * context". */
struct rt_spec_name {
    char text[112];
};
struct rt_spec_name rt_spec_name(const struct rt_graph_spec *spec);

/* Numbers of pieces that there are graphs for: 0, 1, 2, 4, … and the most. */
#define RT_MAX_PIECE_COUNTS 18
#define RT_MAX_BUCKET_SPECS (RT_MAX_BUCKETS * RT_MAX_QUERY_LENS)
#define RT_MAX_SMALL_SPECS 2 /* of a size, for few blocks of keys */
#define RT_MAX_DECODE_SPECS ((1 + RT_MAX_SMALL_SPECS) * RT_MAX_BUCKET_SPECS)
#define RT_MAX_BESIDE_SPECS (RT_MAX_MIXES * RT_MAX_QUERY_LENS + 1)
#define RT_MAX_CHUNK_SPECS (RT_MAX_CHUNKS * RT_MAX_BESIDE_SPECS * RT_MAX_PIECE_COUNTS)
#define RT_MAX_SPECS (RT_MAX_DECODE_SPECS + RT_MAX_CHUNK_SPECS)

/* Every batch size with every query length, batch sizes first. Returns how many: at most
 * RT_MAX_BUCKET_SPECS. */
uint32_t rt_specs_of_buckets(const uint32_t *batch_sizes, uint32_t batch_size_count,
                             const uint32_t *query_lens, uint32_t query_len_count,
                             struct rt_graph_spec *out);

/* What decodes beside chunks: every number of rows with 1 token a row, and with each of query_lens,
 * which ascend. */
struct rt_spec_beside {
    const uint32_t *rows, *query_lens;
    uint32_t row_count, query_len_count;
};

/*
 * The graphs like `chunk`, which has no row that decodes: itself and all that are beside it, each
 * for 0, 1, 2, 4, … up to chunk's pieces of cached context. Returns how many: at most
 * RT_MAX_BESIDE_SPECS * RT_MAX_PIECE_COUNTS.
 */
uint32_t rt_specs_of_chunk(const struct rt_graph_spec *chunk, const struct rt_spec_beside *beside,
                           struct rt_graph_spec *out);

/* Tokens of prompts, rows of query_len columns that decode, pieces of cached context. Where no row
 * decodes query_len is not read. */
struct rt_chunk_load {
    uint32_t tokens, decode_rows, query_len, pieces;
};

/* Of the graphs that hold the load the one with the fewest tokens, and then pieces; `count`: there
 * is none. */
uint32_t rt_spec_find_chunk(const struct rt_graph_spec *specs, uint32_t count,
                            const struct rt_chunk_load *load);

/* Rows the data tensors must have so that row_base + rows stays inside for any live count up to
 * max_rows; at least those of the largest graph, which may be replayed without a live row. */
uint64_t rt_specs_capacity(const struct rt_graph_spec *specs, uint32_t count, uint32_t max_rows);

/* The same where replays come behind a chunk's, whose rows are any number: then row_base is what it
 * is, and the last replay may be padded the most. */
uint64_t rt_specs_capacity_behind(const struct rt_graph_spec *specs, uint32_t count,
                                  uint32_t max_rows);

/* The graph of specs[spec]'s size for the next fewer blocks of keys; `count`: there is none. */
uint32_t rt_spec_find_small(const struct rt_graph_spec *specs, uint32_t count, uint32_t spec);

/* The list by what a step asks for: of the graphs of one size, that for any number of blocks. */
struct rt_spec_index {
    uint32_t largest[RT_MAX_QUERY_LEN + 1]; /* most rows of a graph of that query length; 0: none */
    uint16_t *by_rows[RT_MAX_QUERY_LEN + 1]; /* [largest + 1]: the spec with the fewest rows that
                                                hold so many */
};

/* Of DECODE; the others are passed over. RT_ERR_INVALID for a spec out of range, one that stands
 * twice, or one for few blocks without one of its size for any number; RT_ERR_NOMEM. Zeroed on
 * failure. */
enum rt_status rt_spec_index_init(struct rt_spec_index *index, const struct rt_graph_spec *specs,
                                  uint32_t count, struct rt_error *err);
void rt_spec_index_free(struct rt_spec_index *index);

/* Is there a graph for this query length? */
static inline bool rt_spec_captured(const struct rt_spec_index *index, uint32_t query_len)
{
    return query_len <= RT_MAX_QUERY_LEN && index->largest[query_len] > 0;
}

/* Rows of the next replay when `rows` remain, and its graph: at most the largest one's. */
static inline uint32_t rt_spec_take(const struct rt_spec_index *index, uint32_t query_len,
                                    uint32_t rows, uint32_t *spec)
{
    uint32_t largest = index->largest[query_len];
    uint32_t take = rows < largest ? rows : largest;
    *spec = index->by_rows[query_len][take];
    return take;
}

/* Replays that `rows` rows need. */
uint32_t rt_spec_replays(const struct rt_spec_index *index, uint32_t query_len, uint32_t rows);

#endif
