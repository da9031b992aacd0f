/* SPDX-License-Identifier: Apache-2.0 */
/*
 * append_quant: tokens of bf16 -> rows of e4m3, their scales, and what stays bf16. The rule is in
 * kernels/abi/quant.h.
 *
 *   latent [row_base + rows, q_len, d_qk or d_v], rope [row_base + rows, q_len, d_qk - d_v] bf16
 *   -> kv [pages, page_size] rows
 *
 * A warp a token, RT_APPEND_WARPS of them a block, no shared memory, no barrier. How the warp
 * shares a token is in kernels/device/quantise.cuh. Everything is asked for behind the wait: as
 * append has it.
 *
 *   slot, position, row_base  ->  table entry       ->  largest magnitudes  ->  stores
 *                                 latent row, rope
 */
#include "kernels/abi/quant.h"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/settle.cuh"
#include "kernels/device/quantise.cuh"
#include "kernels/generic/append_place.cuh"

/* A token's elements: those of its first piece, then those of the other. */
struct token_pieces {
    const uint4 *latent, *rope;
    uint32_t latent_vectors;
};

static __device__ __forceinline__ uint4 load_vector(const struct token_pieces &from,
                                                    uint32_t vector)
{
    return vector < from.latent_vectors ? from.latent[vector]
                                        : from.rope[vector - from.latent_vectors];
}

extern "C" __global__ void __launch_bounds__(RT_APPEND_WARPS *RT_WARP_LANES)
    rt_append_quant(const __grid_constant__ struct rt_append_quant_params p)
{
    const struct rt_append_params &a = p.general.append;
    const struct rt_quant_view &q = p.quant;
    const uint32_t index = blockIdx.x * RT_APPEND_WARPS + threadIdx.x / RT_WARP_LANES;
    const uint32_t row = index / a.rows.q_len, token = index - row * a.rows.q_len;
    const rt_divisor<uint32_t> page_size(a.kv.page_size);
    rt_pdl_launch_dependents(); /* as in append.cu */
    rt_settle(row + 1);
    rt_settle(token + 1);
    rt_settle(page_size.inverse);
    rt_pdl_wait();
    if (row >= a.rows.count)
        return;

    const int64_t data_row = (int64_t)(a.rows.ctrl ? a.rows.ctrl->row_base : 0) + row;
    struct token_pieces from = {};
    from.latent = token_piece(a.latent, data_row, token);
    from.latent_vectors = (p.d_qk * 2 - p.general.rope_bytes) / sizeof(uint4);
    if (p.general.rope.base)
        from.rope = token_piece(p.general.rope, data_row, token);
    const uint32_t vectors = p.d_qk / RT_QUANT_VECTOR;
    struct rt_quant_token numbers = {};
    const struct rt_page_row at = append_place(p.general, page_size, row, token, index, [&] {
        numbers = rt_quant_load_token(vectors,
                                      [&](uint32_t vector) { return load_vector(from, vector); });
    });
    if (at.page)
        rt_quant_put_token(q, rt_quant_row_at(a.kv, q, at), vectors, numbers);
}
