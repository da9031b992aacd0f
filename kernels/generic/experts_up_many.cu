/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts_up of many tokens, for every device: kernels/abi/experts.h has the formula.
 *
 *   x [tokens, hidden], gate and up [experts, width, hidden] -> h [tokens, chosen + shared, width]
 *
 * Grid: that of kernels/device/expert_block.cuh, of RT_EXPERTS_MANY_ROWS rows of gate and the same
 * of up; the products and their barriers: kernels/device/expert_tile.cuh.
 */
#include "kernels/device/expert_block.cuh"
#include "kernels/device/expert_tile.cuh"
#include "kernels/device/ptx/pdl.cuh"

/* Where this thread's loads come from. */
static __device__ __forceinline__ void rt_experts_up_aim(const struct rt_experts_up_params &p,
                                                         const struct rt_expert_block &block,
                                                         rt_expert_wide_tile &tile)
{
#pragma unroll
    for (int i = 0; i < rt_expert_wide_tile::LOADS; i++) {
        const uint32_t at = tile.load_row(i);
        tile.from[i] = nullptr;
        if (tile.is_vector(i)) {
            if (at < block.count)
                tile.from[i] =
                    p.x + rt_expert_pair_of(p.work, block.job, block.first + at).token * p.x_stride;
            continue;
        }
        const uint32_t behind = at - RT_EXPERTS_MANY_TILE_PAIRS;
        const uint32_t row = block.row + behind % RT_EXPERTS_MANY_ROWS;
        const bool is_gate = behind < RT_EXPERTS_MANY_ROWS;
        if (row < p.width)
            tile.from[i] = rt_expert_row(
                is_gate ? p.gate[block.job.shared] : p.up[block.job.shared], block.job.expert, row);
    }
}

static __device__ __forceinline__ void rt_experts_up_store(const struct rt_experts_up_params &p,
                                                           const struct rt_expert_block &block,
                                                           const rt_expert_wide_tile &tile)
{
#pragma unroll
    for (int m = 0; m < 4; m++) {
        const int f = m / 2, i = m % 2 * 2;
        const uint32_t at = tile.sum_vector(f, m % 2);
        if (at >= block.count)
            continue;
        uint16_t *h = rt_expert_h(p.h, rt_expert_pair_of(p.work, block.job, block.first + at));
#pragma unroll
        for (int n = 0; n < 4; n++)
            rt_expert_store(h, block.row + tile.sum_row(n), p.width,
                            rt_expert_gated(tile.sum[0][f][n][i], tile.sum[1][f][n][i]),
                            rt_expert_gated(tile.sum[0][f][n][i + 1], tile.sum[1][f][n][i + 1]));
    }
}

extern "C" __global__ void __launch_bounds__(RT_EXPERTS_MANY_THREADS, 2)
    rt_experts_up_many(const __grid_constant__ struct rt_experts_up_params p)
{
    extern __shared__ __align__(128) unsigned char rt_attend_shared[];
    rt_pdl_wait();
    rt_pdl_launch_dependents(); /* not before: see `early` of experts_down */
    const struct rt_expert_block block =
        rt_expert_block_find(p.work, p.work.shared, p.width, RT_EXPERTS_MANY_ROWS);
    if (block.count == 0)
        return;
    rt_expert_wide_tile tile;
    rt_experts_up_aim(p, block, tile);
    tile.run(rt_attend_shared, {p.hidden, 1, 0, 0}, block.count);
    rt_experts_up_store(p, block, tile);
}
