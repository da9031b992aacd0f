/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_RSQRT_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_RSQRT_CUH

#include "tests/emu/emu.h"

static inline float rt_rsqrt(float x)
{
    return 1.0f / sqrtf(x);
}

#endif
