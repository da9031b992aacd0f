/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_SYNC_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_SYNC_CUH

#include "tests/emu/barrier.h"

static inline void rt_bar_sync(uint32_t id, uint32_t threads)
{
    emu_bar_sync(id, threads);
}

static inline void rt_bar_arrive(uint32_t id, uint32_t threads)
{
    emu_bar_arrive(id, threads);
}

static inline void rt_fence_async(void)
{
    emu_order_fence();
}

template <int REGISTERS> static inline void rt_registers_up(void)
{
}

template <int REGISTERS> static inline void rt_registers_down(void)
{
}

static inline bool rt_elect_one(void)
{
    return emu_lane() == 0;
}

static inline bool rt_elected(void)
{
    return emu_lane() == 0;
}

#endif
