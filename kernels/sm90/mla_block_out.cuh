/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MLA_BLOCK_OUT_CUH
#define RT_KERNELS_SM90_MLA_BLOCK_OUT_CUH

/* mla_block behind attention: pieces become a head's sums, those its values, and those hidden. */
#include "kernels/sm90/mla_block_attend.cuh"

template <class S> struct rt_block_out {
    typedef rt_block_worker<S> worker;
    /* Tiles of o_proj whose sums have room at once. */
    static constexpr int TILES = worker::SLOT * 16 * RT_BLOCK_OUT_TILES <= RT_BLOCK_SUMS
                                     ? RT_BLOCK_OUT_TILES
                                     : RT_BLOCK_OUT_TILES / 2;
    static constexpr int ROUNDS = RT_BLOCK_OUT_TILES / TILES;

    worker &w;
    const uint32_t warp, lane;

    explicit __device__ __forceinline__ rt_block_out(worker &w_)
        : w(w_), warp(w_.warp), lane(w_.lane)
    {
    }

    /* ---- pieces ---- */

    /* What the sums of a head take of each piece, by one warp: asked for by all, the pieces' sums
     * would be in the way of those that write. A row without keys takes nothing. */
    __device__ __forceinline__ void weigh_pieces(uint32_t head)
    {
        constexpr int HELD = S::PIECES / 32, OF_ROW = HELD > S::SLOTS ? HELD / S::SLOTS : 1;
        constexpr int SPAN = S::PIECES / S::SLOTS < 32 ? S::PIECES / S::SLOTS : 32; /* lanes */
        uint2 ml[HELD];
        const unsigned char *from = w.p.exchange + w.at.weights + (head * S::PIECES + lane) * 8;
        rt_block_gather(ml, [&](int i) { return from + i * 32 * 8; });
#pragma unroll
        for (int first = 0; first < HELD; first += OF_ROW) {
            float most = -INFINITY, sum = 0, weight[OF_ROW];
#pragma unroll
            for (int i = 0; i < OF_ROW; i++)
                most = fmaxf(most, __uint_as_float(ml[first + i].x));
#pragma unroll
            for (int i = SPAN / 2; i > 0; i /= 2)
                most = fmaxf(most, __shfl_xor_sync(RT_BLOCK_FULL_WARP, most, i));
            most = most == -INFINITY ? 0 : most;
#pragma unroll
            for (int i = 0; i < OF_ROW; i++) { /* a piece without tokens: of -inf nothing */
                weight[i] = rt_exp2(__uint_as_float(ml[first + i].x) - most);
                sum += __uint_as_float(ml[first + i].y) * weight[i];
            }
#pragma unroll
            for (int i = SPAN / 2; i > 0; i /= 2)
                sum += __shfl_xor_sync(RT_BLOCK_FULL_WARP, sum, i);
            const float inverse = sum == 0 ? 0 : rt_reciprocal(sum);
#pragma unroll
            for (int i = 0; i < OF_ROW; i++)
                w.desk.piece[(first + i) * 32 + lane] = weight[i] * inverse;
        }
    }

    static __device__ __forceinline__ void add_piece(float (&o)[8], const uint4 &v, float by)
    {
        const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            o[2 * i] = fmaf(by, rt_bf16_low(pairs[i]), o[2 * i]);
            o[2 * i + 1] = fmaf(by, rt_bf16_high(pairs[i]), o[2 * i + 1]);
        }
    }

    /* 64 columns of a head: the sums over all pieces of each vector, up to eight pieces a warp, of
     * which a lane has every fourth. */
    __device__ __forceinline__ void combine(uint32_t v)
    {
        constexpr int OF_WARP = S::PIECES / RT_BLOCK_WORKERS, HELD = OF_WARP / 4;
        const uint32_t head = v / RT_BLOCK_OF_HEAD, part = v % RT_BLOCK_OF_HEAD;
        const uint32_t piece = OF_WARP * warp + lane / 8, column = lane % 8 * 8;
        const uint32_t unit = head / S::GROUP * S::PIECES + piece;
        uint4 mine[HELD];
        const unsigned char *from =
            w.p.exchange + w.at.pieces +
            ((unit * S::GROUP + head % S::GROUP) * RT_MLA_BLOCK_LATENT + part * 64 + column) * 2;
        if (warp == 0)
            weigh_pieces(head);
        worker::meet();
        rt_block_gather(mine,
                        [&](int i) { return from + i * 4 * S::GROUP * RT_MLA_BLOCK_LATENT * 2; });
        float o[8] = {};
#pragma unroll
        for (int i = 0; i < HELD; i++)
            add_piece(o, mine[i], w.desk.piece[piece + 4 * i]);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            o[e] += __shfl_xor_sync(RT_BLOCK_FULL_WARP, o[e], 16);
            o[e] += __shfl_xor_sync(RT_BLOCK_FULL_WARP, o[e], 8);
            if (lane < 8)
                w.desk.sums[warp * 64 + column + e] = o[e];
        }
        worker::meet();
        store_combined(head, part);
    }

    __device__ __forceinline__ void store_combined(uint32_t head, uint32_t part) const
    {
        constexpr uint32_t OF_ROW = RT_BLOCK_WORKERS / S::SLOTS; /* warps of a vector */
        const uint32_t vector = threadIdx.x / 32, pair = threadIdx.x % 32;
        if (vector >= S::SLOTS)
            return;
        float2 all = make_float2(0, 0);
#pragma unroll
        for (uint32_t i = 0; i < OF_ROW; i++) {
            const float2 one =
                *(const float2 *)(w.desk.sums + (vector * OF_ROW + i) * 64 + 2 * pair);
            all.x += one.x;
            all.y += one.y;
        }
        const uint32_t to = (vector * S::HEADS + head) * RT_MLA_BLOCK_LATENT + part * 64;
        rt_store_relaxed(w.p.exchange + w.at.o + (to + 2 * pair) * 2, worker::scaled(all, 1.0f));
    }

    /* ---- values ---- */

    /* 16 values of a head. The weight is in registers before the sums are there. */
    __device__ __forceinline__ void value(uint32_t v)
    {
        const uint32_t head = v / RT_BLOCK_OF_HEAD, part = v % RT_BLOCK_OF_HEAD;
        const unsigned char *from =
            w.p.exchange + w.at.o + ((w.g * S::HEADS + head) * RT_MLA_BLOCK_LATENT + w.mine) * 2;
        uint4 weight[1][2], x[1];
        float d[1][4] = {};
        w.take(weight, 1);
        worker::meet(); /* sums have been read */
        rt_block_gather(x, [&](int) { return w.has_row() ? from : nullptr; });
        w.multiply(d, weight, x[0], 1);
        w.put(w.desk.sums, warp, w.lane_row, d[0]);
        worker::meet();
        const uint32_t vector = threadIdx.x / 8, pair = threadIdx.x % 8;
        if (vector < S::SLOTS) {
            const uint32_t to =
                (vector * S::HEADS + head) * RT_MLA_BLOCK_VALUE + part * RT_BLOCK_TILE;
            rt_store_relaxed(w.p.exchange + w.at.v + (to + 2 * pair) * 2,
                             worker::scaled(worker::add(w.desk.sums, 1, 0, vector, pair), 1.0f));
        }
    }

    /* ---- hidden ---- */

    struct place {
        uint32_t vector, pair; /* of a round's rows */
        uint64_t to;           /* numbers of hidden in front of it */
        bool is_there;
    };

    __device__ __forceinline__ place place_of(int round, uint32_t first, uint32_t rows) const
    {
        constexpr uint32_t PAIRS = TILES * RT_BLOCK_TILE / 2;
        place a;
        a.vector = threadIdx.x / PAIRS;
        a.pair = threadIdx.x % PAIRS;
        const uint32_t row = round * TILES * RT_BLOCK_TILE + 2 * a.pair;
        a.is_there = a.vector < S::vectors_of(w.p) && row < rows;
        a.to = (uint64_t)a.vector * w.p.hidden_size + first + row;
        return a;
    }

    /* The sum that the block began with: hidden is written by whoever reads these numbers of it
     * last. */
    __device__ __forceinline__ void keep_residual(const place &a) const
    {
        if (!a.is_there || !w.p.residual)
            return;
        uint32_t sum = *(const uint32_t *)(w.p.hidden + a.to);
        if (!w.p.first)
            sum =
                rt_add_scaled_pair(*(const uint32_t *)(w.p.residual + a.to), sum, w.p.hidden_scale);
        *(uint32_t *)(w.p.residual + a.to) = sum;
    }

    /* Rows of o_proj from `first` on, up to four tiles, the first 512 numbers of k in registers
     * before the values are there. */
    __device__ __forceinline__ void project(uint32_t first, uint32_t rows)
    {
        constexpr int HELD = S::OUT_CHUNKS < 4 ? S::OUT_CHUNKS : 4; /* chunks of values */
        const uint32_t tiles = (rows + RT_BLOCK_TILE - 1) / RT_BLOCK_TILE;
        const unsigned char *from = w.p.exchange + w.at.v + (w.g * S::OUT_WIDTH + w.mine) * 2;
        uint4 weight[RT_BLOCK_OUT_TILES][2], x[HELD];
        float d[RT_BLOCK_OUT_TILES][4] = {};
        worker::meet(); /* sums have been read */
#pragma unroll 1
        for (int part = 0; part < S::OUT_CHUNKS / HELD; part++) {
            w.take(weight, tiles);
            rt_block_gather(
                x, [&](int i) { return w.has_row() ? from + 2 * RT_BLOCK_CHUNK * i : nullptr; });
            w.multiply(d, weight, x[0], tiles);
#pragma unroll 1
            for (int chunk = 1; chunk < HELD; chunk++) {
#pragma unroll
                for (int i = 1; i < HELD; i++)
                    x[i - 1] = x[i];
                w.take(weight, tiles);
                w.multiply(d, weight, x[0], tiles);
            }
            from += 2 * RT_BLOCK_CHUNK * HELD;
        }
        store(first, rows, d);
    }

    /* Two neighbours of hidden. */
    __device__ __forceinline__ uint32_t finish(float2 sum, uint32_t row) const
    {
        if (S::GENERAL)
            sum = worker::plus(sum, w.p.o.bias, row);
        return worker::scaled(sum, 1.0f);
    }

    __device__ __forceinline__ void store(uint32_t first, uint32_t rows,
                                          const float (&d)[RT_BLOCK_OUT_TILES][4])
    {
#pragma unroll
        for (int round = 0; round < ROUNDS; round++) {
            const place a = place_of(round, first, rows);
            keep_residual(a);
            if (round > 0)
                worker::meet(); /* sums have been read */
#pragma unroll
            for (int i = 0; i < TILES; i++)
                w.put(w.desk.sums, TILES * warp + i, w.lane_row, d[round * TILES + i]);
            worker::meet();
            if (a.is_there)
                *(uint32_t *)(w.p.hidden + a.to) =
                    finish(worker::add(w.desk.sums, TILES, a.pair / 8, a.vector, a.pair % 8),
                           (uint32_t)(a.to - (uint64_t)a.vector * w.p.hidden_size));
        }
    }

    __device__ __forceinline__ void run(void)
    {
        const uint32_t hidden = w.p.hidden_size;
        const uint32_t end = rt_mla_block_out_first(&w.cut, hidden, blockIdx.x + 1);
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < S::HEAD_UNITS; v += w.cut.blocks)
            combine(v);
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < S::HEAD_UNITS; v += w.cut.blocks)
            value(v);
#pragma unroll 1
        for (uint32_t first = rt_mla_block_out_first(&w.cut, hidden, blockIdx.x); first < end;
             first += RT_MLA_BLOCK_OUT_ROWS)
            project(first, min(end - first, RT_MLA_BLOCK_OUT_ROWS));
    }
};

#endif
