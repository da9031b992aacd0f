/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_EXPERTS_DOWN_FEW_CUH
#define RT_KERNELS_SM90_EXPERTS_DOWN_FEW_CUH

/*
 * experts_down of up to 8 tokens: as experts_down_stream.cuh, but a token's sum over its experts
 * stays in the registers of each warp, for the warp's part of k, and the warps add up theirs once,
 * behind the last expert.
 *
 *   warps 8..11  shared experts' stages ▸ wait ▸ active experts' stages
 *   warps 0..7   wait ▸ h, who has chosen what ▸ FEW, PLACES ▸ stage ▸ stage …
 *                ▸ all += weight * sum ▸ stage … ▸ SUMS ▸ out
 *
 *   shared memory   bytes
 *   desk            1024
 *   table           32 tokens (16 TILES + 4)    [warp][token][row]
 *   few             2352
 *   ring            stages tile_rows row_bytes
 *
 *   barrier   arrives       means
 *   full, empty             of stream.cuh
 *   FEW       256 threads   who has chosen what is copied
 *   PLACES    256 threads   and turned round: the barrier FEW once more
 *   SUMS      256 threads   each warp's sums are there
 *   ADDED     256 threads   the sums before are read
 */
#include "kernels/sm90/experts_down_stream.cuh"
#include "kernels/sm90/experts_few.cuh"

template <int TILES, class PRODUCTS = rt_experts_few_worker<TILES, false>>
struct rt_experts_down_few_worker : PRODUCTS {
    typedef PRODUCTS base;
    typedef typename base::vector vector;
    using base::count;
    using base::few;
    using base::g;
    using base::rows;
    static constexpr uint32_t PLACES = 16 * TILES; /* of rows */

    const struct rt_experts_down_params &p;
    float all[TILES][4]; /* as `sum` */

    __device__ __forceinline__
    rt_experts_down_few_worker(const struct rt_experts_down_sm90_params &p_,
                               const struct rt_experts_room &room_, uint32_t warp_)
        : rt_experts_down_few_worker(p_.down, p_.ring.tile_rows, room_, warp_)
    {
    }

    __device__ __forceinline__ rt_experts_down_few_worker(const struct rt_experts_down_params &p_,
                                                          uint32_t tile_rows_,
                                                          const struct rt_experts_room &room_,
                                                          uint32_t warp_)
        : base(room_, tile_rows_, p_.width, p_.work.tokens, warp_), p(p_)
    {
    }

    /* An active expert's place among a token's choices. */
    __device__ __forceinline__ int find_place(uint32_t index, uint32_t token) const
    {
        int place = -1;
        if (token < count)
            for (uint32_t s = 0; s < p.work.chosen; s++)
                if (few.choices[token * p.work.chosen + s] == few.active[index].expert)
                    place = (int)s;
        return place;
    }

    __device__ __forceinline__ void copy_work(void)
    {
        const uint32_t pairs = p.work.tokens * p.work.chosen;
        rt_experts_few_copy_active(p.work, few);
        rt_experts_few_copy(few.choices, p.choices, pairs, 1);
        rt_experts_few_copy(few.weights, p.weights, pairs, 2);
        rt_bar_sync(RT_EXPERTS_BAR_FEW, RT_STREAM_WORKERS);
        const uint32_t entries = (uint32_t)few.active_count * RT_EXPERTS_SM90_FEW_TOKENS;
        for (uint32_t i = threadIdx.x; i < entries; i += RT_STREAM_WORKERS) {
            const uint32_t index = i / RT_EXPERTS_SM90_FEW_TOKENS;
            const uint32_t token = i % RT_EXPERTS_SM90_FEW_TOKENS;
            few.place[index][token] = (int8_t)find_place(index, token);
        }
        rt_bar_sync(RT_EXPERTS_BAR_FEW, RT_STREAM_WORKERS); /* PLACES */
    }

    /* A token's place of the index-th expert, the shared ones first; -1: it has not chosen it. */
    __device__ __forceinline__ int place_of(uint32_t index, uint32_t token) const
    {
        if (index < p.work.shared)
            return (int)(p.work.chosen + index);
        return few.place[index - p.work.shared][token];
    }

    /* This lane's vector of it. */
    __device__ __forceinline__ const uint16_t *vector_of(uint32_t index) const
    {
        const int place = g < count ? place_of(index, g) : -1;
        return place < 0 ? nullptr : rt_expert_h(p.h, {g, (uint32_t)place}) + base::mine;
    }

    /* An expert's sums to those of its tokens: a token without it is left alone, for what weights
     * make of zeros need not be zero. */
    __device__ __forceinline__ void add(uint32_t index)
    {
#pragma unroll
        for (uint32_t of = 0; of < 2; of++) {
            const uint32_t token = 2 * base::t + of;
            const int place = token < count ? place_of(index, token) : -1;
            if (place < 0)
                continue;
            const float weight =
                index < p.work.shared ? 1.0f : few.weights[token * p.work.chosen + (uint32_t)place];
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
                all[tile][of] = fmaf(weight, base::sum[tile][0][of], all[tile][of]);
                all[tile][of + 2] = fmaf(weight, base::sum[tile][0][of + 2], all[tile][of + 2]);
            }
        }
    }

    /* The rows times everything, into `sum`. Behind the last expert comes the first again, of the
     * next rows. */
    __device__ __forceinline__ void run_experts(uint32_t experts)
    {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                all[tile][e] = 0;
        vector x = {experts > 0 ? vector_of(0) : nullptr};
        for (uint32_t index = 0; index < experts; index++) {
            const vector next = {vector_of(index + 1 < experts ? index + 1 : 0)};
            base::multiply(x, next, false);
            add(index);
            x[0] = next[0];
        }
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                base::sum[tile][0][e] = all[tile][e];
    }

    /* PLACES threads take a token. */
    __device__ __forceinline__ void store(uint32_t first_row) const
    {
        for (uint32_t i = threadIdx.x; i < count * PLACES; i += RT_STREAM_WORKERS) {
            const uint32_t token = i / PLACES, place = i % PLACES;
            const uint32_t row = place / 16 * base::tile_rows + place % 16;
            if (place % 16 < base::tile_rows && row < rows)
                p.out[token * p.out_stride + first_row + row] =
                    rt_float_bf16(few.live[token] ? base::total(token, place) : 0.0f);
        }
    }

    /* The block's rows: h's first numbers are on their way. */
    __device__ __forceinline__ void run_rows(uint32_t experts)
    {
        if (threadIdx.x < count) /* read behind SUMS */
            few.live[threadIdx.x] = rt_row_is_live(&p.rows, threadIdx.x / p.rows.q_len);
        const uint32_t end = rt_stream_share(p.hidden, blockIdx.x + 1);
        uint32_t n = 0;
        for (uint32_t row = rt_stream_share(p.hidden, blockIdx.x); row < end;
             row += TILES * base::tile_rows, n++) {
            rows = min(end - row, TILES * base::tile_rows);
            run_experts(experts);
            base::gather(n);
            store(row);
        }
    }

    __device__ __forceinline__ void run(void)
    {
        rt_pdl_wait();
        /* Not before: who comes next may count on everything in front of up to be complete. */
        rt_pdl_launch_dependents();
        if (p.work.shared > 0)
            base::begin({vector_of(0)});
        if (p.work.experts > 0)
            copy_work();
        const uint32_t experts =
            p.work.shared + (p.work.experts > 0 ? (uint32_t)few.active_count : 0);
        if (p.work.shared == 0)
            base::begin({experts > 0 ? vector_of(0) : nullptr});
        run_rows(experts);
    }
};

template <int TILES>
static __device__ __forceinline__ void
rt_experts_down_few(const struct rt_experts_down_sm90_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    const struct rt_experts_room room(p.ring, rt_sm90_shared, p.ring.tile_rows);
    rt_experts_few_run<rt_experts_down_bringer<(int)RT_EXPERTS_SM90_FEW_TOKENS, TILES,
                                               RT_EXPERTS_SM90_FEW_BRINGERS>,
                       rt_experts_down_few_worker<TILES>>(p, room);
}

#endif
