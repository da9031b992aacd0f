/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_IN_PLACE_CUH
#define RT_KERNELS_SM90_ATTEND_IN_PLACE_CUH

/*
 * Who brings keys of e4m3 where shared memory is full: they come as they lie into the very stage in
 * which they become f16, as soon as workers have left a half of it; between two chunks of a
 * conversion the loading warps look whether they have.
 *
 * A warp's sixteen keys are two groups of eight, and their bytes as they lie fill one, the second:
 *
 *   bytes of the half   | group 0: f16 of keys 0-7 | group 1: all as they lie, then f16 of 8-15 |
 *
 * What takes the place of others' bytes waits until they have them in registers. What is no value
 * comes into its warp's rows of that tile, and bf16 that values have into the weights' tile, which
 * is free until there are scores.
 */
#include "kernels/sm90/attend_raw.cuh"

template <class SHAPE> struct rt_sm90_in_place : rt_sm90_raw<SHAPE> {
    typedef rt_sm90_raw<SHAPE> base;
    static_assert(base::HALF_BYTES == SHAPE::GROUP_BYTES, "a group has all");
    using base::parity_of;
    using base::room;
    using base::stage_of;
    using base::warp;

    uint32_t asked; /* halves of the part's blocks */

    __device__ __forceinline__ rt_sm90_in_place(const typename SHAPE::params &all,
                                                const rt_sm90_room<SHAPE> &room_)
        : base(all, room_), asked(0)
    {
    }

    __device__ __forceinline__ unsigned char *half_at(uint32_t block, int half) const
    {
        return room.half(stage_of(block), half) + (2 * warp + 1) * SHAPE::GROUP_BYTES +
               base::my_lane() * 16;
    }

    __device__ __forceinline__ unsigned char *rest_at(uint32_t block) const
    {
        return room.tile(stage_of(block), SHAPE::P_TILE) + warp * base::REST_BYTES +
               base::my_lane() * 16;
    }

    __device__ __forceinline__ uint64_t *empty_of(uint32_t number) const
    {
        return &room.desk.kv_empty[stage_of(number / 2)][number % 2];
    }

    /* The next half, of a block with these keys. */
    __device__ __forceinline__ void ask_half(const struct rt_sm90_quant_key &of)
    {
        const uint32_t block = asked / 2;
        const int half = (int)(asked % 2);
        this->copy_half(half_at(block, half), half, of);
        if (half == 1)
            this->copy_rest(rest_at(block), of);
        rt_cp_async_commit();
        asked++;
    }

    /* All of the block. */
    __device__ __forceinline__ void ask_all(uint32_t block, const struct rt_sm90_quant_key &of)
    {
        while (asked < 2 * (block + 1)) {
            rt_mbarrier_wait(empty_of(asked), parity_of(asked / 2));
            ask_half(of);
        }
    }

    /* What has come free of its stage. */
    __device__ __forceinline__ void ask_some(uint32_t block, const struct rt_sm90_quant_key &of)
    {
        while (asked < 2 * (block + 1)) {
            const bool is_free = rt_mbarrier_test(empty_of(asked), parity_of(asked / 2));
            if (__any_sync(RT_ATTEND_FULL_WARP, !is_free))
                return;
            ask_half(of);
        }
    }

    /* This lane's bytes of a half are there. */
    __device__ __forceinline__ void wait_for(uint32_t number) const
    {
        const uint32_t behind = asked - number - 1;
        if (behind == 0)
            rt_cp_async_wait<0>();
        else if (behind == 1)
            rt_cp_async_wait<1>();
        else if (behind == 2)
            rt_cp_async_wait<2>();
        else
            rt_cp_async_wait<3>();
    }

    /* Of the first block nothing is free before it is. */
    __device__ __forceinline__ void begin(const struct rt_sm90_quant_key &, bool)
    {
    }

    /* What as_it_lies tells of it. */
    __device__ __forceinline__ void settle(const struct rt_sm90_quant_key &, bool)
    {
    }

    /* Block j; and asks for what it can of the one behind it, if there is one. */
    __device__ __forceinline__ void bring(uint32_t j, const struct rt_sm90_quant_key &of,
                                          const struct rt_sm90_quant_key &next, bool more)
    {
        ask_all(j, of);
        if (this->rest_is_bf16()) /* whose unit all share */
            wait_for(2 * j + 1);
        const struct rt_sm90_key_units units = this->units_of(of, rest_at(j));
        this->mark(stage_of(j), of, units);
#pragma unroll 1
        for (int half = 0; half < 2; half++) {
            wait_for(2 * j + half);
#pragma unroll 1
            for (int part = 0; part < base::HALF_CHUNKS; part++) {
                if (more)
                    ask_some(j + 1, next);
                this->convert_part(half_at(j, half), stage_of(j), half, part, units);
            }
            if (half == 1)
                this->convert_rest(rest_at(j), stage_of(j), units);
            this->tell(stage_of(j), half);
        }
    }
};

#endif
