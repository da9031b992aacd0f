/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparse_schedule: counts -> lengths, and their schedule, by the rules of kernels/abi/sparse.h and
 * kernels/abi/schedule.h.
 *
 * One block. A thread counts the rows that schedule_block has it read, so no thread needs what
 * another has counted; attention does, and waits for the grid.
 */
#include "kernels/abi/sparse.h"
#include "kernels/generic/schedule.cuh"

static __device__ __forceinline__ void sparse_count(const struct rt_sparse_schedule_params &p)
{
    const uint32_t first = rt_row_base(&p.schedule.rows) * p.q_len;
    for (uint32_t i = 0; i < LANE_ROWS; i++) {
        const uint32_t token = threadIdx.x * LANE_ROWS + i;
        if (token >= p.schedule.rows.count)
            return;
        const bool padding = p.row_length && p.row_length[token / p.q_len] <= 0;
        const uint32_t count =
            rt_sparse_count(&p.keys, first + token) + rt_sparse_count(&p.extra, first + token);
        p.length[token] = padding ? 0 : (int32_t)count;
    }
}

extern "C" __global__ void __launch_bounds__(RT_SCHEDULE_THREADS, 1)
    rt_sparse_schedule(const __grid_constant__ struct rt_sparse_schedule_params p)
{
    rt_pdl_wait(); /* for the counts, and for who still reads the lengths of the call before */
    sparse_count(p);
    schedule_block(p.schedule);
}
