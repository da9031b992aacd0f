/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_EVEN_CUH
#define RT_KERNELS_SM90_ATTEND_EVEN_CUH

/*
 * The workers where keys are operand a in registers (kernels/sm90/attend_bytes.cuh). What a pair
 * takes is their own time then, not memory's or the products', so they take turns in another order
 * than kernels/sm90/attend_narrow.cuh: nobody waits for more than the other's softmax. A short row
 * runs all of this once, from memory: so nothing large is written out twice.
 */
#include "kernels/sm90/attend_bytes.cuh"
#include "kernels/sm90/attend_softmax.cuh"

template <class SHAPE> struct rt_sm90_even : rt_sm90_softmax<SHAPE, rt_sm90_bytes<SHAPE>> {
    typedef rt_sm90_softmax<SHAPE, rt_sm90_bytes<SHAPE>> base;
    static constexpr int ROWS = base::ROWS, MINE = base::MINE;
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
     */
    __device__ __forceinline__ void run_pair(const struct rt_sm90_pair &pair)
    {
        const uint32_t own = pair.first + (uint32_t)worker;
        const bool has_own = worker == 0 || pair.has_b;
        if (has_own)
            this->find_scores(own, score);
        if (pair.is_last)
            this->release_q();
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

    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment)
    {
        this->leave_sums();
        this->sync_both();
        if (worker == 0 && warp * 32 + lane < ROWS)
            leave_state(segment, warp * 32 + lane);
        this->sync_both();
        if (segment.slot >= 0)
            store_partials(segment);
        else
            store_outs(segment);
        this->sync_both(); /* state is free again */
    }

    /* By the query row's thread: its lse, and what its sums are to be multiplied by. */
    __device__ __forceinline__ void leave_state(const struct rt_sm90_segment &segment,
                                                int row) const
    {
        const int query = this->first_query() + row;
        if (query >= this->hq())
            return;
        const float2 state = this->leaf_state(segment, row);
        rt_sm90_store_lse(this->all, room, segment, row, state);
        room.desk.state[row].x =
            rt_sm90_inverse(p, segment, query, state) * (1 / RT_SM90_WEIGHT_UNITS);
    }

    /* Columns 4 piece .. 4 piece + 3 of this thread's, of its query row i. */
    __device__ __forceinline__ float4 piece_of(int i, int piece) const
    {
        const float *low = out[2 * piece], *high = out[2 * piece + 1];
        const int at = i / 2 * 4 + i % 2;
        float4 x = rt_sm90_scaled(make_float4(low[at], low[at + 2], high[at], high[at + 2]),
                                  room.desk.state[my_row(i)].x);
        if (this->spoilt)
            spoil(my_row(i), this->own_column() + piece * 4, x);
        return x;
    }

    __device__ __forceinline__ void spoil(int row, int column, float4 &x) const
    {
        x.x = this->is_spoilt(row, column) ? RT_SM90_NAN : x.x;
        x.y = this->is_spoilt(row, column + 1) ? RT_SM90_NAN : x.y;
        x.z = this->is_spoilt(row, column + 2) ? RT_SM90_NAN : x.z;
        x.w = this->is_spoilt(row, column + 3) ? RT_SM90_NAN : x.w;
    }

    /* Where words of columns 4 piece .. 4 piece + 3 of this thread's begin; the second is 8 on. */
    static __device__ __forceinline__ int words_of(int piece)
    {
        return RT_PIECE_AT(piece * 4);
    }

    __device__ __forceinline__ void store_partials(const struct rt_sm90_segment &segment) const
    {
        const int rows = this->hq() - this->first_query() - my_row(0);
        uint16_t *to = this->piece_row(segment, my_row(0)) + worker * (SHAPE::D_V / 2) +
                       RT_PIECE_AT(this->own_column());
        bool fits = true;
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const bool there = i / 2 * 8 + i % 2 < rows;
            uint32_t most = 0;
#pragma unroll
            for (int piece = 0; piece < SHAPE::HALF_TILES / 2; piece++) {
                const float4 x = piece_of(i, piece);
                const uint32_t low = rt_piece_halves(x.x, x.y, most);
                const uint32_t high = rt_piece_halves(x.z, x.w, most);
                uint16_t *at = to + (i / 2 * 8 + i % 2) * SHAPE::D_V + words_of(piece);
                if (there) {
                    *(uint32_t *)at = low;
                    *(uint32_t *)(at + 8) = high;
                }
            }
            fits &= !there || rt_piece_fits(most);
        }
        if (__any_sync(RT_ATTEND_FULL_WARP, !fits))
            store_unfit(to, rows);
    }

    /* Once more, and wide, what the warp has of query rows that have numbers too large for f16 or
     * all too small. */
    __device__ __forceinline__ void store_unfit(uint16_t *to, int rows) const
    {
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            uint32_t most = 0, bits = 0;
#pragma unroll
            for (int piece = 0; piece < SHAPE::HALF_TILES / 2; piece++) {
                const float4 x = piece_of(i, piece);
                rt_piece_halves(x.x, x.y, most);
                rt_piece_halves(x.z, x.w, most);
                bits |= rt_piece_bits(x.x, x.y) | rt_piece_bits(x.z, x.w);
            }
            most = rt_piece_most<4, 32>(most);
            bits = rt_piece_all<4, 32>(bits);
            if (i / 2 * 8 + i % 2 >= rows || rt_piece_fits(most) || bits == 0)
                continue;
#pragma unroll
            for (int piece = 0; piece < SHAPE::HALF_TILES / 2; piece++) {
                const float4 x = piece_of(i, piece);
                uint16_t *at = to + (i / 2 * 8 + i % 2) * SHAPE::D_V + words_of(piece);
                rt_piece_store_wide(at, this->piece_rest(), x.x, x.y);
                rt_piece_store_wide(at + 8, this->piece_rest(), x.z, x.w);
            }
        }
    }

    __device__ __forceinline__ void store_outs(const struct rt_sm90_segment &segment) const
    {
        const int rows = this->hq() - this->first_query() - my_row(0);
        uint16_t *to = (uint16_t *)p.out.base + SHAPE::keys::row_at(this->all, p.out, segment.row) +
                       worker * (SHAPE::D_V / 2) + this->own_column();
#pragma unroll
        for (int i = 0; i < MINE; i++)
            if (i / 2 * 8 + i % 2 < rows)
#pragma unroll
                for (int piece = 0; piece < SHAPE::HALF_TILES / 2; piece++)
                    *(uint2 *)(to + room.desk.out_at[my_row(i)] + piece * 4) =
                        this->packed(piece_of(i, piece));
    }
};

#endif
