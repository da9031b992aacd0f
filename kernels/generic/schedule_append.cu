/* SPDX-License-Identifier: Apache-2.0 */
/*
 * schedule_append: the step's schedule and the first layer's append in one node, because neither
 * needs the other and attention needs both. Block 0 schedules; the others append, a warp a token.
 * Alone they are schedule.cu and append.cu.
 */
#include "kernels/generic/append.cuh"
#include "kernels/generic/schedule.cuh"

extern "C" __global__ void __launch_bounds__(RT_SCHEDULE_THREADS, 1)
    rt_schedule_append(const __grid_constant__ struct rt_schedule_append_params p)
{
    if (blockIdx.x == 0)
        schedule_block(p.schedule, stored_rows{p.schedule});
    else
        append_token(p.append, (blockIdx.x - 1) * (RT_SCHEDULE_THREADS / RT_WARP_LANES) +
                                   threadIdx.x / RT_WARP_LANES);
}
