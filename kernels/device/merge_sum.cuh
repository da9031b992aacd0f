/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_MERGE_SUM_CUH
#define RT_KERNELS_DEVICE_MERGE_SUM_CUH

/* Vectors of pieces of attention, weighed by their lse and summed: the rule of
 * kernels/abi/merge.h. */
#include "kernels/abi/merge.h"
#include "kernels/device/bf16x8.cuh"
#include "kernels/device/ptx/exp2.cuh"

#define RT_MERGE_DEPTH 4u /* pieces that are added at once */
#define RT_MERGE_VECTOR 8u
#define RT_MERGE_INFINITY __builtin_huge_valf()
#define RT_MERGE_LOG2_E 1.4426950408889634f
#define RT_MERGE_LN_2 0.6931471805599453f

/* Of the pieces so far, weights relative to the one of lse `top`, -inf: none has seen a key. */
struct rt_merge_sum {
    struct rt_floats8 out;
    float top, total;
};

/* So many pieces; what is none has an infinite lse. */
struct rt_merge_pieces {
    float lse[RT_MERGE_DEPTH];
    uint4 packed[RT_MERGE_DEPTH];
};

static __device__ __forceinline__ bool rt_merge_seen(float lse)
{
    return fabsf(lse) != RT_MERGE_INFINITY;
}

/* to_base2: what makes a difference of two lse one of base 2. fmaxf leaves an lse of NaN out; its
 * weight is NaN. */
static __device__ __forceinline__ void rt_merge_add(const struct rt_merge_pieces &pieces,
                                                    float to_base2, struct rt_merge_sum &sum)
{
    float top = sum.top;
#pragma unroll
    for (uint32_t i = 0; i < RT_MERGE_DEPTH; i++)
        top = rt_merge_seen(pieces.lse[i]) ? fmaxf(top, pieces.lse[i]) : top;
    const float base = top == -RT_MERGE_INFINITY ? 0.0f : top;
    const float factor = rt_exp2((sum.top - base) * to_base2);
    sum.top = top;
    sum.total *= factor;
#pragma unroll
    for (uint32_t d = 0; d < RT_MERGE_VECTOR; d++)
        sum.out.at[d] *= factor;
#pragma unroll
    for (uint32_t i = 0; i < RT_MERGE_DEPTH; i++) {
        if (!rt_merge_seen(pieces.lse[i]))
            continue;
        const float weight = rt_exp2((pieces.lse[i] - base) * to_base2);
        const struct rt_floats8 x = rt_unpack_bf16x8(pieces.packed[i]);
        sum.total += weight;
#pragma unroll
        for (uint32_t d = 0; d < RT_MERGE_VECTOR; d++)
            sum.out.at[d] = fmaf(weight, x.at[d], sum.out.at[d]);
    }
}

/* What the head's sink adds to what divides; `sum` is that of all pieces. */
static __device__ __forceinline__ float
rt_merge_sink(const struct rt_merge_sum &sum, const float *sink, uint32_t head, float to_base2)
{
    return sink ? rt_exp2(sink[head] * RT_MERGE_LOG2_E - sum.top * to_base2) : 0.0f;
}

/* Behind the last: the vector, packed, and its lse, to base 2 where from_base2 is 1, to base e
 * where it is RT_MERGE_LN_2. By 0: no piece has seen a key, or the sink is all. */
static __device__ __forceinline__ uint4 rt_merge_finish(struct rt_merge_sum &sum, float sink,
                                                        float from_base2, float &lse)
{
    const bool seen = sum.total != 0;
    const float share = seen ? 1.0f / (sum.total + sink) : 0.0f;
#pragma unroll
    for (uint32_t d = 0; d < RT_MERGE_VECTOR; d++)
        sum.out.at[d] = share == 0 ? 0.0f : sum.out.at[d] * share;
    const float log_total = rt_log2(sum.total) * from_base2;
    lse = seen ? sum.top + log_total : RT_MERGE_INFINITY;
    return rt_pack_bf16x8(sum.out);
}

#endif
