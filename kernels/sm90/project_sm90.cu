/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/project_across.cuh"
#include "kernels/sm90/project_along.cuh"

/*
 * Device entry points: their names are their registry lines, along<vectors>x<tiles of a pass> and
 * across<vectors>. Blocks of two products share an SM, or of three where they have few tiles, so
 * that the next brings its weights while this one computes.
 */
#define RT_PROJECT_SM90_ENTRY(name, threads, blocks, ...)                                          \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                  \
        name(const __grid_constant__ struct rt_project_sm90_params p)                              \
    {                                                                                              \
        __VA_ARGS__(p);                                                                            \
    }
#define RT_PROJECT_SM90_ALONG(vectors, tiles, blocks)                                              \
    RT_PROJECT_SM90_ENTRY(rt_project_sm90_along##vectors##x##tiles, RT_PROJECT_SM90_THREADS,       \
                          blocks, rt_project_along<vectors / 8, tiles>)
#define RT_PROJECT_SM90_ACROSS(vectors, blocks)                                                    \
    RT_PROJECT_SM90_ENTRY(rt_project_sm90_across##vectors, RT_PROJECT_SM90_ACROSS_THREADS, blocks, \
                          rt_project_across<vectors / 8>)

RT_PROJECT_SM90_ALONG(8, 1, 3)
RT_PROJECT_SM90_ALONG(8, 2, 2)
RT_PROJECT_SM90_ALONG(8, 4, 2)
RT_PROJECT_SM90_ALONG(16, 1, 2)
RT_PROJECT_SM90_ALONG(16, 2, 2)
RT_PROJECT_SM90_ALONG(16, 4, 2)
RT_PROJECT_SM90_ACROSS(8, 3)
RT_PROJECT_SM90_ACROSS(16, 2)
