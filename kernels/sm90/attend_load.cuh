/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_LOAD_CUH
#define RT_KERNELS_SM90_ATTEND_LOAD_CUH

/*
 * Who brings all keys of a row: warp 0 of the sm_90 attend kernels.
 *
 * It walks the part, a segment per batch row, and brings 64 keys at a time into the next stage
 * as its halves come free.
 *
 * Where the launch says so (early), it starts before the kernel in front of this one has ended:
 * only the last q_len keys of a row and q are of this step. It waits in front of the first block
 * that holds one of those.
 */
#include "kernels/device/ptx/bulk.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/tma.cuh"
#include "kernels/device/ptx/tma_prefetch.cuh"
#include "kernels/sm90/attend_rows.cuh"

/* Where a box of keys is: its page, -1 outside of the tensor, and its first token there. */
struct rt_sm90_place {
    int page, token;
};

/* Boxes of keys that a block of 64 takes, and which page each lies in. Page sizes that are served
 * are powers of two. */
struct rt_sm90_pages {
    const struct rt_attend_params &p;
    int page_log2, box_log2; /* tokens of a page, and of a box */
    uint32_t boxes;          /* of a block */
    int line, length;
    uint32_t first;  /* box that lane 0 holds */
    int id, next_id; /* this lane's page ids: boxes first + lane, and 32 further */

    explicit __device__ __forceinline__ rt_sm90_pages(const struct rt_attend_params &p_)
        : p(p_), page_log2(__ffs((int)p_.kv.page_size) - 1), box_log2(min(page_log2, 6)),
          boxes(64u >> box_log2), line(-1), length(0), first(0), id(-1), next_id(-1)
    {
    }

    /* -1 where nothing must be read: that is outside of the tensor, which reads as zeros. The entry
     * itself may be read in any case, and is, so as not to wait for the length. */
    __device__ __forceinline__ int find(uint32_t box) const
    {
        const uint32_t key = box << box_log2;
        const uint32_t column = key >> page_log2;
        int page = -1;
        if (line >= 0 && column < p.kv.max_blocks)
            page = p.kv.table[(int64_t)line * p.kv.max_blocks + column];
        return key < (uint32_t)length && (uint32_t)page < p.kv.pages ? page : -1;
    }

    __device__ __forceinline__ void begin(const struct rt_attend_step &at)
    {
        line = at.line;
        length = at.end;
        first = (uint32_t)at.key >> box_log2;
        id = find(first + threadIdx.x % 32);
        next_id = find(first + 32 + threadIdx.x % 32);
    }

    /* Goes on to the pair of blocks that starts at `key`: its boxes are all in one window of 32. */
    __device__ __forceinline__ void advance(uint32_t key)
    {
        if (key >> box_log2 < first + 32)
            return;
        first += 32;
        id = next_id;
        next_id = find(first + 32 + threadIdx.x % 32);
    }

    /* Of a box of that pair, by its first key. By the whole warp. */
    __device__ __forceinline__ struct rt_sm90_place place(uint32_t key) const
    {
        return {__shfl_sync(RT_ATTEND_FULL_WARP, id, (int)((key >> box_log2) - first)),
                (int)(key & ((1u << page_log2) - 1))};
    }

    /* Likewise of the next pair. */
    __device__ __forceinline__ struct rt_sm90_place place_ahead(uint32_t key) const
    {
        const uint32_t box = (key >> box_log2) - first;
        return {__shfl_sync(RT_ATTEND_FULL_WARP, box < 32 ? id : next_id, (int)(box % 32)),
                (int)(key & ((1u << page_log2) - 1))};
    }
};

/* What a warp brings of each block. */
enum {
    RT_SM90_BRINGS_HALF_0 = 1,
    RT_SM90_BRINGS_HALF_1 = 2,
    RT_SM90_BRINGS_REST = 4, /* what is no value */
    RT_SM90_BRINGS_ALL = 7
};

template <class SHAPE> struct rt_sm90_loader {
    static constexpr int TILES = SHAPE::TILES;
    static constexpr uint16_t BOTH_RANKS = 3;

    const struct rt_attend_sm90_params &p;
    const rt_sm90_room<SHAPE> &room;
    const int brings;
    struct rt_sm90_pages pages;
    uint64_t policy;
    uint32_t block; /* of the whole part, counted over all segments */
    bool waited;

    __device__ __forceinline__ rt_sm90_loader(const struct rt_attend_sm90_params &p_,
                                              const rt_sm90_room<SHAPE> &room_, int brings_)
        : p(p_), room(room_), brings(brings_), pages(p_.attend), policy(rt_tma_evict_first()),
          block(0), waited(false)
    {
    }

    __device__ __forceinline__ void wait_for_predecessor(void)
    {
        if (!waited)
            rt_pdl_wait();
        waited = true;
    }

    /* In front of block j, which has keys of the step. Of a single row and tile, whose last block
     * is the one that all wait for, what is older comes as far as L2 meanwhile; several such blocks
     * take from each other what they gain. */
    __device__ __forceinline__ void wait_for_step(uint32_t j, uint32_t key)
    {
        if (!SHAPE::PARTED && !waited && j < SHAPE::STAGES && p.attend.rows.count == 1 &&
            gridDim.x == 1)
            prefetch(key);
        wait_for_predecessor();
    }

    __device__ __forceinline__ void prefetch(uint32_t key) const
    {
#pragma unroll 1
        for (uint32_t first = 0; first < 64; first += 1u << pages.box_log2) {
            const struct rt_sm90_place at = pages.place(key + first);
            if (rt_elect_one()) {
                rt_tma_prefetch_5(&p.kv_map, 0, 0, 0, at.token / 8, at.page);
                rt_tma_prefetch_5(&p.kv_map, 0, 0, SHAPE::HALF_TILES, at.token / 8, at.page);
                if (TILES > SHAPE::V_TILES)
                    rt_tma_prefetch_3(&p.kv_rest_map, 0, at.token, at.page);
            }
            __syncwarp();
        }
    }

    __device__ __forceinline__ void bring_half(uint32_t j, int half, int key)
    {
        const bool values = (brings & (half == 0 ? RT_SM90_BRINGS_HALF_0 : RT_SM90_BRINGS_HALF_1));
        const bool rest = TILES > SHAPE::V_TILES && half == 1 && (brings & RT_SM90_BRINGS_REST);
        if (values)
            bring_values(j, half, !SHAPE::PARTED && rest, (uint32_t)key);
        else if (SHAPE::PARTED && rest)
            bring_rest(j, (uint32_t)key);
    }

    /*
     * Half `half` of block j's values, and with half 1 what is no value, where one warp brings all:
     * its place weights took, and both workers are done with the stage by then. From the moment
     * that keys are free until they are asked for tensor cores may wait, so what can be known
     * before is.
     */
    __device__ __forceinline__ void bring_values(uint32_t j, int half, bool rest, uint32_t key)
    {
        const uint32_t stage = j % SHAPE::STAGES, parity = (j / SHAPE::STAGES & 1) ^ 1;
        const uint32_t box_log2 = SHAPE::IN_PIECES ? min(pages.box_log2, 5) : pages.box_log2;
        const uint32_t tiles = SHAPE::HALF_TILES + (rest ? 1 : 0);
        const uint32_t begin = SHAPE::SHARED ? rt_cluster_rank() * SHAPE::PIECE : 0;
        const uint32_t end = SHAPE::SHARED ? begin + SHAPE::PIECE : 64;
        struct rt_sm90_place at = pages.place(key + begin);
        wait_for_room(stage, half, parity, begin);
        if (rt_elect_one()) {
            rt_mbarrier_arrive_expect(&room.desk.kv_full[stage][half],
                                      tiles * RT_ATTEND_SM90_TILE_BYTES);
            ask_values(stage, half, rest, begin, at);
        }
        __syncwarp();
#pragma unroll 1
        for (uint32_t first = begin + (1u << box_log2); first < end; first += 1u << box_log2) {
            at = pages.place(key + first);
            if (SHAPE::IN_PIECES && !SHAPE::SHARED)
                wait_for_room(stage, half, parity, first);
            if (rt_elect_one())
                ask_values(stage, half, rest, first, at);
            __syncwarp();
        }
    }

    /* Until no product reads a half's keys from `first` on, up to where the next wait is. */
    __device__ __forceinline__ void wait_for_room(uint32_t stage, int half, uint32_t parity,
                                                  uint32_t first) const
    {
        if constexpr (SHAPE::IN_PIECES)
            if (first == 0)
                rt_mbarrier_wait(&room.desk.kv_early[stage][half], parity);
        if (first == 64 - SHAPE::PIECE)
            rt_mbarrier_wait(&room.desk.kv_empty[stage][half], parity);
    }

    /* By one thread; `first`: key of the block. */
    __device__ __forceinline__ void ask_values(uint32_t stage, int half, bool rest, uint32_t first,
                                               const struct rt_sm90_place &at) const
    {
        unsigned char *to = room.half(stage, half) + first / 8 * SHAPE::GROUP_BYTES;
        uint64_t *full = &room.desk.kv_full[stage][half];
        if (SHAPE::SHARED)
            rt_tma_share_5(to, &p.kv_map, full, 0, 0, half * SHAPE::HALF_TILES, at.token / 8,
                           at.page, BOTH_RANKS, policy);
        else
            rt_tma_load_5(to, &p.kv_map, full, 0, 0, half * SHAPE::HALF_TILES, at.token / 8,
                          at.page, policy);
        if (rest)
            ask_rest(stage, first, at);
    }

    /* Likewise. */
    __device__ __forceinline__ void ask_rest(uint32_t stage, uint32_t first,
                                             const struct rt_sm90_place &at) const
    {
        unsigned char *to = room.tile(stage, SHAPE::V_TILES) + first * 128;
        uint64_t *full = &room.desk.kv_full[stage][1];
        if (SHAPE::SHARED)
            rt_tma_share_3(to, &p.kv_rest_map, full, 0, at.token, at.page, BOTH_RANKS, policy);
        else
            rt_tma_load_3(to, &p.kv_rest_map, full, 0, at.token, at.page, policy);
    }

    /* Whether this block brings what is no value of block j; the other one counts it, too. */
    static __device__ __forceinline__ bool asks_for_rest(uint32_t j)
    {
        return !SHAPE::SHARED || j % SHAPE::SHARERS == rt_cluster_rank();
    }

    __device__ __forceinline__ void bring_rest(uint32_t j, uint32_t key)
    {
        const uint32_t stage = j % SHAPE::STAGES, parity = (j / SHAPE::STAGES & 1) ^ 1;
#pragma unroll 1
        for (uint32_t first = 0; first < 64; first += 1u << pages.box_log2) {
            const struct rt_sm90_place at = pages.place(key + first);
            if (first == 0) {
                rt_mbarrier_wait(&room.desk.kv_empty[stage][0], parity);
                rt_mbarrier_wait(&room.desk.kv_empty[stage][1], parity);
            }
            if (rt_elect_one()) {
                if (first == 0)
                    rt_mbarrier_arrive_expect(&room.desk.kv_full[stage][1],
                                              RT_ATTEND_SM90_TILE_BYTES);
                if (asks_for_rest(j))
                    ask_rest(stage, first, at);
            }
            __syncwarp();
        }
        if (SHAPE::SHARED && asks_for_rest(j))
            ask_ahead(key + 2 * RT_BLOCK_TOKENS);
    }

    /*
     * L2 is asked for the stage's next keys, of all tiles' by one block, where they lie one behind
     * the other. A stage that comes free late in one of two blocks is late in both, so the way
     * back must be short; boxes for two leave L2 the time that this takes.
     */
    __device__ __forceinline__ void ask_ahead(uint32_t key) const
    {
        const struct rt_kv_view &kv = p.attend.kv;
        if (blockIdx.x >= SHAPE::SHARERS || kv.token_stride_bytes != kv.token_bytes)
            return;
#pragma unroll 1
        for (uint32_t first = 0; first < RT_BLOCK_TOKENS; first += 1u << pages.box_log2) {
            const struct rt_sm90_place at = pages.place_ahead(key + first);
            if (at.page >= 0 && rt_elect_one())
                rt_bulk_prefetch(kv.base + at.page * kv.page_stride_bytes +
                                     at.token * (int64_t)kv.token_bytes,
                                 kv.token_bytes << pages.box_log2);
            __syncwarp();
        }
    }

    /*
     * Pairs of blocks, a and b, in the order in which their halves come free:
     *
     *   turn   0      1      2      3
     *   block  a      a      b      b      both workers add a, then both add b
     *   half   0      1      0      1
     */
    __device__ __forceinline__ void bring_segment(const struct rt_attend_step &at, int blocks)
    {
        const int settled = at.length - (int)p.attend.rows.q_len; /* keys older than the step */
        for (int key = at.key; blocks > 0; blocks -= 2, key += 128) {
            if (!SHAPE::OWN)
                pages.advance((uint32_t)key);
#pragma unroll 1
            for (int turn = 0; turn < 4; turn++) {
                const bool is_b = turn > 1;
                const int block_key = is_b ? key + 64 : key;
                if (is_b && blocks == 1)
                    continue;
                if (SHAPE::OWN) /* a pair may begin with any block of the row */
                    pages.advance((uint32_t)block_key);
                if (block_key + 64 > settled)
                    wait_for_step(block + (is_b ? 1 : 0), (uint32_t)block_key);
                bring_half(block + (is_b ? 1 : 0), turn % 2, block_key);
            }
            block += blocks > 1 ? 2 : 1;
        }
    }

    /* A leaf of the row: where it goes follows from its place and from the row's pieces. */
    __device__ __forceinline__ void publish_leaf(uint32_t n, const struct rt_attend_step &leaf,
                                                 const struct rt_sm90_rows &rows, bool is_first,
                                                 bool is_last) const
    {
        auto &desk = room.desk;
        const uint32_t i = n % RT_SM90_SEGMENTS;
        const struct rt_attend_piece piece = rt_attend_piece_of(
            p.attend.schedule.invariant, leaf.length, leaf.key, rows.splits, rows.next_splits);
        const int marks = (is_first ? RT_SM90_SEGMENT_Q : 0) |
                          (is_last ? RT_SM90_SEGMENT_LAST : 0) |
                          (piece.opens ? RT_SM90_SEGMENT_OPENS : 0) |
                          (piece.is_leaf ? 0 : RT_SM90_SEGMENT_FOLDS) |
                          (piece.closes ? RT_SM90_SEGMENT_CLOSES : 0);
        const struct rt_sm90_segment segment = {
            leaf.row, leaf.key, leaf.length, rt_sm90_blocks(leaf), piece.slot, marks};
        rt_mbarrier_wait(&desk.seg_empty[i], (n / RT_SM90_SEGMENTS & 1) ^ 1);
        if (rt_elected()) {
            desk.segment[i] = segment;
            rt_mbarrier_arrive(&desk.seg_full[i]);
        }
        __syncwarp();
    }

    /* Batch-invariant: what the part has of the row, leaf by leaf. Returns the next segment. */
    __device__ __forceinline__ uint32_t bring_leaves(uint32_t n, const struct rt_attend_step &at,
                                                     const struct rt_sm90_rows &rows)
    {
        struct rt_attend_step leaf = rt_attend_leaf(p.attend.schedule.invariant, at);
        pages.begin(at);
        for (;; n++) {
            const bool is_last = leaf.end >= at.end;
            publish_leaf(n, leaf, rows, leaf.key == at.key, is_last);
            bring_segment(leaf, rt_sm90_blocks(leaf));
            if (is_last)
                return n + 1;
            leaf = rt_attend_leaf(p.attend.schedule.invariant,
                                  {at.row, leaf.end, at.end, at.length, at.line});
        }
    }

    /* A piece of the row, in that slot if the row has several. */
    __device__ __forceinline__ void publish_own(uint32_t n, const struct rt_attend_step &piece,
                                                int slot, int marks) const
    {
        auto &desk = room.desk;
        const uint32_t i = n % RT_SM90_SEGMENTS;
        rt_mbarrier_wait(&desk.seg_empty[i], (n / RT_SM90_SEGMENTS & 1) ^ 1);
        if (rt_elected()) {
            desk.segment[i] = {piece.row, piece.key, piece.length, rt_sm90_blocks(piece),
                               slot,      marks};
            rt_mbarrier_arrive(&desk.seg_full[i]);
        }
        __syncwarp();
    }

    /* Likewise where all leaves are pieces. */
    __device__ __forceinline__ uint32_t bring_own(uint32_t n, struct rt_attend_step piece,
                                                  const struct rt_sm90_rows &rows)
    {
        const uint32_t blocks = rt_invariant_blocks(piece.length);
        const int keys = (int)rt_invariant_leaf(p.attend.schedule.invariant, blocks) * 64;
        const int end = piece.end;
        int marks = RT_SM90_SEGMENT_Q, slot = rows.splits + piece.key / keys;
        pages.begin(piece);
        for (;; n++) {
            piece.end = min(piece.key + keys, end);
            const bool is_last = piece.end >= end;
            if (brings & RT_SM90_BRINGS_HALF_0)
                publish_own(n, piece,
                            rows.next_splits > rows.splits ? min(slot, rows.next_splits - 1) : -1,
                            marks | (is_last ? RT_SM90_SEGMENT_LAST : 0));
            bring_segment(piece, rt_sm90_blocks(piece));
            if (is_last)
                return n + 1;
            piece.key = piece.end;
            slot++;
            marks = 0;
        }
    }

    __device__ __forceinline__ void run(void)
    {
        if (!p.attend.early)
            wait_for_predecessor();
        struct rt_sm90_rows few(p.attend);
        few.begin();
        /* A segment ends where the row's last token sees no more. */
        const int last_query = (int)(p.attend.rows.q_len * p.attend.heads) - 1;
        const struct rt_attend_part part = rt_attend_read_part(p.attend, 0, last_query);
        struct rt_attend_step at = few.find(part, part.begin_row);
        for (uint32_t n = 0;; n++) {
            struct rt_sm90_rows row = few;
            row.look(at.row == RT_ATTEND_NONE ? 0 : at.row);
            if (SHAPE::OWN && at.row != RT_ATTEND_NONE) {
                n = (SHAPE::FOLDS ? bring_leaves(n, at, row) : bring_own(n, at, row)) - 1;
                at = few.find(part, at.row + 1);
                continue;
            }
            if (at.row != RT_ATTEND_NONE)
                pages.begin(at); /* on its way while what others want of the row is */
            if (brings & RT_SM90_BRINGS_HALF_0)
                rt_sm90_publish(room.desk, n, part, at, row);
            if (at.row == RT_ATTEND_NONE)
                break;
            bring_segment(at, rt_sm90_blocks(at));
            at = few.find(part, at.row + 1);
        }
        wait_for_predecessor();
    }
};

#endif
