/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_WIDE_CUH
#define RT_KERNELS_SM90_ATTEND_WIDE_CUH

/*
 * Many query rows: 64 of them on the wide side of the products.
 *
 *   scores [64][64 keys]  = q [64][D_QK]  k^T [D_QK][64]
 *   out    [64][D_V / 2] += p [64][64 keys]  v [64][D_V / 2]            a worker's half of D_V
 *
 * The owner of a block multiplies its weights from registers, the other worker from shared memory;
 * where registers are for those who load (SPARES) both do so from shared memory.
 * A thread holds two query rows, 16 warp + lane / 4 and that + 8, and of every 8 keys or columns
 * two neighbours, 2 (lane % 4) and the next.
 *
 * A pair is a relay: both workers add a, then both add b, and what passes between them is a block's
 * weights with the maximum that they are relative to. b's softmax runs beside the values of a.
 *
 *   worker 0   s(a)   │ softmax(a) W A▸ │ v(a), registers                  │ ▸B v(b), shared    │
 *   worker 1     s(b)              │ ▸A │ v(a), shared: softmax(b) B▸      │ v(b), registers    │
 *   free                                                  first keys, a/0, a/1   likewise, b/0, b/1
 *
 *   barrier   arrives                   waits      means
 *   W         worker 0, behind s(a)     worker 0   no product reads a's rope part any more: weights
 *                                                  may go there
 *   A         worker 0, weights stored  worker 1   a's weights and maximum are there; s(a) is over,
 *                                                  and so is s(b) in all warps that wait
 *   B         worker 1, weights stored  worker 0   b's weights and maximum are there; s(b) is over
 *   W again   the owner, where it SPARES, weights stored: its own products may read them
 *   BOTH      both                      both       a segment's sums, at its end
 *
 * None is told twice in a phase: of the next a worker 0 tells behind B, which worker 1 told behind
 * A; and an a alone is its segment's last, before whose BOTH worker 1 has heard. For the same
 * reason a maximum has been read before the next one is left in its place.
 */
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/ptx/opaque.cuh"
#include "kernels/device/ptx/stmatrix.cuh"
#include "kernels/sm90/attend_work.cuh"
#include "kernels/sm90/quad_columns.cuh"

template <class SHAPE> struct rt_sm90_wide : rt_sm90_worker_base<SHAPE> {
    typedef SHAPE shape;
    typedef rt_sm90_worker_base<SHAPE> base;
    static constexpr int COLUMNS = SHAPE::D_V / 2; /* of a worker */
    /* Of a product: of 512 threads none may have more operands in registers than at the launch. */
    static constexpr int PRODUCT = SHAPE::THREADS == 512 && COLUMNS > 128 ? 128 : COLUMNS;
    typedef rt_wgmma<PRODUCT> value_product;
    using base::SPARES;
    /* A new maximum costs every sum a multiplication, in front of products that wait for it, and of
     * 16 query rows a warp has one has a new one often. So it may be higher by so many exponents
     * of 2 before it counts: weights are 2^8 at most, which in bf16 are as exact as below 1. Those
     * in f16 have room for less than one: 2^15 * 2^(15/16) is below 65504. */
    static constexpr float LATE = SHAPE::F16 ? 0.9375f : 8.0f;
    static_assert(SHAPE::TILE_ROWS == 64, "rows of a product");
    using base::all;
    using base::lane;
    using base::p;
    using base::room;
    using base::stage_of;
    using base::warp;
    using base::worker;

    float out[COLUMNS / 2];
    float score[32];
    uint32_t weight[4][4];   /* of 16 keys each, as the product takes them */
    float top[2], factor[2]; /* of this thread's two query rows */
    bool moved;              /* a maximum of the warp's, and sums are to be multiplied by factor */
    float sum[2];            /* over this thread's keys of own blocks */

    __device__ __forceinline__ rt_sm90_wide(const typename SHAPE::params &all_,
                                            const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_)
    {
    }

    __device__ __forceinline__ int my_row(int i) const
    {
        return warp * 16 + lane / 4 + i * 8;
    }

    __device__ __forceinline__ void begin_segment(void)
    {
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; i++)
            out[i] = 0.0f;
        settle_out(); /* zeros in registers, before the first product is asked for */
#pragma unroll
        for (int i = 0; i < 2; i++) {
            top[i] = -RT_SM90_INFINITY;
            sum[i] = 0.0f;
        }
    }

    __device__ __forceinline__ void settle_out(void)
    {
        rt_wgmma_settle(out);
    }

    /* ---- products ---- */

    __device__ __forceinline__ float (&out_from(int column))[PRODUCT / 2]
    {
        return *(float(*)[PRODUCT / 2]) & out[column / 2];
    }

    /* Of sixteen keys. */
    __device__ __forceinline__ uint64_t values_of(uint32_t stage, int column, int step) const
    {
        return rt_wgmma_further(room.values(stage, worker, column / 64),
                                step * 2 * SHAPE::GROUP_BYTES);
    }

    /* Products of a piece's keys are a group, so that they can be waited for. */
    static __device__ __forceinline__ void close_piece(int step)
    {
        if (SHAPE::IN_PIECES && step * 16 == SHAPE::PIECE)
            rt_wgmma_commit();
    }

    __device__ __forceinline__ void add_values(uint32_t stage)
    {
#pragma unroll
        for (int step = 0; step < 4; step++) {
            close_piece(step);
#pragma unroll
            for (int column = 0; column < COLUMNS; column += PRODUCT)
                value_product::template registers<1, SHAPE::TYPE>(out_from(column), weight[step],
                                                                  values_of(stage, column, step));
        }
    }

    __device__ __forceinline__ void add_values_shared(uint32_t stage)
    {
        const uint64_t w = rt_wgmma_operand(rt_shared_address(room.tile(stage, SHAPE::P_TILE)), 0);
#pragma unroll
        for (int step = 0; step < 4; step++) {
            close_piece(step);
#pragma unroll
            for (int column = 0; column < COLUMNS; column += PRODUCT)
                value_product::template shared<0, 1, SHAPE::TYPE>(out_from(column),
                                                                  rt_wgmma_further(w, step * 32),
                                                                  values_of(stage, column, step));
        }
    }

    /* ---- softmax ---- */

    __device__ __forceinline__ void mask(uint32_t j, int start)
    {
        if constexpr (SHAPE::LISTED)
            mask_unlisted(room.desk.listed[stage_of(j)]);
        else if (!this->all_seen(start))
            mask_unseen(start);
    }

    /* `listed`: a bit for each of the block's keys. */
    __device__ __forceinline__ void mask_unlisted(const uint8_t (&listed)[8])
    {
        const uint2 all_keys = *(const uint2 *)listed;
        if ((all_keys.x & all_keys.y) == UINT32_MAX)
            return;
        const uint32_t mine[2] = {all_keys.x >> lane % 4 * 2, all_keys.y >> lane % 4 * 2};
#pragma unroll
        for (int k = 0; k < 32; k++) {
            const int key = k / 4 * 8 + k % 2;
            score[k] = mine[key / 32] >> key % 32 & 1 ? score[k] : -RT_SM90_INFINITY;
        }
    }

    __device__ __forceinline__ void mask_unseen(int start)
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int limit = this->length - room.desk.lag[my_row(i)] - start - lane % 4 * 2;
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *of_key = &score[j * 4 + i * 2 + e];
                    *of_key = j * 8 + e < limit ? *of_key : -RT_SM90_INFINITY;
                }
        }
    }

    /* What exponents are taken against: the maximum, or less by at most LATE. */
    __device__ __forceinline__ float risen(int i, float most) const
    {
        return most > top[i] + LATE ? most : top[i];
    }

    /* Where there is no maximum yet 0 stands for it, so that weights are 2^-inf = 0. */
    __device__ __forceinline__ void raise_top(const float (&to)[2])
    {
        moved = __any_sync(RT_ATTEND_FULL_WARP, to[0] != top[0] || to[1] != top[1]);
        if (!moved)
            return;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            factor[i] = rt_exp2(top[i] - (to[i] == -RT_SM90_INFINITY ? 0.0f : to[i]));
            top[i] = to[i];
            sum[i] *= factor[i];
        }
    }

    __device__ __forceinline__ float score_top(int i) const
    {
        float most = -RT_SM90_INFINITY;
#pragma unroll
        for (int k = 0; k < 16; k++)
            most = fmaxf(most, score[k / 2 * 4 + i * 2 + k % 2]);
        most = fmaxf(most, __shfl_xor_sync(RT_ATTEND_FULL_WARP, most, 1));
        return this->exponent(fmaxf(most, __shfl_xor_sync(RT_ATTEND_FULL_WARP, most, 2)));
    }

    /* A query row's scores become weights; the maximum is left for the other worker. */
    __device__ __forceinline__ void weigh(uint32_t stage, int i)
    {
        const float base_exponent = top[i] == -RT_SM90_INFINITY ? 0.0f : top[i];
        if (lane % 4 == 0)
            room.desk.top[worker][my_row(i)] = top[i];
#pragma unroll
        for (int k = 0; k < 16; k++) {
            float *of_key = &score[k / 2 * 4 + i * 2 + k % 2];
            *of_key = rt_exp2(this->exponent(*of_key) - base_exponent);
            sum[i] += SHAPE::F16 ? *of_key * lowered(stage)[k / 2 * 8 + k % 2] : *of_key;
        }
    }

    /* What makes sums of weights, from this thread's first key on. */
    __device__ __forceinline__ const float *lowered(uint32_t stage) const
    {
        if constexpr (SHAPE::F16)
            return room.desk.lowered[stage] + lane % 4 * 2;
        return nullptr;
    }

    /* In bf16, or as f16 of numbers in units of the key. */
    __device__ __forceinline__ void pack_weights(uint32_t stage)
    {
        if constexpr (SHAPE::F16) {
#pragma unroll
            for (int i = 0; i < 16; i++) {
                const int key = i / 2 * 8;
                const float2 unit = *(const float2 *)&room.desk.unit[stage][lane % 4 * 2 + key];
                const float2 lower = *(const float2 *)&lowered(stage)[key];
                weight[i / 4][i % 4] =
                    rt_pack_f16x2(score[2 * i] * (unit.x * lower.x * RT_SM90_WEIGHT_UNITS),
                                  score[2 * i + 1] * (unit.y * lower.y * RT_SM90_WEIGHT_UNITS));
            }
        } else {
#pragma unroll
            for (int i = 0; i < 16; i++)
                weight[i / 4][i % 4] = rt_pack_bf16x2(score[2 * i], score[2 * i + 1]);
        }
    }

    /* To shared memory, [query row][key]. What a place follows from is found anew, and not kept. */
    __device__ __forceinline__ void store_weights(uint32_t stage) const
    {
        const uint32_t mine = rt_opaque((uint32_t)lane);
        const uint32_t at = (warp * 16 + mine % 16) * 128 + (mine / 16 ^ mine % 8) * 16;
#pragma unroll
        for (int step = 0; step < 4; step++)
            rt_stmatrix_x4(room.tile(stage, SHAPE::P_TILE) + (at ^ (uint32_t)step * 32),
                           weight[step][0], weight[step][1], weight[step][2], weight[step][3]);
    }

    __device__ __forceinline__ void rescale(void)
    {
        if (!moved)
            return;
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; i++)
            out[i] *= factor[i / 2 % 2];
    }

    /* ---- the order of a pair ---- */

    /* The maximum that the other worker's block has left. */
    __device__ __forceinline__ void read_top(void)
    {
        raise_top({room.desk.top[worker ^ 1][my_row(0)], room.desk.top[worker ^ 1][my_row(1)]});
    }

    __device__ __forceinline__ void begin_softmax(uint32_t stage, const float (&most)[2])
    {
        raise_top({risen(0, most[0]), risen(1, most[1])});
        weigh(stage, 0);
    }

    __device__ __forceinline__ void end_softmax(uint32_t stage)
    {
        weigh(stage, 1);
        pack_weights(stage);
    }

    /* For the other worker, once no score reads the rope part of that stage's keys. */
    __device__ __forceinline__ void tell_weights(uint32_t stage) const
    {
        store_weights(stage);
        this->tell(RT_SM90_BAR_A + worker);
        if (SPARES)
            this->sync_worker();
    }

    /* Of an own block, whose scores are done in all warps of this worker. */
    __device__ __forceinline__ void find_own_values(uint32_t j, int start)
    {
        this->part_keys(j, start);
        rescale();
        rt_wgmma_begin();
        if (SPARES)
            add_values_shared(stage_of(j));
        else
            add_values(stage_of(j));
        rt_wgmma_commit();
        finish_piece(j);
        finish_values(j);
    }

    /* From shared memory, of the other's, once it has told. */
    __device__ __forceinline__ void issue_other_values(uint32_t j, int start)
    {
        this->hear(RT_SM90_BAR_A + (worker ^ 1));
        this->wait_for_half(j, worker);
        read_top();
        this->part_keys(j, start);
        rescale();
        rt_wgmma_begin();
        add_values_shared(stage_of(j));
        rt_wgmma_commit();
    }

    /* The first keys' products, while the others' go on. */
    __device__ __forceinline__ void finish_piece(uint32_t j) const
    {
        if (SHAPE::IN_PIECES)
            rt_wgmma_wait<1>();
        this->release_early(j);
    }

    __device__ __forceinline__ void finish_values(uint32_t j)
    {
        rt_wgmma_wait<0>();
        settle_out();
        this->release(j);
    }

    __device__ __forceinline__ void run_pair(const struct rt_sm90_pair &pair)
    {
        if (worker == 0 || pair.has_b) {
            this->find_scores(pair.first + (uint32_t)worker, score);
            mask(pair.first + (uint32_t)worker, pair.key + worker * 64);
        }
        if (pair.is_last)
            this->release_q();
        if (worker == 0)
            first_of_pair(pair);
        else if (pair.has_b)
            second_of_pair(pair);
        else
            second_without_own(pair);
    }

    __device__ __forceinline__ void first_of_pair(const struct rt_sm90_pair &pair)
    {
        const uint32_t a = pair.first, b = a + 1;
        begin_softmax(stage_of(a), {score_top(0), score_top(1)});
        end_softmax(stage_of(a));
        this->sync_worker(); /* no score of another warp reads the weights' place any more */
        tell_weights(stage_of(a));
        find_own_values(a, pair.key);
        if (!pair.has_b)
            return;
        issue_other_values(b, pair.key + 64);
        finish_piece(b);
        finish_values(b);
    }

    /* b's softmax runs beside the values of a; behind A no score of any warp is open. */
    __device__ __forceinline__ void second_of_pair(const struct rt_sm90_pair &pair)
    {
        const uint32_t a = pair.first, b = a + 1;
        const float most[2] = {score_top(0), score_top(1)};
        issue_other_values(a, pair.key);
        begin_softmax(stage_of(b), most);
        finish_piece(a);
        end_softmax(stage_of(b));
        tell_weights(stage_of(b));
        finish_values(a);
        find_own_values(b, pair.key + 64);
    }

    __device__ __forceinline__ void second_without_own(const struct rt_sm90_pair &pair)
    {
        issue_other_values(pair.first, pair.key);
        finish_piece(pair.first);
        finish_values(pair.first);
    }

    /* ---- the end of a segment ---- */

    /* The sums of both workers. */
    __device__ __forceinline__ void total(float (&all)[2])
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sum[i] += __shfl_xor_sync(RT_ATTEND_FULL_WARP, sum[i], 1);
            sum[i] += __shfl_xor_sync(RT_ATTEND_FULL_WARP, sum[i], 2);
            if (lane % 4 == 0)
                room.desk.sum[worker][my_row(i)] = sum[i];
        }
        this->sync_both();
#pragma unroll
        for (int i = 0; i < 2; i++)
            all[i] = room.desk.sum[0][my_row(i)] + room.desk.sum[1][my_row(i)];
        this->sync_both(); /* sums are free again */
    }

    /* Maximum and sum of every query row, for all; and what makes outputs of the sums. */
    __device__ __forceinline__ void leave_state(const struct rt_sm90_segment &segment)
    {
        float all[2];
        total(all);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if (worker == 0 && lane % 4 == 0)
                room.desk.state[my_row(i)] = make_float2(top[i], all[i]);
            factor[i] =
                rt_sm90_inverse(p, segment, first_query() + my_row(i), make_float2(top[i], all[i]));
            if (SHAPE::F16)
                factor[i] *= 1 / RT_SM90_WEIGHT_UNITS;
        }
    }

    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment)
    {
        leave_state(segment);
        if (worker == 0 && lane % 4 == 0)
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (first_query() + my_row(i) < hq())
                    rt_sm90_store_lse(all, room, segment, my_row(i), room.desk.state[my_row(i)]);
        if (segment.slot >= 0)
            store_partial(segment);
        else
            store_out(segment);
        if (this->spoilt)
            spoil_stored(segment);
    }

    static __device__ __forceinline__ int first_query(void)
    {
        return rt_sm90_first_query<SHAPE>();
    }

    __device__ __forceinline__ int hq(void) const
    {
        return (int)(p.rows.q_len * p.heads);
    }

    static __device__ __forceinline__ float scaled(float value, float by)
    {
        return by == 0.0f ? 0.0f : value * by;
    }

    /* As f16; of 32 columns the words of a thread are one behind the other. */
    __device__ __forceinline__ void store_partial(const struct rt_sm90_segment &segment) const
    {
        uint32_t most[2] = {0, 0};
        bool fits = true;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const bool there = first_query() + my_row(i) < hq();
            uint16_t *to = piece_row(segment, i) + lane % 4 * 8;
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j += 4) {
                const uint4 words =
                    make_uint4(halves(j, i, most[i]), halves(j + 1, i, most[i]),
                               halves(j + 2, i, most[i]), halves(j + 3, i, most[i]));
                if (there)
                    *(uint4 *)(to + j * 8) = words;
            }
            fits &= !there || rt_piece_fits(most[i]);
        }
        if (__any_sync(RT_ATTEND_FULL_WARP, !fits))
            store_unfit(segment, most);
    }

    /* This worker's half of a query row of this thread's. */
    __device__ __forceinline__ uint16_t *piece_row(const struct rt_sm90_segment &segment,
                                                   int i) const
    {
        return rt_piece_row(p.partials, segment.slot, hq(), first_query() + my_row(i), SHAPE::D_V) +
               worker * COLUMNS;
    }

    /* Of a group of eight columns. By a factor of 0 they are 0 or NaN, and so do not fit. */
    __device__ __forceinline__ uint32_t halves(int j, int i, uint32_t &most) const
    {
        return rt_piece_halves(out[j * 4 + i * 2] * factor[i], out[j * 4 + i * 2 + 1] * factor[i],
                               most);
    }

    /* Of eight columns a thread's word, from its first on. */
    static __device__ __forceinline__ int word_of(int j)
    {
        return j / 4 * 32 + j % 4 * 2;
    }

    /*
     * Once more, and wide, query rows that have numbers too large for f16 or all too small; then as
     * zeros those of which all are 0, as where no key was seen. Whether they are is read from what
     * was stored: 64 more uses of the sums, and ptxas (13.0) would spill them.
     */
    __device__ __forceinline__ void store_unfit(const struct rt_sm90_segment &segment,
                                                const uint32_t (&most)[2]) const
    {
        const int rest = rt_piece_rest(hq(), SHAPE::D_V);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            /* Opaque, or the products of store_partial would be kept for here. */
            const float by = __uint_as_float(rt_opaque(__float_as_uint(factor[i])));
            uint16_t *to = piece_row(segment, i) + lane % 4 * 8;
            const bool is_wide =
                !rt_piece_fits(rt_piece_most<1, 4>(most[i])) && first_query() + my_row(i) < hq();
            if (is_wide)
#pragma unroll
                for (int j = 0; j < COLUMNS / 8; j++)
                    rt_piece_store_wide(to + word_of(j), rest, scaled(out[j * 4 + i * 2], by),
                                        scaled(out[j * 4 + i * 2 + 1], by));
            uint32_t bits = 0;
#pragma unroll 1
            for (int j = 0; is_wide && j < COLUMNS / 8; j++)
                bits |= rt_piece_bits_of_wide(to + word_of(j), rest);
            const bool is_zero = rt_piece_all<1, 4>(bits) == 0;
#pragma unroll 1
            for (int j = 0; is_wide && is_zero && j < COLUMNS / 8; j++)
                *(uint32_t *)(to + word_of(j)) = 0;
        }
    }

    __device__ __forceinline__ void store_out(const struct rt_sm90_segment &segment) const
    {
        const int64_t row_at = SHAPE::keys::row_at(all, p.out, segment.row);
        const int c = lane % 4;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const bool there = first_query() + my_row(i) < hq();
            uint16_t *to = (uint16_t *)p.out.base + row_at + room.desk.out_at[my_row(i)] +
                           worker * COLUMNS + c * 8;
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j += 4) {
                uint32_t r[4];
#pragma unroll
                for (int g = 0; g < 4; g++)
                    r[g] = rt_pack_bf16x2(scaled(out[(j + g) * 4 + i * 2], factor[i]),
                                          scaled(out[(j + g) * 4 + i * 2 + 1], factor[i]));
                rt_quad_columns(r, c);
                if (there)
                    *(uint4 *)(to + j * 8) = make_uint4(r[0], r[1], r[2], r[3]);
            }
        }
    }

    /* Every fourth column of this thread's query rows, which are NaN instead of what was stored. */
    __device__ __forceinline__ void spoil_stored(const struct rt_sm90_segment &segment) const
    {
        __syncwarp(); /* by other lanes */
#pragma unroll 1
        for (int n = lane % 4; n < 2 * COLUMNS; n += 4) {
            const int i = n / COLUMNS, row = my_row(i), column = n % COLUMNS;
            const float by = i == 0 ? factor[0] : factor[1]; /* 0: nothing to spoil */
            if (by == 0.0f || first_query() + row >= hq() || !this->is_spoilt(row, column))
                continue;
            if (segment.slot >= 0)
                rt_piece_spoil(piece_row(segment, i), rt_piece_rest(hq(), SHAPE::D_V), column);
            else
                ((uint16_t *)p.out.base)[SHAPE::keys::row_at(all, p.out, segment.row) +
                                         room.desk.out_at[row] + worker * COLUMNS + column] =
                    RT_SM90_NAN_BF16;
        }
    }
};

#endif
