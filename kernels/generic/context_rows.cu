/* SPDX-License-Identifier: Apache-2.0 */
/*
 * context_rows: a step's query tokens as one rank of several has them, by the rule of
 * kernels/abi/context.h.
 *
 *   slot, position, length [rows]
 *   -> token_slot, token_position, token_length, token_place [rows, q_len]
 *
 * A thread a token; blocks of RT_CONTEXT_ROWS_THREADS, no shared memory, no barriers.
 *
 *   row │ wait │ slot, position, length │ four stores
 */
#include "kernels/abi/context.h"
#include "kernels/device/ptx/pdl.cuh"

extern "C" __global__ void __launch_bounds__(RT_CONTEXT_ROWS_THREADS)
    rt_context_rows(const __grid_constant__ struct rt_context_rows_params p)
{
    const uint32_t index = blockIdx.x * RT_CONTEXT_ROWS_THREADS + threadIdx.x;
    const uint32_t row = index / p.q_len;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (row >= p.rows)
        return;
    const int32_t slot = p.slot[row], first = p.position[row];
    const int64_t end = p.length ? p.length[row] : INT64_MAX;
    const bool live = slot >= 0 && first >= 0 && (int64_t)first + (index - row * p.q_len) < end;
    const int32_t position = live ? first + (int32_t)(index - row * p.q_len) : 0;
    if (p.token_slot) {
        p.token_slot[index] = live ? slot : -1;
        p.token_position[index] = position;
    }
    p.token_length[index] =
        live ? rt_context_length(position + 1, p.page_size, p.ranks, p.rank) : 0;
    p.token_place[index] = live ? rt_context_place(position, p.page_size, p.ranks, p.rank) : -1;
}
