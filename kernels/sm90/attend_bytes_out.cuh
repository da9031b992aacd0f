/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_BYTES_OUT_CUH
#define RT_KERNELS_SM90_ATTEND_BYTES_OUT_CUH

/*
 * How output leaves where keys are operand a in registers (kernels/sm90/attend_bytes.cuh): a thread
 * has 2 OUT_TILES columns of a query row side by side, so it stores them from its registers.
 */
#include "kernels/sm90/attend_bytes.cuh"
#include "kernels/sm90/attend_softmax.cuh"

template <class SHAPE> struct rt_sm90_bytes_out : rt_sm90_softmax<SHAPE, rt_sm90_bytes<SHAPE>> {
    typedef rt_sm90_softmax<SHAPE, rt_sm90_bytes<SHAPE>> base;
    static constexpr int ROWS = base::ROWS, MINE = base::MINE;
    using base::my_row;
    using base::out;
    using base::p;
    using base::room;

    __device__ __forceinline__ rt_sm90_bytes_out(const typename SHAPE::params &all_,
                                                 const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_)
    {
    }

    /* `by`: what this thread's query rows are multiplied by. */
    __device__ __forceinline__ void store(const struct rt_sm90_segment &segment,
                                          const float (&by)[MINE]) const
    {
        if (segment.slot >= 0)
            store_partials(segment, by);
        else
            store_outs(segment, by);
    }

    /* Columns that are not finite, for query rows that see why, which SELF knows. */
    template <class SELF> __device__ __forceinline__ void spoil_out(const SELF &self)
    {
#pragma unroll
        for (int t = 0; t < SHAPE::OUT_TILES; t++)
#pragma unroll
            for (int i = 0; i < ROWS / 2; i++)
                if (self.is_spoilt(my_row(i / 4 * 2 + i % 2),
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
        uint16_t *to = this->piece_row(segment, my_row(0)) + this->first_column() +
                       RT_PIECE_AT(this->own_column());
        bool fits = true;
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const bool there = i / 2 * 8 + i % 2 < rows;
            uint32_t most = 0;
#pragma unroll
            for (int piece = 0; piece < SHAPE::OUT_TILES / 2; piece++) {
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
            for (int piece = 0; piece < SHAPE::OUT_TILES / 2; piece++) {
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
            for (int piece = 0; piece < SHAPE::OUT_TILES / 2; piece++) {
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
                       this->first_column() + this->own_column();
#pragma unroll
        for (int i = 0; i < MINE; i++)
            if (i / 2 * 8 + i % 2 < rows)
#pragma unroll
                for (int piece = 0; piece < SHAPE::OUT_TILES / 2; piece++)
                    *(uint2 *)(to + room.desk.out_at[my_row(i)] + piece * 4) =
                        this->packed(piece_of(i, piece, by[i]));
    }
};

#endif
