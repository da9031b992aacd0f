/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_PREFILL_LOAD_CUH
#define RT_KERNELS_SM90_PREFILL_LOAD_CUH

/*
 * The loading warp: q, k and v of one item behind the other, in the order of use.
 *
 *   k(last)  q  k(last - 1)  v(last)  k(last - 2)  v(last - 1)  ...  k(0)  v(1)  v(0)
 *
 * A block of v that ends behind the item's keys may hold anything there, and 0 times NaN is NaN: it
 * lands at a barrier of the warp's own, which writes zeros over the rest and then tells. Scores of
 * such keys are masked, whatever they are.
 */
#include "kernels/device/ptx/tma.cuh"
#include "kernels/sm90/prefill_desk.cuh"

template <class SHAPE> struct rt_prefill_loader {
    const struct rt_prefill_sm90_params &p;
    const rt_prefill_room<SHAPE> &room;
    struct rt_prefill_desk &desk;
    struct rt_prefill_turn k_turn, v_turn; /* of the next to be loaded */
    uint32_t q_parity, landed_parity;
    const uint64_t once, often; /* policies: of q, of k and v */

    __device__ __forceinline__ rt_prefill_loader(const struct rt_prefill_sm90_params &p_,
                                                 const rt_prefill_room<SHAPE> &room_)
        : p(p_), room(room_), desk(room_.desk), k_turn{0, 1}, v_turn{0, 1}, q_parity(1),
          landed_parity(0), once(rt_tma_evict_first()), often(rt_tma_evict_normal())
    {
    }

    /* Both parts of `rows` vectors. */
    __device__ __forceinline__ void ask(unsigned char *to, const struct rt_tensor_map *map,
                                        const struct rt_tensor_map *rope_map, uint32_t rope_shared,
                                        int rows, int token, int head, uint64_t *barrier,
                                        uint64_t policy) const
    {
        const int tiles = (int)(p.attend.nope_dim / 64);
        rt_tma_load_4(to, map, barrier, 0, token, 0, head, policy);
        if (p.attend.rope_dim > 0)
            rt_tma_load_3(to + tiles * rows * RT_PREFILL_ROW_BYTES, rope_map, barrier, 0, token,
                          rope_shared ? 0 : head, policy);
    }

    __device__ __forceinline__ void load_q(const struct rt_prefill_item &item)
    {
        rt_mbarrier_wait(&desk.q_empty, q_parity);
        q_parity ^= 1;
        if (!rt_elected())
            return;
        rt_mbarrier_arrive_expect(&desk.q_full, SHAPE::Q_BYTES);
        ask(room.q, &p.q_map, &p.q_rope_map, p.q_rope_shared, RT_PREFILL_QUERIES, item.query,
            item.head, &desk.q_full, once);
    }

    __device__ __forceinline__ void load_k(const struct rt_prefill_item &item, int block)
    {
        const uint32_t stage = k_turn.stage;
        rt_mbarrier_wait(&desk.k_empty[stage], k_turn.parity);
        k_turn.advance();
        if (!rt_elected())
            return;
        rt_mbarrier_arrive_expect(&desk.k_full[stage], SHAPE::K_BYTES);
        ask(room.k + stage * SHAPE::K_BYTES, &p.k_map, &p.k_rope_map, p.k_rope_shared, SHAPE::BLOCK,
            item.key + block * SHAPE::BLOCK, item.head, &desk.k_full[stage], often);
    }

    /* To `barrier`; the stage is free. */
    __device__ __forceinline__ void ask_v(const struct rt_prefill_item &item, int block,
                                          uint64_t *barrier) const
    {
        if (!rt_elected())
            return;
        rt_mbarrier_arrive_expect(barrier, SHAPE::V_BYTES);
        rt_tma_load_4(room.v + v_turn.stage * SHAPE::V_BYTES, &p.v_map, barrier, 0,
                      item.key + block * SHAPE::BLOCK, 0, item.head, often);
    }

    __device__ __forceinline__ void load_v(const struct rt_prefill_item &item, int block)
    {
        rt_mbarrier_wait(&desk.v_empty[v_turn.stage], v_turn.parity);
        ask_v(item, block, &desk.v_full[v_turn.stage]);
        v_turn.advance();
    }

    /* Rows of the stage from `count` on. */
    __device__ __forceinline__ void clear_v(int count) const
    {
        unsigned char *stage = room.v + v_turn.stage * SHAPE::V_BYTES;
        for (int tile = 0; tile < SHAPE::V_TILES; tile++)
            for (int at = count * RT_PREFILL_ROW_BYTES + (int)rt_lane() * 16;
                 at < SHAPE::TILE_BYTES; at += (int)RT_WARP_LANES * 16)
                *(uint4 *)(stage + tile * SHAPE::TILE_BYTES + at) = make_uint4(0, 0, 0, 0);
    }

    /* The last block, and the k that is wanted in front of it. */
    __device__ __forceinline__ void load_last(const struct rt_prefill_item &item, int block)
    {
        const int count = item.keys - block * SHAPE::BLOCK;
        const bool partial = count < SHAPE::BLOCK;
        if (partial) {
            rt_mbarrier_wait(&desk.v_empty[v_turn.stage], v_turn.parity);
            ask_v(item, block, &desk.v_landed);
        }
        if (block > 0)
            load_k(item, block - 1);
        if (!partial) {
            load_v(item, block);
            return;
        }
        rt_mbarrier_wait(&desk.v_landed, landed_parity);
        landed_parity ^= 1;
        clear_v(count);
        rt_fence_async();
        __syncwarp(); /* all lanes' zeros are there for products */
        if (rt_elected())
            rt_mbarrier_arrive(&desk.v_full[v_turn.stage]);
        v_turn.advance();
    }

    __device__ __forceinline__ void load(const struct rt_prefill_item &item)
    {
        const int last = (item.keys + SHAPE::BLOCK - 1) / SHAPE::BLOCK - 1;
        if (last < 0)
            return;
        load_k(item, last);
        load_q(item);
        load_last(item, last);
        for (int block = last - 1; block >= 0; block--) {
            if (block > 0)
                load_k(item, block - 1);
            load_v(item, block);
        }
    }

    __device__ __forceinline__ void run(void)
    {
        for (uint32_t n = 0;; n++) {
            const struct rt_prefill_item item = rt_prefill_take_item(desk, n);
            if (item.queries == 0)
                return;
            load(item);
        }
    }
};

#endif
