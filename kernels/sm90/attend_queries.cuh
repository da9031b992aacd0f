/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_QUERIES_CUH
#define RT_KERNELS_SM90_ATTEND_QUERIES_CUH

/* Who brings q: one of the sm_90 attend kernels' loading warps, for each segment. */
#include "kernels/device/attend_walk.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/settle.cuh"
#include "kernels/device/ptx/timer.cuh"
#include "kernels/device/ptx/tma.cuh"
#include "kernels/sm90/attend_desk.cuh"

template <class SHAPE> struct rt_sm90_queries {
    typedef typename SHAPE::keys KEYS;
    /* Query rows of all batch rows, 14 MB of 576 elements, that stay in L2 while keys go through
     * it: the next layer's q is written where this one's was. Of more nothing is won, and they take
     * what keys of another tile are read from. */
    static constexpr uint32_t STAY = 12288;

    const typename SHAPE::params &all;
    const struct rt_attend_params &p;
    const rt_sm90_room<SHAPE> &room;

    __device__ __forceinline__ rt_sm90_queries(const typename SHAPE::params &all_,
                                               const rt_sm90_room<SHAPE> &room_)
        : all(all_), p(KEYS::attend(all_)), room(room_)
    {
    }

    /* 16 bytes of a query row. */
    __device__ __forceinline__ const uint16_t *
    vector_of(const struct rt_heads_view &view, int64_t row_at, int query, int vector) const
    {
        const int heads = (int)p.heads;
        return (const uint16_t *)view.base + row_at + query / heads * view.token_stride +
               query % heads * view.head_stride + vector * 8;
    }

    /* Unevenly spaced query rows, of one tensor or of two: a vector a lane, swizzled by hand. */
    __device__ __forceinline__ void copy(int row) const
    {
        constexpr int VECTORS = SHAPE::D_QK / 8, V_VECTORS = SHAPE::D_V / 8;
        const bool two = VECTORS > V_VECTORS && p.q_rope.base;
        const int first = rt_sm90_first_query<SHAPE>();
        const int rows = min((int)(p.rows.q_len * p.heads) - first, SHAPE::TILE_ROWS);
        const int64_t at = KEYS::row_at(all, p.q, row), rope_at = KEYS::row_at(all, p.q_rope, row);
        for (int i = (int)(threadIdx.x % 32); i < rows * VECTORS; i += 32) {
            const int of_tile = i / VECTORS, vector = i % VECTORS;
            const uint16_t *from =
                two && vector >= V_VECTORS
                    ? vector_of(p.q_rope, rope_at, first + of_tile, vector - V_VECTORS)
                    : vector_of(p.q, at, first + of_tile, vector);
            unsigned char *to = room.q + vector / 8 * SHAPE::Q_TILE_BYTES + of_tile * 128 +
                                (vector % 8 ^ of_tile % 8) * 16;
            *(uint4 *)to = *(const uint4 *)from;
        }
        rt_fence_async();
        __syncwarp();
    }

    /* What can be done before q is there: room for it, and what its barrier expects. Returns the
     * row's number in the maps. `n`: rows brought before. */
    __device__ __forceinline__ int prepare(uint32_t n, int row) const
    {
        rt_mbarrier_wait(&room.desk.q_empty, (n & 1) ^ 1);
        if (all.q_even && rt_elected())
            rt_mbarrier_arrive_expect(&room.desk.q_full, SHAPE::TILES * SHAPE::Q_TILE_BYTES);
        return (int)KEYS::in_map(all, row);
    }

    __device__ __forceinline__ void ask(int row, int in_map) const
    {
        uint64_t *full = &room.desk.q_full;
        if (!all.q_even) {
            copy(row);
            if (rt_elected())
                rt_mbarrier_arrive(full);
        } else if (rt_elect_one()) {
            const bool stays = p.rows.count * p.rows.q_len * p.heads <= STAY;
            const uint64_t policy = stays ? rt_tma_evict_last() : rt_tma_evict_first();
            const int query = rt_sm90_first_query<SHAPE>();
            rt_tma_load_4(room.q, &all.q_map, full, 0, query, 0, in_map, policy);
            if (SHAPE::TILES > SHAPE::V_TILES)
                rt_tma_load_3(room.q + SHAPE::V_TILES * SHAPE::Q_TILE_BYTES, &all.q_rest_map, full,
                              0, query, in_map, policy);
        }
        __syncwarp();
    }

    /* Of that row, once the one before it is done with its own. */
    __device__ __forceinline__ void bring(uint32_t n, int row) const
    {
        ask(row, prepare(n, row));
    }

    __device__ __forceinline__ void stamp(void) const
    {
        if (p.stamp_first && rt_elected() && blockIdx.x == 0 && blockIdx.y == 0)
            *p.stamp_first = rt_globaltimer_ns();
    }

    /* By a warp that does nothing else. The first segment may be known before the kernel in front
     * of this one has ended; from then until q is asked for, all else waits. */
    __device__ __forceinline__ void run(void) const
    {
        uint32_t rows = 0;
        for (uint32_t n = 0;; n++) {
            const struct rt_sm90_segment segment = rt_sm90_take_segment(room.desk, n);
            const bool more = segment.row != RT_ATTEND_NONE;
            const bool wanted = more && (!SHAPE::OWN || (segment.marks & RT_SM90_SEGMENT_Q) != 0);
            const int in_map = wanted ? prepare(rows, segment.row) : 0;
            if (n == 0) {
                rt_settle((uint32_t)in_map | 1u);
                rt_pdl_wait();
            }
            if (wanted)
                ask(segment.row, in_map);
            rows += wanted ? 1 : 0;
            if (n == 0) {
                rt_pdl_launch_dependents(); /* in front of q it would cost what all wait for */
                stamp();
            }
            if (!more)
                break;
        }
    }
};

#endif
