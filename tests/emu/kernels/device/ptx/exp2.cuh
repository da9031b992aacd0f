/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_EXP2_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_EXP2_CUH

#include "tests/emu/emu.h"

static inline float rt_flushed(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}

static inline float rt_exp2(float x)
{
    return rt_flushed(exp2f(rt_flushed(x)));
}

static inline float rt_log2(float x)
{
    return rt_flushed(log2f(rt_flushed(x)));
}

static inline float rt_reciprocal(float x)
{
    return rt_flushed(1.0f / rt_flushed(x));
}

static inline float rt_inverse_root(float x)
{
    return 1.0f / sqrtf(x);
}

#endif
