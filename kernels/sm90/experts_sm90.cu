/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/experts_down_stream.cuh"
#include "kernels/sm90/experts_up_stream.cuh"

/*
 * Device entry points: their names are their registry lines, up<vectors> and
 * down<vectors>x<tiles of a pass>. Blocks of two kernels share an SM, so that the next brings its
 * weights while this one computes.
 */
#define RT_EXPERTS_SM90_ENTRY(name, params, ...)                                                   \
    extern "C" __global__ void __launch_bounds__(RT_PROJECT_SM90_THREADS, 2)                       \
        rt_experts_sm90_##name(const __grid_constant__ params p)                                   \
    {                                                                                              \
        __VA_ARGS__(p);                                                                            \
    }
#define RT_EXPERTS_SM90_UP(vectors)                                                                \
    RT_EXPERTS_SM90_ENTRY(up##vectors, struct rt_experts_up_sm90_params,                           \
                          rt_experts_up_stream<vectors / 8>)
#define RT_EXPERTS_SM90_DOWN(vectors, tiles)                                                       \
    RT_EXPERTS_SM90_ENTRY(down##vectors##x##tiles, struct rt_experts_down_sm90_params,             \
                          rt_experts_down_stream<vectors / 8, tiles>)

RT_EXPERTS_SM90_UP(8)
RT_EXPERTS_SM90_UP(16)
RT_EXPERTS_SM90_DOWN(8, 1)
RT_EXPERTS_SM90_DOWN(8, 4)
RT_EXPERTS_SM90_DOWN(16, 1)
RT_EXPERTS_SM90_DOWN(16, 4)
