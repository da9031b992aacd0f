/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_BLUEPRINT_H
#define RT_RUNTIME_BLUEPRINT_H

/*
 * Configuration and device capabilities -> everything that has a shape. Pure: the same function
 * serves rt_create, rt_sizes and plans for machines that are elsewhere.
 */
#include "buffers/placement.h"
#include "common/math.h"
#include "config/chunk_form.h"
#include "graphs/spec.h"
#include "kernels/op.h"
#include "replayrt/rt.h"

_Static_assert(RT_MAX_SMALL_SPECS == RT_MOST_SMALL_TILES, "a graph for each small tile");

struct rt_blueprint {
    struct rt_config config;
    struct rt_device_caps caps;
    struct rt_graph_spec control; /* the graph without rows */
    struct rt_graph_spec specs[RT_MAX_SPECS];
    uint32_t spec_count;
    /* What serves the graphs of each captured query length; [0]: the control graph. */
    struct rt_variant variants[RT_MAX_QUERY_LEN + 1][RT_OP_COUNT];
    struct rt_variant chunk_variants[RT_OP_COUNT]; /* and the graphs of chunks */
    /* By query length: where attention has small tiles, and what serves graphs of each there. */
    struct rt_small_tile_limits small_tiles[RT_MAX_QUERY_LEN + 1];
    struct rt_variant small_variants[RT_MAX_QUERY_LEN + 1][RT_MOST_SMALL_TILES][RT_OP_COUNT];
    struct rt_chunk_form forms[RT_MAX_CHUNKS]; /* by chunk of the configuration */
    struct rt_placement placement;
    uint32_t
        context_rank; /* which of the ranks that share a context this is; a plan is of the first */
    enum rt_pages_limit pages_limit;
    uint64_t free_bytes; /* as given */
};

/* Blocks of keys that so many tokens are. */
static inline uint32_t rt_blocks_of(uint32_t tokens)
{
    return rt_ceil_div_u32(tokens, RT_BLOCK_TOKENS);
}

/* Blocks of keys that all rows of a step's graph have at most: as it says, or by max_length. */
static inline uint64_t rt_blueprint_most_blocks(const struct rt_blueprint *b,
                                                const struct rt_graph_spec *spec)
{
    const uint32_t longest = b->config.max_length + rt_spec_query_len(spec) - 1;
    return spec->most_blocks ? spec->most_blocks : (uint64_t)spec->rows * rt_blocks_of(longest);
}

/* Which of the small tiles of its query length serves the graph; the number of them: none. */
static inline uint32_t rt_blueprint_small_tile(const struct rt_blueprint *b,
                                               const struct rt_graph_spec *spec)
{
    const struct rt_small_tile_limits *const small = &b->small_tiles[rt_spec_query_len(spec)];
    return spec->phase == RT_PHASE_DECODE
               ? rt_small_tiles_find(small, spec->rows, rt_blueprint_most_blocks(b, spec))
               : small->count;
}

/* [RT_OP_COUNT]: what serves this graph. */
static inline const struct rt_variant *rt_blueprint_variants(const struct rt_blueprint *b,
                                                             const struct rt_graph_spec *spec)
{
    if (rt_spec_is_chunk(spec))
        return b->chunk_variants;
    const uint32_t query_len = rt_spec_query_len(spec), tile = rt_blueprint_small_tile(b, spec);
    if (tile < b->small_tiles[query_len].count)
        return b->small_variants[query_len][tile];
    return b->variants[spec->phase == RT_PHASE_CONTROL ? 0 : query_len];
}

/* [RT_OP_COUNT]: what serves the attention of rows that decode beside a chunk's prompts. */
static inline const struct rt_variant *rt_blueprint_beside(const struct rt_blueprint *b,
                                                           const struct rt_graph_spec *spec)
{
    const uint32_t query_len = rt_spec_query_len(spec);
    return query_len > 1 ? b->variants[query_len] : b->chunk_variants;
}

/* What attends: over all keys of a row or listed ones, over bf16 or what is quantised. */
static inline enum rt_op_id rt_attend_op(const struct rt_config *config)
{
    const bool quantised = config->kv_layout != RT_KV_BF16;
    if (config->topk)
        return quantised ? RT_OP_SPARSE_ATTEND_QUANT : RT_OP_SPARSE_ATTEND;
    return quantised ? RT_OP_ATTEND_QUANT : RT_OP_ATTEND;
}

/* Of a graph's variants, the one that attends. */
static inline const struct rt_variant *rt_attend_variant(const struct rt_blueprint *b,
                                                         const struct rt_variant *variants)
{
    return &variants[rt_attend_op(&b->config)];
}

/* Of a chunk's graph. */
static inline const struct rt_chunk_form *rt_blueprint_form(const struct rt_blueprint *b,
                                                            const struct rt_graph_spec *spec)
{
    uint32_t i = 0;
    while (b->config.chunks[i] != rt_spec_chunk(spec))
        i++;
    return &b->forms[i];
}

/* "" for the graph of a step. */
static inline const char *rt_blueprint_reason(const struct rt_blueprint *b,
                                              const struct rt_graph_spec *spec)
{
    return rt_spec_is_chunk(spec) ? rt_blueprint_form(b, spec)->reason : "";
}

/* Cached tokens whose keys the graph can expand. */
static inline uint32_t rt_blueprint_context(const struct rt_blueprint *b,
                                            const struct rt_graph_spec *spec)
{
    return spec->pieces * b->placement.dims.context_piece;
}

/* Rows that the attention of rows that decode is launched with. */
uint32_t rt_blueprint_attend_rows(const struct rt_blueprint *b, const struct rt_graph_spec *spec);

/* Tokens that a page id stands for, on all ranks that share a context. */
static inline uint32_t rt_blueprint_page_tokens(const struct rt_blueprint *b)
{
    return b->config.page_size * b->config.context_parallel;
}

/* Heads of the rank's own behind attention: o_proj's. */
static inline uint32_t rt_blueprint_out_heads(const struct rt_blueprint *b)
{
    return b->config.geometry.heads / b->config.context_parallel;
}

/* Fills what follows from the blueprint; the rest of *info stays. */
void rt_blueprint_info(const struct rt_blueprint *b, struct rt_info *info);

/*
 * free_bytes: device memory that memory_fraction is a fraction of; not read where pages are given.
 * RT_ERR_DEVICE_MEMORY where the budget holds no page.
 */
enum rt_status rt_blueprint_make(const struct rt_config *config, const struct rt_device_caps *caps,
                                 uint64_t free_bytes, struct rt_blueprint *out,
                                 struct rt_error *err);

#endif
