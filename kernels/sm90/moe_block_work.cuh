/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MOE_BLOCK_WORK_CUH
#define RT_KERNELS_SM90_MOE_BLOCK_WORK_CUH

/* moe_block: the eight warps of a block that multiply, as those of experts of few tokens do. */
#include "kernels/sm90/experts_down_few.cuh"
#include "kernels/sm90/experts_up_few.cuh"
#include "kernels/sm90/moe_block_front.cuh"

/* Products of what is in shared memory: nothing of it has to be asked for ahead, so a chunk is the
 * same few instructions every time, where a block fetches all of them cold once a layer. */
template <int TILES, bool PAIRED> struct rt_moe_products : rt_experts_worker<1, TILES, PAIRED> {
    typedef rt_experts_worker<1, TILES, PAIRED> base;
    typedef const uint16_t *vector[1];
    static constexpr uint32_t WINDOW = 0; /* chunks that stay in registers */

    struct rt_experts_few &few;

    __device__ __forceinline__ rt_moe_products(const struct rt_experts_room &room_,
                                               uint32_t tile_rows_, uint32_t k_, uint32_t tokens,
                                               uint32_t warp_)
        : base(room_, tile_rows_, k_, warp_), few(*(struct rt_experts_few *)room_.sums)
    {
        base::count = tokens;
    }

    __device__ __forceinline__ void multiply(const vector &x, const vector &, bool)
    {
        const uint32_t chunks = rt_ceil_div_u32(base::k, RT_STREAM_CHUNK);
        base::clear_sums();
#pragma unroll 1
        for (uint32_t i = 0; i < chunks; i++) {
            typename base::chunk v;
            base::load_x(x, i, v);
            base::run_chunk(i, v);
        }
    }
};

template <int TILES, uint32_t SLOTS> struct rt_moe_worker : rt_moe_front<SLOTS> {
    typedef rt_moe_front<SLOTS> base;
    typedef rt_experts_up_few_worker<rt_moe_products<(int)RT_EXPERTS_SM90_UP_TILES, true>>
        up_worker;
    typedef rt_experts_down_few_worker<TILES, rt_moe_products<TILES, false>> down_worker;
    using base::desk;
    using base::norm;
    using base::p;
    using base::warp;
    static constexpr uint32_t AT_ONCE = 8; /* vectors of h of a thread on their way */

    const struct rt_experts_room &room;
    unsigned char *const h; /* over what x was */

    __device__ __forceinline__ rt_moe_worker(const struct rt_moe_block_sm90_params &p_,
                                             const struct rt_experts_room &room_,
                                             struct rt_moe_desk &desk_, unsigned char *x_,
                                             uint32_t warp_)
        : base(p_.block, desk_, x_, warp_), room(room_), h(x_)
    {
    }

    /* Behind it all h is there. */
    __device__ __forceinline__ void meet_all(void) const
    {
        base::meet();
        if (threadIdx.x == 0)
            rt_moe_await(p, rt_moe_arrive(p));
        base::meet();
    }

    /* All of it at once, packed. */
    __device__ __forceinline__ void copy_h(uint32_t places) const
    {
        const uint32_t each = p.width / 8, all = norm.tokens * places * each;
#pragma unroll 1
        for (uint32_t first = threadIdx.x; first < all; first += AT_ONCE * RT_STREAM_WORKERS) {
            uint4 v[AT_ONCE];
#pragma unroll
            for (uint32_t i = 0; i < AT_ONCE; i++) {
                const uint32_t at = first + i * RT_STREAM_WORKERS, pair = at / each;
                const uint16_t *const from =
                    rt_expert_h(p.h, {pair / places, pair % places}) + (at - pair * each) * 8;
                v[i] = at < all ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
            }
#pragma unroll
            for (uint32_t i = 0; i < AT_ONCE; i++)
                if (first + i * RT_STREAM_WORKERS < all)
                    ((uint4 *)h)[first + i * RT_STREAM_WORKERS] = v[i];
        }
        base::meet();
    }

    __device__ __forceinline__ struct rt_stream_turn run_up(const struct rt_experts_view &work)
    {
        struct rt_experts_up_params params;
        params.work = work;
        params.h = p.h;
        params.hidden = norm.norm.width;
        params.width = p.width;
        up_worker up(params, room, warp);
        const uint16_t *const x =
            (const uint16_t *)(base::x + up.g * RT_MOE_BLOCK_X_BYTES(norm.norm.width));
        const typename up_worker::vector from = {up.g < up.count ? x + up.mine : nullptr};
        up.run_line(true, from);
        if (work.experts > 0) {
            rt_mbarrier_wait(&desk.chosen, 0);
            up.run_line(false, from);
        }
        return up.turn;
    }

    __device__ __forceinline__ void run_down(const struct rt_experts_view &work,
                                             const struct rt_stream_turn &turn)
    {
        const uint32_t places = work.chosen + work.shared;
        const uint32_t experts = work.shared + rt_expert_active(work);
        struct rt_experts_down_params params;
        params.work = work;
        params.rows = p.gate.route.rows;
        params.h = {h, (int64_t)places * p.width, p.width};
        params.out = p.out;
        params.out_stride = p.out_stride;
        params.hidden = norm.norm.width;
        params.width = p.width;
        down_worker down(params, RT_MOE_BLOCK_TILE_ROWS, room, warp);
        down.turn = turn;
        copy_h(places);
        base::store_residual();
        down.run_rows(experts);
    }

    __device__ __forceinline__ void run(const struct rt_experts_view &work)
    {
        base::run();
        const struct rt_stream_turn turn = run_up(work);
        meet_all();
        run_down(work, turn);
    }
};

#endif
