/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/experts_down_few.cuh"
#include "kernels/sm90/experts_down_stream.cuh"
#include "kernels/sm90/experts_up_few.cuh"
#include "kernels/sm90/experts_up_stream.cuh"

/*
 * Device entry points: their names are their registry lines, up<vectors> and
 * down<vectors>x<tiles of a pass>, and of few tokens up_few and down_few_x<tiles>. Blocks of two
 * kernels share an SM, so that the next brings its weights while this one computes.
 */
#define RT_EXPERTS_SM90_ENTRY(name, threads, params, ...)                                          \
    extern "C" __global__ void __launch_bounds__(threads, 2)                                       \
        rt_experts_sm90_##name(const __grid_constant__ params p)                                   \
    {                                                                                              \
        __VA_ARGS__(p);                                                                            \
    }
#define RT_EXPERTS_SM90_UP(vectors)                                                                \
    RT_EXPERTS_SM90_ENTRY(up##vectors, RT_PROJECT_SM90_THREADS, struct rt_experts_up_sm90_params,  \
                          rt_experts_up_stream<vectors / 8>)
#define RT_EXPERTS_SM90_DOWN(vectors, tiles)                                                       \
    RT_EXPERTS_SM90_ENTRY(down##vectors##x##tiles, RT_PROJECT_SM90_THREADS,                        \
                          struct rt_experts_down_sm90_params,                                      \
                          rt_experts_down_stream<vectors / 8, tiles>)

RT_EXPERTS_SM90_UP(8)
RT_EXPERTS_SM90_UP(16)
RT_EXPERTS_SM90_DOWN(8, 1)
RT_EXPERTS_SM90_DOWN(8, 4)
RT_EXPERTS_SM90_DOWN(16, 1)
RT_EXPERTS_SM90_DOWN(16, 4)

#define RT_EXPERTS_SM90_FEW(name, half, ...)                                                       \
    RT_EXPERTS_SM90_ENTRY(name, RT_EXPERTS_SM90_FEW_THREADS,                                       \
                          struct rt_experts_##half##_sm90_params, __VA_ARGS__)

RT_EXPERTS_SM90_FEW(up_few, up, rt_experts_up_few)
RT_EXPERTS_SM90_FEW(down_few_x1, down, rt_experts_down_few<1>)
RT_EXPERTS_SM90_FEW(down_few_x4, down, rt_experts_down_few<4>)
