/* SPDX-License-Identifier: Apache-2.0 */
/*
 * input_norm: the residual is added to, and normed, by the rule of kernels/abi/input_norm.h.
 *
 *   hidden, residual [tokens, width] -> residual, normed [tokens, width]
 *
 * A block a token. A thread has VECTORS vectors of 8 numbers, the next one a block of them further:
 * 1, 2 or 4 of them serve widths up to 4096, 8192 and 16384. What is summed is what is stored.
 *
 *   weights │ wait │ hidden, residual │ residual, sum of squares │ A │ sum over the warps, normed
 *
 *   shared memory   bytes
 *   sums               64   of the warps
 *
 *   barrier   makes visible
 *   A         sums
 */
#include "kernels/abi/input_norm.h"
#include "kernels/device/copy.cuh"
#include "kernels/device/norm.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/residual.cuh"

#define RT_INPUT_NORM_THREADS (RT_INPUT_NORM_WARPS * RT_WARP_LANES)
#define RT_INPUT_NORM_ONE (RT_INPUT_NORM_THREADS * RT_VECTOR_ELEMENTS) /* a vector a thread */
RT_STATIC_ASSERT(4 * RT_INPUT_NORM_ONE >= RT_INPUT_NORM_MOST_WIDTH, "four are enough");

template <uint32_t VECTORS>
static __device__ __forceinline__ void rt_input_norm_token(const struct rt_input_norm_params &p,
                                                           float (&sums)[RT_INPUT_NORM_WARPS])
{
    const uint32_t vectors = p.norm.width / RT_VECTOR_ELEMENTS;
    const int64_t token = blockIdx.x * p.stride;
    const uint4 *hidden = reinterpret_cast<const uint4 *>(p.hidden + token);
    uint4 *residual = reinterpret_cast<uint4 *>(p.residual + token);
    uint4 *normed = reinterpret_cast<uint4 *>(p.normed + token);
    uint4 x[VECTORS], old[VECTORS], weight[VECTORS];
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++)
        weight[i] = rt_norm_weight(p.norm, i * RT_INPUT_NORM_THREADS + threadIdx.x);
    rt_pdl_wait();

#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t vector = i * RT_INPUT_NORM_THREADS + threadIdx.x;
        const bool have = vector < vectors;
        x[i] = have ? hidden[vector] : make_uint4(0, 0, 0, 0);
        old[i] = have && !p.first ? residual[vector] : make_uint4(0, 0, 0, 0);
    }
    float squares = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t vector = i * RT_INPUT_NORM_THREADS + threadIdx.x;
        if (!p.first)
            x[i] = rt_residual_sum(old[i], x[i], p.hidden_scale);
        if (vector < vectors && p.residual)
            residual[vector] = x[i];
        squares += rt_squares(x[i]);
    }
    const float factor =
        rt_norm_factor(p.norm, rt_block_sum<RT_INPUT_NORM_WARPS>(squares, sums)); /* A */
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t vector = i * RT_INPUT_NORM_THREADS + threadIdx.x;
        if (vector < vectors)
            normed[vector] = p.norm.weight ? rt_normed(p.norm, x[i], weight[i], factor) : x[i];
    }
}

extern "C" __global__ void __launch_bounds__(RT_INPUT_NORM_THREADS)
    rt_input_norm(const __grid_constant__ struct rt_input_norm_params p)
{
    __shared__ float sums[RT_INPUT_NORM_WARPS];
    /* As in append: what the kernel behind it reads before its own wait is older than the launch in
     * front of this one. */
    rt_pdl_launch_dependents();
    if (p.norm.width <= RT_INPUT_NORM_ONE)
        rt_input_norm_token<1>(p, sums);
    else if (p.norm.width <= 2 * RT_INPUT_NORM_ONE)
        rt_input_norm_token<2>(p, sums);
    else
        rt_input_norm_token<4>(p, sums);
}
