/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_EXPERTS_UP_FEW_CUH
#define RT_KERNELS_SM90_EXPERTS_UP_FEW_CUH

/*
 * experts_up of up to 8 tokens: as experts_up_stream.cuh, but x is the same for every expert. Up to
 * 2048 numbers of it are in registers all the time.
 *
 *   warps 8..11  shared experts' stages ▸ wait ▸ active experts' stages
 *   warps 0..7   wait ▸ x, who has chosen what ▸ FEW ▸ stage ▸ stage … ▸ sums ▸ h
 *
 *   shared memory   bytes
 *   desk            1024
 *   table           32 tokens 68    [warp][token][row of the pass]
 *   few             2352
 *   ring            stages 16384
 *
 *   barrier   arrives       means
 *   full, empty             of stream.cuh
 *   FEW       256 threads   who has chosen what is copied
 *   SUMS      256 threads   each warp's sums are there
 *   ADDED     256 threads   the sums before are read
 */
#include "kernels/sm90/experts_few.cuh"
#include "kernels/sm90/experts_up_stream.cuh"

template <class PRODUCTS = rt_experts_few_worker<(int)RT_EXPERTS_SM90_UP_TILES, true>>
struct rt_experts_up_few_worker : PRODUCTS {
    typedef PRODUCTS base;
    typedef typename base::vector vector;
    using base::count;
    using base::few;
    using base::rows;

    const struct rt_experts_up_params &p;
    struct rt_experts_view work; /* whose groups are the copies */
    uint32_t n;                  /* passes so far */

    __device__ __forceinline__ rt_experts_up_few_worker(const struct rt_experts_up_sm90_params &p_,
                                                        const struct rt_experts_room &room_,
                                                        uint32_t warp_)
        : rt_experts_up_few_worker(p_.up, room_, warp_)
    {
    }

    __device__ __forceinline__ rt_experts_up_few_worker(const struct rt_experts_up_params &p_,
                                                        const struct rt_experts_room &room_,
                                                        uint32_t warp_)
        : base(room_, RT_EXPERTS_SM90_UP_ROWS, p_.hidden, p_.work.tokens, warp_), p(p_),
          work(p_.work), n(0)
    {
        work.groups.active = few.active;
        work.groups.pairs = few.pairs;
        work.groups.active_count = &few.active_count;
    }

    __device__ __forceinline__ void copy_work(void)
    {
        if (p.work.experts == 0)
            return;
        rt_experts_few_copy_active(p.work, few);
        rt_experts_few_copy(few.pairs, (const int32_t *)p.work.groups.pairs,
                            p.work.tokens * p.work.chosen, 1);
        rt_bar_sync(RT_EXPERTS_BAR_FEW, RT_STREAM_WORKERS);
    }

    /* 32 threads take a vector, each a row of the pass. */
    __device__ __forceinline__ void store(const struct rt_experts_pass &pass) const
    {
        const uint32_t row = threadIdx.x % 32;
        const uint32_t place = row / RT_EXPERTS_SM90_UP_ROWS * 16 + row % RT_EXPERTS_SM90_UP_ROWS;
        if (row >= rows)
            return;
        for (uint32_t i = threadIdx.x / 32; i < pass.job.count; i += RT_PROJECT_SM90_WARPS) {
            const struct rt_expert_pair pair = rt_expert_pair_of(work, pass.job, i);
            rt_expert_h(p.h, pair)[pass.row + row] = rt_float_bf16(
                rt_expert_gated(base::total(pair.token, place),
                                base::total(pair.token, place + RT_EXPERTS_SM90_UP_ROWS)));
        }
    }

    __device__ __forceinline__ void run_line(bool shared, const vector &x_)
    {
        const bool again = base::k <= base::WINDOW * RT_STREAM_CHUNK;
        struct rt_experts_up_line<base::VECTORS> line(work, p.width, shared);
        struct rt_experts_pass pass;
        while (line.take(pass)) {
            rows = pass.rows;
            base::multiply(x_, x_, again);
            base::gather(n);
            store(pass);
            n++;
        }
    }

    __device__ __forceinline__ void run(void)
    {
        rt_pdl_wait();
        const vector from = {base::g < count ? p.x + base::g * p.x_stride + base::mine : nullptr};
        base::begin(from);
        copy_work();
        run_line(true, from);
        run_line(false, from);
    }
};

static __device__ __forceinline__ void rt_experts_up_few(const struct rt_experts_up_sm90_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    const struct rt_experts_room room(p.ring, rt_sm90_shared, 2 * RT_EXPERTS_SM90_UP_ROWS);
    /* Down for few tokens does not look at what route writes before its wait: it may begin while
     * the router still runs, when nothing else asks for memory. */
    rt_pdl_launch_dependents();
    rt_experts_few_run<
        rt_experts_up_bringer<(int)RT_EXPERTS_SM90_FEW_TOKENS, RT_EXPERTS_SM90_FEW_BRINGERS>,
        rt_experts_up_few_worker<>>(p, room);
}

#endif
