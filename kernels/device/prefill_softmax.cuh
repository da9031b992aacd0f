/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PREFILL_SOFTMAX_CUH
#define RT_KERNELS_DEVICE_PREFILL_SOFTMAX_CUH

/*
 * The running softmax of a thread's two query rows. Products of a warp leave it of every eight keys
 * two, in COUNT numbers: score[4 j + 2 i + e] is of row i, key 8 j + 2 (lane % 4) + e. The four
 * lanes of a quad share the rows; they have one base, and each a sum over its own keys.
 *
 * Exponents are of 2. What a weight is relative to, `base`, is a score times the scale, rounded
 * once, so that a weight is one multiplication with addition and one exponential; out, sum and lse
 * are relative to the same number, whose rounding is in none of them. It need not be the maximum:
 * it is raised to that where weights would exceed 2^8, which floats and bf16 hold as well as 1, and
 * most blocks then leave sums and outputs as they are.
 */
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/scan.cuh"

#define RT_PREFILL_INFINITY __builtin_huge_valf()
#define RT_PREFILL_LOG2_E 1.4426950408889634f
#define RT_PREFILL_LN_2 0.6931471805599453f

#define RT_PREFILL_SLACK 8.0f

template <int COUNT> struct rt_prefill_softmax {
    const float scale; /* of exponents of 2 */
    float base[2], sum[2], factor[2];
    float bound[2]; /* what exceeds it raises the base; -inf: there was no key yet */

    explicit __device__ __forceinline__ rt_prefill_softmax(float softmax_scale)
        : scale(softmax_scale * RT_PREFILL_LOG2_E)
    {
    }

    __device__ __forceinline__ void begin(void)
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            bound[i] = -RT_PREFILL_INFINITY;
            base[i] = sum[i] = 0.0f;
        }
    }

    /* Keys from limit on are not seen; limit[i] counts from this thread's first key. */
    static __device__ __forceinline__ void mask(float (&score)[COUNT], const int (&limit)[2])
    {
#pragma unroll
        for (int k = 0; k < COUNT; k++)
            if (k / 4 * 8 + k % 2 >= limit[k / 2 % 2])
                score[k] = -RT_PREFILL_INFINITY;
    }

    /* Sums of no key are 0 and stay so, whatever the base was: factor 1. */
    __device__ __forceinline__ void raise(const float (&score)[COUNT])
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = -RT_PREFILL_INFINITY;
#pragma unroll
            for (int k = 0; k < COUNT / 2; k++)
                most = fmaxf(most, score[k / 2 * 4 + i * 2 + k % 2]);
            most = fmaxf(most, __shfl_xor_sync(RT_FULL_WARP, most, 1));
            most = fmaxf(most, __shfl_xor_sync(RT_FULL_WARP, most, 2)) * scale;
            const bool up = most > bound[i], first = bound[i] == -RT_PREFILL_INFINITY;
            factor[i] = up && !first ? rt_exp2(base[i] - most) : 1.0f;
            base[i] = up ? most : base[i];
            bound[i] = up ? most + RT_PREFILL_SLACK : bound[i];
            sum[i] *= factor[i];
        }
    }

    /* In any row of the warp. */
    __device__ __forceinline__ bool is_raised(void) const
    {
        return __any_sync(RT_FULL_WARP, factor[0] != 1.0f || factor[1] != 1.0f);
    }

    /* Scores become weights. */
    __device__ __forceinline__ void weigh(float (&score)[COUNT])
    {
#pragma unroll
        for (int k = 0; k < COUNT; k++) {
            score[k] = rt_exp2(fmaf(score[k], scale, -base[k / 2 % 2]));
            sum[k / 2 % 2] += score[k];
        }
    }

    /* As the operand a of the next product has them, sixteen keys a step. */
    static __device__ __forceinline__ void pack(const float (&score)[COUNT],
                                                uint32_t (&weight)[COUNT / 8][4])
    {
#pragma unroll
        for (int i = 0; i < COUNT / 2; i++)
            weight[i / 4][i % 4] = rt_pack_bf16x2(score[2 * i], score[2 * i + 1]);
    }

    template <int NUMBERS> __device__ __forceinline__ void rescale(float (&out)[NUMBERS]) const
    {
#pragma unroll
        for (int i = 0; i < NUMBERS; i++)
            out[i] *= factor[i / 2 % 2];
    }

    /* Sums of all keys; what makes outputs of them, 0 where no key was seen or the head's sink is
     * all. */
    __device__ __forceinline__ void finish(const float *sink, uint32_t head)
    {
        const float score = sink ? sink[head] * RT_PREFILL_LOG2_E : -RT_PREFILL_INFINITY;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sum[i] += __shfl_xor_sync(RT_FULL_WARP, sum[i], 1);
            sum[i] += __shfl_xor_sync(RT_FULL_WARP, sum[i], 2);
            factor[i] = sum[i] == 0.0f ? 0.0f : 1.0f / (sum[i] + rt_exp2(score - base[i]));
        }
    }

    __device__ __forceinline__ float lse(int i, bool base2) const
    {
        if (sum[i] == 0.0f)
            return RT_PREFILL_INFINITY;
        const float exponent = base[i] + rt_log2(sum[i]);
        return base2 ? exponent : exponent * RT_PREFILL_LN_2;
    }

    /* Of row i; 0, and not NaN, where no key was seen or the sink is all. */
    __device__ __forceinline__ float output(float value, int i) const
    {
        return factor[i] == 0.0f ? 0.0f : value * factor[i];
    }
};

#endif
