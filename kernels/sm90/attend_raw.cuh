/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_RAW_CUH
#define RT_KERNELS_SM90_ATTEND_RAW_CUH

/*
 * Keys of e4m3 on their way: bytes as they lie, in shared memory, brought by copies that run behind
 * the threads' backs. A lane copies what it will convert, pass behind pass with 512 bytes a warp,
 * so it waits for nobody else's.
 *
 * Not in registers: one that is being loaded must not be moved, and the compiler moves it.
 */
#include "kernels/device/ptx/cp_async.cuh"
#include "kernels/sm90/attend_convert.cuh"

template <class SHAPE> struct rt_sm90_raw : rt_sm90_conversion<SHAPE> {
    typedef rt_sm90_conversion<SHAPE> base;
    static constexpr int CHUNK = base::CHUNK, HALF_CHUNKS = base::HALF_CHUNKS;
    static constexpr int PASS_BYTES = 32 * 16;
    static constexpr int HALF_BYTES = HALF_CHUNKS * CHUNK * PASS_BYTES; /* of a warp's keys */
    static constexpr int REST_BYTES = base::WARP_KEYS * 128;            /* at most */
    using base::quant;

    __device__ __forceinline__ rt_sm90_raw(const typename SHAPE::params &all,
                                           const rt_sm90_room<SHAPE> &room)
        : base(all, room)
    {
    }

    static __device__ __forceinline__ uint32_t stage_of(uint32_t block)
    {
        return block % SHAPE::STAGES;
    }

    static __device__ __forceinline__ uint32_t parity_of(uint32_t block)
    {
        return (block / SHAPE::STAGES & 1) ^ 1;
    }

    /* ---- copies; `to` is this lane's ---- */

    __device__ __forceinline__ void copy_half(unsigned char *to, int half,
                                              const struct rt_sm90_quant_key &of) const
    {
        const uint32_t lane = base::my_lane(), at = half * base::HALF + base::vector(lane) * 16;
#pragma unroll
        for (int part = 0; part < HALF_CHUNKS; part++) {
            const unsigned char *row[CHUNK];
#pragma unroll
            for (int i = 0; i < CHUNK; i++)
                row[i] = base::row_of(of, base::key_of(lane, part * CHUNK + i));
#pragma unroll
            for (int i = 0; i < CHUNK; i++)
                rt_cp_async_16(to + (part * CHUNK + i) * PASS_BYTES, row[i] + at, true);
        }
    }

    /* What is no e4m3. */
    __device__ __forceinline__ void copy_rest(unsigned char *to,
                                              const struct rt_sm90_quant_key &of) const
    {
        if (!this->rest_is_bf16())
            return;
        const uint32_t lane = base::my_lane();
        const uint32_t at = quant.rest_offset_bytes + lane % base::REST_VECTORS * 16;
#pragma unroll
        for (int i = 0; i < base::REST_PASSES; i++)
            rt_cp_async_16(to + i * PASS_BYTES,
                           base::row_of(of, i * base::REST_KEYS + lane / base::REST_VECTORS) + at,
                           true);
    }

    /* ---- conversions; `at` is this lane's, and others' may be where it goes ---- */

    template <int PASSES>
    static __device__ __forceinline__ void take(const unsigned char *at, uint4 (&to)[PASSES])
    {
#pragma unroll
        for (int i = 0; i < PASSES; i++)
            to[i] = *(const uint4 *)(at + i * PASS_BYTES);
        __syncwarp();
    }

    __device__ __forceinline__ void convert_part(const unsigned char *at, uint32_t stage, int half,
                                                 int part,
                                                 const struct rt_sm90_key_units &units) const
    {
        uint4 from[CHUNK];
        take(at + part * CHUNK * PASS_BYTES, from);
        this->convert_chunk(units, stage, half * HALF_CHUNKS + part, from);
    }

    __device__ __forceinline__ void convert_rest(const unsigned char *at, uint32_t stage,
                                                 const struct rt_sm90_key_units &units) const
    {
        if (!this->rest_is_bf16())
            return;
        uint4 from[base::REST_PASSES];
        take(at, from);
        this->put_rest(units, stage, from);
    }

    /* `at`: the rest, which is there where it is asked for. */
    __device__ __forceinline__ struct rt_sm90_key_units units_of(const struct rt_sm90_quant_key &of,
                                                                 const unsigned char *at) const
    {
        if (!this->rest_is_bf16())
            return this->find_units(of, 0);
        uint4 rest[base::REST_PASSES];
        take(at, rest);
        return this->find_units(of, base::most_of_rest(rest));
    }
};

#endif
