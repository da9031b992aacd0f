/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_SCHEDULE_CUH
#define RT_KERNELS_GENERIC_SCHEDULE_CUH

/*
 * schedule: lengths -> tile records and num_splits, by the rule of kernels/abi/schedule.h.
 * docs/schedule.md draws the rule and proves what is used here. One block, once per step.
 *
 *   warp w        rows 128 w .. 128 w + 127, four neighbours a lane     (w < row warps)
 *   warp 31 - v   parts 31 v .. 31 v + 30, one cut a lane               (counted from the end)
 *
 *   row warps    lengths -> costs -> sums -A- base -> board -B- cuts inside -C- num_splits
 *   part warps                             -A-               -B- search -> cut -> record
 *
 *   barrier   makes visible                             and frees
 *   0         blank                                     -
 *   counted   blocks of rows, where they are counted    -  (warps with nothing to do leave)
 *   A         warp_cost, warp_rows, warp_most           -
 *   B         start, row                                -
 *   C         warp_slots                                -  (part warps have left)
 *   D         -                                         those of A, for the wide plan
 *
 * Rows and parts sit in different warps, so both halves behind B run at the same time, with 512
 * rows up to 868 parts; warps with neither leave at once and take no issue slots from those that
 * work. At most MAX_ROWS rows: the launch refuses more.
 */
#include "common/math.h"
#include "kernels/abi/schedule.h"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/settle.cuh"
#include "kernels/device/scan.cuh"
#include "kernels/device/schedule_rule.cuh"
#include "replayrt/rt.h"

#define LANE_ROWS 4u
#define WARP_ROWS (LANE_ROWS * RT_WARP_LANES)
#define MAX_ROWS (LANE_ROWS * RT_SCHEDULE_THREADS)
#define WARPS (RT_SCHEDULE_THREADS / RT_WARP_LANES)
#define WARP_PARTS (RT_WARP_LANES - 1u) /* 32 cuts bound 31 parts */
#define SEARCH_FAN 8u

RT_STATIC_ASSERT(MAX_ROWS >= RT_MAX_BATCH, "every batch fits one pass");
RT_STATIC_ASSERT(MAX_ROWS <= UINT16_MAX + 1, "a row fits 16 bits");
RT_STATIC_ASSERT(WARPS <= RT_WARP_LANES, "one lane per warp holds all warps' sums");

/*
 * Where 32-bit sums are enough. All costs together are at most
 * 2^12 rows * (2^19 + 2^16) = 2^31 + 2^28; the end of the last part at most that plus 2^12, or
 * 2^12 parts * 2^17 = 2^29. All below 2^32. Beyond (a row of 32 million tokens), 64-bit sums.
 */
#define NARROW_ROW_BLOCKS (1u << 19)
#define NARROW_CONSTANT (1u << 16)
#define NARROW_PARTS (1u << 12)
RT_STATIC_ASSERT(MAX_ROWS <= 1u << 12, "the bound above");

/*
 * Rows with blocks, pushed together: entry j is the j-th of them. Entries behind the last are
 * blank, all ones, as far as a search looks, so that it need not ask where the end is. That is
 * written before the wait, where it costs nothing, for both types of Sum.
 */
template <typename Sum> struct board {
    union {
        Sum start[MAX_ROWS + 1]; /* cost of all before; behind the last: of all */
        uint4 blank[MAX_ROWS / 2 + 1];
    };
    uint16_t row[MAX_ROWS + 1]; /* behind the last: the number of rows */
    Sum warp_cost[WARPS];
    uint32_t warp_rows[WARPS];
    uint32_t warp_most[WARPS];
    uint32_t warp_slots[WARPS];
};
RT_STATIC_ASSERT(sizeof(uint4[MAX_ROWS / 2 + 1]) >= sizeof(uint64_t[MAX_ROWS + 1]), "all blank");
RT_STATIC_ASSERT(sizeof(board<uint64_t>) <= 48 * 1024, "static shared memory");

/* A lane's rows. Rows behind the last count as empty. */
struct lane_rows {
    uint32_t first;
    uint32_t blocks[LANE_ROWS];
};

/* Sums over the lanes before this one, within the warp. */
template <typename Sum> struct lane_base {
    Sum cost;
    uint32_t rows; /* with blocks */
};

/* What every thread knows behind barrier A. */
template <typename Sum> struct totals : rt_plan_totals<Sum> {
    Sum cost_before; /* of the warps before this one */
    uint32_t rows_before;
};

static __device__ __forceinline__ uint32_t first_part(void)
{
    return (WARPS - 1 - threadIdx.x / RT_WARP_LANES) * WARP_PARTS;
}

/* Rows whose lengths are there. */
struct stored_rows {
    static constexpr bool COUNTS = false;
    const struct rt_schedule_params &p;

    __device__ __forceinline__ void count(uint16_t *) const
    {
    }

    __device__ __forceinline__ struct lane_rows load(const uint16_t *) const
    {
        struct lane_rows mine = {.first = threadIdx.x * LANE_ROWS, .blocks = {}};
        int32_t length[LANE_ROWS];
#pragma unroll
        for (uint32_t i = 0; i < LANE_ROWS; i++)
            length[i] = mine.first + i < p.rows.count ? p.rows.length[mine.first + i] : 0;
#pragma unroll
        for (uint32_t i = 0; i < LANE_ROWS; i++)
            mine.blocks[i] = ((uint32_t)max(length[i], 0) + RT_BLOCK_TOKENS - 1) / RT_BLOCK_TOKENS;
        return mine;
    }
};

template <typename Sum>
static __device__ __forceinline__ Sum lane_cost(const struct rt_schedule_params &p,
                                                const struct lane_rows &mine)
{
    Sum cost = 0;
#pragma unroll
    for (uint32_t i = 0; i < LANE_ROWS; i++)
        cost += rt_plan_cost<Sum>(p, mine.blocks[i]);
    return cost;
}

/* Rows with blocks in the lanes selected by `lanes`. */
static __device__ __forceinline__ uint32_t count_rows(const uint32_t (&with_blocks)[LANE_ROWS],
                                                      uint32_t lanes)
{
    uint32_t count = 0;
#pragma unroll
    for (uint32_t i = 0; i < LANE_ROWS; i++)
        count += __popc(with_blocks[i] & lanes);
    return count;
}

/* Sums inside the warp, and the warp's own onto the board. Returns what the lanes before hold. */
template <typename Sum>
static __device__ __forceinline__ lane_base<Sum>
sum_rows(const struct rt_schedule_params &p, const struct lane_rows &mine, board<Sum> &board)
{
    uint32_t with_blocks[LANE_ROWS], lane_most = 0;
#pragma unroll
    for (uint32_t i = 0; i < LANE_ROWS; i++) {
        with_blocks[i] = __ballot_sync(RT_FULL_WARP, mine.blocks[i] > 0);
        lane_most = max(lane_most, mine.blocks[i]);
    }
    const uint32_t most = __reduce_max_sync(RT_FULL_WARP, lane_most);

    const uint32_t lane = rt_lane();
    const Sum cost = lane_cost<Sum>(p, mine);
    const Sum upto = rt_warp_inclusive_sum(cost);
    if (lane == RT_WARP_LANES - 1) {
        const uint32_t warp = threadIdx.x / RT_WARP_LANES;
        board.warp_cost[warp] = upto;
        board.warp_rows[warp] = count_rows(with_blocks, RT_FULL_WARP);
        board.warp_most[warp] = most;
    }
    return {upto - cost, count_rows(with_blocks, (1u << lane) - 1)};
}

/* Lane i reads warp i's sums, so that a sum over lanes is a sum over warps. */
template <typename Sum>
static __device__ __forceinline__ totals<Sum> read_totals(const board<Sum> &board,
                                                          uint32_t row_warps)
{
    const uint32_t lane = rt_lane();
    const Sum cost = lane < row_warps ? board.warp_cost[lane] : 0;
    const uint32_t rows = lane < row_warps ? board.warp_rows[lane] : 0;
    const uint32_t most = lane < row_warps ? board.warp_most[lane] : 0;
    const bool before = lane < threadIdx.x / RT_WARP_LANES;
    totals<Sum> all;
    all.cost = rt_warp_sum(cost);
    all.rows = rt_warp_sum(rows);
    all.cost_before = rt_warp_sum(before ? cost : 0);
    all.rows_before = rt_warp_sum(before ? rows : 0);
    all.most = __reduce_max_sync(RT_FULL_WARP, most);
    return all;
}

/* Puts the lane's rows with blocks on the board, the first of them at `at` with cost `start`. */
template <typename Sum>
static __device__ __forceinline__ void push_rows(const struct rt_schedule_params &p,
                                                 const struct lane_rows &mine, Sum start,
                                                 uint32_t at, board<Sum> &board)
{
#pragma unroll
    for (uint32_t i = 0; i < LANE_ROWS; i++) {
        if (mine.blocks[i] > 0) {
            board.start[at] = start;
            board.row[at] = (uint16_t)(mine.first + i);
            at++;
        }
        start += rt_plan_cost<Sum>(p, mine.blocks[i]);
    }
}

/* Likewise where a row is cut by its own length. */
template <typename Sum>
static __device__ __forceinline__ uint32_t own_slots(uint32_t way, uint32_t blocks, Sum payload)
{
    const uint32_t pieces =
        blocks ? rt_invariant_pieces(blocks, rt_invariant_unit(way, blocks, payload)) : 0;
    return pieces > 1 ? pieces : 0;
}

template <typename Sum>
static __device__ __forceinline__ uint32_t row_slots(const struct rt_schedule_params &p, Sum start,
                                                     uint32_t blocks,
                                                     const rt_plan_share<Sum> &of_part)
{
    if (p.schedule.invariant)
        return own_slots(p.schedule.invariant, blocks, of_part.payload.by);
    return of_part.rows > 0 ? 0 : rt_plan_slots(p, start, blocks, of_part.payload);
}

/* Entries that a search among so many rows looks at: a power of SEARCH_FAN. */
static __device__ __forceinline__ uint32_t search_reach(uint32_t rows)
{
    if (rows > 512)
        return MAX_ROWS;
    return rows > 64 ? 512 : 64;
}

/* One level: of the entries at, at + STRIDE, …, at + 7 STRIDE the last whose start is <= x. */
template <uint32_t STRIDE, typename Sum>
static __device__ __forceinline__ uint32_t narrow_down(const board<Sum> &board, uint32_t at, Sum x)
{
    bool passed[SEARCH_FAN];
#pragma unroll
    for (uint32_t i = 1; i < SEARCH_FAN; i++)
        passed[i] = board.start[at + i * STRIDE] <= x;
    /* They are sorted, so three choices do what seven additions in a row would. */
    const uint32_t low = passed[2] ? 2 + passed[3] : passed[1];
    const uint32_t high = passed[6] ? 6 + passed[7] : 4 + passed[5];
    return at + (passed[4] ? high : low) * STRIDE;
}

/*
 * The last entry whose start is <= x: the row that x falls into, where x is below the total. Seven
 * probes in flight at once cost hardly more than one: 512 rows are three levels instead of nine.
 */
template <typename Sum>
static __device__ __forceinline__ uint32_t find_row(const board<Sum> &board, uint32_t rows, Sum x)
{
    uint32_t at = 0;
    if (rows > 512)
        at = narrow_down<512>(board, at, x);
    if (rows > 64)
        at = narrow_down<64>(board, at, x);
    if (rows > 8)
        at = narrow_down<8>(board, at, x);
    return narrow_down<1>(board, at, x);
}
RT_STATIC_ASSERT(MAX_ROWS == SEARCH_FAN * SEARCH_FAN * SEARCH_FAN * SEARCH_FAN, "four levels");

/* A row's own cut that is nearest to its block `k`; of no blocks the row's start. */
template <typename Sum>
static __device__ __forceinline__ struct rt_plan_cut
own_cut(uint32_t way, uint32_t blocks, uint32_t k, Sum payload, uint32_t row, uint32_t next_row)
{
    if (blocks == 0)
        return {row, 0, 0};
    const uint32_t unit = rt_invariant_unit(way, blocks, payload);
    const uint32_t split = (k + unit / 2) / unit;
    if (split == 0)
        return {row, 0, 0};
    const bool ahead = split * unit >= blocks;
    return {ahead ? next_row : row, ahead ? 0 : split * unit, ahead ? 0 : split};
}

/* Where part `part` begins, which may be one that there is not: the end of all. */
template <typename Sum>
static __device__ __forceinline__ struct rt_plan_cut
cut_at(const struct rt_schedule_params &p, const board<Sum> &board, const totals<Sum> &all,
       const rt_plan_share<Sum> &of_part, uint32_t part)
{
    if (of_part.rows > 0)
        return {board.row[min(part * of_part.rows, all.rows)], 0, 0};
    const rt_divisor<Sum> &payload = of_part.payload;
    const Sum x = part * payload.by;
    /* Everything is loaded at once and chosen from: no branch waits for a load of its own. */
    const uint32_t at = find_row(board, all.rows, x);
    const Sum body = board.start[at] + p.overhead_blocks;
    const Sum blocks = board.start[at + 1] - body;
    const uint32_t row = board.row[at], next_row = board.row[at + 1];

    const Sum k = x > body ? x - body : 0;
    const bool behind_all = x >= all.cost;
    if (p.schedule.invariant)
        return own_cut<Sum>(p.schedule.invariant, behind_all ? 0 : (uint32_t)blocks, (uint32_t)k,
                            payload.by, behind_all ? p.rows.count : row,
                            behind_all ? p.rows.count : next_row);
    return rt_plan_cut_of<Sum>(p, payload, k, blocks, row, next_row, behind_all);
}

static __device__ __forceinline__ void write_record(struct rt_part *record, uint32_t rows,
                                                    const struct rt_plan_cut &begin,
                                                    const struct rt_plan_cut &end)
{
    const bool idle = begin.row == end.row && begin.block == end.block;
    int4 *to = reinterpret_cast<int4 *>(record);
    to[0] = idle ? make_int4((int)rows, 0, 0, 0)
                 : make_int4((int)begin.row, (int)begin.block, (int)end.row, (int)end.block);
    to[1] = make_int4(idle ? 0 : (int)begin.split, 0, 0, 0);
}

/* Lane i finds cut first + i; a part's end is the next lane's cut. */
template <typename Sum>
static __device__ __forceinline__ void write_parts(const struct rt_schedule_params &p,
                                                   const board<Sum> &board, const totals<Sum> &all,
                                                   const rt_plan_share<Sum> &of_part)
{
    for (uint32_t first = first_part(); first < p.schedule.part_count;
         first += WARPS * WARP_PARTS) {
        const uint32_t part = first + rt_lane();
        const struct rt_plan_cut begin =
            cut_at(p, board, all, of_part, min(part, p.schedule.part_count));
        struct rt_plan_cut end = {};
        end.row = __shfl_down_sync(RT_FULL_WARP, begin.row, 1);
        end.block = __shfl_down_sync(RT_FULL_WARP, begin.block, 1);
        if (rt_lane() < WARP_PARTS && part < p.schedule.part_count)
            write_record(p.schedule.parts + part, p.rows.count, begin, end);
    }
}

/* num_splits of the lane's rows, the first of which has `value`. */
static __device__ __forceinline__ void write_splits(const struct rt_schedule_params &p,
                                                    const struct lane_rows &mine,
                                                    const uint32_t (&slots)[LANE_ROWS],
                                                    uint32_t value)
{
#pragma unroll
    for (uint32_t i = 0; i < LANE_ROWS; i++) {
        const uint32_t row = mine.first + i;
        if (row < p.rows.count)
            p.schedule.num_splits[row] = (int32_t)value;
        value += slots[i];
        if (row + 1 == p.rows.count)
            p.schedule.num_splits[p.rows.count] = (int32_t)value;
    }
}

/* The whole plan; false, with nothing written, where sums of this type may overflow. */
template <typename Sum>
static __device__ __forceinline__ bool plan(const struct rt_schedule_params &p,
                                            const struct lane_rows &mine, uint32_t row_warps,
                                            const rt_divisor<Sum> &parts, board<Sum> &board)
{
    const uint32_t warp = threadIdx.x / RT_WARP_LANES;
    const bool has_rows = warp < row_warps;
    lane_base<Sum> base = {};
    if (has_rows)
        base = sum_rows(p, mine, board);
    __syncthreads(); /* A */
    const totals<Sum> all = read_totals(board, row_warps);
    if (sizeof(Sum) == sizeof(uint32_t) && all.most > NARROW_ROW_BLOCKS)
        return false;

    const rt_plan_share<Sum> of_part = rt_plan_share_of<Sum>(p, all, parts);
    Sum start = all.cost_before + base.cost;
    if (has_rows)
        push_rows(p, mine, start, all.rows_before + base.rows, board);
    if (threadIdx.x == 0) {
        board.start[all.rows] = all.cost;
        board.row[all.rows] = (uint16_t)p.rows.count;
    }
    __syncthreads(); /* B */

    uint32_t slots[LANE_ROWS], lane_slots = 0, upto = 0;
    if (has_rows) {
#pragma unroll
        for (uint32_t i = 0; i < LANE_ROWS; i++) {
            slots[i] = row_slots(p, start, mine.blocks[i], of_part);
            start += rt_plan_cost<Sum>(p, mine.blocks[i]);
            lane_slots += slots[i];
        }
        upto = rt_warp_inclusive_sum(lane_slots);
        if (rt_lane() == RT_WARP_LANES - 1)
            board.warp_slots[warp] = upto;
    }
    write_parts(p, board, all, of_part);
    if (!has_rows)
        return true;
    __syncthreads(); /* C */
    const uint32_t before = rt_warp_sum(rt_lane() < warp ? board.warp_slots[rt_lane()] : 0);
    write_splits(p, mine, slots, before + upto - lane_slots);
    return true;
}

/*
 * The work of one block of RT_SCHEDULE_THREADS threads, waiting for its predecessor included. Rows
 * that have to be counted first all threads count, and leave their blocks where the board has rows
 * behind A; who counts has triggered.
 */
template <class ROWS>
static __device__ __forceinline__ void schedule_block(const struct rt_schedule_params &p,
                                                      const ROWS &rows)
{
    __shared__ __align__(16) unsigned char memory[sizeof(board<uint64_t>)];
    void *base = rt_settle_shared(memory);
    board<uint32_t> &narrow = *static_cast<board<uint32_t> *>(base);
    board<uint64_t> &wide = *static_cast<board<uint64_t> *>(base);
    for (uint32_t i = threadIdx.x; i < search_reach(p.rows.count) / 2 + 1; i += RT_SCHEDULE_THREADS)
        narrow.blank[i] = make_uint4(~0u, ~0u, ~0u, ~0u);
    const uint32_t row_warps = max(rt_ceil_div_u32(p.rows.count, WARP_ROWS), 1u);
    const bool idle =
        threadIdx.x / RT_WARP_LANES >= row_warps && first_part() >= p.schedule.part_count;
    const bool fits = p.overhead_blocks <= NARROW_CONSTANT && p.min_blocks <= NARROW_CONSTANT &&
                      p.schedule.part_count <= NARROW_PARTS;
    const rt_divisor<uint32_t> parts(p.schedule.part_count);
    rt_settle(parts.inverse);
    __syncthreads(); /* 0 */
    rt_pdl_wait();
    if (!ROWS::COUNTS)
        rt_pdl_launch_dependents();
    rows.count(narrow.row);
    if (ROWS::COUNTS)
        __syncthreads();
    if (idle)
        return;
    if (threadIdx.x == 0 && p.rows.count == 0)
        p.schedule.num_splits[0] = 0;

    const struct lane_rows mine = rows.load(narrow.row);
    if (fits && plan(p, mine, row_warps, parts, narrow))
        return;
    __syncthreads(); /* D */
    plan(p, mine, row_warps, rt_divisor<uint64_t>(p.schedule.part_count), wide);
}

#endif
