/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/spec.h"

#include "common/math.h"

#include <stdio.h>
#include <stdlib.h>

struct rt_spec_name rt_spec_name(const struct rt_graph_spec *spec)
{
    struct rt_spec_name name;
    int used = 0;
    if (!rt_spec_is_chunk(spec)) {
        used = snprintf(name.text, sizeof(name.text), "batch %u, query length %u", spec->rows,
                        rt_spec_query_len(spec));
        if (spec->most_blocks)
            (void)snprintf(name.text + used, sizeof(name.text) - (size_t)used,
                           ", at most %u blocks", spec->most_blocks);
        return name;
    }
    used = snprintf(name.text, sizeof(name.text), "chunk of %u tokens, %u rows",
                    rt_spec_chunk(spec), spec->decode_rows);
    if (rt_spec_query_len(spec) > 1)
        used += snprintf(name.text + used, sizeof(name.text) - (size_t)used, " of %u tokens",
                         rt_spec_query_len(spec));
    used += snprintf(name.text + used, sizeof(name.text) - (size_t)used, " beside it");
    if (!spec->absorbed)
        (void)snprintf(name.text + used, sizeof(name.text) - (size_t)used, ", %u pieces of context",
                       spec->pieces);
    return name;
}

uint32_t rt_specs_of_buckets(const uint32_t *batch_sizes, uint32_t batch_size_count,
                             const uint32_t *query_lens, uint32_t query_len_count,
                             struct rt_graph_spec *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < batch_size_count; i++)
        for (uint32_t j = 0; j < query_len_count; j++)
            out[count++] = (struct rt_graph_spec){.phase = RT_PHASE_DECODE,
                                                  .rows = batch_sizes[i],
                                                  .tokens = batch_sizes[i] * query_lens[j],
                                                  .decode_rows = batch_sizes[i]};
    return count;
}

/* The chunk beside so many rows, for each number of pieces. */
static uint32_t put_chunk(const struct rt_graph_spec *chunk, uint32_t rows, uint32_t query_len,
                          struct rt_graph_spec *out)
{
    struct rt_graph_spec spec = *chunk;
    uint32_t count = 0;
    spec.decode_rows = rows;
    spec.decode_len = query_len;
    spec.rows += rows;
    spec.tokens += rows * query_len;
    for (spec.pieces = 0;;
         spec.pieces = rt_min_u32(rt_max_u32(1, 2 * spec.pieces), chunk->pieces)) {
        out[count++] = spec;
        if (spec.pieces == chunk->pieces)
            return count;
    }
}

uint32_t rt_specs_of_chunk(const struct rt_graph_spec *chunk, const struct rt_spec_beside *beside,
                           struct rt_graph_spec *out)
{
    uint32_t count = put_chunk(chunk, 0, 1, out);
    for (uint32_t i = 0; i < beside->row_count; i++) {
        count += put_chunk(chunk, beside->rows[i], 1, out + count);
        for (uint32_t j = 0; j < beside->query_len_count; j++)
            if (beside->query_lens[j] > 1)
                count += put_chunk(chunk, beside->rows[i], beside->query_lens[j], out + count);
    }
    return count;
}

static bool holds(const struct rt_graph_spec *spec, const struct rt_chunk_load *load)
{
    const bool rows = load->decode_rows == 0 || (spec->decode_rows >= load->decode_rows &&
                                                 rt_spec_query_len(spec) == load->query_len);
    return rt_spec_is_chunk(spec) && rt_spec_chunk(spec) >= load->tokens && rows &&
           (spec->absorbed || spec->pieces >= load->pieces);
}

uint32_t rt_spec_find_chunk(const struct rt_graph_spec *specs, uint32_t count,
                            const struct rt_chunk_load *load)
{
    uint32_t best = count;
    for (uint32_t i = 0; i < count; i++) {
        if (!holds(&specs[i], load))
            continue;
        if (best == count || specs[i].tokens < specs[best].tokens ||
            (specs[i].tokens == specs[best].tokens && specs[i].pieces < specs[best].pieces))
            best = i;
    }
    return best;
}

/* Whatever the rows' lengths are. */
static bool serves(const struct rt_graph_spec *spec, uint32_t query_len)
{
    return spec->phase == RT_PHASE_DECODE && rt_spec_query_len(spec) == query_len &&
           !spec->most_blocks;
}

static bool has_size(const struct rt_graph_spec *spec, const struct rt_graph_spec *as)
{
    return spec->phase == as->phase && spec->rows == as->rows && spec->tokens == as->tokens;
}

uint32_t rt_spec_find_small(const struct rt_graph_spec *specs, uint32_t count, uint32_t spec)
{
    const struct rt_graph_spec *const s = &specs[spec];
    uint32_t best = count;
    for (uint32_t i = 0; i < count && s->phase == RT_PHASE_DECODE; i++) {
        const uint32_t most = specs[i].most_blocks;
        if (most && has_size(&specs[i], s) && (!s->most_blocks || most < s->most_blocks) &&
            (best == count || most > specs[best].most_blocks))
            best = i;
    }
    return best;
}

/* The graph of that query length with the fewest rows that hold so many; `count`: none. */
static uint32_t smallest(const struct rt_graph_spec *specs, uint32_t count, uint32_t query_len,
                         uint32_t rows)
{
    uint32_t best = count;
    for (uint32_t i = 0; i < count; i++)
        if (serves(&specs[i], query_len) && specs[i].rows >= rows &&
            (best == count || specs[i].rows < specs[best].rows))
            best = i;
    return best;
}

static uint32_t largest_rows(const struct rt_graph_spec *specs, uint32_t count, uint32_t query_len)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < count; i++)
        if (serves(&specs[i], query_len))
            largest = rt_max_u32(largest, specs[i].rows);
    return largest;
}

/* The last replay starts behind the full ones and may be padded. One live row more never needs
 * fewer tensor rows, so the worst live count is max_rows itself. */
uint64_t rt_specs_capacity(const struct rt_graph_spec *specs, uint32_t count, uint32_t max_rows)
{
    uint64_t capacity = 0;
    for (uint32_t query_len = 1; query_len <= RT_MAX_QUERY_LEN; query_len++) {
        const uint32_t largest = largest_rows(specs, count, query_len);
        if (largest == 0)
            continue;
        uint64_t rows = largest;
        if (max_rows > largest) {
            const uint32_t row_base = (max_rows - 1) / largest * largest;
            rows = (uint64_t)row_base +
                   specs[smallest(specs, count, query_len, max_rows - row_base)].rows;
        }
        capacity = rows > capacity ? rows : capacity;
    }
    return capacity;
}

/* Most padding is that of a live count one above the next smaller graph's. */
uint64_t rt_specs_capacity_behind(const struct rt_graph_spec *specs, uint32_t count,
                                  uint32_t max_rows)
{
    uint32_t padding = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t below = 0;
        if (specs[i].phase != RT_PHASE_DECODE)
            continue;
        for (uint32_t j = 0; j < count; j++)
            if (serves(&specs[j], rt_spec_query_len(&specs[i])) && specs[j].rows < specs[i].rows)
                below = rt_max_u32(below, specs[j].rows);
        padding = rt_max_u32(padding, specs[i].rows - below - 1);
    }
    return (uint64_t)max_rows + padding;
}

/* One graph of a size for any number of blocks, and for each limit of few one at most. */
static enum rt_status check_size(const struct rt_graph_spec *specs, uint32_t count, uint32_t at,
                                 struct rt_error *err)
{
    const struct rt_graph_spec *s = &specs[at];
    bool serves_any = !s->most_blocks;
    for (uint32_t i = 0; i < count; i++) {
        if (i == at || !has_size(&specs[i], s))
            continue;
        RT_REQUIRE(specs[i].most_blocks != s->most_blocks, err, RT_ERR_INVALID,
                   "graphs %u and %u both have %u rows and %u tokens", rt_min_u32(i, at),
                   rt_max_u32(i, at), s->rows, s->tokens);
        serves_any |= !specs[i].most_blocks;
    }
    RT_REQUIRE(serves_any, err, RT_ERR_INVALID,
               "graph %u: %u rows and %u tokens in at most %u blocks, and no graph for more", at,
               s->rows, s->tokens, s->most_blocks);
    return RT_OK;
}

static enum rt_status check_spec(const struct rt_graph_spec *specs, uint32_t count, uint32_t at,
                                 struct rt_error *err)
{
    const struct rt_graph_spec *s = &specs[at];
    if (rt_spec_is_chunk(s))
        return RT_OK;
    RT_REQUIRE(s->phase == RT_PHASE_DECODE && s->rows >= 1 && s->rows <= RT_MAX_BATCH &&
                   s->decode_rows == s->rows,
               err, RT_ERR_INVALID,
               "graph %u: phase %d, %u rows, %u of them decode; a step's graph decodes all of 1 to "
               "%d rows",
               at, (int)s->phase, s->rows, s->decode_rows, RT_MAX_BATCH);
    RT_REQUIRE(s->tokens % s->rows == 0 && s->tokens / s->rows >= 1 &&
                   s->tokens / s->rows <= RT_MAX_QUERY_LEN,
               err, RT_ERR_INVALID,
               "graph %u: %u tokens in %u rows are no whole query length from 1 to %d", at,
               s->tokens, s->rows, RT_MAX_QUERY_LEN);
    return check_size(specs, count, at, err);
}

static enum rt_status fill_table(struct rt_spec_index *index, const struct rt_graph_spec *specs,
                                 uint32_t count, uint32_t query_len, struct rt_error *err)
{
    const uint32_t largest = largest_rows(specs, count, query_len);
    if (largest == 0)
        return RT_OK;
    uint16_t *const by_rows = malloc(((size_t)largest + 1) * sizeof(*by_rows));
    RT_REQUIRE(by_rows, err, RT_ERR_NOMEM, "no memory for a table of %u batch sizes", largest);
    uint32_t spec = count;
    for (uint32_t rows = 0; rows <= largest; rows++) {
        if (spec == count || specs[spec].rows < rows)
            spec = smallest(specs, count, query_len, rows);
        by_rows[rows] = (uint16_t)spec;
    }
    index->by_rows[query_len] = by_rows;
    index->largest[query_len] = largest;
    return RT_OK;
}

enum rt_status rt_spec_index_init(struct rt_spec_index *index, const struct rt_graph_spec *specs,
                                  uint32_t count, struct rt_error *err)
{
    enum rt_status status;
    *index = (struct rt_spec_index){0};
    RT_REQUIRE(specs && count >= 1 && count <= RT_MAX_SPECS, err, RT_ERR_INVALID,
               "%u graphs, valid are 1 to %d", count, RT_MAX_SPECS);
    for (uint32_t i = 0; i < count; i++)
        RT_TRY(check_spec(specs, count, i, err));
    for (uint32_t query_len = 1; query_len <= RT_MAX_QUERY_LEN; query_len++)
        RT_TRY_GOTO(fill_table(index, specs, count, query_len, err));
    return RT_OK;
fail:
    rt_spec_index_free(index);
    return status;
}

void rt_spec_index_free(struct rt_spec_index *index)
{
    for (uint32_t query_len = 0; query_len <= RT_MAX_QUERY_LEN; query_len++)
        free(index->by_rows[query_len]);
    *index = (struct rt_spec_index){0};
}

uint32_t rt_spec_replays(const struct rt_spec_index *index, uint32_t query_len, uint32_t rows)
{
    return rt_ceil_div_u32(rows, index->largest[query_len]);
}
