/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_SOFTMAX_CUH
#define RT_KERNELS_SM90_ATTEND_SOFTMAX_CUH

/*
 * Softmax and sums where keys are on the wide side of the products, query rows on the narrow one:
 * what a thread of a worker has of them.
 *
 * A thread holds, of every 8 query rows, two neighbours: columns 8 j + 2 (lane % 4) and the next;
 * of a block's 64 keys two, `own_key` and that + 8. BASE has those, and scores: worker_base or what
 * takes keys otherwise.
 */
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/ptx/stmatrix.cuh"
#include "kernels/sm90/attend_work.cuh"

template <class SHAPE, class BASE> struct rt_sm90_softmax : BASE {
    typedef SHAPE shape;
    typedef BASE base;
    static constexpr int ROWS = SHAPE::TILE_ROWS;
    static constexpr int MINE = ROWS / 4; /* query rows that a thread has to do with */
    using base::all;
    using base::lane;
    using base::p;
    using base::room;
    using base::stage_of;
    using base::warp;
    using base::worker;

    float out[SHAPE::OUT_TILES][ROWS / 2];
    float score[ROWS / 2];
    float top[MINE], factor[MINE]; /* maximum so far; what it makes of sums up to now */
    float sum[MINE];               /* over this thread's keys of own blocks */

    __device__ __forceinline__ rt_sm90_softmax(const typename SHAPE::params &all_,
                                               const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_)
    {
    }

    /* Query row of the tile that is number i of this thread. */
    __device__ __forceinline__ int my_row(int i) const
    {
        return i / 2 * 8 + lane % 4 * 2 + i % 2;
    }

    __device__ __forceinline__ void begin_segment(void)
    {
#pragma unroll
        for (int t = 0; t < SHAPE::OUT_TILES; t++)
#pragma unroll
            for (int i = 0; i < ROWS / 2; i++)
                out[t][i] = 0.0f;
        settle_out(); /* zeros in registers, before the first product is asked for */
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            top[i] = -RT_SM90_INFINITY;
            sum[i] = 0.0f;
        }
    }

    __device__ __forceinline__ void settle_out(void)
    {
#pragma unroll
        for (int t = 0; t < SHAPE::OUT_TILES; t++)
            rt_wgmma_settle(out[t]);
    }

    __device__ __forceinline__ void mask(uint32_t j, int start)
    {
        if constexpr (SHAPE::LISTED)
            mask_unlisted(*(const uint16_t *)&room.desk.listed[stage_of(j)][2 * warp]);
        else if (!this->all_seen(start))
            mask_unseen(start);
    }

    /* `listed`: a bit for each of this warp's 16 keys. */
    __device__ __forceinline__ void mask_unlisted(uint32_t listed)
    {
        const int key = this->own_key() % 16;
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            float *of_row = &score[i / 2 * 4 + i % 2];
            of_row[0] = listed >> key & 1 ? of_row[0] : -RT_SM90_INFINITY;
            of_row[2] = listed >> (key + 8) & 1 ? of_row[2] : -RT_SM90_INFINITY;
        }
    }

    __device__ __forceinline__ void mask_unseen(int start)
    {
        const int key = start + this->own_key();
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const int limit = this->length - room.desk.lag[my_row(i)];
            float *of_row = &score[i / 2 * 4 + i % 2];
            of_row[0] = key < limit ? of_row[0] : -RT_SM90_INFINITY;
            of_row[2] = key + 8 < limit ? of_row[2] : -RT_SM90_INFINITY;
        }
    }

    /* The block's maximum, into all threads that have to do with the query row. */
    __device__ __forceinline__ void find_top(float (&most)[MINE])
    {
#pragma unroll
        for (int i = 0; i < MINE; i++)
            most[i] = fmaxf(score[i / 2 * 4 + i % 2], score[i / 2 * 4 + i % 2 + 2]);
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2)
#pragma unroll
            for (int i = 0; i < MINE; i++)
                most[i] = fmaxf(most[i], __shfl_xor_sync(RT_ATTEND_FULL_WARP, most[i], distance));
        auto &warp_top = room.desk.warp_top;
        if (lane < 4)
#pragma unroll
            for (int i = 0; i < MINE; i += 2)
                *(float2 *)&warp_top[worker * 4 + warp][my_row(i)] =
                    make_float2(most[i], most[i + 1]);
        this->sync_worker();
#pragma unroll
        for (int i = 0; i < MINE; i += 2)
#pragma unroll
            for (int w = 0; w < RT_SM90_WORKER_WARPS; w++) {
                const float2 other = *(const float2 *)&warp_top[worker * 4 + w][my_row(i)];
                most[i] = fmaxf(most[i], other.x);
                most[i + 1] = fmaxf(most[i + 1], other.y);
            }
    }

    /* Where there is no maximum yet 0 stands for it, so that weights are 2^-inf = 0. */
    __device__ __forceinline__ float finite_top(int i) const
    {
        return top[i] == -RT_SM90_INFINITY ? 0.0f : top[i];
    }

    __device__ __forceinline__ void raise_top(int i, float to)
    {
        const float old = top[i];
        top[i] = to;
        factor[i] = rt_exp2(old - finite_top(i));
        sum[i] *= factor[i];
    }

    /* ---- a block ---- */

    /* Raises maxima, and leaves those up to this block. */
    __device__ __forceinline__ void softmax(uint32_t j, int start)
    {
        float most[MINE];
        mask(j, start);
        find_top(most);
#pragma unroll
        for (int i = 0; i < MINE; i++)
            raise_top(i, fmaxf(top[i], this->exponent(most[i])));
        leave_top();
        weigh(stage_of(j));
    }

    __device__ __forceinline__ void leave_top(void) const
    {
        if (warp == 0 && lane < 4)
#pragma unroll
            for (int i = 0; i < MINE; i += 2)
                *(float2 *)&room.desk.top[worker][my_row(i)] = make_float2(top[i], top[i + 1]);
    }

    /* Scores become weights, in shared memory as [query row][key]. */
    __device__ __forceinline__ void weigh(uint32_t stage)
    {
        uint32_t packed[ROWS / 4]; /* of 8 query rows: keys lane / 4 and that + 8 */
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const float base = finite_top(i);
            float *of_row = &score[i / 2 * 4 + i % 2];
            of_row[0] = rt_exp2(this->exponent(of_row[0]) - base);
            of_row[2] = rt_exp2(this->exponent(of_row[2]) - base);
            sum[i] += lowered(stage, of_row[0], of_row[2]);
        }
        pack_weights(stage, packed);
        unsigned char *to = room.weights(stage) + lane % 8 * 128 +
                            ((warp * 2 + lane / 8 % 2) ^ lane % 8) * 16 + lane / 16 * 1024;
        if (ROWS == 8)
            rt_stmatrix_x2_trans(to, packed[0], packed[1]);
        else
#pragma unroll
            for (int i = 0; i + 3 < ROWS / 4; i += 4)
                rt_stmatrix_x4_trans(to + i / 2 * 1024, packed[i], packed[i + 1], packed[i + 2],
                                     packed[i + 3]);
    }

    /* What two keys add to a sum. */
    __device__ __forceinline__ float lowered(uint32_t stage, float low, float high) const
    {
        if constexpr (SHAPE::F16) {
            const float *of_key = &room.desk.lowered[stage][this->own_key()];
            return low * of_key[0] + high * of_key[8];
        }
        return low + high;
    }

    /* Of this thread's keys, what a weight of numbers in units of the key is. */
    __device__ __forceinline__ void weights_of(uint32_t stage, float (&by)[2]) const
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int key = this->own_key() + i * 8;
            if constexpr (SHAPE::BYTES)
                by[i] = room.desk.weight[stage][key];
            else
                by[i] = room.desk.unit[stage][key] * room.desk.lowered[stage][key] *
                        RT_SM90_WEIGHT_UNITS;
        }
    }

    /* In bf16, or as f16 of numbers in units of the key. */
    __device__ __forceinline__ void pack_weights(uint32_t stage, uint32_t (&packed)[ROWS / 4]) const
    {
        if constexpr (SHAPE::F16) {
            float by[2];
            weights_of(stage, by);
#pragma unroll
            for (int i = 0; i < ROWS / 4; i++)
                packed[i] = rt_pack_f16x2(score[2 * i] * by[i % 2], score[2 * i + 1] * by[i % 2]);
        } else {
#pragma unroll
            for (int i = 0; i < ROWS / 4; i++)
                packed[i] = rt_pack_bf16x2(score[2 * i], score[2 * i + 1]);
        }
    }

    /* The maximum that the other worker's block has left. */
    __device__ __forceinline__ void read_top(void)
    {
#pragma unroll
        for (int i = 0; i < MINE; i += 2) {
            const float2 to = *(const float2 *)&room.desk.top[worker ^ 1][my_row(i)];
            raise_top(i, to.x);
            raise_top(i + 1, to.y);
        }
    }

    /* Most blocks leave every maximum where it was. */
    __device__ __forceinline__ void rescale(void)
    {
        bool changed = false;
#pragma unroll
        for (int i = 0; i < MINE; i++)
            changed |= factor[i] != 1.0f;
        if (__any_sync(RT_ATTEND_FULL_WARP, changed))
            multiply_out();
    }

    __device__ __forceinline__ void multiply_out(void)
    {
#pragma unroll
        for (int t = 0; t < SHAPE::OUT_TILES; t++)
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                out[t][i / 2 * 4 + i % 2] *= factor[i];
                out[t][i / 2 * 4 + i % 2 + 2] *= factor[i];
            }
    }

    /* ---- the end of a segment ---- */

    /* This warp's sums, for all. */
    __device__ __forceinline__ void leave_sums(void)
    {
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2)
#pragma unroll
            for (int i = 0; i < MINE; i++)
                sum[i] += __shfl_xor_sync(RT_ATTEND_FULL_WARP, sum[i], distance);
        if (lane < 4)
#pragma unroll
            for (int i = 0; i < MINE; i += 2)
                *(float2 *)&room.desk.sum[worker * 4 + warp][my_row(i)] =
                    make_float2(sum[i], sum[i + 1]);
    }

    static __device__ __forceinline__ int first_query(void)
    {
        return rt_sm90_first_query<SHAPE>();
    }

    __device__ __forceinline__ int hq(void) const
    {
        return (int)(p.rows.q_len * p.heads);
    }

    /* A piece's halves of a query row, and how far behind them its rests are. */
    __device__ __forceinline__ uint16_t *piece_row(const struct rt_sm90_segment &segment,
                                                   int row) const
    {
        return rt_piece_row(p.partials, segment.slot, hq(), first_query() + row, SHAPE::D_V);
    }

    __device__ __forceinline__ int piece_rest(void) const
    {
        return rt_piece_rest(hq(), SHAPE::D_V);
    }

    __device__ __forceinline__ uint16_t *out_row(const struct rt_sm90_segment &segment,
                                                 int row) const
    {
        return (uint16_t *)p.out.base + SHAPE::keys::row_at(all, p.out, segment.row) +
               room.desk.out_at[row];
    }

    static __device__ __forceinline__ uint2 packed(const float4 &x)
    {
        return make_uint2(rt_pack_bf16x2(x.x, x.y), rt_pack_bf16x2(x.z, x.w));
    }
};

#endif
