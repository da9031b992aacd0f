/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_TIMER_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_TIMER_CUH

#include "tests/emu/emu.h"

#include <ctime>

static inline uint64_t rt_globaltimer_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
