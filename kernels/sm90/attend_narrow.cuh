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
#include "kernels/device/fold.cuh"
#include "kernels/sm90/attend_softmax.cuh"

template <class SHAPE> struct rt_sm90_narrow : rt_sm90_softmax<SHAPE, rt_sm90_worker_base<SHAPE>> {
    typedef rt_sm90_softmax<SHAPE, rt_sm90_worker_base<SHAPE>> base;
    static constexpr int ROWS = base::ROWS, MINE = base::MINE;
    static constexpr int ROUND_COLUMNS = SHAPE::STAGING_COLUMNS;
    static constexpr int ROUND_TILES = ROUND_COLUMNS / 64;
    static constexpr int STAGING_STRIDE = SHAPE::STAGING_STRIDE;
    typedef rt_wgmma<ROWS> product;
    using base::all;
    using base::first_query;
    using base::hq;
    using base::lane;
    using base::my_row;
    using base::out;
    using base::p;
    using base::room;
    using base::score;
    using base::stage_of;
    using base::warp;
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

    __device__ __forceinline__ void find_values(uint32_t j, int start)
    {
        this->part_keys(j, start);
        this->rescale();
        rt_wgmma_begin();
        add_values(stage_of(j));
        rt_wgmma_commit();
        rt_wgmma_wait<0>();
        this->settle_out();
        this->release(j);
    }

    /* The scores of block j are done: its weights, for both workers. */
    __device__ __forceinline__ void lead(uint32_t j, int start)
    {
        this->softmax(j, start);
        this->tell(RT_SM90_BAR_A + worker);
        this->sync_worker();
        find_values(j, start);
    }

    __device__ __forceinline__ void follow(uint32_t j, int start)
    {
        this->hear(RT_SM90_BAR_A + (worker ^ 1));
        this->wait_for_half(j, worker);
        this->read_top();
        find_values(j, start);
    }

    /*
     * worker 0   s(a) | v(a) v(b)            worker 1   s(b)  v(a) | v(b)       first pair
     *            s(a) | v(a) v(b)                       v(a)  s(b) | v(b)       the others
     *
     * The first pair's blocks were asked for at once. Later b may still be on its way when a's
     * stage is wanted.
     */
    __device__ __forceinline__ void run_pair(const struct rt_sm90_pair &pair)
    {
        const uint32_t own = pair.first + (uint32_t)worker;
        const int start = pair.key + worker * 64;
        const bool has_own = worker == 0 || pair.has_b;
        const bool early = worker == 0 || pair.is_first;
        if (has_own && early)
            this->find_scores(own, score);
        if (worker == 1)
            follow(pair.first, pair.key);
        if (has_own && !early)
            this->find_scores(own, score);
        if (pair.is_last)
            this->release_q();
        if (has_own)
            lead(own, start);
        if (worker == 0 && pair.has_b)
            follow(pair.first + 1, pair.key + 64);
    }

    /* ---- the end of a segment ---- */

    /* Maximum and sum of a query row, all sums in one order. Behind a barrier of both. The maximum
     * is the one that the last block's owner has left, and anything where there was no block. */
    __device__ __forceinline__ float2 state_of(const struct rt_sm90_segment &segment, int row) const
    {
        if (SHAPE::FOLDS && (segment.marks & RT_SM90_SEGMENT_FOLDS))
            return room.desk.state[row]; /* the group's */
        return this->leaf_state(segment, row);
    }

    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment)
    {
        this->leave_sums();
        store_segment(segment);
    }

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

    /* A warp of either worker takes a query row at a time, 128 columns at once. */
    __device__ __forceinline__ void store_round(const struct rt_sm90_segment &segment,
                                                int round) const
    {
        constexpr int PIECES = 2 * ROUND_COLUMNS / 128;
        const int rows = min(hq() - first_query(), ROWS);
#pragma unroll 1
        for (int row = worker * 4 + warp; row < rows; row += 8) {
            const float *staged = room.staging + row * STAGING_STRIDE + own_columns(segment);
            const int next = has_words(segment) ? 8 : 2;
            float4 x[PIECES];
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++) {
                const float2 low = *(const float2 *)(staged + piece * 128);
                const float2 high = *(const float2 *)(staged + piece * 128 + next);
                x[piece] = make_float4(low.x, low.y, high.x, high.y);
            }
            float2 state = state_of(segment, row);
            float by = SHAPE::FOLDS ? rt_fold_inverse(state.y)
                                    : rt_sm90_inverse(p, segment, first_query() + row, state);
            if (SHAPE::F16)
                by *= 1 / RT_SM90_WEIGHT_UNITS;
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++)
                x[piece] = rt_sm90_scaled(x[piece], by);
            if (SHAPE::FOLDS && segment.slot < 0)
                state = make_row(first_query() + row, state, x);
            if (segment.slot >= 0)
                store_partial(segment, row, round, x);
            else
                store_out(segment, row, round, x);
            if (round == 0 && lane == 0)
                rt_sm90_store_lse(all, room, segment, row, state);
        }
    }

    /* Of a group that is all of its batch row, the row's output and state. */
    template <int PIECES>
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

    /* Whether what is stored are words of a piece, and not columns in their order. */
    static __device__ __forceinline__ bool has_words(const struct rt_sm90_segment &segment)
    {
        return !SHAPE::FOLDS && segment.slot >= 0;
    }

    /* The first column of 128 that this lane has; of words it has two, eight columns apart. */
    __device__ __forceinline__ int own_columns(const struct rt_sm90_segment &segment) const
    {
        return has_words(segment) ? RT_PIECE_COLUMN(lane * 4) : lane * 4;
    }

    /* Where a piece's first four of this lane are stored: a round has the same columns of both
     * halves. */
    __device__ __forceinline__ int column_of(int piece, int round) const
    {
        const int half = piece / (ROUND_COLUMNS / 128);
        return piece * 128 + lane * 4 + half * (SHAPE::D_V / 2 - ROUND_COLUMNS) +
               round * ROUND_COLUMNS;
    }

    template <int PIECES>
    __device__ __forceinline__ void store_partial(const struct rt_sm90_segment &segment, int row,
                                                  int round, const float4 (&x)[PIECES]) const
    {
        if constexpr (SHAPE::FOLDS) {
            float *to = p.partials.out + rt_sm90_partial_row<SHAPE>(p, segment, row) * SHAPE::D_V;
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++)
                *(float4 *)(to + column_of(piece, round)) = x[piece];
        } else {
            uint16_t *to = this->piece_row(segment, row);
            uint32_t most = 0;
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++)
                *(uint2 *)(to + column_of(piece, round)) =
                    make_uint2(rt_piece_halves(x[piece].x, x[piece].y, most),
                               rt_piece_halves(x[piece].z, x[piece].w, most));
            if (__any_sync(RT_ATTEND_FULL_WARP, !rt_piece_fits(most)))
                store_wide(to, round, most, x);
        }
    }

    /* What the warp has of a query row, if some of it is too large for f16 or all too small. */
    template <int PIECES>
    __device__ __forceinline__ void store_wide(uint16_t *to, int round, uint32_t most,
                                               const float4 (&x)[PIECES]) const
    {
        uint32_t bits = 0;
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++)
            bits |= rt_piece_bits(x[piece].x, x[piece].y) | rt_piece_bits(x[piece].z, x[piece].w);
        if (rt_piece_fits(rt_piece_most<1, 32>(most)) || rt_piece_all<1, 32>(bits) == 0)
            return;
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++) {
            uint16_t *at = to + column_of(piece, round);
            rt_piece_store_wide(at, this->piece_rest(), x[piece].x, x[piece].y);
            rt_piece_store_wide(at + 2, this->piece_rest(), x[piece].z, x[piece].w);
        }
    }

    template <int PIECES>
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
