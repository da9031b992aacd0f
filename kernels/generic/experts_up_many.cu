/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts_up of many tokens, for every device: kernels/abi/experts.h has the formula.
 *
 *   x [tokens, hidden], gate and up [experts, width, hidden] -> h [tokens, chosen + shared, width]
 *
 * Grid: a block a tile of RT_EXPERTS_MANY_UP_PAIRS pairs of an expert, the shared ones first, by
 * RT_EXPERTS_MANY_ROWS rows of gate and the same of up; as many as there can be, for who has how
 * many pairs is known on the device alone, and blocks beyond the last tile leave. Rows turn
 * fastest, then an expert's tiles: blocks that run together share its vectors, and its weights come
 * from memory once.
 *
 *   step   A   stage s has landed      B   load stage s + 2, multiply stage s
 *
 *   barrier   makes visible             and frees
 *   A         stage s of all threads    stage s + 2, which is s - 1's place, in all warps
 */
#include "common/math.h"
#include "kernels/device/expert_tile.cuh"
#include "kernels/device/experts.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/scan.cuh"

using rt_experts_up_tile = rt_expert_tile<2, 2>;

RT_STATIC_ASSERT(rt_experts_up_tile::VECTORS == RT_EXPERTS_MANY_UP_PAIRS, "a tile's pairs");
RT_STATIC_ASSERT(rt_experts_up_tile::STAGE_BYTES *RT_EXPERTS_MANY_STAGES ==
                     RT_EXPERTS_MANY_UP_SMEM_BYTES,
                 "formula");

/* What a block works on: `count` pairs from the job's `first`-th on; none: nothing. */
struct rt_experts_up_block {
    struct rt_expert_job job;
    uint32_t first, count;
    uint32_t row;
};

static __device__ __forceinline__ struct rt_experts_up_block
rt_experts_up_cut(const struct rt_expert_job &job, uint32_t tile)
{
    const uint32_t first = tile * RT_EXPERTS_MANY_UP_PAIRS;
    return {job, first, min(job.count - first, RT_EXPERTS_MANY_UP_PAIRS), 0};
}

/* Tile number `number` of the active experts, by a whole warp: 32 experts at a look. */
static __device__ __forceinline__ struct rt_experts_up_block
rt_experts_up_find_routed(const struct rt_experts_view &work, uint32_t number)
{
    const uint32_t active = rt_expert_active(work);
    for (uint32_t first = 0; first < active; first += RT_WARP_LANES) {
        const uint32_t index = first + rt_lane();
        const uint32_t mine = index < active
                                  ? rt_ceil_div_u32((uint32_t)work.groups.active[index].count,
                                                    RT_EXPERTS_MANY_UP_PAIRS)
                                  : 0;
        const uint32_t up_to = rt_warp_inclusive_sum(mine);
        const unsigned holds = __ballot_sync(RT_FULL_WARP, number < up_to);
        if (holds) {
            const int at = __ffs((int)holds) - 1;
            const uint32_t before = __shfl_sync(RT_FULL_WARP, up_to - mine, at);
            return rt_experts_up_cut(rt_expert_job_routed(work, first + (uint32_t)at),
                                     number - before);
        }
        number -= __shfl_sync(RT_FULL_WARP, up_to, (int)RT_WARP_LANES - 1);
    }
    return {};
}

static __device__ __forceinline__ struct rt_experts_up_block
rt_experts_up_find_tile(const struct rt_experts_up_params &p)
{
    const uint32_t across = rt_ceil_div_u32(p.width, RT_EXPERTS_MANY_ROWS);
    const uint32_t each = rt_ceil_div_u32(p.work.tokens, RT_EXPERTS_MANY_UP_PAIRS);
    const uint32_t number = blockIdx.x / across, shared = each * p.work.shared;
    struct rt_experts_up_block block =
        number < shared
            ? rt_experts_up_cut(rt_expert_job_shared(p.work, number / each), number % each)
            : rt_experts_up_find_routed(p.work, number - shared);
    block.row = (blockIdx.x - number * across) * RT_EXPERTS_MANY_ROWS;
    return block;
}

/* Where this thread's loads come from. */
static __device__ __forceinline__ void rt_experts_up_aim(const struct rt_experts_up_params &p,
                                                         const struct rt_experts_up_block &block,
                                                         rt_experts_up_tile &tile)
{
#pragma unroll
    for (int i = 0; i < rt_experts_up_tile::LOADS; i++) {
        const uint32_t at = tile.load_row(i);
        tile.from[i] = nullptr;
        if (tile.is_vector(i)) {
            if (at < block.count)
                tile.from[i] =
                    p.x + rt_expert_pair_of(p.work, block.job, block.first + at).token * p.x_stride;
            continue;
        }
        const uint32_t behind = at - RT_EXPERTS_MANY_UP_PAIRS;
        const uint32_t row = block.row + behind % RT_EXPERTS_MANY_ROWS;
        const bool is_gate = behind < RT_EXPERTS_MANY_ROWS;
        if (row < p.width)
            tile.from[i] = rt_expert_row(
                is_gate ? p.gate[block.job.shared] : p.up[block.job.shared], block.job.expert, row);
    }
}

static __device__ __forceinline__ void rt_experts_up_store(const struct rt_experts_up_params &p,
                                                           const struct rt_experts_up_block &block,
                                                           const rt_experts_up_tile &tile)
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
    constexpr uint32_t AHEAD = RT_EXPERTS_MANY_STAGES - 1, BYTES = rt_experts_up_tile::STAGE_BYTES;
    rt_pdl_wait();
    rt_pdl_launch_dependents(); /* not before: see `early` of experts_down */
    const struct rt_experts_up_block block = rt_experts_up_find_tile(p);
    if (block.count == 0)
        return;
    rt_experts_up_tile tile;
    tile.clear();
    rt_experts_up_aim(p, block, tile);
    const uint32_t steps = rt_ceil_div_u32(p.hidden, RT_EXPERTS_MANY_K);
    for (uint32_t s = 0; s < steps + AHEAD; s++) {
        if (s >= AHEAD) {
            rt_cp_async_wait<AHEAD - 1>();
            __syncthreads();
        }
        if (s < steps)
            tile.load(rt_attend_shared + s % RT_EXPERTS_MANY_STAGES * BYTES, s * RT_EXPERTS_MANY_K,
                      p.hidden);
        rt_cp_async_commit();
        if (s >= AHEAD)
            tile.multiply(rt_attend_shared + (s - AHEAD) % RT_EXPERTS_MANY_STAGES * BYTES,
                          block.count);
    }
    rt_experts_up_store(p, block, tile);
}
