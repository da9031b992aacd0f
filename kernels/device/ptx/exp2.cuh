/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_EXP2_CUH
#define RT_KERNELS_DEVICE_PTX_EXP2_CUH

/*
 * 2^x to two units in the last place: PTX ISA, "ex2.approx.ftz.f32". exp2f() guards denormal
 * results with three more instructions; a weight below 2^-126 of the largest is 0 here.
 */
static __device__ __forceinline__ float rt_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* log2 x, off by 2^-22 at most: PTX ISA, "lg2.approx.ftz.f32". */
static __device__ __forceinline__ float rt_log2(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 1 / x to one unit in the last place: PTX ISA, "rcp.approx.ftz.f32". */
static __device__ __forceinline__ float rt_reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* x^-1/2, off by 2^-22 relatively at most: PTX ISA, "rsqrt.approx.f32". */
static __device__ __forceinline__ float rt_inverse_root(float x)
{
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
