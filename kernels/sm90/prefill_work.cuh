/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_PREFILL_WORK_CUH
#define RT_KERNELS_SM90_PREFILL_WORK_CUH

/*
 * A worker: 64 queries, which go through the item's blocks of keys from the last to the first.
 *
 *   scores [64][BLOCK]  = q [64][D_QK]  k^T [D_QK][BLOCK]           both from shared memory
 *   out    [64][D_V]   += p [64][BLOCK]  v [BLOCK][D_V]             p from registers
 *
 * The next block's scores and this block's values are asked for together, and the softmax of the
 * former runs beside the latter. The workers ask in turn, so one's softmax runs beside the other's
 * products:
 *
 *   worker 0   ask s(b-1), v(b) │ ········· softmax(b-1) │ ask s(b-2), v(b-1) │ ······ softmax
 *   worker 1   softmax(b)       │ ask s(b-1), v(b) │ ········· softmax(b-1)   │ ask s(b-2) ···
 *
 *   barrier    arrives                          waits      means
 *   TURN + 0   worker 1, its products asked     worker 0   worker 0 may ask
 *   TURN + 1   worker 0, its products asked     worker 1   worker 1 may ask
 *
 * Worker 1 tells once before the first item. A step asks and tells once, and both workers have as
 * many steps of an item, so no barrier is told twice in a phase.
 *
 * A thread holds two query rows, 16 warp + lane / 4 and that + 8, and of every 8 keys or columns
 * two neighbours, 2 (lane % 4) and the next.
 */
#include "kernels/device/prefill_padding.cuh"
#include "kernels/device/prefill_softmax.cuh"
#include "kernels/device/ptx/wgmma.cuh"
#include "kernels/sm90/prefill_desk.cuh"
#include "kernels/sm90/quad_columns.cuh"

template <class SHAPE> struct rt_prefill_worker {
    static constexpr int SCORES = SHAPE::BLOCK / 2, VALUES = SHAPE::D_V / 2; /* of a thread */
    static constexpr int STEPS = SHAPE::BLOCK / 16;                          /* of v's product */
    typedef rt_wgmma<SHAPE::BLOCK> score_product;
    typedef rt_wgmma<SHAPE::D_V> value_product;

    const struct rt_prefill_attend_params &p;
    struct rt_prefill_desk &desk;
    const uint64_t q, k, v; /* operands: this worker's queries; stage 0 */
    const int worker, warp, lane;
    struct rt_prefill_turn k_turn, v_turn; /* of the next to be used */
    uint32_t q_parity;
    struct rt_prefill_softmax<SCORES> softmax;
    float score[SCORES], out[VALUES];
    uint32_t weight[STEPS][4];

    __device__ __forceinline__ rt_prefill_worker(const struct rt_prefill_attend_params &p_,
                                                 const rt_prefill_room<SHAPE> &room, int worker_)
        : p(p_), desk(room.desk),
          q(rt_wgmma_operand(rt_shared_address(room.q + worker_ * 64 * RT_PREFILL_ROW_BYTES), 0)),
          k(rt_wgmma_operand(rt_shared_address(room.k), 0)),
          v(rt_wgmma_operand(rt_shared_address(room.v), SHAPE::TILE_BYTES)), worker(worker_),
          warp((int)(threadIdx.x % RT_PREFILL_WORKER_THREADS / 32)),
          lane((int)(threadIdx.x % 32)), k_turn{0, 0}, v_turn{0, 0}, q_parity(0), softmax(p_.scale)
    {
    }

    __device__ __forceinline__ int my_row(int i) const
    {
        return worker * 64 + warp * 16 + lane / 4 + i * 8;
    }

    /* By a whole warp. */
    static __device__ __forceinline__ void release(uint64_t *barrier)
    {
        if (rt_elected())
            rt_mbarrier_arrive(barrier);
    }

    /* ---- the other worker ---- */

    __device__ __forceinline__ void wait_turn(void) const
    {
        rt_bar_sync(RT_PREFILL_BAR_TURN + (uint32_t)worker, 2 * RT_PREFILL_WORKER_THREADS);
    }

    __device__ __forceinline__ void pass_turn(void) const
    {
        rt_bar_arrive(RT_PREFILL_BAR_TURN + (uint32_t)(worker ^ 1), 2 * RT_PREFILL_WORKER_THREADS);
    }

    /* ---- products ---- */

    __device__ __forceinline__ void ask_scores(void)
    {
        const uint64_t keys = rt_wgmma_further(k, k_turn.stage * SHAPE::K_BYTES);
#pragma unroll
        for (int step = 0; step < SHAPE::QK_STEPS; step++) {
            const uint32_t tile = step / 4, column = step % 4 * 32;
            score_product::template shared<0, 0>(
                score, rt_wgmma_further(q, tile * SHAPE::Q_TILE_BYTES + column),
                rt_wgmma_further(keys, tile * SHAPE::TILE_BYTES + column), step > 0);
        }
        rt_wgmma_commit();
    }

    __device__ __forceinline__ void ask_values(void)
    {
        const uint64_t values = rt_wgmma_further(v, v_turn.stage * SHAPE::V_BYTES);
#pragma unroll
        for (int step = 0; step < STEPS; step++)
            value_product::template registers<1>(out, weight[step],
                                                 rt_wgmma_further(values, step * 2048));
        rt_wgmma_commit();
    }

    template <int PENDING> __device__ __forceinline__ void finish_scores(void)
    {
        rt_wgmma_wait<PENDING>();
        rt_wgmma_settle(score);
        release(&desk.k_empty[k_turn.stage]);
        k_turn.advance();
    }

    __device__ __forceinline__ void finish_values(void)
    {
        rt_wgmma_wait<0>();
        rt_wgmma_settle(out);
        release(&desk.v_empty[v_turn.stage]);
        v_turn.advance();
    }

    /* ---- blocks ---- */

    /* Keys of block `block` that are not seen, or not the row's. */
    __device__ __forceinline__ void mask(const struct rt_prefill_item &item, int block)
    {
        const int before = block * SHAPE::BLOCK + lane % 4 * 2;
        int limit[2];
#pragma unroll
        for (int i = 0; i < 2; i++)
            limit[i] = min(item.limit + (p.causal ? my_row(i) : 0), item.keys) - before;
        softmax.mask(score, limit);
    }

    __device__ __forceinline__ void first_block(const struct rt_prefill_item &item, int block)
    {
        rt_mbarrier_wait(&desk.k_full[k_turn.stage], k_turn.parity);
        rt_wgmma_begin();
        ask_scores();
        finish_scores<0>();
        mask(item, block);
        softmax.raise(score);
        softmax.weigh(score);
        softmax.pack(score, weight);
    }

    /*
     * Weights are there before the values are waited for. ptxas (13.0, seen in the machine code)
     * moves a wait for products in front of all arithmetic that it does not need, but not in front
     * of a store: without this one the exponentials stand behind the values instead of beside them.
     */
    __device__ __forceinline__ void hold(void)
    {
        *(volatile float *)&desk.held[worker][warp * 32 + lane] = softmax.sum[0] + softmax.sum[1];
    }

    /* Values of the block before, which is behind it in the row. */
    template <bool MASKED>
    __device__ __forceinline__ void next_block(const struct rt_prefill_item &item, int block)
    {
        rt_mbarrier_wait(&desk.k_full[k_turn.stage], k_turn.parity);
        rt_mbarrier_wait(&desk.v_full[v_turn.stage], v_turn.parity);
        wait_turn();
        rt_wgmma_begin();
        ask_scores();
        ask_values();
        pass_turn();
        finish_scores<1>();
        if (MASKED)
            mask(item, block);
        softmax.raise(score);
        softmax.weigh(score);
        hold();
        finish_values();
        softmax.pack(score, weight);
        if (softmax.is_raised())
            softmax.rescale(out);
    }

    __device__ __forceinline__ void last_values(void)
    {
        rt_mbarrier_wait(&desk.v_full[v_turn.stage], v_turn.parity);
        rt_wgmma_begin();
        ask_values();
        finish_values();
    }

    /* Blocks in which all queries of this worker see all keys. */
    __device__ __forceinline__ int whole_blocks(const struct rt_prefill_item &item) const
    {
        const int least = item.limit + (p.causal ? worker * 64 : 0);
        return max(min(least, item.keys), 0) / SHAPE::BLOCK;
    }

    __device__ __forceinline__ void attend(const struct rt_prefill_item &item)
    {
        const int last = (item.keys + SHAPE::BLOCK - 1) / SHAPE::BLOCK - 1;
        if (last < 0)
            return;
        rt_mbarrier_wait(&desk.q_full, q_parity);
        q_parity ^= 1;
        first_block(item, last);
        const int whole = whole_blocks(item);
        int block = last - 1;
        for (; block >= whole; block--)
            next_block<true>(item, block);
        for (; block >= 0; block--)
            next_block<false>(item, block);
        release(&desk.q_empty);
        last_values();
    }

    /* ---- the end of an item ---- */

    __device__ __forceinline__ void store_row(const struct rt_prefill_item &item, int i)
    {
        const bool there = my_row(i) < item.queries;
        const uint32_t token = (uint32_t)(item.query + my_row(i));
        const int c = lane % 4;
        uint16_t *to = rt_prefill_at(p.out, token, (uint32_t)item.head) + c * 8;
#pragma unroll
        for (int j = 0; j < SHAPE::D_V / 8; j += 4) {
            uint32_t r[4];
#pragma unroll
            for (int g = 0; g < 4; g++)
                r[g] = rt_pack_bf16x2(softmax.output(out[(j + g) * 4 + i * 2], i),
                                      softmax.output(out[(j + g) * 4 + i * 2 + 1], i));
            rt_quad_columns(r, c);
            if (there)
                *(uint4 *)(to + j * 8) = make_uint4(r[0], r[1], r[2], r[3]);
        }
        if (there && c == 0)
            *rt_prefill_lse_at(p, token, (uint32_t)item.head) = softmax.lse(i, p.lse_base2 != 0);
    }

    __device__ __forceinline__ void run(void)
    {
        rt_prefill_pad(p, threadIdx.x - RT_PREFILL_WORKER_THREADS,
                       RT_PREFILL_WORKERS * RT_PREFILL_WORKER_THREADS);
        if (worker == 1)
            pass_turn();
        for (uint32_t n = 0;; n++) {
            const struct rt_prefill_item item = rt_prefill_take_item(desk, n);
            if (item.queries == 0)
                break;
            softmax.begin();
#pragma unroll
            for (int i = 0; i < VALUES; i++)
                out[i] = 0.0f;
            rt_wgmma_settle(out);
            attend(item);
            softmax.finish(p.sink, (uint32_t)item.head);
            store_row(item, 0);
            store_row(item, 1);
        }
        if (worker == 0)
            wait_turn(); /* what worker 1 has told last */
    }
};

#endif
