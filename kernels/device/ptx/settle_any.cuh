/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_SETTLE_ANY_CUH
#define RT_KERNELS_DEVICE_PTX_SETTLE_ANY_CUH

#include <stdint.h>

/* Waits until `value` is there, whatever it is, in front of what is volatile: PTX ISA, "nanosleep",
 * for no time at most. rt_settle's trap is for values that are never 0. */
static __device__ __forceinline__ void rt_settle_any(uint32_t value)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    /* volatile: it has no outputs, and keeps its place. */
    asm volatile("{\n"
                 ".reg .pred one;\n"
                 "setp.eq.u32 one, %0, 1;\n"
                 "@one nanosleep.u32 0;\n"
                 "}" ::"r"(value));
#else
    (void)value;
#endif
}

#endif
