/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_CONVERT_CUH
#define RT_KERNELS_SM90_ATTEND_CONVERT_CUH

/*
 * Keys of e4m3 (kernels/abi/quant.h) become bf16, in the swizzle that the copy engine would have
 * made, so those who work know nothing of it. By the loading warps, of which warp w has keys
 * 16 w .. 16 w + 15 of every block.
 *
 *   a pass    16 bytes a lane, all of a half of 32 / VECTORS keys
 *   lane      | key, high | vector, high | key, low | vector, low 2 bits |
 *   a chunk   4 passes
 *
 * So eight lanes, which store at the same time, have two neighbours of keys and every other vector
 * of a tile, and meet no bank twice.
 */
#include "kernels/device/e4m3.cuh"
#include "kernels/device/ptx/opaque.cuh"
#include "kernels/sm90/attend_blocks.cuh"

template <class SHAPE> struct rt_sm90_conversion {
    static constexpr int WARP_KEYS = 64 / RT_SM90_GATHER_WARPS;
    static constexpr int HALF = SHAPE::D_V / 2; /* elements */
    static constexpr int VECTORS = HALF / 16;   /* of e4m3, of a key's half */
    static constexpr int PASS_KEYS = 32 / VECTORS;
    static constexpr int CHUNK = 4; /* passes */
    static constexpr int HALF_CHUNKS = WARP_KEYS / PASS_KEYS / CHUNK;
    static constexpr int CHUNKS = 2 * HALF_CHUNKS;
    static constexpr bool HAS_REST = SHAPE::D_QK > SHAPE::D_V;
    /* What is bf16 in a row: behind the values, or their last tile. */
    static constexpr int REST = HAS_REST ? SHAPE::D_QK - SHAPE::D_V : 64;
    static constexpr int REST_VECTORS = REST / 8, REST_KEYS = 32 / REST_VECTORS;
    static constexpr int REST_PASSES = WARP_KEYS / REST_KEYS;
    static constexpr int V_REST = SHAPE::VECTORS - REST_VECTORS; /* where values have it */
    /* Where it is e4m3, too. */
    static constexpr int FP8_REST_VECTORS = REST / 16, FP8_REST_KEYS = 32 / FP8_REST_VECTORS;
    static constexpr int FP8_REST_PASSES = WARP_KEYS / FP8_REST_KEYS;

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

    __device__ __forceinline__ bool rest_is_fp8(void) const
    {
        return HAS_REST && quant.fp8 == SHAPE::D_QK;
    }

    __device__ __forceinline__ bool rest_is_bf16(void) const
    {
        return quant.fp8 < SHAPE::D_QK;
    }

    /* A key's row, which one lane knows. By the whole warp. */
    static __device__ __forceinline__ const unsigned char *
    row_of(const struct rt_sm90_quant_key &of, uint32_t key)
    {
        const uint64_t at = (uint64_t)of.row;
        const uint32_t low = __shfl_sync(RT_ATTEND_FULL_WARP, (uint32_t)at, key);
        const uint32_t high = __shfl_sync(RT_ATTEND_FULL_WARP, (uint32_t)(at >> 32), key);
        return (const unsigned char *)((uint64_t)high << 32 | low);
    }

    /* ---- conversions ---- */

    static __device__ __forceinline__ float power_of_2(uint32_t code)
    {
        return __uint_as_float(code == 0 ? 0x00400000u : code == 255 ? 0x7fffffffu : code << 23);
    }

    /* Of a chunk's keys, which their lanes have as they lie. By the whole warp. */
    __device__ __forceinline__ void find_scales(const struct rt_sm90_quant_key &of, uint32_t lane,
                                                int chunk, float (&scale)[CHUNK]) const
    {
        const uint32_t mine = chunk < HALF_CHUNKS ? of.scale[0] : of.scale[1];
        const uint32_t place = vector(lane) / 4 * 8;
        uint32_t word[CHUNK];
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            word[i] = __shfl_sync(RT_ATTEND_FULL_WARP, mine,
                                  key_of(lane, chunk % HALF_CHUNKS * CHUNK + i) + lane / 16 * 16);
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            scale[i] = __uint_as_float(word[i]);
        if (quant.scale_kind == RT_QUANT_SCALE_UE8M0)
#pragma unroll
            for (int i = 0; i < CHUNK; i++)
                scale[i] = power_of_2(word[i] >> place & 255);
    }

    /* Four passes without a branch between them: a warp has nothing else to do while it waits. */
    __device__ __forceinline__ void convert_chunk(const struct rt_sm90_quant_key &of,
                                                  uint32_t stage, int chunk,
                                                  const uint4 (&from)[CHUNK]) const
    {
        const int half = chunk / HALF_CHUNKS;
        const uint32_t lane = my_lane(), v = vector(lane) * 2;
        float scale[CHUNK];
        find_scales(of, lane, chunk, scale);
        if (!is_fp8(lane, half))
            return;
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            const uint32_t key = key_of(lane, chunk % HALF_CHUNKS * CHUNK + i);
            const uint32_t row = warp * WARP_KEYS + key;
            *(uint4 *)room.vector(stage, half, row, v) =
                rt_e4m3x8_bf16x8(from[i].x, from[i].y, scale[i]);
            *(uint4 *)room.vector(stage, half, row, v + 1) =
                rt_e4m3x8_bf16x8(from[i].z, from[i].w, scale[i]);
        }
    }

    __device__ __forceinline__ void put_rest(uint32_t stage, const uint4 (&rest)[REST_PASSES]) const
    {
        const uint32_t lane = my_lane(), v = lane % REST_VECTORS;
#pragma unroll
        for (int i = 0; i < REST_PASSES; i++) {
            const uint32_t row = warp * WARP_KEYS + i * REST_KEYS + lane / REST_VECTORS;
            *(uint4 *)(HAS_REST ? room.rest_vector(stage, row, v)
                                : room.vector(stage, 1, row, V_REST + v)) = rest[i];
        }
    }

    template <int PASSES>
    __device__ __forceinline__ void widen_rest(const struct rt_sm90_quant_key &of, uint32_t stage,
                                               const uint4 (&rest)[PASSES]) const
    {
        const uint32_t lane = my_lane(), v = lane % FP8_REST_VECTORS * 2;
#pragma unroll
        for (int i = 0; i < FP8_REST_PASSES; i++) {
            const uint32_t key = i * FP8_REST_KEYS + lane / FP8_REST_VECTORS,
                           row = warp * WARP_KEYS + key;
            const float scale = __uint_as_float(__shfl_sync(RT_ATTEND_FULL_WARP, of.scale[1], key));
            *(uint4 *)room.rest_vector(stage, row, v) =
                rt_e4m3x8_bf16x8(rest[i].x, rest[i].y, scale);
            *(uint4 *)room.rest_vector(stage, row, v + 1) =
                rt_e4m3x8_bf16x8(rest[i].z, rest[i].w, scale);
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

    __device__ __forceinline__ void mark(uint32_t stage, const struct rt_sm90_quant_key &of) const
    {
        if constexpr (SHAPE::LISTED) {
            const bool found = of.row != (const unsigned char *)rt_sm90_no_key;
            const uint32_t there = __ballot_sync(RT_ATTEND_FULL_WARP, found);
            if (rt_elected())
                room.desk.listed[stage][warp] = (uint16_t)there;
        }
    }
};

#endif
