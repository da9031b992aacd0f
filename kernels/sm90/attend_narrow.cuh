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
#include "kernels/device/ptx/bulk_store.cuh"
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/ptx/stmatrix.cuh"
#include "kernels/sm90/attend_work.cuh"

template <class SHAPE> struct rt_sm90_narrow : rt_sm90_worker_base<SHAPE> {
    typedef SHAPE shape;
    typedef rt_sm90_worker_base<SHAPE> base;
    static constexpr int ROWS = SHAPE::TILE_ROWS;
    static constexpr int MINE = ROWS / 4;              /* query rows that a thread has to do with */
    static constexpr int TEAM_STRIDE = SHAPE::D_V + 4; /* floats; other banks for other rows */
    typedef rt_wgmma<ROWS> product;
    using base::lane;
    using base::p;
    using base::room;
    using base::scale;
    using base::stage_of;
    using base::warp;
    using base::worker;

    float out[SHAPE::HALF_TILES][ROWS / 2];
    float score[ROWS / 2];
    float top[MINE], factor[MINE]; /* maximum so far; what it makes of sums up to now */
    float sum[MINE];               /* over this thread's keys of own blocks */

    __device__ __forceinline__ rt_sm90_narrow(const struct rt_mla_attend_params &p_,
                                              const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(p_, room_, worker_)
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

    __device__ __forceinline__ void settle_scores(void)
    {
        rt_wgmma_settle(score);
    }

    /* ---- products ---- */

    __device__ __forceinline__ void score_tile(uint32_t stage, int tile, int steps, int keep)
    {
        const uint64_t k = rt_wgmma_operand(rt_shared_address(room.tile(stage, tile)), 0);
        const uint64_t q =
            rt_wgmma_operand(rt_shared_address(room.q + tile * SHAPE::Q_TILE_BYTES), 0);
#pragma unroll
        for (int step = 0; step < steps; step++)
            product::template shared<0, 0>(score, rt_wgmma_further(k, step * 32),
                                           rt_wgmma_further(q, step * 32), keep || step > 0);
    }

    /* Rolled up: code that runs once is slow to come, and most of a short row's time. */
    __device__ __forceinline__ void score_tiles(uint32_t stage, int from, int keep)
    {
#pragma unroll 1
        for (int t = 0; t < SHAPE::HALF_TILES; t++) {
            rt_wgmma_begin();
            score_tile(stage, from + t, 4, keep + t);
        }
    }

    __device__ __forceinline__ void score_rest(uint32_t stage)
    {
        if (SHAPE::TILES > SHAPE::V_TILES)
            score_tile(stage, SHAPE::TILES - 1, SHAPE::LAST_STEPS, 1);
    }

    __device__ __forceinline__ void add_values(uint32_t stage)
    {
        const uint64_t pt = rt_wgmma_operand(rt_shared_address(room.tile(stage, SHAPE::P_TILE)), 0);
#pragma unroll
        for (int t = 0; t < SHAPE::HALF_TILES; t++) {
            const uint64_t v = rt_wgmma_operand(
                rt_shared_address(room.tile(stage, worker * SHAPE::HALF_TILES + t)), 0);
#pragma unroll
            for (int step = 0; step < 4; step++)
                product::template shared<1, 0>(out[t], rt_wgmma_further(v, step * 2048),
                                               rt_wgmma_further(pt, step * 32));
        }
    }

    /* ---- softmax ---- */

    __device__ __forceinline__ void mask(int start)
    {
        if (this->all_seen(start))
            return;
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
        mask(start);
        find_top(most);
#pragma unroll
        for (int i = 0; i < MINE; i++)
            raise_top(i, fmaxf(top[i], most[i] * scale));
        if (warp == 0 && lane < 4)
#pragma unroll
            for (int i = 0; i < MINE; i += 2)
                *(float2 *)&room.desk.top[j & 1][my_row(i)] = make_float2(top[i], top[i + 1]);
        weigh(stage_of(j));
    }

    /* Scores become weights, in bf16 in shared memory as [query row][key]. */
    __device__ __forceinline__ void weigh(uint32_t stage)
    {
        uint32_t packed[ROWS / 4]; /* of 8 query rows: keys lane / 4 and that + 8 */
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const float base = top[i] == -RT_SM90_INFINITY ? 0.0f : top[i];
            float *of_row = &score[i / 2 * 4 + i % 2];
            of_row[0] = rt_exp2(fmaf(of_row[0], scale, -base));
            of_row[2] = rt_exp2(fmaf(of_row[2], scale, -base));
            sum[i] += of_row[0] + of_row[2];
        }
#pragma unroll
        for (int i = 0; i < ROWS / 4; i++)
            packed[i] = rt_pack_bf16x2(score[2 * i], score[2 * i + 1]);
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

    /* The half that the owner is done with first was brought first. */
    __device__ __forceinline__ void issue_scores(uint32_t j)
    {
        const uint32_t stage = stage_of(j);
        this->wait_for_half(j, worker);
        score_tiles(stage, worker * SHAPE::HALF_TILES, 0);
        this->wait_for_half(j, worker ^ 1);
        score_tiles(stage, (worker ^ 1) * SHAPE::HALF_TILES, 1);
        score_rest(stage);
        rt_wgmma_commit();
    }

    __device__ __forceinline__ void issue_values(uint32_t j, int start)
    {
        this->clear_tail(j, start);
        rescale();
        rt_wgmma_begin();
        add_values(stage_of(j));
        rt_wgmma_commit();
    }

    __device__ __forceinline__ void finish_values(uint32_t j)
    {
        rt_wgmma_wait<0>();
        settle_out();
        this->release(j);
    }

    /* The scores of block j are done: its weights, for both workers. */
    __device__ __forceinline__ void lead(uint32_t j, int start, bool last, uint32_t barrier)
    {
        settle_scores();
        if (last)
            this->release_q();
        softmax(j, start);
        this->tell(barrier);
        this->sync_worker();
    }

    /*
     * worker 0   s(a) | v(a) v(b)            worker 1   s(b)  v(a) | v(b)       first pair
     *            s(a) | v(a) v(b)                       v(a)  s(b) | v(b)       the others
     */
    __device__ __forceinline__ void first_of_pair(const struct rt_sm90_pair &pair)
    {
        const uint32_t a = pair.first, b = a + 1;
        issue_scores(a);
        rt_wgmma_wait<0>();
        lead(a, pair.key, pair.is_last, RT_SM90_BAR_A);
        issue_values(a, pair.key);
        finish_values(a);
        if (!pair.has_b)
            return;
        this->hear(RT_SM90_BAR_B);
        this->wait_for_half(b, worker);
        read_top();
        issue_values(b, pair.key + 64);
        finish_values(b);
    }

    __device__ __forceinline__ void follow(const struct rt_sm90_pair &pair)
    {
        this->hear(RT_SM90_BAR_A);
        this->wait_for_half(pair.first, worker);
        read_top();
        issue_values(pair.first, pair.key);
    }

    __device__ __forceinline__ void second_of_pair(const struct rt_sm90_pair &pair)
    {
        const uint32_t a = pair.first, b = a + 1;
        if (!pair.has_b) {
            this->release_q();
            follow(pair);
            finish_values(a);
            return;
        }
        if (pair.is_first) { /* both blocks were asked for at once */
            issue_scores(b);
            rt_wgmma_wait<0>();
        }
        follow(pair);
        finish_values(a);
        if (!pair.is_first) { /* b may still be on its way, and a's stage is wanted */
            issue_scores(b);
            rt_wgmma_wait<0>();
        }
        lead(b, pair.key + 64, pair.is_last, RT_SM90_BAR_B);
        issue_values(b, pair.key + 64);
        finish_values(b);
    }

    /* ---- the end of a segment ---- */

    /* All sums of a query row, in one order. */
    __device__ __forceinline__ void total(float (&all)[MINE])
    {
#pragma unroll
        for (int i = 0; i < MINE; i++) {
#pragma unroll
            for (int distance = 4; distance < 32; distance *= 2)
                sum[i] += __shfl_xor_sync(RT_ATTEND_FULL_WARP, sum[i], distance);
            all[i] = 0.0f;
        }
        auto &sums = room.desk.sum;
        if (lane < 4)
#pragma unroll
            for (int i = 0; i < MINE; i += 2)
                *(float2 *)&sums[worker * 4 + warp][my_row(i)] = make_float2(sum[i], sum[i + 1]);
        this->sync_both();
#pragma unroll
        for (int i = 0; i < MINE; i += 2)
#pragma unroll
            for (int w = 0; w < RT_SM90_WORKERS * RT_SM90_WORKER_WARPS; w++) {
                const float2 part = *(const float2 *)&sums[w][my_row(i)];
                all[i] += part.x;
                all[i + 1] += part.y;
            }
        this->sync_both(); /* sums are free again */
    }

    /* Maximum and sum of every query row, for all; and what makes outputs of the sums. */
    __device__ __forceinline__ void leave_state(void)
    {
        float all[MINE];
        total(all);
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            if (worker == 0 && warp == 0 && lane < 4)
                room.desk.state[my_row(i)] = make_float2(top[i], all[i]);
            factor[i] = all[i] == 0.0f ? 0.0f : rt_reciprocal(all[i]); /* 0: no key seen */
        }
    }

    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment)
    {
        leave_state();
        if (worker == 0) {
            this->sync_worker();
            rt_sm90_store_lse(p, room, segment);
        }
        if (segment.slot >= 0)
            store_partial(segment);
        else
            store_out(segment);
    }

    /* For the team: the output, in the units of the maximum. */
    __device__ __forceinline__ void leave_out(float *to) const
    {
        to += worker * (SHAPE::D_V / 2) + warp * 16 + lane / 4;
#pragma unroll
        for (int t = 0; t < SHAPE::HALF_TILES; t++)
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                float *at = to + my_row(i) * TEAM_STRIDE + t * 64;
                at[0] = out[t][i / 2 * 4 + i % 2];
                at[8] = out[t][i / 2 * 4 + i % 2 + 2];
            }
    }

    static __device__ __forceinline__ int first_query(void)
    {
        return rt_sm90_first_query<SHAPE>();
    }

    __device__ __forceinline__ int hq(void) const
    {
        return (int)(p.q_len * p.heads);
    }

    static __device__ __forceinline__ float scaled(float value, float by)
    {
        return by == 0.0f ? 0.0f : value * by;
    }

    /* Through shared memory, so that a query row leaves as a whole. */
    __device__ __forceinline__ void store_partial(const struct rt_sm90_segment &segment) const
    {
        constexpr int COLUMNS = RT_ATTEND_SM90_STAGING_COLUMNS(ROWS, SHAPE::D_V);
        constexpr int STRIDE = RT_ATTEND_SM90_STAGING_STRIDE(ROWS, SHAPE::D_V);
        constexpr int TILES = COLUMNS / 64; /* of a round */
        const int query = first_query() + lane;
        float *staging = room.staging + worker * ROWS * STRIDE;
        float *to = p.partial_out + ((int64_t)segment.slot * hq() + query) * SHAPE::D_V +
                    worker * (SHAPE::D_V / 2);
#pragma unroll
        for (int round = 0; round < SHAPE::HALF_TILES / TILES; round++) {
            if (warp == 0)
                rt_bulk_store_wait_read(); /* of the round before */
            this->sync_worker();
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < MINE; i++) {
                    float *at = staging + my_row(i) * STRIDE + t * 64 + warp * 16 + lane / 4;
                    const float *from = &out[round * TILES + t][i / 2 * 4 + i % 2];
                    at[0] = scaled(from[0], factor[i]);
                    at[8] = scaled(from[2], factor[i]);
                }
            rt_fence_async();
            this->sync_worker();
            if (warp == 0 && lane < ROWS && query < hq())
                rt_bulk_store(to + round * COLUMNS, staging + lane * STRIDE, COLUMNS * 4);
            if (warp == 0)
                rt_bulk_store_commit();
        }
    }

    /* Before the block ends. */
    __device__ __forceinline__ void drain(void) const
    {
        if (SHAPE::TEAM == 1 && warp == 0)
            rt_bulk_store_wait();
    }

    /* An 8x8 matrix at a time, transposed between lanes: a lane then has two columns of a row. */
    __device__ __forceinline__ void store_out(const struct rt_sm90_segment &segment) const
    {
        const int64_t data_row = (p.ctrl ? (int64_t)p.ctrl->row_base : 0) + segment.row;
#pragma unroll
        for (int j = 0; j < ROWS / 8; j++) {
            const int row = j * 8 + lane / 4;
            const bool there = first_query() + row < hq();
            uint16_t *to = p.out + data_row * p.out_row_stride + room.desk.out_at[row] +
                           worker * (SHAPE::D_V / 2) + warp * 16 + lane % 4 * 2;
#pragma unroll
            for (int t = 0; t < SHAPE::HALF_TILES; t++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const float *pair = &out[t][j * 4 + half * 2];
                    const uint32_t packed = rt_movmatrix_trans(rt_pack_bf16x2(
                        scaled(pair[0], factor[2 * j]), scaled(pair[1], factor[2 * j + 1])));
                    if (there)
                        *(uint32_t *)(to + t * 64 + half * 8) = packed;
                }
        }
    }
};

#endif
