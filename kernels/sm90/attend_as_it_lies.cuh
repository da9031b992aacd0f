/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_AS_IT_LIES_CUH
#define RT_KERNELS_SM90_ATTEND_AS_IT_LIES_CUH

/*
 * Keys of e4m3 come into their stage as they lie in the cache, by copies that run behind the
 * loading warps' backs: of warp w keys 16 w .. 16 w + 15 of every block, in a row of the stage
 * each. What numbers are multiples of is told beside them; workers make f16 of them
 * (kernels/sm90/attend_bytes.cuh). Of three workers boxes bring them, which the warp asks for that
 * has the box's first key.
 */
#include "kernels/device/ptx/cp_async.cuh"
#include "kernels/device/ptx/tma.cuh"
#include "kernels/sm90/attend_bytes.cuh"
#include "kernels/sm90/attend_convert.cuh"

template <class SHAPE> struct rt_sm90_as_it_lies : rt_sm90_conversion<SHAPE> {
    typedef rt_sm90_conversion<SHAPE> base;
    static constexpr int WARP_KEYS = base::WARP_KEYS;
    static constexpr int REST = SHAPE::D_QK - SHAPE::D_V; /* what is no value */
    using base::p;
    using base::quant;
    using base::room;
    using base::warp;

    const typename SHAPE::params *maps; /* of boxes */
    const uint64_t policy;
    uint32_t asked, told; /* blocks of the part */

    __device__ __forceinline__ rt_sm90_as_it_lies(const typename SHAPE::params &all,
                                                  const rt_sm90_room<SHAPE> &room_)
        : base(all, room_), maps(&all), policy(SHAPE::BOXED ? rt_tma_evict_first() : 0), asked(0),
          told(0)
    {
    }

    /* So many vectors of each key, from there on in its row. */
    template <int OF_KEY>
    __device__ __forceinline__ void copy(uint32_t stage, const struct rt_sm90_quant_key &of,
                                         uint32_t from, uint32_t to) const
    {
        constexpr int KEYS = 32 / OF_KEY; /* of a pass */
        const uint32_t lane = base::my_lane(), vector = lane % OF_KEY * 16;
        unsigned char *at = room.row(stage, (int)(warp * WARP_KEYS + lane / OF_KEY)) + to + vector;
#pragma unroll
        for (int i = 0; i < WARP_KEYS / KEYS; i++)
            rt_cp_async_16(at + i * KEYS * SHAPE::ROW_BYTES,
                           base::row_of(of, i * KEYS + lane / OF_KEY) + from + vector, true);
    }

    __device__ __forceinline__ void copy_rest(uint32_t stage,
                                              const struct rt_sm90_quant_key &of) const
    {
        if (this->rest_is_bf16())
            copy<REST / 8>(stage, of, quant.rest_offset_bytes, SHAPE::D_V);
        else
            copy<REST / 16>(stage, of, SHAPE::D_V, SHAPE::D_V);
    }

    __device__ __forceinline__ void copy_half(uint32_t stage, int half,
                                              const struct rt_sm90_quant_key &of) const
    {
        copy<base::VECTORS>(stage, of, half * base::HALF, half * base::HALF);
        if (half == 1)
            copy_rest(stage, of);
        rt_cp_async_arrive(&room.desk.kv_full[stage][half]);
    }

    /* ---- by boxes ---- */

    /* Of this warp's keys, those that a box begins with. What is behind the row's end or of no page
     * is outside of the tensor, or is whatever the page has there. */
    __device__ __forceinline__ void ask_boxes(uint32_t stage, int half,
                                              const struct rt_sm90_quant_key &of) const
    {
        const uint32_t tokens = min(p.kv.page_size, (uint32_t)RT_BLOCK_TOKENS);
        const uint32_t begin = warp * WARP_KEYS;
        const uint32_t keys = begin % tokens == 0 ? max(tokens, (uint32_t)WARP_KEYS) : 0;
        uint64_t *full = &room.desk.kv_full[stage][half];
        if (rt_elected())
            rt_mbarrier_arrive_expect(full, keys * (base::HALF + (half == 1 ? 128 : 0)));
        __syncwarp();
#pragma unroll 1
        for (uint32_t key = 0; key < keys; key += tokens) {
            const int page = __shfl_sync(RT_ATTEND_FULL_WARP, of.page, key);
            const int token = __shfl_sync(RT_ATTEND_FULL_WARP, of.token, key);
            if (rt_elect_one()) {
                rt_tma_load_5(room.boxed_row(stage, begin + key, half * base::HALF), &maps->kv_map,
                              full, 0, 0, half * (base::HALF / 128), token / 8, page, policy);
                if (half == 1)
                    rt_tma_load_3(room.boxed_rest(stage, begin + key), &maps->kv_rest_map, full, 0,
                                  token, page, policy);
            }
            __syncwarp();
        }
    }

    /* ---- what workers are told ---- */

    static __device__ __forceinline__ bool is_finite(uint32_t scale)
    {
        return (scale & 0x7f800000u) != 0x7f800000u;
    }

    /* Scores of a key one of whose scales is not finite are NaN, and with them all that its query
     * rows get; what others multiply by a weight of 0 is finite. */
    __device__ __forceinline__ void mark(uint32_t stage, const struct rt_sm90_quant_key &of,
                                         float unit) const
    {
        const uint32_t lane = base::my_lane(), key = warp * WARP_KEYS + lane;
        const uint32_t mine = is_finite(of.scale[0]) && is_finite(of.scale[1]) ? 1 : 0;
        const bool finite = (mine & __shfl_xor_sync(RT_ATTEND_FULL_WARP, mine, 16)) != 0;
        if (lane < WARP_KEYS) {
            const int lift = rt_sm90_lift(finite ? unit : 1.0f);
            const float lowered = rt_sm90_power_of_2(-lift);
            room.desk.unit[stage][key] = finite ? unit : RT_SM90_NAN;
            room.desk.lift[stage][key] = (float)lift;
            room.desk.lowered[stage][key] = lowered;
            room.desk.weight[stage][key] = (finite ? unit : 1.0f) * lowered * RT_SM90_WEIGHT_UNITS;
        }
        if constexpr (SHAPE::LISTED) {
            const bool found = of.row != (const unsigned char *)rt_sm90_no_key;
            const uint32_t there = __ballot_sync(RT_ATTEND_FULL_WARP, found);
            if (rt_elected())
                rt_sm90_list<WARP_KEYS>(room.desk.listed[stage], warp, there);
        }
    }

    /* Lanes 0-15 have the scales of a half's first columns, 16-31 those of its others. */
    __device__ __forceinline__ void mark_half(uint32_t stage, int half, uint32_t scale,
                                              float inverse) const
    {
        if (!this->has_tiles())
            return;
        const uint32_t lane = base::my_lane();
        const int at = (int)(warp * WARP_KEYS) + rt_sm90_row_of_key((int)(lane % WARP_KEYS));
        const float factor = is_finite(scale) ? __uint_as_float(scale) * inverse : 0.0f;
        room.desk.factor[stage][half * 2 + lane / 16][at] = (uint16_t)rt_pack_f16x2(factor, 0.0f);
    }

    /* For the next block's bytes. */
    __device__ __forceinline__ void ask(const struct rt_sm90_quant_key &of)
    {
        const uint32_t stage = asked % SHAPE::STAGES, parity = (asked / SHAPE::STAGES & 1) ^ 1;
        asked++;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            rt_mbarrier_wait(&room.desk.kv_empty[stage][half], parity);
            if constexpr (SHAPE::BOXED)
                ask_boxes(stage, half, of);
            else
                copy_half(stage, half, of);
        }
    }

    /* Of a block that has been asked for: what workers are told waits for scales. */
    __device__ __forceinline__ void tell_units(const struct rt_sm90_quant_key &of)
    {
        const uint32_t stage = told % SHAPE::STAGES;
        told++;
        struct rt_sm90_key_units units = {__uint_as_float(of.scale[0]), 1.0f, {}, false};
        if (this->has_tiles())
            units = this->tile_units(of, 0);
        mark(stage, of, units.unit);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            mark_half(stage, half, of.scale[half], units.inverse);
            this->tell(stage, half);
        }
    }

    /* A block that no other is in front of: asks for it. */
    __device__ __forceinline__ void begin(const struct rt_sm90_quant_key &of, bool there)
    {
        if (there)
            ask(of);
    }

    /* Likewise, some time behind begin. */
    __device__ __forceinline__ void settle(const struct rt_sm90_quant_key &of, bool there)
    {
        if (there)
            tell_units(of);
    }

    /* A block that has been asked for; asks for the one behind it, if there is one. */
    __device__ __forceinline__ void bring(uint32_t, const struct rt_sm90_quant_key &,
                                          const struct rt_sm90_quant_key &next, bool more)
    {
        if (!more)
            return;
        ask(next);
        tell_units(next);
    }

    /* Where scales of block `told + ahead` are on their way to. */
    __device__ __forceinline__ uint32_t slot(uint32_t ahead) const
    {
        return (told + ahead) % 2;
    }

    /* A block by itself, which may have been asked for, and whose scales one group of copies is
     * behind. */
    __device__ __forceinline__ void bring_one(struct rt_sm90_quant_key of)
    {
        if (asked == told)
            ask(of);
        rt_cp_async_wait<1>();
#pragma unroll
        for (int half = 0; half < 2; half++)
            of.scale[half] = rt_sm90_by_tensor<typename SHAPE::keys>(quant)
                                 ? __float_as_uint(quant.tensor_scale)
                                 : room.desk.scale[slot(0)][half][threadIdx.x];
        tell_units(of);
    }
};

#endif
