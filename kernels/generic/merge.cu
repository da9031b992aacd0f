/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge: attention's pieces become one by their LSE, by the rule of kernels/abi/merge.h.
 *
 *   in [pieces][tokens, heads, v_dim], in_lse [pieces][tokens, heads] -> out, out_lse
 *
 * An item is a token and head, of rt_merge_lanes(v_dim) lanes of a warp with 8 numbers each; v_dim
 * above 256 is two rounds. Grid: as many blocks as hold all items, heads turning fastest. A lane
 * asks for the lse and 16 bytes of DEPTH pieces before it uses the first, so that up to four are
 * one trip to memory; sums of those before are brought to the new maximum.
 *
 *   wait │ live │ lse, in of DEPTH pieces │ sums │ out │ syncwarp │ out_lse      no shared memory
 *
 * out may be piece 0: each lane has read what lies where it writes. out_lse may be that of piece 0:
 * the item's lanes are one warp's, and all have read it at the syncwarp.
 */
#include "kernels/abi/merge.h"
#include "kernels/device/divisor.cuh"
#include "kernels/device/merge_sum.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/settle.cuh"

#define RT_MERGE_BLOCKS_PER_SM                                                                     \
    5u /* 48 registers: two pieces of 16 bytes a thread, 40 KB in flight */

/* A vector of piece 0, and its lse. */
struct rt_merge_source {
    const uint16_t *in;
    const float *lse;
};

/* RT_MERGE_DEPTH pieces from `first` on. */
static __device__ __forceinline__ struct rt_merge_pieces
rt_merge_load(const struct rt_merge_params &p, const struct rt_merge_source &source, uint32_t first)
{
    struct rt_merge_pieces pieces;
#pragma unroll
    for (uint32_t i = 0; i < RT_MERGE_DEPTH; i++) {
        const uint32_t piece = first + i;
        const bool have = piece < p.pieces;
        pieces.lse[i] = have ? source.lse[piece * p.in_lse.piece_stride] : RT_MERGE_INFINITY;
        pieces.packed[i] =
            have ? *reinterpret_cast<const uint4 *>(source.in + piece * p.in.piece_stride)
                 : make_uint4(0, 0, 0, 0);
    }
    return pieces;
}

/* Writes the item's vector number `vector`; returns the lse. */
static __device__ __forceinline__ float rt_merge_vector(const struct rt_merge_params &p,
                                                        uint32_t token, uint32_t head,
                                                        uint32_t vector, uint32_t pieces)
{
    const struct rt_merge_source source = {
        static_cast<const uint16_t *>(p.in.base) + token * p.in.token_stride +
            head * p.in.head_stride + vector * RT_MERGE_VECTOR,
        static_cast<const float *>(p.in_lse.base) + token * p.in_lse.token_stride +
            head * p.in_lse.head_stride};
    const float to_base2 = p.lse_base2 ? 1.0f : RT_MERGE_LOG2_E;
    struct rt_merge_sum sum = {};
    float lse;
    sum.top = -RT_MERGE_INFINITY;
    for (uint32_t first = 0; first < pieces; first += RT_MERGE_DEPTH)
        rt_merge_add(rt_merge_load(p, source, first), to_base2, sum);
    uint16_t *to = static_cast<uint16_t *>(p.out.base) + token * p.out.token_stride +
                   head * p.out.head_stride + vector * RT_MERGE_VECTOR;
    *reinterpret_cast<uint4 *>(to) = rt_merge_finish(
        sum, rt_merge_sink(sum, p.sink, head, to_base2), p.lse_base2 ? 1.0f : RT_MERGE_LN_2, lse);
    return lse;
}

extern "C" __global__ void __launch_bounds__(RT_MERGE_THREADS, RT_MERGE_BLOCKS_PER_SM)
    rt_merge(const __grid_constant__ struct rt_merge_params p)
{
    const uint32_t lanes = rt_merge_lanes(p.v_dim), vectors = p.v_dim / RT_MERGE_VECTOR;
    const uint32_t item =
        blockIdx.x * (RT_MERGE_THREADS / lanes) + threadIdx.x / lanes; /* lanes: a power of two */
    const uint32_t lane = threadIdx.x % lanes;
    const rt_divisor<uint32_t> heads(p.heads);
    const uint32_t token = heads.quotient(item), head = item - token * heads.by;
    rt_settle(token + 1);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const uint32_t pieces = token < rt_merge_live(&p) ? p.pieces : 0;
    float lse = 0;
    for (uint32_t vector = lane; vector < vectors && token < p.tokens; vector += lanes)
        lse = rt_merge_vector(p, token, head, vector, pieces);
    __syncwarp(); /* the lse of piece 0, read: out_lse may lie there */
    if (lane == 0 && token < p.tokens && p.out_lse.base)
        static_cast<float *>(
            p.out_lse.base)[token * p.out_lse.token_stride + head * p.out_lse.head_stride] = lse;
}
