/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_GATHER_CUH
#define RT_KERNELS_SM90_ATTEND_GATHER_CUH

/*
 * The loading warps of the sm_90 kernels of sparse attention: keys lie anywhere, so no box of the
 * copy engine has more than one. All four warps gather, 16 bytes a thread, into the swizzle that
 * the copy engine would have made. Warp w brings keys 16 w .. 16 w + 15 of every block; each walks
 * for itself, so that none waits for another, warp 0 also for the workers.
 *
 *   of a block's 64 keys      lanes         8 lanes a key, 128 bytes at once, 4 keys a pass
 *   entries of a pair         lanes         0-15 those of a, 16-31 those of b
 *
 *   pair i        ask entries(i + 1)   a/0  a/1   follow them through the table   b/0  b/1
 *
 * So an entry and its page are asked for half a pair each before they are needed. What leads
 * nowhere becomes a row of zeros, and its bit of the stage's marks is 0.
 */
#include "kernels/device/counted_plan.cuh"
#include "kernels/device/ptx/cp_async.cuh"
#include "kernels/sm90/attend_lists.cuh"
#include "kernels/sm90/attend_queries.cuh"
#include "kernels/sm90/attend_rows.cuh"

template <class SHAPE> struct rt_sm90_gatherer {
    static constexpr int WARP_KEYS = 64 / SHAPE::LOADING_WARPS, PASSES = WARP_KEYS / 4;
    static constexpr bool MAY_COUNT = SHAPE::TILE_ROWS < 64; /* has registers for its own plan */
    static constexpr int QUERY_WARP = 1;

    const struct rt_attend_params &p;
    const rt_sm90_room<SHAPE> &room;
    const rt_sm90_queries<SHAPE> queries;
    struct rt_sm90_lists lists;
    const int warp, lane;
    uint32_t block;             /* of the whole part, counted over all segments */
    const unsigned char *place; /* of this lane's key of the pair; null: there is none */
    int key;                    /* this lane's, and its entry */
    int32_t entry;

    __device__ __forceinline__ rt_sm90_gatherer(const typename SHAPE::params &all,
                                                const rt_sm90_room<SHAPE> &room_)
        : p(all.sparse.attend), room(room_), queries(all, room_), lists(all.sparse),
          warp((int)(threadIdx.x / 32)), lane((int)(threadIdx.x % 32)), block(0), place(nullptr),
          key(0), entry(-1)
    {
    }

    /* Of the pair's a or b, a key of this warp's. By the whole warp. */
    __device__ __forceinline__ const unsigned char *place_of(int is_b, int key) const
    {
        const uint64_t at = (uint64_t)place;
        const uint32_t low = __shfl_sync(RT_ATTEND_FULL_WARP, (uint32_t)at, is_b * 16 + key);
        const uint32_t high =
            __shfl_sync(RT_ATTEND_FULL_WARP, (uint32_t)(at >> 32), is_b * 16 + key);
        return (const unsigned char *)((uint64_t)high << 32 | low);
    }

    /* Half 1 also brings what is no value, in the tile behind it. */
    template <int HALF> __device__ __forceinline__ void gather_half(uint32_t stage, int is_b) const
    {
        constexpr int FIRST = HALF * SHAPE::HALF_TILES;
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            const int key = pass * 4 + lane / 8, row = warp * WARP_KEYS + key;
            const unsigned char *found = place_of(is_b, key);
            const unsigned char *from = (found ? found : p.kv.base) + FIRST * 128 + lane % 8 * 16;
            unsigned char *to = room.vector(stage, HALF, row, lane % 8);
#pragma unroll
            for (int t = 0; t < SHAPE::HALF_TILES; t++)
                rt_cp_async_16(to + t * RT_WGMMA_GROUP_BYTES, from + t * 128, found != nullptr);
            if (HALF == 1 && SHAPE::TILES > SHAPE::V_TILES)
                rt_cp_async_16(room.rest_vector(stage, row, lane % 8),
                               from + SHAPE::HALF_TILES * 128, found != nullptr);
        }
    }

    template <int HALF>
    __device__ __forceinline__ void bring_half(uint32_t j, int is_b, uint32_t there) const
    {
        const uint32_t stage = j % SHAPE::STAGES, parity = (j / SHAPE::STAGES & 1) ^ 1;
        uint64_t *full = &room.desk.kv_full[stage][HALF];
        rt_mbarrier_wait(&room.desk.kv_empty[stage][HALF], parity);
        gather_half<HALF>(stage, is_b);
        rt_cp_async_arrive(full);
        if (HALF == 0 && rt_elected()) {
            rt_sm90_list<WARP_KEYS>(room.desk.listed[stage], warp, there >> is_b * 16);
            rt_mbarrier_arrive(full);
        }
    }

    __device__ __forceinline__ void bring(uint32_t j, int is_b, uint32_t there) const
    {
        bring_half<0>(j, is_b, there);
        bring_half<1>(j, is_b, there);
    }

    /* Asks for this lane's entry of the segment's first pair. */
    __device__ __forceinline__ void open(int64_t row_base, const struct rt_attend_step &at)
    {
        if (at.row == RT_ATTEND_NONE)
            return;
        key = at.key + lane / 16 * 64 + warp * WARP_KEYS + lane % 16;
        lists.begin(row_base, at);
        if (MAY_COUNT && lists.p.extra.index) /* a guess takes the first list to be full */
            lists.end = min(lists.end, (int)(lists.of_keys + lists.p.extra.topk));
        entry = lists.ask(key);
    }

    /*
     * The first q comes while the first entries do. A later one behind the segment's first block:
     * that one's stage may be free before the segment before is done with q.
     */
    __device__ __forceinline__ void bring_segment(uint32_t n, const struct rt_attend_step &at)
    {
        int blocks = rt_sm90_blocks(at);
        bool has_q = warp != QUERY_WARP;
        if (n == 0 && !has_q) {
            queries.bring(n, at.row);
            has_q = true;
        }
        uint32_t page = lists.follow(key, entry);
        for (; blocks > 0; blocks -= 2) {
            place = lists.place(key, entry, page);
            const uint32_t there = __ballot_sync(RT_ATTEND_FULL_WARP, place != nullptr);
            key += 128;
            entry = lists.ask(key);
            bring(block, 0, there);
            if (!has_q)
                queries.bring(n, at.row);
            has_q = true;
            page = lists.follow(key, entry);
            if (blocks > 1)
                bring(block + 1, 1, there);
            block += blocks > 1 ? 2 : 1;
        }
        if (!has_q)
            queries.bring(n, at.row);
    }

    /*
     * The first segment of a plan that is in no memory. In front of the wait the plan of full lists
     * is made; behind it counts come, and beside them the entries that such a plan begins with.
     * Were lists not full, or rows begin elsewhere, then once more.
     */
    __device__ __forceinline__ struct rt_attend_part plan(struct rt_sm90_rows &rows,
                                                          struct rt_attend_step &at)
    {
        struct rt_counted_plan plan(lists.p.counted, p.schedule, p.rows);
        uint32_t counted = plan.full();
        struct rt_attend_part part;
#pragma unroll 1
        for (bool known = false;; known = true) {
            plan.make(counted);
            part = rows.take(plan);
            at = rows.find(part, part.begin_row);
            if (!known) {
                rt_pdl_wait();
                counted = plan.ask();
            }
            open(part.row_base, at);
            if (known || !plan.differs(counted))
                break;
        }
        if (warp == 0)
            plan.find_splits(&rows.splits, &rows.next_splits);
        return part;
    }

    /* Of the row's blocks those that this block of its cluster has. */
    static __device__ __forceinline__ struct rt_attend_step cut(uint32_t keys)
    {
        const uint32_t rank = rt_cluster_rank(), blocks = (keys + 63) / 64;
        const int first = (int)(rank * blocks / RT_SPARSE_WHOLE_BLOCKS) * 64;
        const int end = (int)((rank + 1) * blocks / RT_SPARSE_WHOLE_BLOCKS) * 64;
        return {(int)blockIdx.y, first, min(end, (int)keys), (int)keys, (int)blockIdx.y};
    }

    /* Of a row that is a cluster's, this block's keys: first as if lists were full, beside counts;
     * and once more where they are not, or rows begin elsewhere. */
    __device__ __forceinline__ struct rt_attend_step cut_row(void)
    {
        const struct rt_counted_view &view = lists.p.counted;
        const uint32_t full = view.keys.topk + view.extra.topk;
        struct rt_attend_step at = cut(full);
        rt_pdl_wait();
        uint32_t counted = rt_counted_length(&view, 0, blockIdx.y);
        const uint32_t row_base = rt_row_base(&p.rows);
        open(0, at);
        if (row_base > 0)
            counted = rt_counted_length(&view, row_base, blockIdx.y);
        if (counted != full || row_base > 0) {
            at = cut(counted);
            open(row_base, at);
        }
        return at;
    }

    __device__ __forceinline__ void run_whole(void)
    {
        const struct rt_sm90_rows unsplit(p);
        const struct rt_attend_part all = {};
        const struct rt_attend_step at = cut_row();
        if (warp == QUERY_WARP) {
            rt_pdl_launch_dependents();
            queries.stamp();
        }
        if (warp == 0) {
            rt_sm90_publish(room.desk, 0, all, at, unsplit);
            rt_sm90_publish(room.desk, 1, all, {RT_ATTEND_NONE, 0, 0, 0, -1}, unsplit);
        }
        bring_segment(0, at);
    }

    __device__ __forceinline__ void run(void)
    {
        if constexpr (SHAPE::WHOLE) {
            run_whole();
            return;
        }
        const bool counts = MAY_COUNT && lists.p.counted.min_blocks > 0;
        struct rt_sm90_rows few(p);
        struct rt_attend_step at;
        struct rt_attend_part part;
        if (counts) {
            part = plan(few, at);
        } else {
            rt_pdl_wait();
            part = few.begin_part();
            at = few.find(part, part.begin_row);
        }
        if (warp == QUERY_WARP) {
            rt_pdl_launch_dependents();
            queries.stamp();
        }
        for (uint32_t n = 0;; n++) {
            if (warp == 0) {
                struct rt_sm90_rows row = few;
                row.look(at.row == RT_ATTEND_NONE ? 0 : at.row);
                rt_sm90_publish(room.desk, n, part, at, row);
            }
            if (at.row == RT_ATTEND_NONE)
                break;
            if (n > 0 || !counts)
                open(part.row_base, at);
            bring_segment(n, at);
            at = few.find(part, at.row + 1);
        }
    }
};

#endif
