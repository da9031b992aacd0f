/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparse_schedule: counts -> lengths, and their schedule, by the rules of kernels/abi/sparse.h and
 * kernels/abi/schedule.h.
 *
 * One block, a thread a row at a time, so that counts are one trip to memory. It triggers attention
 * with its first instruction, which waits before it reads anything: attention's blocks are there
 * when the schedule is.
 */
#include "kernels/abi/sparse.h"
#include "kernels/generic/schedule.cuh"

RT_STATIC_ASSERT(2 * (RT_MAX_LENGTH / RT_BLOCK_TOKENS) <= UINT16_MAX, "blocks of two lists");

struct counted_rows {
    static constexpr bool COUNTS = true;
    const struct rt_sparse_schedule_params &p;

    /* `in_lists` counts tokens from the lists' beginning. */
    __device__ __forceinline__ uint32_t length_of(uint32_t token, uint32_t in_lists) const
    {
        const bool padding = p.row_length && p.row_length[token / p.q_len] <= 0;
        const uint32_t count =
            rt_sparse_count(&p.keys, in_lists) + rt_sparse_count(&p.extra, in_lists);
        return padding ? 0 : count;
    }

    /* As if the step were of one replay, while it is asked where its rows begin; and once more
     * where that was wrong. */
    __device__ __forceinline__ void count(uint16_t *blocks) const
    {
        const uint32_t base = rt_row_base(&p.schedule.rows) * p.q_len;
        uint32_t guess = 0;
#pragma unroll 1
        for (;; guess = base) {
#pragma unroll 1
            for (uint32_t t = threadIdx.x; t < p.schedule.rows.count; t += RT_SCHEDULE_THREADS) {
                const uint32_t length = length_of(t, guess + t);
                p.length[t] = (int32_t)length;
                blocks[t] = (uint16_t)((length + RT_BLOCK_TOKENS - 1) / RT_BLOCK_TOKENS);
            }
            if (guess == base)
                return;
        }
    }

    __device__ __forceinline__ struct lane_rows load(const uint16_t *blocks) const
    {
        struct lane_rows mine = {.first = threadIdx.x * LANE_ROWS, .blocks = {}};
#pragma unroll
        for (uint32_t i = 0; i < LANE_ROWS; i++)
            if (mine.first + i < p.schedule.rows.count)
                mine.blocks[i] = blocks[mine.first + i];
        return mine;
    }
};

extern "C" __global__ void __launch_bounds__(RT_SCHEDULE_THREADS, 1)
    rt_sparse_schedule(const __grid_constant__ struct rt_sparse_schedule_params p)
{
    rt_pdl_launch_dependents();
    schedule_block(p.schedule, counted_rows{p});
}
