/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_BLOCKS_CUH
#define RT_KERNELS_SM90_ATTEND_BLOCKS_CUH

/*
 * A part's blocks of 64 keys one behind the other, for loading warps that know a block before they
 * are done with the one before it: where each lane's key lies, and its scales. By whole warps, each
 * for itself; warp 0 also tells the workers of segments.
 *
 *   advance    place of the block's key │ ask entry of the next one's
 *   follow                              │ ask page of the next one's
 */
#include "kernels/device/ptx/cp_async.cuh"
#include "kernels/device/ptx/load_l2.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/sm90/attend_lists.cuh"
#include "kernels/sm90/attend_rows.cuh"

/* A key that the cache has: its page's first byte, null where there is none, and its row there. */
struct rt_sm90_found {
    const unsigned char *page;
    uint32_t row;
    bool is_extra; /* of the second cache */
    int number;    /* the page's in the pool, of all keys of a row; -1 where there is none */
};

/* All keys of a row: an entry of the block table is a page. */
struct rt_sm90_row_pages {
    const struct rt_attend_params &p;
    const struct rt_divisor<uint32_t> page_size;
    int line, end;

    template <class P>
    explicit __device__ __forceinline__ rt_sm90_row_pages(const P &all)
        : p(all.attend), page_size(all.attend.kv.page_size), line(-1), end(0)
    {
    }

    __device__ __forceinline__ void begin(int64_t, const struct rt_attend_step &at)
    {
        line = at.line;
        end = at.end;
    }

    __device__ __forceinline__ void keep(uint32_t (&words)[4]) const
    {
        words[2] = (uint32_t)line;
        words[3] = (uint32_t)end;
    }

    __device__ __forceinline__ void recall(const uint32_t (&words)[4])
    {
        line = (int)words[2];
        end = (int)words[3];
    }

    __device__ __forceinline__ int32_t ask(int key) const
    {
        const uint32_t column = page_size.quotient((uint32_t)key);
        if (key >= end || line < 0 || column >= p.kv.max_blocks)
            return -1;
        return p.kv.table[(int64_t)line * p.kv.max_blocks + column];
    }

    __device__ __forceinline__ uint32_t follow(int, int32_t entry) const
    {
        return (uint32_t)entry;
    }

    __device__ __forceinline__ struct rt_sm90_found find(int key, int32_t, uint32_t page) const
    {
        const uint32_t row = (uint32_t)key - page_size.quotient((uint32_t)key) * p.kv.page_size;
        if (page >= p.kv.pages)
            return {nullptr, row, false, -1};
        return {p.kv.base + page * p.kv.page_stride_bytes, row, false, (int)page};
    }
};

/* Those that a token's lists name. */
struct rt_sm90_list_pages : rt_sm90_lists {
    template <class P>
    explicit __device__ __forceinline__ rt_sm90_list_pages(const P &all) : rt_sm90_lists(all.sparse)
    {
    }

    __device__ __forceinline__ struct rt_sm90_found find(int key, int32_t entry,
                                                         uint32_t page) const
    {
        const bool extra = is_extra(key);
        const struct rt_kv_view &kv = extra ? p.extra_kv : p.attend.kv;
        const uint32_t row = (uint32_t)entry % kv.page_size;
        return {page < kv.pages ? kv.base + page * kv.page_stride_bytes : nullptr, row, extra, -1};
    }
};

template <bool LISTED> struct rt_sm90_pages_of {
    typedef struct rt_sm90_row_pages type;
};
template <> struct rt_sm90_pages_of<true> {
    typedef struct rt_sm90_list_pages type;
};

/* A block of a part. */
struct rt_sm90_block {
    int row;          /* or RT_ATTEND_NONE: no more */
    uint32_t segment; /* its number in the part; behind the last, how many there are */
    bool opens;       /* the segment's first */
    bool is_empty;    /* of a segment without keys */
};

/* This lane's key of a block, lane % WARP_KEYS of its warp's: what other lanes have to know. */
struct rt_sm90_quant_key {
    const unsigned char *row;
    uint32_t scale[2]; /* of each half, as they lie: an f32, or four of UE8M0 */
    int page, token;   /* for boxes: its page's number, -1 where there is none, and row there */
};

/* What is read in the place of a key that is none, so that loads need not ask: of any layout row
 * and scales are zeros, and so are its numbers. */
static __device__ const uint4 rt_sm90_no_key[RT_SM90_ROW_BYTES / sizeof(uint4)] = {};

/* Of a key's half, as they lie: one f32, that of the tile that lanes 0-15 or 16-31 are about, or
 * four of UE8M0. A tile is a power of two, so that nothing is divided. */
template <class SHAPE>
static __device__ __forceinline__ const unsigned char *
rt_sm90_scale_at(const struct rt_quant_view &quant, const unsigned char *scales, int half,
                 uint32_t lane)
{
    constexpr int HALF = SHAPE::D_V / 2;
    const uint32_t first = half * HALF, upper = HALF > 128 ? lane / 16 * 128 : 0;
    const int tile_log2 = __ffs((int)quant.tile) - 1;
    return scales + (quant.scale_kind == RT_QUANT_SCALE_F32 ? (first + upper) >> tile_log2 << 2
                                                            : first >> tile_log2);
}

template <class SHAPE>
static __device__ __forceinline__ uint32_t rt_sm90_load_scale(const struct rt_quant_view &quant,
                                                              const unsigned char *scales, int half,
                                                              uint32_t lane)
{
    return rt_load_l2_4(rt_sm90_scale_at<SHAPE>(quant, scales, half, lane));
}

/* What is asked for once a segment, its part and its row, is not kept between segments: registers
 * are for keys on their way. */
template <class SHAPE> struct rt_sm90_block_walk {
    typedef typename rt_sm90_pages_of<SHAPE::LISTED>::type PAGES;
    static constexpr int WARP_KEYS = 64 / SHAPE::LOADING_WARPS;
    static constexpr uint32_t LINE = 128; /* of L2 */
    const typename SHAPE::params &all;
    const struct rt_attend_params &p;
    typename SHAPE::desk &desk;
    PAGES pages;
    struct rt_sm90_block block; /* where the walk is */
    int key_number;             /* this lane's key of it */
    int left;                   /* blocks of the segment, from this one on */
    int settled;                /* keys of the row that are older than the step */
    int32_t entry;              /* of the next block's key */
    uint32_t page;
    struct rt_sm90_found found; /* the block's key */
    int stop_row;               /* of the part: none from there on */
    bool waited;

    __device__ __forceinline__ rt_sm90_block_walk(const typename SHAPE::params &all_,
                                                  typename SHAPE::desk &desk_)
        : all(all_), p(SHAPE::keys::attend(all_)), desk(desk_), pages(all_), entry(-1),
          page(UINT32_MAX), stop_row(INT32_MAX), waited(false)
    {
    }

    __device__ __forceinline__ void wait_for_predecessor(void)
    {
        if (!waited)
            rt_pdl_wait();
        waited = true;
    }

    /* This lane's key of a block, from its first. */
    static __device__ __forceinline__ int lane_key(void)
    {
        return (int)(threadIdx.x / 32 * WARP_KEYS + threadIdx.x % WARP_KEYS);
    }

    /* For this lane's share of the lines of its key. */
    __device__ __forceinline__ void ask_l2(const unsigned char *row) const
    {
        const uint32_t end = min((uint32_t)row_stride_bytes(), RT_SM90_ROW_BYTES);
        for (uint32_t line = threadIdx.x % 32 / WARP_KEYS * LINE; line < end;
             line += 32 / WARP_KEYS * LINE)
            rt_prefetch_l2(row + line);
    }

    /* The step's own keys, the last of a row, are not there before: a warp that has one of them
     * waits, and what it has of others comes as far as L2 meanwhile. A box may have all of a
     * block's. */
    __device__ __forceinline__ void wait_for_keys(void)
    {
        const int keys = SHAPE::BOXED ? RT_BLOCK_TOKENS : WARP_KEYS;
        const int before = SHAPE::BOXED ? lane_key() : (int)(threadIdx.x % WARP_KEYS);
        if (waited || key_number - before + keys <= settled)
            return;
        if (found.page && key_number < settled)
            ask_l2(found.page + found.row * row_stride_bytes());
        wait_for_predecessor();
    }

    /* The part's first segment with a row from `row` on; negative: from its own first. Behind its
     * last row without a look at memory, which the block before would have to wait for. */
    __device__ __forceinline__ void open(int row, uint32_t number)
    {
        struct rt_sm90_rows rows(p);
        struct rt_attend_part part = {};
        struct rt_attend_step at = {RT_ATTEND_NONE, 0, 0, 0, -1};
        if (row < stop_row) {
            rows.begin();
            part = rt_attend_read_part(p, 0, (int)(p.rows.q_len * p.heads) - 1);
            stop_row = part.stop_row;
            at = rows.find(part, row < 0 ? part.begin_row : row);
        }
        if (threadIdx.x < 32) {
            if (at.row != RT_ATTEND_NONE)
                rows.look(at.row);
            rt_sm90_publish(desk, number, part, at, rows);
        }
        left = rt_sm90_blocks(at);
        block = {at.row, number, true, left == 0};
        found = {nullptr, 0, false, -1};
        if (at.row == RT_ATTEND_NONE)
            return;
        key_number = at.key + lane_key();
        settled = at.length - (int)p.rows.q_len;
        pages.begin(part.row_base, at);
        entry = pages.ask(key_number);
        page = pages.follow(key_number, entry);
        found = pages.find(key_number, entry, page);
        entry = pages.ask(key_number + 64);
        wait_for_keys();
    }

    /* Within the segment, and without a look at whether its keys are there; ask_entry is next. */
    __device__ __forceinline__ void step(void)
    {
        left--;
        key_number += 64;
        block.opens = false;
        found = pages.find(key_number, entry, page);
    }

    __device__ __forceinline__ void ask_entry(void)
    {
        entry = pages.ask(key_number + 64);
    }

    /* To the next block, or behind the last. Not from there on. */
    __device__ __forceinline__ void advance(void)
    {
        if (left <= 1) {
            open(block.row + 1, block.segment + 1);
            return;
        }
        step();
        ask_entry();
        wait_for_keys();
    }

    /* By boxes: the next block is the segment's, and its keys are there, so step is enough. */
    __device__ __forceinline__ bool goes_on(void) const
    {
        const int next = key_number - lane_key() + RT_BLOCK_TOKENS;
        return left > 1 && (waited || next + RT_BLOCK_TOKENS <= settled);
    }

    /* Some time behind advance, and before the next one. */
    __device__ __forceinline__ void follow(void)
    {
        page = pages.follow(key_number + 64, entry);
    }

    __device__ __forceinline__ const struct rt_quant_view &view(void) const
    {
        if constexpr (SHAPE::LISTED)
            return found.is_extra ? all.extra_quant : all.quant;
        else
            return all.quant;
    }

    __device__ __forceinline__ int64_t row_stride_bytes(void) const
    {
        if constexpr (SHAPE::LISTED)
            return found.is_extra ? all.sparse.extra_kv.token_stride_bytes
                                  : p.kv.token_stride_bytes;
        else
            return p.kv.token_stride_bytes;
    }

    __device__ __forceinline__ uint32_t load_scale(const struct rt_quant_view &quant,
                                                   const unsigned char *scales, int half) const
    {
        return rt_sm90_by_tensor<typename SHAPE::keys>(quant)
                   ? __float_as_uint(quant.tensor_scale)
                   : rt_sm90_load_scale<SHAPE>(quant, scales, half, threadIdx.x % 32);
    }

    /* By boxes: asks for the block's scales, on their way to words of the desk. */
    __device__ __forceinline__ void ask_scales(uint32_t slot) const
    {
        const struct rt_quant_view &quant = all.quant;
        const unsigned char *scales =
            found.page + quant.scale_offset_bytes + found.row * quant.scale_stride_bytes;
        if (!found.page)
            scales = (const unsigned char *)rt_sm90_no_key;
        if (rt_sm90_by_tensor<typename SHAPE::keys>(quant))
            return;
#pragma unroll
        for (int half = 0; half < 2; half++)
            rt_cp_async_4(&desk.scale[slot][half][threadIdx.x],
                          rt_sm90_scale_at<SHAPE>(quant, scales, half, threadIdx.x % 32));
    }

    /* By boxes: what does not wait for scales. */
    __device__ __forceinline__ struct rt_sm90_quant_key boxed_key(void) const
    {
        return {nullptr, {0, 0}, found.number, (int)found.row};
    }

    /* The block's; asks for its scales. */
    __device__ __forceinline__ struct rt_sm90_quant_key key(void) const
    {
        const struct rt_quant_view &quant = view();
        const unsigned char *row = found.page + found.row * row_stride_bytes();
        const unsigned char *scales =
            found.page + quant.scale_offset_bytes + found.row * quant.scale_stride_bytes;
        if (!found.page)
            row = scales = (const unsigned char *)rt_sm90_no_key;
        return {row,
                {load_scale(quant, scales, 0), load_scale(quant, scales, 1)},
                found.number,
                (int)found.row};
    }
};

#endif
