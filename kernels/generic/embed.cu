/* SPDX-License-Identifier: Apache-2.0 */
/*
 * embed: ids become rows of a table, by the rule of kernels/abi/embed.h.
 *
 *   tokens [rows, q], table [vocab, width] -> hidden [rows, q, width]
 *
 * A block a token. A thread asks for DEPTH vectors of 8 numbers before it uses the first, the next
 * one a block of them further, so that a width of 8192 is one trip to memory.
 *
 *   wait │ length, row_base │ id │ vectors │ hidden            no shared memory, no barriers
 */
#include "kernels/abi/embed.h"
#include "kernels/device/bf16x8.cuh"
#include "kernels/device/ptx/pdl.cuh"

#define RT_EMBED_DEPTH 4u
#define RT_EMBED_VECTOR 8u

/* The table's row, or null where the token is none of its. */
static __device__ __forceinline__ const uint4 *rt_embed_row(const struct rt_embed_params &p)
{
    const uint64_t row_base = rt_row_base(&p.rows);
    const bool live = !p.rows.length || p.rows.length[blockIdx.x / p.rows.q_len] > 0;
    const int32_t id = p.tokens[row_base * p.rows.q_len + blockIdx.x];
    const bool found = live && id >= 0 && (uint32_t)id < p.vocab;
    return found ? reinterpret_cast<const uint4 *>(p.table + id * p.table_stride) : nullptr;
}

static __device__ __forceinline__ uint4 rt_embed_scaled(const uint4 &packed, float scale)
{
    struct rt_floats8 x = rt_unpack_bf16x8(packed);
#pragma unroll
    for (int i = 0; i < 8; i++)
        x.at[i] *= scale;
    return rt_pack_bf16x8(x);
}

extern "C" __global__ void __launch_bounds__(RT_EMBED_THREADS)
    rt_embed(const __grid_constant__ struct rt_embed_params p)
{
    rt_pdl_wait();
    /* Not before: what the kernel behind it reads ahead of its own wait, step_begin may have
     * written. */
    rt_pdl_launch_dependents();
    const uint4 *from = rt_embed_row(p);
    uint4 *to =
        reinterpret_cast<uint4 *>(static_cast<uint16_t *>(p.hidden) + blockIdx.x * p.hidden_stride);
    const uint32_t vectors = p.width / RT_EMBED_VECTOR;
    for (uint32_t first = threadIdx.x; first < vectors;
         first += RT_EMBED_DEPTH * RT_EMBED_THREADS) {
        uint4 x[RT_EMBED_DEPTH];
#pragma unroll
        for (uint32_t i = 0; i < RT_EMBED_DEPTH; i++) {
            const uint32_t vector = first + i * RT_EMBED_THREADS;
            x[i] = from && vector < vectors ? from[vector] : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (uint32_t i = 0; i < RT_EMBED_DEPTH; i++) {
            const uint32_t vector = first + i * RT_EMBED_THREADS;
            if (vector < vectors)
                to[vector] = from ? rt_embed_scaled(x[i], p.scale) : x[i];
        }
    }
}
