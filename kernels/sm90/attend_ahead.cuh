/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_AHEAD_CUH
#define RT_KERNELS_SM90_ATTEND_AHEAD_CUH

/*
 * Who brings keys of e4m3 where query rows are few, memory sets the pace and shared memory has room
 * for a block as it lies: that one is on its way while workers have both stages. Once a half of it
 * has been converted, its place is asked for the next block's.
 *
 *   convert   half 0 (j)       half 1 (j)       half 0 (j + 1)
 *   ask       half 0 (j + 1)   half 1 (j + 1)   half 0 (j + 2)
 */
#include "kernels/sm90/attend_raw.cuh"

template <class SHAPE> struct rt_sm90_ahead : rt_sm90_raw<SHAPE> {
    typedef rt_sm90_raw<SHAPE> base;
    static constexpr int WARP_BYTES = 2 * base::HALF_BYTES + base::REST_BYTES;
    static_assert(SHAPE::LOADING_WARPS * WARP_BYTES == SHAPE::AHEAD_BYTES, "a block has room");
    using base::parity_of;
    using base::room;
    using base::stage_of;

    __device__ __forceinline__ rt_sm90_ahead(const typename SHAPE::params &all,
                                             const rt_sm90_room<SHAPE> &room_)
        : base(all, room_)
    {
    }

    /* This lane's; of half 2 what is no value. */
    __device__ __forceinline__ unsigned char *half_at(int half) const
    {
        return room.ahead + this->warp * WARP_BYTES + half * base::HALF_BYTES +
               base::my_lane() * 16;
    }

    /* Of no keys too, so that as many are behind one as ever. */
    __device__ __forceinline__ void ask(int half, const struct rt_sm90_quant_key &of, bool there)
    {
        if (there) {
            this->copy_half(half_at(half), half, of);
            if (half == 1)
                this->copy_rest(half_at(2), of);
        }
        rt_cp_async_commit();
    }

    /* A block that no other is in front of. */
    __device__ __forceinline__ void begin(const struct rt_sm90_quant_key &of, bool there)
    {
        ask(0, of, there);
        ask(1, of, there);
    }

    /* What as_it_lies tells of it. */
    __device__ __forceinline__ void settle(const struct rt_sm90_quant_key &, bool)
    {
    }

    /* Block j, which is on its way; and asks for the one behind it, if there is one. */
    __device__ __forceinline__ void bring(uint32_t j, const struct rt_sm90_quant_key &of,
                                          const struct rt_sm90_quant_key &next, bool more)
    {
        const uint32_t stage = stage_of(j);
        if (this->rest_is_bf16()) /* whose unit all share */
            rt_cp_async_wait<0>();
        const struct rt_sm90_key_units units = this->units_of(of, half_at(2));
#pragma unroll 1
        for (int half = 0; half < 2; half++) {
            rt_cp_async_wait<1>();
            rt_mbarrier_wait(&room.desk.kv_empty[stage][half], parity_of(j));
            if (half == 0)
                this->mark(stage, of, units);
#pragma unroll 1
            for (int part = 0; part < base::HALF_CHUNKS; part++)
                this->convert_part(half_at(half), stage, half, part, units);
            if (half == 1)
                this->convert_rest(half_at(2), stage, units);
            ask(half, next, more);
            this->tell(stage, half);
        }
    }
};

#endif
