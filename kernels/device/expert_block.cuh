/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_EXPERT_BLOCK_CUH
#define RT_KERNELS_DEVICE_EXPERT_BLOCK_CUH

/*
 * Which tile a block has: RT_EXPERTS_MANY_TILE_PAIRS pairs of an expert, the shared ones first, by
 * some rows of its weights. A grid has as many blocks as there can be, for who has how many pairs
 * is known on the device alone; those beyond the last tile have nothing to do. Rows turn fastest,
 * then an expert's tiles: blocks that run together share its vectors, and its weights come from
 * memory once.
 */
#include "common/math.h"
#include "kernels/abi/experts_many.h"
#include "kernels/device/experts.cuh"
#include "kernels/device/scan.cuh"

/* `count` pairs from the job's `first`-th on, and the first row; count 0: nothing to do. */
struct rt_expert_block {
    struct rt_expert_job job;
    uint32_t first, count;
    uint32_t row;
};

static __device__ __forceinline__ struct rt_expert_block
rt_expert_block_cut(const struct rt_expert_job &job, uint32_t tile)
{
    const uint32_t first = tile * RT_EXPERTS_MANY_TILE_PAIRS;
    return {job, first, min(job.count - first, RT_EXPERTS_MANY_TILE_PAIRS), 0};
}

/* Tile number `number` of the active experts, by a whole warp: 32 experts at a look. */
static __device__ __forceinline__ struct rt_expert_block
rt_expert_block_find_routed(const struct rt_experts_view &work, uint32_t number)
{
    const uint32_t active = rt_expert_active(work);
    for (uint32_t first = 0; first < active; first += RT_WARP_LANES) {
        const uint32_t index = first + rt_lane();
        const uint32_t mine = index < active
                                  ? rt_ceil_div_u32((uint32_t)work.groups.active[index].count,
                                                    RT_EXPERTS_MANY_TILE_PAIRS)
                                  : 0;
        const uint32_t up_to = rt_warp_inclusive_sum(mine);
        const unsigned holds = __ballot_sync(RT_FULL_WARP, number < up_to);
        if (holds) {
            const int at = __ffs((int)holds) - 1;
            const uint32_t before = __shfl_sync(RT_FULL_WARP, up_to - mine, at);
            return rt_expert_block_cut(rt_expert_job_routed(work, first + (uint32_t)at),
                                       number - before);
        }
        number -= __shfl_sync(RT_FULL_WARP, up_to, (int)RT_WARP_LANES - 1);
    }
    return {};
}

/* Of weights of `rows` rows, `tile_rows` a tile. Every token is a vector of the first `shared`
 * shared experts. */
static __device__ __forceinline__ struct rt_expert_block
rt_expert_block_find(const struct rt_experts_view &work, uint32_t shared, uint32_t rows,
                     uint32_t tile_rows)
{
    const uint32_t across = rt_ceil_div_u32(rows, tile_rows);
    const uint32_t each = rt_ceil_div_u32(work.tokens, RT_EXPERTS_MANY_TILE_PAIRS);
    const uint32_t number = blockIdx.x / across, of_shared = each * shared;
    struct rt_expert_block block =
        number < of_shared
            ? rt_expert_block_cut(rt_expert_job_shared(work, number / each), number % each)
            : rt_expert_block_find_routed(work, number - of_shared);
    block.row = (blockIdx.x - number * across) * tile_rows;
    return block;
}

#endif
