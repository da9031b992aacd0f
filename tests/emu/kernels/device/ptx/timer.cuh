/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_TIMER_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_TIMER_CUH

#include "tests/emu/emu.h"

static inline uint64_t rt_globaltimer_ns(void)
{
    return 1;
}

#endif
