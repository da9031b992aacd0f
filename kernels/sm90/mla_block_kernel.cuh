/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MLA_BLOCK_KERNEL_CUH
#define RT_KERNELS_SM90_MLA_BLOCK_KERNEL_CUH

/*
 * mla_block for Hopper: kernels/abi/mla_block.h has the formula, kernels/abi/mla_block_cut.h who
 * does what. One block an SM, all resident from the first product to the last:
 *
 *   warps 16, 17  a ▸ q_b ▸ W_UK ▸ old keys ▸ W_UV ▸ o_proj       without a stop, at once
 *   warps 0..15   wait ▸ a ─▸ q_b ─▸ W_UK ─▸ attend ─▸ combine ─▸ W_UV ─▸ o_proj
 *   warp 18       cosines ▸ wait ─▸ new tokens ▸ blanks           ─▸ words that other blocks write
 *
 *   barrier      arrives               waits         means
 *   full[s]      the bringers, bytes   the workers   stage s is there
 *   empty[s]     the workers           the bringers  nobody reads it any more
 *   norms        bringer 0, bytes      the workers   the norms' weights are there
 *   turned       the keeper            the workers   cosines and sines are there
 *   opened[i]    bringer 0             the keeper    the stage of a tile with new tokens is free
 *   appended[i]  the keeper            the workers   its new tokens are there: i by group, vector,
 *                                                    and tiles from the vector's last
 *   WORKERS      the workers           the workers   sums have been written, or read
 */
#include "kernels/sm90/mla_block_bring.cuh"
#include "kernels/sm90/mla_block_out.cuh"

/* By one thread; a barrier tells the others. */
template <class S> static __device__ __forceinline__ void rt_block_init(struct rt_block_desk &desk)
{
    for (int i = 0; i < RT_BLOCK_STAGES; i++) {
        rt_mbarrier_init(&desk.full[i], RT_BLOCK_BRINGERS);
        rt_mbarrier_init(&desk.empty[i], RT_BLOCK_WORKERS);
    }
    rt_mbarrier_init(&desk.norms, 1);
    rt_mbarrier_init(&desk.turned, 1);
    for (uint32_t i = 0; i < S::FRESH; i++) {
        rt_mbarrier_init(&desk.opened[i], 1);
        rt_mbarrier_init(&desk.appended[i], 1);
    }
    rt_mbarrier_init_fence();
}

template <class S>
static __device__ __forceinline__ void rt_mla_block(const struct rt_mla_block_sm90_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    unsigned char *const ring = rt_sm90_shared;
    struct rt_block_desk &desk =
        *(struct rt_block_desk *)(ring + RT_BLOCK_STAGES * RT_BLOCK_STAGE_BYTES);
    rt_pdl_launch_dependents();
    if (threadIdx.x == 0)
        rt_block_init<S>(desk);
    __syncthreads();
    const uint32_t warp = __shfl_sync(RT_BLOCK_FULL_WARP, threadIdx.x / 32, 0);
    if (warp < RT_BLOCK_WORKERS) {
        rt_block_worker<S> worker(p, ring, desk, warp);
        worker.run_a();
        worker.run_q_b();
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < S::HEAD_UNITS; v += p.cut.blocks)
            worker.run_w_uk(v);
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < RT_MLA_BLOCK_UNITS; v += p.cut.blocks)
            rt_block_attend<S>(worker, v).run();
        rt_block_out<S>(worker).run();
    } else if (warp < RT_BLOCK_WORKERS + RT_BLOCK_BRINGERS) {
        rt_block_bringer<S>(p, ring, desk, warp - RT_BLOCK_WORKERS).run();
    } else {
        rt_block_keeper<S>(p, ring, desk).run();
    }
}

#endif
