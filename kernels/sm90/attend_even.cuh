/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_EVEN_CUH
#define RT_KERNELS_SM90_ATTEND_EVEN_CUH

/*
 * The workers where keys are operand a in registers (kernels/sm90/attend_bytes.cuh). What a pair
 * takes is their own time then, not memory's or the products', so they take turns in another order
 * than kernels/sm90/attend_narrow.cuh: nobody waits for more than the other's softmax. A short row
 * runs all of this once, from memory: so nothing large is written out twice.
 */
#include "kernels/sm90/attend_bytes_out.cuh"

template <class SHAPE> struct rt_sm90_even : rt_sm90_bytes_out<SHAPE> {
    typedef rt_sm90_bytes_out<SHAPE> base;
    static constexpr int MINE = base::MINE;
    using base::lane;
    using base::my_row;
    using base::out;
    using base::p;
    using base::room;
    using base::score;
    using base::stage_of;
    using base::warp;
    using base::worker;

    __device__ __forceinline__ rt_sm90_even(const typename SHAPE::params &all_,
                                            const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_)
    {
    }

    /* ---- the order of a pair ---- */

    __device__ __forceinline__ void lead(uint32_t j, int start)
    {
        this->softmax(j, start);
        this->tell(RT_SM90_BAR_A + worker);
        this->sync_worker();
    }

    /* The other worker's block j has its weights: sums become what its maxima make of them. */
    __device__ __forceinline__ void follow(uint32_t j)
    {
        this->hear(RT_SM90_BAR_A + (worker ^ 1));
        this->wait_for_half(j, worker);
        this->read_top();
        this->rescale();
    }

    /*
     * worker 0   s(a) softmax(a) | v(a)          v(b)
     * worker 1   s(b)            | softmax(b) v(a) v(b)
     *
     * Of a block without another both have half of the scores, worker 0 the softmax.
     */
    __device__ __forceinline__ void run_pair(const struct rt_sm90_pair &pair)
    {
        const uint32_t own = pair.first + (uint32_t)worker;
        const bool has_own = worker == 0 || pair.has_b;
        this->find_scores(pair.has_b ? own : pair.first, !pair.has_b, score);
#pragma unroll 1
        for (int n = 0; n < (pair.has_b ? 2 : 1); n++) {
            const uint32_t j = pair.first + (uint32_t)n;
            if (n != worker)
                follow(j);
            if (n == 0 && has_own)
                lead(own, pair.key + worker * 64);
            if (n == worker)
                this->rescale();
            this->part_keys(j, pair.key + n * 64);
            this->add_values(stage_of(j), out);
            this->settle_out();
            this->release(j);
        }
    }

    /* ---- the end of a segment ---- */

    /* Each thread finds for itself what its rows are multiplied by. */
    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment)
    {
        float by[MINE];
        this->leave_sums();
        this->sync_both();
        end_rows(segment, by);
        if (this->spoilt)
            this->spoil_out(*this);
        this->store(segment, by);
        this->sync_both(); /* sums are free again */
    }

    /* And one of each row's threads stores the lse. */
    __device__ __forceinline__ void end_rows(const struct rt_sm90_segment &segment,
                                             float (&by)[MINE]) const
    {
        const bool tells = worker == 0 && warp == 0 && lane < 4;
#pragma unroll
        for (int i = 0; i < MINE; i += 2) {
            float2 state[2];
            rt_sm90_leaf_states(room, segment, my_row(i), state);
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const int row = my_row(i + n), query = this->first_query() + row;
                by[i + n] =
                    rt_sm90_inverse(p, segment, query, state[n]) * (1 / RT_SM90_WEIGHT_UNITS);
                if (tells && query < this->hq())
                    rt_sm90_store_lse(this->all, room, segment, row, state[n]);
            }
        }
    }
};

#endif
