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
 * A thread holds, of every 8 query rows, two neighbours: columns 8 j + 2 (lane % 4) and the next;
 * of the 64 keys or columns of a product two: 16 warp + lane / 4 and that + 8.
 */
#include "kernels/device/fold.cuh"
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/ptx/stmatrix.cuh"
#include "kernels/sm90/attend_work.cuh"

template <class SHAPE> struct rt_sm90_narrow : rt_sm90_worker_base<SHAPE> {
    typedef SHAPE shape;
    typedef rt_sm90_worker_base<SHAPE> base;
    static constexpr int ROWS = SHAPE::TILE_ROWS;
    static constexpr int MINE = ROWS / 4; /* query rows that a thread has to do with */
    static constexpr int ROUND_COLUMNS = SHAPE::STAGING_COLUMNS;
    static constexpr int ROUND_TILES = ROUND_COLUMNS / 64;
    static constexpr int STAGING_STRIDE = SHAPE::STAGING_STRIDE;
    typedef rt_wgmma<ROWS> product;
    using base::all;
    using base::lane;
    using base::p;
    using base::room;
    using base::stage_of;
    using base::warp;
    using base::worker;

    float out[SHAPE::HALF_TILES][ROWS / 2];
    float score[ROWS / 2];
    float top[MINE], factor[MINE]; /* maximum so far; what it makes of sums up to now */
    float sum[MINE];               /* over this thread's keys of own blocks */

    __device__ __forceinline__ rt_sm90_narrow(const typename SHAPE::params &all_,
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
        for (int t = 0; t < SHAPE::HALF_TILES; t++)
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
        for (int t = 0; t < SHAPE::HALF_TILES; t++)
            rt_wgmma_settle(out[t]);
    }

    /* ---- products ---- */

    __device__ __forceinline__ void add_values(uint32_t stage)
    {
        const uint64_t pt = rt_wgmma_operand(rt_shared_address(room.tile(stage, SHAPE::P_TILE)), 0);
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

    /* ---- softmax ---- */

    __device__ __forceinline__ void mask(uint32_t j, int start)
    {
        if constexpr (SHAPE::LISTED)
            mask_unlisted(room.desk.listed[stage_of(j)][warp]);
        else if (!this->all_seen(start))
            mask_unseen(start);
    }

    /* `listed`: a bit for each of this warp's 16 keys. */
    __device__ __forceinline__ void mask_unlisted(uint32_t listed)
    {
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            float *of_row = &score[i / 2 * 4 + i % 2];
            of_row[0] = listed >> lane / 4 & 1 ? of_row[0] : -RT_SM90_INFINITY;
            of_row[2] = listed >> (lane / 4 + 8) & 1 ? of_row[2] : -RT_SM90_INFINITY;
        }
    }

    __device__ __forceinline__ void mask_unseen(int start)
    {
        const int key = start + warp * 16 + lane / 4;
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

    /* A new maximum; where there is none yet 0 stands for it, so that weights are 2^-inf = 0. */
    __device__ __forceinline__ void raise_top(int i, float to)
    {
        factor[i] = rt_exp2(top[i] - (to == -RT_SM90_INFINITY ? 0.0f : to));
        top[i] = to;
        sum[i] *= factor[i];
    }

    __device__ __forceinline__ void softmax(uint32_t j, int start)
    {
        float most[MINE];
        mask(j, start);
        find_top(most);
#pragma unroll
        for (int i = 0; i < MINE; i++)
            raise_top(i, fmaxf(top[i], this->exponent(most[i])));
        if (warp == 0 && lane < 4)
#pragma unroll
            for (int i = 0; i < MINE; i += 2)
                *(float2 *)&room.desk.top[worker][my_row(i)] = make_float2(top[i], top[i + 1]);
        weigh(stage_of(j));
    }

    /* Scores become weights, in shared memory as [query row][key]. */
    __device__ __forceinline__ void weigh(uint32_t stage)
    {
        uint32_t packed[ROWS / 4]; /* of 8 query rows: keys lane / 4 and that + 8 */
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const float base = top[i] == -RT_SM90_INFINITY ? 0.0f : top[i];
            float *of_row = &score[i / 2 * 4 + i % 2];
            of_row[0] = rt_exp2(this->exponent(of_row[0]) - base);
            of_row[2] = rt_exp2(this->exponent(of_row[2]) - base);
            sum[i] += lowered(stage, of_row[0], of_row[2]);
        }
        pack_weights(stage, packed);
        unsigned char *to = room.tile(stage, SHAPE::P_TILE) + lane % 8 * 128 +
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
            const float *of_key = &room.desk.lowered[stage][warp * 16 + lane / 4];
            return low * of_key[0] + high * of_key[8];
        }
        return low + high;
    }

    /* In bf16, or as f16 of numbers in units of the key. */
    __device__ __forceinline__ void pack_weights(uint32_t stage, uint32_t (&packed)[ROWS / 4]) const
    {
        if constexpr (SHAPE::F16) {
            const float *unit = &room.desk.unit[stage][warp * 16 + lane / 4];
            const float *lower = &room.desk.lowered[stage][warp * 16 + lane / 4];
            const float by[2] = {unit[0] * lower[0] * RT_SM90_WEIGHT_UNITS,
                                 unit[8] * lower[8] * RT_SM90_WEIGHT_UNITS};
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
        if (!__any_sync(RT_ATTEND_FULL_WARP, changed))
            return;
#pragma unroll
        for (int t = 0; t < SHAPE::HALF_TILES; t++)
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                out[t][i / 2 * 4 + i % 2] *= factor[i];
                out[t][i / 2 * 4 + i % 2 + 2] *= factor[i];
            }
    }

    /* ---- the order of a pair ---- */

    __device__ __forceinline__ void find_values(uint32_t j, int start)
    {
        this->part_keys(j, start);
        rescale();
        rt_wgmma_begin();
        add_values(stage_of(j));
        rt_wgmma_commit();
        rt_wgmma_wait<0>();
        settle_out();
        this->release(j);
    }

    /* The scores of block j are done: its weights, for both workers. */
    __device__ __forceinline__ void lead(uint32_t j, int start)
    {
        softmax(j, start);
        this->tell(RT_SM90_BAR_A + worker);
        this->sync_worker();
        find_values(j, start);
    }

    __device__ __forceinline__ void follow(uint32_t j, int start)
    {
        this->hear(RT_SM90_BAR_A + (worker ^ 1));
        this->wait_for_half(j, worker);
        read_top();
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

    /* Maximum and sum of a query row, all sums in one order. Behind a barrier of both. The maximum
     * is the one that the last block's owner has left, and anything where there was no block. */
    __device__ __forceinline__ float2 state_of(const struct rt_sm90_segment &segment, int row) const
    {
        if (SHAPE::FOLDS && (segment.marks & RT_SM90_SEGMENT_FOLDS))
            return room.desk.state[row]; /* the group's */
        return leaf_state(segment, row);
    }

    __device__ __forceinline__ float2 leaf_state(const struct rt_sm90_segment &segment,
                                                 int row) const
    {
        const int owner = (segment.blocks & 1) ^ 1;
        float all = 0.0f;
#pragma unroll
        for (int w = 0; w < RT_SM90_WORKERS * RT_SM90_WORKER_WARPS; w++)
            all += room.desk.sum[w][row];
        return make_float2(room.desk.top[owner][row], all);
    }

    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment)
    {
        leave_sums();
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

    static __device__ __forceinline__ int first_query(void)
    {
        return rt_sm90_first_query<SHAPE>();
    }

    __device__ __forceinline__ int hq(void) const
    {
        return (int)(p.rows.q_len * p.heads);
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
            const float *staged = room.staging + row * STAGING_STRIDE + lane * 4;
            float4 x[PIECES];
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++)
                x[piece] = *(const float4 *)(staged + piece * 128);
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

    /* Column of a piece's first four of this lane: a round has the same columns of both halves. */
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
        float *to = p.partials.out + rt_sm90_partial_row<SHAPE>(p, segment, row) * SHAPE::D_V;
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++)
            *(float4 *)(to + column_of(piece, round)) = x[piece];
    }

    template <int PIECES>
    __device__ __forceinline__ void store_out(const struct rt_sm90_segment &segment, int row,
                                              int round, const float4 (&x)[PIECES]) const
    {
        uint16_t *to = (uint16_t *)p.out.base + SHAPE::keys::row_at(all, p.out, segment.row) +
                       room.desk.out_at[row];
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++)
            *(uint2 *)(to + column_of(piece, round)) = make_uint2(
                rt_pack_bf16x2(x[piece].x, x[piece].y), rt_pack_bf16x2(x[piece].z, x[piece].w));
    }
};

#endif
