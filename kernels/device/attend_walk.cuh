/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_ATTEND_WALK_CUH
#define RT_KERNELS_DEVICE_ATTEND_WALK_CUH

/*
 * What a block does after what: its part's batch rows as one stream of steps of up to 32 keys.
 *
 *   row    5                     6           8 (7 is empty)   none
 *   step   0   1   2   ...   8   9  10  11  12  13  14        15
 *
 * One warp walks, two steps ahead of the work; the block reads the steps in shared memory. So the
 * arithmetic is done once, and takes no registers from the other warps.
 */
#include "kernels/abi/attend.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/invariant.h"
#include "kernels/device/divisor.cuh"

#define RT_ATTEND_NONE (-1) /* row of the step after the last */
#define RT_ATTEND_FULL_WARP 0xffffffffu

/* Up to 32 keys of one batch row. */
struct rt_attend_step {
    int row;    /* batch row, or RT_ATTEND_NONE */
    int key;    /* first key */
    int end;    /* keys from here on are not for this part, or seen by no query row of this tile */
    int length; /* of the batch row */
    int line;   /* of the block table; negative: none */
};

/* The part of the schedule and the tile of query rows. */
struct rt_attend_part {
    int begin_row, begin_key; /* first batch row, and where in it */
    int end_row, end_key;     /* the batch row that ends at end_key instead of at its length */
    int stop_row;             /* first batch row not touched */
    int begin_split;
    int first_token, last_token; /* of the tile's first and last query row */
    int64_t row_base;
};

struct alignas(16) rt_attend_walk {
    struct rt_attend_part part;
    struct rt_divisor<uint32_t> page;                    /* key -> column of the block table */
    struct rt_attend_step step[RT_ATTEND_GENERIC_STEPS]; /* step i in i % STEPS */
};
static_assert(sizeof(struct rt_attend_walk) == RT_ATTEND_GENERIC_WALK_BYTES, "walk's formula");

static __device__ __forceinline__ struct rt_attend_part
rt_attend_read_part(const struct rt_attend_params &p, int first_query, int last_query)
{
    const struct rt_part *record = p.schedule.parts + blockIdx.y;
    struct rt_attend_part part;
    part.begin_row = record->begin_row;
    part.begin_key = record->begin_block * RT_BLOCK_TOKENS;
    part.end_row = record->end_row;
    part.end_key = record->end_block * RT_BLOCK_TOKENS;
    part.stop_row = min(part.end_row + (part.end_key > 0 ? 1 : 0), (int)p.rows.count);
    part.begin_split = record->begin_split;
    part.first_token = first_query / (int)p.heads;
    part.last_token = last_query / (int)p.heads;
    part.row_base = p.rows.ctrl ? (int64_t)p.rows.ctrl->row_base : 0;
    return part;
}

/* Keys below it are seen by the query token. */
static __device__ __forceinline__ int rt_attend_key_limit(const struct rt_attend_params &p,
                                                          int length, int token)
{
    return p.causal ? length - ((int)p.rows.q_len - 1 - token) : length;
}

/* Keys of the batch row from here on are not for this part. */
static __device__ __forceinline__ int rt_attend_stop(const struct rt_attend_part &part, int row,
                                                     int length)
{
    return row == part.end_row ? min(part.end_key, length) : length;
}

/* A batch row's keys that this part and this tile are about, as its first step. */
static __device__ __forceinline__ struct rt_attend_step
rt_attend_begin_row(const struct rt_attend_params &p, const struct rt_attend_part &part, int row,
                    int length, int line)
{
    const int stop = rt_attend_stop(part, row, length);
    return {row, row == part.begin_row ? part.begin_key : 0,
            min(stop, rt_attend_key_limit(p, length, part.last_token)), length, line};
}

/* Batch-invariant: of the keys of the step only those of its leaf, which it begins. */
static __device__ __forceinline__ struct rt_attend_step
rt_attend_leaf(uint32_t way, const struct rt_attend_step &at)
{
    const int leaf = (int)rt_invariant_leaf(way, rt_invariant_blocks(at.length)) * RT_BLOCK_TOKENS;
    return {at.row, at.key, min(at.end, at.key + leaf), at.length, at.line};
}

/* What a leaf is to its batch row: where the piece that it is, or is of, goes in the partials, -1
 * where the row is not split; whether it is the piece; whether it is the first or last of a group.
 */
struct rt_attend_piece {
    int slot;
    bool is_leaf, opens, closes;
};

/* Of the leaf that has the key. first, end: the row's slots, none where it is not split. */
static __device__ __forceinline__ struct rt_attend_piece
rt_attend_piece_of(uint32_t way, int length, int key, int first, int end)
{
    const uint32_t blocks = rt_invariant_blocks(length), leaf = rt_invariant_leaf(way, blocks);
    const uint32_t unit = rt_invariant_unit_of(way, blocks, end - first);
    const uint32_t block = (uint32_t)key / RT_BLOCK_TOKENS, number = block / leaf;
    const uint32_t place = number % RT_INVARIANT_GROUP;
    return {end > first ? min(first + (int)(block / unit), end - 1) : -1, unit == leaf, place == 0,
            place == RT_INVARIANT_GROUP - 1 || (number + 1) * leaf >= blocks};
}

/*
 * First step of the first batch row from `row` on that has keys: 128 rows at a look, since a
 * part may end with hundreds of padded ones. Every such row gets a step, also where no query row
 * of this tile sees a key of this part: its output is still to be written. By a whole warp.
 */
static __device__ __forceinline__ struct rt_attend_step
rt_attend_find_row(const struct rt_attend_params &p, const struct rt_attend_part &part, int row,
                   int lane)
{
    for (; row < part.stop_row; row += 128) {
        int length[4], line[4]; /* asked for together: a row's begin waits for one look */
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int mine = row + i * 32 + lane;
            const bool there = mine < part.stop_row;
            length[i] = there ? p.rows.length[mine] : 0;
            line[i] = there && p.rows.slot ? p.rows.slot[mine] : mine;
        }
        int found_row = RT_ATTEND_NONE, found_length = 0, found_line = 0;
#pragma unroll
        for (int i = 3; i >= 0; i--) {
            const unsigned found = __ballot_sync(RT_ATTEND_FULL_WARP, length[i] > 0);
            if (found == 0)
                continue;
            const int at = __ffs((int)found) - 1;
            found_row = row + i * 32 + at;
            found_length = __shfl_sync(RT_ATTEND_FULL_WARP, length[i], at);
            found_line = __shfl_sync(RT_ATTEND_FULL_WARP, line[i], at);
        }
        if (found_row != RT_ATTEND_NONE)
            return rt_attend_begin_row(p, part, found_row, found_length, found_line);
    }
    return {RT_ATTEND_NONE, 0, 0, 0, -1};
}

/* Where leaves are folded, one of them ends where its row goes on, and another begins. */
template <bool FOLD>
static __device__ __forceinline__ struct rt_attend_step
rt_attend_next_step(const struct rt_attend_params &p, const struct rt_attend_part &part,
                    const struct rt_attend_step &at, int lane)
{
    const int key = at.key + (int)RT_ATTEND_GENERIC_KEYS;
    if (at.row == RT_ATTEND_NONE)
        return at;
    if (key < at.end)
        return {at.row, key, at.end, at.length, at.line};
    const int stop = rt_attend_stop(part, at.row, at.length);
    if (FOLD && at.end < stop)
        return rt_attend_leaf(p.schedule.invariant, {at.row, at.end, stop, at.length, at.line});
    const struct rt_attend_step next = rt_attend_find_row(p, part, at.row + 1, lane);
    return FOLD ? rt_attend_leaf(p.schedule.invariant, next) : next;
}

/* By a whole warp: part and steps 0 and 1. */
template <bool FOLD>
static __device__ __forceinline__ void
rt_attend_begin_walk(const struct rt_attend_params &p, struct rt_attend_walk &walk, int first_query,
                     int last_query, int lane)
{
    const struct rt_attend_part part = rt_attend_read_part(p, first_query, last_query);
    const struct rt_attend_step found = rt_attend_find_row(p, part, part.begin_row, lane);
    const struct rt_attend_step first = FOLD ? rt_attend_leaf(p.schedule.invariant, found) : found;
    const struct rt_attend_step second = rt_attend_next_step<FOLD>(p, part, first, lane);
    if (lane == 0) {
        walk.part = part;
        walk.page = rt_divisor<uint32_t>(p.kv.page_size);
        walk.step[0] = first;
        walk.step[1] = second;
    }
}

/* By the same warp, while step i is worked on: step i + 2. Its place was step i - 2's. */
template <bool FOLD>
static __device__ __forceinline__ void rt_attend_continue_walk(const struct rt_attend_params &p,
                                                               struct rt_attend_walk &walk, int i,
                                                               int lane)
{
    const struct rt_attend_step after =
        rt_attend_next_step<FOLD>(p, walk.part, walk.step[(i + 1) % RT_ATTEND_GENERIC_STEPS], lane);
    if (lane == 0)
        walk.step[(i + 2) % RT_ATTEND_GENERIC_STEPS] = after;
}

#endif
