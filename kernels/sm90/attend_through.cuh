/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_THROUGH_CUH
#define RT_KERNELS_SM90_ATTEND_THROUGH_CUH

/*
 * Who brings keys of e4m3 where 64 query rows leave no room for bytes on their way: two warp groups
 * of loading warps, of which warp w has keys 8 w .. 8 w + 7 of every block. Bytes come into
 * registers while workers still read the half of the stage that they go to, and become f16 on their
 * way into it; so does what is no value, or stays bf16.
 *
 *   half 0 (j)    wait for it │ convert passes, and load half 1's in their place    │ tell
 *   half 1 (j)    wait for it │ likewise, half 0's of j + 1; what is no value: store │ tell
 *   behind j      a step towards the next four blocks, whose keys have a lane each: entry │ page │
 *                 place, and L2 is asked for all of them
 *
 * A scheduler has two such warps, one of which converts while the other waits. The first 32 keys
 * are those of warps 0 to 3, who need not wait for workers to leave the others'. There are
 * registers for half a block on its way and no more: what the compiler has to keep elsewhere it
 * keeps behind L2, since shared memory leaves L1 hardly any room, and waits for it. So little is
 * remembered: places are found once in four blocks, while others are brought, and what a warp
 * knows of its segment is in the desk.
 */
#include "kernels/device/ptx/load_l2.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/sm90/attend_blocks.cuh"
#include "kernels/sm90/attend_convert.cuh"
#include "kernels/sm90/attend_queries.cuh"

template <class SHAPE> struct rt_sm90_through : rt_sm90_conversion<SHAPE> {
    typedef rt_sm90_conversion<SHAPE> base;
    typedef typename rt_sm90_pages_of<SHAPE::LISTED>::type PAGES;
    static constexpr int WARP_KEYS = base::WARP_KEYS, CHUNK = base::CHUNK;
    static constexpr int BLOCKS = 32 / WARP_KEYS; /* whose keys a warp has a lane each for */
    static_assert(BLOCKS == 4, "of four blocks, of which three have a step towards the next");
    static_assert(base::HALF_CHUNKS == 1, "a half at once");
    static constexpr bool HAS_REST = base::HAS_REST;
    /* Of it as e4m3: eight keys or more are a pass. */
    static constexpr int FP8_VECTORS = base::REST / 16;
    static constexpr uint32_t QUERY_WARP = 1;
    using base::p;
    using base::quant;
    using base::room;
    using base::warp;

    const typename SHAPE::params &all;
    const rt_sm90_queries<SHAPE> queries;
    uint32_t block;             /* of the whole part, counted over all segments */
    const unsigned char *place; /* of this lane's key of four blocks; of no key zeros */
    uint32_t to_scales;         /* from there on, in bytes; or the one scale, as a float's bits */
    uint32_t ahead[3];          /* of the next four: entry, then page too, then place and scales */
    bool waited;

    __device__ __forceinline__ rt_sm90_through(const typename SHAPE::params &all_,
                                               const rt_sm90_room<SHAPE> &room_)
        : base(all_, room_), all(all_), queries(all_, room_), block(0), place(nullptr),
          to_scales(0), ahead(), waited(false)
    {
    }

    __device__ __forceinline__ void wait_for_predecessor(void)
    {
        if (!waited)
            rt_pdl_wait();
        waited = true;
    }

    /* ---- where keys are ---- */

    __device__ __forceinline__ void take_place(const struct rt_sm90_found &found)
    {
        const struct rt_quant_view *view = &all.quant;
        int64_t stride = p.kv.token_stride_bytes;
        if constexpr (SHAPE::LISTED) {
            view = found.is_extra ? &all.extra_quant : view;
            stride = found.is_extra ? all.sparse.extra_kv.token_stride_bytes : stride;
        }
        place = found.page + found.row * stride;
        to_scales =
            (uint32_t)(view->scale_offset_bytes + found.row * (view->scale_stride_bytes - stride));
        if (!found.page) {
            place = (const unsigned char *)rt_sm90_no_key;
            to_scales = 0;
        }
        if (view->scale_kind == RT_QUANT_SCALE_TENSOR)
            to_scales = __float_as_uint(view->tensor_scale);
    }

    __device__ __forceinline__ PAGES my_pages(void) const
    {
        PAGES pages(all);
        pages.recall(room.desk.walk[warp].pages);
        return pages;
    }

    /* This lane's of four blocks from `key` on. */
    __device__ __forceinline__ int my_key(int key) const
    {
        const int lane = (int)base::my_lane();
        return key + lane / WARP_KEYS * 64 + (int)warp * WARP_KEYS + lane % WARP_KEYS;
    }

    /* From `key` on, of a segment's first. */
    __device__ __forceinline__ void find_four(int key)
    {
        const PAGES pages = my_pages();
        const int mine = my_key(key);
        const int32_t entry = pages.ask(mine);
        take_place(pages.find(mine, entry, pages.follow(mine, entry)));
    }

    /* Asks L2 for this lane's key, line by line. */
    __device__ __forceinline__ void bring_closer(void) const
    {
        constexpr uint32_t LINE = 128;
        const unsigned char *end =
            place + (this->rest_is_bf16() ? quant.rest_offset_bytes + 2 * base::REST : SHAPE::D_QK);
        const unsigned char *line = place - (uint64_t)place % LINE;
#pragma unroll
        for (uint32_t at = 0; at < RT_SM90_ROW_BYTES; at += LINE)
            if (line + at < end)
                rt_prefetch_l2(line + at);
    }

    /* Of the next four, from `key` on: a trip to memory behind each of three blocks. */
    __device__ __forceinline__ void look_ahead(int key, int step)
    {
        const PAGES pages = my_pages();
        const int mine = my_key(key);
        if (step == 0) {
            ahead[0] = (uint32_t)pages.ask(mine);
        } else if (step == 1) {
            ahead[1] = pages.follow(mine, (int32_t)ahead[0]);
        } else if (step == 2) {
            const unsigned char *was = place;
            const uint32_t was_to = to_scales;
            take_place(pages.find(mine, (int32_t)ahead[0], ahead[1]));
            bring_closer();
            ahead[0] = (uint32_t)(uint64_t)place;
            ahead[1] = (uint32_t)((uint64_t)place >> 32);
            ahead[2] = to_scales;
            place = was;
            to_scales = was_to;
        }
    }

    __device__ __forceinline__ void take_ahead(void)
    {
        place = (const unsigned char *)((uint64_t)ahead[1] << 32 | ahead[0]);
        to_scales = ahead[2];
    }

    /* A key's row, of one of the four blocks. By the whole warp. */
    __device__ __forceinline__ const unsigned char *row(int of_four, uint32_t key) const
    {
        return base::row_of(place, of_four * WARP_KEYS + key);
    }

    /* Scales of lane % WARP_KEYS's, of one of the four blocks, for units. By the whole warp. */
    __device__ __forceinline__ struct rt_sm90_quant_key scales_of(int of_four) const
    {
        const uint32_t lane = base::my_lane(), key = lane % WARP_KEYS;
        const uint32_t by = __shfl_sync(RT_ATTEND_FULL_WARP, to_scales, of_four * WARP_KEYS + key);
        if (quant.scale_kind == RT_QUANT_SCALE_TENSOR)
            return {nullptr, {by, by}, -1, 0};
        const unsigned char *scales = row(of_four, key) + (int32_t)by;
        return {nullptr,
                {rt_sm90_load_scale<SHAPE>(quant, scales, 0, lane),
                 rt_sm90_load_scale<SHAPE>(quant, scales, 1, lane)},
                -1,
                0};
    }

    /* ---- loads ---- */

    /* Of a half's passes those from FIRST to END. */
    template <int FIRST, int END>
    __device__ __forceinline__ void load_passes(int of_four, int half, uint4 (&to)[CHUNK]) const
    {
        const uint32_t lane = base::my_lane(), at = half * base::HALF + base::vector(lane) * 16;
        const unsigned char *from[CHUNK];
#pragma unroll
        for (int i = FIRST; i < END; i++)
            from[i] = row(of_four, base::key_of(lane, i));
#pragma unroll
        for (int i = FIRST; i < END; i++)
            to[i] = rt_load_l2_16(from[i] + at);
    }

    /* bf16, pass by pass. */
    __device__ __forceinline__ void load_rest(int of_four, uint4 (&to)[base::REST_PASSES]) const
    {
        const uint32_t lane = base::my_lane();
        const uint32_t at = quant.rest_offset_bytes + lane % base::REST_VECTORS * 16;
#pragma unroll
        for (int i = 0; i < base::REST_PASSES; i++)
            to[i] =
                rt_load_l2_16(row(of_four, i * base::REST_KEYS + lane / base::REST_VECTORS) + at);
    }

    /* e4m3, which lanes behind the last key have as others have. */
    __device__ __forceinline__ uint4 load_fp8_rest(int of_four) const
    {
        const uint32_t lane = base::my_lane();
        return rt_load_l2_16(row(of_four, lane / FP8_VECTORS % WARP_KEYS) + SHAPE::D_V +
                             lane % FP8_VECTORS * 16);
    }

    /* ---- what is no value ---- */

    __device__ __forceinline__ void keep_rest(uint32_t stage,
                                              const uint4 (&rest)[base::REST_PASSES]) const
    {
        const uint32_t lane = base::my_lane(), first = lane / base::REST_VECTORS;
#pragma unroll
        for (int i = 0; i < base::REST_PASSES; i++)
            *(uint4 *)room.rest_vector(stage, (int)(warp * WARP_KEYS + first) + i * base::REST_KEYS,
                                       (int)(lane % base::REST_VECTORS)) = rest[i];
    }

    /* Of a token with one scale, which is finite. */
    __device__ __forceinline__ void widen_rest(uint32_t stage, const uint4 &rest) const
    {
        const int lane = (int)base::my_lane(), key = lane / FP8_VECTORS;
        if (key >= WARP_KEYS)
            return;
        const int row = (int)warp * WARP_KEYS + key, vector = lane % FP8_VECTORS * 2;
        *(uint4 *)room.rest_vector(stage, row, vector) = rt_sm90_widen_8<false>(rest.x, rest.y, 0);
        *(uint4 *)room.rest_vector(stage, row, vector + 1) =
            rt_sm90_widen_8<false>(rest.z, rest.w, 0);
    }

    /* ---- a block ---- */

    /* For all keys of the half to be left. */
    __device__ __forceinline__ void wait_for_all(uint32_t j, int half) const
    {
        rt_mbarrier_wait(&room.desk.kv_empty[j % SHAPE::STAGES][half], (j / SHAPE::STAGES & 1) ^ 1);
    }

    /* This warp's keys are those that are given back first. */
    __device__ __forceinline__ bool is_early(void) const
    {
        return SHAPE::IN_PIECES && warp * WARP_KEYS < SHAPE::PIECE;
    }

    /* For this warp's keys of the half to be left. */
    __device__ __forceinline__ void wait_for(uint32_t j, int half) const
    {
        uint64_t *empty = &room.desk.kv_empty[j % SHAPE::STAGES][half];
        if constexpr (SHAPE::IN_PIECES)
            if (is_early())
                empty = &room.desk.kv_early[j % SHAPE::STAGES][half];
        rt_mbarrier_wait(empty, (j / SHAPE::STAGES & 1) ^ 1);
    }

    /* bf16 that values have share the key's unit. */
    __device__ __forceinline__ struct rt_sm90_key_units units_of(const struct rt_sm90_quant_key &of,
                                                                 int of_four) const
    {
        uint32_t most = 0;
        if (!HAS_REST && this->rest_is_bf16()) {
            uint4 rest[base::REST_PASSES];
            load_rest(of_four, rest);
            most = base::most_of_rest(rest);
        }
        return this->find_units(of, most);
    }

    /* Beside half 1. */
    __device__ __forceinline__ void load_last(int of_four, uint4 (&rest)[base::REST_PASSES]) const
    {
        if (this->rest_is_bf16())
            load_rest(of_four, rest);
        else if (HAS_REST)
            rest[0] = load_fp8_rest(of_four);
    }

    /* Both workers have left the stage then, weights too. */
    __device__ __forceinline__ void put_last(uint32_t j, const struct rt_sm90_key_units &units,
                                             const uint4 (&rest)[base::REST_PASSES]) const
    {
        const uint32_t stage = j % SHAPE::STAGES;
        if (HAS_REST && is_early()) {
            wait_for_all(j, 0);
            wait_for_all(j, 1);
        }
        if (HAS_REST && !this->rest_is_bf16())
            widen_rest(stage, rest[0]);
        else if (HAS_REST)
            keep_rest(stage, rest);
        else if (this->rest_is_bf16())
            this->put_rest(units, stage, rest);
    }

    /* A half of block j, out of registers that then get a half of the block `next` of the four. */
    __device__ __forceinline__ void turn(uint32_t j, int half,
                                         const struct rt_sm90_key_units &units, int next,
                                         int next_half, uint4 (&keys)[CHUNK]) const
    {
        constexpr int MIDDLE = CHUNK / 2;
        const uint32_t stage = j % SHAPE::STAGES;
        uint32_t factor[CHUNK] = {};
        if (units.multiplies)
            this->find_factors(units, base::my_lane(), half, factor);
        base::template convert_passes<0, MIDDLE>(units.multiplies, stage, half, keys, factor);
        load_passes<0, MIDDLE>(next, next_half, keys);
        base::template convert_passes<MIDDLE, CHUNK>(units.multiplies, stage, half, keys, factor);
        load_passes<MIDDLE, CHUNK>(next, next_half, keys);
    }

    /* Block j, whose half 0 and scales are in registers or on their way; in their place the next
     * one's. */
    __device__ __forceinline__ void bring(uint32_t j, int of_four, uint4 (&keys)[CHUNK],
                                          struct rt_sm90_quant_key &scales)
    {
        const uint32_t stage = j % SHAPE::STAGES;
        const struct rt_sm90_key_units units = units_of(scales, of_four);
        const uint32_t found =
            base::find_found(place) >> of_four * WARP_KEYS & ((1u << WARP_KEYS) - 1);
        uint4 rest[base::REST_PASSES] = {};
        wait_for(j, 0);
        this->mark_units(stage, units);
        this->mark_found(stage, found);
        turn(j, 0, units, of_four, 1, keys);
        this->tell(stage, 0);
        load_last(of_four, rest);
        const int next = (of_four + 1) % BLOCKS;
        if (next == 0)
            take_ahead();
        scales = scales_of(next);
        wait_for(j, 1);
        turn(j, 1, units, next, 0, keys);
        put_last(j, units, rest);
        this->tell(stage, 1);
    }

    /* ---- a part ---- */

    __device__ __forceinline__ void bring_query(uint32_t n, int row)
    {
        if (warp != QUERY_WARP)
            return;
        wait_for_predecessor();
        if (n == 0)
            rt_pdl_launch_dependents();
        queries.bring(n, row);
        if (n == 0)
            queries.stamp();
    }

    /*
     * q of the first segment is as urgent as its keys; a later one may have to wait for the segment
     * before, of which the next stage is free earlier. The step's own keys, the last of a row, are
     * not there before the kernel in front has ended.
     */
    __device__ __forceinline__ void bring_segment(uint32_t n, int row, int key, int blocks)
    {
        const auto &walk = room.desk.walk[warp];
        if (n == 0 || blocks == 0)
            bring_query(n, row);
        if (blocks == 0)
            return;
        find_four(key);
        if (key + 64 > walk.settled)
            wait_for_predecessor();
        uint4 keys[CHUNK];
        struct rt_sm90_quant_key scales = scales_of(0);
        load_passes<0, CHUNK>(0, 0, keys);
#pragma unroll 1
        for (int i = 0; i < walk.blocks; i++) {
            if (walk.key + 64 * i + 128 > walk.settled)
                wait_for_predecessor(); /* the next one is asked for */
            bring(block++, i % BLOCKS, keys, scales);
            if (i == 0 && walk.number > 0)
                bring_query(walk.number, walk.next - 1);
            look_ahead(walk.key + 64 * (i - i % BLOCKS + BLOCKS), i % BLOCKS);
        }
    }

    /* For the rest of the segment; the warp has what it has read before. */
    __device__ __forceinline__ void keep(const PAGES &pages, int key, int blocks, int settled,
                                         int next, int stop, uint32_t n) const
    {
        __syncwarp();
        if (rt_elected()) {
            pages.keep(room.desk.walk[warp].pages);
            room.desk.walk[warp].key = key;
            room.desk.walk[warp].blocks = blocks;
            room.desk.walk[warp].settled = settled;
            room.desk.walk[warp].next = next;
            room.desk.walk[warp].stop = stop;
            room.desk.walk[warp].number = n;
        }
        __syncwarp();
    }

    /* What is asked for once a segment, its part and its row, is not kept between segments. */
    __device__ __forceinline__ void run(void)
    {
        if (!p.early || SHAPE::LISTED)
            wait_for_predecessor();
        int next = -1, stop = INT32_MAX;
        uint32_t n = 0;
        for (;;) {
            struct rt_sm90_rows rows(p);
            struct rt_attend_part part = {};
            struct rt_attend_step at = {RT_ATTEND_NONE, 0, 0, 0, -1};
            if (next < stop) {
                rows.begin();
                part = rt_attend_read_part(p, 0, (int)(p.rows.q_len * p.heads) - 1);
                stop = part.stop_row;
                at = rows.find(part, next < 0 ? part.begin_row : next);
            }
            if (warp == 0) {
                if (at.row != RT_ATTEND_NONE)
                    rows.look(at.row);
                rt_sm90_publish(room.desk, n, part, at, rows);
            }
            if (at.row == RT_ATTEND_NONE)
                break;
            PAGES pages(all);
            pages.begin(part.row_base, at);
            keep(pages, at.key, rt_sm90_blocks(at), at.length - (int)p.rows.q_len, at.row + 1, stop,
                 n);
            bring_segment(n, at.row, at.key, rt_sm90_blocks(at));
            next = room.desk.walk[warp].next;
            stop = room.desk.walk[warp].stop;
            n = room.desk.walk[warp].number + 1;
        }
        wait_for_predecessor();
        if (warp == QUERY_WARP && n == 0) {
            rt_pdl_launch_dependents();
            queries.stamp();
        }
    }
};

#endif
