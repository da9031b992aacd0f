/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts_down_pairs, for every device: kernels/abi/experts_many.h has the formula.
 *
 *   h [tokens, chosen + shared, width], down [experts, hidden, width]
 *     -> products [tokens, chosen + (shared > 0), hidden]
 *
 * Grid: that of kernels/device/expert_block.cuh, of RT_EXPERTS_MANY_DOWN_ROWS rows of down; the
 * products and their barriers: kernels/device/expert_tile.cuh. All shared experts of a token are
 * one product, as long as all of their widths: a line less to write and to read for each but one.
 */
#include "kernels/device/expert_block.cuh"
#include "kernels/device/expert_tile.cuh"
#include "kernels/device/ptx/pdl.cuh"

/* Where this thread's loads begin. */
static __device__ __forceinline__ void rt_experts_pairs_aim(const struct rt_experts_down_params &p,
                                                            const struct rt_expert_block &block,
                                                            rt_expert_wide_tile &tile)
{
#pragma unroll
    for (int i = 0; i < rt_expert_wide_tile::LOADS; i++) {
        const uint32_t at = tile.load_row(i);
        const uint32_t row = block.row + at - RT_EXPERTS_MANY_TILE_PAIRS;
        tile.from[i] = nullptr;
        if (tile.is_vector(i)) {
            if (at < block.count)
                tile.from[i] =
                    rt_expert_h(p.h, rt_expert_pair_of(p.work, block.job, block.first + at));
        } else if (row < p.hidden) {
            tile.from[i] = rt_expert_row(p.down[block.job.shared], block.job.expert, row);
        }
    }
}

static __device__ __forceinline__ struct rt_expert_depth
rt_experts_pairs_depth(const struct rt_experts_down_params &p, const struct rt_expert_block &block)
{
    if (!block.job.shared)
        return {p.width, 1, 0, 0};
    return {p.width, p.work.shared, p.h.place_stride, p.down[1].expert_stride};
}

/* hidden is a multiple of 8: of two numbers both are there, or none. */
static __device__ __forceinline__ void
rt_experts_pairs_store(const struct rt_experts_down_pairs_params &p,
                       const struct rt_expert_block &block, const rt_expert_wide_tile &tile)
{
    const struct rt_experts_view &work = p.down.work;
#pragma unroll
    for (int m = 0; m < 4; m++) {
        const int f = m / 2, i = m % 2 * 2;
        const uint32_t at = tile.sum_vector(f, m % 2);
        if (at >= block.count)
            continue;
        const struct rt_expert_pair pair = rt_expert_pair_of(work, block.job, block.first + at);
        const uint64_t line = (uint64_t)pair.token * rt_experts_products(&work) + pair.place;
        float *products = p.products + line * p.down.hidden;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const uint32_t row = block.row + n / 4 * RT_EXPERTS_MANY_ROWS + tile.sum_row(n % 4);
            if (row < p.down.hidden)
                *(float2 *)(products + row) = {tile.sum[n / 4][f][n % 4][i],
                                               tile.sum[n / 4][f][n % 4][i + 1]};
        }
    }
}

extern "C" __global__ void __launch_bounds__(RT_EXPERTS_MANY_THREADS, 2)
    rt_experts_down_pairs(const __grid_constant__ struct rt_experts_down_pairs_params p)
{
    extern __shared__ __align__(128) unsigned char rt_attend_shared[];
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const struct rt_expert_block block = rt_expert_block_find(
        p.down.work, p.down.work.shared > 0, p.down.hidden, RT_EXPERTS_MANY_DOWN_ROWS);
    if (block.count == 0)
        return;
    rt_expert_wide_tile tile;
    rt_experts_pairs_aim(p.down, block, tile);
    tile.run(rt_attend_shared, rt_experts_pairs_depth(p.down, block), block.count);
    rt_experts_pairs_store(p, block, tile);
}
