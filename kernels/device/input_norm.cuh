/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_INPUT_NORM_CUH
#define RT_KERNELS_DEVICE_INPUT_NORM_CUH

/* A token of a block, by the rule of kernels/abi/input_norm.h: a thread has VECTORS vectors of 8
 * numbers, the next one a block of them further. */
#include "kernels/abi/input_norm.h"
#include "kernels/device/copy.cuh"
#include "kernels/device/norm.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/residual.cuh"

#define RT_INPUT_NORM_THREADS (RT_INPUT_NORM_WARPS * RT_WARP_LANES)
#define RT_INPUT_NORM_ONE (RT_INPUT_NORM_THREADS * RT_VECTOR_ELEMENTS) /* a vector a thread */
RT_STATIC_ASSERT(4 * RT_INPUT_NORM_ONE >= RT_INPUT_NORM_MOST_WIDTH, "four are enough");

template <uint32_t VECTORS> struct rt_input_norm_vectors {
    uint4 x[VECTORS], old[VECTORS], weight[VECTORS]; /* of hidden, the residual */
};

/* Constant, and so to be asked for before the wait. */
template <uint32_t VECTORS>
static __device__ __forceinline__ void
rt_input_norm_weights(const struct rt_input_norm_params &p,
                      struct rt_input_norm_vectors<VECTORS> &v)
{
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++)
        v.weight[i] = rt_norm_weight(p.norm, i * RT_INPUT_NORM_THREADS + threadIdx.x);
}

template <uint32_t VECTORS>
static __device__ __forceinline__ void rt_input_norm_load(const struct rt_input_norm_params &p,
                                                          struct rt_input_norm_vectors<VECTORS> &v)
{
    const uint32_t vectors = p.norm.width / RT_VECTOR_ELEMENTS;
    const int64_t token = blockIdx.x * p.stride;
    const uint4 *const hidden = reinterpret_cast<const uint4 *>(p.hidden + token);
    const uint4 *const residual = reinterpret_cast<const uint4 *>(p.residual + token);
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t vector = i * RT_INPUT_NORM_THREADS + threadIdx.x;
        const bool have = vector < vectors;
        v.x[i] = have ? hidden[vector] : make_uint4(0, 0, 0, 0);
        v.old[i] = have && !p.first ? residual[vector] : make_uint4(0, 0, 0, 0);
    }
}

/* Adds, norms what is stored, and stores both. One barrier. */
template <uint32_t VECTORS>
static __device__ __forceinline__ void
rt_input_norm_finish(const struct rt_input_norm_params &p, struct rt_input_norm_vectors<VECTORS> &v,
                     float (&sums)[RT_INPUT_NORM_WARPS])
{
    const uint32_t vectors = p.norm.width / RT_VECTOR_ELEMENTS;
    const int64_t token = blockIdx.x * p.stride;
    uint4 *const residual = reinterpret_cast<uint4 *>(p.residual + token);
    uint4 *const normed = reinterpret_cast<uint4 *>(p.normed + token);
    float squares = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t vector = i * RT_INPUT_NORM_THREADS + threadIdx.x;
        if (!p.first)
            v.x[i] = rt_residual_sum(v.old[i], v.x[i], p.hidden_scale);
        if (vector < vectors && p.residual)
            residual[vector] = v.x[i];
        squares += rt_squares(v.x[i]);
    }
    const float factor =
        rt_norm_factor(p.norm, rt_block_sum<RT_INPUT_NORM_WARPS>(squares, sums)); /* A */
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t vector = i * RT_INPUT_NORM_THREADS + threadIdx.x;
        if (vector < vectors)
            normed[vector] =
                p.norm.weight ? rt_normed(p.norm, v.x[i], v.weight[i], factor) : v.x[i];
    }
}

#endif
