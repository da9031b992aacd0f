/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_EVEN_CUH
#define RT_KERNELS_SM90_ATTEND_EVEN_CUH

/*
 * The workers where keys are operand a in registers (kernels/sm90/attend_bytes.cuh), whatever the
 * number of query rows. What a pair takes is their own time then, not memory's or the products', so
 * they take turns in another order than kernels/sm90/attend_narrow.cuh: nobody waits for more than
 * the other's softmax. A short row runs all of this once, from memory: so nothing large is written
 * out twice.
 *
 * Of 64 query rows a thread has no registers for maxima and sums while products run: maxima are
 * read again from the desk, sums are in shared memory behind it.
 */
#include "kernels/sm90/attend_bytes.cuh"
#include "kernels/sm90/attend_softmax.cuh"

template <class SHAPE> struct rt_sm90_even : rt_sm90_softmax<SHAPE, rt_sm90_bytes<SHAPE>> {
    typedef rt_sm90_softmax<SHAPE, rt_sm90_bytes<SHAPE>> base;
    static constexpr int ROWS = base::ROWS, MINE = base::MINE;
    static constexpr bool SPARES = ROWS == 64;
    using base::factor;
    using base::finite_top;
    using base::lane;
    using base::multiply_out;
    using base::my_row;
    using base::out;
    using base::p;
    using base::room;
    using base::score;
    using base::stage_of;
    using base::sum;
    using base::top;
    using base::warp;
    using base::worker;

    bool raised; /* some maximum, by the last own block */

    __device__ __forceinline__ rt_sm90_even(const typename SHAPE::params &all_,
                                            const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_), raised(false)
    {
    }

    __device__ __forceinline__ void begin_segment(void)
    {
        base::begin_segment();
        if (SPARES)
#pragma unroll
            for (int i = 0; i < MINE; i += 4)
                *kept_sums(i) = make_float4(0, 0, 0, 0);
    }

    /* ---- what 64 query rows have no registers for ---- */

    /* Four of this thread's sums. */
    __device__ __forceinline__ float4 *kept_sums(int from) const
    {
        const int thread = worker * (int)RT_SM90_WORKER_THREADS + warp * 32 + lane;
        return (float4 *)room.ahead + from / 4 * 2 * (int)RT_SM90_WORKER_THREADS + thread;
    }

    __device__ __forceinline__ void keep_four(int i) const
    {
        *kept_sums(i) = make_float4(sum[i], sum[i + 1], sum[i + 2], sum[i + 3]);
    }

    __device__ __forceinline__ void take_four(int i)
    {
        const float4 four = *kept_sums(i);
        sum[i] = four.x;
        sum[i + 1] = four.y;
        sum[i + 2] = four.z;
        sum[i + 3] = four.w;
    }

    /* Of two query rows the maximum that a worker's last block has left; none_yet: of no block. */
    __device__ __forceinline__ float2 left_top(int i, int of_worker, bool none_yet) const
    {
        const float2 two = *(const float2 *)&room.desk.top[of_worker][my_row(i)];
        return none_yet ? make_float2(-RT_SM90_INFINITY, -RT_SM90_INFINITY) : two;
    }

    /* What brings sums from the maxima that a worker has left to those of now; and sums of weights,
     * which are. */
    __device__ __forceinline__ void raise_from(int of_worker, bool none_yet)
    {
#pragma unroll
        for (int i = 0; i < MINE; i += 2) {
            const float2 old = left_top(i, of_worker, none_yet);
            factor[i] = rt_exp2(old.x - finite_top(i));
            factor[i + 1] = rt_exp2(old.y - finite_top(i + 1));
        }
#pragma unroll
        for (int i = 0; i < MINE; i += 4) {
            take_four(i);
#pragma unroll
            for (int n = i; n < i + 4; n++)
                sum[n] *= factor[n];
            keep_four(i);
        }
    }

    __device__ __forceinline__ float2 *kept_factors(int i) const
    {
        return (float2 *)&room.desk.raise[worker * 4 + warp][my_row(i)];
    }

    /* In softmax: the maxima of now, from the block's; old ones are the other worker's. What `out`
     * is to be multiplied by is kept for later. */
    __device__ __forceinline__ void raise_tops(const float (&most)[MINE], bool none_yet)
    {
        bool changed = false;
#pragma unroll
        for (int i = 0; i < MINE; i += 2) {
            const float2 old = left_top(i, worker ^ 1, none_yet);
            top[i] = fmaxf(old.x, this->exponent(most[i]));
            top[i + 1] = fmaxf(old.y, this->exponent(most[i + 1]));
            changed |= top[i] != old.x || top[i + 1] != old.y;
        }
        raised = __any_sync(RT_ATTEND_FULL_WARP, changed) != 0;
        if (!raised)
            return;
        raise_from(worker ^ 1, none_yet);
        if (lane < 4)
#pragma unroll
            for (int i = 0; i < MINE; i += 2)
                *kept_factors(i) = make_float2(factor[i], factor[i + 1]);
        __syncwarp();
    }

    /* `out` from the block before to the one whose maxima were raised. */
    __device__ __forceinline__ void rescale_kept(void)
    {
        if (!raised)
            return;
#pragma unroll
        for (int i = 0; i < MINE; i += 2) {
            const float2 two = *kept_factors(i);
            factor[i] = two.x;
            factor[i + 1] = two.y;
        }
        multiply_out();
    }

    /* Behind the other worker's: its maxima are those of now. */
    __device__ __forceinline__ void follow_tops(bool none_yet)
    {
        bool changed = false;
#pragma unroll
        for (int i = 0; i < MINE; i += 2) {
            const float2 old = left_top(i, worker, none_yet), now = left_top(i, worker ^ 1, false);
            changed |= now.x != old.x || now.y != old.y;
            top[i] = now.x;
            top[i + 1] = now.y;
        }
        if (!__any_sync(RT_ATTEND_FULL_WARP, changed))
            return;
        raise_from(worker, none_yet);
        multiply_out();
    }

    /* ---- the order of a pair ---- */

    /* is_first: of the segment's blocks. */
    __device__ __forceinline__ void lead(uint32_t j, int start, bool is_first)
    {
        if constexpr (SPARES) {
            float most[MINE];
            this->mask(j, start);
            this->find_top(most);
            raise_tops(most, is_first);
            this->leave_top();
            this->weigh(
                stage_of(j), [this](int i) { take_four(i); }, [this](int i) { keep_four(i); });
        } else {
            this->softmax(j, start);
        }
        this->tell(RT_SM90_BAR_A + worker);
        this->sync_worker();
    }

    /* Sums up to the block before the last own one become what its maxima make of them. */
    __device__ __forceinline__ void rescale_own(void)
    {
        if constexpr (SPARES)
            rescale_kept();
        else
            this->rescale();
    }

    /* The other worker's block j has its weights: likewise. */
    __device__ __forceinline__ void follow(uint32_t j, bool is_first)
    {
        this->hear(RT_SM90_BAR_A + (worker ^ 1));
        this->wait_for_half(j, worker);
        if constexpr (SPARES) {
            follow_tops(is_first);
        } else {
            this->read_top();
            this->rescale();
        }
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
                follow(j, n == 0 && pair.is_first);
            if (n == 0 && has_own)
                lead(own, pair.key + worker * 64, worker == 0 && pair.is_first);
            if (n == worker)
                rescale_own();
            this->part_keys(j, pair.key + n * 64);
            this->add_values(stage_of(j), out);
            this->settle_out();
            this->release(j);
        }
    }

    /* ---- the end of a segment ---- */

    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment)
    {
        if (SPARES)
#pragma unroll
            for (int i = 0; i < MINE; i += 4)
                take_four(i);
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

    __device__ __forceinline__ void store_partials(const struct rt_sm90_segment &segment) const
    {
        const int rows = this->hq() - this->first_query() - my_row(0);
        float *to =
            this->partial_row(segment, my_row(0)) + worker * (SHAPE::D_V / 2) + this->own_column();
#pragma unroll
        for (int i = 0; i < MINE; i++)
            if (i / 2 * 8 + i % 2 < rows)
#pragma unroll
                for (int piece = 0; piece < SHAPE::HALF_TILES / 2; piece++)
                    *(float4 *)(to + (i / 2 * 8 + i % 2) * SHAPE::D_V + piece * 4) =
                        piece_of(i, piece);
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
