/* SPDX-License-Identifier: Apache-2.0 */
/* schedule on its own, as the operators launch it; the body is in schedule.cuh. */
#include "kernels/generic/schedule.cuh"

extern "C" __global__ void __launch_bounds__(RT_SCHEDULE_THREADS, 1)
    rt_schedule(const __grid_constant__ struct rt_schedule_params p)
{
    schedule_block(p, stored_rows{p});
}
