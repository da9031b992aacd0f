/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take: rows of a matrix by their numbers, by the rule of kernels/abi/take.h.
 *
 *   x [x_rows, width], index [rows] -> out [rows, width]
 *
 * A block a row. A thread asks for DEPTH vectors of 8 numbers before it stores the first, the next
 * one a block of them further, so that a width of 8192 is one trip to memory.
 *
 *   wait │ index │ vectors │ out            no shared memory, no barriers
 */
#include "kernels/abi/take.h"
#include "kernels/device/ptx/pdl.cuh"

#define RT_TAKE_DEPTH 4u
#define RT_TAKE_VECTOR 8u

extern "C" __global__ void __launch_bounds__(RT_TAKE_THREADS)
    rt_take(const __grid_constant__ struct rt_take_params p)
{
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const int32_t row = p.index[blockIdx.x];
    const bool found = row >= 0 && (uint32_t)row < p.x_rows;
    const uint4 *from =
        reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(p.x) + row * p.x_stride);
    uint4 *to =
        reinterpret_cast<uint4 *>(static_cast<uint16_t *>(p.out) + blockIdx.x * p.out_stride);
    const uint32_t vectors = p.width / RT_TAKE_VECTOR;
    for (uint32_t first = threadIdx.x; first < vectors; first += RT_TAKE_DEPTH * RT_TAKE_THREADS) {
        uint4 x[RT_TAKE_DEPTH];
#pragma unroll
        for (uint32_t i = 0; i < RT_TAKE_DEPTH; i++) {
            const uint32_t vector = first + i * RT_TAKE_THREADS;
            x[i] = found && vector < vectors ? from[vector] : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (uint32_t i = 0; i < RT_TAKE_DEPTH; i++) {
            const uint32_t vector = first + i * RT_TAKE_THREADS;
            if (vector < vectors)
                to[vector] = x[i];
        }
    }
}
