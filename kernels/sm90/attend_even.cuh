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
            spoil_out();
        if (segment.slot >= 0)
            store_partials(segment, by);
        else
            store_outs(segment, by);
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

    /* Columns that are not finite, for query rows that see why. */
    __device__ __forceinline__ void spoil_out(void)
    {
#pragma unroll
        for (int t = 0; t < SHAPE::HALF_TILES; t++)
#pragma unroll
            for (int i = 0; i < ROWS / 2; i++)
                if (this->is_spoilt(my_row(i / 4 * 2 + i % 2),
                                    this->own_column() + t * 2 + i % 4 / 2))
                    out[t][i] = RT_SM90_NAN;
    }

    /* Columns 4 piece .. 4 piece + 3 of this thread's, of its query row i. */
    __device__ __forceinline__ float4 piece_of(int i, int piece, float by) const
    {
        const float *low = out[2 * piece], *high = out[2 * piece + 1];
        const int at = i / 2 * 4 + i % 2;
        return rt_sm90_scaled(make_float4(low[at], low[at + 2], high[at], high[at + 2]), by);
    }

    /* Where words of columns 4 piece .. 4 piece + 3 of this thread's begin; the second is 8 on. */
    static __device__ __forceinline__ int words_of(int piece)
    {
        return RT_PIECE_AT(piece * 4);
    }

    __device__ __forceinline__ void store_partials(const struct rt_sm90_segment &segment,
                                                   const float (&by)[MINE]) const
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
                const float4 x = piece_of(i, piece, by[i]);
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
            store_unfit(to, rows, by);
    }

    /* Once more, and wide, what the warp has of query rows that have numbers too large for f16 or
     * all too small. */
    __device__ __forceinline__ void store_unfit(uint16_t *to, int rows,
                                                const float (&by)[MINE]) const
    {
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            uint32_t most = 0, bits = 0;
#pragma unroll
            for (int piece = 0; piece < SHAPE::HALF_TILES / 2; piece++) {
                const float4 x = piece_of(i, piece, by[i]);
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
                const float4 x = piece_of(i, piece, by[i]);
                uint16_t *at = to + (i / 2 * 8 + i % 2) * SHAPE::D_V + words_of(piece);
                rt_piece_store_wide(at, this->piece_rest(), x.x, x.y);
                rt_piece_store_wide(at + 8, this->piece_rest(), x.z, x.w);
            }
        }
    }

    __device__ __forceinline__ void store_outs(const struct rt_sm90_segment &segment,
                                               const float (&by)[MINE]) const
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
                        this->packed(piece_of(i, piece, by[i]));
    }
};

#endif
