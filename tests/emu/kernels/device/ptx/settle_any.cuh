/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_SETTLE_ANY_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_SETTLE_ANY_CUH

#include "tests/emu/emu.h"

static inline void rt_settle_any(uint32_t)
{
}

#endif
