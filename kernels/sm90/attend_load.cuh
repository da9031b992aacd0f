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
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/tma.cuh"
#include "kernels/sm90/attend_rows.cuh"

/* Boxes of keys that a block of 64 takes, and which page each lies in. */
struct rt_sm90_pages {
    const struct rt_attend_params &p;
    struct rt_divisor<uint32_t> page_size;
    uint32_t box_tokens, boxes; /* tokens of a box, boxes of a block */
    int line, length;
    uint32_t first;  /* box that lane 0 holds */
    int id, next_id; /* this lane's page ids: boxes first + lane, and 32 further */

    explicit __device__ __forceinline__ rt_sm90_pages(const struct rt_attend_params &p_)
        : p(p_), page_size(p_.kv.page_size), box_tokens(min(p_.kv.page_size, 64u)),
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
        if (line >= 0 && column < p.kv.max_blocks)
            page = p.kv.table[(int64_t)line * p.kv.max_blocks + column];
        return key < (uint32_t)length && (uint32_t)page < p.kv.pages ? page : -1;
    }

    /* Place of a key in its page. */
    __device__ __forceinline__ int token_of(uint32_t key) const
    {
        return (int)(key - page_size.quotient(key) * p.kv.page_size);
    }

    __device__ __forceinline__ void begin(const struct rt_attend_step &at)
    {
        line = at.line;
        length = at.end;
        first = (uint32_t)at.key / box_tokens;
        id = find(first + threadIdx.x % 32);
        next_id = find(first + 32 + threadIdx.x % 32);
    }

    /* Goes on to the pair of blocks that starts at `key`: its boxes are all in one window of 32. */
    __device__ __forceinline__ void advance(uint32_t key)
    {
        if (key / box_tokens < first + 32)
            return;
        first += 32;
        id = next_id;
        next_id = find(first + 32 + threadIdx.x % 32);
    }

    /* Page of a key of that pair. By the whole warp. */
    __device__ __forceinline__ int of(uint32_t key) const
    {
        return __shfl_sync(RT_ATTEND_FULL_WARP, id, (int)(key / box_tokens - first));
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

    /*
     * Half `half` of block j's values. Half 1 comes second and also brings what is no value, whose
     * place weights took: both workers are done with the stage by then.
     */
    __device__ __forceinline__ void bring_half(uint32_t j, int half, int key)
    {
        const uint32_t stage = j % SHAPE::STAGES, parity = (j / SHAPE::STAGES & 1) ^ 1;
        const bool rest = half == 1 && TILES > SHAPE::V_TILES;
        const uint32_t tiles = SHAPE::HALF_TILES + (rest ? 1 : 0);
        uint64_t *full = &room.desk.kv_full[stage][half];
        rt_mbarrier_wait(&room.desk.kv_empty[stage][half], parity);
        if (rt_elected())
            rt_mbarrier_arrive_expect(full, tiles * RT_ATTEND_SM90_TILE_BYTES);
#pragma unroll 1
        for (uint32_t box = 0; box < pages.boxes; box++)
            bring_box(stage, half, rest, full, box, key);
    }

    __device__ __forceinline__ void bring_box(uint32_t stage, int half, bool rest, uint64_t *full,
                                              uint32_t box, int key) const
    {
        const uint32_t box_key = (uint32_t)key + box * pages.box_tokens;
        const int page = pages.of(box_key), token = pages.token_of(box_key);
        const uint32_t first = box * pages.box_tokens; /* key of the block */
        if (!rt_elected())
            return;
        rt_tma_load_5(room.half(stage, half) + first / 8 * SHAPE::GROUP_BYTES, &p.kv_map, full, 0,
                      0, half * SHAPE::HALF_TILES, token / 8, page, policy);
        if (rest)
            rt_tma_load_3(room.tile(stage, SHAPE::V_TILES) + first * 128, &p.kv_rest_map, full, 0,
                          token, page, policy);
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
        if (!SHAPE::FOLDS)
            pages.begin(at);
        for (int key = at.key; blocks > 0; blocks -= 2, key += 128) {
            if (!SHAPE::FOLDS)
                pages.advance((uint32_t)key);
#pragma unroll 1
            for (int turn = 0; turn < 4; turn++) {
                const bool is_b = turn > 1;
                const int block_key = is_b ? key + 64 : key;
                if (is_b && blocks == 1)
                    continue;
                if (SHAPE::FOLDS) /* a pair may begin with any block of the row */
                    pages.advance((uint32_t)block_key);
                if (block_key + 64 > settled)
                    wait_for_predecessor();
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
        const struct rt_attend_piece piece =
            rt_attend_piece_of(leaf.length, leaf.key, rows.splits, rows.next_splits);
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
        struct rt_attend_step leaf = rt_attend_leaf(at);
        pages.begin(at);
        for (;; n++) {
            const bool is_last = leaf.end >= at.end;
            publish_leaf(n, leaf, rows, leaf.key == at.key, is_last);
            bring_segment(leaf, rt_sm90_blocks(leaf));
            if (is_last)
                return n + 1;
            leaf = rt_attend_leaf({at.row, leaf.end, at.end, at.length, at.line});
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
            if (SHAPE::FOLDS && at.row != RT_ATTEND_NONE) {
                n = bring_leaves(n, at, row) - 1;
                at = few.find(part, at.row + 1);
                continue;
            }
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
