/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/block_tables.h"

#include "common/math.h"
#include "common/rope.h"

#include <stdlib.h>

/* Positions made and copied at a time: a table of a million tokens is 256 MiB. */
#define CHUNK 4096u

struct maker {
    const struct rt_rope *rope;
    double speeds[RT_MAX_ROPE_PAIRS];
    uint32_t pairs;
};

static void make_rows(const struct maker *m, uint32_t first, uint32_t count, float *rows)
{
    rt_rope_rows(m->rope, m->speeds, m->pairs, first, count, rows);
}

static void make_scales(const struct maker *m, uint32_t first, uint32_t count, float *scales)
{
    for (uint32_t i = 0; i < count; i++)
        scales[i] = (float)rt_rope_query_scale(m->rope, first + i);
}

static enum rt_status fill(const struct maker *m,
                           void (*make)(const struct maker *, uint32_t, uint32_t, float *),
                           const struct rt_arena *arena, enum rt_tensor_id id, struct rt_driver *d,
                           rt_dstream stream, struct rt_error *err)
{
    const struct rt_placed *t = &arena->placement->tensors[id];
    enum rt_status status = RT_OK;
    if (t->bytes == 0)
        return RT_OK;
    const uint32_t positions = (uint32_t)t->shape[0];
    const uint64_t row_bytes = t->bytes / positions;
    float *const chunk = malloc((size_t)(CHUNK * row_bytes));
    RT_REQUIRE(chunk, err, RT_ERR_NOMEM, "out of host memory for %u rows of %s", CHUNK, t->name);
    for (uint32_t first = 0; first < positions; first += CHUNK) {
        const uint32_t count = rt_min_u32(CHUNK, positions - first);
        const rt_addr to = rt_arena_addr(arena, id, 0) + first * row_bytes;
        make(m, first, count, chunk);
        RT_TRY_GOTO(RT_DRV(d, err, copy_in, (d, to, chunk, count * row_bytes, stream)));
        RT_TRY_GOTO(RT_DRV(d, err, stream_sync, (d, stream)));
    }
fail:
    free(chunk);
    return status;
}

/* Words that blocks of one kernel hand each other are 0xff until they are written. */
static enum rt_status blank(const struct rt_arena *arena, struct rt_driver *d, rt_dstream stream,
                            struct rt_error *err)
{
    const struct rt_placed *t = &arena->placement->tensors[RT_TENSOR_EXCHANGES];
    if (t->bytes == 0)
        return RT_OK;
    const rt_addr at = rt_arena_addr(arena, RT_TENSOR_EXCHANGES, 0);
    RT_TRY(RT_DRV(d, err, fill, (d, at, 0xff, t->bytes, stream)));
    return RT_DRV(d, err, stream_sync, (d, stream));
}

enum rt_status rt_block_tables_fill(const struct rt_config *config, const struct rt_arena *arena,
                                    struct rt_driver *d, rt_dstream stream, struct rt_error *err)
{
    const uint32_t rope_dim = config->geometry.qk_rope_head_dim;
    struct maker m = {.rope = &config->block.rope, .pairs = rope_dim / 2};
    rt_rope_speeds(m.rope, rope_dim, config->max_length, m.speeds);
    RT_TRY(fill(&m, make_rows, arena, RT_TENSOR_ROPE_TABLE, d, stream, err));
    RT_TRY(fill(&m, make_scales, arena, RT_TENSOR_QUERY_SCALE, d, stream, err));
    return blank(arena, d, stream, err);
}
