/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/project_many.cuh"

/* Device entry points: their names are their registry lines, <most vectors>x<rows of a tile>. */
#define RT_PROJECT_MANY_ENTRY(name, rows, across)                                                  \
    extern "C" __global__ void __launch_bounds__(RT_PROJECT_MANY_THREADS)                          \
        rt_project_sm90_many##name(const __grid_constant__ struct rt_project_many_params p)        \
    {                                                                                              \
        rt_project_many<rows, across>(p);                                                          \
    }

RT_PROJECT_MANY_ENTRY(64x16, 16, 0)
RT_PROJECT_MANY_ENTRY(64x32, 32, 0)
RT_PROJECT_MANY_ENTRY(64x64, 64, 0)
RT_PROJECT_MANY_ENTRY(64x64_across, 64, 1)
