/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_CONVERT_CUH
#define RT_KERNELS_SM90_ATTEND_CONVERT_CUH

/*
 * Keys of e4m3 (kernels/abi/quant.h), or their values alone, become f16, in the swizzle that the
 * copy engine would have made, and what they are multiples of, for those who work. By the loading
 * warps, of which warp w has keys 16 w .. 16 w + 15 of every block; of eight, 8 w .. 8 w + 7.
 *
 *   a pass    16 bytes a lane, all of a half of 32 / VECTORS keys
 *   lane      | key, high | vector, high | key, low | vector, low 2 bits |
 *   a chunk   4 passes, or all of a half
 *
 * So eight lanes, which store at the same time, have two neighbours of keys and every other vector
 * of a tile, and meet no bank twice.
 *
 *   one scale a token   the numbers as they are, S the scale
 *   several             S a power of two, so that none is above 64 S and no bf16 of a value beyond
 *                       2^15 S; numbers times scale / S, which is exact where scales are powers of
 *                       two, but for what is then below 2^-20: off by 2^-25 at most
 *
 * A scale that is not finite is in the numbers, so that it is where NaN is looked for.
 */
#include "kernels/device/bf16.cuh"
#include "kernels/device/ptx/convert_e4m3.cuh"
#include "kernels/device/ptx/f16x2.cuh"
#include "kernels/device/ptx/opaque.cuh"
#include "kernels/sm90/attend_blocks.cuh"

/* Of this lane's key, lane % WARP_KEYS of its warp's, in a block. */
struct rt_sm90_key_units {
    float unit, inverse; /* S, and one by it */
    uint32_t factor[2];  /* of each half, two f16; of UE8M0 the scales as they lie */
    bool multiplies;     /* some number of the warp's keys; the same in all lanes */
};

/* Four, and eight. */
template <bool MULTIPLIES>
static __device__ __forceinline__ uint2 rt_sm90_widen_4(uint32_t four, uint32_t factor)
{
    const uint32_t low = rt_e4m3x2_f16x2<0>(four), high = rt_e4m3x2_f16x2<1>(four);
    return MULTIPLIES ? make_uint2(rt_multiply_f16x2(low, factor), rt_multiply_f16x2(high, factor))
                      : make_uint2(low, high);
}

template <bool MULTIPLIES>
static __device__ __forceinline__ uint4 rt_sm90_widen_8(uint32_t low, uint32_t high,
                                                        uint32_t factor)
{
    const uint2 x = rt_sm90_widen_4<MULTIPLIES>(low, factor);
    const uint2 y = rt_sm90_widen_4<MULTIPLIES>(high, factor);
    return make_uint4(x.x, x.y, y.x, y.y);
}

/* Of two bf16 the larger magnitude that is finite, as a float's bits. */
static __device__ __forceinline__ uint32_t rt_sm90_most_finite(uint32_t pair)
{
    const uint32_t low = pair << 16 & 0x7fff0000u, high = pair & 0x7fff0000u;
    return max(low < 0x7f800000u ? low : 0, high < 0x7f800000u ? high : 0);
}

template <class SHAPE> struct rt_sm90_conversion {
    static constexpr int WARP_KEYS = 64 / SHAPE::LOADING_WARPS;
    static constexpr int HALF = SHAPE::D_V / 2; /* elements */
    static constexpr int VECTORS = HALF / 16;   /* of e4m3, of a key's half */
    static constexpr int PASS_KEYS = 32 / VECTORS;
    static constexpr int HALF_PASSES = WARP_KEYS / PASS_KEYS;
    static constexpr int CHUNK = HALF_PASSES < 4 ? HALF_PASSES : 4; /* passes */
    static constexpr int HALF_CHUNKS = HALF_PASSES / CHUNK;
    static constexpr int CHUNKS = 2 * HALF_CHUNKS;
    static constexpr bool HAS_REST = SHAPE::D_QK > SHAPE::D_V; /* what is no value */
    /* What may be bf16 in a row: behind the values, or their last tile. */
    static constexpr int REST = HAS_REST ? SHAPE::D_QK - SHAPE::D_V : 64;
    static constexpr int REST_VECTORS = REST / 8, REST_KEYS = 32 / REST_VECTORS;
    static constexpr int REST_PASSES = WARP_KEYS / REST_KEYS;
    static constexpr int V_REST = SHAPE::VECTORS - REST_VECTORS; /* where values have it */

    const struct rt_attend_params &p;
    const struct rt_quant_view &quant;
    const rt_sm90_room<SHAPE> &room;
    const uint32_t warp;

    __device__ __forceinline__ rt_sm90_conversion(const typename SHAPE::params &all,
                                                  const rt_sm90_room<SHAPE> &room_)
        : p(SHAPE::keys::attend(all)), quant(all.quant), room(room_), warp(threadIdx.x / 32)
    {
    }

    /* ---- what a lane has of a pass ---- */

    /* What follows from a lane is found anew where it is used: registers are for keys. */
    static __device__ __forceinline__ uint32_t my_lane(void)
    {
        return rt_opaque(threadIdx.x) % 32;
    }

    static __device__ __forceinline__ uint32_t vector(uint32_t lane)
    {
        return lane % 4 + lane / 8 % (VECTORS / 4) * 4;
    }

    static __device__ __forceinline__ uint32_t key_of(uint32_t lane, int pass)
    {
        return pass * PASS_KEYS + lane / 4 % 2 + (PASS_KEYS > 2 ? lane / 16 * 2 : 0);
    }

    /* All elements of a half are e4m3, but for the second one's where bf16 are values too. */
    __device__ __forceinline__ bool is_fp8(uint32_t lane, int half) const
    {
        return HAS_REST || half == 0 || HALF + vector(lane) * 16 < quant.fp8;
    }

    __device__ __forceinline__ bool rest_is_bf16(void) const
    {
        return rt_sm90_rest_is_bf16<typename SHAPE::keys>(quant, SHAPE::D_QK);
    }

    /* A key's row, which one lane knows. By the whole warp. */
    static __device__ __forceinline__ const unsigned char *row_of(const unsigned char *row,
                                                                  uint32_t key)
    {
        const uint64_t at = (uint64_t)row;
        const uint32_t low = __shfl_sync(RT_ATTEND_FULL_WARP, (uint32_t)at, key);
        const uint32_t high = __shfl_sync(RT_ATTEND_FULL_WARP, (uint32_t)(at >> 32), key);
        return (const unsigned char *)((uint64_t)high << 32 | low);
    }

    static __device__ __forceinline__ const unsigned char *
    row_of(const struct rt_sm90_quant_key &of, uint32_t key)
    {
        return row_of(of.row, key);
    }

    /* Values have scales of several tiles. */
    __device__ __forceinline__ bool has_tiles(void) const
    {
        return rt_sm90_has_tiles<typename SHAPE::keys>(quant, SHAPE::D_V);
    }

    /* ---- units ---- */

    /* The largest of the bf16 values of this lane's key that is finite, as a float's bits. `rest`:
     * pass by pass REST_KEYS keys, REST_VECTORS lanes each. By the whole warp. */
    static __device__ __forceinline__ uint32_t most_of_rest(const uint4 (&rest)[REST_PASSES])
    {
        const uint32_t lane = my_lane();
        uint32_t mine = 0;
#pragma unroll
        for (int i = 0; i < REST_PASSES; i++) {
            uint32_t most =
                max(max(rt_sm90_most_finite(rest[i].x), rt_sm90_most_finite(rest[i].y)),
                    max(rt_sm90_most_finite(rest[i].z), rt_sm90_most_finite(rest[i].w)));
#pragma unroll
            for (int distance = 1; distance < REST_VECTORS; distance *= 2)
                most = max(most, __shfl_xor_sync(RT_ATTEND_FULL_WARP, most, distance));
            most = __shfl_sync(RT_ATTEND_FULL_WARP, most, lane % REST_KEYS * REST_VECTORS);
            mine = (int)(lane % WARP_KEYS / REST_KEYS) == i ? most : mine;
        }
        return mine;
    }

    static __device__ __forceinline__ uint32_t finite_bits(uint32_t scale)
    {
        const uint32_t magnitude = scale & 0x7fffffffu;
        return magnitude < 0x7f800000u ? magnitude : 0;
    }

    /* The largest scale of this lane's key, as a float's bits. By the whole warp. */
    __device__ __forceinline__ uint32_t most_scale(const struct rt_sm90_quant_key &of) const
    {
        if (quant.scale_kind == RT_QUANT_SCALE_UE8M0) {
            uint32_t most = 0;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const uint32_t code = of.scale[i / 4] >> i % 4 * 8 & 255;
                most = max(most, code < 255 ? code : 0);
            }
            return most << 23;
        }
        const uint32_t most = max(finite_bits(of.scale[0]), finite_bits(of.scale[1]));
        return max(most, __shfl_xor_sync(RT_ATTEND_FULL_WARP, most, 16));
    }

    /* `most_rest`: of the key's bf16 values, likewise. */
    __device__ __forceinline__ struct rt_sm90_key_units
    tile_units(const struct rt_sm90_quant_key &of, uint32_t most_rest) const
    {
        const int field = max(max((int)(most_scale(of) >> 23), (int)(most_rest >> 23) - 9), 6);
        struct rt_sm90_key_units units;
        units.unit = __uint_as_float((uint32_t)(field - 5) << 23);
        units.inverse = __uint_as_float((uint32_t)(259 - field) << 23);
        units.multiplies = true;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float factor = __uint_as_float(of.scale[half]) * units.inverse;
            units.factor[half] = quant.scale_kind == RT_QUANT_SCALE_UE8M0
                                     ? of.scale[half]
                                     : rt_pack_f16x2(factor, factor);
        }
        return units;
    }

    /* By the whole warp. */
    __device__ __forceinline__ struct rt_sm90_key_units
    find_units(const struct rt_sm90_quant_key &of, uint32_t most_rest) const
    {
        if (has_tiles())
            return tile_units(of, most_rest);
        const float scale = __uint_as_float(of.scale[0]);
        const bool is_finite = (of.scale[0] & 0x7f800000u) != 0x7f800000u;
        const uint32_t factor = is_finite ? 0x3c003c00u : rt_pack_f16x2(scale, scale);
        return {is_finite ? scale : 1.0f,
                1.0f,
                {factor, factor},
                __any_sync(RT_ATTEND_FULL_WARP, !is_finite) != 0};
    }

    /* ---- conversions ---- */

    static __device__ __forceinline__ float power_of_2(uint32_t code)
    {
        return __uint_as_float(code == 0 ? 0x00400000u : code == 255 ? 0x7fffffffu : code << 23);
    }

    /* Of a chunk's keys, which their lanes have. By the whole warp. */
    __device__ __forceinline__ void find_factors(const struct rt_sm90_key_units &units,
                                                 uint32_t lane, int chunk,
                                                 uint32_t (&factor)[CHUNK]) const
    {
        const uint32_t mine = chunk < HALF_CHUNKS ? units.factor[0] : units.factor[1];
        const uint32_t from = key_of(lane, chunk % HALF_CHUNKS * CHUNK) + lane / 16 * 16;
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            factor[i] = __shfl_sync(RT_ATTEND_FULL_WARP, mine, from + i * PASS_KEYS);
        if (quant.scale_kind != RT_QUANT_SCALE_UE8M0)
            return;
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            const float inverse =
                __shfl_sync(RT_ATTEND_FULL_WARP, units.inverse, from + i * PASS_KEYS);
            const float of_tile = power_of_2(factor[i] >> vector(lane) / 4 * 8 & 255) * inverse;
            factor[i] = rt_pack_f16x2(of_tile, of_tile);
        }
    }

    /*
     * Between passes a lane's place in the stage changes by what is the same in all lanes, but for
     * the swizzle's bits, 16 times (vector ^ key) % 8: keys of a pass are lower bits of those of
     * all passes, so what a pass adds to them it turns over.
     */
    template <bool MULTIPLIES, int FIRST, int END>
    __device__ __forceinline__ void store_passes(uint32_t stage, int chunk, uint32_t lane,
                                                 const uint4 (&from)[CHUNK],
                                                 const uint32_t (&factor)[CHUNK]) const
    {
        const uint32_t row =
            warp * WARP_KEYS + key_of(lane, 0) + chunk % HALF_CHUNKS * CHUNK * PASS_KEYS;
        const uint32_t first =
            (uint32_t)(room.vector(stage, chunk / HALF_CHUNKS, row, vector(lane) * 2) -
                       room.stages);
#pragma unroll
        for (int i = FIRST; i < END; i++) {
            const uint32_t key = i * PASS_KEYS, turned = key % 8 * 16;
            unsigned char *to = room.stages + key / 8 * SHAPE::GROUP_BYTES + key % 8 * 128;
            *(uint4 *)(to + (first ^ turned)) =
                rt_sm90_widen_8<MULTIPLIES>(from[i].x, from[i].y, factor[i]);
            *(uint4 *)(to + (first ^ turned ^ 16)) =
                rt_sm90_widen_8<MULTIPLIES>(from[i].z, from[i].w, factor[i]);
        }
    }

    /* Four passes without a branch between them: a warp has nothing else to do while it waits. */
    __device__ __forceinline__ void convert_chunk(const struct rt_sm90_key_units &units,
                                                  uint32_t stage, int chunk,
                                                  const uint4 (&from)[CHUNK]) const
    {
        const uint32_t lane = my_lane();
        uint32_t factor[CHUNK] = {};
        if (units.multiplies)
            find_factors(units, lane, chunk, factor);
        convert_passes<0, CHUNK>(units.multiplies, stage, chunk, from, factor);
    }

    /* Of the chunk's passes those from FIRST to END. */
    template <int FIRST, int END>
    __device__ __forceinline__ void convert_passes(bool multiplies, uint32_t stage, int chunk,
                                                   const uint4 (&from)[CHUNK],
                                                   const uint32_t (&factor)[CHUNK]) const
    {
        const uint32_t lane = my_lane();
        if (!is_fp8(lane, chunk / HALF_CHUNKS))
            return;
        if (multiplies)
            store_passes<true, FIRST, END>(stage, chunk, lane, from, factor);
        else
            store_passes<false, FIRST, END>(stage, chunk, lane, from, factor);
    }

    /* bf16 as f16 of the key's unit. */
    __device__ __forceinline__ void put_rest(const struct rt_sm90_key_units &units, uint32_t stage,
                                             const uint4 (&rest)[REST_PASSES]) const
    {
        const uint32_t lane = my_lane(), v = lane % REST_VECTORS;
#pragma unroll
        for (int i = 0; i < REST_PASSES; i++) {
            const uint32_t key = i * REST_KEYS + lane / REST_VECTORS, row = warp * WARP_KEYS + key;
            *(uint4 *)room.vector(stage, 1, row, V_REST + v) =
                rt_sm90_bf16_f16(rest[i], __shfl_sync(RT_ATTEND_FULL_WARP, units.inverse, key));
        }
    }

    /* ---- what workers are told ---- */

    /* This warp's keys of the half are there. Products see them once a worker has fenced: here a
     * fence would wait for all that this thread has asked for. */
    __device__ __forceinline__ void tell(uint32_t stage, int half) const
    {
        __syncwarp();
        if (rt_elected())
            rt_mbarrier_arrive(&room.desk.kv_full[stage][half]);
    }

    /* Of a stage that both workers have left with half 0: its owner has read these before. */
    __device__ __forceinline__ void mark(uint32_t stage, const struct rt_sm90_quant_key &of,
                                         const struct rt_sm90_key_units &units) const
    {
        mark_units(stage, units);
        mark_found(stage, find_found(of.row));
    }

    __device__ __forceinline__ void mark_units(uint32_t stage,
                                               const struct rt_sm90_key_units &units) const
    {
        const uint32_t lane = my_lane(), key = warp * WARP_KEYS + lane;
        if (lane < WARP_KEYS) {
            const int lift = rt_sm90_lift(units.unit);
            room.desk.unit[stage][key] = units.unit;
            room.desk.lift[stage][key] = (float)lift;
            room.desk.lowered[stage][key] = rt_sm90_power_of_2(-lift);
        }
    }

    /* Which of the warp's keys there are, a bit each, where that is not known to all. */
    static __device__ __forceinline__ uint32_t find_found(const unsigned char *row)
    {
        if constexpr (SHAPE::LISTED)
            return __ballot_sync(RT_ATTEND_FULL_WARP, row != (const unsigned char *)rt_sm90_no_key);
        else
            return 0;
    }

    __device__ __forceinline__ void mark_found(uint32_t stage, uint32_t all) const
    {
        if constexpr (SHAPE::LISTED) {
            if (rt_elected())
                rt_sm90_list<WARP_KEYS>(room.desk.listed[stage], warp, all);
        }
    }
};

#endif
