/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_RSQRT_CUH
#define RT_KERNELS_DEVICE_PTX_RSQRT_CUH

/* x^-1/2, off by 2^-22 of it at most: PTX ISA, "rsqrt.approx.f32". Infinity for 0, 0 for infinity.
 */
static __device__ __forceinline__ float rt_rsqrt(float x)
{
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
