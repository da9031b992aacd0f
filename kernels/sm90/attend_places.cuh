/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_PLACES_CUH
#define RT_KERNELS_SM90_ATTEND_PLACES_CUH

/*
 * Where a worker's threads have keys of e4m3 from (kernels/sm90/attend_bytes.cuh): rows as they lie
 * in the cache, or, BOXED, as boxes bring them.
 *
 * Which element is which of a product's is free as long as both operands agree. The order is one in
 * which a thread's bytes lie side by side, and lanes that read at the same time meet no bank twice:
 * rows are SHAPE::ROW_BYTES, 32 beyond a multiple of 64, or, BOXED, lie in the copy engine's tiles,
 * where eight neighbours of a product's lanes have two keys of scores that differ in bit 2, or two
 * vectors of values that do, and so the swizzle's eight places. Lane 4 g + t of warp w has
 *
 *   scores   a = k [64 keys][D_QK], row 16 w + g and that + 8: key `own_key`, and that + 8
 *            values   of 64 columns the 16 from 16 t on: columns 4 s .. 4 s + 3 of them are what
 *                     product s has at 2 t, 2 t + 1, 2 t + 8, 2 t + 9
 *            the rest of 32 columns the 8 from 8 t on, likewise: two products
 *            and q has its columns in that order (bring_queries)
 *   values   a = v^T [D_V / 2][64 keys]: of product s of four keys, number i 16 s + `value_key`,
 *            at 2 t + i % 2 + 8 (i / 2), so that weights lie as the rows of scores do
 *            of each 2 HALF_TILES columns side by side, which are rows g and g + 8 of each tile
 */
#include "kernels/sm90/attend_work.cuh"

/* Of 16 rows of operand a, or of 16 keys of a product of values, the key that is number `row`; and
 * back. */
static __device__ __forceinline__ int rt_sm90_key_at(int row)
{
    const int odd = row & 1;
    return (row >> 3) * 8 + odd * 4 + ((row >> 1 & 3) ^ odd * 2);
}

static __device__ __forceinline__ int rt_sm90_row_of_key(int key)
{
    const int odd = key >> 2 & 1;
    return (key >> 3) * 8 + ((key & 3) ^ odd * 2) * 2 + odd;
}

template <class SHAPE> struct rt_sm90_places : rt_sm90_worker_base<SHAPE> {
    typedef rt_sm90_worker_base<SHAPE> base;
    static constexpr int HALF = SHAPE::D_V / 2;
    static constexpr int COLUMNS = 2 * SHAPE::OUT_TILES; /* of values, of a thread */
    using base::lane;
    using base::room;
    using base::warp;
    using base::worker;

    __device__ __forceinline__ rt_sm90_places(const typename SHAPE::params &all_,
                                              const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_)
    {
    }

    /* Of the block, the key of this thread's first score; the second is 8 further. */
    __device__ __forceinline__ int own_key(void) const
    {
        return warp * 16 + rt_sm90_key_at(lane / 4);
    }

    __device__ __forceinline__ int value_key(int step, int i) const
    {
        return step * 16 + i * 4 + (lane % 4 ^ i % 2 * 2);
    }

    /* The first of this worker's columns. */
    __device__ __forceinline__ int first_column(void) const
    {
        return SHAPE::APART ? 0 : worker * HALF;
    }

    /* Of those, the first of this thread's. Boxed, two neighbours' are four vectors apart, so that
     * with four keys each they meet no bank twice. */
    __device__ __forceinline__ int own_column(void) const
    {
        const int of_warp = SHAPE::BOXED ? lane / 4 % 2 * 4 + lane / 8 : lane / 4;
        return (warp * 8 + of_warp) * COLUMNS;
    }

    /* ---- where a thread's bytes are ---- */

    /* Of row g of scores this thread's 16 bytes of columns 0 .. 63, and of a box's other 64; see
     * score_vector. */
    __device__ __forceinline__ const unsigned char *score_place(uint32_t stage, uint32_t odd) const
    {
        const uint32_t key = (uint32_t)own_key(), vector = (uint32_t)lane % 4;
        if constexpr (SHAPE::BOXED)
            return room.boxed_row(stage, key, 0) + (key ^ (odd * 4 + vector)) % 8 * 16;
        else
            return room.row(stage, own_key()) + lane % 4 * 16;
    }

    /* Of columns 64 tile .. 64 tile + 63 of row g, and of that of g + 8. */
    static __device__ __forceinline__ uint4 score_vector(const unsigned char *const (&place)[2],
                                                         int tile, int row)
    {
        if constexpr (SHAPE::BOXED)
            return *(const uint4 *)(place[tile % 2] + tile * 64 / HALF * (64 * HALF) +
                                    tile * 64 % HALF / 128 * RT_WGMMA_GROUP_BYTES +
                                    row * SHAPE::BOX_GROUP_BYTES);
        else
            return *(const uint4 *)(place[0] + tile * 64 + row * 8 * SHAPE::ROW_BYTES);
    }

    /* Of what is no value, LANE_BYTES of 32 columns of the key in row g, and of that in g + 8. */
    template <int LANE_BYTES>
    __device__ __forceinline__ const unsigned char *rest_place(uint32_t stage, int part) const
    {
        const uint32_t key = (uint32_t)own_key();
        const uint32_t at = (uint32_t)(part * 4 + lane % 4) * LANE_BYTES;
        if constexpr (SHAPE::BOXED)
            return room.boxed_rest(stage, key) + (at / 16 ^ key % 8) * 16 + at % 16;
        else
            return room.row(stage, own_key()) + SHAPE::D_V + at;
    }
    static constexpr int REST_8_KEYS = SHAPE::BOXED ? 8 * 128 : 8 * SHAPE::ROW_BYTES;

    /* Of operand a of values this thread's columns of keys 0 and 1 of a product's four; 2 and 3 are
     * VALUE_8_KEYS further. */
    __device__ __forceinline__ const unsigned char *value_place(uint32_t stage, int odd) const
    {
        const uint32_t key = (uint32_t)value_key(0, odd);
        const uint32_t column = (uint32_t)(first_column() + own_column());
        if constexpr (SHAPE::BOXED)
            return room.boxed_row(stage, key, column) + (column / 16 ^ key) % 8 * 16;
        else
            return room.row(stage, (int)key) + column;
    }
    static constexpr int VALUE_8_KEYS =
        SHAPE::BOXED ? SHAPE::BOX_GROUP_BYTES : 8 * SHAPE::ROW_BYTES;

    /* 16 bytes of a key of block j, of this worker's columns. */
    __device__ __forceinline__ uint4 *vector_of(uint32_t j, int key, int vector) const
    {
        if constexpr (SHAPE::BOXED)
            return (uint4 *)room.boxed_row(base::stage_of(j), (uint32_t)key,
                                           (uint32_t)vector * 16) +
                   (uint32_t)(vector ^ key) % 8;
        else
            return (uint4 *)(room.row(base::stage_of(j), key) + first_column()) + vector;
    }
};

#endif
