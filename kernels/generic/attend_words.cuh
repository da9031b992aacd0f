/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_ATTEND_WORDS_CUH
#define RT_KERNELS_GENERIC_ATTEND_WORDS_CUH

#include "kernels/device/piece.cuh"

/* A sum times 1 / its weights; by 0 where the row is empty or all sink: its output is 0, whatever
 * has gathered. */
static __device__ __forceinline__ float rt_attend_scaled(float value, float inverse)
{
    return inverse == 0.0f ? 0.0f : value * inverse;
}

/*
 * What a thread has of a piece's query row, two columns of each of TILES eights, `at` and the next
 * of `from`; `to` is the first word of halves. By a whole warp, of which four neighbours share a
 * query row.
 */
template <int TILES>
static __device__ __forceinline__ void rt_attend_store_words(uint16_t *to, int rest, bool there,
                                                             const float (*from)[4], int at,
                                                             float inverse)
{
    uint32_t word[TILES], most = 0, bits = 0;
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        const float x = rt_attend_scaled(from[n][at], inverse);
        const float y = rt_attend_scaled(from[n][at + 1], inverse);
        word[n] = rt_piece_halves(x, y, most);
        bits |= rt_piece_bits(x, y);
    }
#pragma unroll
    for (int n = 0; n < TILES; n += 4)
        if (there)
            *(uint4 *)(to + n * 8) = make_uint4(word[n], word[n + 1], word[n + 2], word[n + 3]);
    if (!__any_sync(RT_FULL_WARP, there && !rt_piece_fits(most)))
        return;
    most = rt_piece_most<1, 4>(most);
    bits = rt_piece_all<1, 4>(bits);
    if (!there || rt_piece_fits(most) || bits == 0)
        return;
#pragma unroll
    for (int n = 0; n < TILES; n++)
        rt_piece_store_wide(to + n / 4 * 32 + n % 4 * 2, rest,
                            rt_attend_scaled(from[n][at], inverse),
                            rt_attend_scaled(from[n][at + 1], inverse));
}

#endif
