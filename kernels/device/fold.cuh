/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_FOLD_CUH
#define RT_KERNELS_DEVICE_FOLD_CUH

/*
 * Batch-invariant attention adds up what leaves and groups have left, one after the other:
 *
 *   top' = max(top, lse)    f = 2^(top - top')    w = 2^(lse - top')
 *   total' = total f + w    out' = out f + w x                        from -inf, 0 and 0 on
 *
 * and ends with lse = top + log2 total, x = out / total. Whoever adds, an SM that has all leaves or
 * reduce, does so by these functions, in which nothing is left to the compiler's choice: products
 * that stand alone and sums that are fused are named as such. So the bits are the same.
 */
#include "kernels/device/ptx/exp2.cuh"

#define RT_FOLD_INFINITY __builtin_huge_valf()
#define RT_FOLD_LOG2_E 1.4426950408889634f
#define RT_FOLD_LN_2 0.6931471805599453f

/* Sums of 2^(lse - top), and what they are relative to. */
struct rt_fold {
    float top, total;
};

/* What the sums up to now, and what is added, are multiplied by. */
struct rt_fold_step {
    float factor, weight;
};

static __device__ __forceinline__ struct rt_fold rt_fold_none(void)
{
    return {-RT_FOLD_INFINITY, 0.0f};
}

/* In exponents, 0 stands for a maximum of -inf: -inf less -inf would be NaN. */
static __device__ __forceinline__ float rt_fold_base(float top)
{
    return top == -RT_FOLD_INFINITY ? 0.0f : top;
}

static __device__ __forceinline__ struct rt_fold_step rt_fold_add(struct rt_fold &sum, float lse)
{
    const float top = fmaxf(sum.top, lse);
    const struct rt_fold_step step = {rt_exp2(sum.top - rt_fold_base(top)),
                                      rt_exp2(lse - rt_fold_base(top))};
    sum.top = top;
    sum.total = fmaf(sum.total, step.factor, step.weight);
    return step;
}

static __device__ __forceinline__ float rt_fold_number(float sum, const struct rt_fold_step &step,
                                                       float x)
{
    return fmaf(step.weight, x, __fmul_rn(sum, step.factor));
}

/* What sums are multiplied by; 0: there was no key, and they may be anything. */
static __device__ __forceinline__ float rt_fold_inverse(float total)
{
    return total == 0.0f ? 0.0f : rt_reciprocal(total);
}

static __device__ __forceinline__ float rt_fold_scaled(float x, float by)
{
    return by == 0.0f ? 0.0f : __fmul_rn(x, by);
}

/* Base 2, as partials have it. */
static __device__ __forceinline__ float rt_fold_lse(const struct rt_fold &sum)
{
    return sum.total == 0.0f ? -RT_FOLD_INFINITY : sum.top + rt_log2(sum.total);
}

/* Of a whole row: with the head's sink, or none, in what divides. */
static __device__ __forceinline__ float rt_fold_row_inverse(const struct rt_fold &sum,
                                                            const float *sink, int head)
{
    if (sum.total == 0.0f)
        return 0.0f;
    const float weight =
        sink ? rt_exp2(__fmul_rn(sink[head], RT_FOLD_LOG2_E) - rt_fold_base(sum.top)) : 0.0f;
    return rt_reciprocal(sum.total + weight);
}

static __device__ __forceinline__ float rt_fold_row_lse(const struct rt_fold &sum, bool base2)
{
    return sum.total == 0.0f ? RT_FOLD_INFINITY
                             : __fmul_rn(rt_fold_lse(sum), base2 ? 1.0f : RT_FOLD_LN_2);
}

#endif
