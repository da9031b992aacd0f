/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_CONVERT_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_CONVERT_CUH

#include "tests/emu/emu.h"

static inline uint32_t rt_pack_bf16x2(float low, float high)
{
    return emu_bf16(low) | (uint32_t)emu_bf16(high) << 16;
}

#endif
