/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe_block for Hopper: kernels/abi/moe_block.h has the formula. One block an SM, all resident from
 * the norm to out:
 *
 *   warps 8..11   shared experts' gate and up ▸ CHOSEN ▸ active ones' ▸ all their down
 *   warps 0..7    wait ▸ x ▸ logits ─▸ h of shared experts ▸ CHOSEN ▸ h of active ones ─▸ out
 *   warps 12..15  SENT ─▸ logits ▸ choices ▸ groups ▸ CHOSEN          ─▸ what other blocks write
 *
 * So memory streams while blocks meet: while they choose, weights of shared experts, and while h is
 * on its way, rows of down, as many as the ring holds.
 *
 *   barrier       arrives               waits              means
 *   full[s]       the bringers, bytes   the workers        stage s is there
 *   empty[s]      the workers           the bringers       nobody reads it any more
 *   SENT          one worker            the choosers       the block's logits are stored
 *   CHOSEN        one chooser           bringers, workers  who has what to do
 *   WORKERS       256 threads                              what they have stored is there
 *   CHOOSERS      128 threads                              all have chosen
 *   SUMS, ADDED   256 threads                              of experts_few.cuh
 */
#include "kernels/sm90/moe_block_bring.cuh"
#include "kernels/sm90/moe_block_choose.cuh"
#include "kernels/sm90/moe_block_work.cuh"

/* Who has what to do, of which the choosers' is at the desk. */
static __device__ __forceinline__ struct rt_experts_view
rt_moe_work(const struct rt_moe_block_params &p, struct rt_experts_few &few)
{
    struct rt_experts_view work;
    work.groups.offsets = nullptr;
    work.groups.pairs = few.pairs;
    work.groups.active = few.active;
    work.groups.active_count = &few.active_count;
    work.tokens = p.gate.norm.tokens;
    work.experts = p.gate.route.experts;
    work.chosen = p.gate.route.chosen;
    work.shared = p.shared;
    return work;
}

template <int TILES, uint32_t SLOTS>
static __device__ __forceinline__ void rt_moe_block(const struct rt_moe_block_sm90_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    const struct rt_experts_room room(p.ring, rt_sm90_shared, RT_MOE_BLOCK_TILE_ROWS);
    struct rt_moe_desk &desk = *(struct rt_moe_desk *)room.sums;
    if (threadIdx.x == 0) {
        rt_mbarrier_init(&desk.sent, 1);
        rt_mbarrier_init(&desk.chosen, 1);
    }
    const uint32_t warp = rt_experts_begin(room, RT_EXPERTS_SM90_FEW_BRINGERS);
    const struct rt_experts_view work = rt_moe_work(p.block, desk.few);
    if (warp < RT_PROJECT_SM90_WARPS)
        rt_moe_worker<TILES, SLOTS>(p, room, desk, rt_sm90_shared + p.x_at, warp).run(work);
    else if (warp < RT_PROJECT_SM90_WARPS + RT_EXPERTS_SM90_FEW_BRINGERS)
        rt_moe_bringer<TILES>(p.block, room, desk, warp - RT_PROJECT_SM90_WARPS).run(work);
    else if (work.experts > 0)
        rt_moe_chooser(p.block, desk, (float *)(rt_sm90_shared + p.logits_at),
                       warp - RT_PROJECT_SM90_WARPS - RT_EXPERTS_SM90_FEW_BRINGERS)
            .run();
}

/* By tiles of 16 rows of out that are summed at once, and by vectors of x that a thread has. */
#define RT_MOE_BLOCK_ENTRY(tiles, slots)                                                           \
    extern "C" __global__ void __launch_bounds__(RT_MOE_BLOCK_THREADS, 1)                          \
        rt_moe_block_x##tiles##_##slots(const __grid_constant__ struct rt_moe_block_sm90_params p) \
    {                                                                                              \
        rt_moe_block<tiles, slots>(p);                                                             \
    }

RT_MOE_BLOCK_ENTRY(1, 1)
RT_MOE_BLOCK_ENTRY(1, 4)
RT_MOE_BLOCK_ENTRY(4, 4)
