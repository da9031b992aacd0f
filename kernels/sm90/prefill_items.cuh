/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_PREFILL_ITEMS_CUH
#define RT_KERNELS_SM90_PREFILL_ITEMS_CUH

/*
 * What a block works on next. Items are numbered: groups of heads, whose keys and values L2 can
 * hold, one after the other; in a group the rows by falling number of keys; of a row the tiles of
 * 128 queries, the last and longest first; and of a tile the heads of the group.
 *
 * The first item of a block is its own number. Further ones go to whoever asks first, by a counter
 * in memory: what is left at the end is short, so all blocks end together. Each block asks once
 * in vain, and who asks last of all puts the counter back to 0.
 */
#include "kernels/sm90/prefill_desk.cuh"

/* ---- the rows' order, by the whole block, once ---- */

static __device__ __forceinline__ uint32_t rt_prefill_tiles(const struct rt_prefill_row &row)
{
    return rt_ceil_div_u32(row.queries, RT_PREFILL_SM90_QUERIES);
}

/* Place in the order: as many rows are heavier, or as heavy and in front of it. */
static __device__ __forceinline__ uint32_t rt_prefill_rank(const struct rt_prefill_desk &desk,
                                                           uint32_t rows, uint32_t r)
{
    const uint32_t mine = desk.weight[r];
    uint32_t rank = 0;
    for (uint32_t i = 0; i < rows; i++)
        rank += desk.weight[i] > mine || (desk.weight[i] == mine && i < r);
    return rank;
}

/* By one warp. */
static __device__ __forceinline__ void
rt_prefill_count_tiles(const struct rt_prefill_attend_params &p, struct rt_prefill_desk &desk)
{
    uint32_t all = 0;
    for (uint32_t first = 0; first < p.rows; first += RT_WARP_LANES) {
        const uint32_t place = first + rt_lane();
        const bool there = place < p.rows;
        const uint32_t tiles = there ? rt_prefill_tiles(rt_prefill_row(&p, desk.order[place])) : 0;
        const uint32_t up_to = rt_warp_inclusive_sum(tiles);
        if (there)
            desk.before[place] = all + up_to - tiles;
        all += __shfl_sync(RT_FULL_WARP, up_to, (int)RT_WARP_LANES - 1);
    }
    if (rt_lane() == 0)
        desk.tiles = all;
}

static __device__ __forceinline__ void
rt_prefill_order_rows(const struct rt_prefill_attend_params &p, struct rt_prefill_desk &desk)
{
    for (uint32_t r = threadIdx.x; r < p.rows; r += RT_PREFILL_SM90_THREADS)
        desk.weight[r] = rt_prefill_row(&p, r).keys;
    __syncthreads(); /* weights are there */
    for (uint32_t r = threadIdx.x; r < p.rows; r += RT_PREFILL_SM90_THREADS)
        desk.order[rt_prefill_rank(desk, p.rows, r)] = r;
    __syncthreads(); /* so is the order */
    if (threadIdx.x < RT_WARP_LANES)
        rt_prefill_count_tiles(p, desk);
    __syncthreads(); /* so is all */
}

/* ---- items, by one warp ---- */

struct rt_prefill_finder {
    const struct rt_prefill_sm90_params &p;
    struct rt_prefill_desk &desk;
    uint32_t items, next; /* of all blocks; this block's */

    __device__ __forceinline__ rt_prefill_finder(const struct rt_prefill_sm90_params &p_,
                                                 struct rt_prefill_desk &desk_)
        : p(p_), desk(desk_), items(desk_.tiles * p_.attend.heads), next(blockIdx.x)
    {
    }

    /* The last place in the order whose rows in front have no more than `tile` tiles. */
    __device__ __forceinline__ uint32_t place_of(uint32_t tile) const
    {
        uint32_t low = 0, high = p.attend.rows;
        while (high - low > 1) {
            const uint32_t middle = (low + high) / 2;
            if (desk.before[middle] <= tile)
                low = middle;
            else
                high = middle;
        }
        return low;
    }

    __device__ __forceinline__ struct rt_prefill_item find(uint32_t number) const
    {
        const uint32_t of_group = desk.tiles * p.group_heads, group = number / of_group;
        const uint32_t first_head = group * p.group_heads;
        const uint32_t heads = min(p.group_heads, p.attend.heads - first_head);
        const uint32_t tile = (number - group * of_group) / heads;
        const uint32_t place = place_of(tile);
        const struct rt_prefill_row row = rt_prefill_row(&p.attend, desk.order[place]);
        const uint32_t first =
            (rt_prefill_tiles(row) - 1 - (tile - desk.before[place])) * RT_PREFILL_SM90_QUERIES;
        struct rt_prefill_item item;
        item.queries = (int)min(row.queries - first, RT_PREFILL_SM90_QUERIES);
        item.query = (int)(row.query + first);
        item.head = (int)(first_head + (number - group * of_group) % heads);
        item.key = (int)row.key;
        item.limit = rt_prefill_seen(&p.attend, &row, first);
        const int last = rt_prefill_seen(&p.attend, &row, first + (uint32_t)item.queries - 1);
        item.keys = max(min(last, (int)row.keys), 0);
        return item;
    }

    /* One lane asks; all know. */
    __device__ __forceinline__ void ask(void)
    {
        uint32_t turn = 0;
        if (rt_elected()) {
            turn = atomicAdd(p.attend.turn, 1u);
            if (turn == max(items, gridDim.x) - 1)
                *p.attend.turn = 0;
        }
        next = gridDim.x + __shfl_sync(RT_FULL_WARP, turn, 0);
    }

    /* The place for the next item is free as soon as this one's has begun. */
    __device__ __forceinline__ void run(void)
    {
        for (uint32_t n = 0;; n++) {
            rt_mbarrier_wait(&desk.item_empty, (n & 1) ^ 1);
            if (n > 0)
                ask();
            const bool there = next < items;
            struct rt_prefill_item item = {};
            if (there)
                item = find(next);
            if (rt_elected()) {
                desk.item = item;
                rt_mbarrier_arrive(&desk.item_full);
            }
            if (there)
                continue;
            if (n == 0)
                ask();
            return;
        }
    }
};

#endif
