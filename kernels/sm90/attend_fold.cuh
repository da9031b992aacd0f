/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_FOLD_CUH
#define RT_KERNELS_SM90_ATTEND_FOLD_CUH

/*
 * Batch-invariant: the narrow kernel, each leaf a segment of its own, with a second accumulator in
 * which a group's leaves are added up in order, as reduce would (kernels/device/fold.cuh). q stays
 * while the row does.
 *
 *   segment      leaf 0            leaf 1            ...   leaf 7
 *   end          fold (opens)      fold                    fold (closes) · store the group
 *
 *   barrier BOTH                    makes visible                        frees
 *   1st of a fold                   the leaf's sums and maxima           what it is multiplied by
 *   2nd                             what it is multiplied by             sums
 *
 * One thread a query row keeps the group's maximum and sum, in desk.state.
 */
#include "kernels/sm90/attend_narrow.cuh"

template <class SHAPE> struct rt_sm90_fold : rt_sm90_narrow<SHAPE> {
    typedef rt_sm90_narrow<SHAPE> base;
    static constexpr int ROWS = SHAPE::TILE_ROWS;
    static constexpr int MINE = base::MINE;
    using base::lane;
    using base::out;
    using base::room;
    using base::warp;
    using base::worker;

    float folded[SHAPE::HALF_TILES][ROWS / 2];

    __device__ __forceinline__ rt_sm90_fold(const typename SHAPE::params &all_,
                                            const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_)
    {
    }

    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment)
    {
        if (!(segment.marks & RT_SM90_SEGMENT_FOLDS)) {
            base::end_segment(segment); /* the leaf is a piece */
            return;
        }
        this->leave_sums();
        this->sync_both();
        if (worker == 0 && warp * 32 + lane < ROWS)
            fold_state(segment, warp * 32 + lane);
        this->sync_both();
        if (this->spoilt)
            spoil_leaf();
        fold_out((segment.marks & RT_SM90_SEGMENT_OPENS) != 0);
        if (segment.marks & RT_SM90_SEGMENT_CLOSES)
            store_group(segment);
    }

    /* By the query row's thread. */
    __device__ __forceinline__ void fold_state(const struct rt_sm90_segment &segment, int row) const
    {
        const float2 leaf = this->leaf_state(segment, row);
        const float2 before = room.desk.state[row];
        struct rt_fold sum = rt_fold_none();
        if (!(segment.marks & RT_SM90_SEGMENT_OPENS))
            sum = {before.x, before.y};
        const struct rt_fold_step step = rt_fold_add(sum, rt_fold_lse({leaf.x, leaf.y}));
        room.desk.state[row] = make_float2(sum.top, sum.total);
        room.desk.inverse[row] = rt_fold_inverse(leaf.y);
        room.desk.factor[row] = step.factor;
        room.desk.weight[row] = step.weight;
    }

    /* Columns that are not finite, for query rows that see why: as staging would have them. */
    __device__ __forceinline__ void spoil_leaf(void)
    {
        const int column = warp * 16 + lane / 4;
#pragma unroll
        for (int t = 0; t < SHAPE::HALF_TILES; t++)
#pragma unroll
            for (int i = 0; i < ROWS / 2; i++)
                if (this->is_spoilt(this->my_row(i / 4 * 2 + i % 2),
                                    t * 64 + column + i % 4 / 2 * 8))
                    out[t][i] = RT_SM90_NAN;
    }

    __device__ __forceinline__ void fold_out(bool opens)
    {
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const int row = this->my_row(i);
            const float by = room.desk.inverse[row];
            const struct rt_fold_step step = {room.desk.factor[row], room.desk.weight[row]};
#pragma unroll
            for (int n = 0; n < 2 * SHAPE::HALF_TILES; n++) {
                const int at = i / 2 * 4 + i % 2 + n % 2 * 2;
                float &sum = folded[n / 2][at];
                sum = rt_fold_number(opens ? 0.0f : sum, step, rt_fold_scaled(out[n / 2][at], by));
            }
        }
    }

    /* By the way that outputs of a segment take. */
    __device__ __forceinline__ void store_group(const struct rt_sm90_segment &segment)
    {
#pragma unroll
        for (int t = 0; t < SHAPE::HALF_TILES; t++)
#pragma unroll
            for (int i = 0; i < ROWS / 2; i++)
                out[t][i] = folded[t][i];
        this->spoilt = false; /* it is in the sums */
        base::store_segment(segment);
    }
};

#endif
