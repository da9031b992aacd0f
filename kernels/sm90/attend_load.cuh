/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_LOAD_CUH
#define RT_KERNELS_SM90_ATTEND_LOAD_CUH

/*
 * The loading warps of the sm_90 attend kernels.
 *
 * Warp 0 walks the part, a segment per batch row, and brings 64 keys at a time into the next stage
 * as its halves come free. In a cluster each block brings every CLUSTER-th tile, to all of them.
 *
 * Where the launch says so (early), warp 0 starts before the kernel in front of this one has ended:
 * only the last q_len keys of a row and q are of this step. It waits in front of the first block
 * that holds one of those.
 */
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/timer.cuh"
#include "kernels/device/ptx/tma.cuh"
#include "kernels/generic/mla_attend_walk.cuh"
#include "kernels/sm90/attend_desk.cuh"

/* Boxes of keys that a block of 64 takes, and which page each lies in. */
struct rt_sm90_pages {
    const struct rt_mla_attend_params &p;
    struct rt_divisor<uint32_t> page_size;
    uint32_t box_tokens, boxes; /* tokens of a box, boxes of a block */
    int line, length;
    uint32_t first;  /* box that lane 0 holds */
    int id, next_id; /* this lane's page ids: boxes first + lane, and 32 further */

    explicit __device__ __forceinline__ rt_sm90_pages(const struct rt_mla_attend_params &p_)
        : p(p_), page_size(p_.page_size), box_tokens(min(p_.page_size, 64u)),
          boxes(64u / box_tokens), line(-1), length(0), first(0), id(-1), next_id(-1)
    {
    }

    /* -1 where nothing must be read: that is outside of the tensor, which reads as zeros. The entry
     * itself may be read in any case, and is, so as not to wait for the length. */
    __device__ __forceinline__ int find(uint32_t box) const
    {
        const uint32_t key = box * box_tokens;
        const uint32_t column = page_size.quotient(key);
        int page = -1;
        if (line >= 0 && column < p.max_blocks)
            page = p.block_table[(int64_t)line * p.max_blocks + column];
        return key < (uint32_t)length ? page : -1;
    }

    /* Place of a key in its page. */
    __device__ __forceinline__ int token_of(uint32_t key) const
    {
        return (int)(key - page_size.quotient(key) * p.page_size);
    }

    __device__ __forceinline__ void begin(const struct rt_attend_step &at)
    {
        line = at.line;
        length = at.end;
        first = (uint32_t)at.key / box_tokens;
        id = find(first + threadIdx.x % 32);
        next_id = find(first + 32 + threadIdx.x % 32);
    }

    /* Page of a box; boxes are asked for in order. By the whole warp. */
    __device__ __forceinline__ int of(uint32_t box)
    {
        if (box >= first + 32) {
            first += 32;
            id = next_id;
            next_id = find(first + 32 + threadIdx.x % 32);
        }
        return __shfl_sync(RT_ATTEND_FULL_WARP, id, (int)(box - first));
    }
};

template <class SHAPE> struct rt_sm90_loader {
    static constexpr int TILES = SHAPE::TILES;

    const struct rt_attend_sm90_params &p;
    const rt_sm90_room<SHAPE> &room;
    struct rt_sm90_pages pages;
    uint64_t policy;
    uint32_t block; /* of the whole part, counted over all segments */
    bool waited;

    __device__ __forceinline__ rt_sm90_loader(const struct rt_attend_sm90_params &p_,
                                              const rt_sm90_room<SHAPE> &room_)
        : p(p_), room(room_), pages(p_.attend), policy(rt_tma_evict_first()), block(0),
          waited(false)
    {
    }

    __device__ __forceinline__ void wait_for_predecessor(void)
    {
        if (!waited)
            rt_pdl_wait();
        waited = true;
    }

    /* One box of every tile of [from, to) that this block of the cluster brings. */
    __device__ __forceinline__ void bring(uint32_t stage, int from, int to, uint64_t *full,
                                          uint32_t box, int token, int page) const
    {
        const uint32_t rank = SHAPE::CLUSTER > 1 ? rt_cluster_rank() : 0;
        for (int tile = from; tile < to; tile++) {
            unsigned char *at = room.tile(stage, tile) + box * pages.box_tokens * 128;
            if (SHAPE::CLUSTER == 1)
                rt_tma_load(at, &p.kv_map, full, tile * 64, token, page, policy);
            else if ((uint32_t)tile % SHAPE::CLUSTER == rank)
                rt_tma_load_multicast(at, &p.kv_map, full, tile * 64, token, page,
                                      (1u << SHAPE::CLUSTER) - 1, policy);
        }
    }

    /*
     * Half `half` of block j's values; its owner is done with the half of its own number first. The
     * other half also brings what is no value, whose place weights took: it comes second, so that
     * both workers are done with the stage by then.
     */
    __device__ __forceinline__ void bring_half(uint32_t j, int half, bool second, int key,
                                               const int (&page)[4]) const
    {
        const uint32_t stage = j % SHAPE::STAGES, parity = (j / SHAPE::STAGES & 1) ^ 1;
        const int from = half * SHAPE::HALF_TILES, to = from + SHAPE::HALF_TILES;
        uint64_t *full = &room.desk.kv_full[stage][half];
        if (SHAPE::CLUSTER > 1)
            rt_mbarrier_wait_cluster(&room.desk.kv_empty[stage][half], parity);
        else
            rt_mbarrier_wait(&room.desk.kv_empty[stage][half], parity);
        if (!rt_elected())
            return;
        const int rest = second ? TILES - SHAPE::V_TILES : 0;
        rt_mbarrier_arrive_expect(full, (SHAPE::HALF_TILES + rest) * RT_ATTEND_SM90_TILE_BYTES);
#pragma unroll
        for (uint32_t box = 0; box < 4; box++) {
            if (box >= pages.boxes)
                break;
            const int token = pages.token_of((uint32_t)key + box * pages.box_tokens);
            bring(stage, from, to, full, box, token, page[box]);
            if (second)
                bring(stage, SHAPE::V_TILES, TILES, full, box, token, page[box]);
        }
    }

    /* Pages of a block; waits where it holds keys of this step. */
    __device__ __forceinline__ void find_block(const struct rt_attend_step &at, int key,
                                               int (&page)[4])
    {
        if (key + 64 > at.length - (int)p.attend.q_len)
            wait_for_predecessor();
#pragma unroll
        for (uint32_t box = 0; box < 4; box++)
            page[box] = box < pages.boxes ? pages.of((uint32_t)key / pages.box_tokens + box) : -1;
    }

    /* A pair of blocks, a and b, in the order in which their halves come free. */
    __device__ __forceinline__ void bring_segment(const struct rt_attend_step &at, int blocks)
    {
        int page_a[4], page_b[4];
        pages.begin(at);
        for (int key = at.key; blocks > 0; blocks -= 2, key += 128) {
            find_block(at, key, page_a);
            bring_half(block, 0, false, key, page_a);
            if (blocks > 1) {
                find_block(at, key + 64, page_b);
                bring_half(block + 1, 1, false, key + 64, page_b);
                bring_half(block + 1, 0, true, key + 64, page_b);
            }
            bring_half(block, 1, true, key, page_a);
            block += blocks > 1 ? 2 : 1;
        }
    }

    __device__ __forceinline__ void publish(uint32_t n, const struct rt_attend_part &part,
                                            const struct rt_attend_step &at, int blocks) const
    {
        auto &desk = room.desk;
        const uint32_t i = n % RT_SM90_SEGMENTS;
        int slot = -1;
        if (at.row != RT_ATTEND_NONE) {
            const int first = p.attend.num_splits[at.row];
            if (p.attend.num_splits[at.row + 1] > first)
                slot = first + (at.row == part.begin_row ? part.begin_split : 0);
        }
        rt_mbarrier_wait(&desk.seg_empty[i], (n / RT_SM90_SEGMENTS & 1) ^ 1);
        if (rt_elected()) {
            desk.segment[i] = {at.row, at.key, at.length, blocks, slot};
            rt_mbarrier_arrive(&desk.seg_full[i]);
        }
        __syncwarp();
    }

    /* A part begins in a row that has keys: no search. */
    __device__ __forceinline__ struct rt_attend_step
    first_row(const struct rt_attend_part &part) const
    {
        const int row = part.begin_row;
        if (row >= part.stop_row)
            return {RT_ATTEND_NONE, 0, 0, 0, -1};
        return rt_attend_begin_row(p.attend, part, row, p.attend.row_length[row],
                                   p.attend.row_slot ? p.attend.row_slot[row] : row);
    }

    /* Warp 0. */
    __device__ __forceinline__ void run_keys(void)
    {
        const int lane = (int)threadIdx.x % 32;
        if (!p.attend.early)
            wait_for_predecessor();
        /* A segment ends where the row's last token sees no more. */
        const int last_query = (int)(p.attend.q_len * p.attend.heads) - 1;
        const struct rt_attend_part part = rt_attend_read_part(p.attend, 0, last_query);
        struct rt_attend_step at = first_row(part);
        for (uint32_t n = 0;; n++) {
            const int blocks = at.row == RT_ATTEND_NONE ? 0 : (at.end - at.key + 63) / 64;
            publish(n, part, at, blocks);
            if (at.row == RT_ATTEND_NONE)
                break;
            bring_segment(at, blocks);
            at = rt_attend_find_row(p.attend, part, at.row + 1, lane);
        }
        wait_for_predecessor();
    }

    /* q of unevenly spaced rows: 16 bytes a lane, swizzled by hand. */
    __device__ __forceinline__ void copy_q(int64_t data_row) const
    {
        constexpr int VECTORS = SHAPE::D_QK / 8;
        const struct rt_mla_attend_params &a = p.attend;
        const int first = (int)blockIdx.x * SHAPE::TILE_ROWS;
        const int rows = min((int)(a.q_len * a.heads) - first, SHAPE::TILE_ROWS);
        for (int i = (int)threadIdx.x % 32; i < rows * VECTORS; i += 32) {
            const int row = i / VECTORS, vector = i % VECTORS;
            const int query = first + row;
            const uint16_t *from = a.q + data_row * a.q_row_stride +
                                   query / (int)a.heads * a.q_token_stride +
                                   query % (int)a.heads * a.q_head_stride + vector * 8;
            unsigned char *to =
                room.q + vector / 8 * SHAPE::Q_TILE_BYTES + row * 128 + (vector % 8 ^ row % 8) * 16;
            *(uint4 *)to = *(const uint4 *)from;
        }
        rt_fence_async();
        __syncwarp();
    }

    __device__ __forceinline__ void bring_q(int row) const
    {
        const int64_t data_row = (p.attend.ctrl ? (int64_t)p.attend.ctrl->row_base : 0) + row;
        uint64_t *full = &room.desk.q_full;
        if (!p.q_even)
            copy_q(data_row);
        if (!rt_elected())
            return;
        if (!p.q_even) {
            rt_mbarrier_arrive(full);
            return;
        }
        rt_mbarrier_arrive_expect(full, TILES * SHAPE::Q_TILE_BYTES);
        for (int tile = 0; tile < TILES; tile++)
            rt_tma_load(room.q + tile * SHAPE::Q_TILE_BYTES, &p.q_map, full, tile * 64,
                        (int)blockIdx.x * SHAPE::TILE_ROWS, (int)data_row, policy);
    }

    __device__ __forceinline__ void stamp(void) const
    {
        if (p.attend.stamp_first && rt_elected() && blockIdx.x == 0 && blockIdx.y == 0)
            *p.attend.stamp_first = rt_globaltimer_ns();
    }

    /* Warp 1. The first segment may be known before the kernel in front of this one has ended. */
    __device__ __forceinline__ void run_queries(void)
    {
        for (uint32_t n = 0;; n++) {
            const struct rt_sm90_segment segment = rt_sm90_take_segment(room.desk, n);
            const bool more = segment.row != RT_ATTEND_NONE;
            if (more)
                rt_mbarrier_wait(&room.desk.q_empty, (n & 1) ^ 1);
            if (n == 0) {
                rt_pdl_wait();
                rt_pdl_launch_dependents();
            }
            if (more)
                bring_q(segment.row);
            if (n == 0)
                stamp();
            if (!more)
                break;
        }
    }
};

#endif
