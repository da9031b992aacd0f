/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_COUNTED_PLAN_CUH
#define RT_KERNELS_DEVICE_COUNTED_PLAN_CUH

/*
 * The plan of few counted rows, by any warp that wants it: a lane has a row, and sums over lanes
 * are what the schedule's kernel sums over warps. The same arithmetic, so the same numbers.
 *
 * Counts are asked for as if the step were of one replay, beside where its rows begin, and once
 * more where that was wrong.
 */
#include "kernels/abi/counted.h"
#include "kernels/device/scan.cuh"
#include "kernels/device/schedule_rule.cuh"

RT_STATIC_ASSERT(RT_COUNTED_ROWS == RT_WARP_LANES, "a lane for each row");

struct rt_counted_plan {
    const struct rt_counted_view &view;
    const struct rt_schedule_params p; /* its constants, and how many rows */
    const rt_divisor<uint32_t> parts;
    uint32_t row_base;
    uint32_t length, blocks, cost; /* of this lane's row */
    uint32_t start;                /* cost of all before it */
    uint32_t with_blocks;          /* of every row a bit */
    rt_plan_totals<uint32_t> all;
    rt_plan_share<uint32_t> of_part;

    __device__ __forceinline__ rt_counted_plan(const struct rt_counted_view &view_,
                                               const struct rt_schedule_view &schedule,
                                               const struct rt_rows_view &rows)
        : view(view_), p{schedule, view_.overhead_blocks, view_.min_blocks, rows},
          parts(schedule.part_count), row_base(0), of_part{rt_divisor<uint32_t>(1), 0}
    {
    }

    /* Of this lane's row. */
    __device__ __forceinline__ uint32_t ask(void)
    {
        const bool have = rt_lane() < p.rows.count;
        const uint32_t of_first = have ? rt_counted_length(&view, 0, rt_lane()) : 0;
        row_base = rt_row_base(&p.rows);
        return row_base && have ? rt_counted_length(&view, row_base, rt_lane()) : of_first;
    }

    __device__ __forceinline__ void make(uint32_t counted)
    {
        length = counted;
        blocks = (length + RT_BLOCK_TOKENS - 1) / RT_BLOCK_TOKENS;
        cost = rt_plan_cost<uint32_t>(p, blocks);
        with_blocks = __ballot_sync(RT_FULL_WARP, blocks > 0);
        const uint32_t upto = rt_warp_inclusive_sum(cost);
        start = upto - cost;
        all.cost = __shfl_sync(RT_FULL_WARP, upto, RT_WARP_LANES - 1);
        all.rows = (uint32_t)__popc(with_blocks);
        all.most = __reduce_max_sync(RT_FULL_WARP, blocks);
        of_part = rt_plan_share_of<uint32_t>(p, all, parts);
    }

    /* Keys of this lane's row where its lists are full. */
    __device__ __forceinline__ uint32_t full(void) const
    {
        return rt_lane() < p.rows.count ? view.keys.topk + view.extra.topk : 0;
    }

    /* Whether the plan that was made of full lists, of a step of one replay, is wrong. */
    __device__ __forceinline__ bool differs(uint32_t counted) const
    {
        return __any_sync(RT_FULL_WARP, counted != length || row_base > 0);
    }

    /* The first of those rows; none: behind the last. */
    __device__ __forceinline__ uint32_t first_of(uint32_t rows) const
    {
        return rows ? (uint32_t)__ffs((int)rows) - 1 : p.rows.count;
    }

    /* Where part `part` begins. */
    __device__ __forceinline__ struct rt_plan_cut cut_at(uint32_t part) const
    {
        if (of_part.rows > 0) {
            const uint32_t before = (uint32_t)__popc(with_blocks & ((1u << rt_lane()) - 1));
            return {
                first_of(__ballot_sync(RT_FULL_WARP, blocks > 0 && before == part * of_part.rows)),
                0, 0};
        }
        const uint32_t x = part * of_part.payload.by;
        const uint32_t found = __ballot_sync(RT_FULL_WARP, start <= x && x - start < cost);
        const uint32_t row = found ? first_of(found) : 0;
        const uint32_t next_row = first_of(with_blocks & ~((2u << row) - 1));
        const uint32_t body = __shfl_sync(RT_FULL_WARP, start, (int)row) + p.overhead_blocks;
        const uint32_t of_row = __shfl_sync(RT_FULL_WARP, blocks, (int)row);
        const uint32_t k = x > body ? x - body : 0;
        return rt_plan_cut_of<uint32_t>(p, of_part.payload, k, of_row, row, next_row, !found);
    }

    /* What num_splits would have of this lane's row, and of the next. */
    __device__ __forceinline__ void find_splits(int *first, int *end) const
    {
        const uint32_t slots =
            of_part.rows > 0 ? 0 : rt_plan_slots<uint32_t>(p, start, blocks, of_part.payload);
        const uint32_t upto = rt_warp_inclusive_sum(slots);
        *first = (int)(upto - slots);
        *end = (int)upto;
    }

    /* As the record would be. */
    __device__ __forceinline__ struct rt_part record(uint32_t part) const
    {
        const struct rt_plan_cut begin = cut_at(part), end = cut_at(part + 1);
        if (begin.row == end.row && begin.block == end.block)
            return {(int)p.rows.count, 0, 0, 0, 0, {0, 0, 0}};
        return {(int)begin.row, (int)begin.block, (int)end.row,
                (int)end.block, (int)begin.split, {0, 0, 0}};
    }
};

#endif
