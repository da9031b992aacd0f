/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MLA_BLOCK_ATTEND_CUH
#define RT_KERNELS_SM90_MLA_BLOCK_ATTEND_CUH

/*
 * mla_block: a unit of attention, some keys of a vector for a group of heads, two tiles of 16 a
 * round. Scores with the heads on the tensor cores' longer side, k split over eight warps a tile;
 * then warp w has head w of the softmax, and then columns 32 w .. of the values of all heads.
 */
#include "kernels/sm90/mla_block_work.cuh"

template <class S> struct rt_block_attend {
    static constexpr int PIECES = 3;             /* of 32 numbers of k a warp, at most, of 18 */
    static constexpr uint32_t WEIGHT_PITCH = 40; /* numbers from head to head */
    typedef rt_block_worker<S> worker;

    worker &w;
    const uint32_t unit;
    const rt_block_share<S> share;
    const float scale_log2;
    const uint32_t group, tile; /* of k; of a round */
    uint4 q[PIECES][2];         /* heads g and g + 8 of the group; zeros where there is none */
    float most, sum;            /* of this lane's tokens, head `warp` of the group */
    float o[4][4];

    __device__ __forceinline__ rt_block_attend(worker &w_, uint32_t unit_)
        : w(w_), unit(unit_), share(w_.p, unit_), scale_log2(w_.p.scale * 1.44269504f),
          group(w_.warp % 8), tile(w_.warp / 8), most(-INFINITY), sum(0), o{}
    {
    }

    __device__ __forceinline__ bool has_piece(int i) const
    {
        return group + 8 * i < RT_MLA_BLOCK_TOKEN / 32;
    }

    /* A vector's q of the group, once a block and in whole lines, through shared memory. */
    __device__ __forceinline__ void find_q(void)
    {
        constexpr uint32_t OF_HEAD = RT_MLA_BLOCK_TOKEN / 8; /* vectors of 16 bytes */
        constexpr uint32_t ALL = S::GROUP * OF_HEAD, STEP = 32 * RT_BLOCK_WORKERS;
        uint4 v[3];
        const unsigned char *from =
            w.p.exchange + w.at.q +
            ((share.vector * S::GROUPS + share.group) * ALL + threadIdx.x) * 16;
        worker::meet(); /* sums have been read */
        rt_block_gather(v, [&](int i) {
            return threadIdx.x + STEP * i < ALL ? from + STEP * 16 * i : nullptr;
        });
        unsigned char *all = (unsigned char *)w.desk.sums;
#pragma unroll
        for (int i = 0; i < 3; i++) {
            const uint32_t at = threadIdx.x + STEP * i;
            if (at < ALL)
                *(uint4 *)(all + at / OF_HEAD * RT_BLOCK_KEY_PITCH + at % OF_HEAD * 16) = v[i];
        }
        worker::meet();
        const unsigned char *mine = all + w.g * RT_BLOCK_KEY_PITCH + 64 * group + 16 * w.t;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            if (!has_piece(i))
                continue;
            q[i][0] = *(const uint4 *)(mine + 512 * i);
            q[i][1] =
                S::GROUP > 8 ? *(const uint4 *)(mine + 512 * i + 8 * RT_BLOCK_KEY_PITCH) : uint4{};
        }
        worker::meet(); /* scores come where q was */
    }

    /* Of the tile at `keys`, this warp's part of k. */
    __device__ __forceinline__ void score(const unsigned char *keys)
    {
        float *to = w.desk.sums + group * RT_BLOCK_SCORE_GROUP + w.g * RT_BLOCK_SCORE_PITCH +
                    tile * RT_BLOCK_TILE + w.t;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float d[4] = {};
#pragma unroll
            for (int i = 0; i < PIECES; i++) {
                if (!has_piece(i))
                    continue;
                const uint4 k =
                    *(const uint4 *)(keys + (8 * half + w.lane_row) * RT_BLOCK_KEY_PITCH +
                                     (group + 8 * i) * 64 + 16 * w.t);
                rt_stream_multiply(d, q[i], k);
            }
            to[8 * half] = d[0];
            to[8 * half + 4] = d[1];
            to[8 * half + 8 * RT_BLOCK_SCORE_PITCH] = d[2];
            to[8 * half + 8 * RT_BLOCK_SCORE_PITCH + 4] = d[3];
        }
    }

    /* Head `warp`, a token a lane. Where every score is -inf no weight is a number's. */
    __device__ __forceinline__ void weigh(uint32_t first, uint32_t tokens)
    {
        const float *from = w.desk.sums + w.warp * RT_BLOCK_SCORE_PITCH + w.lane;
        float s = 0;
#pragma unroll
        for (int i = 0; i < 8; i++)
            s += from[i * RT_BLOCK_SCORE_GROUP];
        s = w.lane < tokens && first + w.lane < share.length ? s * scale_log2 : -INFINITY;
        float now = s;
#pragma unroll
        for (int i = 16; i > 0; i /= 2)
            now = fmaxf(now, __shfl_xor_sync(RT_BLOCK_FULL_WARP, now, i));
        now = fmaxf(now, most);
        const float base = now == -INFINITY ? 0 : now;
        const float alpha = rt_exp2(most - base), weight = rt_exp2(s - base);
        most = now;
        sum = sum * alpha + weight;
        w.desk.q_norm[w.warp * WEIGHT_PITCH + w.lane] = rt_float_bf16(weight);
        if (w.lane == 0)
            w.desk.alpha[w.warp] = alpha;
    }

    __device__ __forceinline__ void add_values(const unsigned char *values, uint32_t step)
    {
        const uint32_t row = w.lane % 16, right = w.lane / 16;
        uint32_t a[4];
        rt_ldmatrix_x4(a, w.desk.q_norm + row * WEIGHT_PITCH + step * RT_BLOCK_TILE + right * 8);
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
            uint32_t b[4];
            rt_ldmatrix_x4_trans(b, values + row * RT_BLOCK_KEY_PITCH +
                                        (32 * w.warp + 16 * pair + 8 * right) * 2);
            rt_mma_bf16_16x8x16(o[2 * pair], a, b[0], b[1]);
            rt_mma_bf16_16x8x16(o[2 * pair + 1], a, b[2], b[3]);
        }
    }

    /* New tokens of a tile are in its stage. */
    __device__ __forceinline__ void await_new(uint32_t at)
    {
        if (share.is_fresh(at))
            rt_mbarrier_wait(&w.desk.appended[share.fresh_of(at)], 0);
    }

    /* Up to two tiles of keys and the stages they are in. */
    struct round {
        uint32_t tiles; /* none: all are behind */
        uint32_t stage[2];
    };

    /* The round that begins with tile `at`. */
    __device__ __forceinline__ round await_round(uint32_t at)
    {
        round r = {share.end > at ? min(share.end - at, 2u) : 0, {0, 0}};
        if (r.tiles == 0)
            return r;
        r.stage[0] = w.await();
        r.stage[1] = r.tiles > 1 ? w.await() : r.stage[0];
        if (S::GENERAL && r.tiles > 1)
            await_new(at);
        await_new(at + r.tiles - 1);
        return r;
    }

    /* What its weights, which all warps have made, take of its values. */
    __device__ __forceinline__ void add_round(const round &r)
    {
        const float low = w.desk.alpha[w.g], high = w.desk.alpha[w.g + 8];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            o[i][0] *= low;
            o[i][1] *= low;
            o[i][2] *= high;
            o[i][3] *= high;
        }
        add_values(w.ring + r.stage[0] * RT_BLOCK_STAGE_BYTES, 0);
        w.release(r.stage[0]);
        if (r.tiles > 1) {
            add_values(w.ring + r.stage[1] * RT_BLOCK_STAGE_BYTES, 1);
            w.release(r.stage[1]);
        }
    }

    /* A round's scores are made beside the values of the one before, so that their products need
     * not wait for each other; the softmax stands alone, between two barriers. */
    __device__ __forceinline__ void run_rounds(void)
    {
        round before = {0, {0, 0}};
#pragma unroll 1
        for (uint32_t at = share.first;; at += 2) {
            const round now = await_round(at);
            if (tile < now.tiles)
                score(w.ring + (tile > 0 ? now.stage[1] : now.stage[0]) * RT_BLOCK_STAGE_BYTES);
            if (before.tiles > 0)
                add_round(before);
            if (now.tiles == 0)
                return;
            worker::meet(); /* scores are there, the weights before have been read */
            weigh(at * RT_BLOCK_TILE, now.tiles * RT_BLOCK_TILE);
            worker::meet();
            before = now;
        }
    }

    static __device__ __forceinline__ float trade(float v)
    {
        return __shfl_xor_sync(RT_BLOCK_FULL_WARP, v, 1);
    }

    static __device__ __forceinline__ void store_four(unsigned char *to, float a, float b, float c,
                                                      float d)
    {
        rt_store_relaxed(to, make_uint2(rt_pack_bf16x2(a, b), rt_pack_bf16x2(c, d)));
    }

    /* Each head's maximum and sum of weights, which are asked for first, and sums that no maximum
     * has been taken out of. */
    __device__ __forceinline__ void store(void)
    {
#pragma unroll
        for (int i = 16; i > 0; i /= 2)
            sum += __shfl_xor_sync(RT_BLOCK_FULL_WARP, sum, i);
        const uint32_t head = share.group * S::GROUP + w.warp,
                       piece = unit - share.group * S::PIECES;
        if (w.lane == 0 && (S::GROUP > 8 || w.warp < S::GROUP))
            rt_store_relaxed(w.p.exchange + w.at.weights + (head * S::PIECES + piece) * 8,
                             make_uint2(__float_as_uint(most), __float_as_uint(sum)));
        /* Neighbours change halves, so that a lane has four columns in a row. */
        const bool is_odd = w.t % 2 > 0;
        unsigned char *to = w.p.exchange + w.at.pieces +
                            ((unit * S::GROUP + w.g) * RT_MLA_BLOCK_LATENT + 32 * w.warp +
                             (is_odd ? 8 + 2 * w.t - 2 : 2 * w.t)) *
                                2;
#pragma unroll
        for (int i = 0; i < 4; i += 2)
#pragma unroll
            for (int e = 0; e < (S::GROUP > 8 ? 4 : 2); e += 2) {
                const float x = trade(is_odd ? o[i][e] : o[i + 1][e]);
                const float y = trade(is_odd ? o[i][e + 1] : o[i + 1][e + 1]);
                unsigned char *there = to + (8 * i + e / 2 * 8 * RT_MLA_BLOCK_LATENT) * 2;
                if (is_odd)
                    store_four(there, x, y, o[i + 1][e], o[i + 1][e + 1]);
                else
                    store_four(there, o[i][e], o[i][e + 1], x, y);
            }
    }

    /* Units without tokens wait for q too, and padding for its latent: who has seen all values
     * knows by that that everyone has read hidden. */
    __device__ __forceinline__ void run(void)
    {
        find_q();
        run_rounds();
        if (share.is_last)
            rt_mbarrier_wait(&w.desk.appended[share.own_fresh()], 0);
        store();
    }
};

#endif
