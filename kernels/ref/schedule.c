/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <stdbool.h>

/* A place between two pieces of work: before block `block` of row `row`. */
struct cut {
    int32_t row, block;
};

static int64_t row_blocks(const struct rt_schedule_params *p, uint32_t row)
{
    int64_t length = p->rows.length[row] > 0 ? p->rows.length[row] : 0;
    return (length + RT_BLOCK_TOKENS - 1) / RT_BLOCK_TOKENS;
}

static int64_t row_cost(const struct rt_schedule_params *p, uint32_t row)
{
    int64_t blocks = row_blocks(p, row);
    return blocks ? blocks + p->overhead_blocks : 0;
}

static int64_t part_payload(const struct rt_schedule_params *p)
{
    int64_t total = 0;
    for (uint32_t r = 0; r < p->rows.count; r++)
        total += row_cost(p, r);
    int64_t share = (total + p->schedule.part_count - 1) / p->schedule.part_count;
    int64_t least = (int64_t)p->min_blocks + p->overhead_blocks;
    return share > least ? share : least;
}

/* Rows that a part takes where it takes whole ones, 0 where rows are cut. */
static int64_t whole_rows(const struct rt_schedule_params *p, int64_t payload)
{
    int64_t rows = 0, most = 0;
    for (uint32_t r = 0; r < p->rows.count; r++) {
        const int64_t cost = row_cost(p, r);
        rows += cost > 0;
        most = cost > most ? cost : most;
    }
    const int64_t each = (rows + p->schedule.part_count - 1) / p->schedule.part_count;
    const bool is_whole = !p->schedule.invariant && each > 0 &&
                          each * most <= payload + payload / RT_SCHEDULE_IDLE_SHARE;
    return is_whole ? each : 0;
}

static struct cut next_row_start(const struct rt_schedule_params *p, uint32_t row)
{
    while (row < p->rows.count && row_blocks(p, row) == 0)
        row++;
    return (struct cut){.row = (int32_t)row, .block = 0};
}

static uint32_t unit_of(const struct rt_schedule_params *p, uint32_t row, int64_t payload)
{
    return rt_invariant_unit(p->schedule.invariant, (uint32_t)row_blocks(p, row),
                             (uint64_t)payload);
}

/* Where pieces are the row's own affair: the cut nearest to block `block` that is one of its. */
static struct cut own_cut(const struct rt_schedule_params *p, uint32_t row, int64_t block,
                          int64_t payload)
{
    const int64_t unit = unit_of(p, row, payload);
    const int64_t to = (block + unit / 2) / unit * unit;
    if (to >= row_blocks(p, row))
        return next_row_start(p, row + 1);
    return (struct cut){.row = (int32_t)row, .block = (int32_t)to};
}

/* The cut nearest to `x` units of cost from the start that leaves no piece too small. */
static struct cut cut_at(const struct rt_schedule_params *p, int64_t x, int64_t payload)
{
    for (uint32_t r = 0; r < p->rows.count; r++) {
        int64_t cost = row_cost(p, r);
        if (x >= cost) {
            x -= cost;
            continue;
        }
        int64_t block = x > (int64_t)p->overhead_blocks ? x - p->overhead_blocks : 0;
        if (p->schedule.invariant)
            return own_cut(p, r, block, payload);
        if (block < (int64_t)p->min_blocks)
            return (struct cut){.row = (int32_t)r, .block = 0};
        if (row_blocks(p, r) - block < (int64_t)p->min_blocks)
            return next_row_start(p, r + 1);
        return (struct cut){.row = (int32_t)r, .block = (int32_t)block};
    }
    return (struct cut){.row = (int32_t)p->rows.count, .block = 0};
}

/* Before the row in front of which there are so many others with blocks. */
static struct cut whole_cut(const struct rt_schedule_params *p, int64_t rows)
{
    struct cut at = next_row_start(p, 0);
    for (; rows > 0 && (uint32_t)at.row < p->rows.count; rows--)
        at = next_row_start(p, (uint32_t)at.row + 1);
    return at;
}

/* Pieces of the row, where there is more than one. */
static int32_t own_pieces(const struct rt_schedule_params *p, uint32_t row, int64_t payload)
{
    const uint32_t blocks = (uint32_t)row_blocks(p, row);
    const uint32_t pieces = blocks ? rt_invariant_pieces(blocks, unit_of(p, row, payload)) : 0;
    return pieces > 1 ? (int32_t)pieces : 0;
}

/* Parts, and into num_splits how many cuts are inside of each row. */
static void write_parts(const struct rt_schedule_params *p, int64_t payload)
{
    const int64_t whole = whole_rows(p, payload);
    struct cut begin = cut_at(p, 0, payload);
    int32_t split = 0; /* cuts strictly inside begin.row, up to begin */
    for (uint32_t part = 0; part < p->schedule.part_count; part++) {
        struct cut end = whole > 0 ? whole_cut(p, (part + (int64_t)1) * whole)
                                   : cut_at(p, (part + (int64_t)1) * payload, payload);
        bool idle = begin.row == end.row && begin.block == end.block;
        if (p->schedule.invariant && begin.block > 0)
            split = begin.block / (int32_t)unit_of(p, (uint32_t)begin.row, payload);
        p->schedule.parts[part] = idle ? (struct rt_part){.begin_row = (int32_t)p->rows.count}
                                       : (struct rt_part){.begin_row = begin.row,
                                                          .begin_block = begin.block,
                                                          .end_row = end.row,
                                                          .end_block = end.block,
                                                          .begin_split = split};
        if (end.row != begin.row)
            split = 0;
        if (end.block > 0) {
            split++;
            p->schedule.num_splits[end.row] = split;
        }
        begin = end;
    }
}

void rt_ref_schedule(const void *params)
{
    const struct rt_schedule_params *p = params;
    const int64_t payload = part_payload(p);
    for (uint32_t r = 0; r <= p->rows.count; r++)
        p->schedule.num_splits[r] = 0;
    write_parts(p, payload);
    int32_t slots = 0;
    for (uint32_t r = 0; r <= p->rows.count; r++) {
        const int32_t cuts = p->schedule.num_splits[r];
        p->schedule.num_splits[r] = slots;
        if (p->schedule.invariant)
            slots += r < p->rows.count ? own_pieces(p, r, payload) : 0;
        else
            slots += cuts > 0 ? cuts + 1 : 0;
    }
}
