/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_SETTLE_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_SETTLE_CUH

#include "tests/emu/emu.h"

static inline void rt_settle(uint32_t)
{
}

static inline void rt_settle(const void *)
{
}

static inline void *rt_settle_shared(void *shared)
{
    return shared;
}

#endif
