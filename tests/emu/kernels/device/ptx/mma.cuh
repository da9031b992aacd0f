/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_MMA_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_MMA_CUH

#include "tests/emu/emu.h"

static inline void rt_mma_bf16_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1)
{
    emu_multiply(d, a, b0, b1);
}

#endif
