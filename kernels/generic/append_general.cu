/* SPDX-License-Identifier: Apache-2.0 */
/*
 * append_general: tokens in one piece or two, places by table or by slots. The rule is in
 * kernels/abi/append.h.
 *
 *   latent [row_base + rows, q_len, d_qk or d_v], rope [row_base + rows, q_len, d_qk - d_v] bf16
 *   -> kv [pages, page_size, d_qk] bf16
 *
 * A warp a token, RT_APPEND_WARPS of them a block, no shared memory, no barrier. By slots it is a
 * trip to memory shorter than append:
 *
 *   slots                    ->  store
 *   latent and rope pieces
 *
 * Everything is asked for behind the wait: an engine's kernels in front of it write all of it.
 */
#include "kernels/device/copy.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/settle.cuh"
#include "kernels/generic/append_place.cuh"

extern "C" __global__ void __launch_bounds__(RT_APPEND_WARPS *RT_WARP_LANES)
    rt_append_general(const __grid_constant__ struct rt_append_general_params p)
{
    const struct rt_append_params &a = p.append;
    const uint32_t index = blockIdx.x * RT_APPEND_WARPS + threadIdx.x / RT_WARP_LANES;
    const uint32_t row = index / a.rows.q_len, token = index - row * a.rows.q_len;
    const rt_divisor<uint32_t> page_size(a.kv.page_size);
    rt_settle(row + 1);
    rt_settle(token + 1);
    rt_settle(page_size.inverse);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (row >= a.rows.count)
        return;

    const int64_t data_row = (int64_t)(a.rows.ctrl ? a.rows.ctrl->row_base : 0) + row;
    const uint32_t rope_vectors = p.rope_bytes / sizeof(uint4);
    const uint32_t vectors = a.kv.token_bytes / sizeof(uint4) - rope_vectors;
    const uint4 *from = token_piece(a.latent, data_row, token);
    const uint4 *rope = p.rope.base ? token_piece(p.rope, data_row, token) : nullptr;
    const struct rt_row_piece piece = rt_load_row(from, vectors);
    const struct rt_row_piece rest = rt_load_row(rope, rope_vectors);
    uint4 *to = row_address(a.kv, append_place(p, page_size, row, token, index, [] {}));
    if (!to)
        return;
    rt_store_row(to, from, vectors, piece);
    rt_store_row(to + vectors, rope, rope_vectors, rest);
}
