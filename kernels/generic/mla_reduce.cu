/* SPDX-License-Identifier: Apache-2.0 */

/*
 * reduce: the pieces of split batch rows become their output.
 *
 *   m = max lse_i     g = m + log2(sum 2^(lse_i - m))     out = sum 2^(lse_i - g) partial_i
 *
 * Block (x, y): batch row x, query rows y * 8 .. + 8 and every further gridDim.y-th eight of them;
 * a warp per query row. Lanes share the pieces for g, then each lane owns VECTORS float4 columns
 * and adds the pieces in their order. Batch rows without keys get their zeros here, batch rows that
 * were never split cost one look at num_splits.
 */
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/mla.h"
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/timer.cuh"

#define RT_REDUCE_FULL_WARP 0xffffffffu
#define RT_REDUCE_LN_2 0.6931471805599453f
#define RT_REDUCE_INFINITY __builtin_huge_valf()
#define RT_REDUCE_LANE_COLUMNS 4 /* of a vector: 16 bytes */
#define RT_REDUCE_WARP_COLUMNS (32 * RT_REDUCE_LANE_COLUMNS)

/* Where a query row is written. */
struct rt_reduce_target {
    uint16_t *out; /* at this lane's first column */
    float *lse;
};

static __device__ __forceinline__ struct rt_reduce_target
rt_reduce_target_of(const struct rt_mla_reduce_params &p, int query, int lane)
{
    const int64_t row = (p.ctrl ? (int64_t)p.ctrl->row_base : 0) + blockIdx.x;
    const int token = query / (int)p.heads;
    const int head = query % (int)p.heads;
    return {p.out + row * p.out_row_stride + token * p.out_token_stride + head * p.out_head_stride +
                lane * RT_REDUCE_LANE_COLUMNS,
            p.lse + row * p.lse_row_stride + token * p.lse_token_stride + head * p.lse_head_stride};
}

/* log2 of the sum over all pieces; -inf where no piece has seen a key. The same in every lane. */
static __device__ __forceinline__ float rt_reduce_total(const float *lse, int64_t stride,
                                                        int pieces, int lane)
{
    float top = -RT_REDUCE_INFINITY;
    for (int i = lane; i < pieces; i += 32)
        top = fmaxf(top, lse[i * stride]);
    for (int distance = 16; distance > 0; distance /= 2)
        top = fmaxf(top, __shfl_xor_sync(RT_REDUCE_FULL_WARP, top, distance));
    const float base = top == -RT_REDUCE_INFINITY ? 0.0f : top;
    float sum = 0.0f;
    for (int i = lane; i < pieces; i += 32)
        sum += exp2f(lse[i * stride] - base);
    for (int distance = 16; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(RT_REDUCE_FULL_WARP, sum, distance);
    return base + log2f(sum);
}

template <int VECTORS>
static __device__ __forceinline__ void rt_reduce_store(const struct rt_reduce_target &to,
                                                       const float4 (&sum)[VECTORS])
{
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        const uint2 packed =
            make_uint2(rt_pack_bf16x2(sum[v].x, sum[v].y), rt_pack_bf16x2(sum[v].z, sum[v].w));
        *(uint2 *)(to.out + v * RT_REDUCE_WARP_COLUMNS) = packed;
    }
}

/* The weighted sum of 32 pieces or fewer. Four of them are loaded before the first is added. */
template <int VECTORS>
static __device__ __forceinline__ void rt_reduce_add(const float *piece, int64_t stride, int count,
                                                     float weight, float4 (&sum)[VECTORS])
{
#pragma unroll 4
    for (int i = 0; i < count; i++) {
        const float w = __shfl_sync(RT_REDUCE_FULL_WARP, weight, i);
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            const float4 x = *(const float4 *)(piece + i * stride + v * RT_REDUCE_WARP_COLUMNS);
            sum[v].x = fmaf(w, x.x, sum[v].x);
            sum[v].y = fmaf(w, x.y, sum[v].y);
            sum[v].z = fmaf(w, x.z, sum[v].z);
            sum[v].w = fmaf(w, x.w, sum[v].w);
        }
    }
}

template <int VECTORS>
static __device__ __forceinline__ void rt_reduce_query(const struct rt_mla_reduce_params &p,
                                                       int query, int64_t slot, int pieces)
{
    const int lane = (int)threadIdx.x % 32;
    const int64_t query_rows = (int64_t)p.q_len * p.heads;
    const float *lse = p.partial_lse + slot * query_rows + query;
    const struct rt_reduce_target to = rt_reduce_target_of(p, query, lane);
    const float total = rt_reduce_total(lse, query_rows, pieces, lane);
    const bool empty = total == -RT_REDUCE_INFINITY;
    float4 sum[VECTORS] = {};
    if (!empty) {
        const float *piece =
            p.partial_out + (slot * query_rows + query) * p.d_v + lane * RT_REDUCE_LANE_COLUMNS;
        const int64_t stride = query_rows * p.d_v;
        for (int first = 0; first < pieces; first += 32) {
            const int mine = first + lane;
            const float weight = mine < pieces ? exp2f(lse[mine * query_rows] - total) : 0.0f;
            rt_reduce_add(piece + first * stride, stride, min(pieces - first, 32), weight, sum);
        }
    }
    rt_reduce_store(to, sum);
    if (lane == 0)
        *to.lse = empty ? RT_REDUCE_INFINITY : total * RT_REDUCE_LN_2;
}

template <int VECTORS>
static __device__ __forceinline__ void rt_reduce_row(const struct rt_mla_reduce_params &p)
{
    const int row = (int)blockIdx.x;
    const bool empty = p.row_length[row] <= 0;
    const int slot = p.num_splits[row];
    const int pieces = empty ? 0 : p.num_splits[row + 1] - slot;
    if (!empty && pieces <= 0)
        return;
    const int query_rows = (int)(p.q_len * p.heads);
    const int first = (int)(blockIdx.y * RT_MLA_REDUCE_WARPS + threadIdx.x / 32);
    for (int query = first; query < query_rows; query += (int)(gridDim.y * RT_MLA_REDUCE_WARPS))
        rt_reduce_query<VECTORS>(p, query, slot, pieces);
}

extern "C" __global__ void __launch_bounds__(RT_MLA_REDUCE_THREADS)
    rt_mla_reduce(const __grid_constant__ struct rt_mla_reduce_params p)
{
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (p.d_v == 4 * RT_REDUCE_WARP_COLUMNS)
        rt_reduce_row<4>(p);
    else
        rt_reduce_row<2>(p);
    if (p.stamp_last) {
        __syncthreads(); /* every warp of the block is done */
        if (threadIdx.x == 0)
            atomicMax((unsigned long long *)p.stamp_last, rt_globaltimer_ns());
    }
}
