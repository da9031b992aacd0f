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
#include "kernels/generic/append.cuh"

/* 64-bit: a slot is any number, also one whose page does not fit 32 bits. */
static __device__ __forceinline__ uint4 *slot_row(const struct rt_kv_view &kv, int64_t slot)
{
    if (slot < 0 || (uint64_t)slot >= (uint64_t)kv.pages * kv.page_size)
        return nullptr;
    const uint64_t page = (uint64_t)slot / kv.page_size;
    const uint64_t row = (uint64_t)slot - page * kv.page_size;
    return reinterpret_cast<uint4 *>(kv.base + (int64_t)page * kv.page_stride_bytes +
                                     (int64_t)row * kv.token_stride_bytes);
}

/* By the table, as append does it. */
static __device__ __forceinline__ uint4 *table_row(const struct rt_append_params &p, uint32_t row,
                                                   uint32_t token)
{
    const int32_t slot = p.rows.slot ? p.rows.slot[row] : (int32_t)row;
    const int32_t position = p.rows.position[row];
    if (slot < 0 || position < 0)
        return nullptr;
    return page_row(p.kv, rt_divisor<uint32_t>(p.kv.page_size), (uint32_t)slot,
                    (uint32_t)position + token);
}

static __device__ __forceinline__ const uint4 *piece_of(const struct rt_tokens_view &view,
                                                        int64_t row, uint32_t token)
{
    return reinterpret_cast<const uint4 *>(view.base + row * view.row_stride +
                                           token * view.token_stride);
}

extern "C" __global__ void __launch_bounds__(RT_APPEND_WARPS *RT_WARP_LANES)
    rt_append_general(const __grid_constant__ struct rt_append_general_params p)
{
    const struct rt_append_params &a = p.append;
    const uint32_t index = blockIdx.x * RT_APPEND_WARPS + threadIdx.x / RT_WARP_LANES;
    const uint32_t row = index / a.rows.q_len, token = index - row * a.rows.q_len;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (row >= a.rows.count)
        return;

    const int64_t data_row = (int64_t)(a.rows.ctrl ? a.rows.ctrl->row_base : 0) + row;
    const uint32_t rope_vectors = p.rope_bytes / sizeof(uint4);
    const uint32_t vectors = a.kv.token_bytes / sizeof(uint4) - rope_vectors;
    const uint4 *from = piece_of(a.latent, data_row, token);
    const uint4 *rope = p.rope.base ? piece_of(p.rope, data_row, token) : nullptr;
    const struct rt_row_piece piece = rt_load_row(from, vectors);
    const struct rt_row_piece rest = rt_load_row(rope, rope_vectors);
    uint4 *to = p.slots ? slot_row(a.kv, p.slots[index]) : table_row(a, row, token);
    if (!to)
        return;
    rt_store_row(to, from, vectors, piece);
    rt_store_row(to + vectors, rope, rope_vectors, rest);
}
