/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_COPY_CUH
#define RT_KERNELS_DEVICE_COPY_CUH

/*
 * A token's row, copied by a warp: `vectors` times 16 bytes. Both ends are 16-byte aligned:
 * pointers are multiples of 16 bytes, d_qk and all strides multiples of 8 elements.
 *
 *   lane    0   1  …  31 |  0   1  …  31 |  0  …        576 elements: 72 vectors, three rounds
 *   vector  0   1  …  31 | 32  33  …  63 | 64  …
 */
#include "kernels/device/scan.cuh"

#define RT_VECTOR_ELEMENTS 8u

/* Rounds held in registers between load and store: rows of up to 768 elements. */
#define RT_COPY_ROUNDS 3u

struct rt_row_piece {
    uint4 round[RT_COPY_ROUNDS];
};

/* Asks for the first rounds; nothing waits for them yet. */
static __device__ __forceinline__ struct rt_row_piece rt_load_row(const uint4 *from,
                                                                  uint32_t vectors)
{
    struct rt_row_piece piece = {};
#pragma unroll
    for (uint32_t i = 0; i < RT_COPY_ROUNDS; i++) {
        const uint32_t v = i * RT_WARP_LANES + rt_lane();
        if (v < vectors)
            piece.round[i] = from[v];
    }
    return piece;
}

/* Stores them, and copies what is behind them. */
static __device__ __forceinline__ void rt_store_row(uint4 *to, const uint4 *from, uint32_t vectors,
                                                    const struct rt_row_piece &piece)
{
#pragma unroll
    for (uint32_t i = 0; i < RT_COPY_ROUNDS; i++) {
        const uint32_t v = i * RT_WARP_LANES + rt_lane();
        if (v < vectors)
            to[v] = piece.round[i];
    }
    for (uint32_t v = RT_COPY_ROUNDS * RT_WARP_LANES + rt_lane(); v < vectors; v += RT_WARP_LANES)
        to[v] = from[v];
}

#endif
