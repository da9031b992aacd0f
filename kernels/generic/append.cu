/* SPDX-License-Identifier: Apache-2.0 */
/* append on its own, a block of RT_APPEND_WARPS tokens; the body is in append.cuh. */
#include "kernels/generic/append.cuh"

extern "C" __global__ void __launch_bounds__(RT_APPEND_WARPS *RT_WARP_LANES)
    rt_append(const __grid_constant__ struct rt_append_params p)
{
    /* The attention behind it may start at once: what it reads before its own wait is older than
     * the launch in front of this one (kernels/abi/attend.h, early). */
    rt_pdl_launch_dependents();
    append_token(p, blockIdx.x * RT_APPEND_WARPS + threadIdx.x / RT_WARP_LANES);
}
