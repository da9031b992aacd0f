/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preattend_absorb for Hopper, up to 8 or 16 tokens: kernels/abi/preattend_absorb.h has the rule.
 *
 * Grid: blocks that multiply, as those of project's kernels for weights that lie across
 * (project_across.cuh), and behind them preattend's, of eight warps each (generic/preattend.cuh).
 * The product's come first, for they have more to do before the wait and behind it; both kinds fit
 * an SM beside each other.
 *
 *   block 0 .. products - 1   weights ▸ which tokens are live ▸ wait ▸ x, products ▸ sums
 *   the others                place, page, cosines ▸ wait ▸ latent, key, q's second part
 *
 *   shared memory   bytes
 *   sums            32 m 68   of the blocks that multiply
 *
 * Barriers are the product's alone. A vector whose token is not live is not looked at, for a block
 * beside may be writing its zeros. The next grid may start at once, as behind either kernel.
 */
#include "kernels/abi/preattend_absorb_sm90.h"
#include "kernels/generic/preattend.cuh"
#include "kernels/sm90/project_across.cuh"

template <int COLUMNS>
static __device__ __forceinline__ void
rt_preattend_absorb_multiply(const struct rt_preattend_absorb_sm90_params &p, uint32_t products)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    rt_project_across_worker<COLUMNS> worker(p.absorb, (float *)rt_sm90_shared, blockIdx.x,
                                             products);
    worker.begin();
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
        if (worker.read[column])
            worker.read[column] = rt_preattend_find(p.preattend, worker.vector(column)).live;
    rt_pdl_wait();
    worker.run();
}

template <int COLUMNS>
static __device__ __forceinline__ void
rt_preattend_absorb_run(const struct rt_preattend_absorb_sm90_params &p)
{
    const uint32_t products = gridDim.x - rt_preattend_blocks(&p.preattend, RT_PREATTEND_WARPS);
    rt_pdl_launch_dependents();
    if (blockIdx.x < products)
        rt_preattend_absorb_multiply<COLUMNS>(p, products);
    else
        rt_preattend_warp(p.preattend, (blockIdx.x - products) * RT_PREATTEND_WARPS +
                                           threadIdx.x / RT_WARP_LANES);
}

/* Device entry points, rt_preattend_absorb_sm90_<vectors>, with as many blocks an SM as the product
 * alone has. */
extern "C" __global__ void __launch_bounds__(RT_PROJECT_SM90_ACROSS_THREADS, 3)
    rt_preattend_absorb_sm90_8(const __grid_constant__ struct rt_preattend_absorb_sm90_params p)
{
    rt_preattend_absorb_run<1>(p);
}

extern "C" __global__ void __launch_bounds__(RT_PROJECT_SM90_ACROSS_THREADS, 2)
    rt_preattend_absorb_sm90_16(const __grid_constant__ struct rt_preattend_absorb_sm90_params p)
{
    rt_preattend_absorb_run<2>(p);
}
