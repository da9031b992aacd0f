/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_NARROW_CUH
#define RT_KERNELS_SM90_ATTEND_NARROW_CUH

/*
 * Few query rows: keys and values on the wide side of the products, query rows on the narrow one,
 * so that 8 query rows cost 8 columns and not 64 rows.
 *
 *   scores^T [64 keys][ROWS]  = k [64][D_QK]  q^T [D_QK][ROWS]
 *   out^T    [D_V / 2][ROWS] += v^T [D_V / 2][64] p^T [64][ROWS]       a worker's half of D_V
 *
 * Of the 64 keys or columns of a product a thread has two: 16 warp + lane / 4 and that + 8.
 */
#include "kernels/sm90/attend_narrow_out.cuh"
#include "kernels/sm90/attend_softmax.cuh"
#include "kernels/sm90/attend_whole_out.cuh"

template <class SHAPE> struct rt_sm90_narrow : rt_sm90_softmax<SHAPE, rt_sm90_worker_base<SHAPE>> {
    typedef rt_sm90_softmax<SHAPE, rt_sm90_worker_base<SHAPE>> base;
    static constexpr int ROWS = base::ROWS, MINE = base::MINE;
    typedef rt_wgmma<ROWS> product;
    typedef rt_sm90_narrow_out<SHAPE> out_of_segment;
    /* The last pair ends its segment. Of 32 query rows that takes more registers than a loop over
     * pairs leaves. */
    static constexpr bool PAIRS_END = ROWS < 32 && !SHAPE::FOLDS;
    using base::out;
    using base::room;
    using base::score;
    using base::stage_of;
    using base::worker;

    __device__ __forceinline__ rt_sm90_narrow(const typename SHAPE::params &all_,
                                              const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_)
    {
    }

    /* ---- products ---- */

    __device__ __forceinline__ void add_values(uint32_t stage)
    {
        const uint64_t pt = rt_wgmma_operand(rt_shared_address(room.weights(stage)), 0);
#pragma unroll
        for (int t = 0; t < SHAPE::HALF_TILES; t++) {
            const uint64_t v = room.values(stage, worker, t);
#pragma unroll
            for (int step = 0; step < 4; step++)
                product::template shared<1, 0, SHAPE::TYPE>(
                    out[t], rt_wgmma_further(v, step * 2 * SHAPE::GROUP_BYTES),
                    rt_wgmma_further(pt, step * 32));
        }
    }

    /* ---- the order of a pair ---- */

    /* Of a segment's last block all that its end needs but the values is known before they are. */
    __device__ __forceinline__ void find_values(const struct rt_sm90_pair &pair, uint32_t j,
                                                int start, bool ends)
    {
        const out_of_segment leaves(this->all, room, pair.segment, worker);
        float by[MINE];
        this->part_keys(j, start);
        this->rescale();
        rt_wgmma_begin();
        add_values(stage_of(j));
        rt_wgmma_commit();
        if (ends)
            find_ends(leaves, by);
        rt_wgmma_wait<0>();
        this->settle_out();
        this->release(j);
        if constexpr (SHAPE::WHOLE) {
            if (ends)
                rt_sm90_whole_out<SHAPE>(leaves).send_values(out);
        } else if (ends) {
            leaves.store(out, by, this->spoilt);
        }
    }

    /* The scores of block j are done: its weights, for both workers. */
    __device__ __forceinline__ void lead(uint32_t j, int start)
    {
        this->softmax(j, start);
        this->tell(RT_SM90_BAR_A + worker);
        this->sync_worker();
    }

    __device__ __forceinline__ void follow(uint32_t j)
    {
        this->hear(RT_SM90_BAR_A + (worker ^ 1));
        this->wait_for_half(j, worker);
        this->read_top();
    }

    /*
     * worker 0   s(a) | v(a) v(b)            worker 1   s(b)  v(a) | v(b)       first pair
     *            s(a) | v(a) v(b)                       v(a)  s(b) | v(b)       the others
     *
     * The first pair's blocks were asked for at once. Later b may still be on its way when a's
     * stage is wanted. A short row runs all of this once, from memory: so nothing is written out
     * twice.
     */
    __device__ __forceinline__ void run_pair(const struct rt_sm90_pair &pair)
    {
        const bool has_own = worker == 0 || pair.has_b;
        const int blocks = pair.has_b ? 2 : 1;
        const int when = has_own && !pair.is_first ? worker : 0; /* are own scores found */
#pragma unroll 1
        for (int n = 0; n < blocks; n++) {
            const uint32_t j = pair.first + (uint32_t)n;
            const int start = pair.key + n * 64;
            if (n == when && has_own)
                this->find_scores(pair.first + (uint32_t)worker, score);
            if (n == when && pair.is_last)
                this->release_q();
            if (n == worker)
                lead(j, start);
            else
                follow(j);
            find_values(pair, j, start, PAIRS_END && pair.ends && n + 1 == blocks);
        }
    }

    /* ---- the end of a segment ---- */

    /* Beside the last values: all but them. */
    __device__ __forceinline__ void find_ends(const out_of_segment &leaves, float (&by)[MINE])
    {
        this->leave_sums();
        this->sync_both();
        if constexpr (SHAPE::WHOLE) {
            rt_sm90_whole_out<SHAPE>(leaves).send_states();
            return;
        }
        leaves.find_inverses(by);
        if (worker == 0)
            leaves.store_lse();
    }

    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment)
    {
        const out_of_segment leaves(this->all, room, segment, worker);
        if (segment.blocks == 0) {
            leaves.store_none();
        } else if (!PAIRS_END) {
            float by[MINE];
            find_ends(leaves, by);
            leaves.store(out, by, this->spoilt);
        }
    }
};

#endif
