/* SPDX-License-Identifier: Apache-2.0 */
/* preattend on its own, as many blocks as it has work for; the body is in preattend.cuh. */
#include "kernels/generic/preattend.cuh"

extern "C" __global__ void __launch_bounds__(RT_PREATTEND_WARPS *RT_WARP_LANES)
    rt_preattend(const __grid_constant__ struct rt_preattend_params p)
{
    /* As in append: what the kernel behind it reads before its own wait is older than the launch in
     * front of this one. */
    rt_pdl_launch_dependents();
    rt_preattend_block<RT_PREATTEND_WARPS>(p, blockIdx.x, gridDim.x);
}
