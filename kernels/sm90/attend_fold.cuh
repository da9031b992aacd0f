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
#include "kernels/device/fold.cuh"
#include "kernels/sm90/attend_narrow.cuh"

template <class SHAPE> struct rt_sm90_fold : rt_sm90_narrow<SHAPE> {
    typedef rt_sm90_narrow<SHAPE> base;
    static constexpr int ROWS = SHAPE::TILE_ROWS;
    static constexpr int MINE = base::MINE;
    static constexpr int ROUND_COLUMNS = SHAPE::STAGING_COLUMNS;
    static constexpr int ROUND_TILES = ROUND_COLUMNS / 64;
    static constexpr int PIECES = 2 * ROUND_COLUMNS / 128;
    static constexpr int STAGING_STRIDE = SHAPE::STAGING_STRIDE;
    using base::first_query;
    using base::lane;
    using base::my_row;
    using base::out;
    using base::p;
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
            this->leave_sums();
            store_segment(segment); /* the leaf is a piece */
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
        const float2 leaf = rt_sm90_leaf_state(room, segment, row);
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
                if (this->is_spoilt(my_row(i / 4 * 2 + i % 2), t * 64 + column + i % 4 / 2 * 8))
                    out[t][i] = RT_SM90_NAN;
    }

    __device__ __forceinline__ void fold_out(bool opens)
    {
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const int row = my_row(i);
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
        store_segment(segment);
    }

    /* ---- output, by rounds of columns in order as f32 ---- */

    __device__ __forceinline__ void store_segment(const struct rt_sm90_segment &segment)
    {
#pragma unroll
        for (int round = 0; round < SHAPE::HALF_TILES / ROUND_TILES; round++) {
            stage_out(round * ROUND_TILES);
            this->sync_both();
            store_round(segment, round);
            this->sync_both(); /* staging and sums are free again */
        }
    }

    /* In the units of the maximum. */
    __device__ __forceinline__ void stage_out(int from) const
    {
        float *to = room.staging + worker * ROUND_COLUMNS + warp * 16 + lane / 4;
#pragma unroll
        for (int t = 0; t < ROUND_TILES; t++)
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                float *at = to + my_row(i) * STAGING_STRIDE + t * 64;
                at[0] = out[from + t][i / 2 * 4 + i % 2];
                at[8] = out[from + t][i / 2 * 4 + i % 2 + 2];
            }
        if (this->spoilt)
            spoil_staged(from, to);
    }

    /* What this thread has staged. */
    __device__ __forceinline__ void spoil_staged(int from, float *to) const
    {
#pragma unroll 1
        for (int n = 0; n < ROUND_TILES * MINE * 2; n++) {
            const int row = my_row(n / 2 % MINE), of_round = n / 2 / MINE * 64 + n % 2 * 8;
            if (this->is_spoilt(row, from * 64 + warp * 16 + lane / 4 + of_round))
                to[row * STAGING_STRIDE + of_round] = RT_SM90_NAN;
        }
    }

    /* Maximum and sum of a query row: the group's, where the segment is one. */
    __device__ __forceinline__ float2 state_of(const struct rt_sm90_segment &segment, int row) const
    {
        if (segment.marks & RT_SM90_SEGMENT_FOLDS)
            return room.desk.state[row];
        return rt_sm90_leaf_state(room, segment, row);
    }

    /* A warp of either worker takes a query row at a time, 128 columns at once. */
    __device__ __forceinline__ void store_round(const struct rt_sm90_segment &segment,
                                                int round) const
    {
        const int rows = min(this->hq() - first_query(), ROWS);
#pragma unroll 1
        for (int row = worker * 4 + warp; row < rows; row += 8) {
            const float *staged = room.staging + row * STAGING_STRIDE + lane * 4;
            float4 x[PIECES];
            float2 state = state_of(segment, row);
            const float by = rt_fold_inverse(state.y);
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++)
                x[piece] = rt_sm90_scaled(*(const float4 *)(staged + piece * 128), by);
            if (segment.slot < 0)
                state = make_row(first_query() + row, state, x);
            if (segment.slot >= 0)
                store_partial(segment, row, round, x);
            else
                store_out(segment, row, round, x);
            if (round == 0 && lane == 0)
                rt_sm90_store_lse(this->all, room, segment, row, state);
        }
    }

    /* Of a group that is all of its batch row, the row's output and state. */
    __device__ __forceinline__ float2 make_row(int query, const float2 &state,
                                               float4 (&x)[PIECES]) const
    {
        struct rt_fold row = rt_fold_none();
        const struct rt_fold_step step = rt_fold_add(row, rt_fold_lse({state.x, state.y}));
        const float by = rt_fold_row_inverse(row, p.sink, query % (int)p.heads);
#pragma unroll
        for (int i = 0; i < PIECES; i++)
            x[i] = rt_sm90_scaled(
                make_float4(rt_fold_number(0.0f, step, x[i].x), rt_fold_number(0.0f, step, x[i].y),
                            rt_fold_number(0.0f, step, x[i].z), rt_fold_number(0.0f, step, x[i].w)),
                by);
        return make_float2(row.top, row.total);
    }

    /* Where four of this lane are stored: a round has the same columns of both halves. */
    __device__ __forceinline__ int column_of(int piece, int round) const
    {
        const int half = piece / (ROUND_COLUMNS / 128);
        return piece * 128 + lane * 4 + half * (SHAPE::D_V / 2 - ROUND_COLUMNS) +
               round * ROUND_COLUMNS;
    }

    __device__ __forceinline__ void store_partial(const struct rt_sm90_segment &segment, int row,
                                                  int round, const float4 (&x)[PIECES]) const
    {
        float *to = p.partials.out + rt_sm90_partial_row<SHAPE>(p, segment, row) * SHAPE::D_V;
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++)
            *(float4 *)(to + column_of(piece, round)) = x[piece];
    }

    __device__ __forceinline__ void store_out(const struct rt_sm90_segment &segment, int row,
                                              int round, const float4 (&x)[PIECES]) const
    {
        uint16_t *to = this->out_row(segment, row);
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++)
            *(uint2 *)(to + column_of(piece, round)) = this->packed(x[piece]);
    }
};

#endif
