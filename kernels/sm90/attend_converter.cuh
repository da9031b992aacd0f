/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_CONVERTER_CUH
#define RT_KERNELS_SM90_ATTEND_CONVERTER_CUH

/*
 * The loading warps where keys are e4m3: each walks for itself, a block ahead, and brings its share
 * of every block, converted or not. WAY is how that comes: kernels/sm90/attend_as_it_lies.cuh,
 * kernels/sm90/attend_ahead.cuh, kernels/sm90/attend_in_place.cuh.
 */
#include "kernels/sm90/attend_ahead.cuh"
#include "kernels/sm90/attend_as_it_lies.cuh"
#include "kernels/sm90/attend_in_place.cuh"
#include "kernels/sm90/attend_queries.cuh"

template <class SHAPE, bool AHEAD, bool BYTES> struct rt_sm90_way {
    typedef rt_sm90_in_place<SHAPE> type;
};
template <class SHAPE> struct rt_sm90_way<SHAPE, true, false> {
    typedef rt_sm90_ahead<SHAPE> type;
};
template <class SHAPE> struct rt_sm90_way<SHAPE, false, true> {
    typedef rt_sm90_as_it_lies<SHAPE> type;
};
template <class SHAPE>
using rt_sm90_way_of = typename rt_sm90_way<SHAPE, (SHAPE::AHEAD_BYTES > 0), SHAPE::BYTES>::type;

template <class SHAPE> struct rt_sm90_converter : rt_sm90_way_of<SHAPE> {
    typedef rt_sm90_way_of<SHAPE> WAY;
    static constexpr uint32_t QUERY_WARP = 1;

    const rt_sm90_queries<SHAPE> queries;
    rt_sm90_block_walk<SHAPE> walk;

    __device__ __forceinline__ rt_sm90_converter(const typename SHAPE::params &all,
                                                 const rt_sm90_room<SHAPE> &room_)
        : WAY(all, room_), queries(all, room_), walk(all, room_.desk)
    {
    }

    /* Where keys stay bytes workers bring q themselves (kernels/sm90/attend_bytes.cuh). */
    __device__ __forceinline__ void bring_query(const struct rt_sm90_block &block)
    {
        walk.wait_for_predecessor();
        if (block.segment == 0)
            rt_pdl_launch_dependents();
        if constexpr (!SHAPE::BYTES)
            queries.bring(block.segment, block.row);
        if (block.segment == 0)
            queries.stamp();
    }

    /* Whether the walk is at a block with keys. */
    __device__ __forceinline__ bool there(void) const
    {
        return walk.block.row != RT_ATTEND_NONE && !walk.block.is_empty;
    }

    /* ---- a block ahead ---- */

    /* The first q is as urgent as the first keys, and scales are a trip to memory; a later one may
     * have to wait for the segment before, of which the next stage is free earlier. */
    __device__ __forceinline__ struct rt_sm90_block bring_all(void)
    {
        uint32_t j = 0;
        struct rt_sm90_block block = walk.block;
        struct rt_sm90_quant_key key = walk.key();
        const bool is_first_there = there();
        this->begin(key, is_first_there);
        if (this->warp == QUERY_WARP && block.row != RT_ATTEND_NONE)
            bring_query(block);
        this->settle(key, is_first_there);
        walk.follow();
        while (block.row != RT_ATTEND_NONE) {
            walk.advance();
            const struct rt_sm90_quant_key next = walk.key();
            if (block.is_empty) {
                this->begin(next, there());
                this->settle(next, there());
            } else {
                this->bring(j++, key, next, there());
            }
            if (this->warp == QUERY_WARP && block.opens && block.segment > 0)
                bring_query(block);
            walk.follow();
            block = walk.block;
            key = next;
        }
        return block;
    }

    /* ---- by boxes: scales two blocks ahead ---- */

    /* A block, and in front of it, if the walk goes on, asks for scales of the next one: two blocks
     * share a trip to memory. A group of copies a block, so that as many are behind one as ever. */
    __device__ __forceinline__ bool bring_boxed(void)
    {
        const struct rt_sm90_quant_key key = walk.boxed_key();
        const bool goes_on = walk.goes_on();
        if (goes_on) {
            walk.follow();
            walk.step();
            walk.ask_scales(this->slot(1));
            walk.ask_entry(); /* here, where the one before is not kept: to copy it is to wait */
        }
        rt_cp_async_commit();
        this->bring_one(key);
        return goes_on;
    }

    /* What the walk has to wait for, another segment or the step's own keys, is behind what can be
     * asked for before. */
    __device__ __forceinline__ struct rt_sm90_block bring_all_boxed(void)
    {
        for (bool first = true; walk.block.row != RT_ATTEND_NONE; first = false) {
            const bool has_keys = there();
            if (has_keys)
                walk.ask_scales(this->slot(0));
            rt_cp_async_commit();
            this->begin(walk.boxed_key(), has_keys);
            if (first && this->warp == QUERY_WARP)
                bring_query(walk.block);
            while (has_keys && bring_boxed()) {
            }
            walk.follow();
            walk.advance();
        }
        return walk.block;
    }

    __device__ __forceinline__ void run(void)
    {
        struct rt_sm90_block block;
        if (!this->p.early || SHAPE::LISTED)
            walk.wait_for_predecessor();
        walk.open(-1, 0);
        if constexpr (SHAPE::BOXED)
            block = bring_all_boxed();
        else
            block = bring_all();
        walk.wait_for_predecessor();
        if (this->warp == QUERY_WARP && block.segment == 0) {
            rt_pdl_launch_dependents();
            queries.stamp();
        }
    }
};

#endif
