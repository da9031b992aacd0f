/* SPDX-License-Identifier: Apache-2.0 */
/* project on its own; the body is in project.cuh. */
#include "kernels/generic/project.cuh"

extern "C" __global__ void __launch_bounds__(RT_PROJECT_THREADS)
    rt_project(const __grid_constant__ struct rt_project_params p)
{
    const struct rt_project_tile tile = rt_project_find(p, blockIdx.x);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    rt_project_work(p, tile);
}
