/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_OPAQUE_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_OPAQUE_CUH

#include "tests/emu/emu.h"

static inline uint32_t rt_opaque(uint32_t value)
{
    return value;
}

#endif
