/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_NARROW_OUT_CUH
#define RT_KERNELS_SM90_ATTEND_NARROW_OUT_CUH

/*
 * How a segment of few query rows leaves the narrow kernel.
 *
 *   beside the last values   sums of both workers | what rows are multiplied by, and their lse
 *   then                     staging: 16 bits a number as they will be stored, [query row][column]
 *                            | warps store whole lines of a query row
 *
 *   barrier BOTH   makes visible   and frees
 *   1              sums            staging, which the segment before was stored from
 *   2              staging         sums
 *
 * In front of a short row's end there is nothing to hide behind, so only what needs values waits
 * for them. With 8 and 16 query rows this stands in the loop over pairs: what it derives from its
 * thread's number is opaque, or it would be kept through the loop.
 */
#include "kernels/device/ptx/opaque.cuh"
#include "kernels/device/ptx/stmatrix.cuh"
#include "kernels/sm90/attend_work.cuh"

template <class SHAPE> struct rt_sm90_narrow_out {
    static constexpr int ROWS = SHAPE::TILE_ROWS;
    static constexpr int MINE = ROWS / 4; /* query rows that a thread has to do with */
    static constexpr int NUMBERS = 2 * SHAPE::HALF_TILES; /* of each */
    /* A query row's numbers, and 16 bytes so that rows begin at different banks. */
    static constexpr int STAGED_BYTES = 2 * SHAPE::D_V + 16;
    static_assert(SHAPE::FOLDS || ROWS * STAGED_BYTES <= SHAPE::STAGING_BYTES, "staging");
    typedef float sums[SHAPE::HALF_TILES][ROWS / 2];

    const typename SHAPE::params &all;
    const struct rt_attend_params &p;
    const rt_sm90_room<SHAPE> &room;
    const struct rt_sm90_segment &segment;
    const int worker;

    __device__ __forceinline__ rt_sm90_narrow_out(const typename SHAPE::params &all_,
                                                  const rt_sm90_room<SHAPE> &room_,
                                                  const struct rt_sm90_segment &segment_,
                                                  int worker_)
        : all(all_), p(SHAPE::keys::attend(all_)), room(room_), segment(segment_), worker(worker_)
    {
    }

    static __device__ __forceinline__ int first_query(void)
    {
        return rt_sm90_first_query<SHAPE>();
    }

    __device__ __forceinline__ int hq(void) const
    {
        return (int)(p.rows.q_len * p.heads);
    }

    /* A thread's place: which query rows and columns it has. */
    struct place {
        int warp, lane;

        __device__ __forceinline__ place(void)
            : warp((int)(rt_opaque(threadIdx.x) / 32 % 4)), lane((int)(rt_opaque(threadIdx.x) % 32))
        {
        }

        __device__ __forceinline__ int row(int i) const
        {
            return i / 2 * 8 + lane % 4 * 2 + i % 2;
        }

        /* Column of its number n in its worker's half. */
        __device__ __forceinline__ int column(int n) const
        {
            return n / 2 * 64 + warp * 16 + n % 2 * 8 + lane / 4;
        }
    };

    /* ---- beside the last values ---- */

    __device__ __forceinline__ float inverse(int row, const float2 &state) const
    {
        return rt_sm90_inverse(p, segment, first_query() + row, state) *
               (SHAPE::F16 ? 1 / RT_SM90_WEIGHT_UNITS : 1.0f);
    }

    __device__ __forceinline__ void find_inverses(float (&by)[MINE]) const
    {
        const place at;
#pragma unroll
        for (int i = 0; i < MINE; i += 2) {
            float2 state[2];
            rt_sm90_leaf_states(room, segment, at.row(i), state);
            by[i] = inverse(at.row(i), state[0]);
            by[i + 1] = inverse(at.row(i) + 1, state[1]);
        }
    }

    /* By a worker: a query row is a thread's. */
    __device__ __forceinline__ void store_lse(void) const
    {
        const int row = (int)(rt_opaque(threadIdx.x) % RT_SM90_WORKER_THREADS);
        if (row < ROWS && first_query() + row < hq())
            rt_sm90_store_lse(all, room, segment, row, rt_sm90_leaf_state(room, segment, row));
    }

    /* ---- behind them ---- */

    /* Of a query row's sums, number n. */
    static __device__ __forceinline__ int at_of(int i, int n)
    {
        return i / 2 * 4 + i % 2 + n % 2 * 2;
    }

    /* 32 columns' eights lie in an order that lets who takes a word of each meet no bank twice. */
    __device__ __forceinline__ unsigned char *staged(int row, int eight) const
    {
        return (unsigned char *)room.staging + row * STAGED_BYTES + (eight ^ (eight / 8 & 3)) * 16;
    }

    __device__ __forceinline__ unsigned char *staged_column(int row, int column) const
    {
        return staged(row, column / 8) + column % 8 * 2;
    }

    __device__ __forceinline__ uint16_t *piece_row(int row) const
    {
        return rt_piece_row(p.partials, segment.slot, hq(), first_query() + row, SHAPE::D_V);
    }

    __device__ __forceinline__ uint16_t *out_row(int row) const
    {
        return (uint16_t *)p.out.base + SHAPE::keys::row_at(all, p.out, segment.row) +
               room.desk.out_at[row];
    }

    __device__ __forceinline__ uint16_t *rests(int row) const
    {
        return piece_row(row) + rt_piece_rest(hq(), SHAPE::D_V);
    }

    __device__ __forceinline__ void store(const sums &out, const float (&by)[MINE],
                                          bool spoilt) const
    {
        uint32_t wide = 0;
        if (segment.slot >= 0)
            wide = stage_piece(out, by);
        else
            stage_out(out, by);
        if (spoilt)
            spoil_staged(wide);
        rt_bar_sync(RT_SM90_BAR_BOTH, 2 * RT_SM90_WORKER_THREADS);
        const place at;
        const int rows = min(hq() - first_query(), ROWS);
#pragma unroll 1
        for (int row = worker * 4 + at.warp; row < rows; row += 8)
            if (segment.slot >= 0)
                store_words(row, at.lane);
            else
                store_columns(row, at.lane);
    }

    /* Of a segment without a block: a caller has shortened the row since its schedule. */
    __device__ __forceinline__ void store_none(void) const
    {
        const place at;
        const int rows = min(hq() - first_query(), ROWS);
#pragma unroll 1
        for (int row = worker * 4 + at.warp; row < rows; row += 8) {
            uint16_t *to = segment.slot >= 0 ? piece_row(row) : out_row(row);
            for (int column = at.lane * 8; column < SHAPE::D_V; column += 256)
                *(uint4 *)(to + column) = make_uint4(0, 0, 0, 0);
            if (at.lane == 0)
                rt_sm90_store_lse(all, room, segment, row, make_float2(0.0f, 0.0f));
        }
    }

    /* Two query rows' numbers by what they are multiplied by; by 0, where no key was seen or the
     * sink is all, they may be anything and become zeros. PACK makes 16 bits of either. */
    template <class PACK>
    __device__ __forceinline__ void stage(const sums &out, int i, const float (&by)[MINE],
                                          const PACK &pack) const
    {
        const place at;
        const uint32_t kept = (by[i] == 0.0f ? 0 : 0xffffu) | (by[i + 1] == 0.0f ? 0 : 0xffff0000u);
        unsigned char *to = staged(i / 2 * 8 + at.lane % 8, 0);
#pragma unroll
        for (int t = 0; t < SHAPE::HALF_TILES; t += 2) {
            uint32_t x[4];
#pragma unroll
            for (int n = 0; n < 4; n++)
                x[n] = pack(out[t + n / 2][at_of(i, n)] * by[i],
                            out[t + n / 2][at_of(i + 1, n)] * by[i + 1]) &
                       kept;
            /* Lanes give addresses of rows of four matrices: this tile's two, the next one's. */
            const int eight =
                worker * (SHAPE::D_V / 16) + (t + at.lane / 16) * 8 + at.warp * 2 + at.lane / 8 % 2;
            rt_stmatrix_x4_trans(to + (eight ^ (eight / 8 & 3)) * 16, x[0], x[1], x[2], x[3]);
        }
    }

    __device__ __forceinline__ void stage_out(const sums &out, const float (&by)[MINE]) const
    {
#pragma unroll
        for (int i = 0; i < MINE; i += 2)
            stage(out, i, by, [](float low, float high) { return rt_pack_bf16x2(low, high); });
    }

    /* As f16, and wide what the warp has of query rows that have numbers too large for it or all
     * too small. Of this thread's query rows a bit each: whether they are wide. */
    __device__ __forceinline__ uint32_t stage_piece(const sums &out, const float (&by)[MINE]) const
    {
        bool fits = true;
#pragma unroll
        for (int i = 0; i < MINE; i += 2) {
            uint32_t most = 0;
            stage(out, i, by,
                  [&most](float low, float high) { return rt_piece_halves(low, high, most); });
            fits &= by[i] == 0.0f || rt_piece_fits(most & 0xffffu);
            fits &= by[i + 1] == 0.0f || rt_piece_fits(most >> 16);
        }
        return __any_sync(RT_ATTEND_FULL_WARP, !fits) ? stage_wide(out) : 0;
    }

    /* Seldom run: a query row after the other is moved to the same registers, so that what makes
     * its words is there once. */
    __device__ __forceinline__ uint32_t stage_wide(const sums &out) const
    {
        uint32_t wide = 0;
        __syncwarp(); /* the warp has staged f16 */
#pragma unroll 1
        for (int row = 0; row < MINE; row++) {
            const place at;
            float x[NUMBERS] = {};
#pragma unroll
            for (int i = 0; i < MINE; i++)
#pragma unroll
                for (int n = 0; n < NUMBERS; n++)
                    x[n] = i == row ? out[n / 2][at_of(i, n)] : x[n];
            const float factor =
                inverse(at.row(row), rt_sm90_leaf_state(room, segment, at.row(row)));
#pragma unroll
            for (int n = 0; n < NUMBERS; n++)
                x[n] *= factor;
            const bool is_there = first_query() + at.row(row) < hq() && factor != 0.0f;
            const bool is_wide = wants_wide(x) && is_there;
            wide |= is_wide ? 1u << row : 0;
            stage_wide_row(at, x, at.row(row), is_wide);
        }
        __syncwarp();
        return wide;
    }

    /* What the warp has of a query row. By all lanes. */
    static __device__ __forceinline__ bool wants_wide(const float (&x)[NUMBERS])
    {
        uint32_t most = 0, bits = 0;
#pragma unroll
        for (int n = 0; n < NUMBERS; n += 2) {
            rt_piece_halves(x[n], x[n + 1], most);
            bits |= rt_piece_bits(x[n], x[n + 1]);
        }
        most = rt_piece_most<4, 32>(most);
        return rt_piece_all<4, 32>(bits) != 0 && !rt_piece_fits(most);
    }

    /* A word is an even column and the next, which another lane has. By all lanes. */
    __device__ __forceinline__ void stage_wide_row(const place &at, const float (&x)[NUMBERS],
                                                   int row, bool is_wide) const
    {
#pragma unroll
        for (int n = 0; n < NUMBERS; n++) {
            const float next = __shfl_xor_sync(RT_ATTEND_FULL_WARP, x[n], 4);
            const int column = worker * (SHAPE::D_V / 2) + at.column(n);
            if (!is_wide || column % 2 > 0)
                continue;
            uint32_t word[2]; /* of halves, of rests */
            rt_piece_store_wide((uint16_t *)word, 2, x[n], next);
            *(uint32_t *)staged_column(row, column) = word[0];
            *(uint32_t *)(rests(row) + RT_PIECE_AT(column)) = word[1];
        }
    }

    /* Columns that are not finite, for query rows that see why; but for those to which no key
     * counts, as beside a sink that is all. */
    __device__ __forceinline__ void spoil_staged(uint32_t wide) const
    {
        const place at;
        __syncwarp(); /* what this lane has is staged */
#pragma unroll 1
        for (int n = 0; n < NUMBERS * MINE; n++) {
            const int i = n % MINE, row = at.row(i), of_half = at.column(n / MINE);
            const int column = worker * (SHAPE::D_V / 2) + of_half;
            if (!rt_sm90_is_spoilt(room, worker, row, of_half) ||
                inverse(row, rt_sm90_leaf_state(room, segment, row)) == 0.0f)
                continue;
            if (wide >> i & 1)
                rests(row)[RT_PIECE_AT(column)] = RT_PIECE_NAN_REST;
            else
                *(uint16_t *)staged_column(row, column) = RT_PIECE_NAN;
        }
    }

    /* ---- by a warp, a query row ---- */

    /* Words of 32 columns as piece.h has them: of each eight of them one. */
    __device__ __forceinline__ void store_words(int row, int lane) const
    {
        uint16_t *to = piece_row(row) + lane * 8;
#pragma unroll
        for (int round = 0; round < SHAPE::D_V / 256; round++) {
            uint32_t word[4];
#pragma unroll
            for (int n = 0; n < 4; n++)
                word[n] =
                    *(const uint32_t *)(staged(row, round * 32 + lane / 4 * 4 + n) + lane % 4 * 4);
            *(uint4 *)(to + round * 256) = make_uint4(word[0], word[1], word[2], word[3]);
        }
    }

    __device__ __forceinline__ void store_columns(int row, int lane) const
    {
        uint16_t *to = out_row(row) + lane * 8;
#pragma unroll
        for (int round = 0; round < SHAPE::D_V / 256; round++)
            *(uint4 *)(to + round * 256) = *(const uint4 *)staged(row, round * 32 + lane);
    }
};

#endif
