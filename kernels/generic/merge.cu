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
#include "kernels/device/bf16x8.cuh"
#include "kernels/device/divisor.cuh"
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/settle.cuh"

#define RT_MERGE_DEPTH 4u
#define RT_MERGE_BLOCKS_PER_SM                                                                     \
    5u /* 48 registers: two pieces of 16 bytes a thread, 40 KB in flight */
#define RT_MERGE_VECTOR 8u
#define RT_MERGE_INFINITY __builtin_huge_valf()
#define RT_MERGE_LOG2_E 1.4426950408889634f
#define RT_MERGE_LN_2 0.6931471805599453f

/* Of the pieces so far, weights relative to the one of lse `top`, -inf: none has seen a key. */
struct rt_merge_sum {
    struct rt_floats8 out;
    float top, total;
};

/* A vector of piece 0, and its lse. */
struct rt_merge_source {
    const uint16_t *in;
    const float *lse;
    float to_base2; /* what makes a difference of two lse one of base 2 */
};

static __device__ __forceinline__ bool rt_merge_seen(float lse)
{
    return fabsf(lse) != RT_MERGE_INFINITY;
}

/* RT_MERGE_DEPTH pieces from `first` on. fmaxf leaves an lse of NaN out; its weight is NaN. */
static __device__ __forceinline__ void rt_merge_add(const struct rt_merge_params &p,
                                                    const struct rt_merge_source &source,
                                                    uint32_t first, struct rt_merge_sum &sum)
{
    float lse[RT_MERGE_DEPTH];
    uint4 packed[RT_MERGE_DEPTH];
#pragma unroll
    for (uint32_t i = 0; i < RT_MERGE_DEPTH; i++) {
        const uint32_t piece = first + i;
        const bool have = piece < p.pieces;
        lse[i] = have ? source.lse[piece * p.in_lse.piece_stride] : RT_MERGE_INFINITY;
        packed[i] = have ? *reinterpret_cast<const uint4 *>(source.in + piece * p.in.piece_stride)
                         : make_uint4(0, 0, 0, 0);
    }
    float top = sum.top;
#pragma unroll
    for (uint32_t i = 0; i < RT_MERGE_DEPTH; i++)
        top = rt_merge_seen(lse[i]) ? fmaxf(top, lse[i]) : top;
    const float base = top == -RT_MERGE_INFINITY ? 0.0f : top;
    const float factor = rt_exp2((sum.top - base) * source.to_base2);
    sum.top = top;
    sum.total *= factor;
#pragma unroll
    for (uint32_t d = 0; d < RT_MERGE_VECTOR; d++)
        sum.out.at[d] *= factor;
#pragma unroll
    for (uint32_t i = 0; i < RT_MERGE_DEPTH; i++) {
        if (!rt_merge_seen(lse[i]))
            continue;
        const float weight = rt_exp2((lse[i] - base) * source.to_base2);
        const struct rt_floats8 x = rt_unpack_bf16x8(packed[i]);
        sum.total += weight;
#pragma unroll
        for (uint32_t d = 0; d < RT_MERGE_VECTOR; d++)
            sum.out.at[d] = fmaf(weight, x.at[d], sum.out.at[d]);
    }
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
            head * p.in_lse.head_stride,
        p.lse_base2 ? 1.0f : RT_MERGE_LOG2_E};
    struct rt_merge_sum sum = {};
    sum.top = -RT_MERGE_INFINITY;
    for (uint32_t first = 0; first < pieces; first += RT_MERGE_DEPTH)
        rt_merge_add(p, source, first, sum);
    const bool seen = sum.total != 0;
    const float share = seen ? 1.0f / sum.total : 0.0f;
#pragma unroll
    for (uint32_t d = 0; d < RT_MERGE_VECTOR; d++)
        sum.out.at[d] *= share;
    uint16_t *to = static_cast<uint16_t *>(p.out.base) + token * p.out.token_stride +
                   head * p.out.head_stride + vector * RT_MERGE_VECTOR;
    *reinterpret_cast<uint4 *>(to) = rt_pack_bf16x8(sum.out);
    const float log_total = rt_log2(sum.total) * (p.lse_base2 ? 1.0f : RT_MERGE_LN_2);
    return seen ? sum.top + log_total : RT_MERGE_INFINITY;
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
