/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preattend and the product of q's first part in one node, because neither needs the other and
 * attention needs both: kernels/abi/preattend_absorb.h. The first blocks multiply, as those of
 * project.cu; the others are preattend's. A vector whose token is not live is not looked at, for a
 * block beside may be writing its zeros.
 */
#include "kernels/abi/preattend_absorb.h"
#include "kernels/generic/preattend.cuh"
#include "kernels/generic/project.cuh"

/* Waits for the grid before where the rows may not be looked at earlier. */
static __device__ __forceinline__ uint32_t
rt_preattend_absorb_unread(const struct rt_preattend_absorb_params &p, uint32_t first_vector)
{
    const uint32_t end = min(first_vector + RT_PROJECT_VECTORS, p.absorb.m);
    uint32_t unread = 0;
    for (uint32_t i = first_vector; i < end; i++)
        if (!rt_preattend_find(p.preattend, i).live)
            unread |= 1u << (i - first_vector);
    return unread;
}

extern "C" __global__ void __launch_bounds__(RT_PROJECT_THREADS)
    rt_preattend_absorb(const __grid_constant__ struct rt_preattend_absorb_params p)
{
    const uint32_t others = rt_preattend_blocks(&p.preattend, RT_PREATTEND_WARPS);
    const uint32_t multiply = gridDim.x - others;
    if (blockIdx.x >= multiply) {
        rt_preattend_block<RT_PREATTEND_WARPS>(p.preattend, blockIdx.x - multiply, others);
        return;
    }
    struct rt_project_tile tile = rt_project_find(p.absorb, blockIdx.x);
    tile.unread = rt_preattend_absorb_unread(p, tile.first_vector);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    rt_project_work(p.absorb, tile);
}
