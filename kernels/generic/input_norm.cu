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
#include "kernels/device/input_norm.cuh"

template <uint32_t VECTORS>
static __device__ __forceinline__ void rt_input_norm_token(const struct rt_input_norm_params &p,
                                                           float (&sums)[RT_INPUT_NORM_WARPS])
{
    struct rt_input_norm_vectors<VECTORS> v;
    rt_input_norm_weights(p, v);
    rt_pdl_wait();
    rt_input_norm_load(p, v);
    rt_input_norm_finish(p, v, sums); /* A */
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
