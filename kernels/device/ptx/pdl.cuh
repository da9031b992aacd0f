/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_PDL_CUH
#define RT_KERNELS_DEVICE_PTX_PDL_CUH

/*
 * Programmatic dependent launch: PTX ISA, "griddepcontrol". Both are nothing before sm_90, where an
 * edge is never programmatic.
 */

/*
 * Returns once the grids before this one are complete and their writes are visible to plain loads
 * (not to ld.global.nc: nothing a predecessor writes may be read through __ldg). A grid must not
 * finish without having waited, or its successor would overtake its predecessor: every block
 * passes here, or at least one that is always there.
 */
static __device__ __forceinline__ void rt_pdl_wait(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    /* volatile, memory: no access may move above it. */
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next grid may start as far as its own rt_pdl_wait; nothing is said about this grid's writes.
 */
static __device__ __forceinline__ void rt_pdl_launch_dependents(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif
