/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_SCHEDULE_RULE_CUH
#define RT_KERNELS_DEVICE_SCHEDULE_RULE_CUH

/*
 * The arithmetic of kernels/abi/schedule.h, for who writes the plan down and who makes it for
 * itself. Sum holds all costs together.
 */
#include "kernels/abi/schedule.h"
#include "kernels/device/divisor.cuh"

/* What a part takes. */
template <typename Sum> struct rt_plan_share {
    rt_divisor<Sum> payload;
    uint32_t rows; /* whole ones; 0: rows are cut */
};

struct rt_plan_cut {
    uint32_t row, block;
    uint32_t split; /* cuts strictly inside row up to this one; 0 where block is 0 */
};

/* Of all rows. */
template <typename Sum> struct rt_plan_totals {
    Sum cost;
    uint32_t rows; /* with blocks */
    uint32_t most; /* blocks of a row */
};

template <typename Sum>
static __device__ __forceinline__ Sum rt_plan_cost(const struct rt_schedule_params &p,
                                                   uint32_t blocks)
{
    return blocks ? (Sum)blocks + p.overhead_blocks : 0;
}

/*
 * Partial slots of a row that may be cut: its pieces where there is more than one. Without a
 * branch, so that a lane's rows overlap; a row without room for a cut may underflow on the way.
 */
template <typename Sum>
static __device__ __forceinline__ uint32_t rt_plan_slots(const struct rt_schedule_params &p,
                                                         Sum start, uint32_t blocks,
                                                         const rt_divisor<Sum> &payload)
{
    const Sum body = start + p.overhead_blocks;
    const Sum upto_last = payload.quotient(body + blocks - p.min_blocks);
    const Sum before_first = payload.quotient(body + p.min_blocks - 1);
    const bool room = blocks / 2 >= p.min_blocks;
    return room && upto_last != before_first ? (uint32_t)(upto_last - before_first) + 1 : 0;
}

/* A part's payload; and whether rows are so much alike that it may as well be whole ones. */
template <typename Sum>
static __device__ __forceinline__ rt_plan_share<Sum>
rt_plan_share_of(const struct rt_schedule_params &p, const rt_plan_totals<Sum> &all,
                 const rt_divisor<Sum> &parts)
{
    const Sum least = (Sum)p.min_blocks + p.overhead_blocks;
    const Sum payload = max(parts.quotient(all.cost + p.schedule.part_count - 1), least);
    const uint32_t each = (uint32_t)parts.quotient((Sum)all.rows + p.schedule.part_count - 1);
    const uint64_t most = each * ((uint64_t)all.most + p.overhead_blocks);
    const bool whole =
        !p.schedule.invariant && most <= (uint64_t)payload + payload / RT_SCHEDULE_IDLE_SHARE;
    return {rt_divisor<Sum>(payload), whole ? each : 0};
}

/* The cut at block `k` of row `row`, which has `blocks`, or where it moves to; `behind_all`: at the
 * end of all `rows`. */
template <typename Sum>
static __device__ __forceinline__ struct rt_plan_cut
rt_plan_cut_of(const struct rt_schedule_params &p, const rt_divisor<Sum> &payload, Sum k,
               Sum blocks, uint32_t row, uint32_t next_row, bool behind_all)
{
    const bool back = k < p.min_blocks;
    const bool ahead = !back && blocks - k < p.min_blocks;
    const bool inside = !behind_all && !back && !ahead;
    const uint32_t split = (uint32_t)payload.quotient(k - p.min_blocks) + 1;
    return {behind_all ? p.rows.count
            : ahead    ? next_row
                       : row,
            inside ? (uint32_t)k : 0, inside ? split : 0};
}

#endif
