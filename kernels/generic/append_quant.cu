/* SPDX-License-Identifier: Apache-2.0 */
/*
 * append_quant: tokens of bf16 -> rows of e4m3, their scales, and what stays bf16. The rule is in
 * kernels/abi/quant.h.
 *
 *   latent [row_base + rows, q_len, d_qk or d_v], rope [row_base + rows, q_len, d_qk - d_v] bf16
 *   -> kv [pages, page_size] rows
 *
 * A warp a token, RT_APPEND_WARPS of them a block, no shared memory, no barrier. A lane has sixteen
 * elements at a time, so 4, 8, 16 or 32 neighbours have a tile, and find its largest magnitude by
 * shuffles. Everything is asked for behind the wait.
 */
#include "kernels/abi/quant.h"
#include "kernels/device/e4m3.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/scan.cuh"
#include "kernels/generic/append_place.cuh"

#define LANE_ELEMENTS 16u

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

/* The larger magnitude of a word's two numbers, as bits; NaN is none. */
static __device__ __forceinline__ uint32_t most_of_word(uint32_t word)
{
    const uint32_t low = word & 0x7fffu, high = word >> 16 & 0x7fffu;
    const uint32_t of_low = low > 0x7f80u ? 0 : low, of_high = high > 0x7f80u ? 0 : high;
    return of_low > of_high ? of_low : of_high;
}

static __device__ __forceinline__ uint32_t most_of_vector(const uint4 &v)
{
    const uint32_t a = max(most_of_word(v.x), most_of_word(v.y));
    return max(a, max(most_of_word(v.z), most_of_word(v.w)));
}

/* Of the bits of a magnitude in bf16: the least k with it <= 448 * 2^k, 448 being 1.75 * 2^8. */
static __device__ __forceinline__ int scale_log2(uint32_t most)
{
    const int k = (int)(most >> 7) - 127 - 8 + ((most & 0x7fu) > 0x60u ? 1 : 0);
    return min(max(k, RT_QUANT_LEAST_LOG2), RT_QUANT_MOST_LOG2);
}

static __device__ __forceinline__ uint32_t quantise_four(uint32_t low, uint32_t high, float factor)
{
    return rt_float_e4m3(rt_bf16_low(low) * factor) |
           rt_float_e4m3(rt_bf16_high(low) * factor) << 8 |
           rt_float_e4m3(rt_bf16_low(high) * factor) << 16 |
           rt_float_e4m3(rt_bf16_high(high) * factor) << 24;
}

static __device__ __forceinline__ uint4 quantise(const uint4 x[2], float factor)
{
    return make_uint4(quantise_four(x[0].x, x[0].y, factor), quantise_four(x[0].z, x[0].w, factor),
                      quantise_four(x[1].x, x[1].y, factor), quantise_four(x[1].z, x[1].w, factor));
}

/* Lane i has scale i of the token: that of its tile's first lane; behind the last tile's is 0. */
static __device__ __forceinline__ void store_scales(const struct rt_quant_view &q, int log2,
                                                    unsigned char *scales)
{
    const uint32_t lane = rt_lane(), tiles = q.fp8 / q.tile;
    const uint32_t first = lane * (q.tile / LANE_ELEMENTS) % RT_WARP_LANES;
    const int mine = __shfl_sync(RT_FULL_WARP, log2, (int)first);
    const bool is_f32 = q.scale_kind == RT_QUANT_SCALE_F32;
    if (lane >= q.scale_bytes / (is_f32 ? 4u : 1u))
        return;
    if (is_f32)
        reinterpret_cast<float *>(scales)[lane] = lane < tiles ? rt_power_of_2(mine) : 0.0f;
    else
        scales[lane] = lane < tiles ? (unsigned char)(mine + 127) : 0;
}

/* By tiles: as many elements as a warp has at a time, at most. */
static __device__ __forceinline__ void quantise_tiles(const struct rt_quant_view &q,
                                                      const struct token_pieces &from, uint4 *row,
                                                      unsigned char *scales)
{
    const uint32_t lane = rt_lane();
    const bool mine = lane < q.fp8 / LANE_ELEMENTS;
    uint4 x[2] = {};
    if (mine) {
        x[0] = load_vector(from, 2 * lane);
        x[1] = load_vector(from, 2 * lane + 1);
    }
    uint32_t most = max(most_of_vector(x[0]), most_of_vector(x[1]));
    for (uint32_t distance = q.tile / LANE_ELEMENTS / 2; distance > 0; distance /= 2)
        most = max(most, __shfl_xor_sync(RT_FULL_WARP, most, (int)distance));
    const int log2 = scale_log2(most);
    if (mine)
        row[lane] = quantise(x, rt_power_of_2(-log2));
    store_scales(q, log2, scales);
}

static __device__ __forceinline__ void
quantise_by_tensor(const struct rt_quant_view &q, const struct token_pieces &from, uint4 *row)
{
    const float inverse = 1.0f / q.tensor_scale;
    for (uint32_t i = rt_lane(); i < q.fp8 / LANE_ELEMENTS; i += RT_WARP_LANES) {
        const uint4 x[2] = {load_vector(from, 2 * i), load_vector(from, 2 * i + 1)};
        row[i] = quantise(x, inverse);
    }
}

extern "C" __global__ void __launch_bounds__(RT_APPEND_WARPS *RT_WARP_LANES)
    rt_append_quant(const __grid_constant__ struct rt_append_quant_params p)
{
    const struct rt_append_params &a = p.general.append;
    const struct rt_quant_view &q = p.quant;
    const uint32_t index = blockIdx.x * RT_APPEND_WARPS + threadIdx.x / RT_WARP_LANES;
    const uint32_t row = index / a.rows.q_len, token = index - row * a.rows.q_len;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (row >= a.rows.count)
        return;

    const int64_t data_row = (int64_t)(a.rows.ctrl ? a.rows.ctrl->row_base : 0) + row;
    const struct rt_page_row at = append_place(p.general, row, token, index);
    if (!at.page)
        return;
    struct token_pieces from = {};
    from.latent = token_piece(a.latent, data_row, token);
    from.latent_vectors = (p.d_qk * 2 - p.general.rope_bytes) / sizeof(uint4);
    if (p.general.rope.base)
        from.rope = token_piece(p.general.rope, data_row, token);
    uint4 *to = row_address(a.kv, at);
    if (q.scale_kind == RT_QUANT_SCALE_TENSOR)
        quantise_by_tensor(q, from, to);
    else
        quantise_tiles(q, from, to, at.page + q.scale_offset_bytes + at.row * q.scale_stride_bytes);
    uint4 *rest = to + q.rest_offset_bytes / sizeof(uint4);
    for (uint32_t i = rt_lane(); i < (p.d_qk - q.fp8) / 8; i += RT_WARP_LANES)
        rest[i] = load_vector(from, q.fp8 / 8 + i);
}
